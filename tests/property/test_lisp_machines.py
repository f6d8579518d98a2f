"""No sequence of messages, genuine or not, raises anything in a Map-Server or an xTR.

What the nodes of a network in memory send each other is mutated on its way: octets, and, under the right secret, nonces
at the edges of their field, flags, identities and records. Whoever gets it must go on.
"""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from testbed.lisp.actions import SECOND_NS, Address
from testbed.lisp.inputs import ControlReceived
from testbed.lisp.nonces import HIGHEST_NONCE, LAST_NONCE
from testbed.lisp.wire import (
    EidPrefix,
    EidRecord,
    EncapsulatedControl,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    MapRequest,
    MapRequestFlag,
    RequestedEid,
    RlocRecord,
    WireError,
    XtrIdentity,
    decode_control,
)
from tests.property.test_wire import mutated, with_right_sum
from tests.unit.lisp_network import CORRESPONDENT, EID, MS_NS, RLOCS, Network, packet_to, site_secret

NONCES = (0, 1, 1 << 32, 1 << 63, HIGHEST_NONCE - 1, HIGHEST_NONCE, HIGHEST_NONCE + 1, LAST_NONCE - 1, LAST_NONCE)
PREFIXES = tuple(
    EidPrefix(ip_network(text), instance_id)
    for text in (
        "0.0.0.0/0",
        "192.168.0.0/24",
        "192.168.0.10/32",
        "192.168.0.1/32",
        "192.168.3.7/32",
        "10.0.0.2/32",
        "::/0",
    )
    for instance_id in (0, 1)
)
NAMES = {rloc: name for name, rloc in RLOCS.items()}


def changed_record(record: EidRecord, chance: random.Random) -> EidRecord:
    locators = chance.choice(
        [
            (),
            record.locators,
            tuple(RlocRecord(rloc) for rloc in RLOCS.values()),
            (RlocRecord(ip_address("2001:db8::1")),),
        ]
    )
    eid = chance.choice([record.eid, *PREFIXES])
    return replace(
        record, eid=eid, locators=locators, ttl_minutes=chance.choice([0, 1, record.ttl_minutes, 0xFFFFFFFF])
    )


def changed(message: Any, chance: random.Random) -> Any:
    """A message of the same type with other contents, of those that somebody with the secret could write."""
    if isinstance(message, EncapsulatedControl):
        inner = message.message
        return replace(message, payload=changed(inner, chance).encode()) if isinstance(inner, MapRequest) else message
    if not isinstance(message, MapRequest | MapReply | MapRegister | MapNotify | MapNotifyAck):
        return message
    if chance.random() < 0.5:
        message = replace(message, nonce=chance.choice(NONCES))
    if isinstance(message, MapRequest):
        requests = message.requests
        if chance.random() < 0.5:
            requests = tuple(
                RequestedEid(chance.choice([*PREFIXES, each.eid]), notify=chance.random() < 0.5) for each in requests
            ) * chance.choice([1, 3])
        xtr = chance.choice([message.xtr, XtrIdentity(3), XtrIdentity(1)])
        rlocs = chance.choice([message.itr_rlocs, (None,), tuple(RLOCS.values())])
        flags = chance.choice([message.flags, MapRequestFlag.SMR | MapRequestFlag.DONT_MAP_REPLY, MapRequestFlag.PROBE])
        return replace(message, requests=requests, xtr=xtr, itr_rlocs=rlocs, flags=flags)
    if chance.random() < 0.5:
        return replace(message, records=tuple(changed_record(each, chance) for each in message.records))
    return message


def forged(payload: bytes, source: Address, destination: Address, chance: random.Random) -> bytes:
    """A mutation of a datagram, sealed again as its sender does if it was sealed."""
    if chance.random() < 0.3:
        payload = with_right_sum(mutated(payload, chance))
    try:
        message: Any = decode_control(payload)
        message = changed(message, chance)
    except WireError:
        return payload
    if isinstance(message, MapRegister | MapNotify | MapNotifyAck):
        site = NAMES.get(source) or NAMES[destination]
        return site_secret(site).seal(message)
    return bytes(message.encode())


@pytest.mark.parametrize("mechanism", ["smr-old-xtr", "smr-map-server", "pubsub", "map-version", "rloc-probe"])
@pytest.mark.parametrize("seed", range(6))
def test_whatever_comes_nothing_raises(mechanism: str, seed: int) -> None:
    chance = random.Random(f"{mechanism} {seed}")
    network = Network(mechanism, instances=(seed % 2,))
    forgeries = 0

    def faults(source: Address, destination: Address, payload: bytes, count: int) -> list[int]:
        nonlocal forgeries
        for _ in range(chance.choice([0, 1, 2, 4])):
            data, target = forged(payload, source, destination, chance), network.by_rloc[destination]
            forgeries += 1
            network.at(
                network.now + chance.choice([1, 12, 900]) * MS_NS,
                lambda data=data, target=target: network.give(target.name, ControlReceived(data, source, 4342)),
            )
        return [10 * MS_NS]

    network.faults = faults
    for step in range(80):
        network.really_at = site = chance.choice(["xtr-a", "xtr-b"])
        network.sight(site)
        network.send("xtr-c", packet_to(EID), source=CORRESPONDENT)
        network.send(site, packet_to(CORRESPONDENT), eid=CORRESPONDENT, source=EID)
        if step % 13 == 12:
            network.restart_map_server()
        network.run_for(chance.choice([50 * MS_NS, SECOND_NS, 20 * SECOND_NS]))
    assert forgeries > 60
    for node in network.nodes.values():
        node.machine.inspect(network.now)
