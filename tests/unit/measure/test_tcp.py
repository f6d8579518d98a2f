"""What a migration does to a connection: it lives and stalls, it breaks, or nobody can tell."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.measure.analysis import analyse
from testbed.measure.model import ProbeSeries
from testbed.measure.summary import summarise
from testbed.measure.tcp import connection
from testbed.measure.validity import invalidates
from testbed.report.build import seeded
from tests.unit.measure.synthetic import INTERVAL_MS, Story, event, migration, outage, probes, run

RTT_MS = 4.0


def stalled(start_ms: float, end_ms: float) -> ProbeSeries:
    """Nothing is lost: what is sent inside the stall comes back at its end."""
    return probes(lambda sent: ((end_ms - sent) if start_ms <= sent < end_ms else RTT_MS,), flow="tcp")


@pytest.mark.parametrize("start_ms", [-50, 800])
def test_a_connection_that_stalls_survives(start_ms: float) -> None:
    """Also if the stall began before the request to migrate."""
    found = connection(stalled(start_ms, 1900), migration(Story()), [])
    assert (found.survived, found.error) == (True, "")
    assert found.longest_stall_ms == pytest.approx(1900 - (start_ms - INTERVAL_MS + RTT_MS))
    assert found.bytes_in_order == 299 * 24  # of the window's 2990 ms


def test_a_connection_that_breaks_has_not_survived() -> None:
    story = Story()
    series = probes(outage((800, 9000)), flow="tcp")
    said = event(1700, "correspondent", "tcp_broken", direction="to-guest", error="Connection reset by peer")
    other = event(1700, "vm1", "tcp_broken", direction="from-guest", error="not this one")
    found = connection(series, migration(story), [other, said])
    assert (found.survived, found.error) == (False, "Connection reset by peer")
    assert found.bytes_in_order == 80 * 24
    assert found.longest_stall_ms == 2990 - 794  # from the last answer on to the window's end


@pytest.mark.parametrize(
    ("flows", "expression", "verdict", "detail"),
    [
        (["lives"], "tcp_longest_stall_ms > 3000", "PASS", "tcp_longest_stall_ms.max = 1106"),
        (["lives"], "tcp_longest_stall_ms > 1000", "FAIL", "tcp_longest_stall_ms.max = 1106"),
        (["lives"], "tcp_broken > 0", "PASS", "tcp_broken.max = 0"),
        (["lives", "breaks"], "tcp_broken > 0", "FAIL", "tcp_broken.max = 1"),
        (["lives", "breaks"], "tcp_longest_stall_ms > 2000", "FAIL", "tcp_longest_stall_ms.max = 2196"),
        (["silent"], "tcp_broken > 0", "INVALID", "tcp_broken.max = not measured"),
        ([], "tcp_longest_stall_ms > 3000", "INVALID", "tcp_longest_stall_ms.max = not measured"),
    ],
)
def test_thresholds_on_connections(flows: list[str], expression: str, verdict: str, detail: str) -> None:
    """A connection each way: the worse one counts, and none or an undecided one passes nothing."""
    logs = {
        "lives": stalled(800, 1900),
        "breaks": probes(outage((800, 9000)), flow="tcp", direction="from-guest"),
        "silent": probes(outage((800, 9000)), flow="tcp"),
    }
    said = event(1700, "vm1", "tcp_broken", direction="from-guest", error="timed out")
    found = run(Story(), probes(outage((800, 1594))), *(logs[name] for name in flows))
    found = replace(found, events=sorted([*found.events, said], key=lambda e: e.mono_ns))
    summary = summarise(analyse(found), seeded(1), [expression])
    assert (summary.verdict.value, summary.data["thresholds"][0]["detail"]) == (verdict, detail)
    statistics = summary.data["statistics"]["tcp_broken"]
    assert (statistics is None) == (not flows or flows == ["silent"])
    if statistics is None:
        why = "a connection had too few answers to say" if flows else "no TCP connection was probed"
        assert summary.data["migrations"][0]["reasons"]["tcp_broken"] == why


def test_a_connection_still_silent_at_the_end_is_not_known_to_have_survived() -> None:
    assert connection(probes(outage((800, 9000)), flow="tcp"), migration(Story()), []).survived is None


def test_a_broken_connection_is_a_result_and_not_an_invalid_run() -> None:
    """What was due without a connection was never sent, and the outage is still the ICMP flow's."""
    icmp = probes(outage((800, 1594)))
    tcp = probes(outage((800, 9000)), flow="tcp", lateness_ms=lambda due: None if due > 1700 else 0.0)
    whole = analyse(run(Story(), tcp, icmp))
    assert invalidates(whole.findings) == []
    (entry,) = summarise(whole, seeded(1)).data["migrations"]
    assert [flow["flow"] for flow in entry["probes"]] == ["icmp", "tcp"]
    assert entry["metrics"]["probes_lost"] == 80
    assert entry["tcp"][0]["survived"] is None
