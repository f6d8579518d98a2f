"""Fixtures of the tests that need root and namespaces."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from testbed.dataplane.ebpf import EbpfDataPlane, open_ebpf
from tests.netns.lispnet import Network, Wire, inside

OpenPlane = Callable[..., EbpfDataPlane]


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
