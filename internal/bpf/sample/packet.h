/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Headers of packets, and what the programs do with them. */
#pragma once

#define swap16(x) __builtin_bswap16(x)
#define IPV4(a, b, c, d) ((__u32)(d) << 24 | (__u32)(c) << 16 | (__u32)(b) << 8 | (__u32)(a))

enum {
	ETH_IPV4 = 0x0008, /* in network order */
	ETH_IPV6 = 0xdd86,
	IP_IPIP = 4,
	IP_UDP = 17,
};

struct ethhdr {
	__u8 to[6], from[6];
	__u16 proto;
} __attribute__((packed));

struct iphdr {
	__u8 version_words, tos;
	__u16 length, id, fragment;
	__u8 ttl, protocol;
	__u16 sum;
	__u32 from, to;
};

struct ip6hdr {
	__u32 flow;
	__u16 length;
	__u8 next, hops;
	__u32 from[4], to[4];
};

struct udphdr {
	__u16 from, to, length, sum;
};

static __always_inline void *data_of(struct xdp_md *ctx)
{
	return (void *)(long)ctx->data;
}

static __always_inline void *end_of(struct xdp_md *ctx)
{
	return (void *)(long)ctx->data_end;
}

static __always_inline void swap_macs(struct ethhdr *eth)
{
	__u8 mac[6];

	__builtin_memcpy(mac, eth->to, 6);
	__builtin_memcpy(eth->to, eth->from, 6);
	__builtin_memcpy(eth->from, mac, 6);
}

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return sum + (sum >> 16);
}

/* The sum of a header of 20 bytes whose own sum is 0 (RFC 1071). */
static __always_inline __u16 ip_sum(struct iphdr *ip)
{
	__u16 *word = (__u16 *)ip;
	__u32 sum = 0;
	int i;

#pragma unroll
	for (i = 0; i < 10; i++)
		sum += word[i];
	return ~fold(sum);
}

/* The sum of what has one word replaced (RFC 1624). */
static __always_inline __u16 replaced(__u16 sum, __u16 old, __u16 new)
{
	return ~fold((__u32)(__u16)~sum + (__u16)~old + new);
}
