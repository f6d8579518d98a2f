"""Who is asked for an echo, and what its absence does (RFC 9300 §10.1)."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from testbed.lisp.actions import (
    Address,
    RequestEcho,
    SendControl,
)
from testbed.lisp.config import OptionError
from testbed.lisp.inputs import (
    ControlReceived,
    NonceEchoed,
)
from testbed.lisp.wire import (
    EidPrefix,
    EidRecord,
    MapReply,
    MapReplyFlag,
    MapRequest,
    MapRequestFlag,
    RequestedEid,
    RlocRecord,
    decode_control,
)
from tests.unit.lisp_site import FIRST, FIXED, SECOND, Site


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
