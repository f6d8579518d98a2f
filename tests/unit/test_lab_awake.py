"""Processors are kept awake by the kernel where it can, else by loops that run when nothing else wants to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed.lab.awake import processors_awake
from tests.waiting import wait_until


def idle_loops() -> list[int]:
    """The processes of this one that run only when no other wants to."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            policy = os.sched_getscheduler(int(entry.name))
        except OSError:
            continue
        if parent == os.getpid() and policy == os.SCHED_IDLE:
            found.append(int(entry.name))
    return found


def test_the_kernel_is_asked_where_it_can(tmp_path: Path) -> None:
    driver, pm_qos = tmp_path / "current_driver", tmp_path / "cpu_dma_latency"
    driver.write_text("intel_idle\n")
    pm_qos.touch()
    with processors_awake(driver, pm_qos) as how:
        assert (how, pm_qos.read_bytes(), idle_loops()) == ("pm-qos", bytes(4), [])


@pytest.mark.parametrize("driver", ["none", None, "intel_idle"], ids=["none", "no-such-file", "no-pm-qos"])
def test_elsewhere_each_processor_has_a_loop(tmp_path: Path, driver: str | None) -> None:
    if driver is not None:
        (tmp_path / "current_driver").write_text(f"{driver}\n")
    with processors_awake(tmp_path / "current_driver", tmp_path / "cpu_dma_latency") as how:
        assert how == "idle-loops"
        wait_until(lambda: len(idle_loops()) == len(os.sched_getaffinity(0)), "a loop for each processor")
        bound = sorted(min(os.sched_getaffinity(pid)) for pid in idle_loops())
        assert bound == sorted(os.sched_getaffinity(0))
    assert idle_loops() == []
