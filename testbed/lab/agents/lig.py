"""The LISP Internet Groper (RFC 6835): `python -m testbed.lab.agents.lig MAP_RESOLVER EID`, in a node.

Asks as any ITR may: an Encapsulated Map-Request from a port of its own, the answer to that port. The xTR
of the node, if there is one, knows nothing of it.
"""

from __future__ import annotations

import argparse
import json
import secrets
import select
import socket
import sys
import time
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from testbed.errors import TestbedError
from testbed.lisp.actions import CONTROL_PORT, Address
from testbed.lisp.config import MAX_INSTANCE_ID
from testbed.lisp.wire import (
    Action,
    EidPrefix,
    EidRecord,
    EidRecordFlag,
    EncapsulatedControl,
    InstanceId,
    LocatorFlag,
    MapReply,
    MapRequest,
    RequestedEid,
    RlocRecord,
    WireError,
    decode_control,
    host_eid,
)

#: RFC 6835 §4.1: up to three Map-Requests; one a second is the limit of RFC 9301 §5.3.
TRANSMISSIONS = 3
INTERVAL_S = 1.0
LONGEST_DATAGRAM = 65_536


@dataclass(frozen=True, slots=True)
class Answer:
    """A Map-Reply to one of our requests.

    Attributes:
        reply: decoded.
        replier: the locator that it came from.
        rtt_ms: since the request with its nonce was sent.
        transmissions: requests sent so far.
    """

    reply: MapReply
    replier: Address
    rtt_ms: float
    transmissions: int


class NoAnswerError(TestbedError):
    """Nobody answered."""


class Groper:
    """One question; a pure part of `ask`, so that it can be tested without a network.

    Args:
        eid: that is asked for.
        rloc: ours, where the answer is to come.
        port: our UDP port.
        source_eid: of the request, or None.
        instance_id: of both EIDs (RFC 8060 §4.1).
    """

    def __init__(
        self, eid: Address, rloc: Address, port: int, source_eid: Address | None = None, instance_id: int = 0
    ) -> None:
        self._eid, self._rloc, self._port, self._source_eid = eid, rloc, port, source_eid
        self._instance_id = instance_id
        self._sent_ns: dict[int, int] = {}

    def request(self, nonce: int, now_ns: int) -> bytes:
        """A Map-Request to send at `now_ns`, under a random nonce."""
        self._sent_ns[nonce] = now_ns
        requested = RequestedEid(host_eid(self._eid, self._instance_id))
        in_instance = self._source_eid is not None and self._instance_id
        source = InstanceId(self._instance_id, self._source_eid) if in_instance else self._source_eid
        message = MapRequest(nonce, (self._rloc,), (requested,), source_eid=source)
        # The inner header is of the EID's family, whatever ours is.
        inner = next(
            (each for each in (self._rloc, self._source_eid) if each and each.version == self._eid.version), self._eid
        )
        return EncapsulatedControl(inner, self._eid, self._port, message.encode()).encode()

    def answer(self, payload: bytes, replier: Address, now_ns: int) -> Answer | None:
        """What came at `now_ns`, if it answers one of our requests."""
        try:
            reply = decode_control(payload)
        except WireError:
            return None
        if not isinstance(reply, MapReply) or reply.nonce not in self._sent_ns:
            return None
        return Answer(reply, replier, (now_ns - self._sent_ns[reply.nonce]) / 1e6, len(self._sent_ns))


def ask(
    resolver: Address,
    eid: Address,
    *,
    source_eid: Address | None = None,
    instance_id: int = 0,
    transmissions: int = TRANSMISSIONS,
    interval_s: float = INTERVAL_S,
) -> Answer:
    """Ask a Map-Resolver for an EID's mapping.

    Args:
        resolver: its address.
        eid: the question.
        source_eid: an EID of ours for the request, or None.
        instance_id: of both EIDs.
        transmissions: how often, if nothing comes.
        interval_s: between two.

    Raises NoAnswerError, and TestbedError if there is no way to the Map-Resolver.
    """
    family = socket.AF_INET if resolver.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as route:
        try:
            route.connect((str(resolver), CONTROL_PORT))
        except OSError as error:
            raise TestbedError("no-route", f"there is no way to {resolver}", why=error.strerror or "") from error
        rloc = ip_address(route.getsockname()[0])
    # Not connected to the Map-Resolver: an ETR's answer comes from elsewhere.
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.bind((str(rloc), 0))
        groper = Groper(eid, rloc, client.getsockname()[1], source_eid, instance_id)
        for _ in range(transmissions):
            now_ns = time.monotonic_ns()
            client.sendto(groper.request(secrets.randbits(64), now_ns), (str(resolver), CONTROL_PORT))
            end_ns = now_ns + round(interval_s * 1e9)
            while (left_ns := end_ns - time.monotonic_ns()) > 0 and select.select([client], [], [], left_ns / 1e9)[0]:
                payload, peer = client.recvfrom(LONGEST_DATAGRAM)
                answer = groper.answer(payload, ip_address(peer[0].split("%")[0]), time.monotonic_ns())
                if answer is not None:
                    return answer
    raise NoAnswerError(
        "no-map-reply",
        f"{resolver} did not answer {transmissions} Map-Requests for {_named(eid, instance_id)}",
        next_command="testbed inspect",
    )


def _named(eid: object, instance_id: int) -> str:
    return f"[{instance_id}]{eid}" if instance_id else str(eid)


def to_json(eid: Address, resolver: Address, answer: Answer, instance_id: int = 0) -> dict[str, Any]:
    """An answer as plain data."""
    return {
        "eid": str(eid),
        "instance_id": instance_id,
        "map_resolver": str(resolver),
        "replier": str(answer.replier),
        "rtt_ms": round(answer.rtt_ms, 3),
        "transmissions": answer.transmissions,
        "records": [_record(record) for record in answer.reply.records],
    }


def _record(record: EidRecord) -> dict[str, Any]:
    action = record.action.name if isinstance(record.action, Action) else str(record.action)
    return {
        "eid": str(record.eid.prefix) if isinstance(record.eid, EidPrefix) else str(record.eid),
        "instance_id": record.eid.instance_id if isinstance(record.eid, EidPrefix) else 0,
        "ttl_minutes": record.ttl_minutes,
        "authoritative": bool(record.flags & EidRecordFlag.AUTHORITATIVE),
        "map_version": record.map_version,
        "action": None if record.locators else action.lower().replace("_", "-"),
        "locators": [_locator(locator) for locator in record.locators],
    }


def _locator(locator: RlocRecord) -> dict[str, Any]:
    return {
        "rloc": str(locator.rloc),
        "state": "up" if locator.flags & LocatorFlag.REACHABLE else "down",
        "priority": locator.priority,
        "weight": locator.weight,
    }


def to_text(shown: dict[str, Any]) -> str:
    """An answer for people, in the manner of RFC 6835 §4.1."""
    lines = [f"Received map-reply from {shown['replier']} with rtt {shown['rtt_ms']:.3f} ms"]
    if shown["transmissions"] > 1:
        lines[0] += f" after {shown['transmissions']} map-requests"
    lines.append(f"Mapping entry for EID {_named(shown['eid'], shown['instance_id'])}:")
    for record in shown["records"]:
        about = ["auth" if record["authoritative"] else "proxied", f"TTL {record['ttl_minutes']} min"]
        if record["map_version"]:
            about.append(f"map-version {record['map_version']}")
        lines.append(f"{_named(record['eid'], record['instance_id'])}, via map-reply, {', '.join(about)}")
        if record["action"] is not None:
            lines.append(f"  negative: {record['action']}")
            continue
        lines.append(f"  {'Locator':<39}  State  Priority/Weight")
        for each in record["locators"]:
            lines.append(f"  {each['rloc']:<39}  {each['state']:<5}  {each['priority']}/{each['weight']}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Ask and print; 0 with an answer, 10 without."""
    parser = argparse.ArgumentParser(prog="lig", description="Ask the mapping system for an EID (RFC 6835).")
    parser.add_argument("map_resolver", type=ip_address)
    parser.add_argument("eid", type=ip_address)
    parser.add_argument("--source", type=ip_address, help="an EID of this site for the request")
    parser.add_argument("--instance-id", type=int, default=0, help="of the EIDs; 24 bits")
    parser.add_argument("--count", type=int, choices=range(1, 6), default=TRANSMISSIONS, help="Map-Requests at most")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    if not 0 <= given.instance_id <= MAX_INSTANCE_ID:
        parser.error(f"argument --instance-id: {given.instance_id} is out of range; allowed: 0 to {MAX_INSTANCE_ID}")
    about = {"source_eid": given.source, "instance_id": given.instance_id}
    try:
        answer = ask(given.map_resolver, given.eid, **about, transmissions=given.count)
    except NoAnswerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 10
    except TestbedError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    shown = to_json(given.eid, given.map_resolver, answer, given.instance_id)
    print(json.dumps(shown, indent=2) if given.json else to_text(shown))
    return 0


if __name__ == "__main__":
    sys.exit(main())
