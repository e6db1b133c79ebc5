//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Counts how often instructions of the kernel are executed, for which network
 * device, and what the indirect branches among them enter. A device is the one
 * whose NAPI poll is under way or, within that, the one that redirected frames
 * are handed to; what an interrupt does meanwhile is none's. What a system call
 * does outside of polls is told apart where that is asked for.
 *
 * The scopes are of one CPU: it is for guests that have one. */
#include "bpf.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define CORE __attribute__((preserve_access_index))

struct net_device {
	int ifindex;
} CORE;

struct napi_struct {
	struct net_device *dev;
} CORE;

struct xdp_dev_bulk_queue {
	struct net_device *dev;
} CORE;

/* kprobes give all of it: arch/x86/include/asm/ptrace.h, arch/arm64/include/asm/ptrace.h. */
struct pt_regs;

/* Where it has a function's first argument. */
const volatile __u32 argument SEC(".rodata") = 0;

struct hit {
	__u64 target;  /* what the register held; 0 = none was asked for */
	__u32 place;   /* its number */
	__u32 ifindex; /* 0 = no device's */
	__u32 transmits; /* 1 = in the transmission of redirected frames */
	__u32 called; /* 1 = in a system call that is told apart */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct hit);
	__type(value, __u64);
} hits SEC(".maps");

bool interrupted SEC(".data.scope");
/* Interface indexes; 0 = outside. */
__u32 polled SEC(".data.scope");
__u32 transmitting SEC(".data.scope");
/* The task that is in a system call; 0 = none. */
__u64 caller SEC(".data.scope");
/* Hits that had no room. */
__u64 lost SEC(".data.scope");

#define NO_REGISTER 0xffff

/* The cookie is the place's number and, above it, where struct pt_regs has the
 * register that holds the target. */
SEC("kprobe")
int count(struct pt_regs *ctx)
{
	__u64 cookie = bpf_get_attach_cookie(ctx);
	__u32 offset = cookie >> 32;
	struct hit hit = {
		.place = (__u32)cookie,
	};
	__u64 *n, one = 1;

	if (!interrupted) {
		hit.ifindex = transmitting ? transmitting : polled;
		hit.transmits = !!transmitting;
		hit.called = !hit.ifindex && caller && caller == bpf_get_current_pid_tgid();
	}
	if (offset != NO_REGISTER)
		bpf_probe_read_kernel(&hit.target, sizeof(hit.target), (void *)ctx + offset);
	n = bpf_map_lookup_elem(&hits, &hit);
	if (n)
		++*n;
	else if (bpf_map_update_elem(&hits, &hit, &one, BPF_ANY))
		lost++;
	return 0;
}

/* The first argument of a probed function. */
static __always_inline void *first(struct pt_regs *ctx)
{
	void *arg = 0;

	bpf_probe_read_kernel(&arg, sizeof(arg), (void *)ctx + argument);
	return arg;
}

static __always_inline __u32 index_of(struct net_device **at)
{
	struct net_device *dev = 0;
	__u32 ifindex = 0;

	bpf_probe_read_kernel(&dev, sizeof(dev), at);
	bpf_probe_read_kernel(&ifindex, sizeof(ifindex), &dev->ifindex);
	return ifindex;
}

/* irq_enter_rcu(void), and the beginning of irq_exit_rcu(void), which runs softirqs. */
SEC("kprobe")
int interrupt_begins(void *ctx)
{
	interrupted = true;
	return 0;
}

SEC("kprobe")
int interrupt_ends(void *ctx)
{
	interrupted = false;
	return 0;
}

/* __napi_poll(struct napi_struct *, bool *) */
SEC("kprobe")
int poll_begins(struct pt_regs *ctx)
{
	struct napi_struct *napi = first(ctx);

	polled = index_of(&napi->dev);
	return 0;
}

SEC("kretprobe")
int poll_ends(void *ctx)
{
	polled = 0;
	return 0;
}

/* bq_xmit_all(struct xdp_dev_bulk_queue *, u32) */
SEC("kprobe")
int transmit_begins(struct pt_regs *ctx)
{
	struct xdp_dev_bulk_queue *bq = first(ctx);

	transmitting = index_of(&bq->dev);
	return 0;
}

SEC("kretprobe")
int transmit_ends(void *ctx)
{
	transmitting = 0;
	return 0;
}

/* A function that a system call runs in. */
SEC("kprobe")
int call_begins(void *ctx)
{
	caller = bpf_get_current_pid_tgid();
	return 0;
}

SEC("kretprobe")
int call_ends(void *ctx)
{
	if (caller == bpf_get_current_pid_tgid())
		caller = 0;
	return 0;
}
