"""The ETR's and the site's rules: registration, sightings, answers (RFC 9301 §5.5-5.7, §8.2)."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address, ip_network
from typing import Any

import pytest

from testbed.lisp.actions import (
    SECOND_NS,
    Action,
    BindNeighbour,
    Emit,
    Forwarding,
    Inject,
    ProbeNeighbour,
    SaveNonce,
    SendControl,
    SetForwarding,
    UnbindNeighbour,
)
from testbed.lisp.config import XtrConfig, XtrOptions
from testbed.lisp.inputs import ControlReceived, HostExpected, HostSighted, PacketMissed, StaleReceived, Started
from testbed.lisp.mechanisms import mechanism_named
from testbed.lisp.sealing import Secret
from testbed.lisp.sightings import Sighting, SightingKind
from testbed.lisp.wire import (
    EidPrefix,
    EidRecord,
    EidRecordFlag,
    EncapsulatedControl,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapRegisterFlag,
    MapReply,
    MapReplyFlag,
    MapRequest,
    MapRequestFlag,
    RequestedEid,
    RlocRecord,
    XtrIdentity,
    decode_control,
)
from testbed.lisp.xtr import Xtr

MAP_SERVER, RLOC, ELSEWHERE, PEER = (ip_address(f"10.0.{n}.2") for n in (0, 1, 2, 3))
EID, OTHER, GATEWAY = (ip_address(f"192.168.0.{n}") for n in (10, 11, 1))
MAC = "00:16:3e:00:00:0a"
MOBILE, FIXED = IPv4Network("192.168.0.0/24"), IPv4Network("192.168.7.0/24")
SECRET = Secret(0, b"secret of a")


class Site:
    """An xTR and its clock."""

    def __init__(
        self, mechanism: str = "smr-old-xtr", *, nonce: int = 1000, instance_id: int = 0, **options: Any
    ) -> None:
        self.now = 0
        config = XtrConfig(
            rloc=RLOC,
            identity=XtrIdentity(1, 2),
            eid_prefixes=(FIXED,),
            dynamic_eid_prefixes=(MOBILE,),
            eid_space=(IPv4Network("192.168.0.0/16"),),
            gateways=(GATEWAY,),
            map_servers=(MAP_SERVER,),
            map_resolvers=(MAP_SERVER,),
            secret=SECRET,
            mechanism=mechanism_named(mechanism),
            options=XtrOptions(**options),
            instance_id=instance_id,
        )
        self.xtr = Xtr(config, nonce=nonce, random64=lambda: 7)

    def give(self, event: Any) -> list[Action]:
        return self.xtr.handle(event, self.now)

    def sight(
        self,
        kind: SightingKind = SightingKind.GRATUITOUS_ARP,
        eid: Any = EID,
        mac: str = MAC,
        asked: Any = None,
    ) -> list[Action]:
        return self.give(HostSighted(Sighting(kind, mac, eid, asked), self.now))

    def receive(self, payload: bytes, source: Any = MAP_SERVER, port: int = 4342) -> list[Action]:
        return self.give(ControlReceived(payload, source, port))

    def run(self, until: int) -> list[tuple[int, Action]]:
        done: list[tuple[int, Action]] = []
        while (deadline := self.xtr.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            done += [(self.now, action) for action in self.xtr.handle_timer(self.now)]
        self.now = until
        return done

    def acknowledge(self, register: MapRegister) -> list[Action]:
        return self.receive(SECRET.seal(MapNotify(register.nonce, register.records)))

    def notice(self, nonce: int, rloc: Any = ELSEWHERE, *, secret: Secret = SECRET) -> bytes:
        record = EidRecord(EidPrefix(ip_network(EID)), 1440, (RlocRecord(rloc),))
        return secret.seal(MapNotify(nonce, (record,)))


def sent(actions: list[Action], kind: type) -> list[Any]:
    messages = [decode_control(each.payload) for each in actions if isinstance(each, SendControl)]
    return [message for message in messages if isinstance(message, kind)]


def events(actions: list[Action], kind: str) -> list[dict[str, Any]]:
    return [dict(action.fields) for action in actions if isinstance(action, Emit) and action.kind == kind]


def kinds(actions: list[Action]) -> list[type]:
    return [type(action) for action in actions]


# --- registration ----------------------------------------------------------------------------------


def test_rfc9301_8_2_what_is_here_is_registered_at_start() -> None:
    actions = Site().give(Started())
    (register,) = sent(actions, MapRegister)
    assert [str(record.eid) for record in register.records] == [str(FIXED)]
    assert register.flags & MapRegisterFlag.WANT_MAP_NOTIFY
    assert register.flags & MapRegisterFlag.PROXY_REPLY
    assert register.xtr == XtrIdentity(1, 2)
    forwarding = {str(each.eid): each.forwarding for each in actions if isinstance(each, SetForwarding)}
    assert forwarding == {"192.168.0.0/16": Forwarding.RESOLVE, str(FIXED): Forwarding.LOCAL}


def test_rfc9301_5_6_nonces_go_on_from_the_saved_one_and_are_saved_before_they_are_sent() -> None:
    actions = Site(nonce=41).give(Started())
    (register,) = sent(actions, MapRegister)
    assert register.nonce == 42
    assert kinds(actions).index(SaveNonce) < kinds(actions).index(SendControl)


def test_rfc9301_5_7_unacknowledged_registers_repeat_from_1_s_to_1_min_with_rising_nonces() -> None:
    site = Site()
    site.sight()
    done = site.run(200 * SECOND_NS)
    times = [when // SECOND_NS for when, action in done if isinstance(action, SendControl)]
    assert times == [1, 3, 7, 15, 31, 63, 123, 183]
    nonces = [register.nonce for register in sent([action for _, action in done], MapRegister)]
    assert nonces == sorted(set(nonces))


def test_rfc9301_8_2_acknowledged_registers_are_refreshed_each_minute() -> None:
    site = Site()
    (register,) = sent(site.sight(), MapRegister)
    (received,) = events(site.acknowledge(register), "map_notify_received")
    assert int(received["nonce"], 16) == register.nonce
    times = [when // SECOND_NS for when, action in site.run(60 * SECOND_NS) if isinstance(action, SendControl)]
    assert times == [60]


def test_rfc9301_5_7_the_notify_of_an_earlier_transmission_counts() -> None:
    site = Site()
    (first,) = sent(site.sight(), MapRegister)
    site.run(4 * SECOND_NS)
    assert events(site.acknowledge(first), "map_notify_received")[0]["transmissions"] == 3


def forged(site: Site, register: MapRegister) -> list[Action]:
    return site.receive(Secret(0, b"guessed").seal(MapNotify(register.nonce, register.records)))


def from_a_stranger(site: Site, register: MapRegister) -> list[Action]:
    return site.receive(SECRET.seal(MapNotify(register.nonce, register.records)), PEER)


@pytest.mark.parametrize("deliver", [forged, from_a_stranger])
def test_rfc9301_5_7_a_notify_that_is_not_the_map_servers_is_dropped(deliver: Any) -> None:
    site = Site()
    (register,) = sent(site.sight(), MapRegister)
    actions = deliver(site, register)
    assert events(actions, "map_notify_received") == []
    assert len(events(actions, "control_dropped")) == 1
    assert sent([action for _, action in site.run(SECOND_NS)], MapRegister)


# --- sightings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in SightingKind if kind is not SightingKind.RARP])
def test_any_sign_of_a_dynamic_eid_registers_it_at_that_moment(kind: SightingKind) -> None:
    actions = Site().sight(kind)
    (detected,) = events(actions, "eid_detected")
    assert (detected["eid"], detected["mac"], detected["via"]) == (str(EID), MAC, kind.value)
    assert SetForwarding(ip_network(EID), Forwarding.LOCAL) in actions
    assert BindNeighbour(EID, MAC) in actions
    (register,) = sent(actions, MapRegister)
    assert [str(record.eid) for record in register.records] == [f"{EID}/32"]
    # Whoever will send here because of it is farther away than the kernel's table.
    kinds = [type(action) for action in actions]
    assert kinds.index(SendControl) < kinds.index(SetForwarding) < kinds.index(BindNeighbour)


def test_what_was_held_for_an_eid_that_appears_here_goes_into_its_entry() -> None:
    site = Site()
    site.give(PacketMissed(EID, b"held"))
    actions = site.sight()
    assert kinds(actions).index(SetForwarding) < kinds(actions).index(Inject)
    assert Inject(b"held") in actions


def test_a_rarp_shows_whom_its_mac_is_known_to_be() -> None:
    site = Site()
    assert site.sight(SightingKind.RARP, eid=None) == []
    site.give(HostExpected(EID, MAC))
    assert events(site.sight(SightingKind.RARP, eid=None), "eid_detected")[0]["via"] == "rarp"


def test_a_rarp_of_the_mac_that_an_eid_had_before_is_not_about_it() -> None:
    site, former = Site(), "02:00:00:00:00:99"
    site.sight(mac=former)
    site.sight()
    assert site.sight(SightingKind.RARP, eid=None, mac=former) == []


@pytest.mark.parametrize("eid", [GATEWAY, ip_address("192.168.7.5"), ip_address("8.8.8.8")])
def test_gateways_static_eids_and_strangers_are_no_sightings(eid: Any) -> None:
    assert Site().sight(eid=eid) == []


def test_a_host_that_is_known_to_be_here_is_not_news() -> None:
    site = Site()
    site.sight()
    assert site.sight() == []
    assert site.sight(mac="00:16:3e:00:00:0b") == [BindNeighbour(EID, "00:16:3e:00:00:0b")]


def test_sightings_beyond_the_bound_are_refused_and_logged() -> None:
    site = Site(local_eids=1)
    site.sight()
    actions = site.sight(eid=OTHER)
    assert [event["reason"] for event in events(actions, "eid_refused")] == ["full"]
    assert sent(actions, MapRegister) == []
    assert site.sight(mac="00:16:3e:00:00:0b")  # the one that is here may change its MAC


# --- departure -------------------------------------------------------------------------------------


def test_a_departure_ends_the_refresh_installs_away_and_is_acknowledged() -> None:
    site = Site()
    (register,) = sent(site.sight(), MapRegister)
    site.acknowledge(register)
    actions = site.receive(site.notice(5000))
    (departed,) = events(actions, "eid_departed")
    assert (departed["eid"], departed["rloc"]) == (str(EID), str(ELSEWHERE))
    assert UnbindNeighbour(EID) in actions
    (away,) = [action for action in actions if isinstance(action, SetForwarding)]
    assert (away.forwarding, away.locators[0].rloc) == (Forwarding.AWAY, ELSEWHERE)
    assert away.expires_ns == 1440 * 60 * SECOND_NS
    (ack,) = sent(actions, MapNotifyAck)
    assert ack.nonce == 5000
    assert ProbeNeighbour(EID, MAC) in actions
    assert sent([action for _, action in site.run(300 * SECOND_NS)], MapRegister) == []


def test_rule_3_what_is_registered_after_a_notice_has_a_nonce_above_it() -> None:
    site = Site()
    site.sight()
    site.now = SECOND_NS // 2
    assert SaveNonce("map-register", 1 << 40) in site.receive(site.notice(1 << 40))
    site.now = SECOND_NS
    (register,) = sent(site.sight(), MapRegister)
    assert register.nonce == (1 << 40) + 1


def test_rule_6_a_notice_older_than_the_present_stay_is_acknowledged_and_changes_nothing() -> None:
    site = Site()
    site.sight()
    notice = site.notice(1 << 40)
    site.receive(notice)
    site.now = SECOND_NS
    site.sight()
    actions = site.receive(notice)
    assert events(actions, "eid_departed") == []
    assert len(sent(actions, MapNotifyAck)) == 1
    assert site.xtr.inspect(site.now)["hosts"][0]["state"] == "local"


def test_an_unordered_notice_is_taken_at_its_word_if_so_configured() -> None:
    site = Site(ordered_notifies=False)
    site.sight()
    assert events(site.receive(site.notice(3)), "eid_departed")


def test_the_away_entry_ends_with_the_mapping() -> None:
    site = Site()
    site.sight()
    site.receive(site.notice(5000))
    site.run(1440 * 60 * SECOND_NS)
    assert site.xtr.inspect(site.now)["hosts"] == []
    assert site.xtr.inspect(site.now)["map_cache"] == []


# --- solicitation ----------------------------------------------------------------------------------


def stale(site: Site, peer: Any = PEER) -> list[Action]:
    return site.give(StaleReceived(EID, peer, site.now))


def test_rfc9301_6_1_a_stale_packet_solicits_its_outer_source() -> None:
    site = Site()
    site.sight()
    site.receive(site.notice(5000))
    actions = stale(site)
    (smr,) = sent(actions, MapRequest)
    assert smr.flags == MapRequestFlag.SMR | MapRequestFlag.DONT_MAP_REPLY
    assert [str(request.eid) for request in smr.requests] == [f"{EID}/32"]
    assert [each.destination for each in actions if isinstance(each, SendControl)] == [PEER]


def test_rfc9301_6_1_smrs_to_one_peer_keep_3_s_apart_and_the_next_names_the_limiter() -> None:
    site = Site()
    site.sight()
    site.receive(site.notice(5000))
    outcome = []
    for milliseconds in (0, 1000, 2999, 3000, 3500):
        site.now = milliseconds * SECOND_NS // 1000
        outcome.append([event.get("limiter") for event in events(stale(site), "smr_sent")])
    assert outcome == [[None], [], [], ["smr_interval_s"], []]
    assert len(events(stale(site, ELSEWHERE), "smr_sent")) == 1


def test_mechanism_ttl_solicits_nobody_and_sends_nothing_on() -> None:
    site = Site("ttl")
    site.sight()
    actions = site.receive(site.notice(5000))
    assert [each.forwarding for each in actions if isinstance(each, SetForwarding)] == [Forwarding.REMOTE]
    assert events(actions, "away_installed") == []
    assert sent(stale(site), MapRequest) == []


# --- answers ---------------------------------------------------------------------------------------


def asked(eid: Any, flags: MapRequestFlag = MapRequestFlag.NONE) -> MapRequest:
    return MapRequest(99, (PEER,), (RequestedEid(EidPrefix(ip_network(eid))),), flags=flags)


def test_rfc9301_5_5_an_etr_answers_for_its_own_to_an_itr_rloc_at_the_inner_port() -> None:
    site = Site(map_reply_interval_s=0)
    site.sight()
    for eid, prefix in ((EID, f"{EID}/32"), (FIXED[5], str(FIXED))):
        ecm = EncapsulatedControl(PEER, eid, 34567, asked(eid).encode())
        actions = site.receive(ecm.encode())
        (reply,) = sent(actions, MapReply)
        assert reply.nonce == 99
        assert [str(record.eid) for record in reply.records] == [prefix]
        assert reply.records[0].flags & EidRecordFlag.AUTHORITATIVE
        assert [(each.destination, each.port) for each in actions if isinstance(each, SendControl)] == [(PEER, 34567)]


def test_an_etr_answers_for_what_has_left_with_where_it_is_and_not_as_authority() -> None:
    site = Site()
    site.sight()
    site.receive(site.notice(5000))
    (reply,) = sent(site.receive(EncapsulatedControl(PEER, EID, 1, asked(EID).encode()).encode()), MapReply)
    assert [locator.rloc for locator in reply.records[0].locators] == [ELSEWHERE]
    assert not reply.records[0].flags & EidRecordFlag.AUTHORITATIVE


def test_an_etr_does_not_answer_for_others() -> None:
    actions = Site().receive(EncapsulatedControl(PEER, EID, 1, asked(EID).encode()).encode())
    assert sent(actions, MapReply) == []


def test_rfc9301_7_1_a_probe_is_answered_with_the_probe_bit_and_authority() -> None:
    site = Site()
    site.sight()
    (reply,) = sent(site.receive(asked(EID, MapRequestFlag.PROBE).encode(), PEER, 5555), MapReply)
    assert reply.flags & MapReplyFlag.PROBE
    assert reply.records[0].flags & EidRecordFlag.AUTHORITATIVE


def test_rfc9301_5_8_a_probe_inside_an_ecm_is_dropped() -> None:
    site = Site()
    site.sight()
    ecm = EncapsulatedControl(PEER, EID, 1, asked(EID, MapRequestFlag.PROBE).encode())
    assert sent(site.receive(ecm.encode()), MapReply) == []
