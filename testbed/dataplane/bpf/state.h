/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the programs share with the loader: configuration, entries, reports. Every structure here has
 * its twin in `testbed/dataplane/layout.py`; multi-byte fields are in host order unless typed __be.
 */
#ifndef TESTBED_STATE_H
#define TESTBED_STATE_H

#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>

#include "reasons.h"

#define MAX_ENTRIES 65536
#define MAX_LOCATORS 8
#define MAX_REMEMBERED 8192
#define SEEN_INTERVAL_NS 10000000ULL /* one report in 10 ms of an EID that shows itself */
/*
 * One in 70 ms of what a peer's packets say: each may cost a question and an answer over the whole network, and
 * what they bring about comes a few round trips later, of which this is no multiple.
 */
#define ARRIVAL_INTERVAL_NS 70000000ULL

union address {
	__u8 bytes[16];
	__be32 words[4];
	__be32 v4;
};

enum kind {
	KIND_LOCAL = 1,
	KIND_REMOTE = 2,
	KIND_AWAY = 3,
	KIND_RESOLVE = 4,
	KIND_DROP = 5,
	KIND_NATIVE = 6,
	KIND_OWN = 7, /* an address of the xTR itself: always the kernel's */
};

struct config {
	__u32 core_ifindex;
	__u32 eid_ifindex;
	__u32 slow_path_ifindex;
	__u32 instance_id;
	__u32 locator_status_bits;
	__u8 has_locator_status_bits;
	__u8 has_rloc_v4;
	__u8 has_rloc_v6;
	__u8 map_versioning; /* compare what arrives (RFC 9302 §7) */
	union address rloc_v4;
	union address rloc_v6;
	__u32 hints; /* of enum hint: what arriving packets say that is listened to (RFC 9300 §10) */
	__u32 echo_timeout_us;
	__u32 mark; /* of what is handed to the kernel's neighbours (dropped.bpf.c), even; 0 = nobody looks */
	__u32 eid_mtu; /* of the EID interface, octets of IP */
};

enum hint {
	HINT_LOCATOR_STATUS = 1,
	HINT_ECHO_NONCE = 2,
	HINT_SOURCE = 4, /* where an EID without a mapping sends from (§9, gleaning) */
};

struct locator {
	union address rloc;
	__u16 family;    /* 4 or 6 */
	__u16 mtu;       /* of the path there, octets of IP (RFC 9300 §7.2) */
	__u32 threshold; /* taken if the flow hash's upper 16 bits are below; ascending, last 65536 */
};

/* What every packet writes; two processors at once where both directions of a flow are of one EID. */
struct usage {
	__u64 packets;
	__u64 bytes;
	__u64 last_used_ns; /* CLOCK_MONOTONIC_COARSE */
};

/*
 * `usage` has the end, away from what is only read: on a cache line of its own, no processor waits for
 * another's counting. Not at a multiple of 64: in an entries_v6 node it would straddle two lines, and an
 * atomic operation there stops all processors.
 */
struct entry {
	__u64 expires_ns; /* CLOCK_MONOTONIC; 0 = never */
	__u32 generation; /* changes when the locators do */
	__u32 announced;  /* the generation whose first packet was reported */
	__u16 map_version;
	__u8 kind;
	__u8 locator_count;
	__u32 locator_status; /* the bits that came last from there (RFC 9300 §10); 0 = none yet */
	struct locator locators[MAX_LOCATORS];
	struct usage usage;
};

struct key_v4 {
	__u32 prefix_length; /* including the 32 bits of the instance-ID */
	__be32 instance_id;
	__be32 address;
};

struct key_v6 {
	__u32 prefix_length;
	__be32 instance_id;
	__u8 address[16];
};

enum report_kind {
	REPORT_FIRST_PACKET = 1,
	REPORT_STALE = 2,
	REPORT_EID_SEEN = 3,
	REPORT_OLD_DESTINATION_VERSION = 4,
	REPORT_NEW_SOURCE_VERSION = 5,
	REPORT_LOCATOR_STATUS = 6,
	REPORT_NONCE_ECHOED = 7,
	REPORT_NONCE_NOT_ECHOED = 8,
	REPORT_UNMAPPED_SOURCE = 9,
};

struct report {
	__u64 mono_ns;
	__u32 kind;
	__u32 number; /* the entry's generation; or map-version or locator-status-bits of the packet */
	__u8 eid_family;
	__u8 rloc_family;
	__u8 peer_family;
	__u8 unused;
	__u8 mac[6];
	__u16 unused_too;
	__u32 instance_id;
	union address eid;
	union address rloc;
	union address peer;
};

/* What was reported of whom, so that it is not repeated for every packet, and silences nothing else. */
struct report_key {
	union address eid;
	union address peer;
	__u32 kind;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} configuration SEC(".maps");

/* 1 if the EID interface is one end of a veth cable whose other end is in another network namespace. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} cable SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_ENTRIES);
	__type(key, struct key_v4);
	__type(value, struct entry);
} entries_v4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_ENTRIES);
	__type(key, struct key_v6);
	__type(value, struct entry);
} entries_v6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 256);
	__type(key, struct key_v4);
	__type(value, __u32);
} dynamic_v4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 256);
	__type(key, struct key_v6);
	__type(value, __u32);
} dynamic_v6 SEC(".maps");

/* A locator that is asked to echo a nonce (RFC 9300 §10.1); made by the agent, removed with the report. */
struct echo_request {
	__u64 due_ns; /* from then on a packet from there without the echo is a failure; 0 = not yet asked enough */
	__u32 nonce;  /* 24 bits */
	__u16 sent;   /* packets that asked, up to enough */
	__u16 gave_way; /* the last packet there answered instead of asking */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, union address);
	__type(value, struct echo_request);
} echo_requests SEC(".maps");

/* Locators that asked us → the nonce that the next packet there echoes. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_REMEMBERED);
	__type(key, union address);
	__type(value, __u32);
} echoes_owed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_REMEMBERED);
	__type(key, struct report_key);
	__type(value, __u64);
} reported SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DROP_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} drop_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} reports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} reports_lost SEC(".maps");

#define CHUNK 512 /* the most that bpf_csum_diff takes at once on old kernels */

struct chunk {
	__u8 bytes[CHUNK + 4];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct chunk);
} chunks SEC(".maps");

#endif
