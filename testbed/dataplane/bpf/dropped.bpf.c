// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Packets that lisp.bpf.c has handed to the kernel and that were never sent, because the next hop's MAC was
 * not found out: no interface counts these. The programs mark what they hand over; only what is dropped
 * comes by here, so a packet that is sent costs nothing more. An object of its own, because a kernel without
 * BTF, or before Linux 5.17, cannot load it.
 */
#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "reasons.h"

char licence[] SEC("license") = "Dual BSD/GPL";

/* What is used of the kernel's; where it is, and which number a reason has, is found at load (CO-RE). */
struct sk_buff {
	unsigned char *head;
	unsigned char *data;
	unsigned long _skb_refdst;
	__u32 mark;
	__u16 network_header;
} __attribute__((preserve_access_index));

enum skb_drop_reason {
	SKB_DROP_REASON_NOT_SPECIFIED = 1,
	SKB_DROP_REASON_NEIGH_CREATEFAIL,
	SKB_DROP_REASON_NEIGH_FAILED,
	SKB_DROP_REASON_NEIGH_QUEUEFULL,
	SKB_DROP_REASON_NEIGH_DEAD,
	SKB_DROP_REASON_QUEUE_PURGE, /* the neighbour was deleted, or its link went, while the packet waited */
};

/* Whether `reason` is this one, on a kernel that knows it. */
#define IS(reason, name)                                                                             \
	(bpf_core_enum_value_exists(enum skb_drop_reason, SKB_DROP_REASON_##name) &&                     \
	 (reason) == bpf_core_enum_value(enum skb_drop_reason, SKB_DROP_REASON_##name))

/* The mark of what is handed over towards the core; without its lowest bit, towards the site. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} watched SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KERNEL_DROP_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} kernel_drop_counters SEC(".maps");

/* Routed, and still without an Ethernet header: it has not got past its neighbour. */
static __always_inline int has_no_mac(const struct sk_buff *skb)
{
	return skb->_skb_refdst && skb->data == skb->head + skb->network_header;
}

static __always_inline int was_unresolved(const struct sk_buff *skb, int reason)
{
	/*
	 * NOT_SPECIFIED: so IPv6 gives up on packets that waited; IPv4 says NEIGH_FAILED. QUEUE_PURGE: so does a
	 * capture that ends on its copies, which were sent.
	 */
	if (IS(reason, NOT_SPECIFIED) || IS(reason, QUEUE_PURGE))
		return has_no_mac(skb);
	return IS(reason, NEIGH_CREATEFAIL) || IS(reason, NEIGH_FAILED) || IS(reason, NEIGH_QUEUEFULL) ||
	       IS(reason, NEIGH_DEAD);
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(dropped, struct sk_buff *skb, void *location, int reason)
{
	__u32 zero = 0, counted;
	__u32 *mark = bpf_map_lookup_elem(&watched, &zero);
	__u64 *counter;

	/* Whatever else it is, an interface counts it. */
	if (!mark || !*mark || (skb->mark | 1) != *mark || !was_unresolved(skb, reason))
		return 0;
	counted = skb->mark & 1 ? KERNEL_DROP_CORE_UNRESOLVED : KERNEL_DROP_EID_UNRESOLVED;
	counter = bpf_map_lookup_elem(&kernel_drop_counters, &counted);
	if (counter)
		(*counter)++;
	return 0;
}
