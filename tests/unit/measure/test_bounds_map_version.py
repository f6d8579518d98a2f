"""The analytic bound of the mechanism `map-version`."""

from __future__ import annotations

import pytest

from testbed.measure.bounds import Roles, remapping_bound

ROLES = Roles(new_xtr="b", old_xtr="a", map_server="ms", itr="c")
DELAYS = {
    (one, other): delay
    for pair, delay in {("b", "ms"): 3.0, ("b", "c"): 50.0, ("c", "ms"): 7.0, ("a", "ms"): 1.0, ("a", "c"): 1.0}.items()
    for one, other in (pair, pair[::-1])
}


@pytest.mark.parametrize(("proxy", "expected"), [(True, 2 * 3 + 50 + 2 * 7), (False, 2 * 3 + 50 + 7 + 3 + 50)])
def test_the_version_comes_from_the_map_server_first(proxy: bool, expected: float) -> None:
    bound = remapping_bound("map-version", DELAYS, ROLES, probe_interval_ms=10, proxy_reply=proxy, guest_speaks=True)
    assert bound.bound_ms == expected
    assert bound.formula.startswith("max(RTT(new,MS), the guest's next packet) + d(new,ITR)")
    assert (bound.median_ms, bound.waiting_ms) == (expected + 5, 5)


def test_a_guest_that_only_answers_speaks_when_the_old_xtr_sends_on() -> None:
    delays = DELAYS | {("a", "b"): 20.0, ("b", "a"): 20.0}
    bound = remapping_bound("map-version", delays, ROLES, probe_interval_ms=10)
    assert bound.bound_ms == 3 + 1 + 20 + 50 + 2 * 7
    assert bound.formula.startswith("max(d(new,MS) + d(MS,old) + d(old,new), the guest's next packet)")
