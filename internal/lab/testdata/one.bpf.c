// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* A program whose number of instructions is known; with -DMORE it has one more. */
#include "bpf.h"

char _license[] SEC("license") = "Dual BSD/GPL";

SEC("xdp")
int one(struct xdp_md *ctx)
{
	__u64 x = ctx->rx_queue_index;

	asm volatile("%[x] += 3" : [x] "+r"(x));
#ifdef MORE
	asm volatile("%[x] += 5" : [x] "+r"(x));
#endif
	return x == 42 ? XDP_PASS : XDP_DROP;
}
