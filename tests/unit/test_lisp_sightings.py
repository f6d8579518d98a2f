"""Frames from which a moved host is recognised, as (hex, what they show) tables."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from testbed.lisp.sightings import (
    Sighting,
    SightingKind,
    arp_reply,
    arp_request,
    mac_octets,
    neighbour_advertisement,
    neighbour_solicitation,
    read_frame,
)

GUEST = "00:16:3e:00:00:0a"
ETHERNET = "ffffffffffff00163e00000a"


def arp(ethertype: str, operation: int, sender: str, target: str) -> bytes:
    return bytes.fromhex(
        ETHERNET
        + ethertype
        + "0001080006040000"[:-4]
        + f"{operation:04x}"
        + "00163e00000a"
        + IPv4Address(sender).packed.hex()
        + "000000000000"
        + IPv4Address(target).packed.hex()
    )


ARP_FRAMES = [
    ("0806", 1, "192.168.0.10", "192.168.0.10", SightingKind.GRATUITOUS_ARP, None),
    ("0806", 2, "192.168.0.10", "192.168.0.10", SightingKind.GRATUITOUS_ARP, None),
    ("0806", 1, "192.168.0.10", "192.168.0.1", SightingKind.ARP_REQUEST, "192.168.0.1"),
    ("0806", 2, "192.168.0.10", "192.168.0.1", SightingKind.ARP_REPLY, None),
]


@pytest.mark.parametrize(("ethertype", "operation", "sender", "target", "kind", "asked"), ARP_FRAMES)
def test_arp_shows_its_sender(
    ethertype: str, operation: int, sender: str, target: str, kind: SightingKind, asked: str | None
) -> None:
    assert read_frame(arp(ethertype, operation, sender, target)) == Sighting(
        kind, GUEST, ip_address(sender), ip_address(asked) if asked else None
    )


def test_rarp_shows_a_mac_only() -> None:
    assert read_frame(arp("8035", 3, "0.0.0.0", "0.0.0.0")) == Sighting(SightingKind.RARP, GUEST)


@pytest.mark.parametrize(
    "frame",
    [
        arp("0806", 1, "0.0.0.0", "192.168.0.10"),  # RFC 5227 probe
        arp("0806", 9, "192.168.0.10", "192.168.0.1"),
        arp("0806", 1, "192.168.0.10", "192.168.0.1")[:30],
        b"\x00" * 10,
        bytes.fromhex(ETHERNET + "0800") + b"\x45" * 40,
    ],
    ids=["probe", "unknown operation", "torn", "runt", "IPv4"],
)
def test_what_shows_nobody(frame: bytes) -> None:
    assert read_frame(frame) is None


def test_arp_reply_reads_back_as_one() -> None:
    frame = arp_reply(
        mac=GUEST,
        address=IPv4Address("192.168.0.10"),
        to_mac="02:00:00:00:00:01",
        to_address=IPv4Address("192.168.0.20"),
    )
    assert frame[:6] == mac_octets("02:00:00:00:00:01")
    assert read_frame(frame) == Sighting(SightingKind.ARP_REPLY, GUEST, IPv4Address("192.168.0.10"))


def test_neighbour_advertisement_reads_back_as_one_and_its_checksum_is_right() -> None:
    address, asker = IPv6Address("2001:db8::10"), IPv6Address("fe80::1")
    frame = neighbour_advertisement(mac=GUEST, address=address, to_mac="02:00:00:00:00:01", to_address=asker)
    assert read_frame(frame) == Sighting(SightingKind.NEIGHBOUR_ADVERTISEMENT, GUEST, address)
    body = frame[54:]
    pseudo = address.packed + asker.packed + len(body).to_bytes(4, "big") + (58).to_bytes(4, "big")
    words = [int.from_bytes((pseudo + body)[i : i + 2], "big") for i in range(0, len(pseudo + body), 2)]
    total = sum(words)
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF


def test_what_a_proxy_answers_does_not_override_the_host_itself_and_news_does() -> None:
    """RFC 4861 §7.2.8."""
    address = IPv6Address("2001:db8::10")
    ends = {"mac": GUEST, "address": address, "to_mac": "02:00:00:00:00:01", "to_address": IPv6Address("fe80::1")}
    flags = [neighbour_advertisement(**ends, solicited=solicited)[58] for solicited in (True, False)]  # type: ignore[arg-type]
    assert flags == [0x40, 0x20]


def test_questions_to_one_host_and_to_whoever_it_is() -> None:
    """RFC 4291 §2.7.1, RFC 2464 §7: IPv6 asks a multicast group of three octets of the address."""
    ours, theirs = IPv4Address("192.168.0.1"), IPv4Address("192.168.0.10")
    for to_mac, mac in ((GUEST, mac_octets(GUEST)), (None, b"\xff" * 6)):
        frame = arp_request(mac="00:00:5e:00:01:01", address=ours, to_mac=to_mac, asked=theirs)
        assert frame[:6] == mac
        assert read_frame(frame) == Sighting(SightingKind.ARP_REQUEST, "00:00:5e:00:01:01", ours, theirs)
    ours6, theirs6 = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::12:3456")
    for to_mac, mac, target in (
        (GUEST, mac_octets(GUEST), theirs6),
        (None, bytes.fromhex("3333ff123456"), IPv6Address("ff02::1:ff12:3456")),
    ):
        frame = neighbour_solicitation(mac="00:00:5e:00:01:01", address=ours6, to_mac=to_mac, asked=theirs6)
        assert (frame[:6], frame[38:54]) == (mac, target.packed)
        seen = Sighting(SightingKind.NEIGHBOUR_SOLICITATION, "00:00:5e:00:01:01", ours6, theirs6)
        assert read_frame(frame) == seen


def test_solicitation_shows_its_source_unless_it_checks_for_duplicates() -> None:
    def solicitation(source: str, option: str) -> bytes:
        body = bytes.fromhex("87000000" + "00000000") + IPv6Address("2001:db8::1").packed + bytes.fromhex(option)
        header = bytes.fromhex("60000000") + len(body).to_bytes(2, "big") + b"\x3a\xff"
        header += IPv6Address(source).packed + IPv6Address("ff02::1:ff00:1").packed
        return bytes.fromhex("3333ff00000100163e00000a86dd") + header + body

    assert read_frame(solicitation("2001:db8::10", "010100163e00000a")) == Sighting(
        SightingKind.NEIGHBOUR_SOLICITATION, GUEST, IPv6Address("2001:db8::10"), IPv6Address("2001:db8::1")
    )
    assert read_frame(solicitation("::", "")) is None
