"""What an xTR makes of the Map-Server's word that an EID has left (docs/adr/0003-who-owns-a-moving-eid.md)."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from testbed.lisp.actions import SECOND_NS, Forwarding, SetForwarding
from testbed.lisp.wire import EidPrefix, EidRecord, LocatorFlag, MapNotify, MapNotifyAck, MapRegister, RlocRecord
from tests.unit.test_lisp_xtr import EID, ELSEWHERE, FIXED, PEER, SECRET, Site, events, sent


@pytest.mark.parametrize(
    "locators", [(RlocRecord(ELSEWHERE, flags=LocatorFlag.NONE),), (RlocRecord(ELSEWHERE, priority=255),), ()]
)
def test_a_loss_to_a_site_without_a_usable_locator_is_one(locators: tuple[RlocRecord, ...]) -> None:
    site = Site()
    site.sight()
    record = EidRecord(EidPrefix(ip_network(EID)), 1440, locators)
    actions = site.receive(SECRET.seal(MapNotify(5000, (record,))))
    assert len(events(actions, "eid_departed")) == 1
    (dropping,) = [action for action in actions if isinstance(action, SetForwarding)]
    assert dropping.forwarding is Forwarding.DROP
    assert sent([action for _, action in site.run(300 * SECOND_NS)], MapRegister) == []


def test_a_departure_is_programmed_also_when_the_map_cache_is_full() -> None:
    site = Site(map_cache_entries=0)
    site.sight()
    (away,) = [action for action in site.receive(site.notice(5000)) if isinstance(action, SetForwarding)]
    assert (away.eid, away.forwarding) == (ip_network(EID), Forwarding.AWAY)


@pytest.mark.parametrize("ordered", [True, False])
def test_rule_6_a_notice_older_than_the_last_loss_is_acknowledged_and_changes_nothing(ordered: bool) -> None:
    site = Site(ordered_notifies=ordered)
    site.sight()
    old = site.notice(1 << 40)
    site.receive(old)
    site.now = SECOND_NS
    site.sight()
    site.receive(site.notice(1 << 41, PEER))
    actions = site.receive(old)
    assert len(sent(actions, MapNotifyAck)) == 1
    assert bool(events(actions, "map_cache_changed")) is not ordered


def test_rule_6_a_late_notice_of_what_has_left_our_fixed_prefix_does_not_send_it_away_again() -> None:
    site, guest = Site(), FIXED[9]

    def notice(nonce: int, ttl_minutes: int) -> bytes:
        locators = (RlocRecord(ELSEWHERE),) if ttl_minutes else ()
        record = EidRecord(EidPrefix(ip_network(guest)), ttl_minutes, locators)
        return SECRET.seal(MapNotify(nonce, (record,)))

    assert events(site.receive(notice(1 << 40, 1440)), "map_cache_changed")
    site.receive(notice(1 << 41, 0))
    assert not events(site.receive(notice(1 << 40, 1440)), "map_cache_changed")
    assert events(site.receive(notice(1 << 42, 1440)), "map_cache_changed")
