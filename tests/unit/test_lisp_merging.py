"""Registrations of several xTRs of one site, merged by the Map-Server (RFC 9301 §5.6, docs/adr/0006)."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from itertools import permutations
from typing import Any

import pytest

from testbed.lisp.actions import SECOND_NS, Action, SaveNonce, SendControl, SetLocatorStatus
from testbed.lisp.config import MapServerOptions, OptionError, SiteConfig, SiteLocator, XtrConfig, XtrOptions
from testbed.lisp.inputs import ControlReceived, Started
from testbed.lisp.mechanisms import mechanism_named
from testbed.lisp.merging import united
from testbed.lisp.ownership import Claimant
from testbed.lisp.registry import Part
from testbed.lisp.wire import Action as MappingAction
from testbed.lisp.wire import (
    EidPrefix,
    EidRecord,
    EidRecordFlag,
    EncapsulatedControl,
    LocatorFlag,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapRegisterFlag,
    MapReply,
    MapRequest,
    RequestedEid,
    RlocRecord,
    XtrIdentity,
    decode_control,
)
from testbed.lisp.xtr import Xtr
from tests.unit.lisp_network import FIXED, MAP_SERVER, MS_NS, SECOND_AT_A, Network
from tests.unit.lisp_server import MOBILE, RLOC_A, RLOC_B, RLOC_C, SECRETS, SITES, Server, events, sends

RLOC_D, RLOC_E = ip_address("10.0.4.2"), ip_address("10.0.5.2")
PREFIX, GUEST = "192.168.3.0/24", "192.168.0.10/32"
MERGE = MapRegisterFlag.WANT_MAP_NOTIFY | MapRegisterFlag.MERGE
OWN = LocatorFlag.REACHABLE | LocatorFlag.LOCAL


class Merging(Server):
    """A Map-Server whose site C has several xTRs."""

    def xtr(self, rloc: Any, nonce: int = 1, *, eid: str = PREFIX, site: str = "c", **given: Any) -> list[Action]:
        given.setdefault("flags", MERGE)
        return self.register(eid, nonce=nonce, site=site, source=rloc, **given)

    def row(self, eid: str = PREFIX) -> dict[str, Any]:
        (row,) = [each for each in self.machine.inspect(self.now)["registrations"] if each["eid"] == eid]
        return dict(row)

    def rlocs(self, eid: str = PREFIX) -> list[str]:
        return [str(locator.rloc) for locator in self.records(eid)[0].locators]

    def wait(self, seconds: float) -> list[Action]:
        self.now += round(seconds * SECOND_NS)
        return self.machine.handle_timer(self.now)


def told(actions: list[Action]) -> dict[Any, list[str]]:
    """Whom Map-Notifies go to, with the locators in them."""
    found = {}
    for sent in sends(actions):
        notify = decode_control(sent.payload)
        if isinstance(notify, MapNotify):
            found[sent.destination] = [str(each.rloc) for each in notify.records[0].locators]
    return found


@pytest.mark.parametrize("order", list(permutations([RLOC_C, RLOC_D, RLOC_E])))
def test_rfc9301_5_6_the_answer_has_the_locators_of_all_xtrs_in_wire_order(order: tuple[Any, ...]) -> None:
    server = Merging()
    for rloc in order:
        server.xtr(rloc)
    (record,) = server.records(PREFIX)
    assert [str(each.rloc) for each in record.locators] == ["10.0.3.2", "10.0.4.2", "10.0.5.2"]
    assert {each.flags for each in record.locators} == {LocatorFlag.REACHABLE}
    assert len(server.row()["merged"]) == 3


def test_rule_5_xtrs_that_differ_in_a_bit_and_action_change_nothing_with_each_refresh() -> None:
    server = Merging()
    changes = []
    for nonce in range(1, 4):
        for rloc, flags in ((RLOC_C, EidRecordFlag.AUTHORITATIVE), (RLOC_D, EidRecordFlag.NONE)):
            changes.append(len(events(server.xtr(rloc, nonce=nonce, record_flags=flags), "mapping_changed")))
    assert changes == [1, 1, 0, 0, 0, 0]


def test_rule_5_the_set_is_the_same_in_whatever_order_its_parts_come() -> None:
    eid = EidPrefix(ip_network(PREFIX))
    parts = [
        Part.of(EidRecord(eid, 1440, (), action, flags), MapRegister(1, ()), Claimant("c", rloc), rloc, 0, 1)
        for rloc, action, flags in (
            (RLOC_C, MappingAction.DROP_NO_REASON, EidRecordFlag.AUTHORITATIVE),
            (RLOC_D, MappingAction.NATIVELY_FORWARD, EidRecordFlag.NONE),
            (RLOC_E, MappingAction.SEND_MAP_REQUEST, EidRecordFlag.AUTHORITATIVE),
        )
    ]
    (record,) = {united(order) for order in permutations(parts)}
    assert (record.action, record.flags) == (MappingAction.DROP_NO_REASON, EidRecordFlag.NONE)


def test_rfc9301_5_6_without_the_bit_the_last_registration_replaces_the_others() -> None:
    server = Merging()
    server.xtr(RLOC_C, flags=MapRegisterFlag.WANT_MAP_NOTIFY)
    server.xtr(RLOC_D, flags=MapRegisterFlag.WANT_MAP_NOTIFY)
    assert server.rlocs() == ["10.0.4.2"]


def test_rfc9301_5_7_every_xtr_that_shares_a_mapping_is_told_what_it_is() -> None:
    server = Merging()
    assert told(server.xtr(RLOC_C, nonce=11)) == {RLOC_C: ["10.0.3.2"]}
    both = ["10.0.3.2", "10.0.4.2"]
    actions = server.xtr(RLOC_D, nonce=22)
    assert told(actions) == {RLOC_D: both, RLOC_C: both}
    notices = {each.destination: decode_control(each.payload) for each in sends(actions)}
    # Each under the nonce of its own registration, with its own locator marked and nobody else's.
    for rloc, nonce in ((RLOC_C, 11), (RLOC_D, 22)):
        notice = notices[rloc]
        assert isinstance(notice, MapNotify)
        assert notice.nonce == nonce
        assert [each.rloc for each in notice.records[0].locators if each.flags & LocatorFlag.LOCAL] == [rloc]
    assert [event["reason"] for event in events(actions, "mapping_changed")] == ["changed"]
    assert told(server.xtr(RLOC_D, nonce=23)) == {RLOC_D: both}, "a refresh changes nothing"


def test_rfc9301_5_7_the_unsolicited_notice_is_repeated_until_it_is_acknowledged() -> None:
    server = Merging()
    server.xtr(RLOC_C, nonce=11)
    server.xtr(RLOC_D, nonce=22)
    assert list(told(server.wait(3))) == [RLOC_C]
    record = EidRecord(EidPrefix(ip_network(PREFIX)), 1440, (RlocRecord(RLOC_C), RlocRecord(RLOC_D)))
    server.receive(SECRETS["c"].seal(MapNotifyAck(11, (record,))), RLOC_C)
    assert told(server.wait(3)) == {}


def test_rfc9301_5_7_an_acknowledgement_of_the_set_before_does_not_end_the_notice_of_this_one() -> None:
    server = Merging()
    server.xtr(RLOC_C, nonce=11)
    first, second = (
        next(decode_control(each.payload) for each in sends(server.xtr(rloc, nonce=22)) if each.destination == RLOC_C)
        for rloc in (RLOC_D, RLOC_E)
    )
    assert isinstance(first, MapNotify)
    assert isinstance(second, MapNotify)
    assert first.nonce == second.nonce == 11
    server.receive(SECRETS["c"].seal(MapNotifyAck(11, first.records)), RLOC_C)
    assert list(told(server.wait(3))) == [RLOC_C, RLOC_D], "the second was lost"
    server.receive(SECRETS["c"].seal(MapNotifyAck(11, second.records)), RLOC_C)
    assert list(told(server.wait(3))) == [RLOC_D]


@pytest.mark.parametrize("copied", [True, False])
def test_rfc9301_5_7_notices_of_two_prefixes_under_one_nonce_are_acknowledged_each(copied: bool) -> None:
    halves = [EidPrefix(ip_network(each)) for each in ("192.168.3.0/25", "192.168.3.128/25")]
    server = Merging()

    def register(rloc: Any, nonce: int) -> list[Action]:
        records = tuple(EidRecord(eid, 1440, (RlocRecord(rloc, flags=OWN),)) for eid in halves)
        return server.receive(
            SECRETS["c"].seal(MapRegister(nonce, records, flags=MERGE, xtr=XtrIdentity(int(rloc)))), rloc
        )

    register(RLOC_C, 11)
    notices = [decode_control(each.payload) for each in sends(register(RLOC_D, 22)) if each.destination == RLOC_C]

    def unacknowledged() -> list[str]:
        return [each["eids"][0] for each in server.machine.inspect(server.now)["unacknowledged"]]

    assert unacknowledged() == ["192.168.3.0/25", "192.168.3.128/25"]
    second = notices[1]
    assert isinstance(second, MapNotify)
    for _ in range(2):  # a repetition says no more than the first
        server.receive(SECRETS["c"].seal(MapNotifyAck(11, second.records if copied else ())), RLOC_C)
    assert unacknowledged() == (["192.168.3.0/25"] if copied else [])


def test_rfc9301_5_7_a_refresh_ends_the_repetition_since_its_answer_says_the_same() -> None:
    server = Merging()
    server.xtr(RLOC_C, nonce=11)
    server.xtr(RLOC_D, nonce=22)
    server.xtr(RLOC_C, nonce=12)
    assert told(server.wait(3)) == {}


def test_rfc9301_5_7_who_asks_for_no_map_notify_gets_none() -> None:
    server = Merging()
    server.xtr(RLOC_C, flags=MapRegisterFlag.MERGE)
    assert list(told(server.xtr(RLOC_D))) == [RLOC_D]


def test_rfc9301_8_2_each_xtrs_part_expires_by_itself() -> None:
    server = Merging()
    server.xtr(RLOC_C)
    server.wait(100)
    server.xtr(RLOC_D)
    actions = server.wait(80)
    (changed,) = events(actions, "mapping_changed")
    assert (changed["reason"], changed["locators"], str(changed["owner"])[:2]) == ("part expired", 1, "c/")
    assert server.rlocs() == ["10.0.4.2"]
    assert told(actions)[RLOC_D] == ["10.0.4.2"]
    (changed,) = events(server.wait(100), "mapping_changed")
    assert changed["reason"] == "registration expired"
    assert server.rlocs() == []


def test_rfc9301_5_4_a_ttl_of_0_withdraws_the_senders_part_alone() -> None:
    server = Merging()
    server.xtr(RLOC_C, nonce=1)
    server.xtr(RLOC_D, nonce=1)
    actions = server.xtr(RLOC_C, nonce=2, ttl_minutes=0)
    assert [event["reason"] for event in events(actions, "mapping_changed")] == ["part withdrawn"]
    assert told(actions)[RLOC_D] == ["10.0.4.2"]
    assert server.rlocs() == ["10.0.4.2"]
    assert events(server.xtr(RLOC_C, nonce=3, ttl_minutes=0), "mapping_changed") == [], "it has no part any more"
    server.xtr(RLOC_D, nonce=2, ttl_minutes=0)
    assert server.rlocs() == []


@pytest.mark.parametrize("nonce", [4, 5])
def test_rfc9301_5_6_nonces_are_ordered_for_each_xtr(nonce: int) -> None:
    server = Merging()
    server.xtr(RLOC_C, nonce=5)
    server.xtr(RLOC_D, nonce=2)  # lower than the other's, and good
    refused = events(server.xtr(RLOC_C, nonce=nonce, ttl_minutes=0), "registration_refused")
    assert [event["reason"] for event in refused] == ["replay"]
    assert server.rlocs() == ["10.0.3.2", "10.0.4.2"]


def test_rfc9301_5_6_a_recorded_register_under_another_xtr_id_adds_no_part() -> None:
    """The MAC ends before the xTR-ID (docs/adr/0003): the locator that the sender calls its own is covered."""
    server = Merging()
    record = EidRecord(EidPrefix(ip_network(PREFIX)), 1440, (RlocRecord(RLOC_C, flags=OWN),))
    heard = SECRETS["c"].seal(MapRegister(5, (record,), flags=MERGE, xtr=XtrIdentity(1)))
    server.receive(heard, RLOC_C)
    actions = server.receive(heard[:-24] + XtrIdentity(4711).encode(), RLOC_C)
    assert [event["reason"] for event in events(actions, "registration_refused")] == ["replay"]
    assert len(server.row()["merged"]) == 1


def test_sites_are_never_merged_with_one_another() -> None:
    server = Merging(sites=(SITES[2], SiteConfig("d", (FIXED,), (), SECRETS["b"])))
    server.xtr(RLOC_C)
    server.xtr(RLOC_E)
    actions = server.xtr(RLOC_D, secret=SECRETS["b"])
    assert server.rlocs() == ["10.0.4.2"]
    assert set(told(actions)) == {RLOC_C, RLOC_D, RLOC_E}, "both losers are told"


def test_rfc9301_8_3_the_map_server_answers_if_any_of_the_etrs_asks_it_to() -> None:
    server = Merging()
    server.xtr(RLOC_C, proxy=True)
    server.xtr(RLOC_D, proxy=False)
    assert server.rlocs() == ["10.0.3.2", "10.0.4.2"]


def test_rfc9301_8_3_otherwise_the_xtr_heard_last_is_asked() -> None:
    server = Merging()
    server.xtr(RLOC_C, nonce=1, proxy=False)
    server.xtr(RLOC_D, nonce=1, proxy=False)
    assert [each.destination for each in sends(server.request("192.168.3.10/32"))] == [RLOC_D]
    server.xtr(RLOC_C, nonce=2, proxy=False)
    assert [each.destination for each in sends(server.request("192.168.3.10/32"))] == [RLOC_C]


def test_of_a_locator_its_own_xtrs_word_counts_and_the_smallest_ttl() -> None:
    server = Merging()
    server.xtr(RLOC_C, given=(RlocRecord(RLOC_C, 2, 10, flags=OWN),), ttl_minutes=60)
    wrong = RlocRecord(RLOC_C, 1, 200)
    actions = server.xtr(RLOC_D, given=(wrong, RlocRecord(RLOC_D, 2, 30, flags=OWN)), ttl_minutes=1440)
    (record,) = server.records(PREFIX)
    assert [(str(each.rloc), each.priority, each.weight) for each in record.locators] == [
        ("10.0.3.2", 2, 10),
        ("10.0.4.2", 2, 30),
    ]
    assert record.ttl_minutes == 60
    conflicts = events(actions, "merge_conflict")
    assert [(event["about"], event["outcome"]) for event in conflicts] == [
        ("TTL", "60 minutes, the smallest, count"),
        ("locator", "10.0.3.2 has priority 2, weight 10"),
    ]
    again = server.xtr(RLOC_D, 2, given=(wrong, RlocRecord(RLOC_D, 2, 30, flags=OWN)), ttl_minutes=1440)
    assert events(again, "merge_conflict") == [], "said once"


def test_of_a_locator_that_nobody_calls_its_own_the_best_priority_counts_in_any_order() -> None:
    words = (RlocRecord(RLOC_E, 1, 10), RlocRecord(RLOC_E, 1, 20), RlocRecord(RLOC_E, 3, 90))
    for order in permutations(words):
        server = Merging()
        for rloc, word in zip((RLOC_A, RLOC_C, RLOC_D), order, strict=True):
            server.xtr(rloc, given=(word,))
        (record,) = server.records(PREFIX)
        assert [(each.priority, each.weight) for each in record.locators] == [(1, 20)]


@pytest.mark.parametrize(("first", "second"), [(MERGE, MERGE & ~MapRegisterFlag.MERGE), (MERGE & 0x100, MERGE)])
def test_one_xtr_with_the_bit_and_one_without_the_last_counts_and_the_log_says_so(
    first: MapRegisterFlag, second: MapRegisterFlag
) -> None:
    server = Merging()
    server.xtr(RLOC_C, flags=MapRegisterFlag(first))
    actions = server.xtr(RLOC_D, flags=MapRegisterFlag(second))
    (conflict,) = events(actions, "merge_conflict")
    assert conflict["about"] == "merge-request bit"
    assert server.rlocs() == ["10.0.4.2"]


def test_an_xtr_that_alone_begins_to_ask_for_merging_is_no_conflict() -> None:
    server = Merging()
    server.xtr(RLOC_C, nonce=1, flags=MapRegisterFlag.WANT_MAP_NOTIFY)
    assert events(server.xtr(RLOC_C, nonce=2), "merge_conflict") == []


def test_a_set_that_no_record_holds_is_refused() -> None:
    server = Merging()
    many = tuple(RlocRecord(ip_address("10.9.0.0") + number) for number in range(255))
    server.xtr(RLOC_C, given=many)
    refused = events(server.xtr(RLOC_D), "registration_refused")
    assert [event["reason"] for event in refused] == ["too many to merge"]
    assert len(server.records(PREFIX)[0].locators) == 255


def test_rfc9302_6_the_version_counts_the_sets_and_every_xtr_learns_it() -> None:
    server = Merging(mechanism="map-version")
    versions = []
    for rloc in (RLOC_C, RLOC_D):
        actions = server.xtr(rloc)
        notices = [decode_control(each.payload) for each in sends(actions)]
        versions.append({each.records[0].map_version for each in notices if isinstance(each, MapNotify)})
    assert len(versions[0]) == len(versions[1]) == 1
    assert versions[1] == {versions[0].pop() + 1}
    later = server.wait(180)
    assert events(later, "mapping_changed")[0]["reason"] == "registration expired", "both at one moment"


def test_a_subscriber_is_told_of_each_change_of_the_set() -> None:
    server = Merging(mechanism="pubsub")
    server.register("192.168.0.20/32", site="a", source=RLOC_A)  # whoever subscribes is known
    server.xtr(RLOC_C, nonce=1)
    server.request(PREFIX, nonce=1 << 60, subscribe=True, itr_rlocs=(RLOC_A,), xtr=XtrIdentity(int(RLOC_A)))
    assert told(server.xtr(RLOC_D, nonce=1))[RLOC_A] == ["10.0.3.2", "10.0.4.2"]
    server.wait(100)
    server.xtr(RLOC_D, nonce=2)
    assert told(server.wait(80))[RLOC_A] == ["10.0.4.2"]


# --- single EIDs that move ------------------------------------------------------------------------------


def test_two_xtrs_of_one_lan_own_a_moving_eid_together_and_lose_it_together() -> None:
    server = Merging()
    server.xtr(RLOC_A, nonce=1, eid=GUEST, site="a")
    actions = server.xtr(RLOC_D, nonce=1, eid=GUEST, site="a")
    assert server.rlocs(GUEST) == ["10.0.1.2", "10.0.4.2"]
    assert {each["reason"] for each in events(actions, "map_notify_sent")} == {"registration", "merged"}
    actions = server.xtr(RLOC_B, nonce=1, eid=GUEST, site="b")
    assert server.rlocs(GUEST) == ["10.0.2.2"]
    assert told(actions) == {rloc: ["10.0.2.2"] for rloc in (RLOC_A, RLOC_B, RLOC_D)}
    for rloc in (RLOC_A, RLOC_D):  # refreshes that were sent before either heard
        refused = events(server.xtr(rloc, nonce=2, eid=GUEST, site="a"), "registration_refused")
        assert [event["reason"] for event in refused] == ["registered elsewhere since"]
    assert server.rlocs(GUEST) == ["10.0.2.2"]


def test_a_fellows_first_registration_that_comes_after_the_eid_has_moved_takes_nothing_back() -> None:
    server = Merging()
    server.xtr(RLOC_D, nonce=1, eid="192.168.0.99/32", site="a")  # known, of another EID
    server.xtr(RLOC_A, nonce=1, eid=GUEST, site="a")
    assert set(told(server.xtr(RLOC_B, nonce=1, eid=GUEST, site="b"))) == {RLOC_A, RLOC_B, RLOC_D}
    late = server.xtr(RLOC_D, nonce=2, eid=GUEST, site="a")
    assert [event["reason"] for event in events(late, "registration_refused")] == ["registered elsewhere since"]
    assert server.rlocs(GUEST) == ["10.0.2.2"]


def restarted() -> Merging:
    """A Map-Server that two xTRs of site A have told of the guest, and that has forgotten but what it stored."""
    saved: dict[str, int] = {}
    server = Merging()
    for rloc in (RLOC_A, RLOC_D):
        saved |= {a.owner: a.nonce for a in server.xtr(rloc, eid=GUEST, site="a") if isinstance(a, SaveNonce)}
    return Merging(saved=saved)


@pytest.mark.parametrize(("first", "silent"), [(RLOC_A, RLOC_D), (RLOC_D, RLOC_A)])
def test_a_restarted_map_server_still_tells_both_that_the_eid_has_moved(first: Any, silent: Any) -> None:
    server = restarted()
    assert told(server.xtr(first, nonce=2, eid=GUEST, site="a")) == {first: [str(first)]}
    server.xtr(silent, nonce=2, eid="192.168.0.99/32", site="a")  # heard, of another EID
    assert set(told(server.xtr(RLOC_B, nonce=1, eid=GUEST, site="b"))) == {RLOC_A, RLOC_B, RLOC_D}


def test_after_a_restart_the_xtrs_of_a_site_come_back_one_after_the_other() -> None:
    server = restarted()
    server.xtr(RLOC_D, nonce=2, eid=GUEST, site="a")
    assert events(server.xtr(RLOC_A, nonce=2, eid=GUEST, site="a"), "registration_refused") == []
    assert server.rlocs(GUEST) == ["10.0.1.2", "10.0.4.2"]


def test_a_guest_that_two_xtrs_see_has_both_locators_wherever_it_comes_back() -> None:
    options = XtrOptions(merge_registrations=True, map_reply_interval_s=0)
    network = Network("smr-old-xtr", xtr_options=options, second_at_a=True)
    for name in ("xtr-a", SECOND_AT_A):
        network.sight(name)
    network.run_for(1 * SECOND_NS)
    assert network.locators() == ["xtr-a", SECOND_AT_A]
    network.sight("xtr-b")
    network.run_for(1 * SECOND_NS)
    assert network.locators() == ["xtr-b"]
    assert [network.host_state(name) for name in ("xtr-a", SECOND_AT_A)] == ["away", "away"]
    network.sight(SECOND_AT_A)
    network.run_for(5 * MS_NS)
    network.sight("xtr-a")
    network.run_for(1 * SECOND_NS)
    assert network.locators() == ["xtr-a", SECOND_AT_A]
    assert network.host_state("xtr-b") == "away"
    network.run_for(200 * SECOND_NS)  # refreshes of both, for more than a registration's life
    assert network.locators() == ["xtr-a", SECOND_AT_A]
    assert network.saw("registration_refused") == []


# --- the xTR --------------------------------------------------------------------------------------------


class Etr:
    """An xTR that shares the fixed prefix, and the Map-Server's secret to speak to it."""

    def __init__(self, locators: tuple[SiteLocator, ...] = (), **options: Any) -> None:
        self.now = SECOND_NS
        self.xtr = Xtr(
            XtrConfig(
                rloc=RLOC_C, identity=XtrIdentity(3), eid_prefixes=(FIXED,), dynamic_eid_prefixes=(),
                eid_space=(MOBILE, FIXED), gateways=(), map_servers=(MAP_SERVER,), map_resolvers=(MAP_SERVER,),
                secret=SECRETS["c"], mechanism=mechanism_named("ttl"),
                options=XtrOptions(merge_registrations=True, map_reply_interval_s=0, **options), locators=locators,
            ),
            nonce=100, random64=lambda: 7,
        )  # fmt: skip
        self.started = self.xtr.handle(Started(), self.now)

    def registers(self, actions: list[Action]) -> list[MapRegister]:
        messages = [decode_control(each.payload) for each in sends(actions)]
        return [each for each in messages if isinstance(each, MapRegister)]

    def notify(self, nonce: int, *locators: RlocRecord, eid: str = PREFIX) -> list[Action]:
        record = EidRecord(EidPrefix(ip_network(eid)), 1440, locators)
        sealed = SECRETS["c"].seal(MapNotify(nonce, (record,)))
        return self.xtr.handle(ControlReceived(sealed, MAP_SERVER, 4342), self.now)

    def answer(self) -> tuple[RlocRecord, ...]:
        """The locators in its own Map-Reply."""
        asked = (RequestedEid(EidPrefix(ip_network("192.168.3.10/32"))),)
        request = MapRequest(9, (RLOC_A,), asked)
        outer = EncapsulatedControl(RLOC_A, ip_address("192.168.3.10"), 4342, request.encode())
        (sent,) = sends(self.xtr.handle(ControlReceived(outer.encode(), MAP_SERVER, 4342), self.now))
        reply = decode_control(sent.payload)
        assert isinstance(reply, MapReply)
        return reply.records[0].locators


def test_rfc9301_5_6_an_xtr_that_merges_registers_its_own_locator_with_the_bit_and_its_xtr_id() -> None:
    etr = Etr((SiteLocator(RLOC_C, 2, 30), SiteLocator(RLOC_D, 1, 70)))
    (message,) = etr.registers(etr.started)
    assert message.flags & MapRegisterFlag.MERGE
    assert message.xtr == XtrIdentity(3)
    assert message.records[0].locators == (RlocRecord(RLOC_C, 2, 30, flags=OWN),)


def test_an_xtr_answers_with_the_set_that_it_was_told_and_registers_its_own_part_of_it() -> None:
    etr = Etr()
    etr.notify(101, RlocRecord(RLOC_C, flags=OWN))
    assert [each.rloc for each in etr.answer()] == [RLOC_C]
    actions = etr.notify(101, RlocRecord(RLOC_C, flags=OWN), RlocRecord(RLOC_D, 2, 40))
    assert isinstance(decode_control(sends(actions)[0].payload), MapNotifyAck)
    assert events(actions, "registration_merged")[0]["locators"] == ["10.0.3.2", "10.0.4.2"]
    assert etr.answer() == (RlocRecord(RLOC_C, flags=OWN), RlocRecord(RLOC_D, 2, 40))
    etr.now += 60 * SECOND_NS
    (refresh,) = etr.registers(etr.xtr.handle_timer(etr.now))
    assert [each.rloc for each in refresh.records[0].locators] == [RLOC_C]
    assert refresh.nonce == 102, "the notice moved no nonce"


def test_an_xtr_takes_no_set_without_its_own_locator_nor_of_what_it_does_not_register() -> None:
    etr = Etr()
    etr.notify(101, RlocRecord(RLOC_C, flags=OWN))
    for locators, eid in (((RlocRecord(RLOC_D),), PREFIX), ((RlocRecord(RLOC_C),), "192.168.3.0/25")):
        assert events(etr.notify(101, *locators, eid=eid), "registration_merged") == []
    assert [each.rloc for each in etr.answer()] == [RLOC_C]


def test_rfc9300_10_the_bits_count_the_merged_set() -> None:
    etr = Etr(locator_status_bits="verify")
    assert SetLocatorStatus(0b1) in etr.started
    etr.notify(101, RlocRecord(RLOC_C, flags=OWN))
    actions = etr.notify(101, RlocRecord(RLOC_B), RlocRecord(RLOC_C, flags=OWN), RlocRecord(RLOC_D, flags=OWN))
    assert SetLocatorStatus(0b111) in actions


def test_a_site_of_moving_eids_that_merges_says_no_bits() -> None:
    with pytest.raises(OptionError, match="locator-status-bits"):
        Network(xtr_options=XtrOptions(merge_registrations=True, locator_status_bits="trust"))


def test_lifetimes_of_the_parts_are_the_option() -> None:
    server = Merging(MapServerOptions(registration_lifetime_s=2, map_reply_interval_s=0))
    server.xtr(RLOC_C)
    server.wait(1)
    server.xtr(RLOC_D)
    server.wait(1)
    assert server.rlocs() == ["10.0.4.2"]
    assert not [each for each in server.wait(0.5) if isinstance(each, SendControl)]
