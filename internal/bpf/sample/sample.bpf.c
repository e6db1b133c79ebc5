//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* XDP programs such as users write: what tests of the verb prog have for targets.
 * Each is whole: it checks bounds, and does what its name says. */
#include "bpf.h"
#include "packet.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* Turns of the program loop, to be set before it is loaded. */
const volatile __u32 turns = 100;

SEC("xdp")
int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

/* Work of known cost: a turn is a multiplication and an addition that wait for
 * the ones before, 3 cycles and 1 on x86-64 cores since Haswell and Zen, whatever
 * else the core could do meanwhile. */
SEC("xdp")
int loop(struct xdp_md *ctx)
{
	__u64 x = ctx->rx_queue_index | 1;
	__u32 i;

	for (i = 0; i < turns; i++) {
		x = x * 6364136223846793005ULL + 1;
		barrier_var(x);
	}
	return x == 42 ? XDP_ABORTED : XDP_DROP;
}

/* An IPv4 packet gets one more IPv4 header, as a load balancer does. Each run of
 * one buffer takes 20 bytes of its headroom. */
SEC("xdp")
int encap(struct xdp_md *ctx)
{
	struct ethhdr *eth = data_of(ctx), *new_eth;
	struct iphdr *inner = (void *)(eth + 1), *outer;
	__u16 length;
	__u8 tos;

	if ((void *)(inner + 1) > end_of(ctx) || eth->proto != ETH_IPV4)
		return XDP_PASS;
	length = swap16(inner->length) + sizeof(*outer);
	tos = inner->tos;
	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*outer)))
		return XDP_DROP;
	new_eth = data_of(ctx);
	outer = (void *)(new_eth + 1);
	eth = (void *)new_eth + sizeof(*outer);
	if ((void *)(eth + 1) > end_of(ctx) || (void *)(outer + 1) > end_of(ctx))
		return XDP_DROP;
	__builtin_memmove(new_eth, eth, sizeof(*eth));
	*outer = (struct iphdr){
		.version_words = 0x45, .tos = tos, .length = swap16(length), .ttl = 64, .protocol = IP_IPIP,
		.from = IPV4(10, 0, 0, 1), .to = IPV4(10, 0, 0, 2),
	};
	outer->sum = ip_sum(outer);
	return XDP_TX;
}

/* One hop less. The 64th run of one buffer with a TTL of 64 drops it. */
SEC("xdp")
int ttl(struct xdp_md *ctx)
{
	struct ethhdr *eth = data_of(ctx);
	struct iphdr *ip = (void *)(eth + 1);
	__u32 sum;

	if ((void *)(ip + 1) > end_of(ctx) || eth->proto != ETH_IPV4)
		return XDP_PASS;
	if (ip->ttl <= 1)
		return XDP_DROP;
	ip->ttl--;
	sum = ip->sum + swap16(0x0100); /* RFC 1141 */
	ip->sum = sum + (sum >= 0xffff);
	swap_macs(eth);
	return XDP_TX;
}

struct flow {
	__u32 from, to;
	__u16 from_port, to_port;
	__u32 protocol;
};

struct translation {
	__u32 from;
	__u16 from_port;
	__u16 pad;
	__u64 packets;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow);
	__type(value, struct translation);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} nat_counters SEC(".maps");

/* Source NAT. The first packet of a flow makes an entry; its own reply, or a second
 * run of a buffer that was rewritten, is another flow. */
SEC("xdp")
int nat(struct xdp_md *ctx)
{
	struct ethhdr *eth = data_of(ctx);
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);
	struct translation *t, fresh = {};
	struct flow flow = {};
	__u32 missed = 0;
	__u64 *count;

	if ((void *)(udp + 1) > end_of(ctx) || eth->proto != ETH_IPV4 || ip->version_words != 0x45 ||
	    ip->protocol != IP_UDP)
		return XDP_PASS;
	flow.from = ip->from;
	flow.to = ip->to;
	flow.from_port = udp->from;
	flow.to_port = udp->to;
	flow.protocol = ip->protocol;
	t = bpf_map_lookup_elem(&flows, &flow);
	if (!t) {
		missed = 1;
		fresh.from = IPV4(192, 0, 2, 1);
		fresh.from_port = swap16(32768 + (bpf_get_prandom_u32() & 16383));
		fresh.packets = 1;
		bpf_map_update_elem(&flows, &flow, &fresh, BPF_ANY);
		t = &fresh;
	} else {
		t->packets++;
	}
	count = bpf_map_lookup_elem(&nat_counters, &missed);
	if (count)
		(*count)++;
	ip->sum = replaced(ip->sum, ip->from >> 16, t->from >> 16);
	ip->sum = replaced(ip->sum, ip->from & 0xffff, t->from & 0xffff);
	if (udp->sum) {
		udp->sum = replaced(udp->sum, ip->from >> 16, t->from >> 16);
		udp->sum = replaced(udp->sum, ip->from & 0xffff, t->from & 0xffff);
		udp->sum = replaced(udp->sum, udp->from, t->from_port);
	}
	ip->from = t->from;
	udp->from = t->from_port;
	swap_macs(eth);
	return XDP_TX;
}

SEC("xdp")
int leaf_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp")
int leaf_drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("xdp")
int leaf_tx(struct xdp_md *ctx)
{
	return XDP_TX;
}

/* The table has its programs from the object. Its last entry is empty. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, int(void *));
} table SEC(".maps") = {
	.values = { [0] = (void *)&leaf_tx, [1] = (void *)&leaf_drop, [2] = (void *)&leaf_pass },
};

/* UDP goes to leaf_tx, TCP to leaf_drop, ICMP for IPv6 to leaf_pass; what is not IPv4
 * or IPv6 is aborted. */
SEC("xdp")
int tailcall(struct xdp_md *ctx)
{
	struct ethhdr *eth = data_of(ctx);
	struct iphdr *ip = (void *)(eth + 1);
	__u32 index = 3;

	if ((void *)(ip + 1) > end_of(ctx))
		return XDP_ABORTED;
	if (eth->proto == ETH_IPV4)
		index = ip->protocol >> 2 & 3;
	else if (eth->proto == ETH_IPV6)
		index = ((struct ip6hdr *)ip)->next >> 2 & 3; /* as long as an IPv4 header */
	bpf_tail_call(ctx, &table, index);
	return XDP_ABORTED;
}

/* The same table by constant indexes: of the second entry, which is a program's, and
 * of the last one, which is empty. */
SEC("xdp")
int tailconstant(struct xdp_md *ctx)
{
	if (ctx->rx_queue_index)
		bpf_tail_call(ctx, &table, 3);
	bpf_tail_call(ctx, &table, 1);
	return XDP_ABORTED;
}

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u64);
} local SEC(".maps"), remote SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} backends SEC(".maps");

/* Which map it looks into, the verifier cannot know: it goes by the destination, of
 * which the last byte decides. The barrier keeps the compiler from making two calls of
 * it. */
SEC("xdp")
int twomaps(struct xdp_md *ctx)
{
	struct ethhdr *eth = data_of(ctx);
	struct iphdr *ip = (void *)(eth + 1);
	void *map = &local;
	__u64 key, *value;

	if ((void *)(ip + 1) > end_of(ctx) || eth->proto != ETH_IPV4)
		return XDP_PASS;
	key = ip->to >> 24 & 15;
	if (key & 1)
		map = &backends;
	barrier_var(map);
	value = bpf_map_lookup_elem(map, &key);
	if (!value)
		return XDP_DROP;
	*value += 1;
	value = bpf_map_lookup_elem(&remote, &key);
	return value ? XDP_PASS : XDP_TX;
}

static int add(void *map, __u32 *key, __u64 *value, __u64 *sum)
{
	*sum += *value;
	return 0;
}

SEC("xdp")
int each(struct xdp_md *ctx)
{
	__u64 sum = 0;

	bpf_for_each_map_elem(&backends, add, &sum, 0);
	return sum ? XDP_PASS : XDP_DROP;
}

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u32);
} ports SEC(".maps");

/* A port for each queue; packets of queues without one are dropped. */
SEC("xdp")
int redirect(struct xdp_md *ctx)
{
	return bpf_redirect_map(&ports, ctx->rx_queue_index, XDP_DROP);
}

/* A function of its own, called from two places. */
static __noinline __u64 *backend_of(__u32 hash)
{
	__u32 index = hash & 15;

	return bpf_map_lookup_elem(&backends, &index);
}

SEC("xdp")
int steps(struct xdp_md *ctx)
{
	struct ethhdr *eth = data_of(ctx);
	struct iphdr *ip = (void *)(eth + 1);
	__u64 *value;

	if ((void *)(ip + 1) > end_of(ctx) || eth->proto != ETH_IPV4)
		return XDP_PASS;
	value = backend_of(ip->from);
	if (!value)
		return XDP_DROP;
	*value += 1;
	value = backend_of(ip->to);
	return value && *value ? XDP_TX : XDP_PASS;
}

/* Programs for frames in fragments, which see the bytes behind the first buffer by
 * helpers alone. */

#define PIECE 256

struct summing {
	struct xdp_md *ctx;
	__u64 sum;
};

static long sum_piece(__u32 piece, struct summing *s)
{
	__u32 words[PIECE / 4], i;

	if (bpf_xdp_load_bytes(s->ctx, piece * PIECE, words, sizeof(words)))
		return 1;
	for (i = 0; i < PIECE / 4; i++)
		s->sum += words[i];
	return 0;
}

/* A sum over all whole pieces of the frame. */
SEC("xdp.frags")
int sumall(struct xdp_md *ctx)
{
	struct summing s = { ctx, 0 };

	bpf_loop(bpf_xdp_get_buff_len(ctx) / PIECE, sum_piece, &s, 0);
	return s.sum == 42 ? XDP_ABORTED : XDP_PASS;
}

/* Inverts the last two bytes: every second run of one buffer leaves it as it was. */
SEC("xdp.frags")
int lasttwo(struct xdp_md *ctx)
{
	__u32 at = bpf_xdp_get_buff_len(ctx) - 2;
	__u16 last;

	if (bpf_xdp_load_bytes(ctx, at, &last, sizeof(last)))
		return XDP_ABORTED;
	last = ~last;
	if (bpf_xdp_store_bytes(ctx, at, &last, sizeof(last)))
		return XDP_ABORTED;
	return last & 1 ? XDP_TX : XDP_PASS;
}

/* A trailer of 16 bytes, as for telemetry. */
SEC("xdp.frags")
int trailer(struct xdp_md *ctx)
{
	__u32 at = bpf_xdp_get_buff_len(ctx);
	__u64 trailer[2] = { 0x0123456789abcdefULL, at };

	if (bpf_xdp_adjust_tail(ctx, sizeof(trailer)))
		return XDP_DROP;
	if (bpf_xdp_store_bytes(ctx, at, trailer, sizeof(trailer)))
		return XDP_ABORTED;
	return XDP_TX;
}

/* Cuts such a trailer off. */
SEC("xdp.frags")
int untrailer(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_tail(ctx, -16) ? XDP_DROP : XDP_PASS;
}

/* Cuts a frame to its headers, as for a log: what is behind is released. */
SEC("xdp.frags")
int snap(struct xdp_md *ctx)
{
	__u32 length = bpf_xdp_get_buff_len(ctx);

	if (length > 128 && bpf_xdp_adjust_tail(ctx, 128 - (int)length))
		return XDP_DROP;
	return XDP_TX;
}
