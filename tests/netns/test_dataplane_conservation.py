"""Nothing is lost in silence: what is sent is forwarded, held, left to the kernel, or dropped for the right reason."""

from __future__ import annotations

import re
import select
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from testbed.dataplane import icmp
from testbed.dataplane.ebpf import EbpfDataPlane
from testbed.dataplane.layout import DROP_REASONS, KERNEL_DROP_REASONS
from testbed.dataplane.model import Entry, EntryKind, Locator
from testbed.dataplane.slowpath import DROPPED_HERE
from tests.netns.conftest import OpenPlane
from tests.netns.lispnet import DEADLINE_S, Network, Wire
from tests.netns.packets import ETHERNET, ipv4, ipv6, is_lisp, lisp, udp
from tests.netns.test_dataplane_wire import bad_header_sum

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("impatient")]

EID, EID6, PEER, PEER6 = "192.168.1.10", "fd0e:1::10", "192.168.2.10", "fd0e:2::10"
RLOC, PEER_RLOC, NOBODYS_RLOC = "10.0.1.2", "10.0.2.2", "10.0.66.2"
#: Was at site 1, is at site 2; the other two went where no locator is used, and where only the other family reaches.
AWAY, AWAY_UNUSED, AWAY_OTHER = "192.168.1.50", "192.168.1.51", "192.168.1.52"
SILENT, SILENT6 = "192.168.1.99", "fd0e:1::99"
UNMAPPED, NEGATIVE, UNUSED, UNRESOLVED, NATIVE = (f"192.168.{n}.1" for n in (200, 201, 202, 203, 204))
OURS, THEIRS = 100, 4000
DF = 0x4000


def entry(eid: str, kind: EntryKind, *rlocs: str, priority: int = 1, **fields: int) -> Entry:
    return Entry(ip_network(eid), kind, tuple(Locator(ip_address(rloc), priority) for rloc in rlocs), **fields)


ENTRIES = (
    entry("192.168.1.0/24", EntryKind.LOCAL, map_version=OURS),
    entry("fd0e:1::/64", EntryKind.LOCAL),
    entry("192.168.2.0/24", EntryKind.REMOTE, PEER_RLOC, map_version=THEIRS),
    entry("fd0e:2::/64", EntryKind.REMOTE, PEER_RLOC),
    entry("192.168.200.0/24", EntryKind.RESOLVE),
    entry("192.168.201.0/24", EntryKind.DROP),
    entry("192.168.202.0/24", EntryKind.REMOTE, PEER_RLOC, priority=255),
    entry("192.168.203.0/24", EntryKind.REMOTE, NOBODYS_RLOC),
    entry("192.168.204.0/24", EntryKind.NATIVE),
    entry(AWAY, EntryKind.AWAY, PEER_RLOC),
    entry(AWAY_UNUSED, EntryKind.AWAY, PEER_RLOC, priority=255),
    entry(AWAY_OTHER, EntryKind.AWAY, "fd00:2::2", instance_id=7),
)
PEERS_ENTRIES = (
    entry("192.168.2.0/24", EntryKind.LOCAL),
    entry("fd0e:2::/64", EntryKind.LOCAL),
    entry(AWAY, EntryKind.LOCAL),
    entry("192.168.1.0/24", EntryKind.REMOTE, RLOC),
)

HOST_1, HOST_2, HELD = "comes to host 1", "comes to host 2", "held"
#: Forwarded by the kernel as it is; refused by the kernel, which counts it itself.
NATIVELY, NO_PORT, BAD_HEADER = "goes natively", "kernel: Udp NoPorts", "kernel: Ip InHdrErrors"


@dataclass(frozen=True)
class Kind:
    """Packets of one kind.

    Attributes:
        name: for people.
        make: a packet from its tag; from the site if `from_site`, else from the core.
        lands: what becomes of it; a reason of xTR 1, or of xTR 2 after "peer: ".
    """

    name: str
    from_site: bool
    make: Callable[[bytes], bytes]
    lands: str


def sent(name: str, lands: str, destination: str = PEER, *, octets: int = 0, **header: int) -> Kind:
    """What host 1 sends in IPv4, with `octets` behind the tag."""
    return Kind(name, True, lambda tag: ipv4(EID, destination, udp(1, 9, tag + bytes(octets)), **header), lands)


def arrived(
    name: str,
    lands: str,
    destination: str = EID,
    *,
    outer: dict[str, int] | None = None,
    change: Callable[[bytes], bytes] = lambda packet: packet,
    port: int = 4341,
    **header: int,
) -> Kind:
    """What comes to xTR 1 in a tunnel; `change` is done to the inner packet."""

    def make(tag: bytes) -> bytes:
        packet = change(ipv4(PEER, destination, udp(1, 9, tag)))
        return ipv4(PEER_RLOC, RLOC, udp(50000, port, lisp(packet, **header)), **(outer or {}))

    return Kind(name, False, make, lands)


def wrong_checksum(tag: bytes) -> bytes:
    ends = (PEER_RLOC, RLOC)
    packet = ipv4(*ends, udp(50000, 4341, lisp(ipv4(PEER, EID, udp(1, 9, tag))), ends))
    return packet[:-1] + bytes([packet[-1] ^ 1])


def implausible(tag: bytes) -> bytes:
    """A router of the core that has so narrow a link that no router may have it."""
    return icmp.too_big(ipv4(RLOC, PEER_RLOC, udp(50000, 4341, tag)), ip_address("10.0.1.1"), 40)


KINDS = (
    sent("mapped", HOST_2),
    Kind("mapped, IPv6", True, lambda tag: ipv6(EID6, PEER6, udp(1, 9, tag, (EID6, PEER6))), HOST_2),
    sent("too long, in pieces", HOST_2, octets=1440),
    sent("too long, DF", "held-too-big", octets=1440, fragment=DF),
    sent("TTL 1", "held-ttl-expired", ttl=1),
    sent("unmapped", HELD, UNMAPPED),
    sent("negative mapping", "negative-entry", NEGATIVE),
    sent("priority 255", "no-locator", UNUSED),
    sent("next hop unresolved", "core-unresolved", UNRESOLVED),
    sent("natively forwarded", NATIVELY, NATIVE),
    Kind("torn, from the site", True, lambda tag: bad_header_sum(ipv4(EID, PEER, udp(1, 9, tag))), BAD_HEADER),
    arrived("for a host here", HOST_1),
    arrived("unknown flags", HOST_1, flags=0xE4, second=0xFFFFFFFF),
    arrived("wrong port", NO_PORT, port=4342),
    arrived("unknown instance", "no-local-eid", flags=0x88, second=5 << 8),
    arrived("for nobody here", "no-local-eid", PEER),
    arrived("for a negative mapping", "negative-entry", NEGATIVE),
    arrived("TTL 1 in the tunnel", "held-ttl-expired", outer={"ttl": 1}),
    arrived("congestion that cannot be told", "ecn", outer={"tos": 3}),
    arrived("encrypted", "encrypted", flags=0x81),
    arrived("a fragment of the outer packet", "outer-fragment", outer={"fragment": 0x2000}),
    Kind("wrong outer checksum", False, wrong_checksum, "udp-checksum"),
    Kind("torn before the LISP header", False, lambda tag: ipv4(PEER_RLOC, RLOC, udp(5, 4341, tag[:7])), "truncated"),
    arrived("torn inside", "inner-malformed", change=lambda packet: packet[:-1]),
    arrived("wrong inner checksum", "inner-malformed", change=bad_header_sum),
    arrived("a newer version of our mapping", "map-version-destination", flags=0x10, nonce=THEIRS << 12 | OURS + 1),
    arrived("an older version of theirs", "map-version-source", flags=0x10, nonce=THEIRS - 1 << 12 | OURS),
    arrived("for a host without a MAC", "eid-unresolved", SILENT),
    arrived("away", HOST_2, AWAY),
    arrived("away, TTL 1", "ttl", AWAY, outer={"ttl": 1}),
    arrived("away, priority 255", "no-locator", AWAY_UNUSED),
    arrived("away, to another family and not of our instance", "adjust-room", AWAY_OTHER, flags=0x88, second=7 << 8),
    Kind("ICMP that cannot be true", False, implausible, "icmp-implausible"),
)  # fmt: skip
BY_NAME = {kind.name: kind for kind in KINDS}
#: Reasons that no packet alone comes to: which test of ours does.
ELSEWHERE = {
    "slow-path-full": "below, and test_a_full_slow_path_is_counted",
    "core-too-big": "test_a_narrow_link_of_the_core_is_learnt_and_told",
    "inject-no-room": "test_what_cannot_be_injected_is_counted",
    "core-refused": "test_what_has_no_route_is_counted",
    "eid-refused": "the same, of the other interface",
    "held-malformed": "test_a_frame_that_says_another_version_is_malformed",
}


def test_every_reason_has_a_kind() -> None:
    reasons = {*DROP_REASONS, *KERNEL_DROP_REASONS, *DROPPED_HERE, "slow-path-full", "core-refused", "eid-refused"}
    assert {kind.lands for kind in KINDS} & reasons == reasons - set(ELSEWHERE)


class Books:
    """What went in, and all that came of it, as counted by whoever has it.

    Args:
        network: the namespaces.
        plane: of xTR 1.
        peer: of xTR 2.
    """

    def __init__(self, network: Network, plane: EbpfDataPlane, peer: EbpfDataPlane) -> None:
        self._network, self._plane, self._peer = network, plane, peer
        self._resources = ExitStack()
        wires = {HOST_1: ("host1", "lan", "xtr1", "eid"), NATIVELY: ("router", "to1", "xtr1", "core"),
                 HOST_2: ("host2", "lan", "xtr2", "eid")}  # fmt: skip
        self.wires = {where: Wire(network, *ends) for where, ends in wires.items()}
        for wire in self.wires.values():
            self._resources.callback(wire.close)
        self.held: list[bytes] = []
        self._came: dict[bytes, set[str]] = {}
        self._tags = 0
        self._before = self._counters()

    def close(self) -> None:
        self._resources.close()

    def send(self, kind: Kind) -> bytes:
        """Send one; its tag."""
        self._tags += 1
        tag = b"<%08d>" % self._tags
        self.wires[HOST_1 if kind.from_site else NATIVELY].send(kind.make(tag))
        return tag

    def answer(self, mapping: Entry, held: list[bytes]) -> None:
        """The mapping has come: what was held for it goes through the entries again."""
        self._plane.set_entry(mapping)
        for packet in held:
            self._plane.inject(packet)

    def settle(self, total: int) -> Counter[str]:
        """What has become of the packets, once as many are accounted for as were sent, or time is over."""
        end = time.monotonic() + DEADLINE_S
        while self.accounts().total() < total and time.monotonic() < end:
            select.select([], [], [], 0.005)
        select.select([], [], [], 0.05)  # what is accounted for twice would come now
        return self.accounts()

    def accounts(self) -> Counter[str]:
        """What has become of the packets so far."""
        for plane in (self._plane, self._peer):
            while (packet := plane.read_missed()) is not None:
                self.held.append(packet)
        self._collect()
        found = Counter(where for places in self._came.values() for where in places)
        found[HELD] = len(self.held)
        return +(found + (self._counters() - self._before))

    def _collect(self) -> None:
        for where, wire in self.wires.items():
            for frame in wire.pending():
                protocol = frame[ETHERNET + 9] if frame[12:14] == b"\x08\0" else frame[ETHERNET + 6]
                tag = re.search(rb"<\d{8}>", frame)
                if protocol == 17 and not is_lisp(frame) and tag:
                    self._came.setdefault(tag[0], set()).add(where)

    def _counters(self) -> Counter[str]:
        counted = Counter({reason: number for reason, number in self._plane.drops().items() if number})
        counted += Counter({f"peer: {reason}": number for reason, number in self._peer.drops().items()})
        lines = [line.split() for line in self._network.run("xtr1", "cat", "/proc/net/snmp").stdout.splitlines()]
        for heads, numbers in zip(lines[::2], lines[1::2], strict=True):
            for name, number in zip(heads[1:], numbers[1:], strict=True):
                label = f"kernel: {heads[0][:-1]} {name}"
                if label in (NO_PORT, BAD_HEADER):
                    counted[label] = int(number)
        return counted


@pytest.fixture
def books(network: Network, open_plane: OpenPlane) -> Iterator[Books]:
    plane = open_plane(1, other_rlocs=[ip_address("fd00:1::2")], map_versioning=True)
    peer = open_plane(2)
    for each, entries in ((plane, ENTRIES), (peer, PEERS_ENTRIES)):
        for installed in entries:
            each.set_entry(installed)
    network.run("host2", "ip", "addr", "add", f"{AWAY}/32", "dev", "lan", check=True)
    network.run("xtr2", "ip", "route", "add", f"{AWAY}/32", "dev", "eid", check=True)
    network.run("xtr1", "ip", "route", "add", f"{NOBODYS_RLOC}/32", "via", "10.0.1.99", check=True)
    opened = Books(network, plane, peer)
    yield opened
    opened.close()
    network.run("host2", "ip", "addr", "del", f"{AWAY}/32", "dev", "lan", check=True)
    network.run("xtr2", "ip", "route", "del", f"{AWAY}/32", "dev", "eid", check=True)
    network.run("xtr1", "ip", "route", "del", f"{NOBODYS_RLOC}/32", check=True)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_kind_lands_where_it_must(books: Books, kind: Kind) -> None:
    for _ in range(3):
        books.send(kind)
    assert books.settle(3) == {kind.lands: 3}


@given(mix=st.lists(st.tuples(st.sampled_from(sorted(BY_NAME)), st.integers(1, 12)), min_size=2, max_size=20))
@example(mix=[(name, 2) for name in BY_NAME])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_of_any_mix_nothing_is_lost(books: Books, mix: list[tuple[str, int]]) -> None:
    expected = books.accounts()
    for name, count in mix:
        for _ in range(count):
            books.send(BY_NAME[name])
            books.accounts()  # as an agent does: no queue of a socket or the slow path fills up
        expected[BY_NAME[name].lands] += count
    found = books.settle(expected.total())
    assert found == expected
    assert found.total() == expected.total()


def test_what_was_held_is_released_or_dropped_for_a_reason(books: Books) -> None:
    """Beyond the slow path's queue they are counted; the others go where the mapping says once it has come."""
    for _ in range(700):
        books.send(BY_NAME["unmapped"])
    found = books.settle(700)
    assert set(found) == {HELD, "slow-path-full"}
    assert found.total() == 700
    held, books.held = books.held, []
    books.answer(entry("192.168.200.1/32", EntryKind.REMOTE, PEER_RLOC, priority=255), held[:100])
    books.answer(entry("192.168.200.1/32", EntryKind.DROP), held[100:200])
    books.answer(entry("192.168.200.1/32", EntryKind.REMOTE, NOBODYS_RLOC), held[200:300])
    left = len(held) - 300
    books.answer(entry("192.168.200.1/32", EntryKind.REMOTE, PEER_RLOC), held[300:])
    assert books.settle(700) == {
        "slow-path-full": 700 - len(held), "no-locator": 100, "negative-entry": 100, "core-unresolved": 100,
        "peer: no-local-eid": left,
    }  # fmt: skip
