"""IP, UDP and ICMP headers: known packets, and dpkt as the other opinion."""

from __future__ import annotations

import warnings
from ipaddress import IPv4Address, IPv6Address, ip_address

import dpkt
import pytest

from testbed.lisp.wire import Reader, WireError
from testbed.lisp.wire.inet import (
    PROTOCOL_UDP,
    build_icmp_echo,
    build_ip,
    build_too_big,
    build_udp,
    build_udp_packet,
    checksum,
    parse_ip,
    parse_udp,
    pseudo_header,
)
from tests.vectors.tables import octets

PAIRS = [
    (IPv4Address("10.0.3.2"), IPv4Address("192.168.0.10")),
    (IPv6Address("2001:db8:3::2"), IPv6Address("2001:db8:e::10")),
]


def dpkt_of(packet: bytes) -> dpkt.ip.IP | dpkt.ip6.IP6:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dpkt.ip.IP(packet) if packet[0] >> 4 == 4 else dpkt.ip6.IP6(packet)


def test_checksum_of_rfc_1071() -> None:
    """The example of RFC 1071 §3: the sum is ddf2."""
    assert checksum(octets("0001 f203 f4f5 f6f7")) == 0xFFFF - 0xDDF2
    assert checksum(b"\x01") == 0xFFFF - 0x0100  # an odd octet is padded on the right
    assert checksum(b"") == 0xFFFF


@pytest.mark.parametrize(("source", "destination"), PAIRS)
@pytest.mark.parametrize("payload", [b"", b"\1", b"lisp", bytes(1400)])
def test_udp_packet(source: IPv4Address, destination: IPv4Address, payload: bytes) -> None:
    packet = build_udp_packet(source, destination, 4000, 4342, payload, hop_limit=9)
    theirs = dpkt_of(packet)
    assert (ip_address(theirs.src), ip_address(theirs.dst)) == (source, destination)
    assert (theirs.data.sport, theirs.data.dport, theirs.data.data) == (4000, 4342, payload)
    pseudo = pseudo_header(source, destination, PROTOCOL_UDP, 8 + len(payload))
    assert dpkt.in_cksum(pseudo + bytes(theirs.data)) == 0
    ours = parse_ip(Reader(packet))
    assert (ours.source, ours.destination, ours.hop_limit, ours.fragmented) == (source, destination, 9, False)
    udp = parse_udp(ours)
    assert (udp.source_port, udp.destination_port, udp.payload) == (4000, 4342, payload)
    assert udp.checksum_ok is True


def test_a_sum_of_zero_is_sent_as_ones() -> None:
    source, destination = PAIRS[0]
    for value in range(0x10000):
        payload = value.to_bytes(2, "big")
        datagram = build_udp(source, destination, 4000, 4342, payload)
        if datagram[6:8] == b"\xff\xff":
            break
    else:
        pytest.fail("no payload sums to zero")
    assert parse_udp(parse_ip(Reader(build_ip(source, destination, 17, datagram)))).checksum_ok is True


@pytest.mark.parametrize(("source", "destination"), PAIRS)
def test_udp_checksum_verdicts(source: IPv4Address, destination: IPv4Address) -> None:
    without = build_udp_packet(source, destination, 1, 2, b"lisp", with_checksum=False)
    assert parse_udp(parse_ip(Reader(without))).checksum_ok is None
    wrong = bytearray(build_udp_packet(source, destination, 1, 2, b"lisp"))
    wrong[-1] ^= 1
    assert parse_udp(parse_ip(Reader(bytes(wrong)))).checksum_ok is False
    cut = parse_ip(Reader(bytes(wrong[:-2])), allow_missing=True)
    assert cut.missing == 2
    assert parse_udp(cut).checksum_ok is None
    assert parse_udp(cut).payload == b"li"
    with pytest.raises(WireError, match="payload"):
        parse_ip(Reader(bytes(wrong[:-2])))


@pytest.mark.parametrize("reply", [False, True])
@pytest.mark.parametrize(("source", "destination"), PAIRS)
def test_echo(source: IPv4Address, destination: IPv4Address, reply: bool) -> None:
    packet = build_icmp_echo(source, destination, 77, 65535, b"when", reply=reply)
    theirs = dpkt_of(packet)
    if source.version == 4:
        assert theirs.icmp.type == (0 if reply else 8)
        assert dpkt.in_cksum(bytes(theirs.icmp)) == 0
        echo = theirs.icmp.data
    else:
        assert theirs.icmp6.type == (129 if reply else 128)
        assert dpkt.in_cksum(pseudo_header(source, destination, 58, 12) + packet[40:]) == 0
        echo = theirs.icmp6.data
    assert (echo.id, echo.seq, bytes(echo.data)) == (77, 65535, b"when")


def test_too_big_ipv4() -> None:
    packet = build_udp_packet(*PAIRS[0], 1, 2, bytes(1472))
    error = build_too_big(IPv4Address("10.0.3.1"), packet, 1464)
    assert len(error) == 576
    theirs = dpkt_of(error)
    assert ip_address(theirs.dst) == PAIRS[0][0]
    assert (theirs.icmp.type, theirs.icmp.code, theirs.icmp.data.mtu) == (3, 4, 1464)
    assert dpkt.in_cksum(bytes(theirs.icmp)) == 0
    assert error[28:] == packet[: 576 - 28]


def test_too_big_ipv6() -> None:
    packet = build_udp_packet(*PAIRS[1], 1, 2, bytes(1452))
    error = build_too_big(IPv6Address("2001:db8:3::1"), packet, 1444)
    assert len(error) == 1280
    assert error[40:48].hex(" ", 1)[:5] == "02 00"
    assert int.from_bytes(error[44:48], "big") == 1444
    assert dpkt.in_cksum(pseudo_header(IPv6Address("2001:db8:3::1"), PAIRS[1][0], 58, 1240) + error[40:]) == 0
    assert error[48:] == packet[: 1280 - 48]


def test_too_big_quotes_a_short_packet_whole() -> None:
    packet = build_udp_packet(*PAIRS[0], 1, 2, b"short")
    assert build_too_big(IPv4Address("10.0.3.1"), packet, 68)[28:] == packet


def test_ipv4_options_and_fragments() -> None:
    header = octets("4600 0020 0001 2003 40 11 0000 0a000302 c0a8000a 01010101")
    summed = header[:10] + checksum(header).to_bytes(2, "big") + header[12:]
    packet = parse_ip(Reader(summed + b"eightoct" + b"padding of Ethernet"))
    assert packet.payload == b"eightoct"
    assert (packet.fragment_offset, packet.more_fragments, packet.fragmented) == (24, True, True)


def test_ipv6_extension_headers() -> None:
    addresses = PAIRS[1][0].packed + PAIRS[1][1].packed
    hop_by_hop, destination_options = octets("3c 01") + bytes(14), octets("11 00") + bytes(6)
    rest = hop_by_hop + destination_options + b"datagram"
    packet = parse_ip(Reader(octets("60000000") + len(rest).to_bytes(2, "big") + b"\0\x40" + addresses + rest))
    assert (packet.protocol, packet.payload, packet.fragmented) == (17, b"datagram", False)
    fragment = octets("11 00 0019 0000abcd")
    middle = octets("60000000 0010 2c 40") + addresses + fragment + b"datagram"
    packet = parse_ip(Reader(middle))
    assert (packet.fragment_offset, packet.more_fragments, packet.payload) == (24, True, b"datagram")


def test_ipv6_extension_header_beyond_the_payload() -> None:
    data = octets("60000000 0008 00 40") + bytes(32) + octets("11 01") + bytes(14)
    with pytest.raises(WireError, match="longer than the payload's 8 octets"):
        parse_ip(Reader(data))


@pytest.mark.parametrize(("source", "destination"), PAIRS)
def test_traffic_class_and_hop_limit(source: IPv4Address, destination: IPv4Address) -> None:
    packet = parse_ip(Reader(build_ip(source, destination, 17, b"", hop_limit=1, traffic_class=0xB9)))
    assert (packet.traffic_class, packet.hop_limit) == (0xB9, 1)
    assert parse_ip(Reader(build_ip(source, destination, 17, b""))).hop_limit == 64
    for field in ("hop_limit", "traffic_class"):
        with pytest.raises(ValueError, match=f"{field} = 256 does not fit in 8 bits"):
            build_ip(source, destination, 17, b"", **{field: 256})


def test_families_do_not_mix() -> None:
    with pytest.raises(ValueError, match="different families"):
        build_ip(PAIRS[0][0], PAIRS[1][0], 17, b"")
    with pytest.raises(ValueError, match="different families"):
        build_too_big(PAIRS[1][0], build_udp_packet(*PAIRS[0], 1, 2, b""), 1280)


def test_too_long_for_a_packet() -> None:
    with pytest.raises(ValueError, match="UDP length"):
        build_udp_packet(*PAIRS[0], 1, 2, bytes(65528))
    with pytest.raises(ValueError, match="payload length = 65536"):
        build_ip(*PAIRS[1], 17, bytes(65536))
    with pytest.raises(ValueError, match="total length"):
        build_ip(*PAIRS[0], 17, bytes(65516))
