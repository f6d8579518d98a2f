"""Captures at the interfaces that matter, by dumpcap: pcapng with nanoseconds and drop counts."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError
from testbed.lab.network.network import Network
from testbed.plan.model import Plan

PROBES = "icmp or icmp6 or udp or tcp port 7"
LISP = "udp port 4341 or udp port 4342"
STREAM_EDGES = "tcp and tcp[tcpflags] & (tcp-syn|tcp-fin|tcp-rst) != 0"
SNAP_OCTETS = 256  # headers and the whole of a probe; LISP control messages are shorter
LAB = "lab"  # the lab's root namespace, where bridges and taps are

TALLY = re.compile(r"received/dropped on interface.*?: (\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class CapturePoint:
    """Where to capture: the node that owns the interface, the filter, and the site whose EID LAN it sees."""

    node: str
    interface: str
    capture_filter: str = ""
    site: str | None = None
    inside: str = LAB

    @property
    def file(self) -> str:
        """The capture's path in the run's folder."""
        return f"pcap/{self.node}-{self.interface}.pcapng"


def capture_points(plan: Plan, guest_side: Sequence[CapturePoint]) -> list[CapturePoint]:
    """The interfaces that the measurement and the evidence need.

    Args:
        plan: of the lab.
        guest_side: those that the substrate adds: where the guest's own frames are seen.
    """
    points = [CapturePoint(xtr, site.core_interface, LISP, inside=xtr) for site in plan.sites for xtr in site.xtrs]
    for link in plan.links:
        for end in link.ends:
            if end.node == plan.mapping_system.node:
                points.append(CapturePoint(end.node, end.name, LISP, inside=end.node))
    correspondent = plan.correspondent.node
    for bridge in plan.bridges:
        for port in bridge.ports:
            if port.node == correspondent:
                points.append(CapturePoint(correspondent, port.name, PROBES, inside=correspondent))
    return [*points, *guest_side]


class Captures:
    """dumpcap processes, one an interface."""

    def __init__(self, points: list[CapturePoint], network: Network, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._running: list[tuple[CapturePoint, subprocess.Popen[bytes], Path]] = []
        (run_dir / "pcap").mkdir(parents=True, exist_ok=True)
        for point in points:
            said = run_dir / "logs" / point.node / f"dumpcap-{point.interface}.log"
            said.parent.mkdir(parents=True, exist_ok=True)
            argv = ["dumpcap", "-q", "-i", point.interface, "-s", str(SNAP_OCTETS), "-B", "8"]
            argv += ["-w", str(run_dir / point.file)]
            if point.capture_filter:
                argv += ["-f", point.capture_filter]
            with said.open("wb") as log:
                if point.inside == LAB:
                    process = subprocess.Popen(
                        argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                    )
                else:
                    process = network.popen(point.inside, argv, stdout=log, stderr=log)
            self._running.append((point, process, said))

    def wait_ready(self, deadline_s: float = 15.0) -> None:
        """Wait until each has written its file's header, which it does when it listens."""
        end = time.monotonic() + deadline_s
        for point, process, said in self._running:
            path = self._run_dir / point.file
            while not (path.exists() and path.stat().st_size):
                if process.poll() is not None or time.monotonic() > end:
                    raise TestbedError(
                        "capture-failed", f"no capture at {point.node} {point.interface}", why=said.read_text().strip()
                    )
                time.sleep(0.02)

    def stop(self) -> list[dict[str, Any]]:
        """End the captures; returns a record of each for the manifest. Idempotent."""
        for _, process, _ in self._running:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        records = []
        for point, process, said in self._running:
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            tally = TALLY.search(said.read_text(errors="replace"))
            record: dict[str, Any] = {"node": point.node, "interface": point.interface, "file": point.file}
            record["received"], record["dropped"] = (int(tally[1]), int(tally[2])) if tally else (None, None)
            if point.site:
                record["site"] = point.site
            records.append(record)
        return records
