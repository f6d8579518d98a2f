"""Proxy ARP and ND: the gateway answers the first question for an EID elsewhere, and never for one that is here."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from testbed.lisp.actions import SECOND_NS, Action, AnswerNeighbour, Emit, ProbeNeighbour
from testbed.lisp.neighbour_proxy import MOST_ASKERS
from testbed.lisp.sightings import SightingKind
from testbed.lisp.wire import EidPrefix, EidRecord, EncapsulatedControl, MapNotify, MapReply, MapRequest, RlocRecord
from tests.unit.test_lisp_xtr import (
    EID,
    ELSEWHERE,
    GATEWAY,
    MAC,
    OTHER,
    RLOC,
    SECRET,
    Site,
    events,
    kinds,
    sent,
)

WAIT_NS = SECOND_NS // 5
OTHER_MAC = "00:16:3e:00:00:0b"
ANSWER = AnswerNeighbour(OTHER, EID, MAC)


def site_that_knows_the_asker(**options: Any) -> Site:
    site = Site(**options)
    site.sight()
    return site


def asks(site: Site, eid: Any = OTHER, asker: Any = EID, mac: str = MAC) -> list[Action]:
    return site.sight(SightingKind.ARP_REQUEST, asker, mac, asked=eid)


def requests(actions: list[Action]) -> list[MapRequest]:
    return [ecm.message for ecm in sent(actions, EncapsulatedControl)]


def answered(site: Site, question: MapRequest, *rlocs: Any, ttl_minutes: int = 1440) -> list[Action]:
    record = EidRecord(EidPrefix(ip_network(OTHER)), ttl_minutes, tuple(RlocRecord(rloc) for rloc in rlocs))
    return site.receive(MapReply(question.nonce, (record,)).encode())


def answers(done: list[tuple[int, Action]]) -> list[tuple[int, Action]]:
    return [(at, action) for at, action in done if isinstance(action, AnswerNeighbour)]


def test_the_first_question_is_answered_when_the_lan_was_silent_and_the_mapping_is_there() -> None:
    site = site_that_knows_the_asker()
    first = asks(site)
    assert ProbeNeighbour(OTHER) in first
    (question,) = requests(first)
    site.now = WAIT_NS // 4
    assert AnswerNeighbour not in kinds(answered(site, question, ELSEWHERE))
    assert answers(site.run(SECOND_NS)) == [(WAIT_NS, ANSWER)]
    assert not answers(site.run(20 * SECOND_NS))


def test_a_mapping_that_comes_later_than_the_lan_had_time_is_not_waited_for_any_longer() -> None:
    site = site_that_knows_the_asker()
    (question,) = requests(asks(site))
    assert not answers(site.run(2 * WAIT_NS))
    assert ANSWER in answered(site, question, ELSEWHERE)


def test_what_is_cached_does_not_excuse_from_looking_on_the_lan() -> None:
    """A guest that came a moment ago and has not spoken is elsewhere by everybody's word."""
    site = site_that_knows_the_asker()
    (question,) = requests(asks(site))
    answered(site, question, ELSEWHERE)
    site.run(10 * SECOND_NS)
    again = asks(site)
    assert again == [ProbeNeighbour(OTHER)]
    arrived = site.sight(SightingKind.ARP_REPLY, OTHER, OTHER_MAC)  # what it says to the gateway's question
    assert events(arrived, "eid_detected")
    assert not answers(site.run(20 * SECOND_NS))
    assert asks(site) == []


@pytest.mark.parametrize("kind", [SightingKind.ARP_REPLY, SightingKind.GRATUITOUS_ARP, SightingKind.PACKET])
def test_a_host_that_shows_itself_while_it_is_asked_for_speaks_for_itself(kind: SightingKind) -> None:
    site = site_that_knows_the_asker()
    (question,) = requests(asks(site))
    site.now = WAIT_NS // 2
    site.sight(kind, OTHER, OTHER_MAC)
    assert AnswerNeighbour not in kinds(answered(site, question, ELSEWHERE))
    assert not answers(site.run(10 * SECOND_NS))


def test_what_nobody_has_is_not_answered_for_and_is_asked_for_again() -> None:
    """A negative answer lasts a minute; who asks on the LAN within that may ask for one that has come meanwhile."""
    site = site_that_knows_the_asker()
    (question,) = requests(asks(site))
    answered(site, question, ttl_minutes=1)
    assert not answers(site.run(5 * SECOND_NS))
    (again,) = requests(asks(site))
    answered(site, again, ELSEWHERE)
    assert [action for _, action in answers(site.run(6 * SECOND_NS))] == [ANSWER]


def test_a_mapping_to_this_site_is_of_a_host_here_that_is_silent_since_a_restart() -> None:
    site = site_that_knows_the_asker()
    (question,) = requests(asks(site))
    answered(site, question, RLOC)
    assert not answers(site.run(10 * SECOND_NS))


def test_who_asks_the_same_meanwhile_is_answered_too_and_asked_about_once() -> None:
    site = site_that_knows_the_asker()
    third, third_mac = ip_address("192.168.0.12"), "00:16:3e:00:00:0c"
    (question,) = requests(asks(site))
    more = asks(site, asker=third, mac=third_mac)
    assert ProbeNeighbour not in kinds(more)
    assert not requests(more)
    answered(site, question, ELSEWHERE)
    assert {action for _, action in answers(site.run(SECOND_NS))} == {ANSWER, AnswerNeighbour(OTHER, third, third_mac)}


def test_nobody_is_answered_who_has_stopped_waiting() -> None:
    site = site_that_knows_the_asker()
    (question,) = requests(asks(site))
    site.run(4 * SECOND_NS)
    assert AnswerNeighbour not in kinds(answered(site, question, ELSEWHERE))


def test_an_eid_that_left_is_elsewhere() -> None:
    site = site_that_knows_the_asker()
    site.sight(eid=OTHER, mac=OTHER_MAC)
    record = EidRecord(EidPrefix(ip_network(OTHER)), 1440, (RlocRecord(ELSEWHERE),))
    site.receive(SECRET.seal(MapNotify(5000, (record,))))
    assert asks(site) == [ProbeNeighbour(OTHER)]
    assert answers(site.run(SECOND_NS)) == [(WAIT_NS, ANSWER)]


def test_an_eid_that_is_here_or_the_gateway_speaks_for_itself() -> None:
    site = site_that_knows_the_asker()
    site.sight(eid=OTHER, mac=OTHER_MAC)
    for eid in (OTHER, GATEWAY):
        assert asks(site, eid) == []


def test_a_scan_of_the_lan_opens_no_more_questions_than_there_may_be() -> None:
    site = site_that_knows_the_asker(open_questions=2)
    asked = [action for n in range(20, 60) for action in asks(site, ip_address(f"192.168.0.{n}"))]
    assert len(requests(asked)) == kinds(asked).count(ProbeNeighbour) == 2


def test_more_hosts_than_are_remembered_ask_again() -> None:
    site = site_that_knows_the_asker()
    asked = [action for n in range(2 * MOST_ASKERS) for action in asks(site, asker=ip_address(f"192.168.7.{n}"))]
    (question,) = requests(asked)
    answered(site, question, ELSEWHERE)
    assert len(answers(site.run(SECOND_NS))) == MOST_ASKERS


@pytest.mark.parametrize("wait_s", [0.0, 0.5])
def test_the_wait_is_an_option(wait_s: float) -> None:
    site = site_that_knows_the_asker(neighbour_wait_s=wait_s)
    (question,) = requests(asks(site))
    told = [action for action in answered(site, question, ELSEWHERE) if not isinstance(action, Emit)]
    if wait_s:
        assert ANSWER not in told
        assert answers(site.run(SECOND_NS)) == [(SECOND_NS // 2, ANSWER)]
    else:
        assert ANSWER in told
