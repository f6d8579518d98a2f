"""What is believed of what routers say about packets that were too big (RFC 9300 §7.2)."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from testbed.dataplane.icmp import too_big
from testbed.dataplane.pathmtu import AGE_OUT_S, PathMtus, TooBig, read_too_big
from tests.netns.packets import ipv4, ipv6, lisp, udp

RLOC, PEER, ROUTER = "10.0.1.2", "10.0.2.2", IPv4Address("10.0.1.1")
RLOC6, PEER6, ROUTER6 = "fd00:1::2", "fd00:2::2", IPv6Address("fd00:1::1")
DATA = udp(0xC001, 4341, lisp(ipv4("192.168.1.10", "192.168.2.10", bytes(1400))))
SENT = ipv4(RLOC, PEER, DATA, fragment=0x4000)
SENT6 = ipv6(RLOC6, PEER6, DATA)


def test_both_families_are_read() -> None:
    assert read_too_big(too_big(SENT, ROUTER, 1300)) == TooBig(ip_address(PEER), len(SENT), 1300)
    assert read_too_big(too_big(SENT6, ROUTER6, 1300)) == TooBig(ip_address(PEER6), len(SENT6), 1300)


def test_the_least_that_a_router_quotes_is_enough() -> None:
    """RFC 792: the IP header and eight octets."""
    assert read_too_big(too_big(SENT[:28], ROUTER, 1300)) == TooBig(ip_address(PEER), len(SENT), 1300)


@pytest.mark.parametrize(("payload", "plateau"), [(bytes(1400), 1006), (bytes(1492), 1492), (b"", 68)])
def test_rfc1191_a_router_that_does_not_say_the_mtu(payload: bytes, plateau: int) -> None:
    said = read_too_big(too_big(ipv4(RLOC, PEER, udp(0xC001, 4341, payload), fragment=0x4000), ROUTER, 0))
    assert said is not None
    assert said.mtu == plateau


def changed(message: bytes, position: int) -> bytes:
    return message[:position] + bytes([message[position] ^ 0x10]) + message[position + 1 :]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        too_big(SENT, ROUTER, 1300)[:30],
        changed(too_big(SENT, ROUTER, 1300), 27),  # the ICMP checksum is wrong then
        changed(too_big(SENT6, ROUTER6, 1300), 47),
        too_big(ipv4("10.0.9.9", PEER, DATA), ROUTER, 1300)[:16] + ip_address(RLOC).packed,  # torn
        too_big(ipv4(RLOC, PEER, udp(0xC001, 4342, b"x" * 1400)), ROUTER, 1300),
        too_big(ipv4(RLOC, PEER, udp(4341, 4341, b"x" * 1400)), ROUTER, 1300),  # no port that we send from
        too_big(ipv4(RLOC, PEER, DATA, protocol=6), ROUTER, 1300),
        too_big(ipv4(RLOC, PEER, DATA, fragment=9), ROUTER, 1300),
        ipv4(str(ROUTER), RLOC, struct.pack("!BBHI", 3, 3, 0, 1300) + SENT[:28], protocol=1),
    ],
)
def test_anything_else_says_nothing(message: bytes) -> None:
    assert read_too_big(message) is None


def test_a_quoted_packet_of_somebody_else_says_nothing() -> None:
    said = bytearray(too_big(ipv4("10.0.9.9", PEER, DATA), ROUTER, 1300))
    said[16:20] = ip_address(RLOC).packed
    said[10:12] = bytes(2)
    header = ipv4(str(ROUTER), RLOC, b"", protocol=1)
    said[10:12] = header[10:12]
    assert read_too_big(bytes(said)) is None


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def said(mtu: int, rloc: str = PEER, length: int = 1500) -> TooBig:
    return TooBig(ip_address(rloc), length, mtu)


def test_a_path_is_made_narrower_only() -> None:
    paths = PathMtus(1500, Clock())
    assert paths.of(ip_address(PEER)) == 1500
    assert paths.learn(said(1400))
    assert not paths.learn(said(1450))
    assert not paths.learn(said(1400))
    assert paths.learn(said(1300))
    assert paths.of(ip_address(PEER)) == 1300
    assert paths.of(ip_address(PEER6)) == 1500


@pytest.mark.parametrize(
    ("message", "plausible"),
    [
        (said(1499), True),
        (said(1500), False),  # it would have fitted
        (said(68), True),
        (said(67), False),  # RFC 1191 §3
        (said(1280, PEER6), True),
        (said(1279, PEER6), False),  # RFC 8201 §4
    ],
)
def test_what_is_plausible(message: TooBig, plausible: bool) -> None:
    assert PathMtus(1500, Clock()).is_plausible(message) is plausible


def test_rfc1191_what_was_learnt_is_forgotten_after_ten_minutes() -> None:
    clock = Clock()
    paths = PathMtus(1500, clock)
    paths.learn(said(1300))
    clock.now_s += AGE_OUT_S - 1
    paths.learn(said(1300, PEER6))
    assert paths.age_out() == frozenset()
    assert paths.narrow() == {ip_address(PEER): (1300, AGE_OUT_S - 1), ip_address(PEER6): (1300, 0.0)}
    clock.now_s += 1
    assert paths.age_out() == {ip_address(PEER)}
    assert paths.of(ip_address(PEER)) == 1500
    assert paths.of(ip_address(PEER6)) == 1300
