//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Lines that run a known number of times. */
#include "bpf.h"

char _license[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} sums SEC(".maps");

static __attribute__((noinline)) __u64 twice(__u64 x)
{
	if (x & 1)
		return 2 * x + 1; /* odd */
	return 2 * x; /* even */
}

static int add(__u32 i, void *sum)
{
	*(__u64 *)sum += i; /* in a callback */
	return 0;
}

SEC("xdp")
int counted(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u64 sum = 0, *slot;

	if (data + 64 > end)
		return XDP_ABORTED; /* short */
	for (__u32 i = 0; i < 10; i++) {
		__u32 key = i;

		slot = bpf_map_lookup_elem(&sums, &key);
		if (!slot)
			return XDP_DROP; /* never */
		*slot += 1; /* ten times */
		sum += twice(*slot + i);
	}
	bpf_loop(7, add, &sum, 0);
	if (*(__u8 *)data == 1) {
		sum++; /* ones */
		return sum ? XDP_TX : XDP_DROP;
	}
	return XDP_PASS; /* others */
}

/* More values than there are registers are in use where blocks begin. */
SEC("xdp")
int pressed(struct xdp_md *ctx)
{
	__u8 *p = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u64 v[9];

	if (p + 64 > end)
		return XDP_ABORTED;
	for (int i = 0; i < 9; i++)
		v[i] = p[i];
#pragma clang loop unroll(full)
	for (int i = 0; i < 9; i++) {
		barrier_var(v[0]);
		if (p[16 + i] & 1)
			v[i] += v[(i + 1) % 9] * 3; /* pressed */
		else
			v[(i + 4) % 9] ^= v[i] + 7;
	}
	return (v[0] ^ v[1] ^ v[2] ^ v[3] ^ v[4] ^ v[5] ^ v[6] ^ v[7] ^ v[8]) & 1 ? XDP_TX : XDP_PASS;
}
