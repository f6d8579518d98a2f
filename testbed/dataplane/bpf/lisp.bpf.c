// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The LISP data plane (RFC 9300): three programs on clsact ingress.
 *
 *   encapsulate           EID interface: what the site sends (ITR)
 *   encapsulate_injected  slow path's TAP: packets whose mapping has been found, or made by the agent
 *   decapsulate           core interface: UDP 4341 to our RLOC (ETR, and re-encapsulation, §5.3),
 *                         and ICMP about what we sent there (§7.2)
 *
 * A packet is forwarded, held (sent to the TAP, where the agent reads it), left to the kernel, or
 * counted in `drop_counters`. The kernel's helpers want a GPL-compatible licence, hence the dual one.
 */
#include "deliver.h"
#include "etr.h"
#include "hints.h"
#include "notice.h"
#include "pathmtu.h"
#include "tunnel.h"
#include "versions.h"

char licence[] SEC("license") = "Dual BSD/GPL";

/* What becomes of an inner packet that the site or the agent sends. */
static __always_inline int from_site(struct __sk_buff *skb, const struct config *config,
				     struct inner *inner, int injected)
{
	__u64 now = coarse_now();
	struct entry *entry = entry_of_destination(config->instance_id, inner);

	if (!entry)
		return TC_ACT_OK;
	switch (kind_now(entry, now)) {
	case KIND_REMOTE:
	case KIND_AWAY:
		return encapsulate_to(skb, config, entry, inner, config->instance_id, injected, now);
	case KIND_RESOLVE:
		account(skb, entry, now);
		return hold(skb, config, HOLD_RESOLVE, 0);
	case KIND_DROP:
		account(skb, entry, now);
		return drop(DROP_NEGATIVE);
	case KIND_LOCAL:
		return injected ? deliver(skb, config, entry, inner, now) : TC_ACT_OK;
	default: /* NATIVE, OWN */
		return TC_ACT_OK;
	}
}

/*
 * Whether a frame is of a VLAN, which neither the site's LAN nor the core's link is: the kernel has put its tag
 * beside it. What is left to the kernel goes to its interface of that VLAN, or is counted (otherhost_dropped).
 * VLAN 0 says only a priority (IEEE 802.1Q §6.9): that tag is taken off, so that it does not go on.
 */
static __always_inline int is_of_a_vlan(struct __sk_buff *skb)
{
	return skb->vlan_present && ((skb->vlan_tci & VLAN_ID_MASK) || bpf_skb_vlan_pop(skb));
}

SEC("classifier")
int encapsulate(struct __sk_buff *skb)
{
	const struct config *config = configured();
	struct inner inner = {};

	if (!config || is_of_a_vlan(skb))
		return TC_ACT_OK;
	if (skb->protocol == bpf_htons(ETH_P_ARP)) {
		notice_arp(skb, config);
		return TC_ACT_OK;
	}
	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6))
		return TC_ACT_OK;
	if (read_inner(skb, ETH_HLEN, &inner))
		return TC_ACT_OK; /* the kernel counts and drops it */
	notice_source(skb, config, &inner);
	/* Broadcast, multicast, and what a bridge floods for others are not the router's to forward. */
	if (skb->pkt_type != 0 /* PACKET_HOST */)
		return TC_ACT_OK;
	return from_site(skb, config, &inner, 0);
}

SEC("classifier")
int encapsulate_injected(struct __sk_buff *skb)
{
	const struct config *config = configured();
	struct inner inner = {};

	if (!config)
		return TC_ACT_OK;
	if (read_inner(skb, ETH_HLEN, &inner))
		return drop(DROP_INNER_MALFORMED);
	return from_site(skb, config, &inner, 1);
}

SEC("classifier")
int decapsulate(struct __sk_buff *skb)
{
	const struct config *config = configured();
	struct arrival arrival = {};
	struct inner inner = {};
	struct entry *entry;
	__u64 now;
	__u8 kind;
	int verdict, tos;

	if (!config || skb->pkt_type != 0 /* PACKET_HOST */ || is_of_a_vlan(skb))
		return TC_ACT_OK;
	verdict = read_outer(skb, config, &arrival);
	if (verdict == TC_ACT_OK && says_too_big(skb, config))
		return hold(skb, config, HOLD_PATH_MTU, 0);
	if (verdict != TC_ACT_PIPE)
		return verdict;
	/* Other flags, in whatever combination, change nothing for an ETR that does not use them. */
	if (arrival.lisp.flags_nonce & bpf_htonl(LISP_ENCRYPTED << 24))
		return drop(DROP_ENCRYPTED);
	if (arrival.lisp.flags_nonce & bpf_htonl(LISP_INSTANCE_ID << 24))
		arrival.instance_id = bpf_ntohl(arrival.lisp.instance_lsb) >> 8;
	if (read_inner(skb, ETH_HLEN + arrival.length, &inner))
		return drop(DROP_INNER_MALFORMED);
	tos = decapsulated_tos(arrival.tos, inner.tos);
	if (tos < 0)
		return drop(DROP_ECN);

	now = coarse_now();
	entry = entry_of_destination(arrival.instance_id, &inner);
	kind = entry ? kind_now(entry, now) : KIND_RESOLVE;
	if (!entry || (kind != KIND_LOCAL && kind != KIND_OWN && kind != KIND_AWAY))
		return drop(kind == KIND_DROP ? DROP_NEGATIVE : DROP_NO_LOCAL_EID);
	if (config->map_versioning && kind != KIND_OWN) {
		verdict = check_map_versions(&arrival.lisp, kind == KIND_LOCAL ? entry : NULL, &arrival, &inner, now);
		if (verdict >= 0)
			return drop(verdict);
	}
	if (config->hints)
		hear_hints(config, &arrival.lisp, &arrival, &inner, now);
	if (arrival.ttl > inner.ttl)
		arrival.ttl = inner.ttl; /* outer to inner only when lower (RFC 9300 §5.3) */
	if (write_inner(skb, ETH_HLEN + arrival.length, &inner, arrival.ttl, tos))
		return drop(DROP_TRUNCATED);
	if (kind == KIND_AWAY)
		return reencapsulate(skb, config, entry, &arrival, &inner, now);
	if (strip(skb, arrival.length, arrival.family, &inner))
		return drop(DROP_ADJUST_ROOM);
	return kind == KIND_LOCAL ? deliver(skb, config, entry, &inner, now) : TC_ACT_OK;
}
