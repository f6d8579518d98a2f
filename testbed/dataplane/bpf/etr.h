/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The ETR's half of lisp.bpf.c: what arrives in UDP 4341 at our RLOC. */
#ifndef TESTBED_ETR_H
#define TESTBED_ETR_H

#include "tunnel.h"

struct arrival {
	union address peer; /* the outer source */
	__u32 family;       /* of the outer header */
	__u32 length;       /* of the outer headers: IP, UDP and LISP */
	__u32 instance_id;
	struct lisp_header lisp;
	__u8 ttl;
	__u8 tos;
};

static __always_inline void report_stale(const struct locator *locator, const struct arrival *arrival,
					 const struct inner *inner)
{
	struct report_key key = {.peer = arrival->peer, .kind = REPORT_STALE};
	struct report *report;

	set_destination(&key.eid, inner);
	report = due_report(&key, ARRIVAL_INTERVAL_NS);
	if (!report)
		return;
	report->eid_family = inner->family;
	report->rloc_family = locator->family;
	report->peer_family = arrival->family;
	report->instance_id = arrival->instance_id;
	report->rloc = locator->rloc;
	bpf_ringbuf_submit(report, 0);
}

/*
 * Report what a packet says of one of its EIDs. Returns whether that was done; what is not said again
 * by every packet must not be forgotten before.
 */
static __always_inline int report_arrival(__u32 kind, __u32 number, const union address *eid,
					  const struct arrival *arrival, const struct inner *inner)
{
	struct report_key key = {.eid = *eid, .peer = arrival->peer, .kind = kind};
	struct report *report = due_report(&key, ARRIVAL_INTERVAL_NS);

	if (!report)
		return 0;
	report->number = number;
	report->eid_family = inner->family;
	report->peer_family = arrival->family;
	report->instance_id = arrival->instance_id;
	bpf_ringbuf_submit(report, 0);
	return 1;
}

/*
 * Send on to where the EID now lives. With both outer headers of one family they are rewritten where
 * they stand. Else they are taken off, and the packet takes the way through the slow path: the kernel
 * does not let a packet be encapsulated that was already, if it never left this machine. So does one
 * that the path to its new place does not carry. Net effect on the TTL: one less (RFC 9300 §5.3).
 */
static __always_inline int reencapsulate(struct __sk_buff *skb, const struct config *config,
					 struct entry *entry, const struct arrival *arrival,
					 struct inner *inner, __u64 now)
{
	struct locator locator;
	__u32 plain = arrival->family == 4 ? sizeof(struct outer_v4) : sizeof(struct outer_v6);
	__u32 limit;
	int same_headers;

	if (choose_locator(entry, inner, &locator))
		return drop(DROP_NO_LOCATOR);
	report_stale(&locator, arrival, inner);
	if (inner->ttl <= 1)
		return drop(DROP_TTL);
	limit = locator.mtu - overhead_of(&locator);
	same_headers = locator.family == arrival->family && arrival->length == plain;
	if (!same_headers || wire_length(skb, ETH_HLEN + arrival->length, inner) > limit) {
		/* What is injected belongs to the configured instance. */
		if (arrival->instance_id != config->instance_id)
			return drop(DROP_ADJUST_ROOM);
		if (strip(skb, arrival->length, arrival->family, inner))
			return drop(DROP_ADJUST_ROOM);
		return hold(skb, config, same_headers ? HOLD_ARRIVED_EXCEEDS_MTU : HOLD_AGAIN, limit);
	}
	account(skb, entry, now);
	if (write_inner(skb, ETH_HLEN + plain, inner, inner->ttl - 1, inner->tos))
		return drop(DROP_TRUNCATED);
	announce(entry, &locator, inner, arrival->instance_id);
	return send_outer(skb, config, &locator, inner,
			  lisp_header(config, entry, &locator, arrival->instance_id, inner, now));
}

/* Read the outer IP, UDP and LISP headers. Returns TC_ACT_PIPE if the packet is a LISP data packet to us. */
static __always_inline int read_outer(struct __sk_buff *skb, const struct config *config,
				      struct arrival *arrival)
{
	struct {
		struct udphdr udp;
		struct lisp_header lisp;
	} headers;
	__u64 pseudo = 0;
	__u32 offset, end; /* of UDP; of the IP packet, which padding may follow */
	int fragment = 0;

	if (skb->protocol == bpf_htons(ETH_P_IP) && config->has_rloc_v4) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
			return TC_ACT_OK;
		if (ip.protocol != IPPROTO_UDP || ip.daddr != config->rloc_v4.v4 ||
		    ip.frag_off & bpf_htons(0x1fff))
			return TC_ACT_OK;
		/* The kernel has not looked at it yet (ip_rcv), and drops and counts it. */
		end = ETH_HLEN + bpf_ntohs(ip.tot_len);
		if (!header_is_right(skb, ETH_HLEN, &ip) ||
		    (!skb->gso_size && (end > skb->len || end < ETH_HLEN + ip.ihl * 4)))
			return TC_ACT_OK;
		fragment = ip.frag_off & bpf_htons(0x2000);
		offset = ETH_HLEN + ip.ihl * 4;
		arrival->family = 4;
		arrival->ttl = ip.ttl;
		arrival->tos = ip.tos;
		arrival->peer.v4 = ip.saddr;
		pseudo = (__u64)ip.saddr + ip.daddr;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6) && config->has_rloc_v6) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
			return TC_ACT_OK;
		if (ip.nexthdr != IPPROTO_UDP)
			return TC_ACT_OK;
#pragma unroll
		for (int i = 0; i < 4; i++) {
			if (ip.daddr.s6_addr32[i] != config->rloc_v6.words[i])
				return TC_ACT_OK;
			pseudo += (__u64)ip.saddr.s6_addr32[i] + ip.daddr.s6_addr32[i];
		}
		offset = ETH_HLEN + sizeof(ip);
		end = offset + bpf_ntohs(ip.payload_len);
		if (!skb->gso_size && end > skb->len)
			return TC_ACT_OK;
		arrival->family = 6;
		arrival->ttl = ip.hop_limit;
		arrival->tos = ip.priority << 4 | ip.flow_lbl[0] >> 4;
		__builtin_memcpy(&arrival->peer, &ip.saddr, sizeof(arrival->peer));
	} else {
		return TC_ACT_OK;
	}
	if (bpf_skb_load_bytes(skb, offset, &headers, sizeof(headers))) {
		if (bpf_skb_load_bytes(skb, offset, &headers.udp, sizeof(headers.udp)) ||
		    headers.udp.dest != bpf_htons(LISP_DATA_PORT))
			return TC_ACT_OK;
		return drop(fragment ? DROP_OUTER_FRAGMENT : DROP_TRUNCATED);
	}
	if (headers.udp.dest != bpf_htons(LISP_DATA_PORT))
		return TC_ACT_OK;
	if (fragment)
		return drop(DROP_OUTER_FRAGMENT);
	if (!skb->gso_size && (bpf_ntohs(headers.udp.len) > end - offset ||
			       bpf_ntohs(headers.udp.len) < sizeof(headers)))
		return drop(DROP_TRUNCATED);
	if (!udp_checksum_is_right(skb, offset, &headers.udp, pseudo))
		return drop(DROP_UDP_CHECKSUM);
	arrival->length = offset - ETH_HLEN + sizeof(headers);
	arrival->lisp = headers.lisp;
	return TC_ACT_PIPE;
}

#endif
