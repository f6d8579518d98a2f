"""The map-cache and its prefix map, against the rules of RFC 9301 §5.4, §5.5 and RFC 9300 §5."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from testbed.lisp.actions import Forwarding, ForwardingLocator, Prefix
from testbed.lisp.map_cache import CacheEntry, MapCache
from testbed.lisp.prefix_map import PrefixMap, uncovered_prefix


def entry(prefix: str, expires_ns: int, rloc: str = "10.0.1.2", instance_id: int = 0) -> CacheEntry:
    return CacheEntry(
        ip_network(prefix),
        Forwarding.REMOTE,
        (ForwardingLocator(ip_address(rloc), 1, 100),),
        expires_ns,
        instance_id,
    )


def test_rfc9300_4_longest_prefix_wins() -> None:
    cache = MapCache()
    for prefix in ("0.0.0.0/0", "192.168.0.0/16", "192.168.0.0/24", "192.168.0.10/32", "2001:db8::/32"):
        cache.insert(entry(prefix, 100))
    expected = {
        "192.168.0.10": "192.168.0.10/32",
        "192.168.0.11": "192.168.0.0/24",
        "192.168.9.1": "192.168.0.0/16",
        "8.8.8.8": "0.0.0.0/0",
        "2001:db8::1": "2001:db8::/32",
    }
    found = {eid: cache.lookup(ip_address(eid), 0) for eid in expected}
    assert {eid: str(hit.eid) for eid, hit in found.items() if hit} == expected
    assert cache.lookup(ip_address("2001:db9::1"), 0) is None


def test_rfc9300_5_lifetime_is_absolute_whatever_looks_it_up() -> None:
    cache = MapCache()
    cache.insert(entry("192.168.0.10/32", 100))
    eid = ip_address("192.168.0.10")
    assert all(cache.lookup(eid, now) for now in range(0, 100, 7))
    assert cache.lookup(eid, 100) is None
    assert cache.next_deadline() == 100
    assert [str(ended.eid) for ended in cache.expire(100)] == ["192.168.0.10/32"]
    assert cache.next_deadline() is None
    assert len(cache) == 0


def test_an_expired_specific_uncovers_the_live_shorter_one() -> None:
    cache = MapCache()
    cache.insert(entry("192.168.0.10/32", 100))
    cache.insert(entry("192.168.0.0/16", 90))
    hit = cache.lookup(ip_address("192.168.0.10"), 95)
    assert hit is not None
    assert hit.eid.prefixlen == 32


def test_replacement_ends_at_the_new_time_only() -> None:
    cache = MapCache()
    cache.insert(entry("192.168.0.10/32", 100))
    cache.insert(entry("192.168.0.10/32", 200, "10.0.2.2"))
    assert cache.expire(150) == []
    assert cache.next_deadline() == 200
    assert len(cache.expire(200)) == 1


def test_rfc9301_5_5_less_specific_received_later_ends_with_its_more_specifics() -> None:
    cache = MapCache()
    cache.insert(entry("192.168.0.10/32", 50))
    cache.insert(entry("192.168.0.11/32", 70))
    assert cache.insert(entry("192.168.0.0/24", 500)).expires_ns == 50
    assert cache.insert(entry("192.168.0.12/32", 500)).expires_ns == 500


def test_rfc9300_5_5_instances_do_not_see_each_other() -> None:
    cache = MapCache()
    cache.insert(entry("192.168.0.0/24", 100, instance_id=7))
    assert cache.lookup(ip_address("192.168.0.1"), 0) is None
    assert cache.lookup(ip_address("192.168.0.1"), 0, instance_id=7) is not None
    cache.remove(IPv4Network("192.168.0.0/24"), 7)
    assert cache.lookup(ip_address("192.168.0.1"), 0, instance_id=7) is None


def test_the_instance_of_a_cache_is_meant_where_none_is_named() -> None:
    cache = MapCache(7)
    cache.insert(entry("192.168.0.0/24", 100, instance_id=7))
    cache.insert(entry("192.168.0.0/24", 100, rloc="10.0.2.2"))
    for instance_id, rloc in ((None, "10.0.1.2"), (7, "10.0.1.2"), (0, "10.0.2.2")):
        found = cache.lookup(ip_address("192.168.0.1"), 0, instance_id)
        assert found is not None
        assert str(found.locators[0].rloc) == rloc
    assert len(cache.inside(IPv4Network("192.168.0.0/16"))) == 1
    assert cache.remove(IPv4Network("192.168.0.0/24")) is not None
    assert cache.exact(IPv4Network("192.168.0.0/24")) is None
    assert cache.exact(IPv4Network("192.168.0.0/24"), 0) is not None


def test_rfc9301_8_4_hole_is_the_least_specific_that_touches_nothing_known() -> None:
    known: list[Prefix] = [IPv4Network("192.168.0.0/24"), IPv6Network("2001:db8::/32")]
    assert uncovered_prefix(ip_address("192.168.1.1"), known) == IPv4Network("192.168.1.0/24")
    assert uncovered_prefix(ip_address("8.8.8.8"), known) == IPv4Network("0.0.0.0/1")
    assert uncovered_prefix(ip_address("192.168.0.1"), known) == IPv4Network("192.168.0.1/32")
    assert uncovered_prefix(ip_address("8.8.8.8"), []) == IPv4Network("0.0.0.0/0")


PREFIXES = st.builds(
    lambda number, length: IPv4Network((number >> (32 - length) << (32 - length), length)),
    # few distinct addresses, so that prefixes nest and collide
    st.sampled_from([0xC0A80000, 0xC0A8000A, 0xC0A80100, 0x0A000001]),
    st.integers(0, 32),
)


@given(st.lists(st.tuples(PREFIXES, st.booleans())), PREFIXES)
def test_prefix_map_agrees_with_a_linear_search(steps: list[tuple[IPv4Network, bool]], asked: IPv4Network) -> None:
    table: PrefixMap[int] = PrefixMap()
    model: dict[IPv4Network, int] = {}
    for number, (prefix, add) in enumerate(steps):
        if add:
            table.set(prefix, number)
            model[prefix] = number
        else:
            assert table.pop(prefix) == model.pop(prefix, None)
    assert {prefix: value for _, prefix, value in table.items()} == model
    assert len(table) == len(model)
    address = asked.network_address
    by_length = sorted((p for p in model if address in p), key=lambda p: -p.prefixlen)
    assert list(table.matches(address)) == [(p, model[p]) for p in by_length]
    assert dict(table.inside(asked)) == {p: v for p, v in model.items() if p != asked and p.subnet_of(asked)}
    assert dict(table.covering(asked)) == {p: v for p, v in model.items() if asked.subnet_of(p)}
