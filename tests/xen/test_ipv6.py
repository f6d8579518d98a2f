"""A real Xen guest whose EID is IPv6: announced by Neighbor Advertisement, asked by ICMPv6, UDP and TCP."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from testbed.decode import Capture
from testbed.lisp.sightings import SightingKind, mac_octets, read_frame
from tests.xen.lab import Run, left_behind, machine_state, run_measured

pytestmark = [pytest.mark.xen, pytest.mark.timeout(900)]

EID, MAC = "fd00:0:0:1::10", "00:16:3e:00:00:01"
#: What the guest's kernel makes of its MAC (RFC 4291 appendix A).
LINK_LOCAL = "fe80::216:3eff:fe00:1"
IPV6, ICMPV6, ROUTER_SOLICITATION = b"\x86\xdd", 58, 133


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    before = machine_state()
    sets = (
        "topology=../topologies/two-sites-ipv6.yaml", "probes.flows=[icmp, udp, tcp]", "baseline_s=1", "settle_s=3",
    )  # fmt: skip
    run = run_measured(tmp_path_factory.mktemp("runs"), *(word for each in sets for word in ("--set", each)))
    yield run
    assert left_behind(before) == {}


def sent_by_guest(run: Run, node: str) -> list[bytes]:
    """The frames with the guest's MAC at a host's tap, in order."""
    frames = Capture(run.folder / "pcap" / f"{node}-{node}-eid.pcapng").frames()
    return [frame.data for frame in frames if frame.data[6:12] == mac_octets(MAC)]


def test_it_moves_and_is_the_same(run: Run) -> None:
    assert run.process.returncode == 0, run.said()
    assert run.summary["verdict"] == "PASS", run.said()
    (migration,) = run.summary["migrations"]
    assert set(migration["verification"]["checks"].values()) == {True}
    assert migration["verification"]["mapping"] == ["10.0.2.2"]
    for name in ("vm_downtime_ms", "reconnection_ms", "remap_latency_ms", "stuntime_ms"):
        assert migration["metrics"][name] > 0
    unmeasured = [phase for phase, length_ms in migration["phases_ms"].items() if length_ms is None]
    assert unmeasured == ["timer_wait"]  # this ITR is told


def test_its_addresses_are_the_same_at_both_sites(run: Run) -> None:
    for node in ("xen-a", "xen-b"):
        frames = sent_by_guest(run, node)
        assert {frame[12:14] for frame in frames} == {IPV6}
        assert {str(ip_address(frame[22:38])) for frame in frames} == {EID, LINK_LOCAL}
        assert not [frame for frame in frames if frame[20] == ICMPV6 and frame[54] == ROUTER_SOLICITATION]


def test_it_announces_itself_where_it_arrives(run: Run) -> None:
    """Linux advertises each of its addresses, unasked, once netfront has connected.

    Its TCP connection may have spoken before that: a retransmission that was due waits for no announcement.
    """
    detected = run.of("eid_detected", "xtr-b")[0].fields
    assert (detected["eid"], detected["mac"]) == (EID, MAC)
    assert detected["via"] in ("neighbour-advertisement", "packet")
    sightings = [(read_frame(frame), frame) for frame in sent_by_guest(run, "xen-b")]
    sighting, frame = next((sighting, frame) for sighting, frame in sightings if sighting is not None)
    assert (sighting.kind, str(sighting.eid)) == (SightingKind.NEIGHBOUR_ADVERTISEMENT, EID)
    assert frame[58] & 0x40 == 0  # not solicited (RFC 4861 §4.4)


def test_each_flow_is_measured_and_each_lost_probe_has_its_place(run: Run) -> None:
    (migration,) = run.summary["migrations"]
    assert [flow["flow"] for flow in migration["probes"]] == ["icmp", "udp", "tcp"]
    for gap in migration["gaps"]:
        if gap["flow"] != "tcp":
            assert sum(gap["lost_where"].values()) == gap["lost"]
            assert "seen nowhere" not in gap["lost_where"]
    assert [connection["survived"] for connection in migration["tcp"]] == [True]
    assert "icmpv6 to-guest" in (run.folder / "report.md").read_text()
