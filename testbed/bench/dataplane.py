"""How fast LISP is beside the kernel's VXLAN and plain routing, over the same namespaces in the same run.

    host-a - xtr-a - core - xtr-b - host-b

The core's links take 1600 octets and the hosts send 1500, so that no path needs the MTU to be found
and every tunnel carries the same segments. What changes between measurements is only what the xTRs
do. Absolute figures depend on the machine and on what else it does; ratios are what to compare.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from testbed.dataplane.ebpf import open_ebpf
from testbed.dataplane.model import Entry, EntryKind, Locator
from testbed.errors import PrerequisiteMissingError, TestbedError

SITES = {"a": 1, "b": 2}
CORE_MTU = 1600
VXLAN_ID = 1
VXLAN_PORT = 4789
CLONE_NEWNET = 0x40000000
IPERF_GRACE_S = 20.0
#: name → (iperf3's arguments, what is read from its report).
LOADS: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], float]]] = {
    "tcp": ((), lambda end: float(end["sum_received"]["bits_per_second"])),
    "udp64": (("--udp", "--bitrate", "0", "--length", "64"), lambda end: _received_a_second(end)),
    "udp1400": (("--udp", "--bitrate", "0", "--length", "1400"), lambda end: _received_a_second(end)),
}
#: Measurements that make up a round's figure, the modes taking turns. A TCP connection's sender and receiver share two
#: processors in one way or another for a second or so, and carry 25 or 35 Gbit/s by that, whatever lies between them.
PIECES = {"tcp": 4, "udp64": 1, "udp1400": 1}
UNITS = {"tcp": "bit/s", "udp64": "packets/s received", "udp1400": "packets/s received"}


def _received_a_second(end: dict[str, Any]) -> float:
    total = end["sum"]
    return float((total["packets"] - total["lost_packets"]) / total["seconds"])


@contextlib.contextmanager
def _inside(namespace: str) -> Iterator[None]:
    """Run the block with this thread in a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{namespace}") as there:
        if libc.setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"entering {namespace}")
        try:
            yield
        finally:
            libc.setns(before.fileno(), CLONE_NEWNET)


def _ip(*lines: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


class Row:
    """The five namespaces in a row; names are unique to this process, `close` removes them."""

    def __init__(self) -> None:
        prefix = f"bench{os.getpid()}-"
        self.names = {name: prefix + name for name in ("core", *(f"{r}-{s}" for r in ("xtr", "host") for s in SITES))}
        _ip(*(f"netns add {name}" for name in self.names.values()))
        links = []
        for site in SITES:
            core, xtr, host = (self.names[name] for name in ("core", f"xtr-{site}", f"host-{site}"))
            peer = f"to-{site} netns {core} mtu {CORE_MTU}"
            links += [
                f"link add core netns {xtr} mtu {CORE_MTU} type veth peer name {peer}",
                f"link add eid netns {xtr} type veth peer name lan netns {host}",
            ]
        _ip(*links)
        for site, n in SITES.items():
            self._configure("core", f"to-{site}", f"10.0.{n}.1/24")
            self._configure(f"xtr-{site}", "core", f"10.0.{n}.2/24")
            self._configure(f"xtr-{site}", "eid", f"192.168.{n}.1/24")
            self._configure(f"host-{site}", "lan", f"192.168.{n}.10/24")
            self.ip(f"xtr-{site}", f"route add 10.0.0.0/16 via 10.0.{n}.1")
            self.ip(f"host-{site}", f"route add default via 192.168.{n}.1")

    def _configure(self, name: str, interface: str, address: str) -> None:
        with _inside(self.names[name]):
            for setting, value in (("ip_forward", "1"), (f"conf/{interface}/rp_filter", "0")):
                Path("/proc/sys/net/ipv4", setting).write_text(value)
            Path("/proc/sys/net/ipv4/conf/all/rp_filter").write_text("0")
            _ip("link set lo up", f"addr add {address} dev {interface}", f"link set {interface} up")

    def ip(self, name: str, *lines: str) -> None:
        """Run lines of `ip` in a namespace."""
        with _inside(self.names[name]):
            _ip(*lines)

    def command(self, name: str, *command: str) -> list[str]:
        """A command line that runs in a namespace."""
        return ["ip", "netns", "exec", self.names[name], *command]

    def close(self) -> None:
        """Remove the namespaces."""
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], check=False)


def _other(site: str) -> tuple[str, int]:
    return next((name, n) for name, n in SITES.items() if name != site)


@contextlib.contextmanager
def routed(path: Row) -> Iterator[None]:
    """Plain routing: the core knows the EIDs."""
    changes = [("core", f"192.168.{n}.0/24 via 10.0.{n}.2") for n in SITES.values()] + [
        (f"xtr-{site}", f"192.168.{_other(site)[1]}.0/24 via 10.0.{n}.1") for site, n in SITES.items()
    ]
    for name, route in changes:
        path.ip(name, f"route add {route}")
    try:
        yield
    finally:
        for name, route in changes:
            path.ip(name, f"route del {route}")


@contextlib.contextmanager
def vxlan(path: Row) -> Iterator[None]:
    """A kernel VXLAN device between the xTRs, routed into."""
    with ExitStack() as stack:
        for site, n in SITES.items():
            other = _other(site)[1]
            path.ip(
                f"xtr-{site}",
                f"link add tunnel mtu 1500 type vxlan id {VXLAN_ID} dstport {VXLAN_PORT} local 10.0.{n}.2"
                f" remote 10.0.{other}.2",
                f"addr add 172.30.0.{n}/24 dev tunnel",
                "link set tunnel up",
                f"route add 192.168.{other}.0/24 via 172.30.0.{other}",
            )
            stack.callback(path.ip, f"xtr-{site}", "link del tunnel")
        yield


@contextlib.contextmanager
def lisp(path: Row) -> Iterator[None]:
    """The LISP data plane at both xTRs."""
    with ExitStack() as stack:
        for site, n in SITES.items():
            other = _other(site)[1]
            stack.enter_context(_lisp_at(path.names[f"xtr-{site}"], n, other))
        yield


@contextlib.contextmanager
def _lisp_at(namespace: str, n: int, other: int) -> Iterator[None]:
    with _inside(namespace):
        plane = open_ebpf(rloc=ip_address(f"10.0.{n}.2"), core_interface="core", eid_interface="eid")
    try:
        plane.set_entry(Entry(ip_network(f"192.168.{n}.0/24"), EntryKind.LOCAL))
        locators = (Locator(ip_address(f"10.0.{other}.2")),)
        plane.set_entry(Entry(ip_network(f"192.168.{other}.0/24"), EntryKind.REMOTE, locators))
        yield
    finally:
        with _inside(namespace):
            plane.close()


MODES: dict[str, Callable[[Row], AbstractContextManager[None]]] = {
    "lisp": lisp,
    "vxlan": vxlan,
    "routed": routed,
}


def _measure(path: Row, load: str, duration_s: float) -> float:
    arguments, read = LOADS[load]
    server = subprocess.Popen(
        path.command("host-b", "iperf3", "--server", "--one-off", "--forceflush"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert server.stdout is not None
        # It says that it listens before it does anything else; until then a client is refused.
        while "listening" not in (line := server.stdout.readline()):
            if not line:
                raise TestbedError("iperf3-failed", "iperf3's server did not start.")
        client = subprocess.run(
            path.command(
                "host-a",
                "iperf3",
                "--json",
                "--client",
                "192.168.2.10",
                "--time",
                f"{duration_s:g}",
                *arguments,
            ),
            capture_output=True,
            text=True,
            timeout=duration_s + IPERF_GRACE_S,
            check=False,
        )
        report = json.loads(client.stdout)
        if "error" in report:
            raise TestbedError("iperf3-failed", f"{load}: {report['error']}.")
        return read(report["end"])
    finally:
        server.kill()
        server.wait()


def bench(*, rounds: int = 3, duration_s: float = 2.0, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Measure all loads in all modes, alternating, and compare the medians.

    Args:
        rounds: figures of each load in each mode, each the mean of `PIECES` measurements.
        duration_s: of one measurement, whole seconds for iperf3.
        say: told of each figure as it comes.

    Returns {"ratio": {peer: {load: median of LISP / median of peer}}, "ratio_range": {peer: {load: [lowest, highest
    of a round]}}, "median": …, "spread": {mode: {load: (max − min) / median}}, "raw": {mode: {load: [one a round]}},
    "unit": …}. A spread beyond 0.2 says that the machine was busy with something else, and the ratios with it; a range
    around 1 that the two are equal as far as this run can tell. Raises PrerequisiteMissingError without iperf3 or root.
    """
    if shutil.which("iperf3") is None:
        raise PrerequisiteMissingError(
            "iperf3-missing", "iperf3 is not installed.", next_command="sudo apt-get install iperf3"
        )
    if os.geteuid() != 0:
        raise PrerequisiteMissingError(
            "not-root", "Network namespaces need root.", next_command="sudo testbed bench dataplane"
        )
    raw: dict[str, dict[str, list[float]]] = {mode: {load: [] for load in LOADS} for mode in MODES}
    path = Row()
    try:
        for number in range(rounds):
            # What is compared is measured one right after the other, nobody always first: the machine changes.
            for load in LOADS:
                pieces: dict[str, list[float]] = {mode: [] for mode in MODES}
                for piece in range(PIECES[load]):
                    for mode in order(number + piece):
                        with MODES[mode](path):
                            pieces[mode].append(_measure(path, load, duration_s))
                        say(f"round {number + 1}: {mode} {load}: {pieces[mode][-1]:.3g} {UNITS[load]}")
                for mode, figures in pieces.items():
                    raw[mode][load].append(statistics.mean(figures))
    finally:
        path.close()
    return {
        "ratio": ratios(raw),
        "ratio_range": ratio_ranges(raw),
        "median": _medians(raw),
        "spread": spreads(raw),
        "raw": raw,
        "unit": UNITS,
    }


def order(number: int) -> list[str]:
    """The modes as round `number` (from 0) goes through them: each begins in its turn."""
    modes = list(MODES)
    first = number % len(modes)
    return modes[first:] + modes[:first]


def spreads(raw: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float | None]]:
    """(max − min) / median of each mode and load; None where nothing was carried."""
    medians = _medians(raw)
    return {
        mode: {
            load: (max(figures) - min(figures)) / medians[mode][load] if medians[mode][load] else None
            for load, figures in loads.items()
        }
        for mode, loads in raw.items()
    }


def _medians(raw: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    return {mode: {load: statistics.median(figures) for load, figures in loads.items()} for mode, loads in raw.items()}


def ratios(raw: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float | None]]:
    """LISP's median over each peer's, by load; None where the peer carried nothing."""
    medians = _medians(raw)
    return {
        peer: {load: medians["lisp"][load] / figure if figure else None for load, figure in medians[peer].items()}
        for peer in medians
        if peer != "lisp"
    }


def ratio_ranges(raw: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, list[float] | None]]:
    """The lowest and the highest of LISP over each peer in one round, by load; None where the peer carried nothing."""
    return {
        peer: {
            load: [min(rounds), max(rounds)] if (rounds := _by_round(raw["lisp"][load], figures)) else None
            for load, figures in loads.items()
        }
        for peer, loads in raw.items()
        if peer != "lisp"
    }


def _by_round(lisp: list[float], peer: list[float]) -> list[float]:
    return [ours / theirs for ours, theirs in zip(lisp, peer, strict=False) if theirs]
