//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Pairs of programs that do the same work and differ in one indirect branch.
 *
 * A program is run once by BPF_PROG_TEST_RUN and takes its own time: that of
 * TURNS turns of the work, which the system call is no part of. It also adds
 * up what the work gave, so that both of a pair can be held to one result.
 *
 * `zero` and `other` are always 0. The verifier cannot know. */
#include "bpf.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define TURNS 256
#define VALUE 7
#define noinline __attribute__((noinline))

struct run {
	__u64 begin;
	__u64 ns;    /* time of all turns */
	__u64 turns; /* turns made */
	__u64 sum;   /* what they gave */
};

struct run run SEC(".data.run");
volatile __u32 zero SEC(".data.run");

static __always_inline int finish(__u64 begin, __u64 sum)
{
	run.ns = bpf_ktime_get_ns() - begin;
	run.turns = TURNS;
	run.sum = sum;
	return XDP_DROP;
}

/* One key for all: an array reads its first word as the index, a trie as the
 * prefix length. */
struct key {
	__u32 prefix;
	__u32 data;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} array SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct key);
	__type(value, __u64);
} hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 64);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct key);
	__type(value, __u64);
} lpm SEC(".maps");

static __always_inline int lookups(void *map)
{
	struct key key = { .prefix = 32, .data = 1 };
	__u64 begin = bpf_ktime_get_ns(), sum = 0, *value;
	__u32 i;

	for (i = 0; i < TURNS; i++) {
		value = bpf_map_lookup_elem(map, &key);
		if (!value)
			return XDP_ABORTED;
		sum += *value;
	}
	return finish(begin, sum);
}

/* A map that may be one of two: which, the verifier cannot know. The barrier
 * keeps the compiler from making two calls of it. */
static __always_inline void *either(void *map, void *unlike)
{
	void *m = zero ? unlike : map;

	barrier_var(m);
	return m;
}

SEC("xdp")
int array_known(struct xdp_md *ctx)
{
	return lookups(&array);
}

SEC("xdp")
int array_unknown(struct xdp_md *ctx)
{
	return lookups(either(&array, &hash));
}

SEC("xdp")
int hash_known(struct xdp_md *ctx)
{
	return lookups(&hash);
}

SEC("xdp")
int hash_unknown(struct xdp_md *ctx)
{
	return lookups(either(&hash, &array));
}

SEC("xdp")
int lpm_known(struct xdp_md *ctx)
{
	return lookups(&lpm);
}

SEC("xdp")
int lpm_unknown(struct xdp_md *ctx)
{
	return lookups(either(&lpm, &hash));
}

/* The program calls itself until the kernel ends it: MAX_TAIL_CALL_CNT is 33. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} tail_constant_map SEC(".maps"), tail_variable_map SEC(".maps");

static __always_inline void enter(void)
{
	if (!run.turns++)
		run.begin = bpf_ktime_get_ns();
}

static __always_inline int leave(void)
{
	run.ns = bpf_ktime_get_ns() - run.begin;
	run.sum = run.turns * VALUE;
	run.turns--; /* the first one was not jumped to */
	return XDP_DROP;
}

SEC("xdp")
int tail_constant(struct xdp_md *ctx)
{
	enter();
	bpf_tail_call(ctx, &tail_constant_map, 0);
	return leave();
}

SEC("xdp")
int tail_variable(struct xdp_md *ctx)
{
	enter();
	bpf_tail_call(ctx, &tail_variable_map, zero);
	return leave();
}

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TURNS);
	__type(key, __u32);
	__type(value, __u64);
} elements SEC(".maps");

static int add_element(void *map, __u32 *key, __u64 *value, __u64 *sum)
{
	*sum += VALUE;
	return 0;
}

static int add_turn(__u32 i, __u64 *sum)
{
	*sum += VALUE;
	return 0;
}

SEC("xdp")
int for_each(struct xdp_md *ctx)
{
	__u64 begin = bpf_ktime_get_ns(), sum = 0;

	bpf_for_each_map_elem(&elements, add_element, &sum, 0);
	return finish(begin, sum);
}

SEC("xdp")
int loop_inlined(struct xdp_md *ctx)
{
	__u64 begin = bpf_ktime_get_ns(), sum = 0;

	bpf_loop(TURNS, add_turn, &sum, 0);
	return finish(begin, sum);
}

/* The verifier inlines bpf_loop only when it knows that flags are 0. */
SEC("xdp")
int loop_called(struct xdp_md *ctx)
{
	__u64 begin = bpf_ktime_get_ns(), sum = 0;

	bpf_loop(TURNS, add_turn, &sum, zero);
	return finish(begin, sum);
}

/* A helper that does next to nothing: a direct call and its return. */
SEC("xdp")
int helper_called(struct xdp_md *ctx)
{
	__u64 begin = bpf_ktime_get_ns(), sum = 0;
	__u32 i;

	for (i = 0; i < TURNS; i++)
		sum += bpf_xdp_get_buff_len(ctx);
	return finish(begin, sum);
}

SEC("xdp")
int helper_spared(struct xdp_md *ctx)
{
	__u64 begin = bpf_ktime_get_ns(), sum = 0, length = bpf_xdp_get_buff_len(ctx);
	__u32 i;

	for (i = 0; i < TURNS; i++) {
		barrier_var(length);
		sum += length;
	}
	return finish(begin, sum);
}

/* A program that is called and returns. */
SEC("xdp")
int nothing(struct xdp_md *ctx)
{
	return XDP_DROP;
}

/* One that is called and returns, in the kernel's test loop as nothing is, but
 * never by the BPF dispatcher: it is not of XDP. */
SEC("tc")
int reference(void *ctx)
{
	return 0;
}

SEC("xdp/devmap")
int second(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("raw_tp/xdp_redirect")
int observer(void *ctx)
{
	return 0;
}
