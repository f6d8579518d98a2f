/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Why a packet was dropped, and why one was handed to the slow path: the one table of both. The
 * loader reads the names from this file (`testbed/dataplane/layout.py`), so keep one entry a line.
 */
#ifndef TESTBED_REASONS_H
#define TESTBED_REASONS_H

/* clang-format off */
#define DROP_REASONS(X)                                                                              \
	X(TRUNCATED, "truncated")                         /* shorter than its headers say */             \
	X(OUTER_FRAGMENT, "outer-fragment")               /* LISP sets DF; fragments are not joined */   \
	X(UDP_CHECKSUM, "udp-checksum")                   /* non-zero and wrong */                       \
	X(ENCRYPTED, "encrypted")                         /* KK bits set (RFC 8061) */                   \
	X(INNER_MALFORMED, "inner-malformed")             /* not an IP packet with a right header */     \
	X(ECN, "ecn")                                     /* outer CE, inner Not-ECT (RFC 6040 §4.2) */  \
	X(NO_LOCAL_EID, "no-local-eid")                   /* decapsulated for an EID not at this site */ \
	X(NEGATIVE, "negative-entry")                     /* an entry whose action is drop */            \
	X(NO_LOCATOR, "no-locator")                       /* no locator of a family that we have */      \
	X(MAP_VERSION_DESTINATION, "map-version-destination") /* null, or newer than ours (RFC 9302) */  \
	X(MAP_VERSION_SOURCE, "map-version-source")       /* older than what we have (RFC 9302 §7.2) */  \
	X(TTL, "ttl")                                     /* expired while being re-encapsulated */      \
	X(ADJUST_ROOM, "adjust-room")                     /* the kernel refused to make or take room */

/* Of what the programs handed to the kernel and no interface counts (dropped.bpf.c). */
#define KERNEL_DROP_REASONS(X)                                                                       \
	X(CORE_UNRESOLVED, "core-unresolved")             /* the next hop's MAC was not found out */     \
	X(EID_UNRESOLVED, "eid-unresolved")               /* the same, of a host of the site */

#define HOLD_REASONS(X)                                                                              \
	X(RESOLVE, "resolve")                             /* EID space without a mapping */              \
	X(EXCEEDS_MTU, "exceeds-mtu")                     /* RFC 9300 §7: ICMP is due to the site */     \
	X(ARRIVED_EXCEEDS_MTU, "arrived-exceeds-mtu")     /* the same, to a source at another site */    \
	X(PATH_MTU, "path-mtu")                           /* ICMP from the core about a packet of ours */ \
	X(AGAIN, "again")                                 /* to be injected as it is, as new packets */  \
	X(TTL_EXPIRED, "ttl-expired")                     /* ICMP time exceeded is due to the site */    \
	X(ARRIVED_TTL_EXPIRED, "arrived-ttl-expired")     /* the same, to a source at another site */
/* clang-format on */

#define AS_DROP(name, text) DROP_##name,
enum drop_reason { DROP_REASONS(AS_DROP) DROP_COUNT };

#define AS_KERNEL_DROP(name, text) KERNEL_DROP_##name,
enum kernel_drop_reason { KERNEL_DROP_REASONS(AS_KERNEL_DROP) KERNEL_DROP_COUNT };

#define AS_HOLD(name, text) HOLD_##name,
enum hold_reason { HOLD_REASONS(AS_HOLD) HOLD_COUNT };

#endif
