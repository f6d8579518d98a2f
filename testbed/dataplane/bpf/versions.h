/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the map-versions of an arriving packet say (RFC 9302 §7). */
#ifndef TESTBED_VERSIONS_H
#define TESTBED_VERSIONS_H

#include "etr.h"

#define MAP_VERSION_MASK 0xfff
#define MAP_VERSION_HALF 0x800

/* RFC 9302 §6; neither is null. */
static __always_inline int is_newer_version(__u32 version, __u32 than)
{
	return version > than ? version - than <= MAP_VERSION_HALF : than - version > MAP_VERSION_HALF;
}

/*
 * Compare the versions in a packet with ours. `local` is the database's entry of the destination, or
 * NULL where we are not authoritative (it has left). Returns the reason to drop the packet, or -1.
 */
static __always_inline int check_map_versions(const struct lisp_header *lisp, const struct entry *local,
					      const struct arrival *arrival, const struct inner *inner,
					      __u64 now)
{
	__u32 word = bpf_ntohl(lisp->flags_nonce);
	__u32 source = word >> 12 & MAP_VERSION_MASK, destination = word & MAP_VERSION_MASK;
	struct entry *cached;
	union address eid;
	__u8 kind;

	/* N and V together are read as N (RFC 9300 §5.3). */
	if (!(word & LISP_MAP_VERSION << 24) || word & (__u32)LISP_NONCE_PRESENT << 24)
		return -1;
	if (local && !destination)
		return DROP_MAP_VERSION_DESTINATION; /* a protocol violation (§7.1) */
	if (local && local->map_version && local->map_version != destination) {
		if (is_newer_version(destination, local->map_version))
			return DROP_MAP_VERSION_DESTINATION;
		set_destination(&eid, inner);
		report_arrival(REPORT_OLD_DESTINATION_VERSION, destination, &eid, arrival, inner);
	}
	if (!source)
		return -1;
	cached = entry_for(arrival->instance_id, inner->family, source_of(inner));
	if (!cached || !cached->map_version || cached->map_version == source)
		return -1;
	kind = kind_now(cached, now);
	if (kind != KIND_REMOTE && kind != KIND_AWAY)
		return -1;
	if (!is_newer_version(source, cached->map_version))
		return DROP_MAP_VERSION_SOURCE;
	set_source(&eid, inner);
	report_arrival(REPORT_NEW_SOURCE_VERSION, source, &eid, arrival, inner);
	return -1;
}

#endif
