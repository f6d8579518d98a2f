"""Captures on disk, pcap and pcapng: their frames, interfaces and drop counts.

Sources: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng. A capture whose writer was killed ends in the
middle of a block; everything before is read, and `Capture.truncated` says so.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from testbed.errors import TestbedError

#: pcap's magic numbers: (byte order, nanoseconds per unit of the fraction).
_PCAP_MAGIC = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
_SECTION_HEADER = 0x0A0D0D0A
_INTERFACE_DESCRIPTION = 1
_OBSOLETE_PACKET = 2
_SIMPLE_PACKET = 3
_INTERFACE_STATISTICS = 5
_ENHANCED_PACKET = 6

#: A longer frame or block is damage, not data: tcpdump's largest snapshot is 256 KiB.
_MAX_FRAME = 1 << 20
_MAX_BLOCK = 1 << 24


class CaptureError(TestbedError):
    """A file that is no capture, or one that is damaged before its end."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__("capture-unreadable", f"cannot read the capture {path}", why=why, next_command=f"file {path}")


@dataclass(frozen=True, slots=True)
class Frame:
    """One captured frame.

    Attributes:
        number: from 1, as Wireshark counts.
        wall_ns: when it was captured, nanoseconds since the epoch; 0 if the format has no time for it.
        data: its octets, as many as were captured.
        link_type: LINKTYPE_ value (1 Ethernet, 101 raw IP, …).
        interface: name of the interface, its number in the file if it has none, "" in pcap files.
        wire_octets: its length on the wire.
    """

    number: int
    wall_ns: int
    data: bytes
    link_type: int
    interface: str = ""
    wire_octets: int = 0


@dataclass(slots=True)
class CaptureInterface:
    """An interface of a capture, and what the capturing program said about it at its end.

    Attributes:
        name: as in `Frame.interface`.
        link_type: LINKTYPE_ value.
        received: frames that arrived; None if not stated.
        dropped: frames lost for want of buffers, in the interface and the system; None if not stated.
    """

    name: str
    link_type: int
    received: int | None = None
    dropped: int | None = None
    ticks_per_second: int = field(default=1_000_000, repr=False)
    offset_s: int = field(default=0, repr=False)

    def wall_ns(self, ticks: int) -> int:
        """Nanoseconds since the epoch of a timestamp in this interface's unit."""
        return ticks * 1_000_000_000 // self.ticks_per_second + self.offset_s * 1_000_000_000


class _TruncatedError(Exception):
    """The file ends in the middle of something."""


class Capture:
    """A capture that is read once, from the beginning to the end.

    Attributes:
        path: of the file.
        interfaces: as far as they were met; complete when `frames` is exhausted.
        truncated: the file ends in the middle of a frame; known when `frames` is exhausted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.interfaces: list[CaptureInterface] = []
        self.truncated = False

    def frames(self) -> Iterator[Frame]:
        """The frames in the order of the file.

        Raises:
            CaptureError: not there, not a capture, or damaged.
        """
        try:
            stream = self.path.open("rb")
        except OSError as error:
            raise CaptureError(self.path, error.strerror or str(error)) from error
        with stream:
            magic = stream.read(4)
            try:
                if magic in _PCAP_MAGIC:
                    yield from self._pcap(stream, *_PCAP_MAGIC[magic])
                elif magic == _SECTION_HEADER.to_bytes(4, "big"):
                    yield from self._pcapng(stream)
                elif len(magic) < 4:
                    # A writer that was killed before it flushed: nothing was captured, nothing is wrong.
                    self.truncated = True
                else:
                    raise CaptureError(self.path, f"begins with {magic.hex()}: neither pcap nor pcapng")
            except _TruncatedError:
                self.truncated = True

    def _pcap(self, stream: BinaryIO, order: str, fraction_ns: int) -> Iterator[Frame]:
        header = _read(stream, 20)
        # The upper bits of the last field are about the frame check sequence.
        link_type = struct.unpack(order + "I", header[16:])[0] & 0xFFFF
        self.interfaces.append(CaptureInterface("", link_type))
        number = 0
        while True:
            head = stream.read(16)
            if not head:
                return
            if len(head) < 16:
                raise _TruncatedError
            seconds, fraction, captured, original = struct.unpack(order + "4I", head)
            if captured > _MAX_FRAME:
                raise CaptureError(self.path, f"frame {number + 1} would be {captured} octets long")
            data = _read(stream, captured)
            number += 1
            yield Frame(number, seconds * 1_000_000_000 + fraction * fraction_ns, data, link_type, "", original)

    def _pcapng(self, stream: BinaryIO) -> Iterator[Frame]:
        stream.seek(0)
        order, section, number = "<", 0, 0
        while True:
            head = stream.read(8)
            if not head:
                return
            if len(head) < 8:
                raise _TruncatedError
            if head[:4] == _SECTION_HEADER.to_bytes(4, "big"):
                byte_order = _read(stream, 4)
                order = "<" if byte_order == b"\x4d\x3c\x2b\x1a" else ">"
                # Interfaces are numbered anew in each section.
                section = len(self.interfaces)
                _read(stream, self._block_octets(head, order) - 12)
                continue
            body = _read(stream, self._block_octets(head, order) - 8)[:-4]
            kind = struct.unpack(order + "I", head[:4])[0]
            frame = None
            try:
                if kind == _INTERFACE_DESCRIPTION:
                    self.interfaces.append(_interface(body, order, len(self.interfaces) - section))
                elif kind == _INTERFACE_STATISTICS:
                    _add_statistics(self.interfaces[section:], body, order)
                elif kind in (_ENHANCED_PACKET, _OBSOLETE_PACKET, _SIMPLE_PACKET):
                    number += 1
                    frame = _packet(kind, self.interfaces[section:], body, order, number)
            except (struct.error, IndexError) as error:
                raise CaptureError(self.path, f"a damaged block of type {kind}: {error}") from error
            if frame is not None:
                yield frame

    def _block_octets(self, head: bytes, order: str) -> int:
        octets: int = struct.unpack(order + "I", head[4:8])[0]
        if not 12 <= octets <= _MAX_BLOCK or octets % 4:
            raise CaptureError(self.path, f"a block of {octets} octets")
        return octets


def _read(stream: BinaryIO, octets: int) -> bytes:
    data = stream.read(octets)
    if len(data) < octets:
        raise _TruncatedError
    return data


def _options(body: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(body):
        code, octets = struct.unpack_from(order + "HH", body, offset)
        if code == 0:
            return
        yield code, body[offset + 4 : offset + 4 + octets]
        offset += 4 + (octets + 3) // 4 * 4


def _interface(body: bytes, order: str, index: int) -> CaptureInterface:
    interface = CaptureInterface(str(index), struct.unpack_from(order + "H", body)[0])
    for code, value in _options(body[8:], order):
        if code == 2:  # if_name
            text = value.decode(errors="replace")
            # Names end up on terminals, and captures come from strangers.
            interface.name = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
        elif code == 9 and value:  # if_tsresol: a power of 2 or of 10
            exponent = value[0] & 0x7F
            interface.ticks_per_second = 2**exponent if value[0] & 0x80 else 10**exponent
        elif code == 14:  # if_tsoffset
            interface.offset_s = struct.unpack(order + "q", value)[0]
    return interface


def _add_statistics(interfaces: list[CaptureInterface], body: bytes, order: str) -> None:
    interface = interfaces[struct.unpack_from(order + "I", body)[0]]
    counts = {
        code: struct.unpack(order + "Q", value)[0]
        for code, value in _options(body[12:], order)
        if code in (4, 5, 7)  # isb_ifrecv, isb_ifdrop, isb_osdrop
    }
    interface.received = counts.get(4, interface.received)
    if 5 in counts or 7 in counts:
        interface.dropped = counts.get(5, 0) + counts.get(7, 0)


def _packet(kind: int, interfaces: list[CaptureInterface], body: bytes, order: str, number: int) -> Frame:
    if kind == _SIMPLE_PACKET:
        original = struct.unpack_from(order + "I", body)[0]
        first = interfaces[0]
        return Frame(number, 0, body[4 : 4 + original], first.link_type, first.name, original)
    layout = "IIIII" if kind == _ENHANCED_PACKET else "HxxIIII"
    index, high, low, captured, original = struct.unpack_from(order + layout, body)
    if 20 + captured > len(body):
        raise IndexError(f"{captured} octets in a block of {len(body)}")
    interface = interfaces[index]
    wall_ns = interface.wall_ns(high << 32 | low)
    return Frame(number, wall_ns, body[20 : 20 + captured], interface.link_type, interface.name, original)


def frames(path: Path) -> Iterator[Frame]:
    """The frames of a capture; CaptureError as `Capture.frames`."""
    return Capture(path).frames()
