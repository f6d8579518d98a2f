"""What a router makes of a packet that it cannot forward."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, ip_address

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.dataplane import icmp
from tests.netns.packets import checksum, ipv4, ipv6, udp

ROUTER = IPv4Address("192.168.1.1")
HERE, THERE = "192.168.1.10", "192.168.2.10"


@given(st.binary(max_size=4000), st.integers(68, 1500), st.sampled_from([b"", b"\x01" * 4]))
def test_fragments_are_the_packet(payload: bytes, mtu: int, options: bytes) -> None:
    pieces = icmp.fragments(ipv4(HERE, THERE, payload, options=options), mtu)
    whole = bytearray()
    for number, piece in enumerate(pieces):
        header = (piece[0] & 15) * 4
        total, flags = struct.unpack_from("!HxxH", piece, 2)
        assert len(piece) == total <= mtu
        assert checksum(piece[:header]) == 0
        assert (flags & 0x1FFF) * 8 == len(whole)
        assert bool(flags & 0x2000) == (number < len(pieces) - 1)
        whole += piece[header:]
    assert bytes(whole) == payload


def test_a_fragment_is_fragmented_where_it_stands() -> None:
    pieces = icmp.fragments(ipv4(HERE, THERE, bytes(64), fragment=0x2000 | 5), 52)
    assert [struct.unpack_from("!H", piece, 6)[0] for piece in pieces] == [0x2000 | 5, 0x2000 | 9]


def test_only_copied_options_are_repeated() -> None:
    router_alert, record_route = bytes([148, 4, 0, 0]), bytes([7, 7, 4, 0, 0, 0, 0, 0])
    first, second = icmp.fragments(ipv4(HERE, THERE, bytes(64), options=router_alert + record_route), 72)
    assert first[20:32] == router_alert + record_route
    assert (second[0] & 15, second[20:24]) == (6, router_alert)


@pytest.mark.parametrize(("fragment", "mtu"), [(0x4000, 1000), (0, 27)])
def test_what_cannot_be_fragmented(fragment: int, mtu: int) -> None:
    with pytest.raises(ValueError, match=r"fragmented|payload"):
        icmp.fragments(ipv4(HERE, THERE, bytes(2000), fragment=fragment), mtu)


def test_errors_read_by_another_decoder() -> None:
    packet = ipv4(HERE, THERE, udp(5, 6, bytes(1480)), tos=0xB8)
    error = dpkt.ip.IP(icmp.too_big(packet, ROUTER, 1464))
    assert (error.src, error.dst, error.p) == (ROUTER.packed, ip_address(HERE).packed, 1)
    assert (error.data.type, error.data.code, error.data.data.mtu) == (3, 4, 1464)
    assert len(bytes(error)) == 576
    assert checksum(bytes(error.data)) == 0
    exceeded = dpkt.ip.IP(icmp.time_exceeded(packet, ROUTER))
    assert (exceeded.data.type, exceeded.data.code) == (11, 0)
    six = dpkt.ip6.IP6(icmp.too_big(ipv6("fd00::1", "fd00::2", bytes(1460), protocol=17), ip_address("fd00::ff"), 1444))
    assert (six.data.type, six.data.code) == (2, 0)
    assert bytes(six.data)[4:8] == struct.pack("!I", 1444)


@pytest.mark.parametrize(
    ("packet", "allowed"),
    [
        (ipv4(HERE, THERE, udp(1, 2, b"")), True),
        (ipv4(HERE, THERE, b"\x08" + bytes(7), protocol=1), True),
        (ipv4(HERE, THERE, b"\x03" + bytes(7), protocol=1), False),  # no error about an error
        (ipv4(HERE, THERE, b"", protocol=1), False),
        (ipv4(HERE, THERE, udp(1, 2, b""), fragment=3), False),  # not the first fragment
        (ipv4("0.0.0.0", THERE, b""), False),
        (ipv4("224.0.0.5", THERE, b""), False),
        (ipv4("127.0.0.1", THERE, b""), False),
        (ipv6("fd00::1", "fd00::2", b"\x80" + bytes(7), protocol=58), True),
        (ipv6("fd00::1", "fd00::2", b"\x01" + bytes(7), protocol=58), False),
        (ipv6("::", "fd00::2", b"\x80" + bytes(7), protocol=58), False),
    ],
)
def test_who_may_be_answered(packet: bytes, allowed: bool) -> None:
    assert icmp.may_be_answered(packet) is allowed
