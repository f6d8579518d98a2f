"""A run's manifest.json: what was asked, what it ran on, how it ended. Written at the start, completed at the end."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from testbed import __version__
from testbed.paths import REPOSITORY
from testbed.plan.model import Plan
from testbed.spec.experiment import Experiment

UNFINISHED = {"ok": False, "code": 11, "error": "the run was interrupted before it ended"}
LIBRARIES = ("mininet", "libvirt-python", "pyroute2", "paramiko", "numpy", "scipy", "pyarrow")


def clock_reading() -> dict[str, int]:
    """CLOCK_MONOTONIC and CLOCK_REALTIME at one moment: the middle of the tightest of a few tries."""
    best = None
    for _ in range(9):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        if best is None or after - before < best[0]:
            best = (after - before, (before + after) // 2, wall)
    assert best is not None
    return {"mono_ns": best[1], "wall_ns": best[2]}


def cpu_times() -> tuple[int, int]:
    """(all, stolen) jiffies of the machine since it booted."""
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return sum(fields[:8]), fields[7]


def host_facts() -> dict[str, Any]:
    """What machine this is."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def git_commit() -> str | None:
    """The commit of the checkout, with "-dirty" if it has changes; None outside one."""
    try:
        described = subprocess.run(
            ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=40", "--match="],
            capture_output=True, text=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None


def library_versions() -> dict[str, str]:
    """Versions of ours and of the libraries that take part in a run."""
    found = {"testbed": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def first(
    *,
    run_id: str,
    experiment: Experiment,
    supplied: str,
    overrides: list[str],
    command: str,
    plan: Plan,
    fail_if: list[str],
    repeat: int,
) -> dict[str, Any]:
    """The manifest as it stands before anything is brought up."""
    return {
        "schema_version": 1,
        "run_id": run_id,
        "experiment": experiment.model_dump(mode="json"),
        "supplied": supplied,
        "overrides": overrides,
        "command": command,
        "repeat": repeat,
        "fail_if": fail_if,
        "git_commit": git_commit(),
        "versions": library_versions(),
        "host": host_facts(),
        "substrate": experiment.substrate,
        "accelerator": None,
        "accelerator_reason": "",
        "hypervisor": None,
        "mechanism": experiment.mechanism,
        "seed": experiment.seed,
        "probes": {
            "interval_ms": experiment.probes.interval_ms,
            "flows": list(experiment.probes.flows),
            "captured": list(experiment.probes.captured(experiment.substrate)),
        },
        "baseline_s": experiment.baseline_s,
        "settle_s": experiment.settle_s,
        "sites": {site.name: ", ".join(site.rlocs) for site in plan.sites},
        "instance_ids": {site.name: site.instance_id for site in plan.sites if site.instance_id},
        "guests": [guest.name for guest in plan.guests],
        "captures": [],
        "impairments": [],
        "emulated": [],
        "clock": {"start": clock_reading()},
        "outcome": UNFINISHED,
    }


def write(run_dir: Path, manifest: Mapping[str, Any]) -> None:
    """Write manifest.json, whole or not at all."""
    partial = run_dir / "manifest.json.partial"
    partial.write_text(json.dumps(manifest, indent=2, default=str) + "\n")
    partial.rename(run_dir / "manifest.json")


def read(run_dir: Path) -> dict[str, Any]:
    """Read a run's manifest."""
    loaded: dict[str, Any] = json.loads((run_dir / "manifest.json").read_text())
    return loaded
