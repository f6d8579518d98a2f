/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Reports to the agent: made whole or not at all, stamped with the exact time, and counted where there is no room. */
#ifndef TESTBED_REPORT_H
#define TESTBED_REPORT_H

#include "state.h"

/* An empty report, now; NULL if the agent has left no room for it, which is counted. Submit or discard it. */
static __always_inline struct report *new_report(__u32 kind)
{
	struct report *report = bpf_ringbuf_reserve(&reports, sizeof(*report), 0);

	if (!report) {
		__u32 zero = 0;
		__u64 *lost = bpf_map_lookup_elem(&reports_lost, &zero);

		if (lost)
			(*lost)++;
		return NULL;
	}
	__builtin_memset(report, 0, sizeof(*report));
	report->mono_ns = bpf_ktime_get_ns();
	report->kind = kind;
	return report;
}

/*
 * The same, as a key says: NULL also if that was reported less than an interval ago. One that finds no room is
 * due again with the next packet.
 */
static __always_inline struct report *due_report(const struct report_key *key, __u64 interval_ns)
{
	__u64 *last = bpf_map_lookup_elem(&reported, key), now = bpf_ktime_get_ns();
	struct report *report;

	if (last && now - *last < interval_ns)
		return NULL;
	report = new_report(key->kind);
	if (!report)
		return NULL;
	bpf_map_update_elem(&reported, key, &now, BPF_ANY);
	report->eid = key->eid;
	report->peer = key->peer;
	return report;
}

#endif
