"""LISP packets in frames: link layers, tags, fragments, what is malformed and where."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from testbed.decode import Frame, LispPacket, lisp_packet, lisp_packets, render
from testbed.lisp.wire import DataHeader, EncapsulatedControl, Message
from testbed.lisp.wire.inet import (
    build_icmp_echo,
    build_ip,
    build_too_big,
    build_udp,
    build_udp_packet,
    checksum,
)
from tests.captures import ITR, MAP_SERVER, WALL_NS, control, ethernet, pcap
from tests.vectors.tables import MESSAGES, RLOC_A, RLOC_C, octets

REQUEST = octets(MESSAGES[0][2])
GUEST, PEER = IPv4Address("192.168.0.10"), IPv4Address("192.168.3.10")


def decoded(data: bytes, link_type: int = 1) -> LispPacket | None:
    return lisp_packet(Frame(7, WALL_NS, data, link_type, "xtr-c-eth0", len(data)))


def found(data: bytes, link_type: int = 1) -> LispPacket:
    packet = decoded(data, link_type)
    assert packet is not None
    json.dumps(packet.to_json())
    return packet


@pytest.mark.parametrize(
    ("link_type", "header"),
    [
        (1, bytes(12) + b"\x08\x00"),
        (1, bytes(12) + octets("8100 0064 0800")),
        (1, bytes(12) + octets("88a8 0001 8100 0064 0800")),
        (0, octets("02000000")),
        (108, octets("00000002")),
        (101, b""),
        (12, b""),
        (228, b""),
        (113, bytes(14) + b"\x08\x00"),
        (276, b"\x08\x00" + bytes(18)),
    ],
)
def test_link_layers(link_type: int, header: bytes) -> None:
    packet = found(header + control(REQUEST), link_type)
    assert packet.message["records"] == [{"eid_prefix": "192.168.0.10/32", "instance_id": 0, "flags": []}]
    assert (packet.frame, packet.wall_ns, packet.interface) == (7, WALL_NS, "xtr-c-eth0")
    assert (packet.plane, packet.malformed, packet.notes) == ("control", None, ())


@pytest.mark.parametrize(
    ("data", "link_type"),
    [
        (b"", 1),
        (bytes(60), 1),
        (bytes(12) + octets("8100 0064"), 1),  # a tag, and the end
        (ethernet(control(REQUEST)), 105),  # a link type that is not known
        (ethernet(build_udp_packet(ITR, MAP_SERVER, 4000, 53, REQUEST)), 1),
        (ethernet(build_udp_packet(ITR, MAP_SERVER, 4341, 53, REQUEST)), 1),
        (ethernet(build_ip(ITR, MAP_SERVER, 6, build_udp(ITR, MAP_SERVER, 4000, 4342, REQUEST))), 1),
        (ethernet(control(REQUEST))[:40], 1),  # half a UDP header
    ],
)
def test_what_is_no_lisp(data: bytes, link_type: int) -> None:
    assert decoded(data, link_type) is None


def test_either_port_makes_it_control() -> None:
    """NATs change ports (RFC 9301 §5)."""
    packet = found(ethernet(control(REQUEST, source_port=4342, destination_port=9)))
    assert (packet.source, packet.source_port, packet.destination_port) == ("10.0.3.2", 4342, 9)


def test_rfc9300_5_3_a_data_packet_may_come_from_any_port() -> None:
    packet = found(ethernet(build_udp_packet(ITR, MAP_SERVER, 4342, 4341, octets("0800000000000000"))))
    assert packet.plane == "data"


def test_a_torn_encapsulated_control_message_has_the_name_of_a_whole_one() -> None:
    packet = found(ethernet(control(octets("80000000"))))
    assert packet.malformed is not None
    assert packet.message["type"] == "Encapsulated-Control-Message"


@pytest.mark.parametrize(("name", "message", "text"), MESSAGES, ids=[entry[0] for entry in MESSAGES])
def test_every_message_becomes_json_and_text(name: str, message: Message, text: str) -> None:
    packet = found(ethernet(control(octets(text))))
    # f00d and f0, the payloads of the ECM vectors, are messages of type 15.
    assert packet.malformed is None
    kind = {"a message of a type that is not read": "Shared-Extension"}.get(
        name, name.split(",")[0].replace("encapsulated control", "encapsulated-control-message").title()
    )
    assert packet.message["type"] == kind
    lines = render(packet).splitlines()
    assert lines[0].startswith(f"7 2026-11-22T09:15:00.123456789Z xtr-c-eth0 10.0.3.2:4000 > 10.0.0.2:4342 {kind}")
    assert all(line.startswith("    ") for line in lines[1:])


def test_map_request_fields() -> None:
    packet = found(ethernet(control(octets(MESSAGES[1][2]))))
    assert packet.message == {
        "type": "Map-Request",
        "flags": list("AMPSpsILD"),
        "nonce": "0x0000000000000001",
        "source_eid": None,
        "itr_rlocs": ["10.0.3.2", "2001:db8:2::2"],
        "records": [
            {"eid_prefix": "192.168.0.10/32", "instance_id": 0, "flags": []},
            {"eid_prefix": "2001:db8:e::10/128", "instance_id": 0, "flags": ["N"]},
        ],
        "map_reply_record": {
            "eid_prefix": "192.168.0.10/32",
            "instance_id": 0,
            "record_ttl_minutes": 1440,
            "act": "No-Action",
            "flags": ["A"],
            "map_version_number": 5,
            "locators": [
                {
                    "locator": "10.0.2.2",
                    "priority": 1,
                    "weight": 100,
                    "m_priority": 255,
                    "m_weight": 0,
                    "flags": ["R"],
                }
            ],
        },
        "xtr_id": "0x000102030405060708090a0b0c0d0e0f",
        "site_id": "0x1011121314151617",
    }


def test_encapsulated_control_is_unwrapped() -> None:
    message = EncapsulatedControl(RLOC_C, GUEST, 4000, REQUEST)
    packet = found(ethernet(control(message.encode())))
    assert packet.message["inner_destination"] == "192.168.0.10"
    assert packet.message["inner"]["itr_rlocs"] == ["10.0.3.2"]
    assert "(Map-Request nonce 0x0102030405060708 192.168.0.10/32)" in render(packet)


def test_malformed_inside_an_encapsulation_counts_from_the_outer_message() -> None:
    message = EncapsulatedControl(RLOC_C, GUEST, 4000, REQUEST[:20])
    packet = found(ethernet(control(message.encode())))
    assert packet.malformed is not None
    assert packet.malformed.byte == 4 + 20 + 8 + 20
    assert packet.malformed.field == "encapsulated_control.map_request.itr_rlocs[0].address"
    assert packet.message["inner"] == {"type": "Map-Request"}


def test_an_inner_checksum_of_zero_is_told_and_the_message_shown() -> None:
    inner = build_udp_packet(RLOC_C, GUEST, 4000, 4342, REQUEST, with_checksum=False)
    packet = found(ethernet(control(octets("80000000") + inner)))
    assert str(packet.malformed) == ("MALFORMED at byte 30: encapsulated_control.inner.udp.checksum: must not be zero")
    assert packet.message["inner"]["itr_rlocs"] == ["10.0.3.2"]


def test_encapsulations_in_one_another_end() -> None:
    data = REQUEST
    for _ in range(40):
        data = EncapsulatedControl(RLOC_C, GUEST, 4000, data).encode()
    packet = found(ethernet(control(data)))
    assert packet.malformed is not None
    assert packet.malformed.why == "more than 4 in one another"


def test_malformed() -> None:
    packet = found(ethernet(control(REQUEST + b"!")))
    assert str(packet.malformed) == "MALFORMED at byte 32: map_request: 1 octet too many"
    assert packet.message == {"type": "Map-Request"}
    assert packet.to_json()["malformed"] == {"byte": 32, "field": "map_request", "why": "1 octet too many"}
    assert render(packet).endswith("\n    MALFORMED at byte 32: map_request: 1 octet too many")


def test_empty_datagram() -> None:
    packet = found(ethernet(control(b"")))
    assert str(packet.malformed) == "MALFORMED at byte 0: header: no octets"


def test_snapped_frame() -> None:
    packet = found(ethernet(control(REQUEST))[:-6])
    assert str(packet.malformed).startswith("MALFORMED at byte 26: map_request.requests[0].eid.afi")
    assert packet.notes == ("6 octets not captured",)


def test_ethernet_padding_is_no_trailer() -> None:
    assert found(ethernet(control(REQUEST)) + bytes(18)).malformed is None


def test_first_fragment_is_read_and_the_others_are_not() -> None:
    datagram = build_udp(ITR, MAP_SERVER, 4000, 4342, REQUEST)
    whole = bytearray(build_ip(ITR, MAP_SERVER, 17, datagram[:24], dont_fragment=False))
    whole[6:8] = struct.pack("!H", 0x2000)
    whole[10:12] = b"\0\0"
    whole[10:12] = struct.pack("!H", checksum(bytes(whole[:20])))
    packet = found(ethernet(bytes(whole)))
    assert packet.notes == ("first fragment only",)
    assert str(packet.malformed) == ("MALFORMED at byte 14: map_request.source_eid.address: needs 4 octets, 2 left")
    rest = bytearray(whole)
    rest[6:8] = struct.pack("!H", 0x0003)
    rest[10:12] = b"\0\0"
    rest[10:12] = struct.pack("!H", checksum(bytes(rest[:20])))
    assert decoded(ethernet(bytes(rest))) is None


def sum_of_pseudo_header(octets: int) -> int:
    """10.0.3.2, 10.0.0.2, UDP and the length, added up by hand; no carry."""
    return 0x0A00 + 0x0302 + 0x0A00 + 0x0002 + 17 + octets


def test_checksums_are_remarked() -> None:
    wrong = bytearray(control(REQUEST))
    wrong[26] ^= 1
    assert found(ethernet(bytes(wrong))).notes == ("UDP checksum wrong",)
    # As captured on a veth: a network card would have added the payload's sum.
    unfinished = bytearray(control(REQUEST))
    unfinished[26:28] = struct.pack("!H", sum_of_pseudo_header(len(REQUEST) + 8))
    assert found(ethernet(bytes(unfinished))).notes == ()
    zero = build_udp_packet(ITR, MAP_SERVER, 4000, 4342, REQUEST, with_checksum=False)
    assert found(ethernet(zero)).notes == ("UDP checksum zero, which RFC 9301 §5 forbids",)


def data_packet(header: DataHeader, inner: bytes) -> bytes:
    payload = header.encode() + inner
    return ethernet(build_udp_packet(RLOC_C, RLOC_A, 61000, 4341, payload, with_checksum=False))


def test_data_packet() -> None:
    inner = build_icmp_echo(PEER, GUEST, 7, 1, b"when", hop_limit=63)
    packet = found(data_packet(DataHeader(nonce=5, instance_id=3, locator_status_bits=1), inner))
    assert (packet.plane, packet.malformed, packet.notes) == ("data", None, ())
    assert packet.message == {
        "type": "Data",
        "flags": ["N", "L", "I"],
        "nonce": "0x000005",
        "instance_id": 3,
        "locator_status_bits": "0x01",
        "inner": {
            "source_eid": "192.168.3.10",
            "destination_eid": "192.168.0.10",
            "hop_limit": 63,
            "protocol": "icmp",
            "icmp_type": 8,
            "icmp_code": 0,
            "icmp_identifier": 7,
            "icmp_sequence": 1,
        },
        "inner_octets": 32,
    }
    assert "instance 3 192.168.3.10 > 192.168.0.10 icmp type 8 id 7 seq 1" in render(packet)


def test_data_packet_of_mixed_families() -> None:
    inner = build_udp_packet(IPv6Address("2001:db8:e::10"), IPv6Address("2001:db8:c::10"), 5, 6, b"probe")
    packet = found(data_packet(DataHeader(source_map_version=1, destination_map_version=2), inner))
    assert packet.message["dest_map_version"] == 2
    assert "[2001:db8:e::10]:5 > [2001:db8:c::10]:6 udp" in render(packet)


def test_data_packet_with_icmpv6() -> None:
    router, guest, peer = (IPv6Address(f"2001:db8:{end}") for end in ("c::1", "e::10", "c::10"))
    error = build_too_big(router, build_udp_packet(guest, peer, 5, 6, b"probe"), 1280)
    inner = found(data_packet(DataHeader(), error)).message["inner"]
    assert (inner["protocol"], inner["icmp_type"], inner["icmp_code"]) == ("icmpv6", 2, 0)
    assert "icmp_sequence" not in inner
    inner = found(data_packet(DataHeader(), build_icmp_echo(peer, guest, 8, 9, b""))).message["inner"]
    assert (inner["icmp_type"], inner["icmp_identifier"], inner["icmp_sequence"]) == (128, 8, 9)


@pytest.mark.parametrize("wall_ns", [-1, 1 << 90])
def test_a_clock_beyond_the_calendar_is_shown_as_it_is(wall_ns: int) -> None:
    packet = lisp_packet(Frame(1, wall_ns, ethernet(control(REQUEST)), 1))
    assert packet is not None
    assert render(packet).startswith(f"1 {wall_ns}ns 10.0.3.2:4000")


def test_malformed_data_packets() -> None:
    packet = found(ethernet(build_udp_packet(RLOC_C, RLOC_A, 61000, 4341, bytes(5))))
    assert str(packet.malformed) == "MALFORMED at byte 4: lisp.instance_id: needs 4 octets, 1 left"
    packet = found(data_packet(DataHeader(), b"\x12\x34"))
    assert str(packet.malformed) == "MALFORMED at byte 8: inner.version: neither IPv4 nor IPv6 but 1"


def test_encrypted_data_is_not_guessed() -> None:
    packet = found(data_packet(DataHeader(key_id=1), b"\x12\x34"))
    assert packet.malformed is None
    assert "inner" not in packet.message


def test_only_lisp_is_yielded_in_order() -> None:
    frames = [
        Frame(1, 0, ethernet(control(REQUEST)), 1),
        Frame(2, 0, ethernet(build_udp_packet(ITR, MAP_SERVER, 1, 2, b"")), 1),
        Frame(3, 0, data_packet(DataHeader(), build_icmp_echo(PEER, GUEST, 1, 1, b"")), 1),
    ]
    packets = list(lisp_packets(frames))
    assert [(packet.frame, packet.plane) for packet in packets] == [(1, "control"), (3, "data")]
    assert packets[0].to_json()["wall_ns"] is None


#: What Wireshark's dissector cannot read (4.0): AFI 0 as an ITR-RLOC, signatures, authentication data of
#: Map-Replies, Map-Notify-Ack, ECM with LISP-SEC, the inner messages of the ECM vectors, type 15.
BEYOND_WIRESHARK = (
    "map-request, unsubscribes",
    "map-referral",
    "map-reply, with LISP-SEC's",
    "map-notify-ack",
    "encapsulated control",
    "a message of a type",
)


def test_wireshark_agrees(tmp_path: Path) -> None:
    """Wireshark's dissector, another reading of the same RFCs, sees the same nonces and mask lengths."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    vectors = [entry for entry in MESSAGES if not entry[0].startswith(BEYOND_WIRESHARK)]
    assert len(vectors) >= 11
    path = tmp_path / "vectors.pcap"
    path.write_bytes(pcap(ethernet(control(octets(text))) for _, _, text in vectors))
    command = ["tshark", "-r", str(path), "-T", "fields", "-E", "separator=;"]
    for field in ("lisp.nonce", "lisp.mapping.eid.masklen", "lisp.mapping.ttl", "_ws.malformed"):
        command += ["-e", field]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    assert len(shown) == len(vectors)
    for line, (name, _, text) in zip(shown, vectors, strict=True):
        fields = found(ethernet(control(octets(text)))).message
        nonce, _masks, ttls, malformed = line.split(";")
        assert malformed == "", name
        assert int(nonce, 16) == int(fields["nonce"], 16), name
        records = [record for record in fields.get("records", []) if "record_ttl_minutes" in record]
        if fields["type"] in ("Map-Reply", "Map-Register", "Map-Notify"):
            assert ttls == ",".join(str(record["record_ttl_minutes"]) for record in records), name
