"""A whole run over IPv6 locators: remapped, measured, captured, calibrated, as over IPv4 ones."""

from __future__ import annotations

from pathlib import Path

from testbed.decode import frames, lisp_packets
from tests.netns.own_lab import needs_root
from tests.netns.runs import run

TOPOLOGY = "topology=../topologies/two-sites-ipv6-rlocs.yaml"


@needs_root
def test_a_migration_over_ipv6_locators_passes_within_its_bound(tmp_path: Path) -> None:
    limiters = "lisp.limiters={map_request: false, map_reply: false, smr: false, smr_invoked: false}"
    done = run(
        tmp_path,
        TOPOLOGY,
        "migrations=[{to: site-b}]",
        "mechanism=smr-old-xtr",
        limiters,
        "calibration={outages_ms: [100], repeat: 1}",
    )
    assert done.summary["verdict"] == "PASS", done.summary["headline"]
    (migration,) = done.summary["migrations"]
    bound_ms = migration["bound"]["bound_ms"]
    assert bound_ms <= migration["metrics"]["remap_latency_ms"] <= bound_ms + 100
    used = [event["rloc"] for event in done.events if event["kind"] == "first_packet_new_rloc"]
    assert "fd10:0:0:2::2" in used
    # The captures alone know it too, which makes it certain.
    t13 = next(event for event in migration["events"] if event["label"] == "t13")
    assert "frame" in [t13["via"], *(other["via"] for other in t13["others"])]
    assert migration["gaps"][0]["lost_where"]
    (calibrated,) = done.summary["calibration"]
    assert calibrated["within"]
    capture = done.folder / "pcap" / "xtr-c-rloc0.pcapng"
    rlocs = {rloc for packet in lisp_packets(frames(capture)) for rloc in (packet.source, packet.destination)}
    assert rlocs == {"fd10::2", "fd10:0:0:1::2", "fd10:0:0:2::2", "fd10:0:0:3::2"}
