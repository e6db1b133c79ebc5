//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* A program as a user would have: a map of each type, tables, variables, pins. */
#include "bpf.h"

#ifndef CUT
char _license[] SEC("license") = "Dual BSD/GPL";
#endif

#define __array(name, val) typeof(val) *name[]
#define LIBBPF_PIN_BY_NAME 1

enum {
	HASH = 1, ARRAY, PROG_ARRAY, PERF_EVENT_ARRAY, PERCPU_HASH, PERCPU_ARRAY, LRU_HASH = 9, LRU_PERCPU_HASH,
	LPM_TRIE, ARRAY_OF_MAPS, HASH_OF_MAPS, DEVMAP, CPUMAP = 16, XSKMAP, QUEUE = 22, RINGBUF = 27,
};

struct flow {
	__u32 from, to;
};

#ifndef FLOWS
#define FLOWS 1024
#endif
#ifndef COUNT
#define COUNT __u64
#endif

#define MAP(name, kind, keys, values, entries) \
	struct { \
		__uint(type, kind); \
		__uint(max_entries, entries); \
		__type(key, keys); \
		__type(value, values); \
	} name SEC(".maps")

struct {
	__uint(type, LRU_HASH);
	__uint(max_entries, FLOWS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct flow);
	__type(value, COUNT);
} flows_of_this_balancer SEC(".maps");

MAP(hash, HASH, struct flow, __u32, 1000);
MAP(percpu_hash, PERCPU_HASH, __u32, __u32, 100);
MAP(lru_percpu, LRU_PERCPU_HASH, __u32, __u64, 100);
MAP(array, ARRAY, __u32, __u32, 50);
MAP(counters, PERCPU_ARRAY, __u32, __u64, 8);
MAP(ports, DEVMAP, __u32, __u32, 8);
MAP(cpus, CPUMAP, __u32, __u32, 2);
MAP(sockets, XSKMAP, __u32, __u32, 8);

struct {
	__uint(type, LPM_TRIE);
	__uint(max_entries, 100);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow);
	__type(value, __u32);
} routes SEC(".maps");

struct {
	__uint(type, RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

struct {
	__uint(type, QUEUE);
	__uint(max_entries, 4);
	__uint(value_size, 4);
} waiting SEC(".maps");

struct inner {
	__uint(type, HASH);
	__uint(max_entries, 10);
	__type(key, __u32);
	__type(value, __u32);
} blue SEC(".maps"), green SEC(".maps");

struct {
	__uint(type, ARRAY_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct inner);
} colors SEC(".maps") = {.values = {[1] = &blue}};

struct {
	__uint(type, HASH_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct inner);
} shades SEC(".maps");

struct {
	__uint(type, PROG_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} stages SEC(".maps");

struct config {
	__u16 port;
	bool strict;
	__u8 mac[6];
	struct {
		__u32 address;
		char name[8];
	} backends[2];
};

enum mode { MODE_FAST = 3, MODE_SLOW };

const volatile __u8 small = 1;
const volatile __s32 level = -1;
const volatile __u64 large = 0;
const volatile bool on = false;
const volatile enum mode mode = MODE_FAST;
const volatile struct config config = {};
static const volatile __u32 hidden = 7;
__u32 seen = 0;
__u32 limit = 5;

static long (*const bpf_map_peek_elem)(void *map, void *value) = (void *)89;
static long (*const bpf_ringbuf_output)(void *map, void *data, __u64 size, __u64 flags) = (void *)130;

/* Looks up in each map, and returns what variables say. */
SEC("xdp")
int balance(struct xdp_md *ctx)
{
	struct flow f = {1, 2};
	__u32 key = 1, found = 0, value = 0, *inner;
	void *m;

	found += !!bpf_map_lookup_elem(&flows_of_this_balancer, &f);
	found += !!bpf_map_lookup_elem(&hash, &f);
	found += !!bpf_map_lookup_elem(&percpu_hash, &key);
	found += !!bpf_map_lookup_elem(&lru_percpu, &key);
	found += !!bpf_map_lookup_elem(&array, &key);
	found += !!bpf_map_lookup_elem(&counters, &key);
	found += !!bpf_map_lookup_elem(&sockets, &key);
	found += !!bpf_map_lookup_elem(&ports, &key);
	found += bpf_redirect_map(&cpus, key, 0) == XDP_REDIRECT;
	f.from = 32;
	found += !!bpf_map_lookup_elem(&routes, &f);
	bpf_map_peek_elem(&waiting, &value);
	bpf_ringbuf_output(&events, &value, sizeof(value), 0);
	if ((m = bpf_map_lookup_elem(&colors, &key)) && (inner = bpf_map_lookup_elem(m, &key)))
		found += *inner;
	if ((m = bpf_map_lookup_elem(&shades, &key)) && (inner = bpf_map_lookup_elem(m, &key)))
		found += *inner;
	seen += found + hidden;
	if (small == 9 && level == -5 && large == 1ull << 40 && on && mode == MODE_SLOW && config.port == 443 && config.strict &&
	    config.backends[1].name[0] == 'w')
		return XDP_TX;
	if (seen > limit)
		bpf_tail_call(ctx, &stages, 2);
	return XDP_DROP;
}

SEC("xdp/stage_of_the_balancer")
int stage_of_the_balancer(struct xdp_md *ctx)
{
	__u32 key = 3, *v = bpf_map_lookup_elem(&array, &key);

	return v && *v ? XDP_PASS : XDP_ABORTED;
}

/* Changes maps with each packet, and counts what fails. */
SEC("xdp")
int busy(struct xdp_md *ctx)
{
	__u32 at = bpf_get_prandom_u32() % 500, one = 1;
	struct flow f = {at, at};
	__u32 runs = 0, failed = 1;
	__u64 *n;

	if (bpf_map_update_elem(&hash, &f, &one, BPF_ANY) || bpf_map_update_elem(&percpu_hash, &one, &one, BPF_ANY) ||
	    bpf_map_update_elem(&routes, &(struct flow){32, at % 50}, &one, BPF_ANY))
		runs = failed;
	n = bpf_map_lookup_elem(&counters, &runs);
	if (n)
		(*n)++;
	return XDP_DROP;
}

#ifndef ONE
SEC("tc")
int classify(void *skb)
{
	return 0;
}

SEC("xdp/devmap")
int at_exit(struct xdp_md *ctx)
{
	return ctx->egress_ifindex ? XDP_PASS : XDP_DROP;
}

SEC("something")
int untyped(struct xdp_md *ctx)
{
	return XDP_PASS;
}

/* The verifier refuses it. */
SEC("xdp")
int wild(struct xdp_md *ctx)
{
	return *(__u8 *)(long)ctx->data;
}
#endif
