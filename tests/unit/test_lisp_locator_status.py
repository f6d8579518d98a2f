"""Locator-Status-Bits: what is said of our locators and believed of others' (RFC 9300 §5.3, §10)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from testbed.lisp.actions import (
    Address,
    SendControl,
    SetLocatorStatus,
)
from testbed.lisp.config import OptionError, SiteLocator
from testbed.lisp.inputs import (
    LocatorStatusSeen,
    SiteLocatorChanged,
)
from testbed.lisp.wire import (
    LocatorFlag,
    MapRegister,
    decode_control,
)
from tests.unit.lisp_site import FIRST, PEER, RLOC, SECOND, Site


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
