"""The Map-Server and Map-Resolver against the rules of RFC 9301, with a clock of the test's own."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Address, ip_address

import pytest

from testbed.lisp.actions import MINUTE_NS, SECOND_NS, Action, SaveNonce, SendControl
from testbed.lisp.config import MapServerOptions, SiteConfig
from testbed.lisp.sealing import Secret
from testbed.lisp.wire import Action as MappingAction
from testbed.lisp.wire import (
    Address,
    EidPrefix,
    EidRecord,
    EidRecordFlag,
    EncapsulatedControl,
    LocatorFlag,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapRegisterFlag,
    MapRequest,
    MapRequestFlag,
    RequestedEid,
    RlocRecord,
    XtrIdentity,
    decode_control,
)
from tests.unit.lisp_server import PORT, RLOC_A, RLOC_B, RLOC_C, SECRETS, SITES, Server, events, sends


def test_rfc9301_5_7_a_map_notify_copies_nonce_and_records_and_is_authentic() -> None:
    server = Server()
    (sent,) = sends(server.register(nonce=5))
    notify = decode_control(sent.payload)
    assert isinstance(notify, MapNotify)
    assert (notify.nonce, sent.destination, sent.port) == (5, RLOC_A, 4342)
    assert [record.eid for record in notify.records] == [EidPrefix(IPv4Network("192.168.0.10/32"))]
    assert SECRETS["a"].vouches_for(sent.payload)


def test_rfc9301_5_7_no_map_notify_without_the_m_bit() -> None:
    assert sends(Server().register(flags=MapRegisterFlag.NONE)) == []


def test_rfc9301_5_6_the_nonce_is_saved_before_anything_is_sent() -> None:
    actions = Server().register(nonce=5)
    kinds = [type(action) for action in actions]
    assert kinds.index(SaveNonce) < kinds.index(SendControl)
    assert {action.nonce for action in actions if isinstance(action, SaveNonce)} == {5}


@pytest.mark.parametrize("nonce", [4, 5])
def test_rfc9301_5_6_a_register_that_is_not_newer_is_dropped_and_logged(nonce: int) -> None:
    server = Server()
    server.register(nonce=5)
    actions = server.register(nonce=nonce)
    assert sends(actions) == []
    assert [event["reason"] for event in events(actions, "registration_refused")] == ["replay"]


def test_rfc9301_5_6_replay_protection_survives_a_restart() -> None:
    saved = {a.owner: a.nonce for a in Server().register(nonce=5) if isinstance(a, SaveNonce)}
    actions = Server(saved=saved).register(nonce=5)
    assert [event["reason"] for event in events(actions, "registration_refused")] == ["replay"]


def test_rfc9301_5_6_a_register_repeated_under_another_xtr_id_is_a_replay_all_the_same() -> None:
    """The MAC ends with the last RLOC-record: anyone can put another xTR-ID behind it."""
    server = Server()
    local = RlocRecord(RLOC_A, flags=LocatorFlag.REACHABLE | LocatorFlag.LOCAL)
    record = EidRecord(EidPrefix(IPv4Network("192.168.0.10/32")), 1440, (local,))
    heard = SECRETS["a"].seal(MapRegister(5, (record,), xtr=XtrIdentity(1)))
    server.receive(heard)
    server.register(nonce=1, site="b", source=RLOC_B)
    forged = heard[:-24] + XtrIdentity(4711).encode()
    actions = server.receive(forged)
    assert [event["reason"] for event in events(actions, "registration_refused")] == ["replay"]
    (registered,) = server.machine.inspect(0)["registrations"]
    assert registered["locators"] == ["10.0.2.2"]


def test_rfc9301_5_7_a_register_under_another_secret_is_dropped() -> None:
    server = Server()
    actions = server.register(secret=Secret(0, b"guessed"))
    assert sends(actions) == []
    assert [event["reason"] for event in events(actions, "registration_refused")] == ["authentication"]
    assert server.machine.inspect(0)["registrations"] == []


@pytest.mark.parametrize("octet", [0, 3, 15, 40, 60, -30])
def test_rfc9301_5_7_a_register_that_was_changed_on_the_way_is_dropped(octet: int) -> None:
    server = Server()
    record = EidRecord(EidPrefix(IPv4Network("192.168.0.10/32")), 1440, (RlocRecord(RLOC_A),))
    payload = bytearray(SECRETS["a"].seal(MapRegister(1, (record,), xtr=XtrIdentity(1))))
    payload[octet] ^= 0x01
    server.receive(bytes(payload))
    assert server.machine.inspect(0)["registrations"] == []


@pytest.mark.parametrize(
    ("site", "eid"),
    [
        ("c", "192.168.0.10/32"),  # somebody else's dynamic EID
        ("a", "192.168.3.10/32"),  # somebody else's prefix
        ("a", "192.168.0.0/25"),  # a dynamic prefix is registered one EID at a time
        ("c", "192.168.0.0/16"),  # more than its own
        ("c", "0.0.0.0/0"),
        ("a", "2001:db8::1/128"),
    ],
)
def test_rfc9301_8_2_an_eid_that_is_not_the_sites_is_refused(site: str, eid: str) -> None:
    server = Server()
    actions = server.register(eid, site=site)
    assert [event["reason"] for event in events(actions, "registration_refused")] == ["not an EID of this site"]
    assert sends(actions) == []
    assert server.machine.inspect(0)["registrations"] == []


def test_rfc9301_8_2_more_specifics_of_the_own_prefix_are_accepted() -> None:
    server = Server()
    for nonce, eid in enumerate(("192.168.3.0/24", "192.168.3.128/25"), start=1):
        assert sends(server.register(eid, site="c", source=RLOC_C, nonce=nonce))


def test_rfc9301_8_2_a_registration_ends_after_three_minutes_without_a_refresh() -> None:
    server = Server()
    server.register(nonce=1)
    server.now = 60 * SECOND_NS
    server.register(nonce=2)
    server.now = 239 * SECOND_NS
    assert server.machine.handle_timer(server.now) == []
    assert server.machine.next_deadline() == 240 * SECOND_NS
    server.now = 240 * SECOND_NS
    changed = events(server.machine.handle_timer(server.now), "mapping_changed")
    assert [(event["old_rloc"], event["reason"]) for event in changed] == [("10.0.1.2", "registration expired")]
    assert server.machine.inspect(server.now)["registrations"] == []


def test_rfc9301_5_6_the_t_bit_makes_the_ttl_the_lifetime() -> None:
    server = Server()
    server.register(ttl_minutes=1, flags=MapRegisterFlag.USE_TTL)
    assert server.machine.next_deadline() == MINUTE_NS


def test_rfc9301_5_4_ttl_0_withdraws_only_what_is_ones_own() -> None:
    server = Server()
    server.register(nonce=1)
    server.register(site="b", source=RLOC_B, ttl_minutes=0, nonce=1)
    assert len(server.machine.inspect(0)["registrations"]) == 1
    actions = server.register(nonce=2, ttl_minutes=0)
    assert [event["reason"] for event in events(actions, "mapping_changed")] == ["withdrawn"]
    assert server.machine.inspect(0)["registrations"] == []
    assert len(sends(actions)) == 1


def test_rfc9301_8_3_a_proxy_answer_is_not_authoritative_and_has_no_local_locator() -> None:
    server = Server()
    server.register(ttl_minutes=7, record_flags=EidRecordFlag.AUTHORITATIVE)
    (record,) = server.records("192.168.0.10/32")
    assert not record.flags & EidRecordFlag.AUTHORITATIVE
    assert [locator.flags for locator in record.locators] == [LocatorFlag.REACHABLE]
    assert record.ttl_minutes == 7


def test_rfc9301_5_5_locators_are_sorted() -> None:
    server = Server()
    server.register(rlocs=("10.0.9.2", "2001:db8::2", "10.0.1.2"))
    (record,) = server.records("192.168.0.10/32")
    assert [str(locator.rloc) for locator in record.locators] == ["10.0.1.2", "10.0.9.2", "2001:db8::2"]


def test_rfc9301_5_5_more_specifics_come_with_the_covering_prefix_under_one_ttl() -> None:
    server = Server()
    for nonce, (eid, ttl) in enumerate(
        [("192.168.3.0/24", 10), ("192.168.3.16/28", 20), ("192.168.3.20/32", 30)], start=1
    ):
        server.register(eid, site="c", source=RLOC_C, nonce=nonce, ttl_minutes=ttl)

    def answer(eid: str) -> list[tuple[str, int]]:
        return [(str(record.eid), record.ttl_minutes) for record in server.records(eid)]

    assert answer("192.168.3.20/32") == [("192.168.3.20/32", 30)]
    assert answer("192.168.3.17/32") == [("192.168.3.16/28", 20), ("192.168.3.20/32", 20)]
    assert answer("192.168.3.99/32") == [
        ("192.168.3.0/24", 10),
        ("192.168.3.16/28", 10),
        ("192.168.3.20/32", 10),
    ]


NEGATIVE = [
    ("192.168.0.10/32", "192.168.0.10/32", 1),  # delegated, dynamic: this EID only
    ("192.168.3.10/32", "192.168.3.0/24", 1),  # delegated, nobody registered
    ("192.168.1.1/32", "192.168.1.0/24", 15),  # a hole between the prefixes
    ("8.8.8.8/32", "0.0.0.0/1", 15),  # no LISP EID at all
]


@pytest.mark.parametrize(("asked", "returned", "minutes"), NEGATIVE)
def test_rfc9301_8_3_negative_replies(asked: str, returned: str, minutes: int) -> None:
    (record,) = Server().records(asked)
    assert (str(record.eid), record.ttl_minutes, record.locators) == (returned, minutes, ())
    assert record.action == MappingAction.NATIVELY_FORWARD


def test_rfc9301_8_3_a_negative_reply_never_covers_what_is_registered() -> None:
    server = Server()
    server.register("192.168.3.128/25", site="c", source=RLOC_C)
    (record,) = server.records("192.168.3.10/32")
    assert str(record.eid) == "192.168.3.0/25"


def test_rfc9301_5_5_what_is_registered_inside_what_was_asked_is_the_answer() -> None:
    server = Server()
    server.register("192.168.3.0/25", site="c", source=RLOC_C, ttl_minutes=20)
    server.register("192.168.3.192/26", site="c", source=RLOC_C, nonce=2, ttl_minutes=10)
    found = [(str(record.eid), record.ttl_minutes, len(record.locators)) for record in server.records("192.168.3.0/24")]
    assert found == [("192.168.3.0/25", 10, 1), ("192.168.3.192/26", 10, 1)]
    (record,) = server.records("192.168.3.128/26")
    assert (str(record.eid), record.locators) == ("192.168.3.128/26", ())


def test_rfc9301_8_3_without_the_p_bit_what_is_inside_is_for_its_etr_to_answer() -> None:
    server = Server()
    server.register("192.168.3.0/25", site="c", source=RLOC_C, proxy=False)
    (sent,) = sends(server.request("192.168.3.0/24"))
    assert (sent.destination, isinstance(decode_control(sent.payload), EncapsulatedControl)) == (RLOC_C, True)


@pytest.mark.parametrize(("asked", "hole"), [("10.9.0.1/32", "10.8.0.0/13"), ("10.3.0.1/32", "10.3.0.0/16")])
def test_rfc9301_8_3_a_hole_in_a_delegated_prefix_covers_no_other_delegated_one(asked: str, hole: str) -> None:
    server = Server(
        sites=(
            SiteConfig("a", (IPv4Network("10.0.0.0/8"),), (), SECRETS["a"]),
            SiteConfig("b", (), (IPv4Network("10.1.0.0/16"),), SECRETS["b"]),
            SiteConfig("c", (IPv4Network("10.2.0.0/16"),), (), SECRETS["c"]),
        )
    )
    assert [(str(record.eid), record.ttl_minutes) for record in server.records(asked)] == [(hole, 1)]


def test_rfc9301_8_3_without_the_p_bit_the_request_goes_to_the_etr_unaltered() -> None:
    server = Server()
    server.register(proxy=False)
    (sent,) = sends(server.request("192.168.0.10/32"))
    assert (sent.destination, sent.port) == (RLOC_A, 4342)
    forwarded = decode_control(sent.payload)
    assert isinstance(forwarded, EncapsulatedControl)
    inner = forwarded.message
    assert isinstance(inner, MapRequest)
    assert (inner.nonce, inner.itr_rlocs, forwarded.source_port) == (99, (RLOC_C,), PORT)


@pytest.mark.parametrize("flag", [MapRequestFlag.PROBE, MapRequestFlag.SMR])
def test_rfc9301_5_2_probes_and_smrs_are_dropped(flag: MapRequestFlag) -> None:
    server = Server()
    server.register()
    assert sends(server.request("192.168.0.10/32", flags=flag)) == []


def test_rfc9301_5_3_a_request_without_a_usable_itr_rloc_is_dropped() -> None:
    server = Server()
    server.register()
    rlocs: tuple[tuple[Address, ...], ...] = ((None,), (IPv6Address("2001:db8::1"),))
    for itr_rlocs in rlocs:
        request = MapRequest(1, itr_rlocs, (RequestedEid(EidPrefix(IPv4Network("192.168.0.10/32"))),))
        ecm = EncapsulatedControl(RLOC_C, ip_address("192.168.0.10"), PORT, request.encode())
        actions = server.receive(ecm.encode(), RLOC_C)
        assert sends(actions) == []
        assert [event["reason"] for event in events(actions, "control_dropped")] == ["no ITR-RLOC"]


def test_rfc9301_5_4_replies_to_one_itr_for_one_eid_are_rate_limited_and_the_limiter_is_named() -> None:
    server = Server(MapServerOptions(map_reply_interval_s=3))
    server.register()
    assert len(sends(server.request("192.168.0.10/32"))) == 1
    server.now = 3 * SECOND_NS - 1
    held = server.request("192.168.0.10/32")
    assert sends(held) == []
    assert [event["limiter"] for event in events(held, "control_dropped")] == ["map_reply_interval_s"]
    server.now = 3 * SECOND_NS
    assert len(sends(server.request("192.168.0.10/32"))) == 1


@pytest.mark.parametrize("payload", [b"", b"\x10", b"\x30" + bytes(30), b"\xf0" + bytes(8), b"\x80" + bytes(60)])
def test_what_cannot_be_read_is_dropped_with_a_reason(payload: bytes) -> None:
    actions = Server().receive(payload)
    assert sends(actions) == []
    assert events(actions, "control_dropped")


def test_a_refresh_changes_nothing_and_says_nothing() -> None:
    server = Server()
    server.register(nonce=1)
    assert events(server.register(nonce=2), "mapping_changed") == []


def test_a_move_is_told_to_the_previous_xtr_under_its_own_secret() -> None:
    server = Server()
    server.register(nonce=1)
    actions = server.register(nonce=1, site="b", source=RLOC_B)
    (changed,) = events(actions, "mapping_changed")
    assert (changed["old_rloc"], changed["rloc"], changed["reason"]) == ("10.0.1.2", "10.0.2.2", "moved")
    told = next(sent for sent in sends(actions) if sent.destination == RLOC_A)
    assert SECRETS["a"].vouches_for(told.payload)
    notify = decode_control(told.payload)
    assert isinstance(notify, MapNotify)
    assert [locator.rloc for locator in notify.records[0].locators] == [RLOC_B]


def test_rule_4_a_refresh_in_ignorance_is_refused_and_answered_with_the_truth() -> None:
    server = Server()
    server.register(nonce=1)
    server.register(nonce=1, site="b", source=RLOC_B)
    actions = server.register(nonce=2)
    (refused,) = events(actions, "registration_refused")
    assert refused["reason"] == "registered elsewhere since"
    assert int(refused["fence"], 16) > int(refused["nonce"], 16)
    (told,) = sends(actions)
    notify = decode_control(told.payload)
    assert isinstance(notify, MapNotify)
    assert notify.nonce == int(refused["fence"], 16)
    (registered,) = server.machine.inspect(0)["registrations"]
    assert registered["locators"] == ["10.0.2.2"]


def test_a_forged_acknowledgement_does_not_stop_the_notice() -> None:
    server = Server()
    server.register(nonce=1)
    actions = server.register(nonce=1, site="b", source=RLOC_B)
    told = next(sent for sent in sends(actions) if sent.destination == RLOC_A)
    notify = decode_control(told.payload)
    assert isinstance(notify, MapNotify)
    ack = MapNotifyAck(notify.nonce, notify.records)
    server.receive(Secret(0, b"guessed").seal(ack))
    assert len(server.machine.inspect(0)["unacknowledged"]) == 1
    server.receive(SECRETS["a"].seal(ack))
    assert server.machine.inspect(0)["unacknowledged"] == []


def test_no_secret_is_ever_shown() -> None:
    server = Server()
    server.register()
    shown = repr(server.machine.inspect(0)) + repr(SITES) + repr(server.machine._config)
    assert not any(secret.key.decode() in shown for secret in SECRETS.values())


def test_rfc9301_5_6_sites_may_share_a_key_id() -> None:
    server = Server()
    server.register(nonce=1, site="a")
    server.register("192.168.3.0/24", nonce=1, site="c", source=RLOC_C)
    sites: dict[str, str] = {row["eid"]: row["site"] for row in server.machine.inspect(0)["registrations"]}
    assert sites == {"192.168.0.10/32": "a", "192.168.3.0/24": "c"}
    other_key = replace(SECRETS["a"], key_id=1)
    refused = events(server.register(nonce=2, secret=other_key), "registration_refused")
    assert [event["reason"] for event in refused] == ["authentication"]


def test_two_xtrs_of_a_site_that_register_the_same_locators_change_nothing() -> None:
    """Whose own a locator is (L-bit) is all that differs; with their numbers a mapping has one version."""
    server = Server(mechanism="map-version")
    rlocs = (RLOC_A, RLOC_C)

    def register(source: Address, nonce: int, priority: int = 1) -> list[Action]:
        locators = tuple(
            RlocRecord(
                rloc,
                priority,
                flags=LocatorFlag.REACHABLE | (LocatorFlag.LOCAL if rloc == source else LocatorFlag.NONE),
            )
            for rloc in rlocs
        )
        record = EidRecord(EidPrefix(IPv4Network("192.168.3.0/24")), 1440, locators)
        message = MapRegister(nonce, (record,), flags=MapRegisterFlag.WANT_MAP_NOTIFY, xtr=XtrIdentity(int(source)))
        return server.receive(SECRETS["c"].seal(message), source)

    assert len(events(register(RLOC_C, 1), "mapping_changed")) == 1
    version = server.machine.inspect(0)["registrations"][0]["map_version"]
    for turn in range(3):
        for source in (RLOC_A, RLOC_C):
            assert not events(register(source, 2 + turn), "mapping_changed")
    assert server.machine.inspect(0)["registrations"][0]["map_version"] == version
    assert len(events(register(RLOC_A, 9, priority=2), "mapping_changed")) == 1


def solicited(server: Server) -> list[str]:
    """Whom the Map-Server solicits when the EID moves."""
    server.now += SECOND_NS
    return [event["peer"] for event in events(server.register(nonce=5, site="b", source=RLOC_B), "smr_sent")]


def test_rfc9301_6_1_askers_are_bounded_and_what_is_over_makes_room() -> None:
    server = Server(MapServerOptions(map_reply_interval_s=0, askers=2), mechanism="smr-map-server")
    server.register(ttl_minutes=1)
    askers = tuple(ip_address(f"11.0.0.{number}") for number in range(5))
    for asker in askers[:4]:
        server.request("192.168.0.10/32", itr_rlocs=(asker,))
    assert server.machine.inspect(0)["counters"]["askers_not_noted"] == 2
    server.now += MINUTE_NS // 2
    server.request("192.168.0.10/32", itr_rlocs=askers[:1])  # it has the mapping for longer than the second
    server.now += MINUTE_NS // 2
    server.request("192.168.0.10/32", itr_rlocs=askers[4:])
    assert solicited(server) == [str(askers[0]), str(askers[4])]


def test_whoever_sends_to_the_old_locator_hears_of_a_move_before_whoever_sends_on_from_there() -> None:
    server = Server(mechanism="smr-map-server")
    server.register()
    server.request("192.168.0.10/32", itr_rlocs=(RLOC_C,))
    actions = server.register(nonce=5, site="b", source=RLOC_B)
    assert [send.destination for send in sends(actions)] == [RLOC_C, RLOC_A, RLOC_B]


def test_rfc9301_6_1_nobody_is_noted_for_what_is_not_registered() -> None:
    server = Server(mechanism="smr-map-server")
    for number in range(50):
        server.request(f"192.168.0.{number}/32")
    assert len(server.machine._database.resolver._askers) == 0
