"""What an ITR does not take: records that nobody asked for, and more than it has room for."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Any

import pytest

from testbed.lisp.actions import MINUTE_NS, SECOND_NS, Action, ClearForwarding, host_prefix
from testbed.lisp.itr import Itr
from testbed.lisp.wire import AfiList, EidPrefix, EidRecord, MapReply, OtherEid
from tests.unit.test_lisp_itr import EID, Asking, events, injected, mapping, programmed, requests

GATEWAY = ip_address("192.168.3.1")
OWN = IPv4Network("192.168.3.0/24")


def of_a_site(**options: Any) -> Asking:
    asking = Asking(**options)
    asking.itr = Itr(
        replace(asking.itr._config, eid_prefixes=(OWN,), gateways=(GATEWAY, ip_address("192.168.0.1"))),
        asking._random64,
        lambda prefix: None,
    )
    return asking


def installed(actions: list[Action]) -> list[str]:
    return [str(action.eid) for action in programmed(actions)]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (mapping("0.0.0.0/0"), "wider than the EID space"),
        (mapping("10.0.0.2/32"), "outside the EID space"),
        (mapping("192.168.3.1/32"), "inside our own prefix"),
        (mapping("192.168.3.128/25"), "inside our own prefix"),
        (mapping("192.168.0.1/32"), "our own address"),
        (mapping("192.168.9.0/24"), "not what was asked for"),
        (mapping("2001:db8::/32"), "outside the EID space"),
        (replace(mapping(), eid=EidPrefix(host_prefix(EID), 7)), "another instance"),
        (replace(mapping(), eid=OtherEid(0, AfiList(()))), "unknown AFI"),
    ],
)
def test_rfc9301_9_a_record_that_cannot_be_the_answer_is_dropped_counted_and_logged(
    record: EidRecord, reason: str
) -> None:
    asking = of_a_site()
    (request,) = requests(asking.miss())
    actions = asking.reply(request[0].nonce, record)
    (event,) = events(actions, "control_dropped")
    assert (event["message"], event["reason"]) == ("map-reply-record", reason)
    assert asking.itr.counters[f"records_refused: {reason}"] == 1
    assert installed(actions) == []
    # Beside the answer it changes nothing; and the question was still open for it.
    assert installed(asking.reply(request[0].nonce, record, mapping())) == ["192.168.0.10/32"]


def test_a_hole_wider_than_the_eid_space_counts_within_it() -> None:
    asking = Asking()
    actions = asking.resolved(EidRecord(EidPrefix(ip_network("192.0.0.0/8")), 15, action=1))
    assert installed(actions) == ["192.168.0.0/16"]
    assert injected(actions) == [b"packet"]


def test_rfc9301_5_5_a_less_specific_answer_replaces_what_it_does_not_repeat() -> None:
    asking = Asking()
    asking.resolved(mapping("192.168.0.10/32"))
    asking.itr.install(mapping("192.168.0.11/32", ttl_minutes=1), asking.now)
    asking.now += 2 * SECOND_NS
    (request,) = requests(asking.itr.want(ip_address("192.168.0.12"), asking.now))
    actions = asking.reply(request[0].nonce, mapping("192.168.0.0/24"), mapping("192.168.0.10/32"))
    assert installed(actions) == ["192.168.0.0/24", "192.168.0.10/32"]
    assert [str(each.eid) for each in actions if isinstance(each, ClearForwarding)] == ["192.168.0.11/32"]
    covering = asking.itr.cache.exact(ip_network("192.168.0.0/24"))
    assert covering is not None
    assert covering.expires_ns > asking.now + 2 * MINUTE_NS  # the one that is gone did not shorten it
    found = asking.itr.cache.lookup(ip_address("192.168.0.11"), asking.now)
    assert found is covering


def test_held_packets_are_bounded_in_all() -> None:
    asking = Asking(held_packets=2, held_packets_total=3)
    for number in range(3):
        for _ in range(2):
            asking.itr.miss(EID + number, b"packet", asking.now)
    assert asking.itr.inspect(asking.now)["held_packets"] == {"192.168.0.10": 2, "192.168.0.11": 1}
    assert asking.itr.counters["held_packets_total_reached"] == 3


def test_open_questions_are_bounded_and_packets_for_more_are_counted() -> None:
    asking = Asking(open_questions=2)
    asked = [asking.itr.miss(EID + number, b"packet", asking.now) for number in range(4)]
    assert [len(requests(actions)) for actions in asked] == [1, 1, 0, 0]
    assert asking.itr.counters["missed_packets_beyond_open_questions"] == 2


def test_rfc9301_6_1_smrs_open_no_more_questions_than_packets_may() -> None:
    asking = Asking(open_questions=2)
    asking.resolved(mapping("192.168.0.0/24"))
    hosts = [ip_network(f"192.168.0.{number}/32") for number in range(4)]
    asked = [asking.itr.solicited(host, ip_address("10.0.0.2"), asking.now) for host in hosts]
    assert [len(requests(actions)) for actions in asked] == [1, 1, 0, 0]
    assert asking.itr.counters["smrs_beyond_open_questions"] == 2


def test_the_map_cache_is_bounded_and_what_it_refuses_is_counted_and_logged() -> None:
    asking = Asking(map_cache_entries=1)
    asking.resolved(mapping())
    actions = asking.itr.install(mapping("192.168.0.11/32"), asking.now)
    assert installed(actions) == []
    assert events(actions, "map_cache_refused") == [{"eid": "192.168.0.11/32", "reason": "full"}]
    assert asking.itr.counters["map_cache_full"] == 1
    assert installed(asking.itr.install(mapping(ttl_minutes=7), asking.now)) == ["192.168.0.10/32"]


def test_limiters_keep_nothing_that_is_over() -> None:
    asking = Asking()
    for number in range(50):
        asking.now += 10 * SECOND_NS
        (request,) = requests(asking.itr.want(EID + number, asking.now))
        asking.itr.reply(MapReply(request[0].nonce, (mapping(f"{EID + number}/32"),)), EID, asking.now)
    assert len(asking.itr._questions._request_limit) == 1
