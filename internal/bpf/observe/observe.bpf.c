//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Counts ndo_xdp_xmit calls of one network namespace, why redirects fail in it
 * and, on request, redirects, NAPI polls and the softirqs that run them. It is
 * attached in rounds of its own, never while time is taken. The tracepoints are
 * global: the namespace is checked first. */
#include "bpf.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define CORE __attribute__((preserve_access_index))

struct ns_common {
	unsigned int inum;
} CORE;

struct net {
	struct ns_common ns;
} CORE;

typedef struct {
	struct net *net;
} CORE possible_net_t;

struct net_device {
	possible_net_t nd_net;
	int ifindex;
} CORE;

struct napi_struct {
	struct net_device *dev;
} CORE;

const volatile __u32 netns = 0;
/* 0 = every device of the namespace. */
const volatile __u32 from_ifindex = 0;
const volatile __u32 polled_ifindex = 0;

#define MAX_ERRNO 134 /* one more than EHWPOISON, the last of asm-generic/errno.h */

struct seen {
	__u64 calls;
	__u64 frames; /* taken by the device */
	__u64 drops;  /* refused by the device */
	__s64 xmit_error;
	__u64 errors; /* xdp_do_redirect failed */
	__s64 error;
	__u64 redirects; /* xdp_do_redirect succeeded */
	__u64 polls;	 /* NAPI polls of polled_ifindex */
	__u64 softirqs;	 /* NET_RX actions between a redirect and such a poll */
	__u64 errors_by[MAX_ERRNO]; /* failures of xdp_do_redirect */
};

struct seen total SEC(".data.seen");

#define NET_RX_SOFTIRQ 3

/* The CPU, counted from 1, that redirected a frame which polled_ifindex has not
 * polled yet; 0 = none. */
__u32 under_way SEC(".data.under_way");

static __always_inline bool ours(const struct net_device *dev)
{
	return dev->nd_net.net->ns.inum == netns;
}

SEC("tp_btf/xdp_devmap_xmit")
int xdp_devmap_xmit(__u64 *ctx)
{
	const struct net_device *from = (void *)ctx[0];
	int sent = ctx[2], drops = ctx[3], err = ctx[4];

	if (!ours(from) || (from_ifindex && from->ifindex != from_ifindex))
		return 0;
	__sync_fetch_and_add(&total.calls, 1);
	if (sent > 0)
		__sync_fetch_and_add(&total.frames, sent);
	if (drops > 0)
		__sync_fetch_and_add(&total.drops, drops);
	if (err < 0)
		total.xmit_error = err;
	return 0;
}

SEC("tp_btf/xdp_redirect_err")
int xdp_redirect_err(__u64 *ctx)
{
	const struct net_device *dev = (void *)ctx[0];
	int err = ctx[3];
	__u32 errno = -err;

	if (!ours(dev) || (from_ifindex && dev->ifindex != from_ifindex))
		return 0;
	__sync_fetch_and_add(&total.errors, 1);
	total.error = err;
	barrier_var(errno); /* or the compiler checks err, which the verifier does not follow */
	if (errno < MAX_ERRNO)
		__sync_fetch_and_add(&total.errors_by[errno], 1);
	return 0;
}

SEC("tp_btf/xdp_redirect")
int xdp_redirect(__u64 *ctx)
{
	const struct net_device *dev = (void *)ctx[0];

	if (!ours(dev) || (from_ifindex && dev->ifindex != from_ifindex))
		return 0;
	__sync_fetch_and_add(&total.redirects, 1);
	under_way = bpf_get_smp_processor_id() + 1;
	return 0;
}

SEC("tp_btf/napi_poll")
int napi_poll(__u64 *ctx)
{
	const struct napi_struct *napi = (void *)ctx[0];

	if (!napi->dev || !ours(napi->dev) || (polled_ifindex && napi->dev->ifindex != polled_ifindex))
		return 0;
	__sync_fetch_and_add(&total.polls, 1);
	under_way = 0;
	return 0;
}

SEC("tp_btf/softirq_entry")
int softirq_entry(__u64 *ctx)
{
	if ((__u32)ctx[0] == NET_RX_SOFTIRQ && under_way == bpf_get_smp_processor_id() + 1)
		__sync_fetch_and_add(&total.softirqs, 1);
	return 0;
}
