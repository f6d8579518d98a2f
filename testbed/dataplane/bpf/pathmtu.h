/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the core's routers say about the size of our packets (RFC 9300 §7.2). Only which messages may
 * be about them is found out here; the slow path reads and believes or refuses them.
 */
#ifndef TESTBED_PATHMTU_H
#define TESTBED_PATHMTU_H

#include "tunnel.h"

#define ICMP_UNREACHABLE 3
#define ICMP_FRAGMENTATION_NEEDED 4
#define ICMPV6_PACKET_TOO_BIG 2
#define ICMP_HEADER 8

static __always_inline int is_lisp_data(struct __sk_buff *skb, __u32 udp_offset)
{
	struct udphdr udp;

	return !bpf_skb_load_bytes(skb, udp_offset, &udp, sizeof(udp)) && udp.dest == bpf_htons(LISP_DATA_PORT);
}

/* Whether a packet is ICMP "fragmentation needed" or "packet too big" that quotes a LISP data packet of ours. */
static __always_inline int says_too_big(struct __sk_buff *skb, const struct config *config)
{
	__u8 type_code[2];
	__u32 offset;

	if (skb->protocol == bpf_htons(ETH_P_IP) && config->has_rloc_v4) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.protocol != IPPROTO_ICMP ||
		    ip.daddr != config->rloc_v4.v4 || ip.frag_off & MORE_OR_OFFSET ||
		    !header_is_right(skb, ETH_HLEN, &ip))
			return 0;
		offset = ETH_HLEN + ip.ihl * 4;
		if (bpf_skb_load_bytes(skb, offset, type_code, sizeof(type_code)) ||
		    type_code[0] != ICMP_UNREACHABLE || type_code[1] != ICMP_FRAGMENTATION_NEEDED)
			return 0;
		offset += ICMP_HEADER;
		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.protocol != IPPROTO_UDP ||
		    ip.saddr != config->rloc_v4.v4)
			return 0;
		return is_lisp_data(skb, offset + sizeof(ip)); /* we send no options */
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6) && config->has_rloc_v6) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.nexthdr != IPPROTO_ICMPV6)
			return 0;
		offset = ETH_HLEN + sizeof(ip);
		if (bpf_skb_load_bytes(skb, offset, type_code, sizeof(type_code)) ||
		    type_code[0] != ICMPV6_PACKET_TOO_BIG)
			return 0;
		offset += ICMP_HEADER;
		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.nexthdr != IPPROTO_UDP)
			return 0;
#pragma unroll
		for (int i = 0; i < 4; i++)
			if (ip.saddr.s6_addr32[i] != config->rloc_v6.words[i])
				return 0;
		return is_lisp_data(skb, offset + sizeof(ip));
	}
	return 0;
}

#endif
