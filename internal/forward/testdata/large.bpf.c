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
#ifdef FLAGS
	__uint(map_flags, FLAGS);
#endif
} out SEC(".maps");
#endif

#ifdef ROOM
/* As many MiB. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ROOM);
	__uint(key_size, 4);
	__uint(value_size, 1 << 20);
} room SEC(".maps");
#endif

SEC("xdp")
int large(struct xdp_md *ctx)
{
	__u32 size = ctx->data_end - ctx->data;

#ifdef SLOW
	/* The verifier follows each of 2^15 paths. */
	__u64 sum = 0, random = bpf_get_prandom_u32();
#define ADD(bit) asm volatile("r1 = %1\nr1 &= %2\nif r1 == 0 goto +1\n%0 += %2" : "+r"(sum) : "r"(random), "i"(1 << bit) : "r1");
	ADD(0) ADD(1) ADD(2) ADD(3) ADD(4) ADD(5) ADD(6) ADD(7) ADD(8) ADD(9) ADD(10) ADD(11) ADD(12) ADD(13) ADD(14)
	if (sum == 42)
		return XDP_DROP;
#endif
#ifdef USED
	__u32 first = 0;

	if (!bpf_map_lookup_elem(&room, &first))
		return XDP_PASS;
#endif
	if (size == 99)
		return XDP_DROP;
#ifdef MAP
	if (size >= 100)
		return bpf_redirect_map(&out, ctx->rx_queue_index, XDP_PASS);
#endif
	return XDP_PASS;
}

#ifdef TAIL
int large(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__array(values, int(void *));
} stages SEC(".maps") = { .values = { [0] = (void *)&large } };

SEC("xdp")
int entry(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &stages, 0);
	return XDP_DROP;
}
#endif

#ifdef TWO
SEC("xdp")
int other(struct xdp_md *ctx)
{
	return XDP_PASS;
}
#endif

char _license[] SEC("license") = "Dual BSD/GPL";
