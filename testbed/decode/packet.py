"""LISP packets in frames: who sent what to whom, or at which byte it is malformed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from testbed.decode.capture import Frame
from testbed.decode.fields import Fields, data_header_fields, message_fields
from testbed.decode.link import ip_offset
from testbed.lisp.wire import (
    CONTROL_PORT,
    DATA_HEADER_OCTETS,
    DATA_PORT,
    DataHeader,
    EncapsulatedControl,
    Message,
    MessageType,
    Reader,
    WireError,
    decode_control,
)
from testbed.lisp.wire.inet import (
    PROTOCOL_UDP,
    UDP_HEADER,
    IpPacket,
    UdpDatagram,
    checksum,
    parse_ip,
    parse_udp,
    pseudo_header,
)

Plane = Literal["control", "data"]

#: ECMs in ECMs: no RFC sends any, a hostile capture may hold thousands.
MAX_ENCAPSULATIONS = 4

#: Protocols whose first two half-words are ports: TCP, UDP, SCTP.
_WITH_PORTS = {6: "tcp", PROTOCOL_UDP: "udp", 132: "sctp"}
_PROTOCOLS = {1: "icmp", 58: "icmpv6", **_WITH_PORTS}


@dataclass(frozen=True, slots=True)
class Malformed:
    """Where and why a message cannot be read.

    Attributes:
        byte: offset from the start of the LISP message (the UDP payload).
        field: path of the field.
        why: a phrase.
    """

    byte: int
    field: str
    why: str

    @classmethod
    def of(cls, error: WireError) -> Malformed:
        """From the decoder's error."""
        return cls(error.offset, error.path, error.why)

    def __str__(self) -> str:
        return f"MALFORMED at byte {self.byte}: {self.field}: {self.why}"


@dataclass(frozen=True, slots=True)
class LispPacket:
    """One LISP packet of a capture.

    Attributes:
        frame: number of the frame, from 1.
        wall_ns: nanoseconds since the epoch, 0 if unknown.
        interface: where it was captured, as far as the capture says.
        plane: control (UDP 4342 at either end) or data (UDP 4341 at the destination).
        source: outer address, an RLOC.
        source_port: outer UDP port.
        destination: outer address.
        destination_port: outer UDP port.
        message: its fields, of a malformed one only the type; what is in an ECM is in `message["inner"]`.
        malformed: what is wrong, or None.
        notes: what is remarkable about the packet around the message.
    """

    frame: int
    wall_ns: int
    interface: str
    plane: Plane
    source: str
    source_port: int
    destination: str
    destination_port: int
    message: Fields
    malformed: Malformed | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> Fields:
        """The packet as a JSON-able dictionary."""
        fields: Fields = {
            "frame": self.frame,
            "wall_ns": self.wall_ns or None,
            "interface": self.interface,
            "plane": self.plane,
            "source": self.source,
            "source_port": self.source_port,
            "destination": self.destination,
            "destination_port": self.destination_port,
            "message": self.message,
        }
        if self.malformed is not None:
            fields["malformed"] = {
                "byte": self.malformed.byte,
                "field": self.malformed.field,
                "why": self.malformed.why,
            }
        if self.notes:
            fields["notes"] = list(self.notes)
        return fields


def lisp_packet(frame: Frame) -> LispPacket | None:
    """The LISP packet in a frame, or None if there is none. Never raises, whatever the octets."""
    offset = ip_offset(frame.data, frame.link_type)
    if offset is None:
        return None
    reader = Reader(frame.data, offset)
    try:
        ip = parse_ip(reader, allow_missing=True)
        # Later fragments have no UDP header; the first part tells what the message is.
        if ip.protocol != PROTOCOL_UDP or ip.fragment_offset:
            return None
        udp = parse_udp(ip)
    except WireError:
        return None
    plane: Plane
    if udp.destination_port == DATA_PORT:  # whatever its source port, which is a hash (RFC 9300 §5.3)
        plane = "data"
        message, malformed = _data(udp.payload)
    elif CONTROL_PORT in (udp.source_port, udp.destination_port):
        plane = "control"
        message, malformed = _control(udp.payload, MAX_ENCAPSULATIONS)
    else:
        return None
    return LispPacket(
        frame.number, frame.wall_ns, frame.interface, plane, str(ip.source), udp.source_port,
        str(ip.destination), udp.destination_port, message, malformed, tuple(_notes(plane, ip, udp)),
    )  # fmt: skip


def lisp_packets(frames: Iterable[Frame]) -> Iterator[LispPacket]:
    """The LISP packets among frames, in their order."""
    for frame in frames:
        packet = lisp_packet(frame)
        if packet is not None:
            yield packet


def _notes(plane: Plane, ip: IpPacket, udp: UdpDatagram) -> Iterator[str]:
    if ip.more_fragments:
        yield "first fragment only"
    if ip.missing:
        yield f"{ip.missing} octets not captured"
    if udp.checksum_ok is False and not _left_to_hardware(ip, udp):
        yield "UDP checksum wrong"
    if plane == "control" and udp.checksum == 0:
        yield "UDP checksum zero, which RFC 9301 §5 forbids"


def _left_to_hardware(ip: IpPacket, udp: UdpDatagram) -> bool:
    """Whether the checksum is the sum of the pseudo-header alone.

    That is what Linux leaves for a network card to finish, so packets captured at their sender, and all
    those that only ever crossed virtual interfaces, have it; they are not damaged.
    """
    octets = UDP_HEADER + len(udp.payload)
    pseudo = pseudo_header(ip.source, ip.destination, PROTOCOL_UDP, octets)
    return udp.checksum == ~checksum(pseudo) & 0xFFFF


def _control(payload: bytes, depth: int) -> tuple[Fields, Malformed | None]:
    try:
        message = decode_control(payload)
    except WireError as error:
        return _forbidden_but_readable(payload, depth, error)
    return _opened(message, payload, depth)


def _forbidden_but_readable(payload: bytes, depth: int, error: WireError) -> tuple[Fields, Malformed]:
    """What can be shown beside the error: all of an ECM whose one fault is a zero checksum, or the type."""
    try:
        message = decode_control(payload, allow_zero_checksum=True)
    except WireError:
        return {"type": _type_name(payload)}, Malformed.of(error)
    return _opened(message, payload, depth)[0], Malformed.of(error)


def _opened(message: Message, payload: bytes, depth: int) -> tuple[Fields, Malformed | None]:
    """The fields of a message and of those in it."""
    fields = message_fields(message)
    if not isinstance(message, EncapsulatedControl):
        return fields, None
    if depth == 0:
        return fields, Malformed(0, "encapsulated_control", f"more than {MAX_ENCAPSULATIONS} in one another")
    # The inner message ends where the outer one does, so its offsets can be told in the outer's.
    begins = len(payload) - len(message.payload)
    fields["inner"], malformed = _control(message.payload, depth - 1)
    if malformed is not None:
        malformed = Malformed(malformed.byte + begins, f"encapsulated_control.{malformed.field}", malformed.why)
    return fields, malformed


def _type_name(payload: bytes) -> str | int | None:
    if not payload:
        return None
    number = payload[0] >> 4
    if number in MessageType.__members__.values():
        name = MessageType(number).name.replace("_", "-").title()
        return f"{name}-Message" if number == MessageType.ENCAPSULATED_CONTROL else name  # as RFC 9301 §5.8 has it
    return number


def _data(payload: bytes) -> tuple[Fields, Malformed | None]:
    reader = Reader(payload)
    try:
        header = DataHeader.decode(reader)
    except WireError as error:
        return {"type": "Data"}, Malformed.of(error)
    fields = data_header_fields(header)
    if header.key_id:
        return fields, None  # encrypted: there is no inner packet to be seen
    try:
        with reader.at("inner"):
            ip = parse_ip(reader, allow_missing=True)
    except WireError as error:
        return fields, Malformed.of(error)
    fields["inner"] = _inner(ip)
    fields["inner_octets"] = len(payload) - DATA_HEADER_OCTETS
    return fields, None


def _inner(ip: IpPacket) -> Fields:
    fields: Fields = {
        "source_eid": str(ip.source),
        "destination_eid": str(ip.destination),
        "hop_limit": ip.hop_limit,
        "protocol": _PROTOCOLS.get(ip.protocol, ip.protocol),
    }
    payload = ip.payload
    if ip.fragment_offset:
        return fields | {"fragment_offset": ip.fragment_offset}
    if ip.protocol in _WITH_PORTS and len(payload) >= 4:
        fields["source_port"] = int.from_bytes(payload[:2], "big")
        fields["destination_port"] = int.from_bytes(payload[2:4], "big")
    elif ip.protocol in (1, 58) and len(payload) >= 8:
        fields["icmp_type"], fields["icmp_code"] = payload[0], payload[1]
        if payload[0] in ((0, 8) if ip.protocol == 1 else (128, 129)):
            fields["icmp_identifier"] = int.from_bytes(payload[4:6], "big")
            fields["icmp_sequence"] = int.from_bytes(payload[6:8], "big")
    return fields
