"""One xTR among peers that answer its probes, for tests of which locators it uses."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address, ip_network
from typing import Any

from testbed.lisp.actions import (
    SECOND_NS,
    Action,
    Address,
    Emit,
    Forwarding,
    SendControl,
    SetForwarding,
)
from testbed.lisp.config import SiteLocator, XtrConfig, XtrOptions
from testbed.lisp.inputs import (
    ControlReceived,
    Input,
    PacketMissed,
    Started,
)
from testbed.lisp.mechanisms import mechanism_named
from testbed.lisp.sealing import Secret
from testbed.lisp.wire import (
    EidPrefix,
    EidRecord,
    EidRecordFlag,
    EncapsulatedControl,
    MapReply,
    MapReplyFlag,
    MapRequest,
    MapRequestFlag,
    RlocRecord,
    XtrIdentity,
    decode_control,
)
from testbed.lisp.xtr import Xtr

RESOLVER, RLOC = ip_address("10.0.0.2"), ip_address("10.0.1.2")
FIRST, SECOND = ip_address("10.0.3.2"), ip_address("10.0.4.2")
PEER, FIXED = ip_address("192.168.3.10"), ip_network("192.168.3.0/24")
MAPPING = EidRecord(EidPrefix(FIXED), 1440, (RlocRecord(FIRST, 1, 100), RlocRecord(SECOND, 2, 100)))


class Site:
    """One xTR, whose peers answer its RLOC-probes after 10 ms unless they are silent.

    Args:
        mechanism: of the xTR.
        locators: of its site.
        options: of it.
    """

    def __init__(self, mechanism: str = "ttl", *, locators: tuple[SiteLocator, ...] = (), **options: Any) -> None:
        self.now = 1000 * SECOND_NS
        self._random = 0
        config = XtrConfig(
            rloc=RLOC,
            identity=XtrIdentity(1),
            eid_prefixes=(IPv4Network("192.168.1.0/24"),),
            dynamic_eid_prefixes=(),
            eid_space=(IPv4Network("192.168.0.0/16"),),
            gateways=(),
            map_servers=(RESOLVER,),
            map_resolvers=(RESOLVER,),
            secret=Secret(0, b"k"),
            mechanism=mechanism_named(mechanism),
            options=XtrOptions(**options),
            locators=locators,
        )
        self.xtr = Xtr(config, nonce=0, random64=self._random64)
        self.silent: set[Address] = set()
        self.mapping = MAPPING
        self.reply_flags = MapReplyFlag.NONE
        self.done: list[tuple[int, Action]] = []
        self._arrivals: list[tuple[int, ControlReceived]] = []
        self.give(Started())

    def _random64(self) -> int:
        self._random += 1
        return self._random

    def give(self, event: Input) -> list[Action]:
        return self._take(self.xtr.handle(event, self.now))

    def _take(self, actions: list[Action]) -> list[Action]:
        self.done += [(self.now, action) for action in actions]
        for action in actions:
            if isinstance(action, SendControl):
                self._sent(action)
        return actions

    def _sent(self, action: SendControl) -> None:
        message = decode_control(action.payload)
        if isinstance(message, EncapsulatedControl):
            message = message.message
        if not isinstance(message, MapRequest) or action.destination in self.silent:
            return
        probe = bool(message.flags & MapRequestFlag.PROBE)
        record = EidRecord(
            self.mapping.eid, 1440, self.mapping.locators,
            flags=EidRecordFlag.AUTHORITATIVE if probe else EidRecordFlag.NONE,
        )  # fmt: skip
        flags = self.reply_flags | (MapReplyFlag.PROBE if probe else MapReplyFlag.NONE)
        reply = MapReply(message.nonce, (record,), flags)
        received = ControlReceived(reply.encode(), action.destination, 4342)
        self._arrivals.append((self.now + SECOND_NS // 100, received))

    def run_for(self, seconds: float) -> None:
        end = self.now + round(seconds * SECOND_NS)
        while True:
            arrival = self._arrivals[0][0] if self._arrivals else end + 1
            deadline = self.xtr.next_deadline()
            timer = end + 1 if deadline is None else max(self.now, deadline)
            if min(arrival, timer) > end:
                break
            if arrival <= timer:
                self.now, received = self._arrivals.pop(0)
                self.give(received)
            else:
                self.now = timer
                self._take(self.xtr.handle_timer(self.now))
        self.now = end

    def resolved(self) -> Site:
        self.give(PacketMissed(PEER, b"packet"))
        self.run_for(0.1)
        assert self.used() == [FIRST, SECOND]
        return self

    def used(self) -> list[Address]:
        """The locators in the forwarding entry, as last programmed."""
        entry = [each for _, each in self.done if isinstance(each, SetForwarding) and each.eid == FIXED][-1]
        assert entry.forwarding is Forwarding.REMOTE
        return [locator.rloc for locator in entry.locators]

    def saw(self, kind: str) -> list[tuple[float, dict[str, Any]]]:
        """Events, with seconds since the beginning."""
        return [
            ((at - 1000 * SECOND_NS) / SECOND_NS, dict(each.fields))
            for at, each in self.done
            if isinstance(each, Emit) and each.kind == kind
        ]

    def locator_rows(self) -> dict[str, list[str]]:
        (row,) = self.xtr.inspect(self.now)["map_cache"]
        return {locator["rloc"]: locator["down"] for locator in row["locators"]}
