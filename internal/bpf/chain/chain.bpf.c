//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* One chain: generator -> program under test -> sink.
 *
 *   BPF_PROG_TEST_RUN --generate--> g0 ==veth== g1 --redirect_*--> t0 ==veth== t1 --sink
 *
 * Every program counts its own frames, in a cache line of its own, with one
 * writer each, so nothing here needs an atomic. What a chain does not use is
 * removed by the verifier: the knobs are read-only data set before loading. */
#include "bpf.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define MAX_WINDOWS 64

/* What the program under test does to a frame. */
enum operation {
	OPERATION_NONE,      /* does not touch the frame */
	OPERATION_READ,      /* reads the Ethernet type */
	OPERATION_SWAP_MACS, /* swaps the Ethernet addresses */
	OPERATION_PARSE,     /* Ethernet, VLANs, IPv4 or IPv6, ports */
	OPERATION_SPIN,      /* a loop of `spins` rounds: a known slowdown */
};

/* Who keeps the time: the program that runs on the core under test. */
enum clock {
	CLOCK_NONE,
	CLOCK_GENERATOR,
	CLOCK_TESTED,
};

const volatile enum operation frame_operation = OPERATION_NONE;
const volatile __u32 spins = 0;
const volatile enum clock clock_of = CLOCK_GENERATOR;
const volatile bool counting = true;
const volatile __u32 out_ifindex = 0;
/* Frames the generator lets be under way; 0 = no limit. A frame has arrived
 * when the program under test has seen it or, with `limit_to_sink`, when the
 * sink has. */
const volatile __u32 limit = 0;
const volatile bool limit_to_sink = false;
/* Frames the generator sends in one slot; 0 = no limit. */
const volatile __u32 most = 0;
/* The generator sends `burst` frames and waits until all have arrived, and ends
 * when it has sent `budget` frames. */
const volatile bool bursts = false;
/* The driver of the device under test counts what its program saw: it may be one
 * that counts nothing for us. */
const volatile bool driver_counts = false;
/* The bytes of a frame as it is made for frames_generate: more than any packet has. */
const volatile __u32 made_bytes = 0;
const volatile __u32 packet_count = 1;

#define LINE __attribute__((aligned(128)))

struct state {
	/* Written by the generator. */
	__u64 sent LINE;
	/* Written by the program under test. */
	__u64 tested LINE;
	/* Written by the sink. */
	__u64 received LINE;
	/* Written by the program that keeps the time: bpf_ktime_get_ns at
	 * every `window`th frame. User space sets window and left. */
	__u32 window LINE;
	__u32 left;
	__u32 stamps;
	/* Set by user space for a generator that sends bursts. */
	__u32 burst;
	__u32 budget; /* frames of the slot */
	/* Written by frames_generate: the packet of the next frame. */
	__u32 next;
	__u64 stamp[MAX_WINDOWS];
	/* Written by the end of the network stack. */
	__u64 passed LINE;
};

struct state chain SEC(".data.state");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} wire SEC(".maps");

struct devmap_value {
	__u32 ifindex;
	__s32 prog; /* file descriptor when written, id when read; 0 = none */
};

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct devmap_value);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct devmap_value);
} ports_hash SEC(".maps");

struct cpumap_value {
	__u32 qsize;
	__u32 prog;
};

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct cpumap_value);
} cpus SEC(".maps");
const volatile __u32 cpu = 0;

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

static __always_inline void tick(__u32 who)
{
	__u32 i;

	if (clock_of != who)
		return;
	if (--chain.left)
		return;
	chain.left = chain.window;
	i = chain.stamps;
	if (i >= MAX_WINDOWS)
		return;
	chain.stamp[i] = bpf_ktime_get_ns();
	chain.stamps = i + 1;
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	if (limit) {
		__u64 arrived = limit_to_sink ? READ_ONCE(chain.received) :
						READ_ONCE(chain.tested);

		/* Signed: what a slot that was broken off left may come late. */
		if ((__s64)(chain.sent - arrived) >= (__s64)limit)
			return XDP_DROP;
	}
	if (most && chain.sent >= most)
		return XDP_DROP;
	/* Frames arrive between batches only, which are whole bursts. */
	if (bursts && (chain.sent >= chain.budget ||
		       (chain.burst && chain.sent % chain.burst == 0 &&
			chain.sent != READ_ONCE(chain.received))))
		return XDP_DROP;
	/* Drivers write into the struct xdp_frame of what they send; before Linux 6.8
	 * that of a recycled page is set up anew only when its program moved a pointer
	 * (reset_ctx in net/bpf/test_run.c). */
	if (bursts)
		bpf_xdp_adjust_meta(ctx, -4);
	tick(CLOCK_GENERATOR);
	if (counting || limit || most)
		chain.sent++;
	return bpf_redirect_map(&wire, 0, 0);
}

#define MAX_PACKET 2044
#define ETH_HLEN 14

struct packet {
	__u32 length;
	__u8 bytes[MAX_PACKET];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct packet);
} packets SEC(".maps");

/* Makes the frame the next of the packets. The page that it is in comes back from
 * the end of the chain as programs have left it: the kernel sets pointers anew, and
 * never bytes. It does so only for a frame whose pointers its program moved
 * (ctx_was_changed in net/bpf/test_run.c), hence made_bytes. */
static __always_inline bool fill(struct xdp_md *ctx)
{
	__u32 i = chain.next, length;
	struct packet *p = bpf_map_lookup_elem(&packets, &i);

	if (!p)
		return false;
	chain.next = i + 1 < packet_count ? i + 1 : 0;
	length = p->length;
	if (length < ETH_HLEN || length > MAX_PACKET)
		return false;
	return !bpf_xdp_store_bytes(ctx, 0, p->bytes, length) &&
	       !bpf_xdp_adjust_tail(ctx, (int)length - (int)made_bytes);
}

/* A program under test that others wrote meets the packets one after the other. */
SEC("xdp")
int frames_generate(struct xdp_md *ctx)
{
	if (!fill(ctx))
		return XDP_ABORTED;
	tick(CLOCK_GENERATOR);
	if (counting)
		chain.sent++;
	return bpf_redirect_map(&wire, 0, 0);
}

struct ethhdr {
	__u16 dst[3];
	__u16 src[3];
	__u16 type;
};

#define ETH_P_IP 0x0008	    /* 0x0800 in network order */
#define ETH_P_IPV6 0xdd86
#define ETH_P_8021Q 0x0081
#define ETH_P_8021AD 0xa888

static __always_inline __u32 parse(void *data, void *end)
{
	struct ethhdr *eth = data;
	__u32 hash = 0, proto = 0;
	__u8 *l3, *l4 = 0;
	__u16 type;
	int i;

	if ((void *)(eth + 1) > end)
		return 0;
	type = eth->type;
	l3 = (__u8 *)(eth + 1);
#pragma unroll
	for (i = 0; i < 2; i++) {
		if (type != ETH_P_8021Q && type != ETH_P_8021AD)
			break;
		if ((void *)(l3 + 4) > end)
			return 0;
		type = *(__u16 *)(l3 + 2);
		l3 += 4;
	}
	if (type == ETH_P_IP) {
		__u32 len;

		if ((void *)(l3 + 20) > end)
			return 0;
		len = (l3[0] & 15) * 4;
		if (len < 20)
			return 0;
		proto = l3[9];
		hash = *(__u32 *)(l3 + 12) ^ *(__u32 *)(l3 + 16);
		l4 = l3 + len;
	} else if (type == ETH_P_IPV6) {
		__u32 *addr = (__u32 *)(l3 + 8);

		if ((void *)(l3 + 40) > end)
			return 0;
		proto = l3[6];
#pragma unroll
		for (i = 0; i < 8; i++)
			hash ^= addr[i];
		l4 = l3 + 40;
	} else {
		return type;
	}
	if (proto == 6 || proto == 17) {
		if ((void *)(l4 + 4) > end)
			return hash;
		hash ^= *(__u32 *)l4;
	}
	return hash ^ proto;
}

/* The frame's work. What it computes is kept alive so that the compiler
 * cannot drop it. */
static __always_inline void work(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__u32 value, i;

	switch (frame_operation) {
	case OPERATION_NONE:
		return;
	case OPERATION_READ:
		if ((void *)(eth + 1) > end)
			return;
		value = eth->type;
		barrier_var(value);
		return;
	case OPERATION_SWAP_MACS:
		if ((void *)(eth + 1) > end)
			return;
#pragma unroll
		for (i = 0; i < 3; i++) {
			__u16 tmp = eth->dst[i];

			eth->dst[i] = eth->src[i];
			eth->src[i] = tmp;
		}
		return;
	case OPERATION_PARSE:
		value = parse(data, end);
		barrier_var(value);
		return;
	case OPERATION_SPIN:
		for (i = 0; i < spins; i++)
			barrier_var(i);
		return;
	}
}

static __always_inline int tested(int action, int want)
{
	tick(CLOCK_TESTED);
	if ((counting || limit) && !driver_counts && action == want)
		chain.tested++;
	return action;
}

SEC("xdp")
int redirect_map(struct xdp_md *ctx)
{
	work(ctx);
	return tested(bpf_redirect_map(&ports, 0, 0), XDP_REDIRECT);
}

/* What a real device received by one queue, on one CPU: real devices run their
 * program on several CPUs at a time. */
struct queue_count {
	__u64 frames;
	__u64 bytes;  /* of the first buffer of each frame */
	__u64 failed; /* the redirect map had no port */
};

/* By receive queue; those that do not fit count as the last. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct queue_count);
} queues SEC(".maps");

const volatile __u32 last_queue = 0;

static __always_inline int on_device(struct xdp_md *ctx, int action)
{
	__u32 queue = ctx->rx_queue_index;
	struct queue_count *count;

	if (queue > last_queue)
		queue = last_queue;
	count = bpf_map_lookup_elem(&queues, &queue);
	if (count) {
		count->frames++;
		count->bytes += ctx->data_end - ctx->data;
	}
	work(ctx);
	if (action != XDP_REDIRECT)
		return action;
	action = bpf_redirect_map(&ports, 0, 0);
	if (count && action != XDP_REDIRECT)
		count->failed++;
	return action;
}

SEC("xdp")
int device_redirect_map(struct xdp_md *ctx)
{
	return on_device(ctx, XDP_REDIRECT);
}

SEC("xdp")
int device_tx(struct xdp_md *ctx)
{
	return on_device(ctx, XDP_TX);
}

SEC("xdp")
int device_drop(struct xdp_md *ctx)
{
	return on_device(ctx, XDP_DROP);
}

SEC("xdp")
int device_pass(struct xdp_md *ctx)
{
	return on_device(ctx, XDP_PASS);
}

SEC("xdp")
int redirect_map_hash(struct xdp_md *ctx)
{
	work(ctx);
	return tested(bpf_redirect_map(&ports_hash, 0, 0), XDP_REDIRECT);
}

SEC("xdp")
int redirect(struct xdp_md *ctx)
{
	work(ctx);
	return tested(bpf_redirect(out_ifindex, 0), XDP_REDIRECT);
}

SEC("xdp")
int redirect_multi(struct xdp_md *ctx)
{
	work(ctx);
	return tested(bpf_redirect_map(&ports, 0, BPF_F_BROADCAST), XDP_REDIRECT);
}

SEC("xdp")
int redirect_cpu(struct xdp_md *ctx)
{
	work(ctx);
	return tested(bpf_redirect_map(&cpus, cpu, 0), XDP_REDIRECT);
}

SEC("xdp")
int redirect_xsk(struct xdp_md *ctx)
{
	work(ctx);
	return tested(bpf_redirect_map(&sockets, 0, 0), XDP_REDIRECT);
}

SEC("xdp")
int tx(struct xdp_md *ctx)
{
	work(ctx);
	return tested(XDP_TX, XDP_TX);
}

SEC("xdp")
int pass(struct xdp_md *ctx)
{
	work(ctx);
	return tested(XDP_PASS, XDP_PASS);
}

/* The chain ends in the program under test: it is the sink too. */
SEC("xdp")
int drop(struct xdp_md *ctx)
{
	work(ctx);
	if (counting || limit)
		chain.received++;
	return tested(XDP_DROP, XDP_DROP);
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	if (counting || limit)
		chain.received++;
	return XDP_DROP;
}

/* Ends what a program passed to the network stack, before any protocol. GRO makes
 * one skb of several packets: it has as many segments. */
SEC("tc")
int stack_end(struct __sk_buff *skb)
{
	__u32 packets = skb->gso_segs ? skb->gso_segs : 1;

	if (counting)
		chain.passed += packets;
	if (bursts) /* the generator waits for it */
		chain.received += packets;
	return TC_ACT_SHOT;
}

SEC("xdp/cpumap")
int sink_cpumap(struct xdp_md *ctx)
{
	if (counting || limit)
		chain.received++;
	return XDP_DROP;
}

SEC("xdp/cpumap")
int pass_cpumap(struct xdp_md *ctx)
{
	return XDP_PASS;
}

/* Lets a frame through on its way out. */
SEC("xdp/devmap")
int egress(struct xdp_md *ctx)
{
	return XDP_PASS;
}

/* Where the chain was when a CPU was sampled, for each sample: the time, shifted
 * left by one, and in the lowest bit whether the program under test had seen all
 * that was sent, so that a poll is one of the sink. */
#define MAX_PHASES 2048
#define MAX_SINKS 2

#define NAPIF_STATE_SCHED 1

struct phases {
	__u64 n;
	/* Where the state words of the NAPIs are that run the sink; 0 = none. Set by
	 * user space where the program under test counts nothing. */
	__u64 sinks[MAX_SINKS];
	__u64 at[MAX_PHASES];
};

struct phases phases SEC(".data.phases");

/* A sink's NAPI is scheduled by the flush that ends the poll of the program under
 * test (XDP_XMIT_FLUSH), and has completed before the next. */
static __always_inline bool sink_scheduled(void)
{
	__u64 state;
	int i;

#pragma unroll
	for (i = 0; i < MAX_SINKS; i++) {
		__u64 at = phases.sinks[i];

		if (at && !bpf_probe_read_kernel(&state, sizeof(state), (void *)at) && (state & NAPIF_STATE_SCHED))
			return true;
	}
	return false;
}

SEC("perf_event")
int phase(void *ctx)
{
	__u64 i = phases.n;
	bool sink = driver_counts ? sink_scheduled() : READ_ONCE(chain.sent) <= READ_ONCE(chain.tested);

	phases.at[i & (MAX_PHASES - 1)] = bpf_ktime_get_ns() << 1 | sink;
	phases.n = i + 1;
	return 1;
}
