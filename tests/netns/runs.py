"""Whole runs over substrate `netns`, as a person starts them, and what they leave in their folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
QUICK = ROOT / "experiments" / "netns-quick.yaml"
#: On a loaded machine a prober may be late, which makes a run INVALID and says nothing of what is tested.
ATTEMPTS = 3
TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True)
class Run:
    """What a run left.

    Attributes:
        folder: of the run.
        summary, manifest: as written.
        events: in the order of their stamps.
    """

    folder: Path
    summary: dict[str, Any]
    manifest: dict[str, Any]
    events: list[dict[str, Any]]

    def kinds(self, source: str) -> list[str]:
        """The kinds of a source's events."""
        return [event["kind"] for event in self.events if event["source"] == source]

    def first(self, kind: str, source: str | None = None) -> dict[str, Any]:
        """The first event of a kind, of one source if given."""
        return next(e for e in self.events if e["kind"] == kind and source in (None, e["source"]))


def command(*arguments: str, runtime: Path) -> subprocess.CompletedProcess[str]:
    """Run `testbed …` with its labs recorded in a folder of their own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TESTBED_RUNTIME": str(runtime)}
    return subprocess.run(
        [sys.executable, "-m", "testbed", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip


@contextmanager
def lab_folder() -> Iterator[Path]:
    """A folder for the records of labs; its path is short, since those of Unix sockets must be (unix(7))."""
    with tempfile.TemporaryDirectory(prefix="tb-", dir="/run") as folder:
        yield Path(folder)


def spoilt_by_the_machine(summary: dict[str, Any]) -> bool:
    """Whether a run is INVALID, and for no fault of the measurement itself: of that no second try cleans it."""
    faults = [check for check in summary["validity"] if check["name"] == "calibration" and check["ok"] is False]
    return summary["verdict"] == "INVALID" and not faults


#: Overrides that make the windows short.
SHORT = ("baseline_s=0.5", "settle_s=0.5")


def run(folder: Path, *overrides: str, experiment: Path = QUICK, windows: tuple[str, ...] = SHORT) -> Run:
    """Run an experiment, with short windows unless others are given, again if the machine spoilt the measurement."""
    sets = [word for each in (*windows, *overrides) for word in ("--set", each)]
    for _ in range(ATTEMPTS):
        with lab_folder() as labs:
            done = command("run", str(experiment), "--out", str(folder / "runs"), *sets, runtime=labs)
            assert not list((labs / "labs").iterdir()), "the lab's runtime folder is still there"
        left = sorted((folder / "runs").iterdir())[-1]
        assert (left / "summary.json").exists(), done.stderr
        summary = json.loads((left / "summary.json").read_text())
        if not spoilt_by_the_machine(summary):
            break
    events = [json.loads(line) for line in (left / "events.jsonl").read_text().splitlines()]
    manifest = json.loads((left / "manifest.json").read_text())
    return Run(left, summary, manifest, sorted(events, key=lambda event: int(event["mono_ns"])))
