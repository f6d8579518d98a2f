"""Which locators packets take while some do not answer RLOC-probes (RFC 9300 §9; RFC 9301 §7.1)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from testbed.lisp.actions import (
    SetForwarding,
)
from testbed.lisp.wire import (
    EidPrefix,
    EidRecord,
    RlocRecord,
)
from tests.unit.lisp_site import FIRST, FIXED, MAPPING, SECOND, Site


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
