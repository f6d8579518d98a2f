"""Without a mechanism that tells the ITRs, the outage is the wait for the mapping's TTL; probed every 5 ms."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.xen.lab import left_behind, machine_state, run_experiment

pytestmark = [pytest.mark.xen, pytest.mark.timeout(900)]


def test_ttl_bounds_the_outage(tmp_path: Path) -> None:
    before = machine_state()
    overrides = ("mechanism=ttl", "lisp.registration_ttl_minutes=1", "probes.interval_ms=5")
    run = run_experiment(tmp_path, *(word for each in overrides for word in ("--set", each)))
    assert run.process.returncode in (0, 12), run.said()
    (migration,) = run.summary["migrations"]
    metrics = migration["metrics"]

    # Two emulated hosts migrate on two cores: the probes were on time nevertheless, or the run says that it is no good.
    (flow,) = migration["probes"]
    assert f"P99 of lateness {flow['lateness_p99_ms']:.3f} ms (icmp to-guest), every 5 ms" in run.process.stdout
    if run.summary["verdict"] == "INVALID":
        assert "Not trustworthy: " in run.process.stdout
    else:
        assert flow["lateness_p99_ms"] < 5.0
    assert run.summary["mechanism"] == "ttl"
    # The migration itself was over long before; what kept the peer waiting was its ITR's cache.
    assert metrics["stuntime_ms"] > metrics["vm_downtime_ms"] + 5_000
    assert metrics["remap_latency_ms"] <= 61_000
    assert metrics["unattributed_ms"] < 0.1 * metrics["stuntime_ms"], migration["unattributed"]
    assert migration["phases_ms"]["timer_wait"] > 5_000
    assert migration["verification"]["checks"]["mac_unchanged"] is True
    seen = {mark["label"]: mark for mark in migration["events"]}
    assert seen["t1"]["source"] == "capture xen-a-xen-a-mig"
    assert seen["t0"]["t_ms"] < seen["t1"]["t_ms"] < seen["t2"]["t_ms"]
    assert [label for label, mark in seen.items() if not mark["uncertainty_ms"]] == []
    assert run.of("smr_sent") == []
    assert run.of("map_cache_expired", "xtr-c")
    assert left_behind(before) == {}
