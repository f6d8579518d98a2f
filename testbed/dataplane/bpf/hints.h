/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What an arriving packet says about locators, for those who listen to it (RFC 9300 §10). */
#ifndef TESTBED_HINTS_H
#define TESTBED_HINTS_H

#include "etr.h"

/* The sender's site says which of its locators are up: report a change, for the mapping that we have of it. */
static __always_inline void hear_locator_status(const struct lisp_header *lisp, struct entry *cached,
						const struct arrival *arrival, const struct inner *inner,
						__u64 now)
{
	__u32 flags = bpf_ntohl(lisp->flags_nonce), bits = bpf_ntohl(lisp->instance_lsb);
	union address eid;
	__u8 kind = kind_now(cached, now);

	if (!(flags & LISP_LSB_ENABLED << 24) || (kind != KIND_REMOTE && kind != KIND_AWAY))
		return;
	if (flags & LISP_INSTANCE_ID << 24)
		bits |= ~0xffu; /* nothing is said of the ninth locator and on */
	if (bits == cached->locator_status)
		return;
	set_source(&eid, inner);
	if (report_arrival(REPORT_LOCATOR_STATUS, bits, &eid, arrival, inner))
		cached->locator_status = bits;
}

/* A nonce that the sender wants back, or that we wanted back; or a packet that should have brought it. */
static __always_inline void hear_nonce(const struct lisp_header *lisp, const struct arrival *arrival,
				       const struct inner *inner, __u64 now)
{
	__u32 word = bpf_ntohl(lisp->flags_nonce), nonce = word & NONCE_MASK, kind;
	union address peer = arrival->peer, eid;
	struct echo_request *request;

	/* The E-bit means nothing without the N-bit (§5.3). */
	if (word & (__u32)LISP_NONCE_PRESENT << 24 && word & LISP_ECHO_REQUESTED << 24)
		bpf_map_update_elem(&echoes_owed, &peer, &nonce, BPF_ANY);
	request = bpf_map_lookup_elem(&echo_requests, &peer);
	if (!request)
		return;
	if ((word >> 24 & (LISP_NONCE_PRESENT | LISP_ECHO_REQUESTED)) == LISP_NONCE_PRESENT &&
	    nonce == request->nonce && request->sent)
		kind = REPORT_NONCE_ECHOED;
	else if (request->due_ns && now > request->due_ns)
		kind = REPORT_NONCE_NOT_ECHOED;
	else
		return;
	set_source(&eid, inner);
	if (report_arrival(kind, nonce, &eid, arrival, inner))
		bpf_map_delete_elem(&echo_requests, &peer);
}

/* A source that packets to would have to wait for a mapping of: say which locator it came from. */
static __always_inline void hear_source(const struct entry *entry, const struct arrival *arrival,
					const struct inner *inner, __u64 now)
{
	union address eid;

	if (kind_now(entry, now) != KIND_RESOLVE)
		return;
	set_source(&eid, inner);
	report_arrival(REPORT_UNMAPPED_SOURCE, 0, &eid, arrival, inner);
}

/* Not inlined: whoever listens to nothing shall not pay for registers and stack that this wants. */
static __noinline void hear_hints(const struct config *config, const struct lisp_header *lisp,
				  const struct arrival *arrival, const struct inner *inner, __u64 now)
{
	struct entry *source;

	if (config->hints & HINT_ECHO_NONCE)
		hear_nonce(lisp, arrival, inner, now);
	if (!(config->hints & (HINT_LOCATOR_STATUS | HINT_SOURCE)))
		return;
	source = entry_for(arrival->instance_id, inner->family, source_of(inner));
	if (!source)
		return;
	if (config->hints & HINT_LOCATOR_STATUS)
		hear_locator_status(lisp, source, arrival, inner, now);
	if (config->hints & HINT_SOURCE)
		hear_source(source, arrival, inner, now);
}

#endif
