"""A cursor over received bytes that can fail in one way only, and its counterpart for sending. Pure."""

from __future__ import annotations

import struct
from types import TracebackType
from typing import ClassVar


class WireError(ValueError):
    """Received bytes that are not what the format says.

    Attributes:
        offset: octets from the start of the message to where it went wrong.
        path: the field, outermost first ("records[1].locators[0].rloc").
        why: what is wrong, a phrase.
    """

    def __init__(self, offset: int, path: str, why: str) -> None:
        super().__init__(f"byte {offset}: {path}: {why}")
        self.offset = offset
        self.path = path
        self.why = why


class Layout:
    """Unsigned integers one after the other, network order: read, and written, as one.

    Args:
        fields: the octets of each, 1, 2, 4 or 8, by its name.
    """

    _CODES: ClassVar = {1: "B", 2: "H", 4: "I", 8: "Q"}

    def __init__(self, **fields: int) -> None:
        self.fields = fields
        self.struct = struct.Struct("!" + "".join(self._CODES[octets] for octets in fields.values()))

    def pack(self, *values: int) -> bytes:
        """The octets; ValueError (with its name) about the first value that does not fit."""
        try:
            return self.struct.pack(*values)
        except struct.error:
            pairs = zip(self.fields.items(), values, strict=True)
            return b"".join(packed(value, octets, name) for (name, octets), value in pairs)


class Reader:
    """Reads big-endian fields from a bounded stretch of bytes; every failure is a `WireError`.

    `with reader.at("records[0]"):` names what is being read, so that errors say where they are. Where every message is
    read, the name is put on `path` and taken off by hand: a reader is of no use after an error, and that is no call.

    Attributes:
        path: the names of what is being read, outermost first.
        data: the whole message.
        offset: of the next octet.
        end: offset after the last octet that may be read.
        depth: how many containers (LCAFs) are open around what is read now.
    """

    __slots__ = ("data", "depth", "end", "offset", "path")

    def __init__(self, data: bytes, offset: int = 0, end: int | None = None) -> None:
        self.data = data
        self.offset = offset
        self.end = len(data) if end is None else end
        self.depth = 0
        self.path: list[str] = []

    def at(self, name: str) -> Reader:
        """Open a field of that name; to be used in a `with` statement, whose end closes it."""
        self.path.append(name)
        return self

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.path.pop()

    @property
    def remaining(self) -> int:
        """Octets left."""
        return self.end - self.offset

    def error(self, name: str, why: str, *, offset: int | None = None) -> WireError:
        """A `WireError` about a field, at `offset` or where the cursor is."""
        path = ".".join([*self.path, name] if name else self.path)
        return WireError(self.offset if offset is None else offset, path, why)

    def take(self, octets: int, name: str) -> bytes:
        """The next `octets` octets."""
        start, stop = self.offset, self.offset + octets
        if stop > self.end:
            raise self.error(name, f"needs {_octets(octets)}, {self.end - start} left")
        self.offset = stop
        return self.data[start:stop]

    def uint(self, octets: int, name: str) -> int:
        """An unsigned integer of `octets` octets, network order."""
        # As `take`, without the call: most of a message is read by this.
        start, stop = self.offset, self.offset + octets
        if stop > self.end:
            raise self.error(name, f"needs {_octets(octets)}, {self.end - start} left")
        self.offset = stop
        return int.from_bytes(self.data[start:stop], "big")

    def uints(self, layout: Layout) -> tuple[int, ...]:
        """The values of a layout, in its order; a `WireError` is about the field that the octets end in."""
        start, stop = self.offset, self.offset + layout.struct.size
        if stop > self.end:
            for name, octets in layout.fields.items():
                self.take(octets, name)
        self.offset = stop
        return layout.struct.unpack_from(self.data, start)

    def rest(self) -> bytes:
        """Everything that is left."""
        start, self.offset = self.offset, self.end
        return self.data[start : self.end]

    def window(self, start: int, end: int) -> Reader:
        """A reader of the octets from `start` to `end` of the same message, with the same path."""
        inner = Reader(self.data, start, end)
        inner.path = self.path.copy()
        inner.depth = self.depth
        return inner

    def bounded(self, octets: int, name: str) -> Reader:
        """A reader of the next `octets` octets only, with the same offsets and path; skips them here."""
        start = self.offset
        self.take(octets, name)
        return self.window(start, self.offset)

    def expect_end(self, name: str = "") -> None:
        """Fail if anything is left."""
        if self.offset != self.end:
            raise self.error(name, f"{_octets(self.remaining)} too many")


def _octets(count: int) -> str:
    return "1 octet" if count == 1 else f"{count} octets"


def packed(value: int, octets: int, name: str) -> bytes:
    """An unsigned integer in `octets` octets, network order; ValueError (with `name`) if it does not fit."""
    try:
        return value.to_bytes(octets, "big")
    except OverflowError:
        raise ValueError(f"{name} = {value} does not fit in {8 * octets} bits") from None


def fitting(value: int, bits: int, name: str) -> int:
    """The value itself; ValueError (with `name`) if it does not fit in `bits` bits."""
    if value < 0 or value >> bits:
        raise ValueError(f"{name} = {value} does not fit in {bits} bits")
    return value
