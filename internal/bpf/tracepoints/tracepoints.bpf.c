//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Counts XDP the way of tools that watch the whole machine: a program at each
 * global tracepoint that adds to the calling CPU's line of an array. Only a
 * benchmark uses it, to hold counting in the run's own programs against it. */
#include "bpf.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define CORE __attribute__((preserve_access_index))

struct net_device {
	int ifindex;
} CORE;

struct line {
	__u64 processed;
	__u64 dropped;
} __attribute__((aligned(64)));

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct line);
} redirects SEC(".maps"), transmits SEC(".maps");

/* Device to watch; 0 = all. */
const volatile int ifindex = 0;

static __always_inline int add(void *map, const struct net_device *dev, __u64 n, __u64 drops)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct line *line;

	if (ifindex && dev->ifindex != ifindex)
		return 0;
	line = bpf_map_lookup_elem(map, &cpu);
	if (!line)
		return 0;
	line->processed += n;
	line->dropped += drops;
	return 0;
}

SEC("tp_btf/xdp_redirect")
int count_redirect(__u64 *ctx)
{
	return add(&redirects, (void *)ctx[0], 1, 0);
}

SEC("tp_btf/xdp_redirect_err")
int count_redirect_err(__u64 *ctx)
{
	return add(&redirects, (void *)ctx[0], 0, 1);
}

SEC("tp_btf/xdp_devmap_xmit")
int count_devmap_xmit(__u64 *ctx)
{
	return add(&transmits, (void *)ctx[0], (int)ctx[2], (int)ctx[3]);
}
