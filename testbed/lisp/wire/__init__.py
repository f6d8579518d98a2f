"""The LISP wire format (RFC 9300, 9301, 9302, 8060, 8111, 9437): octets to records and back. Pure.

`decode_control(data)` and `message.encode()` are the control plane, `DataHeader` the data plane. The
one error on receipt is `WireError`; a record that cannot be encoded raises ValueError.

Where the RFCs leave room:

- Reserved bits are ignored on receipt and zero on transmit. Unassigned code points (actions, algorithms,
  types of LCAFs and messages) survive a round trip.
- Octets after the end of a message are an error, and so is an AFI whose length nobody knows.
- Bits of an EID-prefix beyond its mask are cleared silently.
- The mask length of an EID in an instance is that of the address alone.
- An inner UDP checksum of zero in an ECM is an error, unless `allow_zero_checksum` is given.
"""

from testbed.lisp.wire.address import (
    Address,
    AfiList,
    ExplicitLocatorPath,
    InstanceId,
    NatTraversal,
    OpaqueAddress,
    OpaqueLcaf,
    ReencapsulationHop,
    ReplicationEntry,
    ReplicationList,
    SourceDestination,
)
from testbed.lisp.wire.codes import (
    CONTROL_PORT,
    DATA_PORT,
    PRIORITY_UNUSABLE,
    TTL_LOCAL_DECISION,
    Action,
    Afi,
    AlgorithmId,
    EidRecordFlag,
    EncapsulatedControlFlag,
    HopFlag,
    LcafType,
    LocatorFlag,
    MapRegisterFlag,
    MapReplyFlag,
    MapRequestFlag,
    MessageType,
    ReferralAction,
)
from testbed.lisp.wire.control import EncapsulatedControl, Message, OpaqueMessage, decode_control
from testbed.lisp.wire.data import DATA_HEADER_OCTETS, DataHeader
from testbed.lisp.wire.info import Info
from testbed.lisp.wire.mapping import MapReply, MapRequest, RequestedEid, XtrIdentity
from testbed.lisp.wire.reader import Reader, WireError
from testbed.lisp.wire.record import (
    MAX_LOCATORS,
    MAX_RECORDS,
    Eid,
    EidPrefix,
    EidRecord,
    OtherEid,
    RlocRecord,
    host_eid,
    in_wire_order,
)
from testbed.lisp.wire.referral import MapReferral, ReferralRecord, ReferralSignature
from testbed.lisp.wire.registration import Authentication, MapNotify, MapNotifyAck, MapRegister

__all__ = [
    "CONTROL_PORT",
    "DATA_HEADER_OCTETS",
    "DATA_PORT",
    "MAX_LOCATORS",
    "MAX_RECORDS",
    "PRIORITY_UNUSABLE",
    "TTL_LOCAL_DECISION",
    "Action",
    "Address",
    "Afi",
    "AfiList",
    "AlgorithmId",
    "Authentication",
    "DataHeader",
    "Eid",
    "EidPrefix",
    "EidRecord",
    "EidRecordFlag",
    "EncapsulatedControl",
    "EncapsulatedControlFlag",
    "ExplicitLocatorPath",
    "HopFlag",
    "Info",
    "InstanceId",
    "LcafType",
    "LocatorFlag",
    "MapNotify",
    "MapNotifyAck",
    "MapReferral",
    "MapRegister",
    "MapRegisterFlag",
    "MapReply",
    "MapReplyFlag",
    "MapRequest",
    "MapRequestFlag",
    "Message",
    "MessageType",
    "NatTraversal",
    "OpaqueAddress",
    "OpaqueLcaf",
    "OpaqueMessage",
    "OtherEid",
    "Reader",
    "ReencapsulationHop",
    "ReferralAction",
    "ReferralRecord",
    "ReferralSignature",
    "ReplicationEntry",
    "ReplicationList",
    "RequestedEid",
    "RlocRecord",
    "SourceDestination",
    "WireError",
    "XtrIdentity",
    "decode_control",
    "host_eid",
    "in_wire_order",
]
