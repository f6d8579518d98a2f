"""The question of `lig`, and what it makes of the answer (RFC 6835, RFC 9301 §5.2-5.5)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from testbed.lab.agents.lig import Answer, Groper, main, to_json, to_text
from testbed.lisp.wire import (
    Action,
    EidPrefix,
    EidRecord,
    EidRecordFlag,
    EncapsulatedControl,
    InstanceId,
    LocatorFlag,
    MapReply,
    MapRequest,
    RlocRecord,
    decode_control,
)

EID, RLOC, RESOLVER = (ip_address(each) for each in ("192.168.0.10", "10.0.3.2", "10.0.0.2"))
UP = RlocRecord(ip_address("10.0.1.2"), 1, 100, flags=LocatorFlag.REACHABLE)
DOWN = RlocRecord(ip_address("10.0.2.2"), 2, 50, flags=LocatorFlag.NONE)
RECORD = EidRecord(EidPrefix(ip_network("192.168.0.10/32")), 1440, (UP, DOWN), map_version=7)


def test_the_request_is_for_the_eid_and_answered_to_our_port() -> None:
    outer = decode_control(Groper(EID, RLOC, 50123).request(5, 0))
    assert isinstance(outer, EncapsulatedControl)
    assert (outer.source, outer.destination, outer.source_port) == (RLOC, EID, 50123)
    inner = outer.message
    assert isinstance(inner, MapRequest)
    assert (inner.nonce, inner.itr_rlocs, str(inner.requests[0].eid)) == (5, (RLOC,), "192.168.0.10/32")


@pytest.mark.parametrize("source", [None, "fd0e:3::10"])
def test_an_eid_of_the_other_family_has_an_inner_header_of_its_own(source: str | None) -> None:
    eid = ip_address("fd0e::10")
    source_eid = ip_address(source) if source else None
    outer = decode_control(Groper(eid, RLOC, 50123, source_eid).request(5, 0))
    assert isinstance(outer, EncapsulatedControl)
    assert (outer.source, outer.destination) == (source_eid or eid, eid)


def test_only_a_reply_to_one_of_our_requests_is_an_answer_and_the_round_trip_is_that_ones() -> None:
    groper = Groper(EID, RLOC, 50123)
    groper.request(5, 1_000_000)
    groper.request(6, 9_000_000)
    assert groper.answer(MapReply(7, (RECORD,)).encode(), RESOLVER, 10_000_000) is None
    assert groper.answer(b"\x20", RESOLVER, 10_000_000) is None
    answer = groper.answer(MapReply(5, (RECORD,)).encode(), RESOLVER, 10_000_000)
    assert answer is not None
    assert (answer.rtt_ms, answer.transmissions) == (9.0, 2)


def shown(record: EidRecord) -> dict[str, object]:
    return to_json(EID, RESOLVER, Answer(MapReply(5, (record,)), RESOLVER, 21.5, 1))


def test_a_mapping_as_text_and_json() -> None:
    plain = shown(RECORD)
    assert plain["rtt_ms"] == 21.5
    assert plain["records"] == [
        {
            "eid": "192.168.0.10/32",
            "instance_id": 0,
            "ttl_minutes": 1440,
            "authoritative": False,
            "map_version": 7,
            "action": None,
            "locators": [
                {"rloc": "10.0.1.2", "state": "up", "priority": 1, "weight": 100},
                {"rloc": "10.0.2.2", "state": "down", "priority": 2, "weight": 50},
            ],
        }
    ]
    lines = to_text(plain).splitlines()
    assert lines[0] == "Received map-reply from 10.0.0.2 with rtt 21.500 ms"
    assert lines[2] == "192.168.0.10/32, via map-reply, proxied, TTL 1440 min, map-version 7"
    assert [line.split() for line in lines[4:]] == [["10.0.1.2", "up", "1/100"], ["10.0.2.2", "down", "2/50"]]


def test_a_negative_answer_says_what_it_does() -> None:
    hole = EidPrefix(ip_network("192.168.0.0/24"))
    record = EidRecord(hole, 15, action=Action.NATIVELY_FORWARD, flags=EidRecordFlag.AUTHORITATIVE)
    lines = to_text(shown(record)).splitlines()
    assert lines[2:] == ["192.168.0.0/24, via map-reply, auth, TTL 15 min", "  negative: natively-forward"]


def test_in_an_instance_the_eids_of_the_request_are_in_an_lcaf_and_the_answer_names_it() -> None:
    source = ip_address("192.168.3.10")
    outer = decode_control(Groper(EID, RLOC, 50123, source, 7).request(5, 0))
    assert isinstance(outer, EncapsulatedControl)
    assert isinstance(outer.message, MapRequest)
    assert str(outer.message.requests[0].eid) == "[7]192.168.0.10/32"
    assert outer.message.source_eid == InstanceId(7, source)
    assert (outer.source, outer.destination) == (RLOC, EID)
    record = replace(RECORD, eid=EidPrefix(ip_network("192.168.0.10/32"), 7))
    plain = to_json(EID, RESOLVER, Answer(MapReply(5, (record,)), RESOLVER, 21.5, 1), 7)
    assert (plain["eid"], plain["instance_id"]) == ("192.168.0.10", 7)
    assert (plain["records"][0]["eid"], plain["records"][0]["instance_id"]) == ("192.168.0.10/32", 7)
    lines = to_text(plain).splitlines()
    assert lines[1] == "Mapping entry for EID [7]192.168.0.10:"
    assert lines[2].startswith("[7]192.168.0.10/32, via map-reply")


@pytest.mark.parametrize("given", ["-1", "16777216"])
def test_an_instance_id_that_does_not_fit_is_refused(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["10.0.0.2", "192.168.0.10", f"--instance-id={given}"])
    assert f"{given} is out of range; allowed: 0 to 16777215" in capsys.readouterr().err
