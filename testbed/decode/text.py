"""LISP packets as text: one line a message, its details indented below. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from testbed.decode.fields import Fields
from testbed.decode.packet import LispPacket

#: 10000-01-01T00:00:00Z.
_YEAR_10000_NS = 253_402_300_800_000_000_000


def render(packet: LispPacket) -> str:
    """The packet as text, several lines without the last line's end."""
    where = f" {packet.interface}" if packet.interface else ""
    source, destination = (
        _endpoint(packet.source, packet.source_port),
        _endpoint(packet.destination, packet.destination_port),
    )
    summary = _summary(packet.message)
    lines = [f"{packet.frame} {_time(packet.wall_ns)}{where} {source} > {destination} {summary}"]
    lines += [f"    {line}" for line in _details(packet.message)]
    if packet.malformed is not None:
        lines.append(f"    {packet.malformed}")
    lines += [f"    note: {note}" for note in packet.notes]
    return "\n".join(lines)


def _time(wall_ns: int) -> str:
    """UTC with nanoseconds, which datetime does not hold."""
    if not wall_ns:
        return "-"
    if not 0 < wall_ns < _YEAR_10000_NS:
        return f"{wall_ns}ns"  # damage, or a clock of its own; datetime ends here
    moment = datetime.fromtimestamp(wall_ns // 1_000_000_000, tz=timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{wall_ns % 1_000_000_000:09d}Z"


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _summary(message: Fields) -> str:
    """Type, flags, nonce and what it is about, of the message and those in it."""
    parts = [str(message["type"])]
    if message.get("flags"):
        parts.append(f"[{''.join(message['flags'])}]")
    if "nonce" in message:
        parts.append(f"nonce {message['nonce']}")
    if message["type"] == "Data":
        if "instance_id" in message:
            parts.append(f"instance {message['instance_id']}")
        if "inner" in message:
            parts.append(_inner_packet(message["inner"]))
        return " ".join(parts)
    parts += [_eid(record) for record in message.get("records", ())]
    if "eid_prefix" in message:
        parts.append(_eid(message))
    if "inner" in message:
        parts.append(f"({_summary(message['inner'])})")
    return " ".join(parts)


def _inner_packet(inner: Fields) -> str:
    ends = [inner["source_eid"], inner["destination_eid"]]
    if "source_port" in inner:
        ends = [_endpoint(ends[0], inner["source_port"]), _endpoint(ends[1], inner["destination_port"])]
    text = f"{ends[0]} > {ends[1]} {inner['protocol']}"
    if "icmp_sequence" in inner:
        text += f" type {inner['icmp_type']} id {inner['icmp_identifier']} seq {inner['icmp_sequence']}"
    return text


def _eid(record: Fields) -> str:
    prefix = _value(record["eid_prefix"])
    if "eid_mask_len" in record:
        prefix = f"{prefix}/{record['eid_mask_len']}"
    return f"[{record['instance_id']}]{prefix}" if record.get("instance_id") else prefix


def _value(value: Any) -> str:
    """Any field's value on one line."""
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return ", ".join(_value(inner) for inner in value)
    return str(value)


#: Fields that the summary shows or that have lines of their own.
_SHOWN = {
    *("type", "flags", "nonce", "records", "map_reply_record", "inner"),
    *("eid_prefix", "eid_mask_len", "instance_id"),
    *("inner_source", "inner_source_port", "inner_destination", "inner_destination_port"),
    *("key_id", "algorithm_id", "algorithm"),
}


def _details(message: Fields) -> Iterator[str]:
    if "inner_source" in message:
        source = _endpoint(message["inner_source"], message["inner_source_port"])
        destination = _endpoint(message["inner_destination"], message["inner_destination_port"])
        yield f"inner: {source} > {destination}"
    if "key_id" in message and "algorithm_id" in message:
        algorithm = message["algorithm"] or "unassigned"
        yield f"key ID {message['key_id']}, algorithm ID {message['algorithm_id']} ({algorithm})"
    for key, value in message.items():
        if key not in _SHOWN and value not in ("", []):
            yield f"{key.replace('_', ' ')}: {_value(value)}"
    for record in message.get("records", ()):
        yield from _record("record", record)
    if "map_reply_record" in message:
        yield from _record("map-reply record", message["map_reply_record"])
    if message["type"] != "Data" and "inner" in message:
        yield from (f"    {line}" for line in _details(message["inner"]))


def _record(title: str, record: Fields) -> Iterator[str]:
    parts = [title, _eid(record)]
    if record["flags"]:
        parts.append(f"[{''.join(record['flags'])}]")
    if "record_ttl_minutes" in record:
        parts.append(f"TTL {record['record_ttl_minutes']} min")
        parts.append(f"ACT {record['act']}")
    if record.get("map_version_number"):
        parts.append(f"map-version {record['map_version_number']}")
    yield " ".join(parts)
    for kind in ("locators", "referrals"):
        for locator in record.get(kind, ()):
            flags = "".join(locator["flags"]) or "-"
            yield (
                f"    {kind[:-1]} {_value(locator['locator'])} [{flags}] "
                f"priority {locator['priority']} weight {locator['weight']} "
                f"multicast {locator['m_priority']}/{locator['m_weight']}"
            )
    for signature in record.get("signatures", ()):
        yield f"    signature {_value(signature)}"
