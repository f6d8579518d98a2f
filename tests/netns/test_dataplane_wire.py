"""What the data plane puts on the wire and what it takes off it, octet by octet (RFC 9300 §5.3)."""

from __future__ import annotations

import time
from ipaddress import ip_address, ip_network

import pytest

from testbed.dataplane.ebpf import EbpfDataPlane
from testbed.dataplane.model import Entry, EntryKind, Locator
from tests.netns.conftest import OpenPlane
from tests.netns.lispnet import Wire, wait_until
from tests.netns.packets import ETHERNET, Encapsulated, Ip, ipv4, ipv6, is_lisp, lisp, udp

pytestmark = pytest.mark.netns

EID, EID6 = "192.168.1.10", "fd0e:1::10"
PEER, PEER6 = "192.168.2.10", "fd0e:2::10"
RLOC, RLOC6 = "10.0.1.2", "fd00:1::2"
PEER_RLOC, PEER_RLOC6 = "10.0.2.2", "fd00:2::2"
NOT_ECT, ECT_1, ECT_0, CE = 0, 1, 2, 3


def remote(eid: str, *rlocs: str, **fields: int) -> Entry:
    return Entry(ip_network(eid), EntryKind.REMOTE, tuple(Locator(ip_address(r)) for r in rlocs), **fields)


def local(eid: str, **fields: int) -> Entry:
    return Entry(ip_network(eid), EntryKind.LOCAL, **fields)


def encapsulated(site: Wire, core: Wire, packet: bytes) -> Encapsulated:
    site.send(packet)
    return Encapsulated.read(core.expect(is_lisp)[ETHERNET:])


def arriving(inner: bytes, *, ttl: int = 60, tos: int = 0, checksum: bool = False, **header: int) -> bytes:
    ends = (PEER_RLOC, RLOC)
    return ipv4(*ends, udp(50000, 4341, lisp(inner, **header), ends if checksum else None), ttl=ttl, tos=tos)


def delivered(site: Wire, core: Wire, packet: bytes, payload: bytes) -> Ip:
    core.send(packet)
    return Ip.read(site.expect(lambda frame: frame.endswith(payload) and not is_lisp(frame))[ETHERNET:])


@pytest.fixture
def plane(open_plane: OpenPlane) -> EbpfDataPlane:
    opened = open_plane(1)
    opened.set_entry(local("192.168.1.0/24"))
    opened.set_entry(remote("192.168.2.0/24", PEER_RLOC))
    return opened


def test_encapsulated_packet(plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire) -> None:
    sent = ipv4(EID, PEER, udp(1111, 2222, b"payload of one", (EID, PEER)), ttl=33, tos=0xBA)
    seen = encapsulated(site_wire, core_wire, sent)
    assert (seen.outer.source, seen.outer.destination) == (RLOC, PEER_RLOC)
    assert seen.outer.header_sum == 0
    assert seen.outer.fragment == 0x4000  # DF, RFC 9300 §7.2
    assert (seen.outer.ttl, seen.outer.tos) == (32, 0xBA)
    assert seen.udp_checksum == 0
    assert seen.udp_length == len(sent) + 16
    assert seen.source_port >= 49152
    assert (seen.flags, seen.second) == (0x80, 0)
    assert (seen.inner.ttl, seen.inner.tos, seen.inner.header_sum) == (32, 0xBA, 0)
    assert seen.inner.payload == sent[20:]


def test_source_port_is_the_flows(plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire) -> None:
    def port_of(source_port: int) -> int:
        return encapsulated(site_wire, core_wire, ipv4(EID, PEER, udp(source_port, 7, b"x"))).source_port

    ports = [port_of(n) for n in range(2000, 2016)]
    assert len(set(ports)) > 8
    assert port_of(2000) == ports[0]


def test_nonces_differ(plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire) -> None:
    packet = ipv4(EID, PEER, udp(1, 2, b"x"))
    assert len({encapsulated(site_wire, core_wire, packet).nonce for _ in range(4)}) == 4


def test_instance_id_and_locator_status_bits(open_plane: OpenPlane, site_wire: Wire, core_wire: Wire) -> None:
    """The bits are of the source's mapping (RFC 9300 §5.3), so only what has one here carries them."""
    plane = open_plane(1, instance_id=0xABCDEF, locator_status_bits=0x103)
    plane.set_entry(remote("192.168.2.0/24", PEER_RLOC))  # of instance 0: another table
    plane.set_entry(remote("192.168.2.0/24", "10.0.3.2", instance_id=0xABCDEF))
    seen = encapsulated(site_wire, core_wire, ipv4(EID, PEER, udp(1, 2, b"x")))
    assert (seen.outer.destination, seen.flags, seen.second) == ("10.0.3.2", 0x80 | 0x08, 0xABCDEF00)
    plane.set_entry(local("192.168.1.0/24", instance_id=0xABCDEF))
    seen = encapsulated(site_wire, core_wire, ipv4(EID, PEER, udp(1, 2, b"x")))
    assert seen.flags == 0x80 | 0x40 | 0x08
    assert seen.second == 0xABCDEF03


def test_map_versions(plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire) -> None:
    plane.set_entry(local("192.168.1.0/24", map_version=0x123))
    plane.set_entry(remote("192.168.2.0/24", PEER_RLOC, map_version=0xABC))
    seen = encapsulated(site_wire, core_wire, ipv4(EID, PEER, udp(1, 2, b"x")))
    assert seen.flags == 0x10
    assert seen.nonce == 0x123ABC  # source, destination (RFC 9302 §6)


def test_longest_prefix_wins(plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire) -> None:
    plane.set_entry(remote("192.168.0.0/16", "10.0.3.2"))
    plane.set_entry(remote("192.168.2.10/32", "10.0.3.3"))

    def rloc_of(destination: str) -> str:
        return encapsulated(site_wire, core_wire, ipv4(EID, destination, udp(1, 2, b"x"))).outer.destination

    assert [rloc_of(d) for d in ("192.168.2.10", "192.168.2.11", "192.168.9.9")] == [
        "10.0.3.3",
        PEER_RLOC,
        "10.0.3.2",
    ]
    plane.delete_entry(ip_network("192.168.2.10/32"))
    plane.delete_entry(ip_network("192.168.2.10/32"))
    assert rloc_of("192.168.2.10") == PEER_RLOC


def test_locators_by_priority_and_weight(plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire) -> None:
    locators = (
        Locator(ip_address("10.0.3.1"), priority=255, weight=100),
        Locator(ip_address("10.0.3.2"), priority=1, weight=75),
        Locator(ip_address("10.0.3.3"), priority=1, weight=25),
        Locator(ip_address("10.0.3.4"), priority=2, weight=100),
    )
    plane.set_entry(Entry(ip_network("192.168.2.0/24"), EntryKind.REMOTE, locators))
    taken = [
        encapsulated(site_wire, core_wire, ipv4(EID, PEER, udp(port, 7, b"x"))).outer.destination
        for port in range(3000, 3200)
    ]
    assert set(taken) == {"10.0.3.2", "10.0.3.3"}
    assert 120 <= taken.count("10.0.3.2") <= 180  # 150 ± 5 standard deviations of 6.1


def test_no_usable_locator_is_counted(plane: EbpfDataPlane, site_wire: Wire) -> None:
    unusable = (Locator(ip_address("10.0.3.1"), priority=255),)
    plane.set_entry(Entry(ip_network("192.168.2.0/24"), EntryKind.REMOTE, unusable))
    site_wire.send(ipv4(EID, PEER, udp(1, 2, b"x")))
    wait_until(lambda: plane.drops()["no-locator"] == 1)


@pytest.mark.parametrize(("outer_ttl", "inner_ttl", "expected"), [(60, 64, 59), (64, 60, 59), (255, 2, 1), (2, 255, 1)])
def test_ttl_at_decapsulation(
    plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire, outer_ttl: int, inner_ttl: int, expected: int
) -> None:
    """Outer to inner only when lower; then the ETR forwards, which takes one."""
    payload = f"ttl {outer_ttl} {inner_ttl}".encode()
    inner = ipv4(PEER, EID, udp(1, 9, payload), ttl=inner_ttl)
    seen = delivered(site_wire, core_wire, arriving(inner, ttl=outer_ttl), payload)
    assert (seen.ttl, seen.header_sum) == (expected, 0)


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        (NOT_ECT, NOT_ECT, NOT_ECT), (NOT_ECT, ECT_0, NOT_ECT), (NOT_ECT, ECT_1, NOT_ECT),
        (NOT_ECT, CE, None),
        (ECT_0, NOT_ECT, ECT_0), (ECT_0, ECT_0, ECT_0), (ECT_0, ECT_1, ECT_1), (ECT_0, CE, CE),
        (ECT_1, NOT_ECT, ECT_1), (ECT_1, ECT_0, ECT_1), (ECT_1, ECT_1, ECT_1), (ECT_1, CE, CE),
        (CE, NOT_ECT, CE), (CE, ECT_0, CE), (CE, ECT_1, CE), (CE, CE, CE),
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", [4, 6])
def test_ecn_at_decapsulation(
    plane: EbpfDataPlane,
    site_wire: Wire,
    core_wire: Wire,
    inner: int,
    outer: int,
    expected: int | None,
    version: int,
) -> None:
    """RFC 6040 figure 4; the DSCP is the outer's (RFC 9300 §5.3)."""
    plane.set_entry(local("fd0e:1::/64"))
    payload = f"ecn {inner} {outer} {version}".encode()
    ends = (PEER, EID) if version == 4 else (PEER6, EID6)
    make = ipv4 if version == 4 else ipv6
    packet = arriving(make(*ends, udp(1, 9, payload, ends), tos=0x28 | inner), tos=0xB8 | outer)
    if expected is None:
        core_wire.send(packet)
        wait_until(lambda: plane.drops()["ecn"] == 1)
    else:
        seen = delivered(site_wire, core_wire, packet, payload)
        assert (seen.tos, seen.header_sum) == (0xB8 | expected, 0)


@pytest.mark.parametrize("length", [1, 2, 511, 496, 512, 1400])
def test_right_udp_checksum_is_accepted(plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire, length: int) -> None:
    payload = bytes(n % 251 for n in range(length)) + b"end"
    packet = arriving(ipv4(PEER, EID, udp(1, 9, payload)), checksum=True)
    assert packet[26:28] != b"\0\0"
    assert delivered(site_wire, core_wire, packet, payload).payload[8:] == payload


@pytest.mark.parametrize("position", [28, 60, -1])
def test_wrong_udp_checksum_is_dropped(plane: EbpfDataPlane, core_wire: Wire, position: int) -> None:
    packet = bytearray(arriving(ipv4(PEER, EID, udp(1, 9, bytes(600))), checksum=True))
    packet[position] ^= 0x01
    core_wire.send(bytes(packet))
    wait_until(lambda: plane.drops()["udp-checksum"] == 1)


@pytest.mark.parametrize("flags", [0x00, 0x60, 0x90, 0xF4, 0xE4, 0x04])
def test_unknown_flag_combinations_are_accepted(
    plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire, flags: int
) -> None:
    payload = f"flags {flags:x}".encode()
    packet = arriving(ipv4(PEER, EID, udp(1, 9, payload)), flags=flags, second=0xFFFFFFFF)
    assert delivered(site_wire, core_wire, packet, payload).payload[8:] == payload


def test_instance_id_selects_the_table(plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire) -> None:
    inner = ipv4(PEER, EID, udp(1, 9, b"instance 7"))
    core_wire.send(arriving(inner, flags=0x88, second=7 << 8))
    wait_until(lambda: plane.drops()["no-local-eid"] == 1)
    plane.set_entry(local("192.168.1.0/24", instance_id=7))
    packet = arriving(inner, flags=0x88, second=7 << 8 | 0xFF)
    assert delivered(site_wire, core_wire, packet, b"instance 7").destination == EID


def bad_header_sum(packet: bytes) -> bytes:
    return packet[:10] + bytes([packet[10] ^ 1]) + packet[11:]


INNER = ipv4(PEER, EID, udp(1, 9, b"x" * 40))


@pytest.mark.parametrize(
    ("reason", "packet"),
    [
        ("truncated", ipv4(PEER_RLOC, RLOC, udp(5, 4341, b"1234567"))),
        ("encrypted", arriving(INNER, flags=0x81)),
        ("inner-malformed", arriving(b"")),
        ("inner-malformed", arriving(b"\x55" + INNER[1:])),
        ("inner-malformed", arriving(b"\x44" + INNER[1:])),
        ("inner-malformed", arriving(INNER[:-1])),
        ("inner-malformed", arriving(bad_header_sum(INNER))),
        ("inner-malformed", arriving(b"\x4f" + INNER[1:])),
        ("inner-malformed", arriving(ipv4(PEER, EID, b"", options=bytes([1] * 8))[:-1] + b"\0")),
        ("inner-malformed", arriving(ipv6(PEER6, EID6, b"x" * 20)[:-1])),
        ("inner-malformed", arriving(ipv6(PEER6, EID6, b"")[:39])),
        ("truncated", ipv4(PEER_RLOC, RLOC, udp(5, 4341, b""))),
        ("no-local-eid", arriving(ipv4(PEER, "192.168.2.9", b""))),
        ("no-local-eid", arriving(ipv4(PEER, "172.16.0.1", b""))),
        ("outer-fragment", ipv4(PEER_RLOC, RLOC, udp(5, 4341, lisp(INNER)), fragment=0x2000)),
    ],
)
def test_drops_are_counted_by_reason(plane: EbpfDataPlane, core_wire: Wire, reason: str, packet: bytes) -> None:
    core_wire.send(packet)
    wait_until(lambda: plane.drops()[reason] == 1)
    assert sum(plane.drops().values()) == 1


def test_options_in_the_inner_header(plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire) -> None:
    nops = bytes([1] * 8)
    sent = ipv4(EID, PEER, udp(1, 2, b"options"), options=nops)
    assert encapsulated(site_wire, core_wire, sent).inner.header_sum == 0
    seen = delivered(site_wire, core_wire, arriving(ipv4(PEER, EID, b"options", options=nops)), b"options")
    assert seen.header_sum == 0


def test_other_udp_and_others_rlocs_are_left_to_the_kernel(
    plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire
) -> None:
    """A datagram to 4342 is refused by the kernel's own port unreachable: the ETR did not take it."""
    core_wire.send(ipv4(PEER_RLOC, RLOC, udp(4342, 4342, lisp(INNER))))
    core_wire.expect(lambda f: f[12:14] == b"\x08\0" and f[23] == 1 and f[34:36] == b"\x03\x03")
    core_wire.send(ipv4(PEER_RLOC, "10.0.1.9", udp(4341, 4341, lisp(INNER))))
    probe = arriving(ipv4(PEER, EID, udp(1, 9, b"after")))
    delivered(site_wire, core_wire, probe, b"after")
    assert sum(plane.drops().values()) == 0


MIXES = [
    (eid, rloc)
    for eid in ((EID, PEER, "192.168.2.0/24"), (EID6, PEER6, "fd0e:2::/64"))
    for rloc in ((RLOC, PEER_RLOC), (RLOC6, PEER_RLOC6))
]


@pytest.mark.parametrize(("eids", "rlocs"), MIXES)
def test_families_at_encapsulation(
    open_plane: OpenPlane,
    site_wire: Wire,
    core_wire: Wire,
    eids: tuple[str, str, str],
    rlocs: tuple[str, str],
) -> None:
    plane = open_plane(1, rloc=ip_address(rlocs[0]))
    plane.set_entry(remote(eids[2], rlocs[1]))
    make = ipv4 if "." in eids[0] else ipv6
    datagram = udp(1111, 2222, b"mixed families", eids[:2])
    seen = encapsulated(site_wire, core_wire, make(*eids[:2], datagram, ttl=9, tos=0xB9))
    assert (seen.outer.source, seen.outer.destination) == rlocs
    assert (seen.outer.ttl, seen.outer.tos, seen.outer.header_sum) == (8, 0xB9, 0)
    assert seen.udp_checksum == 0
    assert seen.udp_length == len(seen.outer.payload)
    assert (seen.inner.source, seen.inner.destination) == eids[:2]
    assert (seen.inner.ttl, seen.inner.tos, seen.inner.header_sum) == (8, 0xB9, 0)
    assert seen.inner.payload == datagram


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize(("eids", "rlocs"), MIXES)
def test_families_at_decapsulation(
    open_plane: OpenPlane,
    site_wire: Wire,
    core_wire: Wire,
    eids: tuple[str, str, str],
    rlocs: tuple[str, str],
    checksum: bool,
) -> None:
    plane = open_plane(1, rloc=ip_address(rlocs[0]))
    plane.set_entry(local("192.168.1.0/24"))
    plane.set_entry(local("fd0e:1::/64"))
    ends = (eids[1], eids[0])
    inner = (ipv4 if "." in eids[0] else ipv6)(*ends, udp(1, 9, b"mixed", ends))
    outer = (rlocs[1], rlocs[0])
    data = udp(50000, 4341, lisp(inner), outer if checksum else None)
    packet = (ipv4 if "." in rlocs[0] else ipv6)(*outer, data, ttl=30, tos=0x20)
    seen = delivered(site_wire, core_wire, packet, b"mixed")
    assert (seen.source, seen.destination) == ends
    assert (seen.ttl, seen.tos, seen.header_sum) == (29, 0x20, 0)
    assert seen.whole[-13:] == inner[-13:]
    assert sum(plane.drops().values()) == 0


def test_expired_entries_are_resolved_again(plane: EbpfDataPlane, site_wire: Wire, core_wire: Wire) -> None:
    """The lifetime is absolute: use does not extend it (RFC 9300 §5, the first attempt's worst fault)."""
    expires_ns = time.monotonic_ns() + 300_000_000
    plane.set_entry(remote("192.168.2.0/24", PEER_RLOC, expires_ns=expires_ns))
    packet = ipv4(EID, PEER, udp(1, 2, b"x"))
    missed: list[bytes] = []

    def send_until_missed() -> bool:
        site_wire.send(packet)
        found = plane.read_missed()
        if found is not None:
            missed.append(found)
        return bool(missed)

    encapsulated(site_wire, core_wire, packet)
    wait_until(send_until_missed)
    assert time.monotonic_ns() >= expires_ns
    assert missed[0] == packet


def test_expired_local_entry_is_not_local(plane: EbpfDataPlane, core_wire: Wire) -> None:
    plane.set_entry(local("192.168.1.0/24", expires_ns=1))
    core_wire.send(arriving(INNER))
    wait_until(lambda: plane.drops()["no-local-eid"] == 1)
