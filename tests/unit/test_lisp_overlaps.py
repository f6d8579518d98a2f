"""Overlapping prefixes and several records in a message (RFC 9301 §5.2, §5.5), and EIDs out of a fixed prefix."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, ip_address

from testbed.lisp.actions import SECOND_NS, SetForwarding
from testbed.lisp.config import MapServerOptions, SiteConfig
from testbed.lisp.inputs import ControlReceived
from testbed.lisp.wire import (
    AfiList,
    EidPrefix,
    EidRecord,
    EncapsulatedControl,
    LocatorFlag,
    MapNotify,
    MapReply,
    MapRequest,
    MapRequestFlag,
    OtherEid,
    RequestedEid,
    RlocRecord,
    decode_control,
    host_eid,
)
from testbed.lisp.xtr import Xtr
from tests.unit.lisp_server import FIXED, MOBILE, PORT, RLOC_C, SECRETS, SITES, Server, events, sends
from tests.unit.test_lisp_xtr import ELSEWHERE, MAP_SERVER, PEER, RLOC, SECRET, Site

EIDS = [ip_address(f"192.168.0.{number}") for number in (10, 11)]


def ask(server: Server, *requested: RequestedEid) -> list[MapReply]:
    request = MapRequest(99, (RLOC_C,), requested)
    actions = server.receive(EncapsulatedControl(RLOC_C, EIDS[0], PORT, request.encode()).encode(), RLOC_C)
    return [decode_control(sent.payload) for sent in sends(actions)]


def test_rfc9301_5_2_several_eids_are_answered_in_one_map_reply_or_forwarded_once() -> None:
    proxy, forwarding = Server(), Server(MapServerOptions(proxy_reply=False))
    for number, eid in enumerate(EIDS, start=1):
        for server in (proxy, forwarding):
            server.register(f"{eid}/32", nonce=number)
    requested = [RequestedEid(host_eid(eid)) for eid in EIDS]
    (reply,) = ask(proxy, *requested)
    assert [str(record.eid) for record in reply.records] == [f"{eid}/32" for eid in EIDS]
    (forwarded,) = ask(forwarding, *requested)
    assert isinstance(forwarded, EncapsulatedControl)


def test_requests_for_unknown_afis_are_dropped_counted_and_logged() -> None:
    server = Server()
    request = MapRequest(99, (RLOC_C,), (RequestedEid(OtherEid(0, AfiList(()))),))
    actions = server.receive(EncapsulatedControl(RLOC_C, EIDS[0], PORT, request.encode()).encode(), RLOC_C)
    assert [event["reason"] for event in events(actions, "control_dropped")] == ["unknown AFI"]
    assert sends(actions) == []
    assert server.machine.inspect(0)["counters"] == {"map-request-record_dropped": 1}


def test_more_specifics_that_no_message_holds_leave_the_part_around_the_eid() -> None:
    fixed = SiteConfig("c", (IPv4Network("192.168.0.0/16"),), (), SECRETS["c"])
    server = Server(sites=(*SITES[:2], fixed))
    server.register("192.168.0.0/16", site="c", source=RLOC_C)
    for number in range(256):
        server.register(f"192.168.0.{number}/32", nonce=number + 1)
    (record,) = server.records("192.168.77.1/32")
    assert str(record.eid) == "192.168.64.0/18"
    assert record.locators[0].rloc == RLOC_C


ROAMING = SiteConfig("a", (), (MOBILE, FIXED), SECRETS["a"])


def test_rfc9301_5_5_an_eid_that_moves_out_of_another_sites_prefix_is_told_to_the_owner_of_that() -> None:
    server = Server(sites=(ROAMING, *SITES[1:]))
    server.register("192.168.3.0/24", site="c", source=RLOC_C)
    told = server.register("192.168.3.7/32")
    notices = [decode_control(sent.payload) for sent in sends(told) if sent.destination == RLOC_C]
    assert [str(record.eid) for each in notices for record in each.records] == ["192.168.3.7/32"]
    gone = server.register("192.168.3.7/32", nonce=2, ttl_minutes=0)
    (notice,) = [decode_control(sent.payload) for sent in sends(gone) if sent.destination == RLOC_C]
    assert [record.ttl_minutes for record in notice.records] == [0]


def test_an_etr_sends_on_what_moved_out_of_its_prefix_and_answers_with_it_until_it_is_back() -> None:
    site = Site()
    away = ip_address("192.168.7.9")

    def notice(nonce: int, *locators: RlocRecord, ttl_minutes: int) -> None:
        notify = MapNotify(nonce, (EidRecord(host_eid(away), ttl_minutes, locators),))
        site.give(ControlReceived(SECRET.seal(notify), MAP_SERVER, 4342))

    def answer() -> dict[str, str]:
        request = MapRequest(5, (PEER,), (RequestedEid(host_eid(ip_address("192.168.7.1"))),))
        ecm = EncapsulatedControl(PEER, ip_address("192.168.7.1"), PORT, request.encode()).encode()
        (sent,) = sends(site.give(ControlReceived(ecm, MAP_SERVER, 4342)))
        reply = decode_control(sent.payload)
        assert isinstance(reply, MapReply)
        assert len({record.ttl_minutes for record in reply.records}) == 1
        return {str(record.eid): str(record.locators[0].rloc) for record in reply.records}

    assert answer() == {"192.168.7.0/24": str(RLOC)}
    notice(1 << 32, RlocRecord(ELSEWHERE, flags=LocatorFlag.REACHABLE), ttl_minutes=60)
    site.now += 10 * SECOND_NS
    assert answer() == {"192.168.7.0/24": str(RLOC), "192.168.7.9/32": str(ELSEWHERE)}
    notice(2 << 32, ttl_minutes=0)
    site.now += 10 * SECOND_NS
    assert answer() == {"192.168.7.0/24": str(RLOC)}


def test_not_even_the_map_server_moves_the_gateway_away() -> None:
    site = Site()
    site.xtr = Xtr(replace(site.xtr._config, gateways=(ip_address("192.168.7.1"),)), nonce=1000, random64=lambda: 7)
    locators = (RlocRecord(ELSEWHERE, flags=LocatorFlag.REACHABLE),)
    notify = MapNotify(1 << 32, (EidRecord(host_eid(ip_address("192.168.7.1")), 60, locators),))
    actions = site.receive(SECRET.seal(notify))
    assert not [each for each in actions if isinstance(each, SetForwarding)]


def test_an_smr_for_another_instance_is_dropped_and_logged() -> None:
    site = Site()
    requested = RequestedEid(EidPrefix(IPv4Network("192.168.0.10/32"), 5))
    flags = MapRequestFlag.SMR | MapRequestFlag.DONT_MAP_REPLY
    actions = site.receive(MapRequest(5, (PEER,), (requested,), flags=flags).encode(), PEER)
    assert [event["message"] for event in events(actions, "control_dropped")] == ["smr-record"]
