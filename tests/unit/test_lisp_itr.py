"""The ITR's rules (RFC 9301 §5.2-5.5, §6.1, §8.1), with a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, ip_address, ip_network
from itertools import pairwise
from typing import Any

import pytest

from testbed.lisp.actions import (
    MINUTE_NS,
    SECOND_NS,
    Action,
    ClearForwarding,
    Emit,
    Forwarding,
    Inject,
    SendControl,
    SetForwarding,
)
from testbed.lisp.config import XtrConfig, XtrOptions
from testbed.lisp.itr import Itr
from testbed.lisp.mechanisms import mechanism_named
from testbed.lisp.sealing import Secret
from testbed.lisp.wire import Action as MappingAction
from testbed.lisp.wire import (
    EidPrefix,
    EidRecord,
    EncapsulatedControl,
    LocatorFlag,
    MapNotify,
    MapReply,
    MapRequest,
    MapRequestFlag,
    RlocRecord,
    XtrIdentity,
    decode_control,
)

RESOLVERS = (ip_address("10.0.0.2"), ip_address("10.0.0.3"))
RLOC, REMOTE, OLD = ip_address("10.0.3.2"), ip_address("10.0.2.2"), ip_address("10.0.1.2")
EID = ip_address("192.168.0.10")


class Asking:
    """An ITR and what it asked."""

    def __init__(
        self,
        override: Callable[[Any], Forwarding | None] = lambda prefix: None,
        *,
        mechanism: str = "smr-old-xtr",
        **options: Any,
    ) -> None:
        self.now = 0
        self._random = 0
        config = XtrConfig(
            rloc=RLOC,
            identity=XtrIdentity(1),
            eid_prefixes=(),
            dynamic_eid_prefixes=(),
            eid_space=(IPv4Network("192.168.0.0/16"),),
            gateways=(),
            map_servers=RESOLVERS[:1],
            map_resolvers=RESOLVERS,
            secret=Secret(0, b"k"),
            mechanism=mechanism_named(mechanism),
            options=XtrOptions(**options),
        )
        self.itr = Itr(config, self._random64, override)

    def _random64(self) -> int:
        self._random += 1
        return self._random

    def miss(self, packet: bytes = b"packet") -> list[Action]:
        return self.itr.miss(EID, packet, self.now)

    def reply(self, nonce: int, *records: EidRecord) -> list[Action]:
        return self.itr.reply(MapReply(nonce, records), RESOLVERS[0], self.now)

    def resolved(self, *records: EidRecord) -> list[Action]:
        (request,) = requests(self.miss())
        return self.reply(request[0].nonce, *records)

    def run(self, until: int) -> list[tuple[int, Action]]:
        """Everything that the timers bring until then, with its time."""
        done: list[tuple[int, Action]] = []
        while (deadline := self.itr.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            done += [(self.now, action) for action in self.itr.handle_timer(self.now)]
        self.now = until
        return done


def mapping(eid: str = "192.168.0.10/32", rloc: Any = REMOTE, ttl_minutes: int = 1440, **fields: Any) -> EidRecord:
    return EidRecord(EidPrefix(ip_network(eid)), ttl_minutes, (RlocRecord(rloc),), **fields)


def requests(actions: list[Action]) -> list[tuple[MapRequest, EncapsulatedControl, SendControl]]:
    found = []
    for sent in actions:
        if isinstance(sent, SendControl):
            outer = decode_control(sent.payload)
            assert isinstance(outer, EncapsulatedControl)
            inner = outer.message
            assert isinstance(inner, MapRequest)
            found.append((inner, outer, sent))
    return found


def programmed(actions: list[Action]) -> list[SetForwarding]:
    return [action for action in actions if isinstance(action, SetForwarding)]


def injected(actions: list[Action]) -> list[bytes]:
    return [action.packet for action in actions if isinstance(action, Inject)]


def events(actions: list[Action], kind: str) -> list[dict[str, Any]]:
    return [dict(action.fields) for action in actions if isinstance(action, Emit) and action.kind == kind]


def test_rfc9301_5_8_a_miss_asks_the_map_resolver_in_an_ecm() -> None:
    ((inner, outer, sent),) = requests(Asking().miss())
    assert (sent.destination, sent.port) == (RESOLVERS[0], 4342)
    assert (outer.source, outer.destination, outer.source_port, outer.destination_port) == (
        RLOC,
        EID,
        4342,
        4342,
    )
    assert [str(request.eid) for request in inner.requests] == ["192.168.0.10/32"]
    assert inner.itr_rlocs == (RLOC,)
    assert inner.flags == MapRequestFlag.NONE


def test_rfc9301_5_3_more_packets_ask_no_more_questions() -> None:
    asking = Asking()
    asking.miss()
    for _ in range(10):
        asking.now += SECOND_NS // 20
        assert requests(asking.miss()) == []


def test_rfc9301_5_3_requests_repeat_at_most_once_a_second_then_pause() -> None:
    asking = Asking()
    asking.miss()
    sent = [(when, action) for when, action in asking.run(200 * SECOND_NS) if isinstance(action, SendControl)]
    times = [0, *(when for when, _ in sent)]
    assert len(times) == 11
    assert all(later - earlier >= SECOND_NS for earlier, later in pairwise(times))
    nonces = [request.nonce for request, _, _ in requests([action for _, action in sent])]
    assert len(set(nonces)) == 10
    assert {action.destination for _, action in sent if isinstance(action, SendControl)} == set(RESOLVERS)


def test_rfc9301_5_3_during_the_pause_nothing_is_asked() -> None:
    asking = Asking()
    asking.miss()
    last = max(when for when, action in asking.run(200 * SECOND_NS) if isinstance(action, SendControl))
    asking = Asking()
    asking.miss()
    asking.run(last + 29 * SECOND_NS)
    assert requests(asking.miss()) == []
    asking.run(last + 30 * SECOND_NS)
    assert len(requests(asking.miss())) == 1


def test_rfc9301_5_3_a_reply_to_an_earlier_transmission_counts() -> None:
    asking = Asking()
    ((first, _, _),) = requests(asking.miss())
    asking.run(4 * SECOND_NS)
    assert programmed(asking.reply(first.nonce, mapping()))


def test_rfc9301_5_2_a_reply_with_an_unknown_nonce_is_dropped() -> None:
    asking = Asking()
    asking.miss()
    actions = asking.reply(4711, mapping())
    assert programmed(actions) == []
    assert [event["reason"] for event in events(actions, "control_dropped")] == ["unknown nonce"]
    assert len(asking.itr.cache) == 0


def test_rfc9301_5_3_a_nonce_counts_once() -> None:
    asking = Asking()
    ((request, _, _),) = requests(asking.miss())
    asking.reply(request.nonce, mapping())
    assert programmed(asking.reply(request.nonce, mapping(rloc=OLD))) == []


def test_rfc9301_9_a_mapping_of_something_else_is_not_taken() -> None:
    asking = Asking()
    actions = asking.resolved(mapping(), mapping("10.9.0.0/16"))
    assert [str(entry.eid) for entry in programmed(actions)] == ["192.168.0.10/32"]


def test_rfc9301_5_5_more_specifics_of_the_answer_are_taken() -> None:
    actions = Asking().resolved(mapping("192.168.0.0/24"), mapping("192.168.0.128/25", rloc=OLD))
    assert [str(entry.eid) for entry in programmed(actions)] == ["192.168.0.0/24", "192.168.0.128/25"]


def test_held_packets_go_out_in_order_after_the_entry_is_there() -> None:
    asking = Asking()
    ((request, _, _),) = requests(asking.miss(b"1"))
    asking.miss(b"2")
    actions = asking.reply(request.nonce, mapping())
    assert injected(actions) == [b"1", b"2"]
    kinds = [type(action) for action in actions]
    assert kinds.index(SetForwarding) < kinds.index(Inject)


def test_held_packets_are_bounded_and_the_oldest_go() -> None:
    asking = Asking(held_packets=3)
    ((request, _, _),) = requests(asking.miss(b"0"))
    for number in range(1, 6):
        asking.miss(b"%d" % number)
    assert injected(asking.reply(request.nonce, mapping())) == [b"3", b"4", b"5"]
    assert asking.itr.counters["held_packets_overflowed"] == 3


def test_with_drop_nothing_is_held() -> None:
    asking = Asking(on_miss="drop")
    assert injected(asking.resolved(mapping())) == []
    assert asking.itr.counters["missed_packets_dropped"] == 1


def test_held_packets_end_with_the_question() -> None:
    asking = Asking()
    asking.miss()
    asking.run(200 * SECOND_NS)
    assert asking.itr.inspect(asking.now)["held_packets"] == {}
    assert asking.itr.counters["held_packets_given_up"] == 1


def test_a_packet_that_missed_while_the_answer_came_is_sent_on() -> None:
    asking = Asking()
    asking.resolved(mapping())
    assert injected(asking.miss(b"late")) == [b"late"]


ACTIONS = [
    (MappingAction.NO_ACTION, Forwarding.DROP),
    (MappingAction.NATIVELY_FORWARD, Forwarding.NATIVE),
    (MappingAction.SEND_MAP_REQUEST, Forwarding.RESOLVE),
    (MappingAction.DROP_NO_REASON, Forwarding.DROP),
    (MappingAction.DROP_POLICY_DENIED, Forwarding.DROP),
    (MappingAction.DROP_AUTH_FAILURE, Forwarding.DROP),
    (7, Forwarding.DROP),
]


@pytest.mark.parametrize(("act", "forwarding"), ACTIONS)
def test_rfc9301_5_4_negative_actions(act: int, forwarding: Forwarding) -> None:
    actions = Asking().resolved(EidRecord(EidPrefix(ip_network("192.168.0.10/32")), 15, action=act))
    (entry,) = programmed(actions)
    assert (entry.forwarding, entry.locators, entry.expires_ns) == (forwarding, (), 15 * MINUTE_NS)
    assert injected(actions) == ([b"packet"] if forwarding is Forwarding.NATIVE else [])


@pytest.mark.parametrize(
    ("locators", "usable"),
    [
        ((RlocRecord(REMOTE, priority=255), RlocRecord(OLD)), [OLD]),
        ((RlocRecord(REMOTE, flags=LocatorFlag.NONE), RlocRecord(OLD)), [OLD]),
        ((RlocRecord(REMOTE, priority=255),), []),
    ],
    ids=["priority 255", "R-bit clear", "none left"],
)
def test_rfc9301_5_4_locators_that_must_not_be_used(locators: tuple[RlocRecord, ...], usable: list[Any]) -> None:
    record = EidRecord(EidPrefix(ip_network("192.168.0.10/32")), 15, locators)
    (entry,) = programmed(Asking().resolved(record))
    assert [locator.rloc for locator in entry.locators] == usable
    assert entry.forwarding is (Forwarding.REMOTE if usable else Forwarding.DROP)


def test_rfc9300_5_an_entry_ends_at_its_time_and_traffic_asks_again() -> None:
    asking = Asking()
    asking.resolved(mapping(ttl_minutes=1))
    done = asking.run(MINUTE_NS)
    assert [type(action) for _, action in done] == [ClearForwarding, Emit]
    assert asking.run(10 * MINUTE_NS) == []  # without traffic nothing is resolved again
    assert len(requests(asking.miss())) == 1


def test_rfc9301_5_4_ttl_0_removes_the_entry_at_once() -> None:
    asking = Asking()
    asking.resolved(mapping())
    actions = asking.itr.install(mapping(ttl_minutes=0), asking.now)
    assert ClearForwarding(IPv4Network("192.168.0.10/32")) in actions
    assert len(asking.itr.cache) == 0


def test_rfc9301_5_4_ttl_of_all_ones_is_ours_to_decide() -> None:
    (entry,) = programmed(Asking(local_cache_ttl_s=90).resolved(mapping(ttl_minutes=0xFFFFFFFF)))
    assert entry.expires_ns == 90 * SECOND_NS


def test_a_change_is_said_with_both_locators_and_a_refresh_is_not() -> None:
    asking = Asking()
    asking.resolved(mapping(rloc=OLD))
    assert events(asking.itr.install(mapping(rloc=OLD), asking.now), "map_cache_changed") == []
    (changed,) = events(asking.itr.install(mapping(rloc=REMOTE), asking.now), "map_cache_changed")
    assert (changed["old_rloc"], changed["rloc"]) == ("10.0.1.2", "10.0.2.2")


def test_rfc9301_6_1_an_smr_without_an_entry_asks_nothing() -> None:
    asking = Asking()
    actions = asking.itr.solicited(ip_network("192.168.0.10/32"), OLD, 0)
    assert requests(actions) == []
    assert events(actions, "smr_received")[0]["cached"] is False


def test_rfc9301_6_1_an_smr_asks_through_the_mapping_system_with_the_s_bit() -> None:
    asking = Asking()
    asking.resolved(mapping(rloc=OLD))
    asking.now = 10 * SECOND_NS
    actions = asking.itr.solicited(ip_network("192.168.0.10/32"), OLD, asking.now)
    ((inner, _, sent),) = requests(actions)
    assert sent.destination == RESOLVERS[0]
    assert inner.flags == MapRequestFlag.SMR_INVOKED
    (entry,) = programmed(asking.reply(inner.nonce, mapping()))
    assert entry.locators[0].rloc == REMOTE


def test_rfc9301_6_1_smr_invoked_requests_keep_3_s_apart_and_name_the_limiter() -> None:
    asking = Asking()
    asking.resolved(mapping(rloc=OLD))
    asking.now = 10 * SECOND_NS
    ((inner, _, _),) = requests(asking.itr.solicited(ip_network("192.168.0.10/32"), OLD, asking.now))
    asking.reply(inner.nonce, mapping())
    asking.now = 11 * SECOND_NS
    assert requests(asking.itr.solicited(ip_network("192.168.0.10/32"), REMOTE, asking.now)) == []
    done = asking.run(13 * SECOND_NS)
    sent = [action for _, action in done if isinstance(action, SendControl)]
    assert [when for when, action in done if isinstance(action, SendControl)] == [13 * SECOND_NS]
    assert len(sent) == 1
    (said,) = events([action for _, action in done], "map_request_sent")
    assert said["limiter"] == "smr_invoked_interval_s"


def test_rfc9301_5_3_a_request_soon_after_another_is_held_back_by_the_general_limit() -> None:
    asking = Asking()
    asking.resolved(mapping(rloc=OLD))
    asking.now = SECOND_NS // 2
    assert requests(asking.itr.solicited(ip_network("192.168.0.10/32"), OLD, asking.now)) == []
    (said,) = events([action for _, action in asking.run(SECOND_NS)], "map_request_sent")
    assert said["limiter"] == "map_request_interval_s"


def test_limits_can_be_switched_off() -> None:
    asking = Asking(map_request_interval_s=0, smr_invoked_interval_s=0)
    asking.resolved(mapping(rloc=OLD))
    for _ in range(3):
        actions = asking.itr.solicited(ip_network("192.168.0.10/32"), OLD, asking.now)
        ((inner, _, _),) = requests(actions)
        asking.reply(inner.nonce, mapping(rloc=OLD))
        assert "limiter" not in events(actions, "map_request_sent")[0]


def test_an_smr_during_an_open_question_takes_its_answer_and_asks_once_more() -> None:
    """The answer may be the new mapping, so it must not wait, or the old one, so it must not be the last."""
    asking = Asking()
    asking.resolved(mapping(rloc=OLD))
    eid = ip_network("192.168.0.10/32")
    asking.now = 10 * SECOND_NS
    ((first, _, _),) = requests(asking.itr.solicited(eid, OLD, asking.now))
    assert requests(asking.itr.solicited(eid, OLD, asking.now)) == []
    actions = asking.reply(first.nonce, mapping(rloc=REMOTE))
    assert [entry.locators[0].rloc for entry in programmed(actions)] == [REMOTE]
    assert requests(actions) == []
    done = asking.run(20 * SECOND_NS)
    assert next(when for when, action in done if isinstance(action, SendControl)) == 13 * SECOND_NS


def test_an_eid_space_prefix_that_is_also_a_mapping_is_resolved_again_when_that_ends() -> None:
    asking = Asking()
    asking.itr.install(mapping("192.168.0.0/16", ttl_minutes=1), 0)
    done = [action for _, action in asking.run(MINUTE_NS)]
    assert SetForwarding(IPv4Network("192.168.0.0/16"), Forwarding.RESOLVE) in done
    asking.itr.install(mapping("192.168.0.0/16"), asking.now)
    removed = asking.itr.install(mapping("192.168.0.0/16", ttl_minutes=0), asking.now)
    assert SetForwarding(IPv4Network("192.168.0.0/16"), Forwarding.RESOLVE) in removed


def test_what_was_held_for_an_eid_that_turns_out_to_be_local_is_sent_on() -> None:
    asking = Asking()
    asking.miss(b"1")
    assert injected(asking.itr.forget(ip_network("192.168.0.10/32"))) == [b"1"]
    assert asking.itr.next_deadline() is None


def test_a_packet_that_missed_before_its_eid_turned_out_to_be_local_is_sent_on() -> None:
    actions = Asking(lambda prefix: Forwarding.LOCAL).miss()
    assert injected(actions) == [b"packet"]
    assert requests(actions) == []


@pytest.mark.parametrize("answer", [(mapping(ttl_minutes=0),), (mapping(rloc=OLD), mapping(ttl_minutes=0))])
def test_what_an_answer_lets_go_nowhere_is_held_no_more(answer: tuple[EidRecord, ...]) -> None:
    asking = Asking()
    done = asking.resolved(*answer)
    counted = asking.itr.counters["held_packets_dropped_by_mapping"]
    assert len(injected(done)) + counted == 1
    assert asking.itr.inspect(asking.now)["held_packets"] == {}


def test_what_an_empty_confirmation_of_a_subscription_leaves_open_is_held_no_more() -> None:
    asking = Asking(mechanism="pubsub")
    ((request, _, _),) = requests(asking.miss())
    notify = MapNotify(request.nonce, (mapping("192.168.7.0/24"),))  # not what was asked about
    assert asking.itr.notified(notify, RESOLVERS[0], asking.now) is not None
    assert asking.itr.inspect(asking.now)["held_packets"] == {}
    assert asking.itr.counters["held_packets_dropped_by_mapping"] == 1


def test_what_is_local_is_never_overridden_by_a_mapping() -> None:
    asking = Asking(override=lambda prefix: Forwarding.LOCAL)
    assert programmed(asking.itr.install(mapping(), 0)) == []
    assert len(asking.itr.cache) == 0


def test_a_mapping_of_what_has_left_is_programmed_as_away() -> None:
    asking = Asking(override=lambda prefix: Forwarding.AWAY)
    (entry,) = programmed(asking.itr.install(mapping(), 0))
    assert entry.forwarding is Forwarding.AWAY
