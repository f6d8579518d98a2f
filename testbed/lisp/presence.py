"""Which dynamic EIDs live at this site: arrival by sighting, departure by the Map-Server's word."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from testbed.lisp.actions import (
    Action,
    Address,
    BindNeighbour,
    Forwarding,
    Prefix,
    SetForwarding,
    UnbindNeighbour,
    emit,
    host_prefix,
)
from testbed.lisp.config import XtrConfig
from testbed.lisp.machine import Machine
from testbed.lisp.sightings import Sighting


class PresenceState(Enum):
    """Where an EID is, as far as this xTR has heard."""

    ELSEWHERE = "elsewhere"
    LOCAL = "local"
    AWAY = "away"  # was here; what still comes for it is sent on


class PresenceInput(Enum):
    """What moves an EID between these."""

    SIGHTED = auto()
    CLAIMED_ELSEWHERE = auto()
    FORGOTTEN = auto()


TRANSITIONS: dict[tuple[PresenceState, PresenceInput], PresenceState] = {
    (PresenceState.ELSEWHERE, PresenceInput.SIGHTED): PresenceState.LOCAL,
    (PresenceState.AWAY, PresenceInput.SIGHTED): PresenceState.LOCAL,
    (PresenceState.LOCAL, PresenceInput.CLAIMED_ELSEWHERE): PresenceState.AWAY,
    (PresenceState.AWAY, PresenceInput.FORGOTTEN): PresenceState.ELSEWHERE,
    (PresenceState.LOCAL, PresenceInput.FORGOTTEN): PresenceState.ELSEWHERE,
}


@dataclass(slots=True)
class Host:
    """A dynamic EID that was here at some time.

    Attributes:
        eid: its address.
        machine: where it is.
        mac: its MAC, when last seen.
        changed_ns: of the last transition.
        sighted_ns: when its last frame came.
    """

    eid: Address
    machine: Machine[PresenceState, PresenceInput]
    mac: str
    changed_ns: int
    sighted_ns: int


class Presence:
    """The dynamic EIDs of a site.

    Args:
        config: of the xTR.
    """

    def __init__(self, config: XtrConfig) -> None:
        self._config = config
        self._hosts: dict[Address, Host] = {}
        #: MAC → EIDs: who a RARP is about. Filled by sightings and by the orchestrator.
        self._eids_of: dict[str, set[Address]] = {}

    def expect(self, eid: Address, mac: str) -> None:
        """Remember which MAC an EID has."""
        self._eids_of.setdefault(mac.lower(), set()).add(eid)

    def _no_more(self, eid: Address, mac: str) -> None:
        """An EID has another MAC now: what is heard of the former is not about it."""
        eids = self._eids_of.get(mac, set())
        eids.discard(eid)
        if not eids:
            self._eids_of.pop(mac, None)

    def eids_of(self, sighting: Sighting) -> list[Address]:
        """The dynamic EIDs that a sighting shows; a RARP shows those known of its MAC."""
        if sighting.eid is not None:
            return [sighting.eid] if self._config.is_dynamic(sighting.eid) else []
        return sorted(self._eids_of.get(sighting.mac, ()), key=int)

    def sight(self, eid: Address, sighting: Sighting, mono_ns: int, now: int) -> tuple[bool, list[Action]]:
        """An EID showed itself.

        Returns whether it has just arrived, and what to do about it here; to register it is the caller's.
        """
        host = self._hosts.get(eid)
        if host is None and len(self._hosts) >= self._config.options.local_eids:
            return False, [emit("eid_refused", eid=eid, mac=sighting.mac, reason="full")]
        if host is None:
            host = Host(eid, Machine(TRANSITIONS, PresenceState.ELSEWHERE), sighting.mac, mono_ns, mono_ns)
        elif host.machine.state is PresenceState.AWAY and mono_ns <= host.changed_ns:
            return False, []  # a frame from before its departure, read late
        self._hosts[eid] = host
        if host.mac != sighting.mac:
            self._no_more(eid, host.mac)
        self.expect(eid, sighting.mac)
        host.sighted_ns = max(host.sighted_ns, mono_ns)
        changed_mac, host.mac = host.mac != sighting.mac, sighting.mac
        if host.machine.state is PresenceState.LOCAL:
            return False, [BindNeighbour(eid, sighting.mac)] if changed_mac else []
        host.machine.feed(PresenceInput.SIGHTED)
        host.changed_ns = now
        return True, [
            emit(
                "eid_detected", mono_ns=now, eid=eid, rloc=self._config.rloc, mac=sighting.mac,
                via=sighting.kind, seen_ns=mono_ns,
            ),
            SetForwarding(host_prefix(eid), Forwarding.LOCAL),
            BindNeighbour(eid, sighting.mac),
        ]  # fmt: skip

    def depart(self, eid: Address, now: int) -> list[Action]:
        """Somebody else registered an EID that is local: it is here no more."""
        host = self._hosts[eid]
        host.machine.feed(PresenceInput.CLAIMED_ELSEWHERE)
        host.changed_ns = now
        return [UnbindNeighbour(eid)]

    def left(self, eid: Address, now: int) -> None:
        """An EID of a fixed prefix of ours lives elsewhere, says the Map-Server."""
        self._hosts[eid] = Host(eid, Machine(TRANSITIONS, PresenceState.AWAY), "", now, now)

    def forget(self, eid: Address) -> list[Action]:
        """An EID is neither here nor worth forwarding any more."""
        host = self._hosts.pop(eid)
        was_local = host.machine.state is PresenceState.LOCAL
        host.machine.feed(PresenceInput.FORGOTTEN)
        return [UnbindNeighbour(eid)] if was_local else []

    def state_of(self, eid: Address) -> PresenceState:
        """Where an EID is."""
        host = self._hosts.get(eid)
        return host.machine.state if host else PresenceState.ELSEWHERE

    def override(self, prefix: Prefix) -> Forwarding | None:
        """What this site knows better than a mapping of exactly this prefix."""
        if prefix in self._config.eid_prefixes:
            return Forwarding.LOCAL
        if prefix.prefixlen != prefix.max_prefixlen:
            return None
        state = self.state_of(prefix.network_address)
        if state is PresenceState.LOCAL:
            return Forwarding.LOCAL
        return Forwarding.AWAY if state is PresenceState.AWAY else None

    def arrived_since(self, since_ns: int) -> list[Address]:
        """The EIDs that are here and came at `since_ns` or later."""
        here = self.in_state(PresenceState.LOCAL)
        return [eid for eid in here if self._hosts[eid].changed_ns >= since_ns]

    def mac_of(self, eid: Address) -> str:
        """The MAC that an EID had when last seen; KeyError if it never was."""
        return self._hosts[eid].mac

    def hosts_in(self, prefix: Prefix) -> list[Address]:
        """The EIDs in a prefix that are or were here."""
        return [eid for eid in self._hosts if eid in prefix]

    def in_state(self, state: PresenceState) -> list[Address]:
        """The EIDs in one state."""
        return [host.eid for host in self._hosts.values() if host.machine.state is state]

    def inspect(self, now: int) -> list[dict[str, Any]]:
        """The hosts, for people."""
        return [
            {
                "eid": str(host.eid),
                "mac": host.mac,
                "state": host.machine.state.value,
                "since_s": round((now - host.changed_ns) / 1e9, 3),
                "sighted_s_ago": round((now - host.sighted_ns) / 1e9, 3),
            }
            for host in self._hosts.values()
        ]
