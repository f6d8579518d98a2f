/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What came out of a tunnel, or was held: to its host on the EID LAN. */
#ifndef TESTBED_DELIVER_H
#define TESTBED_DELIVER_H

#include "tunnel.h"

/*
 * Hand to the other end of the EID interface's cable, without a detour over the interface's queue. Returns
 * -1 where the packet must go the usual way: no cable, no route, or a host whose MAC is not known yet.
 */
static __always_inline int hand_over(struct __sk_buff *skb, const struct config *config,
				     const struct inner *inner)
{
	__u32 zero = 0;
	__u32 *connected = bpf_map_lookup_elem(&cable, &zero);
	struct bpf_fib_lookup host = {.ifindex = config->eid_ifindex};
	struct ethhdr ethernet;

	if (!connected || !*connected)
		return -1;
	if (inner->family == 4) {
		host.family = 2; /* AF_INET */
		host.ipv4_src = inner->ip.v4.saddr;
		host.ipv4_dst = inner->ip.v4.daddr;
	} else {
		host.family = 10; /* AF_INET6 */
		__builtin_memcpy(host.ipv6_src, &inner->ip.v6.saddr, sizeof(host.ipv6_src));
		__builtin_memcpy(host.ipv6_dst, &inner->ip.v6.daddr, sizeof(host.ipv6_dst));
	}
	if (bpf_fib_lookup(skb, &host, sizeof(host), BPF_FIB_LOOKUP_OUTPUT) ||
	    host.ifindex != config->eid_ifindex)
		return -1;
	__builtin_memcpy(ethernet.h_dest, host.dmac, ETH_ALEN);
	__builtin_memcpy(ethernet.h_source, host.smac, ETH_ALEN);
	ethernet.h_proto = inner->family == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	if (bpf_skb_store_bytes(skb, 0, &ethernet, sizeof(ethernet), 0))
		return -1;
	skb->tstamp = 0; /* that of its arrival here: captures there stamp it anew */
	return bpf_redirect_peer(config->eid_ifindex, 0);
}

/* Forward on the EID LAN, as a router does: one off the TTL, and no more than the LAN carries. */
static __always_inline int deliver(struct __sk_buff *skb, const struct config *config,
				   struct entry *entry, struct inner *inner, __u64 now)
{
	int verdict;

	if (inner->ttl <= 1)
		return hold(skb, config, HOLD_ARRIVED_TTL_EXPIRED, 0);
	if (wire_length(skb, ETH_HLEN, inner) > config->eid_mtu)
		return hold(skb, config, HOLD_ARRIVED_EXCEEDS_MTU, config->eid_mtu);
	account(skb, entry, now);
	if (write_inner(skb, ETH_HLEN, inner, inner->ttl - 1, inner->tos))
		return drop(DROP_TRUNCATED);
	verdict = hand_over(skb, config, inner);
	return verdict >= 0 ? verdict : hand_to_neighbour(skb, config, config->eid_ifindex);
}

#endif
