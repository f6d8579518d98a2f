"""Running the command line as a person does, and reading what a run left."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from testbed.events import Event, parse_events
from testbed.paths import runtime
from tests.netns.runs import ATTEMPTS, spoilt_by_the_machine

ROOT = Path(__file__).parents[2]
FIRST = ROOT / "experiments" / "first-migration.yaml"


def command(*arguments: str, timeout_s: float = 900.0) -> subprocess.CompletedProcess[str]:
    """Run `testbed …` to its end."""
    argv = [sys.executable, "-m", "testbed", *arguments]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s)


@dataclass(frozen=True)
class Run:
    """A run's folder."""

    folder: Path
    process: subprocess.CompletedProcess[str]

    @cached_property
    def summary(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return loaded

    @cached_property
    def events(self) -> list[Event]:
        return list(parse_events((self.folder / "events.jsonl").read_text().splitlines()))

    def of(self, kind: str, source: str | None = None) -> list[Event]:
        return [e for e in self.events if e.kind == kind and source in (None, e.source)]

    def said(self) -> str:
        return f"{self.process.stdout[-1500:]}\n{self.process.stderr[-3000:]}"


def run_experiment(out: Path, *arguments: str, experiment: Path = FIRST) -> Run:
    """`testbed run` into an empty folder; the exit code is the test's to judge."""
    process = command("run", str(experiment), "--out", str(out), *arguments)
    folders = [path for path in out.iterdir() if path.is_dir()]
    assert len(folders) == 1, process.stderr
    return Run(folders[0], process)


def run_measured(out: Path, *arguments: str) -> Run:
    """The first run that the machine did not spoil, each in a folder of its own; the last one if there is none.

    A guest of an emulated host may be late, which makes a run INVALID and says nothing of what is tested.
    """
    for attempt in range(ATTEMPTS):
        folder = out / str(attempt)
        folder.mkdir()
        run = run_experiment(folder, *arguments)
        if not (run.folder / "summary.json").exists() or not spoilt_by_the_machine(run.summary):
            break
    return run


def machine_state() -> dict[str, set[str]]:
    """What a lab could leave behind on the machine: processes, namespaces, interfaces, mounts, pins, runtime files."""
    pids = {path.name for path in Path("/proc").iterdir() if path.name.isdigit()}
    processes = set()
    for pid in pids:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        names = b" ".join(words[:4])
        for word in (b"qemu-system", b"dumpcap", b"testbed.lab", b"mnexec", b"mininet:", b"unshare"):
            if word in names:
                processes.add(f"{word.decode()} {pid}")
    labs = runtime() / "labs"
    listed = subprocess.run(["lsns", "-n", "-o", "NS"], capture_output=True, text=True).stdout
    return {
        "processes": processes,
        "namespaces": set(listed.split()),
        "named namespaces": set(subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout.split()),
        "interfaces": {path.name for path in Path("/sys/class/net").iterdir()},
        "mounts": {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()},
        "pins": {str(path) for path in Path("/sys/fs/bpf").rglob("*")} if Path("/sys/fs/bpf").exists() else set(),
        "labs": {path.name for path in labs.iterdir()} if labs.exists() else set(),
    }


def left_behind(before: dict[str, set[str]], *, deadline_s: float = 20.0) -> dict[str, set[str]]:
    """What is there and was not before, by kind; {} if nothing.

    A lab whose launcher was killed is PID 1's to reap, and a PID namespace lasts until its zombie is reaped: some
    machines' PID 1 does that once a second. What is still there at the deadline was left.
    """
    end = time.monotonic() + deadline_s
    while True:
        after = machine_state()
        left = {kind: after[kind] - before[kind] for kind in before if after[kind] - before[kind]}
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.2)
