// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* A program for --bpf: large frames are redirected through a map of type MAP, frames
 * of 99 bytes are dropped, the rest is the stack's. */
#include "bpf.h"

#ifdef MAP
struct {
	__uint(type, MAP);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} out SEC(".maps");
#endif

SEC("xdp")
int large(struct xdp_md *ctx)
{
	__u32 size = ctx->data_end - ctx->data;

	if (size == 99)
		return XDP_DROP;
#ifdef MAP
	if (size >= 100)
		return bpf_redirect_map(&out, ctx->rx_queue_index, XDP_PASS);
#endif
	return XDP_PASS;
}

#ifdef TWO
SEC("xdp")
int other(struct xdp_md *ctx)
{
	return XDP_PASS;
}
#endif

char _license[] SEC("license") = "Dual BSD/GPL";
