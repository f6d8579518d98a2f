"""The delays and limits that RFC 9301 gives."""

from __future__ import annotations

from itertools import islice

from testbed.lisp.actions import SECOND_NS
from testbed.lisp.timing import RateLimiter, notify_delays, register_delays, request_delays


def seconds(delays: object) -> list[float]:
    return [delay / SECOND_NS for delay in islice(delays, 12)]  # type: ignore[call-overload]


def test_rfc9301_5_7_register_doubles_from_1_s_to_1_min() -> None:
    assert seconds(register_delays()) == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]


def test_rfc9301_5_7_unsolicited_notify_three_times_3_s_then_doubling_three_times() -> None:
    assert seconds(notify_delays()) == [3, 3, 3, 6, 12, 24, 24]


def test_rfc9301_5_3_ten_requests_then_30_s() -> None:
    delays = seconds(request_delays())
    assert len(delays) == 11
    assert delays[-1] == 30
    assert all(delay >= 1 for delay in delays)


def test_limiter_counts_from_the_last_that_went() -> None:
    limiter: RateLimiter[str] = RateLimiter(3 * SECOND_NS)
    assert limiter.allow("a", 0)
    assert limiter.allow("b", SECOND_NS)
    assert not limiter.allow("a", 3 * SECOND_NS - 1)
    assert limiter.ready_at("a", SECOND_NS) == 3 * SECOND_NS
    assert limiter.allow("a", 3 * SECOND_NS)
    assert not limiter.allow("a", 4 * SECOND_NS)
    limiter.forget_before(5 * SECOND_NS)
    assert len(limiter) == 1


def test_limiter_switched_off_never_holds_back() -> None:
    limiter: RateLimiter[str] = RateLimiter(0)
    assert all(limiter.allow("a", 5) for _ in range(100))
