"""A whole run whose correspondent's site has two xTRs: what comes in by the second is delivered and measured."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from testbed.decode import frames, lisp_packets
from tests.netns.own_lab import needs_root
from tests.netns.runs import run

TOPOLOGY = "topology=../topologies/dual-homed-correspondent.yaml"


@needs_root
def test_a_site_with_two_xtrs_takes_part_in_a_run(tmp_path: Path) -> None:
    # ICMP has no ports: its flow takes one of two equal locators, whichever. So the second is the better one.
    done = run(tmp_path, TOPOLOGY, "migrations=[{to: site-b}]", "topology.sites.2.rloc_priority=2")
    assert done.summary["verdict"] == "PASS", done.summary["headline"]
    registered = [each for each in done.events if each["kind"] == "registration_merged"]
    assert registered[-1]["locators"] == ["10.0.3.2", "10.0.201.2"]
    into: Counter[tuple[str, str]] = Counter()
    for xtr in ("xtr-c", "xtr-c2"):
        for packet in lisp_packets(frames(done.folder / "pcap" / f"{xtr}-rloc0.pcapng")):
            into[packet.source, packet.destination] += 1
    # The correspondent's packets leave by the first xTR, the guest's answers come by the second.
    assert into["10.0.3.2", "10.0.2.2"] > 20
    assert into["10.0.2.2", "10.0.201.2"] > 20
    assert not [pair for pair in into if pair[0] == "10.0.201.2" and pair[1] != "10.0.0.2"]
