//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* A small load balancer: packets to a service go to one of its backends, in an IPIP
 * header. docs/prog.md is about it. Compiled twice: it jumps to the handler of a protocol
 * by an index that the packet decides, or, as after.bpf.c, by a constant one. */
#include "bpf.h"
#include "../sample/packet.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* Addresses and ports as the packet has them. */
struct service {
	__u32 address;
	__u16 port;
	__u8 protocol, pad;
};

struct flow {
	struct service to;
	__u32 from;
	__u16 from_port, pad;
};

/* How many backends a service has; they begin at first. */
struct range {
	__u32 first, count;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct service);
	__type(value, struct range);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow);
	__type(value, __u32);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u32);
} backends SEC(".maps");

static __always_inline int encapsulate(struct xdp_md *ctx, __u32 backend)
{
	struct iphdr *outer, *inner;
	struct ethhdr old, *eth;
	__u16 length;
	int i;

	eth = data_of(ctx);
	inner = (void *)(eth + 1);
	if ((void *)(inner + 1) > end_of(ctx))
		return XDP_DROP;
	old = *eth;
	length = swap16(inner->length) + sizeof(*outer);
	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*outer)))
		return XDP_DROP;
	eth = data_of(ctx);
	outer = (void *)(eth + 1);
	if ((void *)(outer + 1) > end_of(ctx))
		return XDP_DROP;
	*eth = old;
	swap_macs(eth);
	__builtin_memset(outer, 0, sizeof(*outer));
	outer->version_words = 0x45;
	outer->length = swap16(length);
	outer->ttl = 64;
	outer->protocol = IP_IPIP;
	outer->from = IPV4(192, 0, 2, 254);
	outer->to = backend;
	__u32 sum = 0;
#pragma unroll
	for (i = 0; i < 10; i++)
		sum += ((__u16 *)outer)[i];
	outer->sum = ~fold(sum);
	return XDP_TX;
}

/* TCP and UDP have their ports in one place. */
static __always_inline int balance(struct xdp_md *ctx)
{
	struct ethhdr *eth = data_of(ctx);
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);
	struct flow flow = {};
	struct range *range;
	__u32 chosen, *known, *backend;

	if ((void *)(udp + 1) > end_of(ctx))
		return XDP_PASS;
	flow.to.address = ip->to;
	flow.to.port = udp->to;
	flow.to.protocol = ip->protocol;
	range = bpf_map_lookup_elem(&services, &flow.to);
	if (!range || !range->count)
		return XDP_PASS;
	flow.from = ip->from;
	flow.from_port = udp->from;
	known = bpf_map_lookup_elem(&flows, &flow);
	if (known) {
		chosen = *known;
	} else {
		chosen = range->first + (flow.from * 2654435761u ^ flow.from_port) % range->count;
		bpf_map_update_elem(&flows, &flow, &chosen, BPF_ANY);
	}
	backend = bpf_map_lookup_elem(&backends, &chosen);
	if (!backend)
		return XDP_DROP;
	return encapsulate(ctx, *backend);
}

SEC("xdp")
int tcp(struct xdp_md *ctx)
{
	return balance(ctx);
}

SEC("xdp")
int udp(struct xdp_md *ctx)
{
	return balance(ctx);
}

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, int(void *));
} handlers SEC(".maps") = {
	.values = { [0] = (void *)&tcp, [1] = (void *)&udp },
};

/* The compiler would make one call of two plain ones, and the index a variable again:
 * libbpf has bpf_tail_call_static for that. */
#define TAIL_CALL(index) \
	asm volatile("r1 = %[ctx]\n\tr2 = %[table] ll\n\tr3 = %[at]\n\tcall 12" \
		     :: [ctx] "r"(ctx), [table] "i"(&handlers), [at] "i"(index) \
		     : "r0", "r1", "r2", "r3", "r4", "r5", "memory")

SEC("xdp")
int balancer(struct xdp_md *ctx)
{
	struct ethhdr *eth = data_of(ctx);
	struct iphdr *ip = (void *)(eth + 1);

	if ((void *)(ip + 1) > end_of(ctx) || eth->proto != ETH_IPV4 || ip->version_words != 0x45)
		return XDP_PASS;
	if (ip->protocol != 6 && ip->protocol != IP_UDP)
		return XDP_PASS;
#ifdef CONSTANT
	if (ip->protocol == IP_UDP)
		TAIL_CALL(1);
	else
		TAIL_CALL(0);
#else
	bpf_tail_call(ctx, &handlers, ip->protocol == IP_UDP);
#endif
	return XDP_PASS;
}
