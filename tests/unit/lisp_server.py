"""A Map-Server on the test's desk: what is given to it, and what it wants done."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address, ip_network
from typing import Any

from testbed.lisp.actions import SECOND_NS, Action, Emit, SendControl
from testbed.lisp.config import MapServerConfig, MapServerOptions, SiteConfig
from testbed.lisp.inputs import ControlReceived
from testbed.lisp.map_server import MapServer
from testbed.lisp.mechanisms import mechanism_named
from testbed.lisp.sealing import Secret
from testbed.lisp.wire import (
    Address,
    EidPrefix,
    EidRecord,
    EidRecordFlag,
    EncapsulatedControl,
    LocatorFlag,
    MapRegister,
    MapRegisterFlag,
    MapReply,
    MapRequest,
    MapRequestFlag,
    RequestedEid,
    RlocRecord,
    XtrIdentity,
    decode_control,
)

MAP_SERVER = ip_address("10.0.0.2")
RLOC_A, RLOC_B, RLOC_C = (ip_address(f"10.0.{n}.2") for n in (1, 2, 3))
MOBILE, FIXED = IPv4Network("192.168.0.0/24"), IPv4Network("192.168.3.0/24")
SECRETS = {name: Secret(0, f"secret of {name}".encode()) for name in "abc"}
SITES = (
    SiteConfig("a", (), (MOBILE,), SECRETS["a"]),
    SiteConfig("b", (), (MOBILE,), SECRETS["b"]),
    SiteConfig("c", (FIXED,), (), SECRETS["c"]),
)
PORT = 34567


class Server:
    """A Map-Server and what it answered."""

    def __init__(
        self,
        options: MapServerOptions | None = None,
        saved: dict[str, int] | None = None,
        mechanism: str = "ttl",
        sites: tuple[SiteConfig, ...] = SITES,
    ) -> None:
        config = MapServerConfig(
            MAP_SERVER, sites, mechanism_named(mechanism), options or MapServerOptions(map_reply_interval_s=0)
        )
        self.machine = MapServer(config, saved=saved or {}, random64=lambda: 7)
        self.now = 0

    def receive(self, payload: bytes, source: Any = RLOC_A) -> list[Action]:
        return self.machine.handle(ControlReceived(payload, source, 4342), self.now)

    def register(
        self,
        eid: str = "192.168.0.10/32",
        *,
        nonce: int = 1,
        site: str = "a",
        source: Any = RLOC_A,
        ttl_minutes: int = 1440,
        proxy: bool = True,
        flags: MapRegisterFlag = MapRegisterFlag.WANT_MAP_NOTIFY,
        rlocs: tuple[str, ...] = (),
        given: tuple[RlocRecord, ...] = (),
        secret: Secret | None = None,
        record_flags: EidRecordFlag = EidRecordFlag.NONE,
        instance_id: int = 0,
    ) -> list[Action]:
        locators = (
            given
            or tuple(RlocRecord(ip_address(each)) for each in rlocs)
            or (RlocRecord(source, flags=LocatorFlag.REACHABLE | LocatorFlag.LOCAL),)
        )
        record = EidRecord(EidPrefix(ip_network(eid), instance_id), ttl_minutes, locators, flags=record_flags)
        if proxy:
            flags |= MapRegisterFlag.PROXY_REPLY
        message = MapRegister(nonce, (record,), flags=flags, xtr=XtrIdentity(int(source)))
        return self.receive((secret or SECRETS[site]).seal(message), source)

    def request(
        self,
        eid: str,
        *,
        nonce: int = 99,
        flags: MapRequestFlag = MapRequestFlag.NONE,
        subscribe: bool = False,
        itr_rlocs: tuple[Address, ...] = (RLOC_C,),
        xtr: XtrIdentity | None = None,
        instance_id: int = 0,
    ) -> list[Action]:
        asked = (RequestedEid(EidPrefix(ip_network(eid), instance_id), notify=subscribe),)
        request = MapRequest(nonce, itr_rlocs, asked, flags=flags, xtr=xtr)
        destination = ip_network(eid).network_address
        return self.receive(EncapsulatedControl(RLOC_C, destination, PORT, request.encode()).encode(), RLOC_C)

    def run_for(self, seconds: float) -> list[Action]:
        """Let time pass, and the timers fire."""
        until = self.now + round(seconds * SECOND_NS)
        actions: list[Action] = []
        while (deadline := self.machine.next_deadline()) is not None and deadline <= until:
            self.now = deadline
            actions += self.machine.handle_timer(self.now)
        self.now = until
        return actions

    def records(self, eid: str, instance_id: int = 0) -> tuple[EidRecord, ...]:
        """The records of the one Map-Reply to a request."""
        (sent,) = sends(self.request(eid, instance_id=instance_id))
        reply = decode_control(sent.payload)
        assert isinstance(reply, MapReply)
        assert (reply.nonce, sent.destination, sent.port) == (99, RLOC_C, PORT)
        return reply.records


def sends(actions: list[Action]) -> list[SendControl]:
    return [action for action in actions if isinstance(action, SendControl)]


def events(actions: list[Action], kind: str) -> list[dict[str, Any]]:
    return [dict(action.fields) for action in actions if isinstance(action, Emit) and action.kind == kind]
