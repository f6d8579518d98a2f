"""Which locators packets take while some do not answer (RFC 9300 §9, §10; RFC 9301 §7.1)."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address, ip_network
from typing import Any

import pytest

from testbed.lisp.actions import (
    SECOND_NS,
    Action,
    Address,
    ClearForwarding,
    Emit,
    Forwarding,
    Inject,
    RequestEcho,
    SendControl,
    SetForwarding,
    SetLocatorStatus,
)
from testbed.lisp.config import OptionError, SiteLocator, XtrConfig, XtrOptions
from testbed.lisp.gleaner import AT_MOST
from testbed.lisp.inputs import (
    ControlReceived,
    Input,
    LocatorStatusSeen,
    NonceEchoed,
    PacketMissed,
    SiteLocatorChanged,
    SourceSeen,
    Started,
)
from testbed.lisp.mechanisms import mechanism_named
from testbed.lisp.sealing import Secret
from testbed.lisp.wire import (
    EidPrefix,
    EidRecord,
    EidRecordFlag,
    EncapsulatedControl,
    LocatorFlag,
    MapRegister,
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

RESOLVER, RLOC = ip_address("10.0.0.2"), ip_address("10.0.1.2")
FIRST, SECOND = ip_address("10.0.3.2"), ip_address("10.0.4.2")
PEER, FIXED = ip_address("192.168.3.10"), ip_network("192.168.3.0/24")
MAPPING = EidRecord(EidPrefix(FIXED), 1440, (RlocRecord(FIRST, 1, 100), RlocRecord(SECOND, 2, 100)))


class Site:
    """One xTR, whose peers answer its RLOC-probes after 10 ms unless they are silent.

    Args:
        mechanism: of the xTR.
        locators: of its site.
        options: of it.
    """

    def __init__(self, mechanism: str = "ttl", *, locators: tuple[SiteLocator, ...] = (), **options: Any) -> None:
        self.now = 1000 * SECOND_NS
        self._random = 0
        config = XtrConfig(
            rloc=RLOC,
            identity=XtrIdentity(1),
            eid_prefixes=(IPv4Network("192.168.1.0/24"),),
            dynamic_eid_prefixes=(),
            eid_space=(IPv4Network("192.168.0.0/16"),),
            gateways=(),
            map_servers=(RESOLVER,),
            map_resolvers=(RESOLVER,),
            secret=Secret(0, b"k"),
            mechanism=mechanism_named(mechanism),
            options=XtrOptions(**options),
            locators=locators,
        )
        self.xtr = Xtr(config, nonce=0, random64=self._random64)
        self.silent: set[Address] = set()
        self.mapping = MAPPING
        self.reply_flags = MapReplyFlag.NONE
        self.done: list[tuple[int, Action]] = []
        self._arrivals: list[tuple[int, ControlReceived]] = []
        self.give(Started())

    def _random64(self) -> int:
        self._random += 1
        return self._random

    def give(self, event: Input) -> list[Action]:
        return self._take(self.xtr.handle(event, self.now))

    def _take(self, actions: list[Action]) -> list[Action]:
        self.done += [(self.now, action) for action in actions]
        for action in actions:
            if isinstance(action, SendControl):
                self._sent(action)
        return actions

    def _sent(self, action: SendControl) -> None:
        message = decode_control(action.payload)
        if isinstance(message, EncapsulatedControl):
            message = message.message
        if not isinstance(message, MapRequest) or action.destination in self.silent:
            return
        probe = bool(message.flags & MapRequestFlag.PROBE)
        record = EidRecord(
            self.mapping.eid, 1440, self.mapping.locators,
            flags=EidRecordFlag.AUTHORITATIVE if probe else EidRecordFlag.NONE,
        )  # fmt: skip
        flags = self.reply_flags | (MapReplyFlag.PROBE if probe else MapReplyFlag.NONE)
        reply = MapReply(message.nonce, (record,), flags)
        received = ControlReceived(reply.encode(), action.destination, 4342)
        self._arrivals.append((self.now + SECOND_NS // 100, received))

    def run_for(self, seconds: float) -> None:
        end = self.now + round(seconds * SECOND_NS)
        while True:
            arrival = self._arrivals[0][0] if self._arrivals else end + 1
            deadline = self.xtr.next_deadline()
            timer = end + 1 if deadline is None else max(self.now, deadline)
            if min(arrival, timer) > end:
                break
            if arrival <= timer:
                self.now, received = self._arrivals.pop(0)
                self.give(received)
            else:
                self.now = timer
                self._take(self.xtr.handle_timer(self.now))
        self.now = end

    def resolved(self) -> Site:
        self.give(PacketMissed(PEER, b"packet"))
        self.run_for(0.1)
        assert self.used() == [FIRST, SECOND]
        return self

    def used(self) -> list[Address]:
        """The locators in the forwarding entry, as last programmed."""
        entry = [each for _, each in self.done if isinstance(each, SetForwarding) and each.eid == FIXED][-1]
        assert entry.forwarding is Forwarding.REMOTE
        return [locator.rloc for locator in entry.locators]

    def saw(self, kind: str) -> list[tuple[float, dict[str, Any]]]:
        """Events, with seconds since the beginning."""
        return [
            ((at - 1000 * SECOND_NS) / SECOND_NS, dict(each.fields))
            for at, each in self.done
            if isinstance(each, Emit) and each.kind == kind
        ]

    def locator_rows(self) -> dict[str, list[str]]:
        (row,) = self.xtr.inspect(self.now)["map_cache"]
        return {locator["rloc"]: locator["down"] for locator in row["locators"]}


def test_without_an_option_nothing_is_probed() -> None:
    site = Site().resolved()
    site.run_for(600)
    assert not site.saw("rloc_probe_sent")


def test_rfc9301_7_1_a_locator_that_does_not_answer_is_not_used_until_it_does() -> None:
    site = Site(rloc_probe_interval_s=10.0, rloc_probe_timeout_s=1.0, rloc_probe_losses=3).resolved()
    site.silent.add(FIRST)
    site.run_for(15)
    assert site.used() == [SECOND]
    (down,) = site.saw("locator_down")
    assert down[1] == {"rloc": "10.0.3.2", "cause": "rloc-probe", "mappings": 1}
    unanswered = site.saw("rloc_probe_unanswered")
    assert [fields["in_a_row"] for _, fields in unanswered] == [1, 2, 3]
    # The second and third probe go when the one before was not answered for a second.
    assert down[0] - unanswered[0][0] == pytest.approx(2.0)
    assert site.locator_rows() == {"10.0.3.2": ["rloc-probe"], "10.0.4.2": []}
    site.silent.clear()
    site.run_for(11)
    assert site.used() == [FIRST, SECOND]
    (up,) = site.saw("locator_up")
    assert up[1]["down_ms"] == pytest.approx((up[0] - down[0]) * 1000)
    assert site.locator_rows() == {"10.0.3.2": [], "10.0.4.2": []}


def test_an_answer_in_between_begins_the_count_anew() -> None:
    site = Site(rloc_probe_interval_s=10.0).resolved()
    for _ in range(5):
        site.silent.add(FIRST)
        lost = len(site.saw("rloc_probe_unanswered"))
        while len(site.saw("rloc_probe_unanswered")) < lost + 2:
            site.run_for(0.1)
            if len(site.saw("rloc_probe_unanswered")) == lost + 1:
                site.silent.clear()
                break
        site.run_for(2)
    assert not site.saw("locator_down")


def test_no_losses_allowed_for_is_no_locator_taken_down() -> None:
    site = Site("rloc-probe", rloc_probe_losses=0).resolved()
    site.silent.add(FIRST)
    site.run_for(60)
    assert site.used() == [FIRST, SECOND]
    assert len(site.saw("rloc_probe_unanswered")) >= 4


def test_a_mapping_without_a_locator_left_is_asked_for_again_and_drops() -> None:
    site = Site("rloc-probe").resolved()
    site.silent |= {FIRST, SECOND}
    before = len(site.saw("map_request_sent"))
    site.run_for(30)
    assert site.used() == []
    assert len(site.saw("map_request_sent")) == before + 1


def test_a_new_mapping_does_not_bring_back_a_locator_that_is_down() -> None:
    site = Site("rloc-probe").resolved()
    site.silent.add(FIRST)
    site.run_for(15)
    # The second locator's answers carry the mapping, with both: it is installed each time.
    installs = sum(isinstance(each, SetForwarding) for _, each in site.done)
    site.run_for(30)
    assert sum(isinstance(each, SetForwarding) for _, each in site.done) > installs
    assert site.used() == [SECOND]


def test_probes_beside_another_mechanism_are_no_news_of_mappings() -> None:
    site = Site("smr-old-xtr", rloc_probe_interval_s=1.0).resolved()
    site.mapping = EidRecord(EidPrefix(FIXED), 1440, (RlocRecord(ip_address("10.0.5.2")),))
    site.run_for(30)
    assert len(site.saw("rloc_probe_answered")) > 20
    assert site.used() == [FIRST, SECOND]


def test_a_locator_that_no_mapping_has_any_more_is_forgotten() -> None:
    site = Site("rloc-probe").resolved()
    site.silent.add(FIRST)
    site.run_for(15)
    site.mapping = EidRecord(EidPrefix(FIXED), 1440, (RlocRecord(SECOND),))
    site.run_for(30)
    assert site.used() == [SECOND]
    site.mapping = MAPPING
    site.silent.clear()
    site.run_for(15)
    assert site.used() == [FIRST, SECOND]


def test_a_locator_that_is_not_in_use_any_more_is_asked_no_more_and_is_not_down() -> None:
    site = Site("rloc-probe").resolved()
    site.silent.add(FIRST)
    site.mapping = EidRecord(EidPrefix(FIXED), 1440, (RlocRecord(SECOND),))
    site.run_for(60)
    assert site.used() == [SECOND]
    assert [fields["in_a_row"] for _, fields in site.saw("rloc_probe_unanswered")] == [1]
    assert not site.saw("locator_down")


def said(site: Site, bits: int, peer: Address = FIRST) -> None:
    """A packet of the peer's comes, with these locator-status-bits."""
    site.give(LocatorStatusSeen(PEER, peer, bits, site.now))


def test_rfc9300_10_a_trusted_bit_takes_a_locator_down_until_it_is_set_again() -> None:
    site = Site(locator_status_bits="trust").resolved()
    said(site, 0b10)
    assert site.used() == [SECOND]
    assert site.locator_rows() == {"10.0.3.2": ["locator-status-bits"], "10.0.4.2": []}
    site.run_for(600)
    assert site.used() == [SECOND]
    said(site, 0b11)
    assert site.used() == [FIRST, SECOND]
    assert not site.saw("rloc_probe_sent")


def test_rfc9300_5_3_a_bit_that_is_verified_has_the_locator_probed() -> None:
    site = Site(locator_status_bits="verify").resolved()
    said(site, 0b10)
    site.run_for(1)
    assert [fields["peer"] for _, fields in site.saw("rloc_probe_answered")] == ["10.0.3.2"]
    assert site.used() == [FIRST, SECOND]
    site.silent.add(FIRST)
    said(site, 0b10)
    said(site, 0b10)
    site.run_for(5)
    assert [fields["cause"] for _, fields in site.saw("locator_down")] == ["rloc-probe"]
    assert site.used() == [SECOND]
    site.silent.clear()
    said(site, 0b11)
    site.run_for(0.1)
    assert site.used() == [FIRST, SECOND]


def test_many_doubts_make_few_probes() -> None:
    site = Site(locator_status_bits="verify").resolved()
    for _ in range(200):
        said(site, 0b10)
        said(site, 0b11)
        site.run_for(0.02)
    assert len(site.saw("rloc_probe_sent")) <= 5  # in 4 s, one a second


def test_bits_of_an_xtr_that_is_not_in_the_mapping_are_of_another_mapping() -> None:
    site = Site(locator_status_bits="trust").resolved()
    said(site, 0b10, ip_address("10.0.9.2"))
    assert site.used() == [FIRST, SECOND]
    assert not site.saw("locator_status_seen")


def test_without_the_option_bits_are_ignored() -> None:
    site = Site().resolved()
    said(site, 0b10)
    assert site.used() == [FIRST, SECOND]
    assert not [each for _, each in site.done if isinstance(each, SetLocatorStatus)]


def test_rfc9300_10_the_bits_of_our_site_follow_the_operator_and_the_probes_of_its_other_xtr() -> None:
    fellow = ip_address("10.0.1.3")
    locators = (SiteLocator(RLOC), SiteLocator(fellow, priority=2))
    site = Site(locators=locators, locator_status_bits="verify", rloc_probe_interval_s=5.0)

    def bits() -> int:
        return [each.bits for _, each in site.done if isinstance(each, SetLocatorStatus)][-1]

    assert bits() == 0b11
    site.give(SiteLocatorChanged(RLOC, False))
    assert bits() == 0b10
    registered = [decode_control(each.payload) for _, each in site.done if isinstance(each, SendControl)]
    flags = [each.records[0].locators[0].flags for each in registered if isinstance(each, MapRegister)]
    assert [bool(each & LocatorFlag.REACHABLE) for each in flags] == [True]  # not acknowledged: repeated with its timer
    site.run_for(1.5)
    registered = [decode_control(each.payload) for _, each in site.done if isinstance(each, SendControl)]
    last = [each for each in registered if isinstance(each, MapRegister)][-1]
    assert [bool(each.flags & LocatorFlag.REACHABLE) for each in last.records[0].locators] == [False, True]
    site.give(SiteLocatorChanged(RLOC, True))
    site.silent.add(fellow)
    site.run_for(10)
    assert bits() == 0b01
    site.silent.clear()
    site.run_for(12)
    assert bits() == 0b11


def test_a_site_whose_xtr_is_not_among_its_locators_is_refused() -> None:
    with pytest.raises(OptionError, match="locators"):
        Site(locators=(SiteLocator(FIRST),))


def echo_requests(site: Site) -> list[tuple[Address, bool]]:
    """Whom the data plane was told to ask for an echo, or not any more."""
    return [(each.rloc, each.nonce is not None) for _, each in site.done if isinstance(each, RequestEcho)]


def echoing(**options: Any) -> Site:
    """A site whose locators both say that they can echo."""
    site = Site(echo_nonce=True, echo_nonce_interval_s=5.0, **options)
    site.reply_flags = MapReplyFlag.ECHO_NONCE_CAPABLE
    site.resolved().run_for(6)
    assert echo_requests(site) == [(FIRST, True), (SECOND, True)]
    return site


def test_rfc9300_10_1_who_does_not_say_that_it_can_echo_is_not_asked() -> None:
    site = Site(echo_nonce=True, echo_nonce_interval_s=5.0).resolved()
    site.run_for(60)
    assert {fields["peer"] for _, fields in site.saw("rloc_probe_answered")} == {"10.0.3.2", "10.0.4.2"}
    assert echo_requests(site) == []


def test_rfc9300_10_1_an_echo_is_asked_for_again_after_the_interval() -> None:
    site = echoing()
    site.run_for(20)
    assert len(echo_requests(site)) == 2  # no answer is no answer yet
    site.give(NonceEchoed(FIRST, True, site.now))
    site.run_for(6)
    assert echo_requests(site)[2:] == [(FIRST, True)]
    nonces = [each.nonce for _, each in site.done if isinstance(each, RequestEcho)]
    assert len(set(nonces)) == 3


def test_rfc9300_10_1_a_locator_that_does_not_echo_is_tried_again_when_it_answers_probes() -> None:
    site = echoing(rloc_recheck_s=10.0, rloc_probe_interval_s=1.0)
    site.give(NonceEchoed(FIRST, False, site.now))
    assert site.used() == [SECOND]
    assert site.locator_rows()["10.0.3.2"] == ["echo-nonce"]
    site.run_for(8)  # it answers probes all the time; that does not say that data gets there
    assert site.used() == [SECOND]
    site.run_for(4)
    assert site.used() == [FIRST, SECOND]
    assert echo_requests(site)[2:] == [(FIRST, True)]
    (up,) = site.saw("locator_up")
    assert up[1]["cause"] == "echo-nonce"
    assert up[1]["down_ms"] >= 9000


def test_a_locator_that_neither_echoes_nor_answers_stays_down() -> None:
    site = echoing(rloc_recheck_s=2.0)
    site.silent.add(FIRST)
    site.give(NonceEchoed(FIRST, False, site.now))
    site.run_for(60)
    assert site.locator_rows()["10.0.3.2"] == ["echo-nonce", "rloc-probe"]
    site.silent.clear()
    site.run_for(5)
    assert site.used() == [FIRST, SECOND]


def test_a_locator_out_of_use_is_not_asked_any_more() -> None:
    site = echoing(rloc_probe_interval_s=1.0)
    site.mapping = EidRecord(EidPrefix(FIXED), 1440, (RlocRecord(SECOND),))
    site.give(ControlReceived(solicitation(), SECOND, 4342))
    site.run_for(6)
    assert site.used() == [SECOND]
    assert echo_requests(site)[2:] == [(FIRST, False)]


def solicitation() -> bytes:
    flags = MapRequestFlag.SMR | MapRequestFlag.DONT_MAP_REPLY
    return MapRequest(1, (SECOND,), (RequestedEid(EidPrefix(FIXED)),), flags=flags).encode()


def test_nonces_are_not_echoed_where_map_versions_take_their_place() -> None:
    with pytest.raises(OptionError, match="map-version"):
        Site("map-version", echo_nonce=True)


def test_rfc9301_5_4_an_xtr_that_echoes_says_so_in_its_map_replies() -> None:
    asked = MapRequest(5, (FIRST,), (RequestedEid(EidPrefix(ip_network("192.168.1.0/24"))),)).encode()
    for on in (True, False):
        (reply,) = [each for each in Site(echo_nonce=on).give(ControlReceived(asked, FIRST, 4342))
                    if isinstance(each, SendControl)]  # fmt: skip
        message = decode_control(reply.payload)
        assert isinstance(message, MapReply)
        assert bool(message.flags & MapReplyFlag.ECHO_NONCE_CAPABLE) is on


def gleaned(site: Site) -> list[tuple[str, Forwarding, list[Address]]]:
    """The forwarding entries of the peer's own address, and their removal."""
    host = ip_network(f"{PEER}/32")
    return [
        ("set", each.forwarding, [locator.rloc for locator in each.locators])
        if isinstance(each, SetForwarding)
        else ("clear", Forwarding.RESOLVE, [])
        for _, each in site.done
        if isinstance(each, (SetForwarding, ClearForwarding)) and each.eid == host
    ]


def test_rfc9300_9_a_gleaned_mapping_is_used_until_the_verified_one_comes() -> None:
    site = Site(gleaning=True)
    site.give(SourceSeen(PEER, SECOND, site.now))
    (row,) = site.xtr.inspect(site.now)["map_cache"]
    assert (row["eid"], row["gleaned"], row["remaining_s"]) == ("192.168.3.10/32", True, 3.0)
    assert [(each["rloc"], each["weight"]) for each in row["locators"]] == [("10.0.4.2", 0)]
    assert len(site.saw("map_request_sent")) == 1
    site.run_for(0.1)
    # The mapping of the whole prefix takes the place of the guess, in this order, so that nothing is missed between.
    assert gleaned(site) == [("set", Forwarding.REMOTE, [SECOND]), ("clear", Forwarding.RESOLVE, [])]
    order = [each.eid for _, each in site.done if isinstance(each, (SetForwarding, ClearForwarding))]
    assert order.index(FIXED) < len(order) - 1 - order[::-1].index(ip_network(f"{PEER}/32"))
    (row,) = site.xtr.inspect(site.now)["map_cache"]
    assert (row["eid"], row["gleaned"]) == ("192.168.3.0/24", False)
    assert row["remaining_s"] > 3600  # not limited by what was guessed inside it
    site.give(SourceSeen(PEER, ip_address("10.0.9.2"), site.now))
    assert site.used() == [FIRST, SECOND]
    assert len(gleaned(site)) == 2


def test_rfc9300_9_packets_do_not_keep_a_guess_alive_that_nobody_verifies() -> None:
    site = Site(gleaning=True)
    site.silent.add(RESOLVER)
    for _ in range(20):
        site.give(SourceSeen(PEER, SECOND, site.now))
        site.run_for(1)
    assert gleaned(site) == [("set", Forwarding.REMOTE, [SECOND]), ("clear", Forwarding.RESOLVE, [])]
    assert len(site.saw("mapping_gleaned")) == 1


def test_a_packet_that_waits_goes_with_the_gleaned_mapping() -> None:
    site = Site(gleaning=True)
    site.silent.add(RESOLVER)
    site.give(PacketMissed(PEER, b"packet"))
    done = site.give(SourceSeen(PEER, SECOND, site.now))
    assert [each.packet for each in done if isinstance(each, Inject)] == [b"packet"]


@pytest.mark.parametrize(
    ("eid", "peer", "on"),
    [(PEER, SECOND, False), (ip_address("192.168.1.7"), SECOND, True), (PEER, ip_address("192.168.3.1"), True)],
    ids=["without the option", "of an EID of our own", "from an EID as if it were a locator"],
)
def test_nothing_is_gleaned(eid: Address, peer: Address, on: bool) -> None:
    site = Site(gleaning=on)
    site.give(SourceSeen(eid, peer, site.now))
    assert not site.saw("mapping_gleaned")
    assert site.xtr.inspect(site.now)["map_cache"] == []


def test_made_up_sources_do_not_fill_the_cache() -> None:
    site = Site(gleaning=True)
    site.silent.add(RESOLVER)
    for number in range(2 * AT_MOST):
        site.give(SourceSeen(ip_address("192.168.8.0") + number, SECOND, site.now))
    assert len(site.xtr.inspect(site.now)["map_cache"]) == AT_MOST
    site.run_for(4)
    site.give(SourceSeen(PEER, SECOND, site.now))
    assert len(site.xtr.inspect(site.now)["map_cache"]) == 1
