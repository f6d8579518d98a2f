"""Which octets of a frame on the slow path are an IP packet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.dataplane.slowpath import packet_in
from tests.netns.packets import ipv4, ipv6

V4 = ipv4("192.168.1.10", "192.168.2.10", b"payload")
V6 = ipv6("fd0e:1::10", "fd0e:2::10", b"payload")
MACS = bytes(12)
IPV4, IPV6 = b"\x08\0", b"\x86\xdd"


@pytest.mark.parametrize(("kind", "packet"), [(IPV4, V4), (IPV6, V6)])
def test_the_header_says_where_it_ends(kind: bytes, packet: bytes) -> None:
    assert packet_in(MACS + kind + packet) == packet
    assert packet_in(MACS + kind + packet + b"padding") == packet


@pytest.mark.parametrize(
    "frame",
    [
        IPV4 + V4[:-1],
        IPV6 + V6[:-1],
        IPV6 + V4,
        IPV4 + V6,
        b"\x81\0" + b"\0\x05" + IPV4 + V4,
        IPV4 + b"\x44" + V4[1:],  # a header of 16 octets
        IPV4 + V4[:2] + b"\0\x13" + V4[4:],  # shorter than its header
        IPV4 + b"\x4f" + V4[1:],  # options beyond its end
        IPV4,
        b"",
    ],
)
def test_what_is_no_whole_packet(frame: bytes) -> None:
    assert packet_in(MACS + frame) is None


@given(st.binary(max_size=120), st.sampled_from([IPV4, IPV6]))
def test_of_any_frame(packet: bytes, kind: bytes) -> None:
    found = packet_in(MACS + kind + packet)
    assert found is None or packet.startswith(found)
