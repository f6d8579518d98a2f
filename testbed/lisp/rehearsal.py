"""Rehearsals: a twin of an agent's state machine lives through migrations, and nothing leaves it.

An agent that has had nothing to do for 50 ms finds its code and data gone from the processor's caches, and the same
message then costs it four to seven times as much; one that rehearses between messages does not. What it rehearses is
a play of a LISP network in memory, with the agent's own options and made-up names, performed once; its twin then is
given what it was given in the play, again and again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_address, ip_network
from itertools import count
from typing import TypeAlias

from testbed.lisp.actions import SECOND_NS, Action, Prefix, SendControl, SetForwarding
from testbed.lisp.config import MapServerConfig, MapServerOptions, SiteConfig, XtrConfig, XtrOptions
from testbed.lisp.inputs import (
    ControlReceived,
    HostSighted,
    Input,
    NewSourceVersion,
    PacketMissed,
    StaleReceived,
    Started,
)
from testbed.lisp.map_server import MapServer
from testbed.lisp.mechanisms import Mechanism
from testbed.lisp.sealing import Secret
from testbed.lisp.sightings import Sighting, SightingKind
from testbed.lisp.wire import XtrIdentity
from testbed.lisp.xtr import Xtr


class Part(Enum):
    """Whose part in a migration an agent plays; the values are the names of the cast."""

    MAP_SERVER = "ms"
    MOBILE_SITE = "a"
    CORRESPONDENT = "c"


#: RFC 5737: for documentation; nobody's.
_MOBILE, _FIXED = ip_network("198.51.100.0/24"), ip_network("203.0.113.0/24")
_GUEST, _PEER = ip_address("198.51.100.10"), ip_address("203.0.113.10")
_MAC = "02:00:00:00:00:01"
_RLOCS = {name: ip_address(f"192.0.2.{number}") for number, name in enumerate(("ms", "a", "b", "c"), start=1)}
#: Migrations of one play; then the twin is born again and plays it from the beginning.
SCENES = 64
_BETWEEN_SCENES_NS = 10 * SECOND_NS

_Node: TypeAlias = Xtr | MapServer


@dataclass(frozen=True, slots=True)
class _Cue:
    """What a machine is given: an input, or None where its timer fires; and when."""

    event: Input | None
    now: int


@dataclass(slots=True)
class _Member:
    """One of the cast, with what it was given in the scene."""

    machine: _Node
    cues: list[_Cue] = field(default_factory=list)
    map_version: int = 0


class Cast:
    """Makes the machines of a play, each time the same.

    Args:
        mechanism: of the experiment.
        xtr_options: of every xTR.
        map_server_options: of the Map-Server.
        authentication: of everybody.
    """

    def __init__(
        self,
        mechanism: Mechanism,
        xtr_options: XtrOptions,
        map_server_options: MapServerOptions,
        authentication: str,
    ) -> None:
        self._authentication = authentication
        self._mechanism, self._xtr_options, self._map_server_options = mechanism, xtr_options, map_server_options

    def member(self, name: str) -> _Node:
        """A new machine for this name of the cast, in its first state."""
        numbers = count(1 << 32)

        def not_random() -> int:
            return next(numbers)

        if name == "ms":
            sites = tuple(SiteConfig(each, *_prefixes(each), self._secret(each)) for each in ("a", "b", "c"))
            server = MapServerConfig(_RLOCS["ms"], sites, self._mechanism, self._map_server_options)
            return MapServer(server, saved={}, random64=not_random)
        fixed, dynamic = _prefixes(name)
        config = XtrConfig(
            rloc=_RLOCS[name],
            identity=XtrIdentity(ord(name), 0),
            eid_prefixes=fixed,
            dynamic_eid_prefixes=dynamic,
            eid_space=(_MOBILE, _FIXED),
            gateways=(),
            map_servers=(_RLOCS["ms"],),
            map_resolvers=(_RLOCS["ms"],),
            secret=self._secret(name),
            mechanism=self._mechanism,
            options=self._xtr_options,
        )
        return Xtr(config, nonce=1, random64=not_random)

    def _secret(self, site: str) -> Secret:
        return Secret.configured(0, f"not a secret: {site}".encode(), self._authentication)


def _prefixes(site: str) -> tuple[tuple[Prefix, ...], tuple[Prefix, ...]]:
    return ((_FIXED,), ()) if site == "c" else ((), (_MOBILE,))


class _Play:
    """The network in memory: what is sent arrives at once, in order. Records what one of the cast is given."""

    def __init__(self, cast: Cast) -> None:
        self.now = _BETWEEN_SCENES_NS
        self.members = {name: _Member(cast.member(name)) for name in _RLOCS}
        self._by_rloc = {rloc: name for name, rloc in _RLOCS.items()}
        self._on_their_way: deque[tuple[str, ControlReceived]] = deque()

    def prologue(self) -> None:
        """Everybody starts, the guest appears at A, it and its peer talk."""
        for name in ("a", "b", "c"):
            self._give(name, Started())
        self.move("a", "b")

    def move(self, new: str, old: str) -> None:
        """The guest appears at `new`; its peer's next packet still goes to `old`."""
        self.now += _BETWEEN_SCENES_NS
        self._give(new, HostSighted(Sighting(SightingKind.GRATUITOUS_ARP, _MAC, _GUEST), self.now))
        self._give(new, PacketMissed(_PEER, b""))
        self._give("c", PacketMissed(_GUEST, b""))
        self._give(old, StaleReceived(_GUEST, _RLOCS["c"], self.now))
        if version := self.members[new].map_version:
            self._give("c", NewSourceVersion(_GUEST, _RLOCS[new], version, self.now))

    def _give(self, name: str, event: Input) -> None:
        self._cue(name, event)
        while self._on_their_way:
            self._cue(*self._on_their_way.popleft())
        for each, member in self.members.items():
            deadline = member.machine.next_deadline()
            if deadline is not None and deadline <= self.now:
                self._cue(each, None)

    def _cue(self, name: str, event: Input | None) -> None:
        member = self.members[name]
        cue = _Cue(event, self.now)
        member.cues.append(cue)
        for action in _act(member.machine, cue):
            if isinstance(action, SendControl):
                arriving = ControlReceived(action.payload, _RLOCS[name], action.port)
                self._on_their_way.append((self._by_rloc[action.destination], arriving))
            elif isinstance(action, SetForwarding) and action.map_version:
                member.map_version = action.map_version


def _act(machine: _Node, cue: _Cue) -> list[Action]:
    if cue.event is None:
        return machine.handle_timer(cue.now)
    handle: Callable[[Input, int], list[Action]] = machine.handle  # type: ignore[assignment]
    return handle(cue.event, cue.now)


class Rehearsal:
    """One agent's part, to be played between its messages.

    Args:
        part: whose.
        mechanism: of the experiment.
        xtr_options, map_server_options: those of the agent; the others' as they are by default.
        authentication: of the agent's secret.
    """

    def __init__(
        self,
        part: Part,
        mechanism: Mechanism,
        *,
        xtr_options: XtrOptions | None = None,
        map_server_options: MapServerOptions | None = None,
        authentication: str = "hmac-sha-256-128+hkdf",
    ) -> None:
        self._cast = Cast(
            mechanism, xtr_options or XtrOptions(), map_server_options or MapServerOptions(), authentication
        )
        self._part = part.value
        self._scenes = self._perform()
        self._begin()

    def _perform(self) -> list[list[_Cue]]:
        play = _Play(self._cast)
        member = play.members[self._part]
        scenes: list[list[_Cue]] = []
        play.prologue()
        for number in range(SCENES):
            scenes.append(member.cues)
            member.cues = []
            play.move(*(("b", "a"), ("a", "b"))[number % 2])
        return scenes

    def _begin(self) -> None:
        self._twin = self._cast.member(self._part)
        self._coming = iter(self._scenes)

    def step(self) -> list[Action]:
        """Live through one migration; returns what the twin wanted done, which is not to be done."""
        scene = next(self._coming, None)
        if scene is None:
            self._begin()
            return self.step()
        return [action for cue in scene for action in _act(self._twin, cue)]
