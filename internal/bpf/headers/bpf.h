/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The few parts of the kernel's BPF interface that unthunk's programs use.
 * Values are those of include/uapi/linux/bpf.h. */
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef _Bool bool;
#define true 1
#define false 0

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define __array(name, val) typeof(val) *name[]
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define barrier_var(x) asm volatile("" : "+r"(x))
/* Read where it stands: no loop hoisting, no double fetch. */
#define READ_ONCE(x) (*(const volatile typeof(x) *)&(x))

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PROG_ARRAY = 3,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_DEVMAP = 14,
	BPF_MAP_TYPE_CPUMAP = 16,
	BPF_MAP_TYPE_XSKMAP = 17,
	BPF_MAP_TYPE_DEVMAP_HASH = 25,
};

enum xdp_action {
	XDP_ABORTED = 0,
	XDP_DROP,
	XDP_PASS,
	XDP_TX,
	XDP_REDIRECT,
};

#define TC_ACT_SHOT 2

enum {
	BPF_ANY = 0,
	BPF_F_NO_PREALLOC = 1 << 0,
	BPF_F_BROADCAST = 1 << 3, /* Linux 5.14 */
};

struct xdp_md {
	__u32 data;
	__u32 data_end;
	__u32 data_meta;
	__u32 ingress_ifindex;
	__u32 rx_queue_index;
	__u32 egress_ifindex;
};

struct __sk_buff {
	__u32 unused[41];
	__u32 gso_segs; /* 5.1 */
};

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static __u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static __u32 (*const bpf_get_prandom_u32)(void) = (void *)7;
static __u32 (*const bpf_get_smp_processor_id)(void) = (void *)8;
static __u64 (*const bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*const bpf_tail_call)(void *ctx, void *map, __u32 index) = (void *)12;
static long (*const bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;
static long (*const bpf_xdp_adjust_head)(void *xdp_md, int delta) = (void *)44;
static long (*const bpf_redirect_map)(void *map, __u64 key, __u64 flags) = (void *)51;
static long (*const bpf_xdp_adjust_meta)(void *xdp_md, int delta) = (void *)54;
static long (*const bpf_xdp_adjust_tail)(void *xdp_md, int delta) = (void *)65;
static long (*const bpf_probe_read_kernel)(void *dst, __u32 size, const void *src) = (void *)113; /* 5.5 */
static long (*const bpf_for_each_map_elem)(void *map, void *callback, void *ctx, __u64 flags) = (void *)164; /* 5.13 */
static __u64 (*const bpf_get_attach_cookie)(void *ctx) = (void *)174; /* 5.15 */
static long (*const bpf_loop)(__u32 turns, void *callback, void *ctx, __u64 flags) = (void *)181; /* 5.17 */
static __u64 (*const bpf_xdp_get_buff_len)(void *xdp_md) = (void *)188; /* 5.18 */
static long (*const bpf_xdp_load_bytes)(void *xdp_md, __u32 offset, void *buf, __u32 len) = (void *)189; /* 5.18 */
static long (*const bpf_xdp_store_bytes)(void *xdp_md, __u32 offset, void *buf, __u32 len) = (void *)190; /* 5.18 */
