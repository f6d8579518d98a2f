"""The delays and limits that RFC 9301 gives."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import islice

from testbed.lisp.actions import SECOND_NS
from testbed.lisp.solicitor import Solicitor
from testbed.lisp.timing import RateLimiter, notify_delays, register_delays, request_delays
from testbed.lisp.wire import host_eid
from tests.unit.lisp_server import RLOC_A, RLOC_C, events


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


def test_rfc9301_6_1_an_smr_names_the_limit_only_if_that_held_it_back() -> None:
    solicitor, eid = Solicitor(RLOC_A, lambda: 7, 3 * SECOND_NS), host_eid(ip_address("192.168.0.10"))

    def limiter(now: int) -> list[str | None]:
        return [sent.get("limiter") for sent in events(solicitor.solicit(eid, RLOC_C, now), "smr_sent")]

    assert limiter(0) == [None]
    assert limiter(SECOND_NS) == []
    assert limiter(3 * SECOND_NS) == ["smr_interval_s"]
    assert limiter(4 * SECOND_NS) == []
    assert limiter(60 * SECOND_NS) == [None]  # another move; what was held back a minute ago is not this


def test_rfc9301_6_1_a_deferred_smr_names_the_limit_however_late_the_timer_is() -> None:
    solicitor, eid = Solicitor(RLOC_A, lambda: 7, 3 * SECOND_NS), host_eid(ip_address("192.168.0.10"))
    solicitor.solicit(eid, RLOC_C, 0)
    solicitor.solicit(eid, RLOC_C, 0, defer=True)
    (sent,) = events(solicitor.handle_timer(4 * SECOND_NS), "smr_sent")
    assert sent["limiter"] == "smr_interval_s"


def test_what_smrs_held_back_is_not_kept_when_it_is_over() -> None:
    solicitor, eid = Solicitor(RLOC_A, lambda: 7, 3 * SECOND_NS), host_eid(ip_address("192.168.0.10"))
    for number in range(50):
        for _ in range(2):
            solicitor.solicit(eid, RLOC_C + number, number * 10 * SECOND_NS)
    assert len(solicitor._held_back) == 1
