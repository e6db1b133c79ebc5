//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Programs that call functions of the kernel which change something that stays, and some that change nothing. */
#include "bpf.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define __ksym __attribute__((section(".ksyms")))

struct bpf_sock_tuple {
	struct {
		__u32 saddr, daddr;
		__u16 sport, dport;
	} ipv4;
};

struct bpf_ct_opts {
	__s32 netns_id, error;
	__u8 l4proto, dir, reserved[2];
};

struct nf_conn {
	unsigned long status;
};

struct nf_conn___init {
	struct nf_conn ct;
};

struct task_struct {
	int pid;
};

enum pid_type { PIDTYPE_PID, PIDTYPE_TGID };

extern struct nf_conn *bpf_xdp_ct_lookup(struct xdp_md *xdp_ctx, struct bpf_sock_tuple *bpf_tuple, __u32 tuple__sz,
					 struct bpf_ct_opts *opts, __u32 opts__sz) __ksym;
extern struct nf_conn___init *bpf_xdp_ct_alloc(struct xdp_md *xdp_ctx, struct bpf_sock_tuple *bpf_tuple, __u32 tuple__sz,
					       struct bpf_ct_opts *opts, __u32 opts__sz) __ksym;
extern void bpf_ct_set_timeout(struct nf_conn___init *nfct, __u32 timeout) __ksym;
extern struct nf_conn *bpf_ct_insert_entry(struct nf_conn___init *nfct) __ksym;
extern void bpf_ct_release(struct nf_conn *nfct) __ksym;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;
extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym;
extern int bpf_send_signal_task(struct task_struct *task, int sig, enum pid_type type, __u64 value) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;

/* What a stateful filter does: it looks for the connection, and makes it of the first packet. */
SEC("xdp")
int track(struct xdp_md *ctx)
{
	/* 10.0.0.1:1234 to 10.0.0.2:22, TCP */
	struct bpf_sock_tuple tuple = { .ipv4 = { 0x0100000a, 0x0200000a, 0xd204, 0x1600 } };
	struct bpf_ct_opts opts = { .netns_id = -1, .l4proto = 6 };
	struct nf_conn___init *made;
	struct nf_conn *ct;

	ct = bpf_xdp_ct_lookup(ctx, &tuple, sizeof(tuple.ipv4), &opts, sizeof(opts));
	if (!ct) {
		made = bpf_xdp_ct_alloc(ctx, &tuple, sizeof(tuple.ipv4), &opts, sizeof(opts));
		if (!made)
			return XDP_ABORTED;
		bpf_ct_set_timeout(made, 600000);
		ct = bpf_ct_insert_entry(made);
		if (!ct)
			return XDP_ABORTED;
	}
	bpf_ct_release(ct);
	return XDP_PASS;
}

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, int (struct xdp_md *));
} table SEC(".maps") = { .values = { &track } };

SEC("xdp")
int called(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &table, 0);
	return XDP_DROP;
}

SEC("xdp")
int locked(struct xdp_md *ctx)
{
	bpf_rcu_read_lock();
	bpf_rcu_read_unlock();
	return XDP_PASS;
}

SEC("xdp")
int killer(struct xdp_md *ctx)
{
	struct task_struct *task = bpf_task_from_pid(1);

	if (!task)
		return XDP_DROP;
	bpf_send_signal_task(task, 0, PIDTYPE_TGID, 0);
	bpf_task_release(task);
	return XDP_PASS;
}

static long (*const bpf_send_signal)(__u32 sig) = (void *)109;
static long (*const bpf_send_signal_thread)(__u32 sig) = (void *)117;

/* Signals to whatever runs when the packet comes. */
SEC("xdp")
int signals(struct xdp_md *ctx)
{
	bpf_send_signal(0);
	bpf_send_signal_thread(0);
	return XDP_PASS;
}

struct {
	__uint(type, 15 /* BPF_MAP_TYPE_SOCKMAP */);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

static void *(*const bpf_sk_lookup_tcp)(void *ctx, void *tuple, __u32 size, __u64 netns, __u64 flags) = (void *)84;
static long (*const bpf_sk_release)(void *sock) = (void *)86;

SEC("xdp")
int sockmap(struct xdp_md *ctx)
{
	struct bpf_sock_tuple tuple = {};
	__u32 key = 0;
	void *sk = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), -1, 0);

	if (!sk)
		return XDP_PASS;
	bpf_map_update_elem(&sockets, &key, sk, BPF_ANY);
	bpf_sk_release(sk);
	return XDP_DROP;
}
