"""Packets of probes as captures have them, bare and encapsulated."""

from __future__ import annotations

from ipaddress import ip_address

from testbed.lisp.wire import DATA_PORT
from testbed.lisp.wire.inet import checksum
from tests.unit.measure.synthetic import EID

PEER, GATEWAY = "192.168.3.10", "00:00:5e:00:01:01"
ITR, NEW, OLD = "10.0.3.2", "10.0.2.2", "10.0.1.2"


def ethernet(source: str, ip: bytes) -> bytes:
    kind = b"\x86\xdd" if ip[0] >> 4 == 6 else b"\x08\x00"
    return b"\x02" * 6 + bytes.fromhex(source.replace(":", "")) + kind + ip


def packet(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    one, other = ip_address(source).packed, ip_address(destination).packed
    if len(one) == 16:
        head = b"\x60\0\0\0" + len(payload).to_bytes(2, "big") + bytes([protocol, 64])
        return head + one + other + payload
    head = b"\x45\0" + (20 + len(payload)).to_bytes(2, "big") + bytes([0, 0, 0, 0, 64, protocol])
    summed = checksum(head + bytes(2) + one + other).to_bytes(2, "big")
    return head + summed + one + other + payload


def probe(seq: int, *, echo_type: int | None = None, answers: bool = False) -> bytes:
    """An ICMP echo, or (without a type) a UDP datagram to the echo port or from it, with a probe's payload."""
    header = bytes([echo_type, 0, 0, 0, 0, 1, 0, 1]) if echo_type is not None else b"\x80\0\0\x07\0\x20\0\0"
    if answers:
        header = b"\0\x07\x80\0\0\x20\0\0"
    return header + b"TBPROBE1" + b"whichrun" + seq.to_bytes(8, "big")


def encapsulated(source: str, destination: str, inner: bytes) -> bytes:
    udp = (0xF000).to_bytes(2, "big") + DATA_PORT.to_bytes(2, "big") + (16 + len(inner)).to_bytes(2, "big") + b"\0\0"
    return ethernet(GATEWAY, packet(source, destination, 17, udp + bytes(8) + inner))


def request(seq: int) -> bytes:
    return packet(PEER, EID, 1, probe(seq, echo_type=8))


def reply(seq: int) -> bytes:
    return packet(EID, PEER, 1, probe(seq, echo_type=0))
