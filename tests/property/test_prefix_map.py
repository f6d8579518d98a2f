"""The prefix map's answers against those of a list that is searched from end to end."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from testbed.lisp.prefix_map import PrefixMap, uncovered_prefix

#: Few bits, so that prefixes meet.
PREFIXES = st.builds(
    lambda length, bits: IPv4Network((bits << 26 >> (32 - length) << (32 - length) & 0xFFFFFFFF, length)),
    st.integers(0, 6),
    st.integers(0, 63),
)
#: What happens to the map: True sets a prefix, False takes it out; None asks in between, which builds its order.
STEPS = st.lists(st.tuples(st.sampled_from([True, True, False, None]), PREFIXES), max_size=30)


def built(steps: list[tuple[bool | None, IPv4Network]]) -> tuple[PrefixMap[int], dict[IPv4Network, int]]:
    found: PrefixMap[int] = PrefixMap()
    plain: dict[IPv4Network, int] = {}
    for number, (step, prefix) in enumerate(steps):
        if step is None:
            list(found.inside(prefix))
        elif step:
            found.set(prefix, number)
            plain[prefix] = number
        else:
            assert found.pop(prefix) == plain.pop(prefix, None)
    return found, plain


@given(steps=STEPS, asked=PREFIXES)
def test_inside_and_overlapping(steps: list[tuple[bool | None, IPv4Network]], asked: IPv4Network) -> None:
    found, plain = built(steps)
    inside = [each for each in plain if each.subnet_of(asked) and each != asked]
    inside.sort(key=lambda each: (each.network_address, each.prefixlen))
    assert list(found.inside(asked)) == [(each, plain[each]) for each in inside]
    assert dict(found.overlapping(asked)) == {each: plain[each] for each in plain if each.overlaps(asked)}


@given(steps=STEPS, asked=st.integers(0, 63), within=st.integers(0, 6))
def test_a_hole_is_the_largest_free_prefix(
    steps: list[tuple[bool | None, IPv4Network]], asked: int, within: int
) -> None:
    found, plain = built(steps)
    address = IPv4Address(asked << 26)
    if any(address in each for each in plain):
        return
    widest = IPv4Network((int(address), within), strict=False)
    free = uncovered_prefix(address, list(plain))
    assert found.hole(address, widest) == (free if free.prefixlen > within else widest)
