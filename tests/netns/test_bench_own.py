"""Measurements in namespaces of their own: they run as processes, and leave nothing when killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.bench.own import measured
from testbed.errors import TestbedError
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces"),
]


def test_the_map_servers_process_tells_every_subscriber() -> None:
    said: list[str] = []
    result = measured("agent", {"counts": [1, 5], "rounds": 2}, said.append)
    assert result["registrations_per_s"] > 0
    assert result["requests_per_s"] > 0
    assert [row["subscribers"] for row in result["publications"]] == [1, 5]
    assert any("5 subscribers" in line for line in said)


def test_an_error_there_is_an_error_here() -> None:
    with pytest.raises(TestbedError, match="ended without a result"):
        measured("no-such-kind", {}, lambda line: None)


def test_a_killed_benchmark_leaves_no_process_and_no_namespace() -> None:
    before = set(Path("/run/netns").iterdir()) if Path("/run/netns").exists() else set()
    code = "from testbed.bench.own import measured; measured('dataplane', {'rounds': 99, 'duration_s': 1}, print)"
    process = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "lisp tcp" in process.stdout.readline()  # its namespaces, programs and iperf3 are there
    descendants = _descendants(process.pid)
    assert len(descendants) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    wait_until(lambda: not any(_alive(pid) for pid in descendants), "all of it has ended")
    mine = {path for path in set(Path("/run/netns").iterdir()) - before if path.name.startswith("bench")}
    assert mine == set()


def _descendants(pid: int) -> list[int]:
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it has ended meanwhile
        return []
    return [each for child in children for each in (child, *_descendants(child))]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
