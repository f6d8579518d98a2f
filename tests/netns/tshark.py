"""What Wireshark's dissector says of the LISP packets of a capture, by frame, in the shape of `testbed.decode`.

Of each packet only what its dissector (of RFC 6830 and later drafts) reads as RFC 9300 and 9301 do.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from testbed.decode import LispPacket

#: RFC 9301's types of messages. A Map-Notify-Ack is unknown to it, so that only its type is compared.
TYPES = {
    "Map-Request": 1,
    "Map-Reply": 2,
    "Map-Register": 3,
    "Map-Notify": 4,
    "Map-Notify-Ack": 5,
    "Encapsulated-Control-Message": 8,
}
FIELDS = (
    "frame.number",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "lisp-data.flags",
    "lisp-data.nonce",
    "lisp-data.iid",
    "lisp.type",
    "lisp.nonce",
    "lisp.mapping.eid.ipv4",
    "lisp.mapping.eid.ipv6",
    "lisp.mapping.eid.masklen",
    "lisp.loc.locator",
    "lisp.lcaf.iid",
    "lisp.lcaf.iid.ipv4",
    "lisp.lcaf.iid.ipv6",
    "lisp.mreq.record.prefix.ipv4",
    "lisp.mreq.record.prefix.ipv6",
    "lisp.mreq.record.prefix.length",
    "lisp.mreq.itr_rloc_ipv4",
    "lisp.mreq.itr_rloc_ipv6",
)
FLAG_BITS = {"N": 0x80, "L": 0x40, "E": 0x20, "V": 0x10, "I": 0x08}


def dissected(capture: Path) -> dict[int, dict[str, list[str]]]:
    """Frame number → field → its values in the order of the frame, those that are there."""
    command = ["tshark", "-r", str(capture), "-Y", "lisp or lisp-data", "-T", "fields", "-E", "separator=|"]
    for field in FIELDS:
        command += ["-e", field]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    rows = [dict(zip(FIELDS, line.split("|"), strict=True)) for line in lines]
    return {int(row["frame.number"]): {k: v.split(",") for k, v in row.items() if v} for row in rows}


def differences(ours: LispPacket, theirs: dict[str, list[str]]) -> list[str]:
    """Where the two disagree about a packet."""
    found = []
    for field, expected in _expected(ours):
        said = theirs.get(field, [])
        said = said[: len(expected)] if field.startswith("ip") else said  # an ICMP error quotes further headers
        if [_plain(value) for value in said] != [_plain(value) for value in expected]:
            found.append(f"frame {ours.frame}, {field}: {said}, not {expected}")
    return found


def _plain(value: str) -> str | int:
    return int(value, 0) if value.startswith("0x") or value.isdigit() else value


def _expected(packet: LispPacket) -> Iterator[tuple[str, list[str]]]:
    message = packet.message
    pairs = [(packet.source, packet.destination)]
    if packet.plane == "data":
        inner = message["inner"]
        pairs.append((inner["source_eid"], inner["destination_eid"]))
        yield "lisp-data.flags", [str(sum(FLAG_BITS[letter] for letter in message["flags"]))]
        yield "lisp-data.nonce", [message["nonce"]] if "nonce" in message else []
        yield "lisp-data.iid", [str(message["instance_id"])] if "instance_id" in message else []
    else:
        types = [TYPES[message["type"]]]
        if "inner" in message:
            pairs.append((message["inner_source"], message["inner_destination"]))
            message = message["inner"]
            types.append(TYPES[message["type"]])
        yield "lisp.type", [str(kind) for kind in types]
        if message["type"] != "Map-Notify-Ack":
            yield "lisp.nonce", [message["nonce"]]
            yield from _records(message)
    for version, name in ((4, "ip"), (6, "ipv6")):
        of_family = [pair for pair in pairs if ip_address(pair[0]).version == version]
        yield f"{name}.src", [source for source, _ in of_family]
        yield f"{name}.dst", [destination for _, destination in of_family]


def _records(message: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    source = message.get("source_eid")
    in_lcafs = [(source["instance_id"], source["address"])] if isinstance(source, dict) else []
    prefixes = [record["eid_prefix"].split("/") for record in message["records"]]
    instances = [record["instance_id"] for record in message["records"]]
    in_lcafs += [(iid, eid) for iid, (eid, _) in zip(instances, prefixes, strict=True) if iid]
    yield "lisp.lcaf.iid", [str(instance_id) for instance_id, _ in in_lcafs]
    bare = [eid for iid, (eid, _) in zip(instances, prefixes, strict=True) if not iid]
    if message["type"] == "Map-Request":
        name, lengths = "lisp.mreq.record.prefix", "lisp.mreq.record.prefix.length"
        for version in (4, 6):
            rlocs = [rloc for rloc in message["itr_rlocs"] if ip_address(rloc).version == version]
            yield f"lisp.mreq.itr_rloc_ipv{version}", rlocs
    else:
        name, lengths = "lisp.mapping.eid", "lisp.mapping.eid.masklen"
        yield "lisp.loc.locator", [each["locator"] for record in message["records"] for each in record["locators"]]
    for version in (4, 6):
        yield f"{name}.ipv{version}", [eid for eid in bare if ip_address(eid).version == version]
        yield f"lisp.lcaf.iid.ipv{version}", [eid for _, eid in in_lcafs if ip_address(eid).version == version]
    yield lengths, [length for _, length in prefixes]
