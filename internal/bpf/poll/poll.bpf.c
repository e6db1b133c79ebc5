//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Lets through the samples of a perf event that were taken while this CPU polls one of
 * some NAPI instances. What else the CPU does leaves no sample. */
#include "bpf.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define CORE __attribute__((preserve_access_index))

struct list_head {
	struct list_head *next;
} CORE;

struct napi_struct {
	struct list_head poll_list;
	unsigned long state;
	int list_owner; /* Linux 6.1: the CPU, or -1 */
} CORE;

#define NAPIF_STATE_SCHED 1
#define MAX_NAPIS 256

const volatile __u32 napis = 0;
const volatile __u64 napi[MAX_NAPIS] = {};

struct counts {
	__u64 taken; /* times that the event came */
	__u64 kept;  /* of them those that made a sample */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} counts SEC(".maps");

#define READ(to, field) bpf_probe_read_kernel(&(to), sizeof(to), &(field))

/* napi_poll takes the instance off the list of those that wait, and the poll's last act
 * is to clear SCHED. A thread of its own and a busy poll never put it on a list. */
static __always_inline bool polled(struct napi_struct *n, int cpu)
{
	struct list_head *next = 0;
	unsigned long state = 0;
	int owner = -1;

	if (READ(state, n->state) || !(state & NAPIF_STATE_SCHED))
		return false;
	if (READ(next, n->poll_list.next) || next != &n->poll_list)
		return false;
	if (__builtin_preserve_field_info(n->list_owner, 2 /* does it exist */))
		READ(owner, n->list_owner);
	return owner == cpu || owner == -1;
}

SEC("perf_event")
int polls(void *ctx)
{
	__u32 zero = 0, i, cpu = bpf_get_smp_processor_id();
	struct counts *c = bpf_map_lookup_elem(&counts, &zero);

	if (!c)
		return 0;
	c->taken++;
	for (i = 0; i < MAX_NAPIS && i < napis; i++) {
		if (polled((void *)napi[i], cpu)) {
			c->kept++;
			return 1;
		}
	}
	return 0;
}
