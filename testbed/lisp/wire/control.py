"""The front door of the control plane: octets of a UDP payload in, a message out. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from testbed.lisp.wire.codes import (
    CONTROL_PORT,
    EncapsulatedControlFlag,
    MessageType,
    first_word,
    flags_in,
    known,
    with_flag,
)
from testbed.lisp.wire.inet import PROTOCOL_UDP, UDP_HEADER, IpAddress, build_udp_packet, parse_ip, parse_udp
from testbed.lisp.wire.info import Info
from testbed.lisp.wire.mapping import MapReply, MapRequest
from testbed.lisp.wire.reader import Reader, packed
from testbed.lisp.wire.referral import MapReferral
from testbed.lisp.wire.registration import MapNotify, MapNotifyAck, MapRegister

#: The one kind of Authentication Data whose length is known (RFC 9303 §8.1).
LISP_SEC = 1


@dataclass(frozen=True, slots=True)
class EncapsulatedControl:
    """An Encapsulated Control Message (RFC 9301 §5.8): a control message in UDP in IP, in a control message.

    Attributes:
        source: inner address, an RLOC or EID of the sender.
        destination: inner address; the EID, if a Map-Request is inside.
        source_port: inner UDP port, to which a Map-Reply goes.
        payload: the inner message; `message` decodes it.
        destination_port: inner UDP port.
        flags: of the first word; S follows `security`.
        security: Authentication Data of LISP-SEC (RFC 9303 §6.1), as it came.
        hop_limit: of the inner packet.
    """

    source: IpAddress
    destination: IpAddress
    source_port: int
    payload: bytes
    destination_port: int = CONTROL_PORT
    flags: EncapsulatedControlFlag = EncapsulatedControlFlag.NONE
    security: bytes = b""
    hop_limit: int = 64

    def __post_init__(self) -> None:
        flags = with_flag(self.flags, EncapsulatedControlFlag.SECURITY, on=bool(self.security))
        object.__setattr__(self, "flags", flags)

    @property
    def message(self) -> Message:
        """The inner message; WireError (offsets from its own start) if it is malformed."""
        return decode_control(self.payload)

    @classmethod
    def decode(cls, reader: Reader, *, allow_zero_checksum: bool = False) -> EncapsulatedControl:
        """Read one, from its first word.

        Args:
            reader: of the message.
            allow_zero_checksum: accept an inner UDP checksum of zero, which RFC 9301 §5.8 forbids and
                some peers send.

        Raises:
            WireError: no whole UDP datagram in IP inside, or one without a right checksum.
        """
        flags = flags_in(EncapsulatedControlFlag, reader.uint(4, "header"))
        security = _take_security(reader) if EncapsulatedControlFlag.SECURITY in flags else b""
        reader.path.append("inner")
        start = reader.offset
        packet = parse_ip(reader)
        if packet.fragmented:
            raise reader.error("ip", "a fragment", offset=start)
        if packet.protocol != PROTOCOL_UDP:
            raise reader.error("ip", f"protocol {packet.protocol}, not UDP", offset=start)
        udp = parse_udp(packet, reader)
        if UDP_HEADER + len(udp.payload) != len(packet.payload):
            why = f"{UDP_HEADER + len(udp.payload)}, of {len(packet.payload)}"
            raise reader.error("udp.length", why, offset=packet.payload_offset + 4)
        if not udp.checksum_ok and not (allow_zero_checksum and udp.checksum == 0):
            why = "must not be zero" if udp.checksum == 0 else "wrong"
            raise reader.error("udp.checksum", why, offset=packet.payload_offset + 6)
        reader.path.pop()
        reader.expect_end()
        return cls(
            packet.source, packet.destination, udp.source_port, udp.payload, udp.destination_port,
            flags, security, packet.hop_limit,
        )  # fmt: skip

    def encode(self) -> bytes:
        """The octets, with right inner checksums; ValueError if a field does not fit."""
        inner = build_udp_packet(
            self.source,
            self.destination,
            self.source_port,
            self.destination_port,
            self.payload,
            hop_limit=self.hop_limit,
        )
        word = first_word(MessageType.ENCAPSULATED_CONTROL, self.flags)
        return packed(word, 4, "header") + self.security + inner


def _take_security(reader: Reader) -> bytes:
    """The Authentication Data between the first word and the inner packet (RFC 9303 §6.1)."""
    start = reader.offset
    with reader.at("security"):
        ad_type = reader.uint(1, "ad_type")
        if ad_type != LISP_SEC:
            raise reader.error("ad_type", f"{ad_type} is not known", offset=start)
        reader.take(3, "requested_hmac_id")
        otk_octets = reader.uint(2, "otk_length")
        reader.take(2, "key_id")
        reader.take(otk_octets, "otk")
        # The EID-AD length counts itself and the KDF ID (an ITR sends exactly those: 4), the OTK
        # length the preamble and the key only.
        eid_octets = reader.uint(2, "eid_ad_length")
        if eid_octets < 4:
            raise reader.error("eid_ad_length", f"{eid_octets}, less than 4", offset=reader.offset - 2)
        reader.take(eid_octets - 2, "eid_ad")
    return reader.data[start : reader.offset]


@dataclass(frozen=True, slots=True)
class OpaqueMessage:
    """A message of a type that this module does not read; kept as it came."""

    message_type: MessageType | int
    data: bytes

    def encode(self) -> bytes:
        """The octets, as they came."""
        return self.data


Message = (
    MapRequest
    | MapReply
    | MapRegister
    | MapNotify
    | MapNotifyAck
    | MapReferral
    | Info
    | EncapsulatedControl
    | OpaqueMessage
)

_DECODERS: dict[int, tuple[str, Callable[[Reader], Message]]] = {
    MessageType.MAP_REQUEST: ("map_request", MapRequest.decode),
    MessageType.MAP_REPLY: ("map_reply", MapReply.decode),
    MessageType.MAP_REGISTER: ("map_register", MapRegister.decode),
    MessageType.MAP_NOTIFY: ("map_notify", MapNotify.decode),
    MessageType.MAP_NOTIFY_ACK: ("map_notify_ack", MapNotifyAck.decode),
    MessageType.MAP_REFERRAL: ("map_referral", MapReferral.decode),
    MessageType.INFO: ("info", Info.decode),
    MessageType.ENCAPSULATED_CONTROL: ("encapsulated_control", EncapsulatedControl.decode),
}


def decode_control(data: bytes, *, allow_zero_checksum: bool = False) -> Message:
    """Decode the payload of a UDP datagram from or to port 4342.

    Args:
        data: one whole message; octets after it are an error.
        allow_zero_checksum: as in `EncapsulatedControl.decode`.

    Raises:
        WireError: malformed; offset and path say where.
    """
    reader = Reader(data)
    if not data:
        raise reader.error("header", "no octets")
    message_type = data[0] >> 4
    entry = _DECODERS.get(message_type)
    if entry is None:
        return OpaqueMessage(known(MessageType, message_type), data)
    name, decode = entry
    reader.path.append(name)
    if message_type == MessageType.ENCAPSULATED_CONTROL:
        return EncapsulatedControl.decode(reader, allow_zero_checksum=allow_zero_checksum)
    return decode(reader)
