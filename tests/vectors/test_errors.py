"""What malformed messages say: the offset, the field and the reason."""

from __future__ import annotations

import pytest

from testbed.lisp.wire import EncapsulatedControl, MapRequest, Reader, WireError, decode_control
from testbed.lisp.wire.data import DataHeader
from tests.vectors.tables import IDENTITY_HEX, MAPPING_HEX, MESSAGES, octets

REQUEST = "10000001 00000000 00000001"
REPLY = "20000001 00000000 00000001"
ECM = "80000000"

ERRORS = [
    ("nothing", "", 0, "header", "no octets"),
    ("half a header", "1000", 0, "map_request.header", "needs 4 octets, 2 left"),
    ("half a nonce", "20000001 00000000", 4, "map_reply.nonce", "needs 8 octets, 4 left"),
    (
        "source EID of an unknown family",
        REQUEST + "0063 01020304",
        12,
        "map_request.source_eid.afi",
        "99 is not known",
    ),
    (
        "IRC announces more than there is",
        "10000101 00000000 00000001 0000 0001 0a000302",
        20,
        "map_request.itr_rlocs[1].afi",
        "needs 2 octets, 0 left",
    ),
    (
        "no record",
        REQUEST + "0000 0001 0a000302",
        20,
        "map_request.requests[0].flags",
        "needs 1 octet, 0 left",
    ),
    (
        "mask longer than the address",
        REQUEST + "0000 0001 0a000302 00 21 0001 c0a8000a",
        22,
        "map_request.requests[0].eid",
        "mask length 33 exceeds 32",
    ),
    (
        "IPv6 mask longer than the address",
        REQUEST + "0000 0001 0a000302 00 81 0002 20010db8 00000000 00000000 00000001",
        22,
        "map_request.requests[0].eid",
        "mask length 129 exceeds 128",
    ),
    (
        "I-bit without identity (RFC 9437 §4)",
        "10100001 00000000 00000001 0000 0001 0a000302 00 20 0001 c0a8000a",
        28,
        "map_request.xtr.xtr_id",
        "needs 16 octets, 0 left",
    ),
    (
        "identity without I-bit",
        REQUEST + "0000 0001 0a000302 00 20 0001 c0a8000a" + "00" * 24,
        28,
        "map_request",
        "24 octets too many",
    ),
    (
        "a negative reply with stray octets",
        REPLY + "0000000f 0018 2000 0000 0001 0a000000 00",
        28,
        "map_reply",
        "1 octet too many",
    ),
    (
        "a locator less than announced",
        REPLY + MAPPING_HEX.replace("01 20 1000", "02 20 1000"),
        40,
        "map_reply.records[0].locators[1].priority",
        "needs 1 octet, 0 left",
    ),
    (
        "a locator of an unknown family",
        REPLY + MAPPING_HEX.replace("0001 0001 0a000202", "0001 4005 0a000202"),
        34,
        "map_reply.records[0].locators[0].rloc.afi",
        "16389 is not known",
    ),
    (
        "S-bit without authentication data",
        "22000000 00000000 00000001",
        12,
        "map_reply.security",
        "nothing follows",
    ),
    (
        "authentication data cut off",
        "30000001 00000000 00000001 00 02 0020 00010203",
        16,
        "map_register.authentication.data",
        "needs 32 octets, 4 left",
    ),
    (
        "a notify with half a trailer",
        "40000000 00000000 00000006 00 00 0000" + "00" * 12,
        16,
        "map_notify",
        "12 octets too many",
    ),
    (
        "an LCAF longer than the message",
        REQUEST + "4003 00 00 02 00 000a 00000007",
        20,
        "map_request.source_eid.lcaf.body",
        "needs 10 octets, 4 left",
    ),
    (
        "an LCAF longer than what it holds",
        REQUEST + "4003 00 00 02 00 000c 00000007 0001 c0a8030a ffff",
        30,
        "map_request.source_eid.instance_id",
        "2 octets too many",
    ),
    (
        "an LCAF shorter than what it holds",
        REQUEST + "4003 00 00 02 00 0008 00000007 0001 c0a8030a",
        26,
        "map_request.source_eid.instance_id.address.address",
        "needs 4 octets, 2 left",
    ),
    (
        "an instance ID of more than 32 bits",
        REQUEST + "4003 00 00 02 21 0006 00000000 0000",
        17,
        "map_request.source_eid.instance_id.iid_mask_length",
        "33 exceeds 32 bits",
    ),
    (
        "a source prefix longer than its address",
        REQUEST + "4003 00 00 0c 00 0010 0000 21 18 0001 0a000000 0001 0b000000",
        22,
        "map_request.source_eid.source_destination.source_mask_length",
        "33 exceeds 32 bits",
    ),
    (
        "LCAFs in LCAFs without end",
        REQUEST + "".join(f"4003 00 00 01 00 {8 * depth:04x}" for depth in range(99, -1, -1)),
        12 + 8 * 8 + 2,
        "map_request.source_eid" + ".afi_list.addresses[0]" * 8 + ".lcaf",
        "more than 8",
    ),
    (
        "a reply without NAT",
        "78000000 00000000 00000008 00000000 000005a0 0020 0001 c0a8000a 0000",
        28,
        "info.nat",
        "a reply without",
    ),
    (
        "a request with NAT",
        "70000000 00000000 00000008 00000000 000005a0 0020 0001 c0a8000a 0001 01020304",
        28,
        "info.nat",
        "a request with",
    ),
    (
        "a signature cut off",
        "60000001 00000000 00000009 000005a0 00 00 0000 1000 0000" + "00" * 14 + "0004 02000000 feed",
        44,
        "map_referral.records[0].signatures[0].signature",
        "needs 4 octets, 2 left",
    ),
    ("an ECM without packet", ECM, 4, "encapsulated_control.inner.version", "no octets left"),
    ("an ECM with neither IPv4 nor IPv6", ECM + "50000000", 4, "encapsulated_control.inner.version", "but 5"),
    (
        "an inner header of 16 octets",
        ECM + "44" + "00" * 30,
        4,
        "encapsulated_control.inner.ipv4.ihl",
        "16 octets",
    ),
    (
        "an inner total length below the header's",
        ECM + "4500 0010" + "00" * 30,
        6,
        "encapsulated_control.inner.ipv4.total_length",
        "16, less than the header's 20",
    ),
    (
        "a wrong inner header checksum",
        ECM + "4500 001e 0000 4000 20 11 8d1c 0a000302 c0a8000a 0fa0 10f6 000a 2182 f00d",
        14,
        "encapsulated_control.inner.ipv4.checksum",
        "wrong",
    ),
    (
        "an inner fragment",
        ECM + "4500 001e 0000 2000 20 11 ad1b 0a000302 c0a8000a 0fa0 10f6 000a 2182 f00d",
        4,
        "encapsulated_control.inner.ip",
        "a fragment",
    ),
    (
        "inner TCP",
        ECM + "4500 001e 0000 4000 20 06 8d26 0a000302 c0a8000a 0fa0 10f6 000a 2182 f00d",
        4,
        "encapsulated_control.inner.ip",
        "protocol 6, not UDP",
    ),
    (
        "a wrong inner UDP checksum",
        ECM + "4500 001e 0000 4000 20 11 8d1b 0a000302 c0a8000a 0fa0 10f6 000a 2183 f00d",
        30,
        "encapsulated_control.inner.udp.checksum",
        "wrong",
    ),
    (
        "no inner UDP checksum",
        ECM + "4500 001e 0000 4000 20 11 8d1b 0a000302 c0a8000a 0fa0 10f6 000a 0000 f00d",
        30,
        "encapsulated_control.inner.udp.checksum",
        "must not be zero",
    ),
    (
        "an inner UDP length beyond the packet",
        ECM + "4500 001e 0000 4000 20 11 8d1b 0a000302 c0a8000a 0fa0 10f6 000b 2182 f00d",
        28,
        "encapsulated_control.inner.udp.length",
        "11, of 10",
    ),
    (
        "an inner UDP length short of the packet",
        ECM + "4500 001e 0000 4000 20 11 8d1b 0a000302 c0a8000a 0fa0 10f6 0009 2182 f00d",
        28,
        "encapsulated_control.inner.udp.length",
        "9, of 10",
    ),
    (
        "octets after the inner packet",
        ECM + "4500 001e 0000 4000 20 11 8d1b 0a000302 c0a8000a 0fa0 10f6 000a 2182 f00d 00",
        34,
        "encapsulated_control",
        "1 octet too many",
    ),
    (
        "authentication data of an unknown type",
        "88000000 02 000000",
        4,
        "encapsulated_control.security.ad_type",
        "2 is not known",
    ),
    (
        "an EID-AD shorter than its own length field",
        "88000000 01 00 0001 0000 00 00 0002",
        12,
        "encapsulated_control.security.eid_ad_length",
        "2, less than 4",
    ),
]


@pytest.mark.parametrize(
    ("text", "offset", "path", "why"), [entry[1:] for entry in ERRORS], ids=[entry[0] for entry in ERRORS]
)
def test_malformed(text: str, offset: int, path: str, why: str) -> None:
    with pytest.raises(WireError) as raised:
        decode_control(octets(text))
    assert raised.value.path == path
    assert why in raised.value.why
    assert raised.value.offset == offset
    assert str(raised.value).startswith(f"byte {offset}: {path}: ")


#: Messages that end with octets of any number, so that a shorter one may be whole.
OPEN_ENDED = (
    "map-reply, with LISP-SEC",
    "a message of a type that is not read",
    "map-notify, with the trailer",
)


@pytest.mark.parametrize("text", [text for name, _, text in MESSAGES if not name.startswith(OPEN_ENDED)])
def test_no_message_survives_truncation(text: str) -> None:
    whole = octets(text)
    for length in range(len(whole)):
        with pytest.raises(WireError):
            decode_control(whole[:length])


def test_short_data_header() -> None:
    with pytest.raises(WireError) as raised:
        DataHeader.decode(Reader(bytes(7)))
    assert (raised.value.offset, raised.value.path) == (4, "lisp.instance_id")


def test_the_request_s_trailer_is_read_after_its_mapping() -> None:
    text = "14100001 00000000 00000001 0000 0001 0a000302 00 20 0001 c0a8000a" + MAPPING_HEX + IDENTITY_HEX
    decoded = decode_control(octets(text))
    assert isinstance(decoded, MapRequest)
    assert decoded.map_reply_record is not None
    assert decoded.xtr is not None


def test_zero_inner_checksum_is_accepted_on_demand_only() -> None:
    data = octets(ECM + "4500 001e 0000 4000 20 11 8d1b 0a000302 c0a8000a 0fa0 10f6 000a 0000 f00d")
    decoded = decode_control(data, allow_zero_checksum=True)
    assert isinstance(decoded, EncapsulatedControl)
    assert decoded.payload == octets("f00d")
    wrong = data[:-1] + b"!"
    wrong = wrong[:30] + b"\0\1" + wrong[32:]
    with pytest.raises(WireError, match="checksum: wrong"):
        decode_control(wrong, allow_zero_checksum=True)
