/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Entries, and putting a packet into its tunnel or taking it out: what ITR and ETR share. */
#ifndef TESTBED_TUNNEL_H
#define TESTBED_TUNNEL_H

#include "echo.h"
#include "packet.h"
#include "report.h"
#include "state.h"

/* In UAPI headers since Linux 6.3; older kernels refuse them, which is counted as adjust-room. */
#define ADJ_ROOM_DECAP_L3_IPV4 (1ULL << 7)
#define ADJ_ROOM_DECAP_L3_IPV6 (1ULL << 8)

#define LISP_LSB_ENABLED 0x40
#define LISP_MAP_VERSION 0x10
#define LISP_INSTANCE_ID 0x08
#define LISP_ENCRYPTED 0x03

struct lisp_header {
	__be32 flags_nonce; /* N L E V I R K K, then 24 bits of nonce or two map-versions */
	__be32 instance_lsb;
};

struct outer_v4 {
	struct iphdr ip;
	struct udphdr udp;
	struct lisp_header lisp;
};

struct outer_v6 {
	struct ipv6hdr ip;
	struct udphdr udp;
	struct lisp_header lisp;
};

/* With the EtherType before it, so that one call writes both; the padding keeps the rest aligned. */
struct frame_v4 {
	__u16 padding;
	__be16 protocol;
	struct outer_v4 outer;
};

struct frame_v6 {
	__u16 padding;
	__be16 protocol;
	struct outer_v6 outer;
};

static __always_inline const struct config *configured(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&configuration, &zero);
}

static __always_inline int drop(__u32 reason)
{
	__u64 *counter = bpf_map_lookup_elem(&drop_counters, &reason);

	if (counter)
		(*counter)++;
	return TC_ACT_SHOT;
}

/*
 * Send to the slow path's TAP. Why, and the longest IP packet that would have fitted, travel in the
 * destination MAC, 02:00:00:limit:limit:reason: the TAP is private, its MACs mean nothing else.
 */
static __always_inline int hold(struct __sk_buff *skb, const struct config *config, __u8 reason,
				__u16 limit)
{
	__u8 mac[6] = {2, 0, 0, limit >> 8, limit, reason};

	bpf_skb_store_bytes(skb, 0, mac, sizeof(mac), 0);
	return bpf_redirect(config->slow_path_ifindex, 0);
}

/*
 * Leave the next hop's MAC to the kernel, and its queue while the MAC is not known. The mark tells
 * dropped.bpf.c whose packet it was, if it is never sent; another network namespace does not see it.
 */
static __always_inline int hand_to_neighbour(struct __sk_buff *skb, const struct config *config, __u32 ifindex)
{
	if (config->mark)
		skb->mark = config->mark | (ifindex == config->core_ifindex);
	return bpf_redirect_neigh(ifindex, 0, 0, 0);
}

static __always_inline struct entry *entry_for(__u32 instance_id, __u32 family,
					       const union address *address)
{
	if (family == 4) {
		struct key_v4 key = {64, bpf_htonl(instance_id), address->v4};

		return bpf_map_lookup_elem(&entries_v4, &key);
	}
	struct key_v6 key = {160, bpf_htonl(instance_id), {}};

	__builtin_memcpy(key.address, address->bytes, sizeof(key.address));
	return bpf_map_lookup_elem(&entries_v6, &key);
}

static __always_inline struct entry *entry_of_destination(__u32 instance_id, const struct inner *inner)
{
	return inner->family == 4 ? entry_for(instance_id, 4, (const union address *)&inner->ip.v4.daddr)
				  : entry_for(instance_id, 6, (const union address *)&inner->ip.v6.daddr);
}

/* An expired entry says only that the mapping must be asked for again (RFC 9300 §6). */
static __always_inline __u8 kind_now(const struct entry *entry, __u64 now)
{
	return entry->expires_ns && now >= entry->expires_ns ? KIND_RESOLVE : entry->kind;
}

static __always_inline void set_address(union address *to, __u32 family, const union address *from)
{
	__builtin_memset(to, 0, sizeof(*to));
	if (family == 4)
		to->v4 = from->v4;
	else
		__builtin_memcpy(to, from, sizeof(*to));
}

static __always_inline void set_source(union address *to, const struct inner *inner)
{
	set_address(to, inner->family, source_of(inner));
}

static __always_inline void set_destination(union address *to, const struct inner *inner)
{
	if (inner->family == 4)
		set_address(to, 4, (const union address *)&inner->ip.v4.daddr);
	else
		set_address(to, 6, (const union address *)&inner->ip.v6.daddr);
}

/*
 * The clock that packets are accounted and entries expire by: a timer tick behind bpf_ktime_get_ns(), and much
 * cheaper. What becomes an event has the exact one.
 */
static __always_inline __u64 coarse_now(void)
{
	return bpf_ktime_get_coarse_ns();
}

static __always_inline void account(struct __sk_buff *skb, struct entry *entry, __u64 now)
{
	__sync_fetch_and_add(&entry->usage.packets, 1);
	__sync_fetch_and_add(&entry->usage.bytes, skb->len - ETH_HLEN);
	entry->usage.last_used_ns = now;
}

/* RFC 9300 §5.3: map-versions if the mapping has one (RFC 9302), else a nonce, fresh in each packet. */
static __always_inline struct lisp_header lisp_header(const struct config *config,
						      const struct entry *entry,
						      const struct locator *locator, __u32 instance_id,
						      const struct inner *inner, __u64 now)
{
	struct lisp_header header;
	struct entry *source = NULL;
	__u32 flags, second = 0;

	if (entry->map_version || config->has_locator_status_bits) {
		source = entry_for(instance_id, inner->family, source_of(inner));
		if (source && source->kind != KIND_LOCAL)
			source = NULL;
	}
	if (entry->map_version) {
		__u32 source_version = source ? source->map_version : 0;

		flags = LISP_MAP_VERSION << 24 | (source_version & 0xfff) << 12 |
			(entry->map_version & 0xfff);
	} else if (config->hints & HINT_ECHO_NONCE) {
		flags = echoing_nonce(config, locator, now);
	} else {
		flags = LISP_NONCE_PRESENT << 24 | (bpf_get_prandom_u32() & 0xffffff);
	}
	if (instance_id) {
		flags |= LISP_INSTANCE_ID << 24;
		second = instance_id << 8;
	}
	/* They are of the source's mapping: not ours to say for what is sent on. */
	if (config->has_locator_status_bits && source) {
		flags |= LISP_LSB_ENABLED << 24;
		second |= instance_id ? config->locator_status_bits & 0xff : config->locator_status_bits;
	}
	header.flags_nonce = bpf_htonl(flags);
	header.instance_lsb = bpf_htonl(second);
	return header;
}

/*
 * Write the outer headers over the room made for them, and send. TTL, DSCP and ECN are the inner's;
 * DF is set; the UDP checksum is zero, IPv6 too (RFC 9300 §5.3, RFC 6936).
 */
static __always_inline int send_outer(struct __sk_buff *skb, const struct config *config,
				      const struct locator *locator, const struct inner *inner,
				      struct lisp_header lisp)
{
	__u16 port = 0xc000 | (inner->flow_hash & 0x3fff); /* the dynamic ports */
	__u32 length = skb->len - ETH_HLEN;

	if (locator->family == 4) {
		struct frame_v4 frame = {.protocol = bpf_htons(ETH_P_IP), .outer = {
			.ip = {
				.version = 4,
				.ihl = 5,
				.tos = inner->tos,
				.tot_len = bpf_htons(length),
				.frag_off = DONT_FRAGMENT,
				.ttl = inner->ttl,
				.protocol = IPPROTO_UDP,
				.saddr = config->rloc_v4.v4,
				.daddr = locator->rloc.v4,
			},
			.udp = {
				.source = bpf_htons(port),
				.dest = bpf_htons(LISP_DATA_PORT),
				.len = bpf_htons(length - sizeof(struct iphdr)),
			},
			.lisp = lisp,
		}};
		__u64 sum = 0;
		__u32 *words = (__u32 *)&frame.outer.ip;

#pragma unroll
		for (int i = 0; i < 5; i++)
			sum += words[i];
		frame.outer.ip.check = ~fold(sum);
		if (bpf_skb_store_bytes(skb, ETH_HLEN - sizeof(frame.protocol), &frame.protocol,
					sizeof(frame.protocol) + sizeof(frame.outer), 0))
			return drop(DROP_ADJUST_ROOM);
	} else {
		struct frame_v6 frame = {.protocol = bpf_htons(ETH_P_IPV6), .outer = {
			.ip = {
				.version = 6,
				.priority = inner->tos >> 4,
				.payload_len = bpf_htons(length - sizeof(struct ipv6hdr)),
				.nexthdr = IPPROTO_UDP,
				.hop_limit = inner->ttl,
			},
			.udp = {
				.source = bpf_htons(port),
				.dest = bpf_htons(LISP_DATA_PORT),
				.len = bpf_htons(length - sizeof(struct ipv6hdr)),
			},
			.lisp = lisp,
		}};

		frame.outer.ip.flow_lbl[0] = inner->tos << 4 | (inner->flow_hash >> 16 & 0x0f);
		frame.outer.ip.flow_lbl[1] = inner->flow_hash >> 8;
		frame.outer.ip.flow_lbl[2] = inner->flow_hash;
		__builtin_memcpy(&frame.outer.ip.saddr, &config->rloc_v6, sizeof(frame.outer.ip.saddr));
		__builtin_memcpy(&frame.outer.ip.daddr, &locator->rloc, sizeof(frame.outer.ip.daddr));
		if (bpf_skb_store_bytes(skb, ETH_HLEN - sizeof(frame.protocol), &frame.protocol,
					sizeof(frame.protocol) + sizeof(frame.outer), 0))
			return drop(DROP_ADJUST_ROOM);
	}
	return hand_to_neighbour(skb, config, config->core_ifindex);
}

/* The flow's locator among those of the best priority, by weight (RFC 9300 §9, §12). */
static __always_inline int choose_locator(const struct entry *entry, const struct inner *inner,
					  struct locator *chosen)
{
#pragma unroll
	for (int i = 0; i < MAX_LOCATORS; i++) {
		if (i >= entry->locator_count)
			break;
		if (inner->flow_hash >> 16 < entry->locators[i].threshold) {
			*chosen = entry->locators[i];
			return 0;
		}
	}
	return -1;
}

/* Report the first packet that goes where the entry's locators now point: exactly one, if need be a later one. */
static __always_inline void announce(struct entry *entry, const struct locator *locator,
				     const struct inner *inner, __u32 instance_id)
{
	struct report *report;
	__u32 generation = entry->generation;

	if (entry->announced == generation)
		return;
	report = new_report(REPORT_FIRST_PACKET);
	if (!report)
		return;
	if (__sync_lock_test_and_set(&entry->announced, generation) == generation) {
		bpf_ringbuf_discard(report, 0);
		return;
	}
	report->number = generation;
	report->eid_family = inner->family;
	report->rloc_family = locator->family;
	report->instance_id = instance_id;
	set_destination(&report->eid, inner);
	report->rloc = locator->rloc;
	bpf_ringbuf_submit(report, 0);
}

/* The octets of the IP packet at `offset` on the wire: of the longest segment, if it is a super-packet. */
static __always_inline __u32 wire_length(struct __sk_buff *skb, __u32 offset, const struct inner *inner)
{
	__u8 data_offset;

	if (skb->gso_size && inner->protocol == IPPROTO_UDP)
		return inner->transport_offset - offset + sizeof(struct udphdr) + skb->gso_size;
	if (!skb->gso_size || bpf_skb_load_bytes(skb, inner->transport_offset + 12, &data_offset, 1))
		return skb->len - offset;
	return inner->transport_offset - offset + (data_offset >> 4) * 4 + skb->gso_size;
}

/* The octets that encapsulation to a locator adds. */
static __always_inline __u32 overhead_of(const struct locator *locator)
{
	return locator->family == 4 ? sizeof(struct outer_v4) : sizeof(struct outer_v6);
}

/* Whether what was injected had arrived by a tunnel, so that its source is not told by the LAN. */
static __always_inline int came_from_elsewhere(const struct config *config, const struct inner *inner, __u64 now)
{
	struct entry *entry = entry_for(config->instance_id, inner->family, source_of(inner));
	__u8 kind = entry ? kind_now(entry, now) : KIND_NATIVE;

	return kind == KIND_REMOTE || kind == KIND_AWAY || kind == KIND_RESOLVE;
}

/* Prepend the outer headers to the IP packet behind the Ethernet header and send it to its locator. */
static __always_inline int encapsulate_to(struct __sk_buff *skb, const struct config *config,
					  struct entry *entry, struct inner *inner, __u32 instance_id,
					  int injected, __u64 now)
{
	struct lisp_header lisp;
	struct locator locator;
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
	__u32 overhead;

	if (choose_locator(entry, inner, &locator))
		return drop(DROP_NO_LOCATOR);
	if (inner->ttl <= 1)
		return hold(skb, config,
			    injected && came_from_elsewhere(config, inner, now) ? HOLD_ARRIVED_TTL_EXPIRED
										: HOLD_TTL_EXPIRED,
			    0);
	/*
	 * Datagrams in one super-packet (UDP_SEGMENT): the receiving kernel would mistake them for a
	 * tunnel's segments. The TAP takes them apart.
	 */
	if (skb->gso_size && inner->protocol == IPPROTO_UDP)
		return hold(skb, config, HOLD_AGAIN, 0);
	overhead = overhead_of(&locator);
	if (wire_length(skb, ETH_HLEN, inner) + overhead > locator.mtu ||
	    skb->len - ETH_HLEN + overhead > 0xffff)
		return hold(skb, config,
			    injected && came_from_elsewhere(config, inner, now) ? HOLD_ARRIVED_EXCEEDS_MTU
										: HOLD_EXCEEDS_MTU,
			    locator.mtu - overhead);
	account(skb, entry, now);
	if (write_inner(skb, ETH_HLEN, inner, inner->ttl - 1, inner->tos))
		return drop(DROP_TRUNCATED);
	flags |= locator.family == 4 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;
	if (bpf_skb_adjust_room(skb, overhead, BPF_ADJ_ROOM_MAC, flags))
		return drop(DROP_ADJUST_ROOM);
	lisp = lisp_header(config, entry, &locator, instance_id, inner, now);
	announce(entry, &locator, inner, instance_id);
	return send_outer(skb, config, &locator, inner, lisp);
}

/* Remove `length` octets behind the Ethernet header, and name what is there now in it. */
static __always_inline int strip(struct __sk_buff *skb, __u32 length, __u32 outer_family,
				 struct inner *inner)
{
	__be16 protocol = inner->family == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;

	if (inner->family != outer_family)
		flags |= inner->family == 4 ? ADJ_ROOM_DECAP_L3_IPV4 : ADJ_ROOM_DECAP_L3_IPV6;
	if (bpf_skb_adjust_room(skb, -(__s32)length, BPF_ADJ_ROOM_MAC, flags))
		return -1;
	inner->transport_offset -= length;
	return bpf_skb_store_bytes(skb, ETH_HLEN - 2, &protocol, sizeof(protocol), 0);
}

#endif
