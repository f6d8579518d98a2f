"""Fixtures of the tests that need root and namespaces."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from testbed.dataplane.ebpf import EbpfDataPlane, open_ebpf
from testbed.dataplane.model import Entry, EntryKind, Locator
from tests.netns.lispnet import Network, Wire, inside

OpenPlane = Callable[..., EbpfDataPlane]
Planes = dict[int, EbpfDataPlane]
RLOCS = {4: "10.0.{}.2", 6: "fd00:{}::2"}


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    net = Network()
    yield net
    net.close()


@pytest.fixture
def open_plane(network: Network) -> Iterator[OpenPlane]:
    """Open the data plane of xTR n; all are closed after the test."""
    opened: list[tuple[int, EbpfDataPlane]] = []

    def open_at(n: int, **options: Any) -> EbpfDataPlane:
        options.setdefault("rloc", ip_address(f"10.0.{n}.2"))
        options.setdefault("dynamic_eid_prefixes", [ip_network(f"192.168.{n}.0/24"), ip_network(f"fd0e:{n}::/64")])
        with inside(network.names[f"xtr{n}"]):
            plane = open_ebpf(core_interface="core", eid_interface="eid", **options)
        opened.append((n, plane))
        return plane

    yield open_at
    for n, plane in opened:
        with inside(network.names[f"xtr{n}"]):
            plane.close()


@pytest.fixture
def site_wire(network: Network) -> Iterator[Wire]:
    """Site 1's LAN as its host sees it."""
    wire = Wire(network, "host1", "lan", "xtr1", "eid")
    yield wire
    wire.close()


@pytest.fixture
def core_wire(network: Network) -> Iterator[Wire]:
    """Xtr 1's core link as the router sees it."""
    wire = Wire(network, "router", "to1", "xtr1", "core")
    yield wire
    wire.close()


@pytest.fixture
def impatient(network: Network) -> Iterator[None]:
    """The kernel of xTR 1 gives up asking in a third of a second, and keeps few packets meanwhile."""
    settings = {"retrans_time_ms": "100", "unres_qlen_bytes": "4096"}
    with inside(network.names["xtr1"]):
        paths = [
            Path(f"/proc/sys/net/ipv{v}/neigh/{at}/{key}") for v in (4, 6) for at in ("core", "eid") for key in settings
        ]
        before = [path.read_text() for path in paths]
        for path in paths:
            path.write_text(settings[path.name])
    yield
    with inside(network.names["xtr1"]):
        for path, value in zip(paths, before, strict=True):
            path.write_text(value)


@contextmanager
def served(*planes: EbpfDataPlane) -> Iterator[None]:
    """Serve the slow paths while the block runs, as each xTR's agent would."""
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            for fd in select.select([plane.miss_fd() for plane in planes], [], [], 0.05)[0]:
                next(plane for plane in planes if plane.miss_fd() == fd).read_missed()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture(params=[4, 6], ids=["rloc4", "rloc6"])
def rloc(request: pytest.FixtureRequest) -> str:
    """The pattern of the sites' RLOCs."""
    return RLOCS[request.param]


@pytest.fixture
def planes(rloc: str, open_plane: OpenPlane) -> Iterator[Planes]:
    """Sites 1 and 2, each other's mappings installed, their slow paths served as an agent would."""
    opened = {n: open_plane(n, rloc=ip_address(rloc.format(n))) for n in (1, 2)}
    for n, plane in opened.items():
        for prefix in ("192.168.{}.0/24", "fd0e:{}::/64"):
            plane.set_entry(Entry(ip_network(prefix.format(n)), EntryKind.LOCAL))
            locators = (Locator(ip_address(rloc.format(3 - n))),)
            plane.set_entry(Entry(ip_network(prefix.format(3 - n)), EntryKind.REMOTE, locators))
    with served(*opened.values()):
        yield opened
