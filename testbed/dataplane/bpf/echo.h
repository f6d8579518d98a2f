/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Whether a locator gets our packets, by a nonce that it sends back in its own (RFC 9300 §10.1): what we send. */
#ifndef TESTBED_ECHO_H
#define TESTBED_ECHO_H

#include "state.h"

#define LISP_NONCE_PRESENT 0x80
#define LISP_ECHO_REQUESTED 0x20
#define NONCE_MASK 0xffffff

/* So many packets must have asked before silence says anything: one or two may be lost. */
#define ECHO_REQUESTS_AT_LEAST 3

/*
 * The first word of the header to a locator. While both sides ask, packets ask and answer by turns: who
 * only answered would never learn that its answers are lost (§10.1 suspends the asking for a while).
 */
static __noinline __u32 echoing_nonce(const struct config *config, const struct locator *locator,
					   __u64 now)
{
	union address rloc = locator->rloc;
	struct echo_request *request = bpf_map_lookup_elem(&echo_requests, &rloc);
	__u32 *owed = bpf_map_lookup_elem(&echoes_owed, &rloc);

	if (owed && !(request && request->gave_way)) {
		__u32 nonce = *owed & NONCE_MASK;

		if (request)
			request->gave_way = 1;
		bpf_map_delete_elem(&echoes_owed, &rloc);
		return (__u32)LISP_NONCE_PRESENT << 24 | nonce;
	}
	if (!request)
		return (__u32)LISP_NONCE_PRESENT << 24 | (bpf_get_prandom_u32() & NONCE_MASK);
	request->gave_way = 0;
	if (request->sent < ECHO_REQUESTS_AT_LEAST && ++request->sent == ECHO_REQUESTS_AT_LEAST)
		request->due_ns = now + (__u64)config->echo_timeout_us * 1000;
	return (__u32)(LISP_NONCE_PRESENT | LISP_ECHO_REQUESTED) << 24 | (request->nonce & NONCE_MASK);
}

#endif
