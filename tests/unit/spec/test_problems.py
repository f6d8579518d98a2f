"""Every mistake is answered with file:line:column, what is wrong, and what is allowed."""

from __future__ import annotations

import pytest

from testbed.spec import SpecError, apply_overrides, kind_of, load_experiment, load_topology

TOPOLOGY = """\
schema_version: 1
name: two-sites
mapping_system: {link: {delay_ms: 5}}
sites:
  - name: site-a
    dynamic_eid_prefixes: [192.168.0.0/24]
    xen_host: {}
  - name: site-b
    dynamic_eid_prefixes: [192.168.0.0/24]
    xen_host: {}
  - name: site-c
    eid_prefixes: [192.168.3.0/24]
correspondent: {site: site-c}
guests:
  - {name: vm1, site: site-a, eid: 192.168.0.10}
"""

EXPERIMENT = """\
schema_version: 1
name: quick
topology: two-sites.yaml
substrate: xen
mechanism: ttl
migrations:
  - to: site-b
probes: {interval_ms: 10}
"""

LINK_KEYS = "delay_ms, jitter_ms, loss_percent, rate_mbit, queue_ms, mtu"
A_PREFIX = "allowed: network/length, as 192.168.0.0/24"
A_NAME = (
    "allowed: lower-case letters, digits, single hyphens, a letter first, "
    "at most 11 characters (beside a leading 'site-')"
)
PREFIXES = "allowed: distinct prefixes, the same dynamic prefix at several sites, or another instance_id"

#: (what to replace, by what, every problem that follows).
TOPOLOGY_MISTAKES: list[tuple[str, str, list[str]]] = [
    ("delay_ms", "delay", [
        f"t.yaml:3:25: unknown key 'delay'; did you mean 'delay_ms'? Allowed: {LINK_KEYS}"
    ]),
    ("delay_ms", "zzz", [f"t.yaml:3:25: unknown key 'zzz'; allowed: {LINK_KEYS}"]),
    ("delay_ms: 5", "delay_ms: -5", ["t.yaml:3:35: -5 is out of range; allowed: at least 0"]),
    ("delay_ms: 5", "delay_ms: 5ms", ["t.yaml:3:35: '5ms' is of the wrong type; allowed: a number"]),
    ("delay_ms: 5", "mtu: 68", ["t.yaml:3:30: 68 is out of range; allowed: at least 1280"]),
    ("delay_ms: 5", "mtu: 1500.5", ["t.yaml:3:30: 1500.5 is of the wrong type; allowed: a whole number"]),
    ("delay_ms: 5", "delay_ms: .inf", ["t.yaml:3:35: inf is of the wrong type; allowed: a finite number"]),
    ("{link: {delay_ms: 5}}", "5", ["t.yaml:3:17: 5 is of the wrong type; allowed: a mapping"]),
    ("schema_version: 1", "schema_version: 2", ["t.yaml:1:17: 2 is not known; allowed: 1"]),
    (
        "name: two-sites\n",
        "name: two-sites\nname: again\n",
        ["t.yaml:3:1: key 'name' stands twice in one mapping; allowed: once"],
    ),
    ("mapping_system: {", "mapping_system: [", ["t.yaml:3:37: not YAML: expected ',' or ']', but got '}'"]),
    ("correspondent: {site: site-c}\n", "", ["t.yaml:1:1: key 'correspondent' is missing"]),
    ("    eid_prefixes: [192.168.3.0/24]\n", "", [
        "t.yaml:11:5: site 'site-c' has neither eid_prefixes nor dynamic_eid_prefixes",
        "t.yaml:12:23: site-c has no eid_prefixes for the correspondent",
    ]),
    ("{site: site-c}", "{site: site-d}", [
        "t.yaml:13:23: no site is called 'site-d'; did you mean 'site-c'? Allowed: site-a, site-b, site-c"
    ]),
    ("{site: site-c}", "{site: site-c, eid: 192.168.4.1}", [
        "t.yaml:13:36: 192.168.4.1 is in no prefix of site-c; allowed: in 192.168.3.0/24"
    ]),
    ("{site: site-c}", "{site: site-c, eid: 192.168.3.1}", [
        "t.yaml:13:36: 192.168.3.1 is the gateway's; allowed: a free address"
    ]),
    ("192.168.3.0/24", "192.168.3.1/24", [
        f"t.yaml:12:20: '192.168.3.1/24' is not a prefix (192.168.3.1/24 has host bits set); {A_PREFIX}"
    ]),
    ("192.168.3.0/24", "192.168.0.0/25", [
        f"t.yaml:12:20: 192.168.0.0/25 overlaps 192.168.0.0/24 of site-a; {PREFIXES}",
        f"t.yaml:12:20: 192.168.0.0/25 overlaps 192.168.0.0/24 of site-b; {PREFIXES}",
    ]),
    ("192.168.3.0/24", "10.3.0.0/24", [
        "t.yaml:12:20: EID prefix 10.3.0.0/24 overlaps the RLOC space 10.0.0.0/8; allowed: apart from it"
    ]),
    ("192.168.3.0/24", "192.168.3.0/30", [
        "t.yaml:12:20: 192.168.3.0/30 is too small for a LAN; allowed: 16 addresses or more"
    ]),
    ("  - name: site-c\n", "  - name: site-c\n    rloc: 10.0.1.2\n", [
        "t.yaml:12:11: the link's network 10.0.1.0/24 is that of sites.0 too; allowed: one /24 a link"
    ]),
    ("  - name: site-b\n", "  - name: site-b\n    further_xtrs: [{}]\n", [
        ("t.yaml:9:19: site-b has dynamic_eid_prefixes, and nothing says which of several xTRs forwards for a guest; "
        "allowed: further xTRs at sites with eid_prefixes only")
    ]),
    ("  - name: site-c\n", "  - name: site-c\n    further_xtrs: [{rloc: 10.0.1.9}]\n", [
        "t.yaml:12:27: the link's network 10.0.1.0/24 is that of sites.0 too; allowed: one /24 a link"
    ]),
    ("  - name: site-c\n", "  - name: site-c\n    further_xtrs: [{}, {name: xtr-a}]\n", [
        "t.yaml:12:31: 'xtr-a' is already the name of another node; allowed: a name of its own"
    ]),
    ("  - name: site-c\n", ("  - name: site-a2\n    eid_prefixes: [192.168.4.0/24]\n    further_xtrs: [{rlocs: x}]\n"
        "  - name: site-c\n"), [
        ("t.yaml:13:21: unknown key 'rlocs'; did you mean 'rloc'? "
        "Allowed: name, rloc, rloc_priority, rloc_weight, link")
    ]),
    ("  - name: site-c\n", ("  - name: site-c2\n    eid_prefixes: [192.168.4.0/24]\n"
        "  - name: site-c\n    further_xtrs: [{}]\n"), [
        "t.yaml:14:20: 'c2' is already the name of another site; allowed: a name of its own",
        "t.yaml:14:20: 'xtr-c2' is already the name of another node; allowed: a name of its own",
    ]),
    ("correspondent: {site: site-c}", "    further_xtrs: [{}]\ncorrespondent: {site: site-c, eid: 192.168.3.254}", [
        "t.yaml:13:20: its address in 192.168.3.0/24, 192.168.3.254, is taken; allowed: a free one there"
    ]),
    ("correspondent:", f"    further_xtrs: [{', '.join(['{}'] * 56)}]\ncorrespondent:", [
        "t.yaml:13:240: 56 further xTRs; allowed: 55 in all"
    ]),
    ("  - name: site-c\n", "  - name: site-c\n    rloc: 203.0.113.2\n", [
        "t.yaml:12:11: RLOC 203.0.113.2 is outside the RLOC space; allowed: in 10.0.0.0/8"
    ]),
    ("  - name: site-c\n", "  - name: site-c\n    rloc: 10.0.7.300\n", [
        "t.yaml:12:11: '10.0.7.300' is not an address; allowed: IPv4 or IPv6, as 192.168.0.10"
    ]),
    ("  - name: site-c\n", "  - name: site-c\n    rloc: 'fd10::2'\n", [
        "t.yaml:12:11: RLOC fd10::2 is outside the RLOC space; allowed: in 10.0.0.0/8"
    ]),
    ("sites:\n", "rloc_space: fd10::/60\nsites:\n", [
        "t.yaml:4:13: fd10::/60 is too small for the derived addresses; allowed: /56 or shorter"
    ]),
    ("sites:\n", "rloc_space: fd10::1/48\nsites:\n", [
        f"t.yaml:4:13: 'fd10::1/48' is not a prefix (fd10::1/48 has host bits set); {A_PREFIX}"
    ]),
    ("sites:\n  - name: site-a\n", "rloc_space: fd10::/48\nsites:\n  - name: site-a\n    rloc: 10.0.1.2\n", [
        "t.yaml:7:11: RLOC 10.0.1.2 is outside the RLOC space; allowed: in fd10::/48"
    ]),
    ("sites:\n  - name: site-a\n", "rloc_space: fd10::/48\nsites:\n  - name: site-a\n    rloc: 'fd10::9'\n", [
        "t.yaml:7:11: the link's network fd10::/64 is that of mapping_system too; allowed: one /64 a link"
    ]),
    ("192.168.3.0/24]\ncorr", "192.168.3.0/24, 10.9.0.0/24]\nrloc_space: fd10::/48\ncorr", [
        "t.yaml:12:36: EID prefix 10.9.0.0/24 overlaps the migration space 10.0.0.0/8; allowed: apart from it"
    ]),
    ("192.168.3.0/24]\ncorr", "192.168.3.0/24, 'fd10:9::/64']\nrloc_space: fd10::/16\ncorr", [
        "t.yaml:12:36: EID prefix fd10:9::/64 overlaps the RLOC space fd10::/16; allowed: apart from it"
    ]),
    ("[192.168.3.0/24]\ncorr", "['fd0e::/64']\n    link: {mtu: 1315}\ncorr", [
        "t.yaml:13:17: 1315 is too narrow for the IPv6 EIDs of site-c; allowed: 1316 or more"
    ]),
    ("[192.168.3.0/24]\ncorr", "['fd0e::/64']\n    link: {mtu: 1335}\nrloc_space: fd10::/48\ncorr", [
        "t.yaml:13:17: 1335 is too narrow for the IPv6 EIDs of site-c; allowed: 1336 or more"
    ]),
    ("  - name: site-c\n", "  - name: site-c\n    gateway: {addresses: [192.168.4.1]}\n", [
        "t.yaml:12:26: 0 gateway addresses in 192.168.3.0/24; allowed: one a prefix",
        "t.yaml:12:27: gateway 192.168.4.1 is in no prefix of site-c; allowed: in 192.168.3.0/24",
    ]),
    ("  - name: site-c\n", "  - name: site-c\n    gateway: {mac: 01:00:5e:00:00:01}\n", [
        "t.yaml:12:20: '01:00:5e:00:00:01' is a group address; allowed: a MAC whose first byte is even"
    ]),
    ("  - name: site-c\n", "  - name: site-c\n    xtr: xtr-a\n", [
        "t.yaml:12:10: 'xtr-a' is already the name of another node; allowed: a name of its own"
    ]),
    ("  - name: site-c\n", "  - name: Site C\n", [
        f"t.yaml:11:11: 'Site C' is not a name; {A_NAME}"
    ]),
    ("site: site-a, eid: 192.168.0.10", "site: site-a, eid: 192.168.1.10", [
        "t.yaml:15:36: 192.168.1.10 is in no dynamic prefix of site-a; allowed: in 192.168.0.0/24"
    ]),
    ("site: site-a, eid: 192.168.0.10", "site: site-a, eid: 192.168.0.1", [
        "t.yaml:15:36: 192.168.0.1 is taken by another guest or the gateway; allowed: a free address"
    ]),
    ("name: vm1", "name: ms", [
        "t.yaml:15:12: 'ms' is already the name of another node; allowed: a name of its own"
    ]),
    ("  - name: site-c\n", "  - name: site-c\n    instance_id: 16777216\n", [
        "t.yaml:12:18: 16777216 is out of range; allowed: at most 16777215"
    ]),
    ("  - name: site-c\n", "  - name: site-c\n    instance_id: red\n", [
        "t.yaml:12:18: 'red' is of the wrong type; allowed: a whole number"
    ]),
    ("  - name: site-c\n", "  - name: site-c\n    instance_id: 7\n", [
        "t.yaml:16:23: site-a is in instance 0, the correspondent in 7; allowed: a site in the correspondent's instance"
    ]),
    ("    eid_prefixes: [192.168.3.0/24]\n", (
        "    eid_prefixes: [192.168.3.0/24]\n  - name: site-d\n    instance_id: 7\n"
        "    eid_prefixes: [192.168.0.0/24]\n    dynamic_eid_prefixes: [192.168.0.128/25]\n"
    ), [
        f"t.yaml:16:28: 192.168.0.128/25 overlaps 192.168.0.0/24 of site-d; {PREFIXES}"
    ]),
    ("site: site-a, eid", "site: site-a, vcpus: 0, eid", [
        "t.yaml:15:38: 0 is out of range; allowed: at least 1"
    ]),
]  # fmt: skip

MECHANISMS = "ttl, smr-old-xtr, smr-map-server, smr-new-xtr, pubsub, map-version, rloc-probe"

TOLERANCES = (
    "mac-over-trailer, notify-to-source-port, plain-map-request, sha-1, smr-without-d-bit, wide-key-id, "
    "zero-notify-authentication, zero-register-nonce"
)

EXPERIMENT_MISTAKES: list[tuple[str, str, list[str]]] = [
    ("mechanism: ttl", "mechanism: pubsup", [
        f"e.yaml:5:12: 'pubsup' is not known; did you mean 'pubsub'? Allowed: {MECHANISMS}"
    ]),
    ("substrate: xen", "substrate: lxc", ["e.yaml:4:12: 'lxc' is not known; allowed: xen, netns"]),
    ("to: site-b", "to: site-e", [
        "e.yaml:7:9: no site is called 'site-e'; did you mean 'site-c'? Allowed: site-a, site-b, site-c"
    ]),
    ("to: site-b", "to: site-a", ["e.yaml:7:9: vm1 is at site-a already; allowed: another site"]),
    ("to: site-b", "to: site-c", [
        "e.yaml:7:9: site-c has no dynamic prefix with vm1's EID 192.168.0.10; allowed: one that has",
        "e.yaml:7:9: site-c has no xen_host; allowed with substrate xen: a site with one",
    ]),
    ("to: site-b", "path: [site-b]\n    repeat: 2", [
        "e.yaml:7:12: vm1 is at site-b already; allowed: another site"
    ]),
    ("to: site-b", "to: site-b\n    path: [site-a]", [
        "e.yaml:7:5: a migration has one of two forms; allowed: `to: site-b`, or `path: [site-b, site-a]`",
    ]),
    ("to: site-b", "to: site-b\n    repeat: 3", [
        "e.yaml:8:13: `to` cannot be repeated; allowed: `path: [there, back]` with `repeat`"
    ]),
    ("migrations:\n  - to: site-b\n", "migrations: []\n", [
        "e.yaml:6:13: too few items; allowed: at least 1"
    ]),
    ("interval_ms: 10", "flows: [sctp]", ["e.yaml:8:18: 'sctp' is not known; allowed: icmp, udp, tcp"]),
    (
        "interval_ms: 10",
        "flows: [tcp]",
        ["e.yaml:8:17: a connection does not show which probe was lost; allowed: tcp beside icmp or udp"],
    ),
    ("interval_ms: 10", "interval_ms: 0.1", ["e.yaml:8:23: 0.1 is out of range; allowed: at least 0.2"]),
    (
        "interval_ms: 10",
        "interval_ms: 0.5, flows: [icmp, tcp]",
        ["e.yaml:8:23: too often for a connection's messages; allowed with tcp: at least 1"],
    ),
    ("interval_ms: 10", "flows: [udp, udp]", ["e.yaml:8:23: udp is there twice; allowed: each once"]),
    (
        "interval_ms: 10",
        "directions: [from-guest]",
        [
            "e.yaml:8:23: a run waits until its guest answers; allowed with substrate xen: from-guest beside to-guest",
        ],
    ),
    (
        "interval_ms: 10",
        "flows: [icmp, tcp], directions: [to-guest, from-guest]",
        [
            (
                "e.yaml:8:24: which message TCP carries again is not told from captures; "
                "allowed with a Xen guest's from-guest: icmp, udp"
            )
        ],
    ),
    ("probes:", "lisp: {tolerate: [sha-1, sha1]}\nprobes:", [
        f"e.yaml:8:26: 'sha1' is not known; did you mean 'sha-1'? Allowed: {TOLERANCES}"
    ]),
    ("probes:", "lisp: {tolerate: sha-1}\nprobes:", [
        "e.yaml:8:18: 'sha-1' is of the wrong type; allowed: a list"
    ]),
    ("probes:", "lisp: {authentication: none}\nprobes:", [
        "e.yaml:8:24: 'none' is not known; allowed: hmac-sha-256-128, hmac-sha-256-128+hkdf"
    ]),
    (
        "mechanism: ttl",
        "mechanism: map-version\nlisp: {echo_nonce: true}",
        ["e.yaml:6:20: map-versions take the nonce's place (RFC 9300 §5.3); allowed with map-version: false"],
    ),
    ("probes:", "guest: {name: vm2}\nprobes:", [
        "e.yaml:8:15: no guest is called 'vm2'; did you mean 'vm1'? Allowed: vm1"
    ]),
]  # fmt: skip

OVERRIDE_MISTAKES = [
    ("mechanism=tll", f"'tll' is not known; did you mean 'ttl'? Allowed: {MECHANISMS}"),
    (
        "probes.intervall_ms=5",
        "unknown key 'intervall_ms'; did you mean 'interval_ms'? Allowed: interval_ms, flows, directions",
    ),
    ("probes.interval_ms=fast", "'fast' is of the wrong type; allowed: a number"),
    ("migrations.0.to=site-a", "vm1 is at site-a already; allowed: another site"),
    ("migrations.7.to=site-a", "there is no item 7; allowed: 0 to 0"),
    ("migrations.first.to=site-a", "'first' is not an index; allowed here: 0 to 0"),
    ("name.x=1", "'quick' has no key 'x'"),
    ("mechanism", "not of the form key=value or key.key=value"),
    ("probes..x=1", "not of the form key=value or key.key=value"),
    ("seed=[1", "the value cannot be used: not YAML: expected ',' or ']', but got '<stream end>'"),
]


def problems_of(error: SpecError) -> list[str]:
    return [str(problem) for problem in error.problems]


@pytest.mark.parametrize(("old", "new", "expected"), TOPOLOGY_MISTAKES)
def test_a_mistake_in_a_topology_is_placed_and_explained(old: str, new: str, expected: list[str]) -> None:
    assert old in TOPOLOGY
    with pytest.raises(SpecError) as caught:
        load_topology(TOPOLOGY.replace(old, new, 1), "t.yaml")
    assert problems_of(caught.value) == expected


@pytest.mark.parametrize(("old", "new", "expected"), EXPERIMENT_MISTAKES)
def test_a_mistake_in_an_experiment_is_placed_and_explained(old: str, new: str, expected: list[str]) -> None:
    topology = load_topology(TOPOLOGY, "t.yaml")
    assert old in EXPERIMENT
    with pytest.raises(SpecError) as caught:
        load_experiment(EXPERIMENT.replace(old, new, 1), "e.yaml", topology=topology)
    assert problems_of(caught.value) == expected


@pytest.mark.parametrize(("assignment", "expected"), OVERRIDE_MISTAKES)
def test_a_mistake_in_an_override_is_placed_at_the_override(assignment: str, expected: str) -> None:
    topology = load_topology(TOPOLOGY, "t.yaml")
    with pytest.raises(SpecError) as caught:
        apply_overrides(EXPERIMENT, [assignment], "e.yaml", topology=topology)
    assert problems_of(caught.value) == [f"--set {assignment}: {expected}"]


def test_every_problem_of_a_file_is_said_at_once_in_its_order() -> None:
    text = TOPOLOGY.replace("delay_ms", "delay").replace("vm1", "VM 1").replace("/24", "/24x", 1)
    with pytest.raises(SpecError) as caught:
        load_topology(text, "t.yaml")
    assert [problem.line for problem in caught.value.problems] == [3, 6, 15]
    assert caught.value.exit_code == 11


def test_a_guest_moves_within_its_instance_only() -> None:
    other = "  - {name: site-d, instance_id: 8, dynamic_eid_prefixes: [192.168.0.0/24], xen_host: {}}\n"
    topology = load_topology(TOPOLOGY.replace("correspondent", f"{other}correspondent"), "t.yaml")
    with pytest.raises(SpecError) as caught:
        load_experiment(EXPERIMENT.replace("to: site-b", "to: site-d"), "e.yaml", topology=topology)
    assert problems_of(caught.value) == [
        "e.yaml:7:9: site-d is in instance 8, vm1 in 0; allowed: a site in the guest's instance"
    ]


def test_the_texts_above_are_right_as_they_are() -> None:
    topology = load_topology(TOPOLOGY, "t.yaml")
    assert load_experiment(EXPERIMENT, "e.yaml", topology=topology).mechanism == "ttl"


@pytest.mark.parametrize("text", ["", "- 1\n", "7\n"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"t\.yaml:1:1: not a mapping"):
        load_topology(text, "t.yaml")


def test_the_kind_of_a_file_is_seen_from_its_keys() -> None:
    assert kind_of(TOPOLOGY, "t.yaml") == "topology"
    assert kind_of(EXPERIMENT, "e.yaml") == "experiment"
    with pytest.raises(SpecError, match="neither a topology nor an experiment"):
        kind_of("name: x\n", "x.yaml")
