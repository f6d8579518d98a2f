"""Proxy ARP and neighbour discovery: the gateway answers for EIDs of its LAN's prefix that live elsewhere.

Whether an EID is elsewhere is the mapping system's to say, and its word may be older than a guest that has just come
and not spoken yet. So a question is first passed on to the LAN in the gateway's name: who is there answers the
gateway, which is a sighting. Only if nobody did in time is the host answered that asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from testbed.lisp.actions import SECOND_NS, Action, Address, AnswerNeighbour, Forwarding, ProbeNeighbour
from testbed.lisp.config import XtrConfig, ns
from testbed.lisp.itr import Itr
from testbed.lisp.presence import Presence, PresenceState
from testbed.lisp.timing import earliest

#: What a host waits for an answer: three questions, a second apart (Linux, RFC 4861 §10).
PATIENCE_NS = 3 * SECOND_NS
#: Hosts that are answered about one EID; the others ask again.
MOST_ASKERS = 64


@dataclass(slots=True)
class _Question:
    """Who wants to know where an EID is.

    Attributes:
        silent_ns: from then on nobody on the LAN has answered.
        until_ns: from then on nobody waits any more.
        was_silent: that has been looked at; what is missing is the mapping, whose arrival settles it.
        askers: their MACs.
    """

    silent_ns: int
    until_ns: int
    was_silent: bool = False
    askers: dict[Address, str] = field(default_factory=dict)


class NeighbourProxy:
    """The open questions of a LAN.

    Args:
        config: of the xTR.
        presence: which EIDs are here.
        itr: of the same xTR; knows which are elsewhere.
    """

    def __init__(self, config: XtrConfig, presence: Presence, itr: Itr) -> None:
        self._config, self._presence, self._itr = config, presence, itr
        self._site = (config.rloc, *config.fellows)
        self._questions: dict[Address, _Question] = {}

    def asked(self, eid: Address, asker: Address, mac: str, now: int) -> list[Action]:
        """A host asks who has an EID of the dynamic prefix: look for it here, and in the mapping system."""
        if not self._config.is_dynamic(eid) or self._presence.state_of(eid) is PresenceState.LOCAL:
            return []
        actions: list[Action] = []
        question = self._questions.get(eid)
        if question is None:
            if len(self._questions) >= self._config.options.open_questions:
                return []
            question = _Question(now + ns(self._config.options.neighbour_wait_s), now + PATIENCE_NS)
            self._questions[eid] = question
            actions.append(ProbeNeighbour(eid))
        if len(question.askers) < MOST_ASKERS:
            question.askers[asker] = mac
        entry = self._itr.cache.lookup(eid, now)
        if entry is None or entry.forwarding is not Forwarding.REMOTE:
            # That nobody had it may be out of date; the limit of requests holds.
            actions += self._itr.want(eid, now)
        return actions + self.settle(now)

    def sighted(self, eid: Address) -> None:
        """An EID is here: it speaks for itself."""
        self._questions.pop(eid, None)

    def settle(self, now: int) -> list[Action]:
        """Answer what can be answered now, give up what nobody waits for."""
        actions: list[Action] = []
        for eid, question in list(self._questions.items()):
            if question.until_ns <= now:
                del self._questions[eid]
                continue
            question.was_silent = question.silent_ns <= now
            if question.was_silent and self._is_elsewhere(eid, now):
                del self._questions[eid]
                actions += [AnswerNeighbour(eid, asker, mac) for asker, mac in question.askers.items()]
        return actions

    def next_deadline(self) -> int | None:
        """When `settle` has something to do, if no mapping comes before."""
        return earliest(each.until_ns if each.was_silent else each.silent_ns for each in self._questions.values())

    def _is_elsewhere(self, eid: Address, now: int) -> bool:
        """Whether its mapping leads away from this site; to this one, it is here and silent since a restart of ours."""
        entry = self._itr.cache.lookup(eid, now)
        if entry is None or entry.forwarding is not Forwarding.REMOTE:
            return False
        return not any(locator.rloc in self._site for locator in entry.locators)
