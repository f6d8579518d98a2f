/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Reading and rewriting the headers of one packet. Nothing here knows an entry. */
#ifndef TESTBED_PACKET_H
#define TESTBED_PACKET_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "state.h"

#define LISP_DATA_PORT 4341
#define FRAGMENT_BITS 0x3fff /* more fragments, and the offset */
#define MORE_OR_OFFSET bpf_htons(FRAGMENT_BITS)
#define DONT_FRAGMENT bpf_htons(0x4000)
#define VLAN_ID_MASK 0x0fff

#define ECN_MASK 3
#define ECN_NOT_ECT 0
#define ECN_ECT_1 1
#define ECN_CE 3

struct inner {
	union {
		struct iphdr v4;
		struct ipv6hdr v6;
	} ip;
	__u32 family; /* 4 or 6 */
	__u32 flow_hash;
	__u32 transport_offset;
	__u8 ttl;
	__u8 tos;
	__u8 protocol;
};

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)sum;
}

static __always_inline __u32 mix(__u32 hash, __u32 value)
{
	hash = (hash ^ value) * 0x85ebca6b;
	hash = (hash ^ (hash >> 13)) * 0xc2b2ae35;
	return hash ^ (hash >> 16);
}

static __always_inline const union address *source_of(const struct inner *inner)
{
	return inner->family == 4 ? (const union address *)&inner->ip.v4.saddr
				  : (const union address *)&inner->ip.v6.saddr;
}

/* An IPv4 header's checksum, options included (RFC 1812 §5.2.2: a router must verify it). */
static __always_inline int header_is_right(struct __sk_buff *skb, __u32 offset, const struct iphdr *ip)
{
	__u32 options[10] = {}, length = ip->ihl * 4;
	const __u32 *words = (const __u32 *)ip;
	__u64 sum = 0;

	if (length < sizeof(*ip))
		return 0;
#pragma unroll
	for (int i = 0; i < 5; i++)
		sum += words[i];
	if (length > sizeof(*ip)) {
		length -= sizeof(*ip);
		if (length > sizeof(options) || bpf_skb_load_bytes(skb, offset + sizeof(*ip), options, length))
			return 0;
#pragma unroll
		for (int i = 0; i < 10; i++)
			sum += options[i];
	}
	return fold(sum) == 0xffff;
}

/*
 * Read the IP header at `offset` and the flow's hash. Returns 0, or -1 if it is not a sane IP packet.
 * Fragments hash without ports, so that all of a packet's fragments take one path.
 */
static __always_inline int read_inner(struct __sk_buff *skb, __u32 offset, struct inner *inner)
{
	__u32 available = skb->len - offset;
	__u32 length, version, ports = 0;
	int fragment = 0;

	/* Each call costs as much as the octets: what no IP packet lacks is read at once. */
	if (bpf_skb_load_bytes(skb, offset, &inner->ip.v4, sizeof(inner->ip.v4)))
		return -1;
	version = inner->ip.v4.version;
	if (version == 4) {
		struct iphdr *ip = &inner->ip.v4;

		length = ip->ihl * 4;
		/* A super-packet may be longer than tot_len can say; its segments get theirs later. */
		if (!skb->gso_size &&
		    (bpf_ntohs(ip->tot_len) < length || bpf_ntohs(ip->tot_len) > available))
			return -1;
		if (!header_is_right(skb, offset, ip))
			return -1;
		inner->ttl = ip->ttl;
		inner->tos = ip->tos;
		inner->protocol = ip->protocol;
		fragment = ip->frag_off & MORE_OR_OFFSET;
		inner->flow_hash = mix(mix(0, ip->saddr), ip->daddr);
	} else if (version == 6) {
		struct ipv6hdr *ip = &inner->ip.v6;

		if (bpf_skb_load_bytes(skb, offset, ip, sizeof(*ip)))
			return -1;
		length = sizeof(*ip);
		if (!skb->gso_size && bpf_ntohs(ip->payload_len) + length > available)
			return -1;
		inner->ttl = ip->hop_limit;
		inner->tos = ip->priority << 4 | ip->flow_lbl[0] >> 4;
		inner->protocol = ip->nexthdr;
		inner->flow_hash = 0;
#pragma unroll
		for (int i = 0; i < 4; i++)
			inner->flow_hash = mix(mix(inner->flow_hash, ip->saddr.s6_addr32[i]),
					       ip->daddr.s6_addr32[i]);
	} else {
		return -1;
	}
	inner->family = version;
	inner->transport_offset = offset + length;
	if ((inner->protocol == IPPROTO_TCP || inner->protocol == IPPROTO_UDP) && !fragment &&
	    bpf_skb_load_bytes(skb, inner->transport_offset, &ports, sizeof(ports)))
		ports = 0;
	inner->flow_hash = mix(mix(inner->flow_hash, ports), inner->protocol);
	return 0;
}

/*
 * Write TTL and traffic class into the IP header at `offset`; IPv4's checksum follows (RFC 1624). Its words are put
 * together in registers: a word that is read right after one of its octets was written waits for that.
 */
static __always_inline int write_inner(struct __sk_buff *skb, __u32 offset, struct inner *inner,
				       __u8 ttl, __u8 tos)
{
	if (inner->family == 4) {
		struct iphdr *ip = &inner->ip.v4;
		__u16 version_length = 4 << 12 | ip->ihl << 8;
		__u64 sum = (__u16)~ip->check;

		sum += (__u16)~bpf_htons(version_length | ip->tos);
		sum += (__u16)~bpf_htons(ip->ttl << 8 | ip->protocol);
		sum += bpf_htons(version_length | tos);
		sum += bpf_htons(ttl << 8 | ip->protocol);
		ip->ttl = ttl;
		ip->tos = tos;
		ip->check = ~fold(sum);
		inner->ttl = ttl;
		inner->tos = tos;
		return bpf_skb_store_bytes(skb, offset, ip, sizeof(*ip), 0);
	}
	inner->ip.v6.hop_limit = ttl;
	inner->ip.v6.priority = tos >> 4;
	inner->ip.v6.flow_lbl[0] = (inner->ip.v6.flow_lbl[0] & 0x0f) | tos << 4;
	inner->ttl = ttl;
	inner->tos = tos;
	return bpf_skb_store_bytes(skb, offset, &inner->ip.v6, 8, BPF_F_RECOMPUTE_CSUM);
}

/*
 * The traffic class after decapsulation: the outer DSCP (RFC 9300 §5.3) and ECN by RFC 6040 §4.2.
 * Returns -1 where the packet must be dropped: congestion that the inner transport cannot be told.
 */
static __always_inline int decapsulated_tos(__u8 outer, __u8 inner)
{
	__u8 outer_ecn = outer & ECN_MASK, ecn = inner & ECN_MASK;

	if (outer_ecn == ECN_CE) {
		if (ecn == ECN_NOT_ECT)
			return -1;
		ecn = ECN_CE;
	} else if (outer_ecn == ECN_ECT_1 && ecn != ECN_NOT_ECT && ecn != ECN_CE) {
		ecn = ECN_ECT_1;
	}
	return (outer & ~ECN_MASK) | ecn;
}

/*
 * Whether a non-zero UDP checksum is right. `pseudo` is the sum of the pseudo-header's addresses.
 * The first 32 KiB are summed; nothing longer arrives without being a super-packet, whose checksum
 * is not yet computed. Nor is that of a packet from this machine whose sender left it to the
 * hardware: the field then holds the pseudo-header's sum, which is taken for right.
 */
static __always_inline int udp_checksum_is_right(struct __sk_buff *skb, __u32 offset,
						 const struct udphdr *udp, __u64 pseudo)
{
	__u32 left = bpf_ntohs(udp->len), zero = 0;
	struct chunk *chunk = bpf_map_lookup_elem(&chunks, &zero);
	__u32 sum;

	pseudo += udp->len + bpf_htons(IPPROTO_UDP);
	sum = fold(pseudo);
	if (!udp->check || skb->gso_size || udp->check == sum)
		return 1;
	if (!chunk)
		return 0;
	for (int i = 0; i < 64; i++) {
		__u32 length = left < CHUNK ? left : CHUNK;

		if (length == 0 || length > CHUNK)
			break;
		if (bpf_skb_load_bytes(skb, offset, chunk->bytes, length))
			return 0;
		chunk->bytes[length] = 0;
		chunk->bytes[length + 1] = 0;
		chunk->bytes[length + 2] = 0;
		length = (length + 3) & ~3u;
		if (length > CHUNK)
			break;
		sum = bpf_csum_diff(0, 0, (__be32 *)chunk->bytes, length, sum);
		if (left <= CHUNK)
			break;
		left -= CHUNK;
		offset += CHUNK;
	}
	return fold(sum) == 0xffff;
}

#endif
