"""A LISP network in memory: real state machines, a fake clock, links with delays and faults.

Time runs only in `run_until`. Packets follow the forwarding entries that the state machines asked
for, as the data plane would; nothing here knows what the outcome should be.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, ip_address
from typing import Any

from testbed.lisp.actions import (
    SECOND_NS,
    Action,
    Address,
    BindNeighbour,
    ClearForwarding,
    Emit,
    Forwarding,
    Inject,
    KeepRegistration,
    ProbeNeighbour,
    SaveNonce,
    SendControl,
    SetForwarding,
    UnbindNeighbour,
)
from testbed.lisp.config import (
    MapServerConfig,
    MapServerOptions,
    SiteConfig,
    XtrConfig,
    XtrOptions,
)
from testbed.lisp.inputs import (
    ControlReceived,
    FirstPacketSent,
    HostSighted,
    NewSourceVersion,
    OldDestinationVersion,
    PacketMissed,
    StaleReceived,
    Started,
)
from testbed.lisp.map_server import MapServer
from testbed.lisp.map_version import is_newer
from testbed.lisp.mechanisms import mechanism_named
from testbed.lisp.prefix_map import PrefixMap
from testbed.lisp.sealing import Secret
from testbed.lisp.sightings import Sighting, SightingKind
from testbed.lisp.wire import AlgorithmId, EidPrefix, XtrIdentity
from testbed.lisp.xtr import Xtr

MS_NS = 1_000_000
MOBILE = IPv4Network("192.168.0.0/24")
FIXED = IPv4Network("192.168.3.0/24")
EID = ip_address("192.168.0.10")
CORRESPONDENT = ip_address("192.168.3.10")
MAC = "00:16:3e:00:00:0a"
MAP_SERVER = ip_address("10.0.0.2")
#: A second xTR on site A's LAN, where a test wants one.
SECOND_AT_A, SECOND_RLOC = "xtr-a2", ip_address("10.0.4.2")
RLOCS = {"xtr-a": ip_address("10.0.1.2"), "xtr-b": ip_address("10.0.2.2"), "xtr-c": ip_address("10.0.3.2")}
#: The same sites of somebody else, if there is a second instance.
OTHER_RLOCS = {f"other-{name}": rloc + 0x10000 for name, rloc in RLOCS.items()}

#: (source, destination, payload, how many datagrams went that way before) → delays of its copies, ns.
Faults = Callable[[Address, Address, bytes, int], list[int]]


@dataclass
class Event:
    """What a node said, and when."""

    at_ns: int
    node: str
    kind: str
    fields: dict[str, Any]


@dataclass
class Node:
    """A machine with its forwarding table."""

    name: str
    machine: Xtr | MapServer
    instance_id: int = 0
    entries: PrefixMap[SetForwarding] = field(default_factory=PrefixMap)
    neighbours: dict[Address, str] = field(default_factory=dict)
    saved: dict[str, int] = field(default_factory=dict)
    kept: dict[EidPrefix, str] = field(default_factory=dict)
    last_rloc: dict[Address, Address] = field(default_factory=dict)
    delivered: list[tuple[int, bytes]] = field(default_factory=list)


def site_secret(name: str) -> Secret:
    return Secret(0, f"secret of {name}".encode())


class Network:
    """Three xTRs (A and B share a dynamic prefix, C has the correspondent) and a Map-Server.

    With a second instance there are three more, `other-xtr-a` and so on, with the same prefixes and hosts.
    """

    def __init__(
        self,
        mechanism: str = "smr-old-xtr",
        *,
        delay_ns: int = 10 * MS_NS,
        xtr_options: XtrOptions | None = None,
        map_server_options: MapServerOptions | None = None,
        start: bool = True,
        algorithm: AlgorithmId = AlgorithmId.HMAC_SHA_256_128,
        instances: tuple[int, ...] = (0,),
        second_at_a: bool = False,
    ) -> None:
        self.now = 1_000 * SECOND_NS
        self.faults: Faults = lambda source, destination, payload, count: [delay_ns]
        self.events: list[Event] = []
        #: Whose LAN the guest is on, for those who ask it; nobody's unless a test says so.
        self.really_at: str | None = None
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._serial = 0
        self._sent: dict[tuple[Address, Address], int] = {}
        self._random = 0x1234567887654321
        self.nodes: dict[str, Node] = {}
        self.by_rloc: dict[Address, Node] = {}
        treatment = mechanism_named(mechanism)
        sites = []
        homes = dict.fromkeys(RLOCS, instances[0])
        homes |= {name: instances[1] for name in OTHER_RLOCS if len(instances) > 1}
        homes |= {SECOND_AT_A: instances[0]} if second_at_a else {}
        for number, (name, instance_id) in enumerate(homes.items(), start=1):
            rloc = (RLOCS | OTHER_RLOCS | {SECOND_AT_A: SECOND_RLOC})[name]
            fixed = (FIXED,) if name.endswith("xtr-c") else ()
            dynamic = () if name.endswith("xtr-c") else (MOBILE,)
            secret = replace(site_secret("xtr-a" if name == SECOND_AT_A else name), algorithm=algorithm)
            if name != SECOND_AT_A:
                sites.append(SiteConfig(name, fixed, dynamic, secret, instance_id))
            config = XtrConfig(
                rloc=rloc,
                identity=XtrIdentity(number, 0),
                eid_prefixes=fixed,
                dynamic_eid_prefixes=dynamic,
                eid_space=(IPv4Network("192.168.0.0/16"),),
                gateways=(ip_address("192.168.3.1" if fixed else "192.168.0.1"),),
                map_servers=(MAP_SERVER,),
                map_resolvers=(MAP_SERVER,),
                secret=secret,
                mechanism=treatment,
                options=xtr_options or XtrOptions(),
                instance_id=instance_id,
            )
            self._add(name, rloc, Xtr(config, nonce=number * 1000, random64=self.random64), instance_id)
        self._server = MapServerConfig(MAP_SERVER, tuple(sites), treatment, map_server_options or MapServerOptions())
        self._add("ms", MAP_SERVER, MapServer(self._server, saved={}, random64=self.random64))
        if start:
            for name in homes:
                self.give(name, Started())
            self.run_for(1 * SECOND_NS)

    def _add(self, name: str, rloc: Address, machine: Xtr | MapServer, instance_id: int = 0) -> None:
        self.nodes[name] = self.by_rloc[rloc] = Node(name, machine, instance_id)

    def restart_map_server(self, *, keeps: bool = False) -> None:
        """The Map-Server comes back with nothing but what it has stored: nonces, and registrations if it keeps them."""
        node = self.nodes["ms"]
        node.machine = MapServer(self._server, saved=dict(node.saved), random64=self.random64)
        if keeps:
            self._carry_out(node, node.machine.restore(list(node.kept.values()), self.now))

    def random64(self) -> int:
        self._random = (self._random * 6364136223846793005 + 1442695040888963407) % 2**64
        return self._random

    # --- time ----------------------------------------------------------------------------------

    def at(self, when_ns: int, action: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._queue, (when_ns, self._serial, action))

    def run_for(self, duration_ns: int) -> None:
        end = self.now + duration_ns
        while True:
            deadlines = [d for n in self.nodes.values() if (d := n.machine.next_deadline()) is not None]
            timer = max(self.now, min(deadlines, default=end + 1))
            queued = self._queue[0][0] if self._queue else end + 1
            if min(timer, queued) > end:
                break
            if queued <= timer:
                self.now, _, action = heapq.heappop(self._queue)
                action()
                continue
            self.now = timer
            for node in self.nodes.values():
                deadline = node.machine.next_deadline()
                if deadline is not None and deadline <= self.now:
                    self._carry_out(node, node.machine.handle_timer(self.now))
                    after = node.machine.next_deadline()
                    assert after is None or after > self.now, f"{node.name}: a timer that is due for ever"
        self.now = end

    # --- what happens --------------------------------------------------------------------------

    def give(self, name: str, event: Any) -> None:
        node = self.nodes[name]
        self._carry_out(node, node.machine.handle(event, self.now))

    def sight(self, name: str, *, seen_ns: int | None = None, kind: SightingKind = SightingKind.GRATUITOUS_ARP) -> None:
        seen = self.now if seen_ns is None else seen_ns
        self.give(name, HostSighted(Sighting(kind, MAC, EID), seen))

    def send(self, name: str, packet: bytes, eid: Address = EID, source: Address | None = None) -> None:
        """A host behind an xTR sends a packet to an EID; the source counts for map-versions only."""
        node = self.nodes[name]
        self._forward(node, eid, packet, peer=None, source=source, instance_id=node.instance_id)

    def saw(self, kind: str, node: str | None = None, since_ns: int = 0) -> list[Event]:
        return [
            event
            for event in self.events
            if event.kind == kind and node in (None, event.node) and event.at_ns >= since_ns
        ]

    def owner(self, eid: Address = EID, instance_id: int | None = None) -> str | None:
        """Whose locator the Map-Server has for an EID, in the first instance unless another is meant."""
        wanted = self.nodes["xtr-a"].instance_id if instance_id is None else instance_id
        for row in self.nodes["ms"].machine.inspect(self.now)["registrations"]:
            if (row["eid"], row.get("instance_id", 0)) == (f"{eid}/32", wanted):
                return self.by_rloc[ip_address(row["locators"][0])].name
        return None

    def locators(self, eid: Address = EID) -> list[str]:
        """Whose locators the Map-Server has for an EID."""
        rows = self.nodes["ms"].machine.inspect(self.now)["registrations"]
        found = [row["locators"] for row in rows if row["eid"] == f"{eid}/32"]
        return [self.by_rloc[ip_address(rloc)].name for locators in found for rloc in locators]

    def host_state(self, name: str, eid: Address = EID) -> str | None:
        rows = self.nodes[name].machine.inspect(self.now)["hosts"]
        return next((row["state"] for row in rows if row["eid"] == str(eid)), None)

    # --- how it is carried out -----------------------------------------------------------------

    def _carry_out(self, node: Node, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Emit):
                self.events.append(Event(self.now, node.name, action.kind, dict(action.fields)))
            elif isinstance(action, SendControl):
                self._transmit(node, action)
            elif isinstance(action, SetForwarding):
                node.entries.set(action.eid, action, action.instance_id)
            elif isinstance(action, ClearForwarding):
                node.entries.pop(action.eid, action.instance_id)
            elif isinstance(action, BindNeighbour):
                node.neighbours[action.eid] = action.mac
            elif isinstance(action, UnbindNeighbour):
                node.neighbours.pop(action.eid, None)
            elif isinstance(action, ProbeNeighbour):
                if self.really_at is not None and node.name.startswith(self.really_at):
                    self.at(self.now + MS_NS, lambda: self.sight(node.name, kind=SightingKind.ARP_REPLY))
            elif isinstance(action, SaveNonce):
                assert action.nonce >= node.saved.get(action.owner, 0)
                node.saved[action.owner] = action.nonce
            elif isinstance(action, KeepRegistration):
                node.kept.pop(action.eid, None)
                if action.text is not None:
                    node.kept[action.eid] = action.text()
            elif isinstance(action, Inject):
                destination = ip_address(action.packet[:4])
                self._forward(node, destination, action.packet, peer=None, instance_id=node.instance_id)

    def _transmit(self, node: Node, action: SendControl) -> None:
        source = next(rloc for rloc, each in self.by_rloc.items() if each is node)
        pair = (source, action.destination)
        count = self._sent[pair] = self._sent.get(pair, -1) + 1
        target = self.by_rloc.get(action.destination)
        if target is None:  # nobody's address: only a forged message sends there
            return

        def deliver() -> None:
            received = ControlReceived(action.payload, source, 4342)
            self._carry_out(target, target.machine.handle(received, self.now))

        for delay_ns in self.faults(source, action.destination, action.payload, count):
            self.at(self.now + delay_ns, deliver)

    def _forward(
        self,
        node: Node,
        eid: Address,
        packet: bytes,
        peer: Address | None,
        source: Address | None = None,
        versions: tuple[int, int] | None = None,
        *,
        instance_id: int,
    ) -> None:
        """Send on or deliver a packet that came from the LAN, or with its map-versions from a peer."""
        assert isinstance(node.machine, Xtr)
        found = (entry for _, entry in node.entries.matches(eid, instance_id))
        entry = next((each for each in found if each.expires_ns is None or each.expires_ns > self.now), None)
        if entry is None or entry.forwarding in (Forwarding.DROP, Forwarding.NATIVE):
            return
        if versions and peer is not None and not self._versions_admit(node, eid, source, peer, versions):
            return
        if entry.forwarding is Forwarding.LOCAL:
            node.delivered.append((self.now, packet))
            return
        if entry.forwarding is Forwarding.RESOLVE:
            self.give(node.name, PacketMissed(eid, packet))
            return
        if entry.forwarding is Forwarding.AWAY and peer is not None:
            self.give(node.name, StaleReceived(eid, peer, self.now))
        if not entry.locators:  # all are down: the data plane drops it, `no-locator`
            return
        rloc = entry.locators[0].rloc
        if rloc not in self.by_rloc:
            return
        if node.last_rloc.get(eid) != rloc:
            node.last_rloc[eid] = rloc
            self.give(node.name, FirstPacketSent(eid, rloc, None, self.now))
        sender = next(address for address, each in self.by_rloc.items() if each is node)
        carried = (self._version(node, source, Forwarding.LOCAL), entry.map_version) if entry.map_version else None
        self.at(
            self.now + 5 * MS_NS,
            lambda: self._forward(self.by_rloc[rloc], eid, packet, sender, source, carried, instance_id=instance_id),
        )

    @staticmethod
    def _version(node: Node, eid: Address | None, *kinds: Forwarding) -> int:
        found = next((entry for _, entry in node.entries.matches(eid, node.instance_id)), None) if eid else None
        return found.map_version if found and found.forwarding in kinds else 0

    def _versions_admit(
        self, node: Node, eid: Address, source: Address | None, peer: Address, versions: tuple[int, int]
    ) -> bool:
        """RFC 9302 §7, as the data plane does it."""
        sent_source, sent_destination = versions
        ours = self._version(node, eid, Forwarding.LOCAL)
        if ours and ours != sent_destination:
            if is_newer(sent_destination, ours):
                return False
            self.give(node.name, OldDestinationVersion(eid, peer, sent_destination, self.now))
        cached = self._version(node, source, Forwarding.REMOTE, Forwarding.AWAY)
        if source and sent_source and cached and cached != sent_source:
            if not is_newer(sent_source, cached):
                return False
            self.give(node.name, NewSourceVersion(source, peer, sent_source, self.now))
        return True


def packet_to(eid: Address, payload: bytes = b"") -> bytes:
    """What stands for an inner packet here: the destination and some text."""
    return eid.packed + payload


def settled(network: Network) -> Network:
    """The guest lives at A and the correspondent's ITR has its mapping."""
    network.sight("xtr-a")
    network.run_for(1 * SECOND_NS)
    network.send("xtr-c", packet_to(EID))
    network.run_for(10 * SECOND_NS)
    assert network.nodes["xtr-a"].delivered
    return network
