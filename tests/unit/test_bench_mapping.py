"""The mapping benchmark measures what it says: every message is taken, and everybody is told."""

from __future__ import annotations

import pytest

from testbed.bench.mapping import SAMPLE, Bench, address, growth, publications
from testbed.bench.remap import row_of
from testbed.errors import TestbedError
from testbed.lisp.actions import SendControl
from testbed.lisp.wire import MapReply, decode_control


def test_growth_has_a_row_for_each_size() -> None:
    said: list[str] = []
    rows = growth((20, 60), say=said.append)
    assert [row["eids"] for row in rows] == [20, 60]
    rates = [figure for row in rows for name, figure in row.items() if name.endswith("_per_s")]
    assert len(rates) == 8
    assert min(rates) > 0
    assert len(said) == 2


@pytest.mark.parametrize("sizes", [(), (10, 5), (1 << 24,)])
def test_sizes_must_ascend_and_fit(sizes: tuple[int, ...]) -> None:
    with pytest.raises(TestbedError, match="ascend"):
        growth(sizes)


def test_what_is_timed_is_taken() -> None:
    bench = Bench()
    bench.give(*bench.registration(0, map(address, range(50))))
    answered = [bench.give(*bench.request(address(number))) for number in range(50)]
    replies = [
        decode_control(each.payload) for actions in answered for each in actions if isinstance(each, SendControl)
    ]
    assert sum(isinstance(each, MapReply) and bool(each.records[0].locators) for each in replies) == 50
    for number in range(10):
        bench.move(*bench.registration(1, [address(number)]))
    state = bench.machine.inspect(0)
    assert state["counters"] == {}
    assert state["unacknowledged"] == []
    assert sum(row["site"] == "b" for row in state["registrations"]) == 10
    assert len({address(number) for number in range(SAMPLE)}) == SAMPLE


def test_every_subscriber_is_told_and_acknowledges() -> None:
    rows = publications((1, 3), rounds=2)
    assert [row["subscribers"] for row in rows] == [1, 3]
    assert all(row["published_ms"] > 0 and row["acknowledged_ms"] > 0 for row in rows)


def test_a_mechanisms_row_has_medians_of_what_was_measured() -> None:
    def migration(latency: float | None, *, warm_up: bool = False) -> dict[str, object]:
        metrics = {"remap_latency_ms": latency, "stuntime_ms": 100.0}
        return {"warm_up": warm_up, "metrics": metrics, "bound": {"bound_ms": 20.0}}

    migrations = [migration(900.0, warm_up=True), migration(30.0), migration(50.0), migration(None)]
    row = row_of("pubsub", {"verdict": "PASS", "migrations": migrations})
    assert (row["migrations"], row["remap_latency_ms"], row["ratio"]) == (2, 40.0, 2.0)
    assert row_of("ttl", {"verdict": "ERROR", "migrations": []})["ratio"] is None
