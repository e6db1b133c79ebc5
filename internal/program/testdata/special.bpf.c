//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Values that the kernel keeps more in than bytes, and definitions of maps as iproute2 had
 * them. */
#include "bpf.h"

char _license[] SEC("license") = "Dual BSD/GPL";

struct bpf_spin_lock {
	__u32 val;
};

struct bpf_timer {
	__u64 opaque[2];
} __attribute__((aligned(8)));

struct locked {
	struct bpf_spin_lock lock;
	__u32 count;
};

struct timed {
	__u64 count;
	struct bpf_timer timer;
};

#define MAP(name, kind, values) \
	struct { \
		__uint(type, kind); \
		__uint(max_entries, 100); \
		__type(key, __u32); \
		__type(value, values); \
	} name SEC(".maps")

MAP(locked, BPF_MAP_TYPE_HASH, struct locked);
MAP(locked_array, BPF_MAP_TYPE_ARRAY, struct locked);
MAP(timed, BPF_MAP_TYPE_HASH, struct timed);

/* struct bpf_elf_map of iproute2: where to pin it is behind what the kernel knows. */
struct {
	__u32 type, size_key, size_value, max_elem, flags, id, pinning;
} old SEC("maps") = {BPF_MAP_TYPE_HASH, 4, 4, 10, 0, 3, 2};

static long (*const bpf_spin_lock)(struct bpf_spin_lock *lock) = (void *)93;
static long (*const bpf_spin_unlock)(struct bpf_spin_lock *lock) = (void *)94;

SEC("xdp")
int special(struct xdp_md *ctx)
{
	__u32 key = 1, *v, count = 0;
	struct locked *l = bpf_map_lookup_elem(&locked, &key), *a = bpf_map_lookup_elem(&locked_array, &key);
	struct timed *t = bpf_map_lookup_elem(&timed, &key);

	if (l) {
		bpf_spin_lock(&l->lock);
		count += l->count++;
		bpf_spin_unlock(&l->lock);
	}
	if (a) {
		bpf_spin_lock(&a->lock);
		count += a->count++;
		bpf_spin_unlock(&a->lock);
	}
	v = bpf_map_lookup_elem(&old, &key);
	count += v ? *v : 0;
	count += t ? t->count : 0;
	return count == 10 ? XDP_PASS : XDP_DROP;
}
