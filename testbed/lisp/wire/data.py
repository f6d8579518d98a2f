"""The header of a data packet, 8 octets between UDP and the inner packet (RFC 9300 §5.3). Pure."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.lisp.wire.codes import DataFlag
from testbed.lisp.wire.reader import Reader, fitting, packed

DATA_HEADER_OCTETS = 8


@dataclass(frozen=True, slots=True)
class DataHeader:
    """The LISP header of a data packet. No combination of bits is an error: what has no meaning is ignored.

    Attributes:
        nonce: 24 bits, or None (N-bit).
        echo_nonce: the receiver shall echo the nonce (E-bit; ignored without a nonce).
        source_map_version: 12 bits, or None (V-bit; RFC 9302). Both versions or none.
        destination_map_version: 12 bits, or None.
        instance_id: 24 bits, or None (I-bit).
        locator_status_bits: 32 bits, 8 with an instance ID; or None (L-bit).
        key_id: 0 if the payload is not encrypted (K-bits, RFC 8061).
    """

    nonce: int | None = None
    echo_nonce: bool = False
    source_map_version: int | None = None
    destination_map_version: int | None = None
    instance_id: int | None = None
    locator_status_bits: int | None = None
    key_id: int = 0

    @classmethod
    def decode(cls, reader: Reader) -> DataHeader:
        """Read the 8 octets; WireError if there are fewer."""
        with reader.at("lisp"):
            first = reader.uint(1, "flags")
            middle = reader.uint(3, "nonce")
            last = reader.uint(4, "instance_id")
        nonce = source_version = destination_version = instance_id = status = None
        if first & DataFlag.NONCE:  # N and V together: read as N
            nonce = middle
        elif first & DataFlag.MAP_VERSION:
            source_version, destination_version = middle >> 12, middle & 0xFFF
        if first & DataFlag.INSTANCE_ID:
            instance_id = last >> 8
        if first & DataFlag.LOCATOR_STATUS:
            status = last & 0xFF if first & DataFlag.INSTANCE_ID else last
        echo = nonce is not None and bool(first & DataFlag.ECHO_NONCE)
        return cls(nonce, echo, source_version, destination_version, instance_id, status, first & 0x03)

    def encode(self) -> bytes:
        """The 8 octets; ValueError for a field that does not fit, or a nonce beside map-versions."""
        flags, middle, last = fitting(self.key_id, 2, "key_id"), 0, 0
        if (self.source_map_version is None) != (self.destination_map_version is None):
            raise ValueError("map-versions come in pairs (RFC 9302 §7)")
        if self.nonce is not None:
            if self.source_map_version is not None:
                raise ValueError("a nonce and map-versions must not be in the same packet (RFC 9300 §5.3)")
            flags |= DataFlag.NONCE | (DataFlag.ECHO_NONCE if self.echo_nonce else 0)
            middle = self.nonce
        elif self.source_map_version is not None and self.destination_map_version is not None:
            flags |= DataFlag.MAP_VERSION
            middle = fitting(self.source_map_version, 12, "source_map_version") << 12
            middle |= fitting(self.destination_map_version, 12, "destination_map_version")
        if self.instance_id is not None:
            flags |= DataFlag.INSTANCE_ID
            last = fitting(self.instance_id, 24, "instance_id") << 8
        if self.locator_status_bits is not None:
            flags |= DataFlag.LOCATOR_STATUS
            bits = 32 if self.instance_id is None else 8
            last |= fitting(self.locator_status_bits, bits, "locator_status_bits")
        return packed(flags, 1, "flags") + packed(middle, 3, "nonce") + packed(last, 4, "instance_id")
