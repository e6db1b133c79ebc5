//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* A program of more than 100 000 instructions and 60 maps. */
#include "bpf.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define ONE(n) \
	struct { \
		__uint(type, BPF_MAP_TYPE_HASH); \
		__uint(max_entries, 100); \
		__type(key, __u32); \
		__type(value, __u32); \
	} map_##n SEC(".maps");
#define TEN(n) ONE(n##0) ONE(n##1) ONE(n##2) ONE(n##3) ONE(n##4) ONE(n##5) ONE(n##6) ONE(n##7) ONE(n##8) ONE(n##9)
TEN(1) TEN(2) TEN(3) TEN(4) TEN(5) TEN(6)

#define LOOK(n) \
	if ((value = bpf_map_lookup_elem(&map_##n, &key))) \
		found += *value;
#define LOOKS(n) \
	LOOK(n##0) LOOK(n##1) LOOK(n##2) LOOK(n##3) LOOK(n##4) LOOK(n##5) LOOK(n##6) LOOK(n##7) LOOK(n##8) LOOK(n##9)

SEC("xdp")
int large(struct xdp_md *ctx)
{
	__u32 key = ctx->rx_queue_index, *value;
	__u64 found = ctx->rx_queue_index;

	LOOKS(1) LOOKS(2) LOOKS(3) LOOKS(4) LOOKS(5) LOOKS(6)
	asm volatile(".rept 100000\n%0 += 3\n.endr" : "+r"(found));
	return found == 300000 ? XDP_PASS : XDP_DROP;
}
