"""Messages as JSON-able dictionaries, with the field names of the RFCs. Pure.

Nonces, IDs and authentication data are hexadecimal strings: JSON's numbers lose 64-bit integers. Flags
are lists of the letters in the RFCs' figures. AFI 0 is null.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any

from testbed.lisp.wire import (
    Action,
    Address,
    AfiList,
    AlgorithmId,
    Authentication,
    DataHeader,
    Eid,
    EidPrefix,
    EidRecord,
    EidRecordFlag,
    EncapsulatedControl,
    EncapsulatedControlFlag,
    ExplicitLocatorPath,
    HopFlag,
    Info,
    InstanceId,
    LcafType,
    LocatorFlag,
    MapNotify,
    MapNotifyAck,
    MapReferral,
    MapRegister,
    MapRegisterFlag,
    MapReply,
    MapReplyFlag,
    MapRequest,
    MapRequestFlag,
    Message,
    NatTraversal,
    OpaqueAddress,
    OpaqueLcaf,
    OpaqueMessage,
    ReferralAction,
    ReferralRecord,
    ReplicationList,
    RlocRecord,
    SourceDestination,
    XtrIdentity,
)

Fields = dict[str, Any]

#: The flags' letters in the RFCs' figures, in the order in which the enums name them.
_FLAG_LETTERS: dict[type[IntFlag], str] = {
    MapRequestFlag: "AMPSpsILD",
    MapReplyFlag: "PES",
    MapRegisterFlag: "PSIETaRM",
    EncapsulatedControlFlag: "SDEM",
    EidRecordFlag: "AI",
    LocatorFlag: "LpR",
    HopFlag: "LPS",
}

_MESSAGE_NAMES: dict[type[Message], str] = {
    MapRequest: "Map-Request",
    MapReply: "Map-Reply",
    MapRegister: "Map-Register",
    MapNotify: "Map-Notify",
    MapNotifyAck: "Map-Notify-Ack",
    MapReferral: "Map-Referral",
    EncapsulatedControl: "Encapsulated-Control-Message",
}
_ACTIONS = {
    Action.NO_ACTION: "No-Action",
    Action.NATIVELY_FORWARD: "Natively-Forward",
    Action.SEND_MAP_REQUEST: "Send-Map-Request",
    Action.DROP_NO_REASON: "Drop/No-Reason",
    Action.DROP_POLICY_DENIED: "Drop/Policy-Denied",
    Action.DROP_AUTH_FAILURE: "Drop/Auth-Failure",
}
_ALGORITHMS = {
    AlgorithmId.NONE: "None",
    AlgorithmId.HMAC_SHA_1_96: "HMAC-SHA-1-96-None",
    AlgorithmId.HMAC_SHA_256_128: "HMAC-SHA-256-128-None",
    AlgorithmId.HMAC_SHA_256_128_HKDF: "HMAC-SHA256-128+HKDF-SHA256",
}


def flag_letters(flags: IntFlag) -> list[str]:
    """The letters of the flags that are set."""
    members = [member for member in type(flags).__members__.values() if member]
    return [letter for member, letter in zip(members, _FLAG_LETTERS[type(flags)], strict=True) if member & flags]


def _hexadecimal(value: int, bits: int) -> str:
    return f"0x{value:0{bits // 4}x}"


def _kebab(code: int) -> str | int:
    """An enum member as "Delegation-Hole"; an unassigned code as it is."""
    return code.name.replace("_", "-").title() if isinstance(code, IntEnum) else code


def address_fields(address: Address) -> Any:
    """An address: a string, null for AFI 0, or an object for the others."""
    if address is None:
        return None
    if isinstance(address, InstanceId):
        fields: Fields = {"lcaf": "Instance ID", "instance_id": address.instance_id}
        if address.address is None:
            fields["iid_mask_len"] = address.mask_length
        return fields | {"address": address_fields(address.address)}
    if isinstance(address, AfiList):
        return {"lcaf": "AFI List", "addresses": [address_fields(inner) for inner in address.addresses]}
    if isinstance(address, NatTraversal):
        return {
            "lcaf": "NAT-Traversal",
            "ms_udp_port_number": address.map_server_port,
            "etr_udp_port_number": address.etr_port,
            "global_etr_rloc_address": address_fields(address.global_etr_rloc),
            "ms_rloc_address": address_fields(address.map_server_rloc),
            "private_etr_rloc_address": address_fields(address.private_etr_rloc),
            "rtr_rloc_addresses": [address_fields(rloc) for rloc in address.rtr_rlocs],
        }
    if isinstance(address, ExplicitLocatorPath):
        hops = [{"reencap_hop": address_fields(hop.address), "flags": flag_letters(hop.flags)} for hop in address.hops]
        return {"lcaf": "Explicit Locator Path", "reencap_hops": hops}
    if isinstance(address, SourceDestination):
        return {
            "lcaf": "Source/Dest Key",
            "source_prefix": address_fields(address.source),
            "source_ml": address.source_mask_length,
            "destination_prefix": address_fields(address.destination),
            "dest_ml": address.destination_mask_length,
        }
    if isinstance(address, ReplicationList):
        entries = [{"level_value": entry.level, "rtr_etr": address_fields(entry.address)} for entry in address.entries]
        return {"lcaf": "Replication List Entry", "entries": entries}
    if isinstance(address, OpaqueLcaf):
        kind = address.lcaf_type
        name = LcafType(kind).name if kind in LcafType.__members__.values() else kind
        return {"lcaf": name, "payload": address.body.hex()}
    if isinstance(address, OpaqueAddress):
        return {"afi": address.afi, "address": address.body.hex()}
    return str(address)


def eid_fields(eid: Eid) -> Fields:
    """An EID: prefix and instance, or the mask length and whatever the address is."""
    if isinstance(eid, EidPrefix):
        return {"eid_prefix": str(eid.prefix), "instance_id": eid.instance_id}
    return {"eid_prefix": address_fields(eid.address), "eid_mask_len": eid.mask_length}


def _locator_fields(locator: RlocRecord) -> Fields:
    return {
        "locator": address_fields(locator.rloc),
        "priority": locator.priority,
        "weight": locator.weight,
        "m_priority": locator.multicast_priority,
        "m_weight": locator.multicast_weight,
        "flags": flag_letters(locator.flags),
    }


def record_fields(record: EidRecord) -> Fields:
    """An EID-record."""
    return {
        **eid_fields(record.eid),
        "record_ttl_minutes": record.ttl_minutes,
        "act": _ACTIONS.get(Action(record.action)) if isinstance(record.action, Action) else record.action,
        "flags": flag_letters(record.flags),
        "map_version_number": record.map_version,
        "locators": [_locator_fields(locator) for locator in record.locators],
    }


def _referral_fields(record: ReferralRecord) -> Fields:
    action = record.action
    return {
        **eid_fields(record.eid),
        "record_ttl_minutes": record.ttl_minutes,
        "act": action.name.replace("_", "-") if isinstance(action, ReferralAction) else action,
        "flags": flag_letters(record.flags),
        "map_version_number": record.map_version,
        "referrals": [_locator_fields(locator) for locator in record.locators],
        "signatures": [
            {
                "original_record_ttl_minutes": signature.original_ttl_minutes,
                "signature_expiration_s": signature.expiration_s,
                "signature_inception_s": signature.inception_s,
                "key_tag": signature.key_tag,
                "sig_algorithm": signature.algorithm,
                "signature": signature.signature.hex(),
            }
            for signature in record.signatures
        ],
    }


def _authentication_fields(authentication: Authentication) -> Fields:
    algorithm = authentication.algorithm_id
    return {
        "key_id": authentication.key_id,
        "algorithm_id": int(algorithm),
        "algorithm": _ALGORITHMS.get(AlgorithmId(algorithm)) if isinstance(algorithm, AlgorithmId) else None,
        "authentication_data": authentication.data.hex(),
    }


def _identity_fields(xtr: XtrIdentity | None) -> Fields:
    if xtr is None:
        return {}
    return {"xtr_id": _hexadecimal(xtr.xtr_id, 128), "site_id": _hexadecimal(xtr.site_id, 64)}


def message_fields(message: Message) -> Fields:
    """A control message; of an encapsulated one the outside, without what is in it."""
    if isinstance(message, OpaqueMessage):
        return {"type": _kebab(message.message_type), "data": message.data.hex()}
    if isinstance(message, Info):
        return {
            "type": "Info-Reply" if message.is_reply else "Info-Request",
            "nonce": _hexadecimal(message.nonce, 64),
            **_authentication_fields(message.authentication),
            "ttl_minutes": message.ttl_minutes,
            **eid_fields(message.eid),
            "nat": address_fields(message.nat),
        }
    fields: Fields = {"type": _MESSAGE_NAMES[type(message)]}
    if isinstance(message, MapRequest | MapReply | MapRegister | EncapsulatedControl):
        fields["flags"] = flag_letters(message.flags)
    if isinstance(message, EncapsulatedControl):
        fields["inner_source"] = str(message.source)
        fields["inner_source_port"] = message.source_port
        fields["inner_destination"] = str(message.destination)
        fields["inner_destination_port"] = message.destination_port
        return fields | ({"authentication_data": message.security.hex()} if message.security else {})
    fields["nonce"] = _hexadecimal(message.nonce, 64)
    if isinstance(message, MapRequest):
        fields["source_eid"] = address_fields(message.source_eid)
        fields["itr_rlocs"] = [address_fields(rloc) for rloc in message.itr_rlocs]
        fields["records"] = [
            {**eid_fields(request.eid), "flags": ["N"] if request.notify else []} for request in message.requests
        ]
        if message.map_reply_record is not None:
            fields["map_reply_record"] = record_fields(message.map_reply_record)
        return fields | _identity_fields(message.xtr)
    if isinstance(message, MapReferral):
        return fields | {"records": [_referral_fields(record) for record in message.records]}
    if isinstance(message, MapReply):
        fields["records"] = [record_fields(record) for record in message.records]
        return fields | ({"authentication_data": message.security.hex()} if message.security else {})
    fields |= _authentication_fields(message.authentication)
    fields["records"] = [record_fields(record) for record in message.records]
    return fields | _identity_fields(message.xtr)


def data_header_fields(header: DataHeader) -> Fields:
    """The header of a data packet; fields that no bit announces are left out."""
    letters = {
        "N": header.nonce is not None,
        "L": header.locator_status_bits is not None,
        "E": header.echo_nonce,
        "V": header.source_map_version is not None,
        "I": header.instance_id is not None,
    }
    fields: Fields = {"type": "Data", "flags": [letter for letter, is_set in letters.items() if is_set]}
    if header.nonce is not None:
        fields["nonce"] = _hexadecimal(header.nonce, 24)
    if header.source_map_version is not None:
        fields["source_map_version"] = header.source_map_version
        fields["dest_map_version"] = header.destination_map_version
    if header.instance_id is not None:
        fields["instance_id"] = header.instance_id
    if header.locator_status_bits is not None:
        bits = 32 if header.instance_id is None else 8
        fields["locator_status_bits"] = _hexadecimal(header.locator_status_bits, bits)
    if header.key_id:
        fields["key_id"] = header.key_id
    return fields
