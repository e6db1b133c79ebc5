//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Redirects whose destination is known. */
#include "bpf.h"

enum { ARRAY_OF_MAPS = 12, EXCLUDE_INGRESS = 1 << 4 };

char _license[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} ports SEC(".maps");

SEC("xdp")
int first(struct xdp_md *ctx)
{
	return bpf_redirect_map(&ports, 0, XDP_DROP);
}

SEC("xdp")
int second(struct xdp_md *ctx)
{
	/* A redirect that is not taken, and a jump over the one that is. */
	if (bpf_redirect_map(&ports, 3, XDP_DROP) == XDP_DROP && ctx->rx_queue_index < 8)
		return bpf_redirect_map(&ports, 1, XDP_DROP);
	return XDP_PASS;
}

SEC("xdp")
int everywhere(struct xdp_md *ctx)
{
	return bpf_redirect_map(&ports, 0, BPF_F_BROADCAST);
}

SEC("xdp")
int elsewhere(struct xdp_md *ctx)
{
	return bpf_redirect_map(&ports, 0, BPF_F_BROADCAST | EXCLUDE_INGRESS);
}

SEC("xdp")
int high(struct xdp_md *ctx)
{
	/* A key whose low 32 bits, which the kernel uses, are 1. */
	__u64 key = 1 | (__u64)bpf_get_prandom_u32() << 32;

	return bpf_redirect_map(&ports, key, XDP_DROP);
}

static __attribute__((noinline)) long go(__u32 device)
{
	return bpf_redirect(device, 0);
}

SEC("xdp")
int direct(struct xdp_md *ctx)
{
	bpf_redirect_map(&ports, 0, XDP_DROP); /* which the next one replaces */
	return go(7 + ctx->rx_queue_index);
}

SEC("xdp")
int random(struct xdp_md *ctx)
{
	bpf_redirect_map(&ports, 0, XDP_DROP);
	return go(bpf_get_prandom_u32() >> 8);
}

SEC("xdp")
int random_marked(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data;

	if (data + 1 > (__u8 *)(long)ctx->data_end)
		return XDP_PASS;
	data[0] = 0x5a;
	bpf_redirect_map(&ports, 0, XDP_DROP);
	return go(bpf_get_prandom_u32() >> 8);
}

static __attribute__((always_inline)) int mark(struct xdp_md *ctx, __u32 value)
{
	__u8 *data = (void *)(long)ctx->data;

	if (data + 4 > (__u8 *)(long)ctx->data_end)
		return XDP_PASS;
	bpf_redirect_map(&ports, 0, XDP_DROP);
	__builtin_memcpy(data, &value, sizeof(value));
	return XDP_TX;
}

SEC("xdp")
int tx_marked(struct xdp_md *ctx)
{
	return mark(ctx, 0x5a5a5a5a);
}

SEC("xdp")
int tx_random(struct xdp_md *ctx)
{
	return mark(ctx, bpf_get_prandom_u32());
}

struct inner {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
};

struct {
	__uint(type, ARRAY_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct inner);
} tables SEC(".maps");

static __attribute__((always_inline)) int by_table(__u32 number)
{
	void *table = bpf_map_lookup_elem(&tables, &number);

	return table ? bpf_redirect_map(table, 1, XDP_DROP) : XDP_ABORTED;
}

SEC("xdp")
int red(struct xdp_md *ctx)
{
	return by_table(0);
}

SEC("xdp")
int blue(struct xdp_md *ctx)
{
	return by_table(2);
}

SEC("xdp")
int pass(struct xdp_md *ctx)
{
	bpf_redirect_map(&ports, 0, XDP_DROP);
	return XDP_PASS;
}
