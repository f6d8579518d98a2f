"""The instrument itself, in a real lab without a hypervisor: every flow, every mark, the report in a browser."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.browser import check_report
from tests.folders import digests
from tests.netns.own_lab import ROOT, needs_root
from tests.netns.runs import command, lab_folder

pytestmark = [pytest.mark.netns, needs_root]

EXPERIMENT = """
schema_version: 1
name: measurement
topology: {topology}
substrate: netns
mechanism: smr-old-xtr
migrations:
  - to: site-b
probes: {{interval_ms: 10, flows: [icmp, udp, tcp], directions: [to-guest, from-guest]}}
emulated_guest: {{downtime_ms: 300}}
baseline_s: 1
settle_s: 2
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measurement")
    experiment = folder / "experiment.yaml"
    experiment.write_text(EXPERIMENT.format(topology=ROOT / "topologies" / "two-sites.yaml"))
    with lab_folder() as runtime:
        done = command("run", str(experiment), "--out", str(folder / "runs"), runtime=runtime)
    assert done.returncode in (0, 12), (
        done.stdout + done.stderr
    )  # a busy machine may spoil a baseline, not an outage's length
    (made,) = (folder / "runs").iterdir()
    return made


@pytest.fixture(scope="module")
def summary(run: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return loaded


def test_the_parts_add_up_and_explain_the_outage(summary: dict[str, Any]) -> None:
    metrics = summary["migrations"][0]["metrics"]
    parts = [metrics[name] for name in ("hypervisor_part_ms", "network_part_ms", "unattributed_ms")]
    assert sum(parts) == pytest.approx(metrics["stuntime_ms"], abs=0.01)
    assert metrics["unattributed_ms"] < 0.1 * metrics["stuntime_ms"]
    assert metrics["vm_downtime_ms"] == pytest.approx(300, abs=20)


def test_every_mark_says_its_source_and_its_uncertainty(summary: dict[str, Any]) -> None:
    marks = {mark["label"]: mark for mark in summary["migrations"][0]["events"]}
    assert marks["t1"]["reason"].startswith("not applicable")
    seen = {label: mark for label, mark in marks.items() if mark["t_ms"] is not None}
    assert set(seen) == {f"t{number}" for number in range(15)} - {"t1"}
    assert [label for label, mark in seen.items() if not mark["uncertainty_ms"] or not mark["source"]] == []
    for label in ("t3", "t5", "t6", "t7", "t10", "t11", "t13"):
        assert seen[label]["others"], label
    for label in ("t6", "t7", "t10", "t11", "t13"):  # agent and capture mean the same packet
        assert all(abs(other["difference_ms"]) < 2.0 for other in seen[label]["others"]), seen[label]


def test_every_flow_saw_the_outage(summary: dict[str, Any]) -> None:
    flows = {(one["flow"], one["direction"]): one for one in summary["migrations"][0]["probes"]}
    assert set(flows) == {(flow, way) for flow in ("icmp", "udp", "tcp") for way in ("to-guest", "from-guest")}
    for (flow, way), one in flows.items():
        lost = one["lost"]
        assert lost == 0 if flow == "tcp" else 25 <= lost <= 60, (flow, way, lost)


def test_the_connections_survived_and_stalled(summary: dict[str, Any]) -> None:
    """A stall is longer than the outage: TCP waits for its timer before it sends again."""
    outage_ms = summary["migrations"][0]["metrics"]["stuntime_ms"]
    for one in summary["migrations"][0]["tcp"]:
        assert one["survived"] is True, one
        assert outage_ms - 20 < one["longest_stall_ms"] < 3 * outage_ms + 500
        assert one["bytes_in_order"] > 0


def test_lost_probes_have_a_place_and_a_frame(run: Path) -> None:
    with (run / "probes.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["outcome"] == "lost" and row["direction"] == "to-guest"]
    assert rows
    placed = [row for row in rows if row["last_seen_frame"]]
    assert len(placed) == len(rows)  # the correspondent's own capture has seen each of them at least
    # Nobody is at home at the old site, and that is where most of them ended.
    at_old_site = [row for row in placed if row["last_seen"] == "site-a-eid-a" and row["lost"] == "request"]
    assert len(at_old_site) > 0.5 * len(rows)


def test_departures_are_stamped_by_the_kernel(run: Path) -> None:
    import duckdb

    query = f"""SELECT count(*), count(kernel_sent_ns), median(kernel_sent_ns - sent_ns)
        FROM '{run}/probes/*.parquet' WHERE flow != 'tcp' AND sent_ns IS NOT NULL"""
    ((sent, stamped, delay_ns),) = duckdb.sql(query).fetchall()
    assert stamped > 0.98 * sent
    assert 0 < delay_ns < 1_000_000


def test_probes_that_went_through_the_old_site_are_counted(summary: dict[str, Any]) -> None:
    """The old xTR knows where the guest is before the ITR does, and passes on what still comes: seen in captures."""
    flows = {(one["flow"], one["direction"]): one for one in summary["migrations"][0]["probes"]}
    assert flows["icmp", "to-guest"]["triangular"] > 0
    assert flows["udp", "to-guest"]["triangular"] > 0
    assert flows["tcp", "to-guest"]["triangular"] is None


def test_the_report_is_rebuilt_byte_for_byte(run: Path, summary: dict[str, Any]) -> None:
    before = digests(run)
    done = command("report", str(run), runtime=run.parent.parent)
    assert done.returncode == summary["exit_code"], done.stdout + done.stderr
    assert digests(run) == before
    assert {"report.html", "report.md", "summary.json", "probes.csv", "junit.xml"} <= set(before)


def test_the_report_in_a_browser(run: Path) -> None:
    check_report(run / "report.html", pictures=("timeline", "waterfall", "sequence"))
