"""What is guessed from where packets come from, and for how long (RFC 9300 §9)."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from testbed.lisp.actions import (
    Address,
    ClearForwarding,
    Forwarding,
    Inject,
    SetForwarding,
)
from testbed.lisp.gleaner import AT_MOST
from testbed.lisp.inputs import (
    PacketMissed,
    SourceSeen,
)
from tests.unit.lisp_site import FIRST, FIXED, PEER, RESOLVER, SECOND, Site


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
    ("eid", "peer", "options"),
    [
        (PEER, SECOND, {"gleaning": False}),
        (ip_address("192.168.1.7"), SECOND, {}),
        (PEER, ip_address("192.168.3.1"), {}),
        (PEER, SECOND, {"map_cache_entries": 0}),
        (PEER, SECOND, {"open_questions": 0}),
    ],
    ids=["without the option", "of an EID of our own", "from an EID as if it were a locator", "full", "busy"],
)
def test_nothing_is_gleaned(eid: Address, peer: Address, options: dict[str, Any]) -> None:
    site = Site(**{"gleaning": True, **options})
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
