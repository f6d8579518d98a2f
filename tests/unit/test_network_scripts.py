"""What is run in the nodes, and the back ends' arguments, read as text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.lab.network.impairment import (
    is_impaired,
    netem_arguments,
    netem_effective,
    queue_bytes,
    relay_arguments,
)
from testbed.lab.network.relay import RelayedLink, build_relay, relay_input
from testbed.lab.network.scripts import bridge_script, interface_script, sysctl_script
from testbed.plan import Plan, build_plan
from testbed.plan.model import Impairment, Interface, Link
from testbed.spec import load_topology

ROOT = Path(__file__).parents[2]


def plan() -> Plan:
    path = ROOT / "topologies/two-sites.yaml"
    return build_plan(load_topology(path.read_text(), path.name))


def link(**impairment: float) -> Link:
    ends = (Interface("core", "to-a"), Interface("xtr-a", "rloc0"))
    return Link("core-a", ends, Impairment(**impairment))


def test_an_xtr_gets_its_addresses_mtus_and_route() -> None:
    xtr = next(node for node in plan().nodes if node.name == "xtr-a")
    batch = interface_script(plan(), xtr).split("<<'END'\n")[1]
    assert batch.splitlines() == [
        "link set lo up",
        "link set rloc0 mtu 9000 up",
        "address add 10.0.1.2/24 dev rloc0",
        "link set eid0 mtu 1500 up",
        "address add 192.168.0.1/24 dev eid0",
        "link set infra0 mtu 9000 up",
        "address add 10.1.1.1/24 dev infra0",
        "route add 10.0.0.0/8 via 10.0.1.1",
        "END",
    ]


@pytest.mark.parametrize(("name", "forwards"), [("core", True), ("xtr-a", True), ("ms", False)])
def test_only_routers_forward_and_nobody_filters_by_reverse_path(name: str, forwards: bool) -> None:
    script = sysctl_script(plan(), next(node for node in plan().nodes if node.name == name))
    assert ("net.ipv4.ip_forward=1" in script) is forwards
    assert "net.ipv4.conf.all.rp_filter=0" in script
    assert "net.ipv6.conf.all.disable_ipv6=1" in script


def test_where_ipv6_is_planned_it_is_on_at_once() -> None:
    text = (ROOT / "topologies/two-sites.yaml").read_text()
    text = text.replace("[192.168.3.0/24]", "[192.168.3.0/24, '2001:db8:3::/64']")
    planned = build_plan(load_topology(text, "t.yaml"))
    xtr = next(node for node in planned.nodes if node.name == "xtr-c")
    assert "disable_ipv6=0" in sysctl_script(planned, xtr)
    assert "net.ipv6.conf.all.forwarding=1" in sysctl_script(planned, xtr)
    assert "address add 2001:db8:3::1/64 dev eid0 nodad" in interface_script(planned, xtr)


def test_a_bridge_forwards_from_its_first_moment() -> None:
    script = bridge_script(plan().bridges[0], ["e0-a"])
    assert "link add name eid-a type bridge stp_state 0 forward_delay 0 mcast_snooping 0" in script
    assert "link set e0-a master eid-a mtu 1500 up" in script


@pytest.mark.parametrize(
    ("impairment", "expected"),
    [
        ({}, False),
        ({"delay_ms": 1}, True),
        ({"jitter_ms": 1}, True),
        ({"loss_percent": 0.1}, True),
        ({"rate_mbit": 10}, True),
        ({"queue_ms": 5}, False),
    ],
)
def test_a_link_without_impairment_needs_no_back_end(impairment: dict[str, float], expected: bool) -> None:
    assert is_impaired(link(**impairment).impairment) is expected


def test_the_queue_is_as_long_as_its_time_at_the_links_rate() -> None:
    assert queue_bytes(link()) == 0
    assert queue_bytes(link(rate_mbit=100, queue_ms=20)) == 250_000
    assert queue_bytes(link(rate_mbit=1, queue_ms=1)) == 10 * 1518


def test_the_relay_is_told_in_its_own_units() -> None:
    asked = link(delay_ms=5.5, jitter_ms=0.25, loss_percent=0.1, rate_mbit=100)
    assert relay_arguments(asked) == {
        "delay_ns": 5_500_000,
        "jitter_ns": 250_000,
        "loss_ppb": 1_000_000,
        "rate_bps": 100_000_000,
        "queue_bytes": 250_000,
        "frame_bytes": 1518,
    }


def test_no_two_links_of_a_relay_have_the_same_generator() -> None:
    links = [RelayedLink(replace(link(delay_ms=1), name=str(n)), f"l{n}", f"r{n}") for n in range(3)]
    lines = (relay_input(links, 1) + relay_input(links, 2)).splitlines()
    assert len({line.split()[-1] for line in lines}) == 6


def test_netem_is_asked_for_the_same() -> None:
    asked = link(delay_ms=5, jitter_ms=1, loss_percent=0.1, rate_mbit=100)
    # 250,000 bytes of queue and 8 ms at 100 Mbit/s = 350,000 bytes, in frames of 1518
    assert " ".join(netem_arguments(asked)) == (
        "delay 5ms 1ms distribution normal loss random 0.1% rate 100mbit limit 231"
    )


def test_netem_is_read_back_from_tc() -> None:
    said = [{"kind": "netem", "handle": "8001:", "options": {"limit": 231, "delay": {"delay": 0.005}}}]
    assert netem_effective(json.dumps(said)) == {"limit": 231, "delay": {"delay": 0.005}}
    assert netem_effective("[]") == {}


def test_the_relay_is_built_once(tmp_path: Path) -> None:
    program = build_relay(tmp_path / "cache")
    built = program.stat()
    assert build_relay(tmp_path / "cache") == program
    assert program.stat() == built
    assert [path.name for path in program.parent.iterdir()] == [program.name]
