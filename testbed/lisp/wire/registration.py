"""Map-Register, Map-Notify and Map-Notify-Ack (RFC 9301 §5.6, §5.7). Pure.

Signing and checking them is `testbed.lisp.auth`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.lisp.wire.codes import AlgorithmId, MapRegisterFlag, MessageType, first_word, flags_in, known, with_flag
from testbed.lisp.wire.mapping import HEAD, XTR_IDENTITY_OCTETS, XtrIdentity
from testbed.lisp.wire.reader import Layout, Reader, fitting, packed
from testbed.lisp.wire.record import EidRecord, decode_records

#: Where the authentication data begin in all three messages: first word, nonce, key, algorithm, length.
AUTHENTICATION_DATA_OFFSET = 16
_AUTHENTICATION = Layout(key_id=1, algorithm_id=1, length=2)


@dataclass(frozen=True, slots=True)
class Authentication:
    """Who vouches for a message, and how.

    Attributes:
        key_id: which of the pre-shared secrets (8 bits); 0 interoperates with peers of RFC 6830.
        algorithm_id: 8 bits; a plain int where unassigned.
        data: the MAC, as long as the length field says.
    """

    key_id: int = 0
    algorithm_id: AlgorithmId | int = AlgorithmId.NONE
    data: bytes = b""

    @classmethod
    def decode(cls, reader: Reader) -> Authentication:
        """Read it, from the key ID."""
        key_id, algorithm_id, octets = reader.uints(_AUTHENTICATION)
        return cls(key_id, known(AlgorithmId, algorithm_id), reader.take(octets, "data"))

    def encode(self) -> bytes:
        """The octets; ValueError if a field does not fit."""
        octets = fitting(len(self.data), 16, "authentication data length")
        return _AUTHENTICATION.pack(self.key_id, int(self.algorithm_id), octets) + self.data


#: Of a message that is not signed (yet).
UNAUTHENTICATED = Authentication()


def _decode_body(reader: Reader) -> tuple[int, int, Authentication, tuple[EidRecord, ...]]:
    """First word, nonce, authentication, records."""
    word, nonce = reader.uints(HEAD)
    reader.path.append("authentication")
    authentication = Authentication.decode(reader)
    reader.path.pop()
    return word, nonce, authentication, decode_records(reader, word & 0xFF)


@dataclass(frozen=True, slots=True)
class MapRegister:
    """A Map-Register.

    Attributes:
        nonce: 64 bits, incremented for each message.
        records: the mappings; TTL 0 deregisters.
        authentication: of the message.
        flags: of the first word; I follows `xtr`.
        xtr: the sender's identity.
    """

    nonce: int
    records: tuple[EidRecord, ...]
    authentication: Authentication = UNAUTHENTICATED
    flags: MapRegisterFlag = MapRegisterFlag.NONE
    xtr: XtrIdentity | None = None

    def __post_init__(self) -> None:
        flags = with_flag(self.flags, MapRegisterFlag.XTR_ID_PRESENT, on=self.xtr is not None)
        object.__setattr__(self, "flags", flags)

    @classmethod
    def decode(cls, reader: Reader) -> MapRegister:
        """Read one, from its first word."""
        word, nonce, authentication, records = _decode_body(reader)
        flags = flags_in(MapRegisterFlag, word)
        xtr = None
        if MapRegisterFlag.XTR_ID_PRESENT in flags:
            with reader.at("xtr"):
                xtr = XtrIdentity.decode(reader)
        reader.expect_end()
        return cls(nonce, records, authentication, flags, xtr)

    def encode(self, authentication: Authentication | None = None) -> bytes:
        """The octets, under this authentication or the message's own; ValueError if a field does not fit."""
        count = packed(len(self.records), 1, "record count")[0]
        word = first_word(MessageType.MAP_REGISTER, self.flags, count)
        return _encoded(self, word, authentication)


@dataclass(frozen=True, slots=True)
class _Notification:
    """What Map-Notify and Map-Notify-Ack have in common: everything but the type."""

    nonce: int
    records: tuple[EidRecord, ...]
    authentication: Authentication = UNAUTHENTICATED
    xtr: XtrIdentity | None = None

    def _encode(self, message_type: MessageType, authentication: Authentication | None) -> bytes:
        word = first_word(message_type, 0, packed(len(self.records), 1, "record count")[0])
        return _encoded(self, word, authentication)


def _decode_notification(
    reader: Reader,
) -> tuple[int, tuple[EidRecord, ...], Authentication, XtrIdentity | None]:
    _, nonce, authentication, records = _decode_body(reader)
    xtr = None
    # RFC 9301 has no flag for it here, yet "the same contents as a Map-Register message"; peers that
    # copy the trailer announce it with bits of their own, so its length is what tells.
    if reader.remaining == XTR_IDENTITY_OCTETS:
        with reader.at("xtr"):
            xtr = XtrIdentity.decode(reader)
    reader.expect_end()
    return nonce, records, authentication, xtr


@dataclass(frozen=True, slots=True)
class MapNotify(_Notification):
    """A Map-Notify: acknowledges a Map-Register or a subscription, or publishes a change.

    Attributes:
        nonce: of the Map-Register or Map-Request; one more for each publication (RFC 9437 §6).
        records: the mappings.
        authentication: of the message.
        xtr: the receiver's identity, from peers that copy the whole Map-Register.
    """

    @classmethod
    def decode(cls, reader: Reader) -> MapNotify:
        """Read one, from its first word."""
        return cls(*_decode_notification(reader))

    def encode(self, authentication: Authentication | None = None) -> bytes:
        """As `MapRegister.encode`."""
        return self._encode(MessageType.MAP_NOTIFY, authentication)


@dataclass(frozen=True, slots=True)
class MapNotifyAck(_Notification):
    """A Map-Notify-Ack: stops the retransmission of a Map-Notify; its attributes are the Map-Notify's."""

    @classmethod
    def decode(cls, reader: Reader) -> MapNotifyAck:
        """Read one, from its first word."""
        return cls(*_decode_notification(reader))

    def encode(self, authentication: Authentication | None = None) -> bytes:
        """As `MapRegister.encode`."""
        return self._encode(MessageType.MAP_NOTIFY_ACK, authentication)


def _encoded(message: MapRegister | _Notification, word: int, authentication: Authentication | None) -> bytes:
    parts = [HEAD.pack(word, message.nonce), (authentication or message.authentication).encode()]
    parts += [record.encode() for record in message.records]
    return b"".join(parts) + (message.xtr.encode() if message.xtr is not None else b"")
