"""Namespaces for the data plane's tests: sites 1, 2, 3, each a host behind an xTR, around one router.

host n  192.168.n.10, fd0e:n::10  -  xTR n  .1 | 10.0.n.2, fd00:n::2  -  router  10.0.n.1, fd00:n::1
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from testbed.dataplane.ebpf import EbpfDataPlane
from testbed.dataplane.model import DataPlaneEvent, DataPlaneEventKind

CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3
SITES = (1, 2, 3)
DEADLINE_S = 5.0
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


def ip(*lines: str) -> None:
    """Run lines of `ip` in one batch."""
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Run the block with this thread in a network namespace."""
    with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{namespace}") as there:
        if _libc.setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            _libc.setns(before.fileno(), CLONE_NEWNET)


def wait_for(fd: int, deadline_s: float = DEADLINE_S) -> bool:
    """Whether a descriptor becomes readable in time."""
    return bool(select.select([fd], [], [], deadline_s)[0])


def wait_until(predicate: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    """Return as soon as a predicate holds; AssertionError if it does not in time."""
    end = time.monotonic() + deadline_s
    while not predicate():
        assert time.monotonic() < end, "not in time"
        select.select([], [], [], 0.002)


def events_of(plane: EbpfDataPlane, kind: DataPlaneEventKind) -> list[DataPlaneEvent]:
    """The reports of a kind, once there are any."""
    found: list[DataPlaneEvent] = []

    def any_came() -> bool:
        found.extend(event for event in plane.read_events() if event.kind is kind)
        return bool(found)

    wait_until(any_came)
    return found


class Network:
    """The namespaces; names are unique to this process, everything is removed with them."""

    def __init__(self, mtu: int = 1500) -> None:
        self._prefix = f"lt{os.getpid()}-{next(_numbers)}-"
        names = ["router", *(f"{role}{n}" for n in SITES for role in ("xtr", "host"))]
        self.names = {name: self._prefix + name for name in names}
        ip(*(f"netns add {full}" for full in self.names.values()))
        links = []
        for n in SITES:
            router, xtr, host = (self.names[x] for x in ("router", f"xtr{n}", f"host{n}"))
            links += [
                f"link add core netns {xtr} mtu {mtu} type veth peer name to{n} netns {router} mtu {mtu}",
                f"link add eid netns {xtr} type veth peer name lan netns {host}",
            ]
        ip(*links)
        for n in SITES:
            self._configure(
                f"xtr{n}",
                {
                    "core": (f"10.0.{n}.2/24", f"fd00:{n}::2/64"),
                    "eid": (f"192.168.{n}.1/24", f"fd0e:{n}::1/64"),
                },
                (f"10.0.{n}.1", f"fd00:{n}::1"),
            )
            self._configure(
                f"host{n}",
                {"lan": (f"192.168.{n}.10/24", f"fd0e:{n}::10/64")},
                (f"192.168.{n}.1", f"fd0e:{n}::1"),
            )
        self._configure("router", {f"to{n}": (f"10.0.{n}.1/24", f"fd00:{n}::1/64") for n in SITES}, ())

    def _configure(self, name: str, addresses: dict[str, tuple[str, ...]], gateways: tuple[str, ...]) -> None:
        with inside(self.names[name]):
            settings = {"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}
            for conf in ("all", "default", *addresses):
                settings[f"ipv4/conf/{conf}/rp_filter"] = "0"
                settings[f"ipv6/conf/{conf}/accept_dad"] = "0"  # link-local addresses at once
            for key, value in settings.items():
                Path("/proc/sys/net", key).write_text(value)
            lines = ["link set lo up"]
            for interface, given in addresses.items():
                lines += [f"addr add {a} dev {interface}" + (" nodad" if ":" in a else "") for a in given]
                lines += [f"link set {interface} up"]
            ip(*lines)
            ip(*(f"route replace default via {gateway}" for gateway in gateways))

    def run(self, name: str, *command: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command in a namespace."""
        full = ["ip", "netns", "exec", self.names[name], *command]
        return subprocess.run(full, capture_output=True, text=True, check=check, timeout=60)

    def ping(self, name: str, target: str, *arguments: str) -> bool:
        """Whether one of up to three echoes is answered."""
        command = ("ping", "-c", "3", "-i", "0.05", "-W", "1", *arguments, target)
        return self.run(name, *command).returncode == 0

    def close(self) -> None:
        """Remove the namespaces."""
        for full in self.names.values():
            subprocess.run(["ip", "netns", "del", full], check=False)


class Wire:
    """Raw frames on one interface; its own MAC, and that of the xTR at the other end."""

    def __init__(self, network: Network, name: str, interface: str, peer: str, peer_interface: str) -> None:
        with inside(network.names[name]):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self._socket.bind((interface, ETH_P_ALL))
            self.mac: bytes = self._socket.getsockname()[4]
        with inside(network.names[peer]), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as there:
            there.bind((peer_interface, 0))
            self.peer_mac: bytes = there.getsockname()[4]
        self._socket.setblocking(False)

    def send(self, packet: bytes) -> None:
        """Send an IP packet to the other end."""
        kind = b"\x08\0" if packet[0] >> 4 == 4 else b"\x86\xdd"
        self._socket.send(self.peer_mac + self.mac + kind + packet)

    def send_frame(self, frame: bytes) -> None:
        """Send a whole frame."""
        self._socket.send(frame)

    def expect(self, wanted: Callable[[bytes], bool], deadline_s: float = DEADLINE_S) -> bytes:
        """The first wanted frame that comes in; AssertionError if there is none in time."""
        end = time.monotonic() + deadline_s
        while (left := end - time.monotonic()) > 0 and wait_for(self._socket.fileno(), left):
            frame, address = self._socket.recvfrom(65600)
            if address[2] != socket.PACKET_OUTGOING and wanted(frame):
                return frame
        raise AssertionError("no such frame")

    def pending(self) -> Iterator[bytes]:
        """The frames that have come in so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, address = self._socket.recvfrom(65600)
                if address[2] != socket.PACKET_OUTGOING:
                    yield frame

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
