"""Without a mechanism that tells the ITRs, the outage is bounded by the mapping's TTL, not by the migration."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.xen.lab import left_behind, machine_state, run_experiment

pytestmark = [pytest.mark.xen, pytest.mark.timeout(900)]


def test_ttl_bounds_the_outage(tmp_path: Path) -> None:
    before = machine_state()
    run = run_experiment(tmp_path, "--set", "mechanism=ttl", "--set", "lisp.registration_ttl_minutes=1")
    assert run.process.returncode == 0, run.said()
    (migration,) = run.summary["migrations"]
    metrics = migration["metrics"]
    assert run.summary["mechanism"] == "ttl"
    # The migration itself was over long before; what kept the peer waiting was its ITR's cache.
    assert metrics["stuntime_ms"] > metrics["vm_downtime_ms"] + 5_000
    assert metrics["remap_latency_ms"] <= 61_000
    assert run.of("smr_sent") == []
    assert run.of("map_cache_expired", "xtr-c")
    assert left_behind(before) == {}
