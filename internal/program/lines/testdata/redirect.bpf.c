//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Redirects whose destination is known. */
#include "bpf.h"

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
int pass(struct xdp_md *ctx)
{
	bpf_redirect_map(&ports, 0, XDP_DROP);
	return XDP_PASS;
}
