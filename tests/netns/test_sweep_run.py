"""A whole sweep over substrate `netns`: it measures, writes its report, and goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

from tests.netns.own_lab import needs_root
from tests.netns.runs import QUICK, ROOT, command, lab_folder


def experiment(folder: Path) -> str:
    text = QUICK.read_text().replace("../topologies", str(ROOT / "topologies"))
    path = folder / "sweep.yaml"
    path.write_text(f"{text}warm_up: 1\nsweep: {{grid: {{mechanism: [pubsub], one_way_ms: [0, 4]}}, repeat: 2}}\n")
    return str(path)


@needs_root
def test_a_sweep_measures_each_combination_once_and_has_a_report(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("sweep", experiment(tmp_path), "--out", str(out), "--set", "baseline_s=0.3", "--set", "settle_s=0.3")
    with lab_folder() as runtime:
        done = command(*arguments, "--format", "json", runtime=runtime)
        assert done.returncode == 0, done.stderr
        data = json.loads(done.stdout)
        runs = sorted((out / "runs").iterdir())
        again = command(*arguments, "--format", "json", runtime=runtime)
        # Had one not been measurable, the next call would try it again: itself, and nothing else.
        (cell,) = (out / "cells").glob("*one_way_ms=4*")
        earlier = json.loads(cell.read_text())
        in_vain = [earlier["run_id"], "INVALID"]
        cell.write_text(json.dumps({**earlier, "verdict": "INVALID", "attempts": [in_vain]}))
        retried = command(*arguments, "--format", "json", runtime=runtime)
    assert retried.returncode == 0, retried.stderr
    new = {run.name for run in set((out / "runs").iterdir()) - set(runs)}
    attempts = [list(each.values()) for each in json.loads(retried.stdout)["rows"][1]["attempts"]]
    # A busy machine may spoil the next one as well.
    assert (attempts[0], attempts[-1][1]) == (in_vain, "PASS")
    assert {run for run, _ in attempts[1:]} == new
    assert json.loads(again.stdout) == data
    assert json.loads(retried.stdout) == json.loads((out / "sweep.json").read_text())
    assert data["complete"]
    assert [(r["mechanism"], r["one_way_ms"], r["bound_ms"]) for r in data["rows"]] == [
        ("pubsub", 0, 0.0), ("pubsub", 4, 8.0),
    ]  # fmt: skip
    for made in data["rows"]:
        assert (made["remap_latency_ms"]["n"], made["warm_ups"], made["labs"]) == (2, 1, 1)
        assert made["remap_latency_ms"]["median"] > made["bound_ms"]
        assert made["substrate"] == "netns"
    for report in ("report.md", "report.html"):
        assert "not a VM" in (out / report).read_text()
    assert (out / "plots" / "remap-latency.svg").exists()
