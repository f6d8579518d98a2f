"""Two instances with the same prefixes and the same hosts' addresses at one Map-Server; migrations in an instance."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed.decode import LispPacket, frames, lisp_packets
from tests.netns.runs import run
from tests.netns.sites import GUEST, GUEST6, OTHER, PEER, PEER6, Lab
from tests.netns.test_address_mixes import LAST, captured, pings
from tests.netns.tshark import differences, dissected
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
]

#: What nodes' names begin with → instance-ID; one of them needs all of the 24 bits.
INSTANCES = {"": 7, OTHER: 0xFEDCBA}
WHOSE = pytest.mark.parametrize("whose", INSTANCES, ids=["7", "0xfedcba"])
LINKS = ("to-ms", *(f"{whose}to-{site}" for whose in INSTANCES for site in "abc"))
EIDS = {4: (PEER, GUEST), 6: (PEER6, GUEST6)}


@dataclass(frozen=True)
class Told:
    """What two pairs of hosts did: each peer pinged, the first guest moved from A to B, each peer pinged again.

    Attributes:
        capture: of all links of the core.
        packets: in it.
        answered: (when, whose peer, IP version) → how many of five echoes.
        heard: (when, whose peer, whose guest) → how many more echo requests the guest's kernel has counted.
        silent: how many were answered when the first guest was gone and the other was there.
        mappings: (EID-prefix, instance-ID) → locators, at the end.
        departed: whose xTR at A was told that the guest has left.
    """

    capture: Path
    packets: list[LispPacket]
    answered: dict[tuple[str, str, int], int]
    heard: dict[tuple[str, str, str], int]
    silent: int
    mappings: dict[tuple[str, int], list[str]]
    departed: list[str]

    def of(self, whose: str) -> list[LispPacket]:
        """The packets from and to the locators of one instance's sites."""
        rlocs = {f"10.{1 if whose else 0}.{number}.2" for number in (1, 2, 3)}
        return [packet for packet in self.packets if {packet.source, packet.destination} & rlocs]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("lab")
    lab = Lab(folder, "smr-old-xtr", instances=tuple(INSTANCES.values()))
    path = folder / "core.pcapng"
    try:
        answered: dict[tuple[str, str, int], int] = {}
        heard: dict[tuple[str, str, str], int] = {}
        with captured(lab, path, LINKS):
            lab.start()
            for whose in INSTANCES:
                for peer, _ in EIDS.values():
                    pings(lab, f"{whose}guest", peer)  # the guest shows itself
            ask_all(lab, "before", answered, heard)
            lab.move_guest("a", "b")
            lab.announce_guest()
            for peer, _ in EIDS.values():
                pings(lab, "guest", peer)
            ask_all(lab, "after", answered, heard)
            mark = bytes.fromhex(LAST)
            lab.run("peer", "ping", "-c", "1", "-p", LAST, GUEST)
            wait_until(lambda: path.read_bytes().count(mark) > 1, "the last packet is in the capture")
        rows = lab.ask("ms", op="inspect")["registrations"]
        mappings = {(row["eid"], row["instance_id"]): row["locators"] for row in rows}
        departed = [whose for whose in INSTANCES if lab.saw("eid_departed", f"{whose}xtr-a")]
        lab.run("guest", "ip", "link", "set", "eth0", "down")
        silent = pings(lab, "peer", GUEST)
        yield Told(path, list(lisp_packets(frames(path))), answered, heard, silent, mappings, departed)
    finally:
        lab.close()


def ask_all(
    lab: Lab, when: str, answered: dict[tuple[str, str, int], int], heard: dict[tuple[str, str, str], int]
) -> None:
    """Every peer pings the EIDs of the guests, which are the same for both."""
    for whose in INSTANCES:
        before = {each: echoes_heard(lab, f"{each}guest") for each in INSTANCES}
        for version, (_, guest) in EIDS.items():
            answered[when, whose, version] = pings(lab, f"{whose}peer", guest)
        for each, count in before.items():
            heard[when, whose, each] = echoes_heard(lab, f"{each}guest") - count


def echoes_heard(lab: Lab, node: str) -> int:
    """How many echo requests a host's kernel has counted (RFC 4293), of both families."""
    counted = lab.run(node, "cat", "/proc/net/snmp", "/proc/net/snmp6").stdout.splitlines()
    names, values = (line.split() for line in counted if line.startswith("Icmp:"))
    ipv6 = dict(line.split() for line in counted if line.startswith("Icmp6"))
    return int(dict(zip(names, values, strict=True))["InEchos"]) + int(ipv6["Icmp6InEchos"])


def test_each_pair_reaches_its_own_and_never_the_other(told: Told) -> None:
    assert {key for key, count in told.answered.items() if count < 4} == set()
    assert len(told.answered) == 8
    assert {key for key, count in told.heard.items() if count} == {
        (when, whose, whose) for when in ("before", "after") for whose in INSTANCES
    }
    assert told.silent == 0


def test_a_guest_moved_in_its_own_instance_only(told: Told) -> None:
    assert told.mappings[f"{GUEST}/32", INSTANCES[""]] == ["10.0.2.2"]
    assert told.mappings[f"{GUEST}/32", INSTANCES[OTHER]] == ["10.1.1.2"]
    assert told.mappings["192.168.3.0/24", INSTANCES[OTHER]] == ["10.1.3.2"]
    assert told.departed == [""]


@WHOSE
def test_data_packets_have_the_i_bit_and_the_24_bits(told: Told, whose: str) -> None:
    data = [packet.message for packet in told.of(whose) if packet.plane == "data"]
    assert {("I" in message["flags"], message["instance_id"]) for message in data} == {(True, INSTANCES[whose])}
    ends = {(message["inner"]["source_eid"], message["inner"]["destination_eid"]) for message in data}
    assert {(PEER, GUEST), (GUEST, PEER), (PEER6, GUEST6), (GUEST6, PEER6)} <= ends


@WHOSE
def test_every_eid_of_the_control_plane_is_in_an_lcaf_of_its_instance(told: Told, whose: str) -> None:
    said: dict[str, set[int]] = {}
    for packet in told.of(whose):
        if packet.plane == "control":
            message = packet.message.get("inner", packet.message)
            said.setdefault(message["type"], set()).update(each["instance_id"] for each in message["records"])
    assert said.keys() >= {"Map-Register", "Map-Notify", "Map-Request", "Map-Reply"}
    assert set().union(*said.values()) == {INSTANCES[whose]}


def test_wireshark_reads_the_same(told: Told) -> None:
    theirs = dissected(told.capture)
    assert len(told.packets) > 100
    found = [line for ours in told.packets for line in differences(ours, theirs.get(ours.frame, {}))]
    assert found == []
    registers = [each for each in told.packets if each.message["type"] == "Map-Register"]
    assert {theirs[each.frame]["lisp.lcaf.iid"][0] for each in registers} == {str(each) for each in INSTANCES.values()}
    data = [each for each in told.packets if each.plane == "data"]
    assert {theirs[each.frame]["lisp-data.iid"][0] for each in data} == {str(each) for each in INSTANCES.values()}


#: `ttl` would take a minute.
@pytest.mark.parametrize(
    "mechanism", ["smr-old-xtr", "smr-map-server", "smr-new-xtr", "pubsub", "map-version", "rloc-probe"]
)
def test_a_run_in_an_instance_passes(tmp_path: Path, mechanism: str) -> None:
    done = run(
        tmp_path,
        "topology=../topologies/two-instances.yaml",
        "migrations=[{to: site-b}]",
        f"mechanism={mechanism}",
        "lisp.rloc_probe_interval_s=1",
        "settle_s=0.8",  # longer than that interval, give or take a tenth
        "lisp.limiters={map_request: false, map_reply: false, smr: false, smr_invoked: false}",
    )
    assert done.summary["verdict"] == "PASS", done.summary["headline"]
    (migration,) = done.summary["migrations"]
    assert (migration["eid"], migration["instance_id"]) == ("192.168.0.10", 7)
    assert migration["metrics"]["remap_latency_ms"] is not None
    assert all(migration["verification"]["checks"].values())
    assert done.manifest["instance_ids"] == {"site-a": 7, "site-b": 7, "site-c": 7, "site-d": 8, "site-e": 8}
    assert "site-e 8" in (done.folder / "report.md").read_text()
    told = {event.get("instance_id") for event in done.events if event["kind"] == "map_cache_changed"}
    assert told == {7}
    capture = done.folder / "pcap" / "xtr-c-rloc0.pcapng"
    packets = list(lisp_packets(frames(capture)))
    assert {each.message["instance_id"] for each in packets if each.plane == "data"} == {7}
    theirs = dissected(capture)
    assert [line for ours in packets for line in differences(ours, theirs.get(ours.frame, {}))] == []


@pytest.mark.parametrize(
    ("topology", "announce", "eid"),
    [("two-sites-ipv6", "na", "fd00:0:0:1::10"), ("two-sites-ipv6-rlocs", "garp", "192.168.0.10")],
)
def test_ipv6_eids_and_ipv6_locators_do_as_well(tmp_path: Path, topology: str, announce: str, eid: str) -> None:
    done = run(
        tmp_path,
        f"topology=../topologies/{topology}.yaml",
        *(f"topology.sites.{number}.instance_id=16777215" for number in range(3)),
        "migrations=[{to: site-b}]",
        f"emulated_guest.announce={announce}",
        "mechanism=smr-old-xtr",
    )
    assert done.summary["verdict"] == "PASS", done.summary["headline"]
    (migration,) = done.summary["migrations"]
    assert (migration["eid"], migration["instance_id"]) == (eid, 0xFFFFFF)
    capture = done.folder / "pcap" / "xtr-c-rloc0.pcapng"
    packets = list(lisp_packets(frames(capture)))
    assert {each.message["instance_id"] for each in packets if each.plane == "data"} == {0xFFFFFF}
    theirs = dissected(capture)
    assert [line for ours in packets for line in differences(ours, theirs.get(ours.frame, {}))] == []
