/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Discovery: reports of EIDs that show themselves on the EID LAN. */
#ifndef TESTBED_NOTICE_H
#define TESTBED_NOTICE_H

#include "tunnel.h"

#define ICMPV6_NEIGHBOUR_SOLICITATION 135
#define ICMPV6_NEIGHBOUR_ADVERTISEMENT 136

/* Report an EID that has shown itself on the LAN where it is not (yet) known to live. */
static __always_inline void notice(struct __sk_buff *skb, const struct config *config, __u32 family,
				   const union address *address)
{
	struct entry *entry = entry_for(config->instance_id, family, address);
	struct report_key key = {.kind = REPORT_EID_SEEN};
	struct report *report;
	void *dynamic;

	/* The usual case, for which the clock is rarely needed. */
	if (entry && (entry->kind == KIND_LOCAL || entry->kind == KIND_OWN) &&
	    (!entry->expires_ns || coarse_now() < entry->expires_ns))
		return;
	if (family == 4) {
		struct key_v4 prefix = {64, bpf_htonl(config->instance_id), address->v4};

		dynamic = bpf_map_lookup_elem(&dynamic_v4, &prefix);
	} else {
		struct key_v6 prefix = {160, bpf_htonl(config->instance_id), {}};

		__builtin_memcpy(prefix.address, address->bytes, sizeof(prefix.address));
		dynamic = bpf_map_lookup_elem(&dynamic_v6, &prefix);
	}
	if (!dynamic)
		return;
	set_address(&key.eid, family, address);
	report = due_report(&key, SEEN_INTERVAL_NS);
	if (!report)
		return;
	report->eid_family = family;
	report->instance_id = config->instance_id;
	bpf_skb_load_bytes(skb, ETH_ALEN, report->mac, ETH_ALEN);
	bpf_ringbuf_submit(report, 0);
}

/* The sender of an ARP packet, whatever its kind (RFC 826, RFC 5227: a probe's sender is 0). */
static __always_inline void notice_arp(struct __sk_buff *skb, const struct config *config)
{
	union address sender = {};

	if (!bpf_skb_load_bytes(skb, ETH_HLEN + 14, &sender.v4, sizeof(sender.v4)) && sender.v4)
		notice(skb, config, 4, &sender);
}

/* Who an IP packet comes from; in neighbour discovery (RFC 4861) the target that it speaks for. */
static __always_inline void notice_source(struct __sk_buff *skb, const struct config *config,
					  const struct inner *inner)
{
	if (inner->family == 6 && inner->protocol == IPPROTO_ICMPV6) {
		__u8 type = 0;
		union address target;

		bpf_skb_load_bytes(skb, inner->transport_offset, &type, sizeof(type));
		if (type == ICMPV6_NEIGHBOUR_ADVERTISEMENT ||
		    (type == ICMPV6_NEIGHBOUR_SOLICITATION && !inner->ip.v6.saddr.s6_addr32[0])) {
			if (!bpf_skb_load_bytes(skb, inner->transport_offset + 8, &target, sizeof(target)))
				notice(skb, config, 6, &target);
			return;
		}
	}
	notice(skb, config, inner->family, source_of(inner));
}

#endif
