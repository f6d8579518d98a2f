"""Path MTU, kept for each locator (RFC 9300 §7.2): learnt from the core's routers, told to hosts, forgotten in time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

import pytest

from testbed.dataplane import icmp
from testbed.dataplane.ebpf import EbpfDataPlane
from testbed.dataplane.model import Entry, EntryKind, Locator
from tests.netns.conftest import RLOCS, OpenPlane, Planes, served
from tests.netns.lispnet import Network, Wire, wait_until
from tests.netns.packets import ipv4, lisp, udp
from tests.netns.sites import GUEST, PEER, Lab
from tests.netns.test_dataplane_traffic import STREAM, stream

pytestmark = pytest.mark.netns

NARROW = 1400
#: Octets that encapsulation adds; that an echo's headers take.
OVERHEAD, ECHO = {4: 36, 6: 56}, {4: 28, 6: 48}
NARROW_LAN = 1300
GATEWAYS = {4: "192.168.2.1", 6: "fd0e:2::1"}
EIDS = {4: "192.168.{}.10", 6: "fd0e:{}::10"}


def make_link(network: Network, n: int, mtu: int) -> None:
    """Give site n's link to the core another MTU, at both ends."""
    for name, interface in (("router", f"to{n}"), (f"xtr{n}", "core")):
        network.run(name, "ip", "link", "set", interface, "mtu", str(mtu), check=True)


def forget_paths(network: Network) -> None:
    """Make the hosts' kernels forget what they learnt of paths."""
    for n in (1, 2, 3):
        for family in ("-4", "-6"):
            network.run(f"host{n}", "ip", family, "route", "flush", "cache")


@pytest.fixture
def narrow(network: Network) -> Iterator[None]:
    """The way to site 2 is narrow, which site 1's own link does not show."""
    make_link(network, 2, NARROW)
    yield
    make_link(network, 2, 1500)
    forget_paths(network)


def echo(network: Network, eid: str, octets: int, *options: str) -> str:
    """What `ping` says of an echo of so many octets of IP from site 1, sent whole."""
    size = octets - ECHO[ip_address(eid).version]
    return network.run("host1", "ping", "-c", "1", "-W", "0.3", "-s", str(size), *options, eid).stdout


def echoed(network: Network, eid: str, octets: int, *options: str) -> bool:
    return "1 received" in echo(network, eid, octets, *options)


def paths_of(plane: EbpfDataPlane) -> dict[str, int]:
    return {path["rloc"]: path["mtu"] for path in plane.mtus()["paths"]}


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("version", [4, 6], ids=["eid4", "eid6"])
def test_a_narrow_link_of_the_core_is_learnt_and_told(
    network: Network, planes: Planes, rloc: str, version: int
) -> None:
    eid = EIDS[version].format(2)
    outer = ip_address(rloc.format(2)).version
    fits = NARROW - OVERHEAD[outer]
    unfragmented = ("-M", "do")
    assert not echoed(network, eid, fits + 1, *unfragmented)  # lost in the core, whose router says why
    wait_until(lambda: paths_of(planes[1]) == {rloc.format(2): NARROW})
    assert planes[1].drops()["core-too-big"] == 1
    assert re.search(rf"mtu ?= ?{fits}\b", echo(network, eid, fits + 1, *unfragmented))
    assert planes[1].drops()["held-too-big"] == 1
    assert echoed(network, eid, fits, *unfragmented)
    # In pieces, once the host there has been told of its own link, which is as narrow.
    wait_until(lambda: echoed(network, eid, 1500))
    assert planes[1].mtus()["link"] == 1500
    assert paths_of(planes[2]) == {}


@pytest.fixture
def narrow_lan(network: Network) -> Iterator[None]:
    """Site 2's LAN is narrower than the way there."""
    for name, interface in (("xtr2", "eid"), ("host2", "lan")):
        network.run(name, "ip", "link", "set", interface, "mtu", str(NARROW_LAN), check=True)
    yield
    for name, interface in (("xtr2", "eid"), ("host2", "lan")):
        network.run(name, "ip", "link", "set", interface, "mtu", "1500", check=True)
    forget_paths(network)


@pytest.mark.usefixtures("narrow_lan")
@pytest.mark.parametrize("version", [4, 6], ids=["eid4", "eid6"])
def test_a_lan_that_is_narrower_than_the_way_there(network: Network, planes: Planes, rloc: str, version: int) -> None:
    """Who delivers is a router there: it tells the source, through the tunnel, or fragments (RFC 1812 §5.2.6)."""
    eid = EIDS[version].format(2)
    said = echo(network, eid, NARROW_LAN + 1, "-M", "do")
    assert re.search(rf"mtu ?= ?{NARROW_LAN}\b", said), said
    assert GATEWAYS[version] in said
    assert echoed(network, eid, NARROW_LAN, "-M", "do")
    forget_paths(network)
    if version == 4:
        assert echoed(network, eid, NARROW_LAN + 100, "-M", "dont")
    assert {reason for reason, number in planes[2].drops().items() if number} == {"held-too-big"}


@pytest.mark.usefixtures("narrow_lan")
@pytest.mark.parametrize("version", [4, 6], ids=["eid4", "eid6"])
def test_a_stream_to_a_narrow_lan_finds_its_size(network: Network, planes: Planes, rloc: str, version: int) -> None:
    """Not that of its super-packets, but of their segments."""
    network.run("host2", "ip", "link", "set", "lan", "mtu", "1500", check=True)  # it does not say so by its MSS
    assert stream(network, "host2", EIDS[version].format(2)) == STREAM
    assert {reason for reason, number in planes[2].drops().items() if number} <= {"held-too-big"}


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("version", [4, 6], ids=["eid4", "eid6"])
def test_a_stream_of_super_packets_finds_its_size(network: Network, planes: Planes, rloc: str, version: int) -> None:
    assert stream(network, "host2", EIDS[version].format(2)) == STREAM
    assert paths_of(planes[1]) == {rloc.format(2): NARROW}
    reasons = {reason for plane in planes.values() for reason, n in plane.drops().items() if n}
    assert reasons <= {"core-too-big", "held-too-big"}


@pytest.mark.usefixtures("narrow")
def test_without_df_it_is_fragmented_to_the_path(network: Network, planes: Planes, rloc: str) -> None:
    """RFC 9300 §7.1's fragments, of the size that §7.2 found out."""
    eid = EIDS[4].format(2)
    assert not echoed(network, eid, 1440, "-M", "dont")
    wait_until(lambda: bool(paths_of(planes[1])))
    assert echoed(network, eid, 1440, "-M", "dont")


@pytest.mark.usefixtures("narrow")
def test_after_ten_minutes_the_path_is_tried_again(
    network: Network, planes: Planes, rloc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    eid = EIDS[4].format(2)
    echoed(network, eid, 1440, "-M", "dont")
    wait_until(lambda: bool(paths_of(planes[1])))
    make_link(network, 2, 1500)
    monkeypatch.setattr("testbed.dataplane.pathmtu.AGE_OUT_S", 0.0)
    wait_until(lambda: echoed(network, eid, 1440, "-M", "do"))  # whole
    assert paths_of(planes[1]) == {}


def test_a_path_that_is_narrow_behind_the_old_xtr(network: Network, open_plane: OpenPlane, rloc: str) -> None:
    """Its source is at another site: what the old xTR tells it goes through the tunnel."""
    eid = ip_network("192.168.3.10/32")
    source = ip_network("192.168.1.0/24")
    itr, old, new = (open_plane(n, rloc=ip_address(rloc.format(n))) for n in (1, 2, 3))
    for plane, prefix, kind, site in (
        (itr, source, EntryKind.LOCAL, None),
        (itr, eid, EntryKind.REMOTE, 2),
        (itr, ip_network("192.168.2.0/24"), EntryKind.REMOTE, 2),
        (old, eid, EntryKind.AWAY, 3),
        (old, source, EntryKind.REMOTE, 1),
        (new, eid, EntryKind.LOCAL, None),
        (new, source, EntryKind.REMOTE, 1),
    ):
        locators = (Locator(ip_address(rloc.format(site))),) if site else ()
        plane.set_entry(Entry(prefix, kind, locators))
    fits = NARROW - OVERHEAD[ip_address(rloc.format(3)).version]
    make_link(network, 3, NARROW)
    try:
        with served(itr, old, new):
            assert not echoed(network, "192.168.3.10", fits + 1, "-M", "do")
            wait_until(lambda: paths_of(old) == {rloc.format(3): NARROW})
            assert paths_of(itr) == {}
            said = echo(network, "192.168.3.10", fits + 1, "-M", "do")
            assert f"From 192.168.2.1 icmp_seq=1 Frag needed and DF set (mtu = {fits})" in said
            assert echoed(network, "192.168.3.10", fits, "-M", "do")
    finally:
        make_link(network, 3, 1500)
        forget_paths(network)


def test_agents_learn_it_and_inspect_says_it(tmp_path: Path) -> None:
    """A link of site A that is narrower than what the correspondent sends."""
    lab = Lab(tmp_path, "smr-old-xtr")
    try:
        lab._ip("core", "link set to-a mtu 1300")
        lab._ip("xtr-a", "link set core mtu 1300")
        lab.start()
        lab.run("guest", "ping", "-c", "2", PEER)
        for options in (("-M", "dont"), ("-M", "do")):  # fragments from then on; then its sender is told
            shown = lab.run("peer", "ping", "-c", "4", "-i", "0.05", "-W", "1", "-s", "1360", *options, GUEST).stdout
            assert (" 0 received" in shown) == (options[1] == "do"), shown
        assert re.search(r"mtu ?= ?1264\b", shown)
        assert " 4 received" in lab.run("peer", "ping", "-c", "4", "-i", "0.05", "-s", "1236", "-M", "do", GUEST).stdout
        state = lab.ask("xtr-c", op="inspect")
        assert (state["mtu"]["link"], [(p["rloc"], p["mtu"]) for p in state["mtu"]["paths"]]) == (
            1500,
            [("10.0.1.2", 1300)],
        )
        assert state["drops"]["core-too-big"] >= 1
        (changed,) = lab.saw("path_mtu_changed", "xtr-c")
        assert (changed["rloc"], changed["mtu"]) == ("10.0.1.2", 1300)
    finally:
        lab.close()


RLOC, PEER_RLOC = (RLOCS[4].format(n) for n in (1, 2))
DATA = udp(0xC123, 4341, lisp(ipv4("192.168.1.10", "192.168.2.10", bytes(1400))))
SENT = ipv4(RLOC, PEER_RLOC, DATA, fragment=0x4000)
ROUTER = IPv4Address("10.0.1.1")


@pytest.mark.parametrize(
    "forged",
    [
        icmp.too_big(SENT, ROUTER, 1500),  # it would have fitted
        icmp.too_big(SENT, ROUTER, 67),  # no MTU of IPv4
        icmp.too_big(ipv4(RLOC, "10.0.7.7", DATA), ROUTER, 1300),  # nothing is sent there
        icmp.too_big(SENT, ROUTER, 1300)[:-1] + b"\xff",  # checksum
        icmp.too_big(ipv4(RLOC, PEER_RLOC, udp(4341, 4341, bytes(1400))), ROUTER, 1300),  # not from our ports
    ],
)
def test_a_forged_message_changes_nothing_and_is_counted(open_plane: OpenPlane, core_wire: Wire, forged: bytes) -> None:
    plane = open_plane(1)
    plane.set_entry(Entry(ip_network("192.168.2.0/24"), EntryKind.REMOTE, (Locator(ip_address(PEER_RLOC)),)))
    core_wire.send(forged)

    def counted() -> bool:
        assert plane.read_missed() is None
        return plane.drops()["icmp-implausible"] == 1

    wait_until(counted)
    assert paths_of(plane) == {}
    assert sum(plane.drops().values()) == 1


def test_what_is_not_about_lisp_data_stays_the_kernels(open_plane: OpenPlane, core_wire: Wire) -> None:
    plane = open_plane(1)
    plane.set_entry(Entry(ip_network("192.168.2.0/24"), EntryKind.REMOTE, (Locator(ip_address(PEER_RLOC)),)))
    core_wire.send(icmp.too_big(ipv4(RLOC, PEER_RLOC, udp(4342, 4342, bytes(1400))), ROUTER, 1300))
    core_wire.send(icmp.too_big(SENT, ROUTER, 1300))

    def learnt() -> bool:
        assert plane.read_missed() is None
        return bool(paths_of(plane))

    wait_until(learnt)
    assert plane.drops()["icmp-implausible"] == 0


def test_counters_outlive_what_is_learnt_and_a_refresh(open_plane: OpenPlane, site_wire: Wire, core_wire: Wire) -> None:
    plane = open_plane(1)
    prefix = ip_network("192.168.2.0/24")
    entry = Entry(prefix, EntryKind.REMOTE, (Locator(ip_address(PEER_RLOC)),))
    plane.set_entry(entry)
    site_wire.send(ipv4("192.168.1.10", "192.168.2.10", udp(1, 2, b"x")))
    wait_until(lambda: plane.usage(prefix)[0] == 1)
    before = plane.usage(prefix)
    core_wire.send(icmp.too_big(SENT, ROUTER, 1300))
    wait_until(lambda: plane.read_missed() is None and bool(paths_of(plane)))
    assert plane.usage(prefix) == before
    plane.set_entry(entry)
    assert plane.usage(prefix) == before
    plane.delete_entry(prefix)
    plane.set_entry(entry)
    assert plane.usage(prefix) == (0, 0, None)
