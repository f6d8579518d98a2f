"""How fast the mapping system is and how it grows: registrations, look-ups, publications, memory.

The Map-Server's state machine is driven as its agent drives it, message by message and with a look at
the next deadline after each, without sockets: what is measured is the work per message. Every figure
comes with the size it was taken at; what matters is how it grows.
"""

from __future__ import annotations

import gc
import itertools
import random
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError
from testbed.lisp.actions import CONTROL_PORT, Action, SendControl, host_prefix
from testbed.lisp.config import MapServerConfig, MapServerOptions, SiteConfig
from testbed.lisp.inputs import ControlReceived
from testbed.lisp.map_server import MapServer
from testbed.lisp.mechanisms import mechanism_named
from testbed.lisp.nonces import LOWEST_SUBSCRIPTION_NONCE
from testbed.lisp.sealing import Secret
from testbed.lisp.wire import (
    EidPrefix,
    EidRecord,
    EncapsulatedControl,
    LocatorFlag,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapRegisterFlag,
    MapRequest,
    RequestedEid,
    RlocRecord,
    XtrIdentity,
    decode_control,
)

SIZES = (1_000, 100_000, 1_000_000)
SUBSCRIBERS = (1, 10, 100, 1_000)
MAP_SERVER = IPv4Address("10.255.0.1")
#: Room for 2^24 single EIDs, the dynamic prefix of two sites.
EIDS = IPv4Network("100.0.0.0/8")
RECORDS_A_MESSAGE = 200
PORT = 40_000
#: The bit of a locator that says which site it is of; below it is the xTR.
SITE_SHIFT = 20
SUBSCRIBER_LIMIT = 1 << 16
ROUNDS = 5
#: Nobody refreshes while it is measured.
LIFETIME_S = 86_400.0
#: How many EIDs move at each size.
MOVES = 200
#: How many messages of a kind are timed at each size.
SAMPLE = 2_000


class Messages:
    """What the xTRs of two sites, a and b, that share the EIDs say to a Map-Server."""

    def __init__(self) -> None:
        self.sites = tuple(SiteConfig(name, (), (EIDS,), Secret(0, name.encode() * 8)) for name in "ab")
        self._nonces = itertools.count(1)

    def registration(
        self, site: int, eids: Iterable[IPv4Address], *, xtr: int = 1, want_notify: bool = True
    ) -> tuple[bytes, IPv4Address]:
        """A sealed Map-Register of an xTR of a site, and its locator."""
        rloc = locator(site, xtr)
        locators = (RlocRecord(rloc, flags=LocatorFlag.REACHABLE | LocatorFlag.LOCAL),)
        records = tuple(EidRecord(EidPrefix(host_prefix(eid)), 1440, locators) for eid in eids)
        flags = MapRegisterFlag.PROXY_REPLY
        if want_notify:
            flags |= MapRegisterFlag.WANT_MAP_NOTIFY
        message = MapRegister(next(self._nonces), records, flags=flags, xtr=identity(site, xtr))
        return self.sites[site].secret.seal(message), rloc

    def request(self, eid: IPv4Address, *, subscriber: int | None = None) -> tuple[bytes, IPv4Address]:
        """An encapsulated Map-Request, and its sender's locator; with `subscriber`, that xTR of site b subscribes."""
        rloc = locator(1, subscriber or 1)
        xtr = identity(1, subscriber) if subscriber is not None else None
        asked = RequestedEid(EidPrefix(host_prefix(eid)), notify=subscriber is not None)
        request = MapRequest(LOWEST_SUBSCRIPTION_NONCE + next(self._nonces), (rloc,), (asked,), xtr=xtr).encode()
        return EncapsulatedControl(rloc, eid, PORT, request).encode(), rloc

    def acknowledgement(self, payload: bytes, receiver: IPv4Address) -> bytes | None:
        """What the receiver of a Map-Notify answers, or None if that is none."""
        told = decode_control(payload)
        if not isinstance(told, MapNotify):
            return None
        secret = self.sites[int(receiver) >> SITE_SHIFT & 1].secret
        return secret.seal(MapNotifyAck(told.nonce, told.records))


class Bench(Messages):
    """A Map-Server that these are given to, and the time that it spends.

    Args:
        mechanism: of the Map-Server.
    """

    def __init__(self, mechanism: str = "pubsub") -> None:
        super().__init__()
        options = MapServerOptions(registration_lifetime_s=LIFETIME_S, map_reply_interval_s=0)
        config = MapServerConfig(MAP_SERVER, self.sites, mechanism_named(mechanism), options)
        numbers = random.Random(1)
        self.machine = MapServer(config, saved={}, random64=lambda: numbers.getrandbits(64))

    def give(self, payload: bytes, source: IPv4Address) -> list[Action]:
        """One datagram, as the agent's event loop gives it."""
        now = time.monotonic_ns()
        actions = self.machine.handle(ControlReceived(payload, source, CONTROL_PORT), now)
        self.machine.next_deadline()
        return actions

    def acknowledgements(self, actions: Iterable[Action], mover: IPv4Address) -> list[tuple[bytes, IPv4Address]]:
        """What the receivers of a move's Map-Notifies answer, and their locators; the mover's is itself an answer."""
        answers = []
        for action in actions:
            if not isinstance(action, SendControl) or not isinstance(action.destination, IPv4Address):
                continue
            ack = self.acknowledgement(action.payload, action.destination)
            if ack is not None and action.destination != mover:
                answers.append((ack, action.destination))
        return answers

    def move(self, payload: bytes, source: IPv4Address) -> None:
        """A Map-Register of the site that an EID has come to; the one that it has left acknowledges its loss."""
        for ack, loser in self.acknowledgements(self.give(payload, source), source):
            self.give(ack, loser)


def locator(site: int, xtr: int) -> IPv4Address:
    """Of an xTR of a site."""
    return IPv4Address(int(IPv4Address("10.0.0.0")) + (site << SITE_SHIFT) + xtr)


def identity(site: int, xtr: int) -> XtrIdentity:
    """Of an xTR of a site."""
    return XtrIdentity((site << 32) + xtr)


def address(number: int) -> IPv4Address:
    """The n-th EID, spread over the prefix so that neighbours in time are none in space."""
    return IPv4Address(int(EIDS.network_address) + number * 0x9E3779 % EIDS.num_addresses)


def resident_octets() -> int:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _rate(messages: Sequence[tuple[bytes, IPv4Address]], give: Callable[[bytes, IPv4Address], object]) -> float:
    """Messages a second. The messages are made before, so that only their handling counts."""
    begun = time.perf_counter()
    for payload, source in messages:
        give(payload, source)
    return len(messages) / (time.perf_counter() - begun)


def growth(sizes: Sequence[int] = SIZES, *, say: Callable[[str], None] = lambda _: None) -> list[dict[str, Any]]:
    """Rates and memory with more and more EIDs registered.

    Args:
        sizes: how many EIDs, ascending.
        say: told of each figure as it comes.

    Returns for each size `eids`, `refreshes_per_s` (Map-Registers of one record, HMAC-SHA-256, answered with a
    Map-Notify), `moves_per_s` (Map-Registers of the other site, which notify the first), `requests_per_s`
    (proxy replies), `misses_per_s` (negative replies) and `octets_per_eid` (resident memory).
    """
    if list(sizes) != sorted(set(sizes)) or not sizes or sizes[-1] > EIDS.num_addresses // 2:
        raise TestbedError("bench-sizes", "the sizes must ascend", why=f"up to {EIDS.num_addresses // 2} EIDs")
    bench = Bench()
    gc.collect()
    before = resident_octets()
    registered = 0
    moved: set[int] = set()
    rows = []
    for size in sizes:
        while registered < size:
            count = min(RECORDS_A_MESSAGE, size - registered)
            eids = map(address, range(registered, registered + count))
            bench.give(*bench.registration(0, eids, want_notify=False))
            registered += count
        gc.collect()
        octets = (resident_octets() - before) / size
        stayed = [
            number for number in random.Random(size).sample(range(size), min(2 * SAMPLE, size)) if number not in moved
        ]
        chosen, moving = stayed[: len(stayed) // 2], stayed[len(stayed) // 2 :][:MOVES]
        absent = [address(number) for number in range(sizes[-1], sizes[-1] + len(chosen))]
        figures = {
            "requests_per_s": _rate([bench.request(address(number)) for number in chosen], bench.give),
            "misses_per_s": _rate([bench.request(eid) for eid in absent], bench.give),
            "refreshes_per_s": _rate([bench.registration(0, [address(number)]) for number in chosen], bench.give),
            "moves_per_s": _rate([bench.registration(1, [address(number)]) for number in moving], bench.move),
            "octets_per_eid": octets,
        }
        moved.update(moving)
        rows.append({"eids": size, **{name: round(figure) for name, figure in figures.items()}})
        say(", ".join(f"{name} {figure}" for name, figure in rows[-1].items()))
    return rows


def publications(
    counts: Sequence[int] = SUBSCRIBERS, *, rounds: int = ROUNDS, say: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """How long it takes to tell every subscriber of an EID that it has moved.

    Args:
        counts: of subscribers.
        rounds: moves at each count; medians are returned.
        say: told of each figure as it comes.

    Returns for each count `subscribers`, `published_ms` (until the last Map-Notify is ready to be sent) and
    `acknowledged_ms` (from then until every acknowledgement is taken).
    """
    rows = []
    for count in counts:
        bench = Bench()
        eid = address(0)
        bench.give(*bench.registration(0, [eid]))
        subscribers = range(1, count + 1)
        for subscriber in subscribers:
            bench.give(*bench.registration(1, [address(subscriber)], xtr=subscriber))
            bench.give(*bench.request(eid, subscriber=subscriber))
        published, acknowledged = [], []
        for number in range(rounds):
            payload, source = bench.registration(0, [eid], xtr=SUBSCRIBER_LIMIT + number)
            begun = time.perf_counter()
            actions = bench.give(payload, source)
            published.append(time.perf_counter() - begun)
            acks = bench.acknowledgements(actions, source)
            if len(acks) != count + 1:  # and the previous owner
                raise TestbedError("bench-publications", f"{len(acks) - 1} of {count} subscribers were told")
            begun = time.perf_counter()
            for ack, subscriber_rloc in acks:
                bench.give(ack, subscriber_rloc)
            acknowledged.append(time.perf_counter() - begun)
        row = {
            "subscribers": count,
            "published_ms": round(statistics.median(published) * 1000, 3),
            "acknowledged_ms": round(statistics.median(acknowledged) * 1000, 3),
        }
        say(", ".join(f"{name} {figure}" for name, figure in row.items()))
        rows.append(row)
    return rows
