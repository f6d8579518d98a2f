"""A sweep's rows: what is described, what is left out, and the order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from testbed.measure.grid import ordered, row
from testbed.report.plots.grid import draw_grid
from testbed.report.plots.svg import text_width
from testbed.report.plots.theme import WIDE
from testbed.report.sweep import label_of, sweep_data, sweep_markdown, write_sweep


def migration(latency_ms: float | None, *, warm_up: bool = False, limiters: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "verdict": "PASS",
        "warm_up": warm_up,
        "bound": {
            "bound_ms": 20.0,
            "formula": "d(new,MS) + d(MS,ITR)",
            "why": "",
            "median_ms": None,
            "waiting_ms": 5.0,
        },
        "limiters": list(limiters),
        "metrics": {"remap_latency_ms": latency_ms},
        "reasons": {} if latency_ms is not None else {"remap_latency_ms": "t13: nothing was sent"},
    }


def described(median: float | None) -> dict[str, Any] | None:
    if median is None:
        return None
    return {"n": 2, "median": median, "ci95": None, "iqr": [21.0, 23.0], "min": 21.0, "max": 23.0, "p95": None}


def summary(*migrations: dict[str, Any], median: float | None = 22.0) -> dict[str, Any]:
    statistics = {"remap_latency_ms": described(median), "stuntime_ms": described(90.0), "vm_downtime_ms": None}
    return {
        "run_id": "r2", "verdict": "PASS", "mechanism": "pubsub", "substrate": "netns", "accelerator": None,
        "migrations": list(migrations), "statistics": statistics,
    }  # fmt: skip


def test_a_row_has_the_median_beside_its_bound_and_warm_ups_do_not_count() -> None:
    made = row(
        {"one_way_ms": 10},
        summary(migration(99.0, warm_up=True, limiters=("a",)), migration(21.0), migration(23.0, limiters=("b",))),
        [("r1", "INVALID"), ("r2", "PASS")],
    )
    assert (made["mechanism"], made["one_way_ms"], made["bound_ms"]) == ("pubsub", 10, 20.0)
    assert (made["excess_ms"], made["values_ms"], made["limiters"]) == (2.0, [21.0, 23.0], ["b"])
    assert (made["migrations"], made["warm_ups"], made["labs"]) == (2, 1, 1)
    assert [attempt["verdict"] for attempt in made["attempts"]] == ["INVALID", "PASS"]
    assert made["remap_latency_ms"]["median"] == 22.0


def test_what_was_not_measured_is_null_with_its_reason() -> None:
    made = row({}, summary(migration(None), migration(None), median=None), [("r2", "PASS")])
    assert made["remap_latency_ms"] is made["excess_ms"] is None
    assert made["not_measured"] == {"t13: nothing was sent": 2}


def test_rows_are_in_the_order_of_the_grid_whatever_the_order_of_execution() -> None:
    grid = {"mechanism": ("ttl", "pubsub"), "one_way_ms": (0, 10)}
    cells = [{"mechanism": m, "one_way_ms": d} for m, d in (("pubsub", 10), ("ttl", 10), ("pubsub", 0), ("ttl", 0))]
    assert [(r["mechanism"], r["one_way_ms"]) for r in ordered(cells, grid)] == [
        ("ttl", 0), ("ttl", 10), ("pubsub", 0), ("pubsub", 10),
    ]  # fmt: skip


def test_a_label_says_what_distinguishes_a_combination() -> None:
    grid = {"mechanism": ("pubsub",), "lisp.hold": (True,), "one_way_ms": (10,)}
    assert label_of({"mechanism": "pubsub", "lisp.hold": True, "one_way_ms": 10}, grid) == (
        "pubsub · hold true · 10 ms one way"
    )
    assert label_of({"mechanism": "ttl", "one_way_ms": 0}, {"one_way_ms": (0,)}) == "ttl · 0 ms one way"


def test_a_packet_that_the_formula_waits_for_is_in_the_medians_bound() -> None:
    waits = migration(58.0)
    waits["bound"] |= {"bound_ms": 50.0, "median_ms": 55.0}
    made = row({}, summary(waits, median=58.0), [])
    assert (made["bound_ms"], made["excess_ms"], made["waiting_ms"]) == (55.0, 3.0, 5.0)


def test_the_report_says_what_it_is_of_and_what_was_made_again() -> None:
    made = row({"one_way_ms": 10}, summary(migration(22.0)), [("r1", "INVALID"), ("r2", "PASS")])
    plan = {"name": "n", "description": "d", "seed": 1, "order": [{"one_way_ms": 10}, {"one_way_ms": 0}]}
    data = sweep_data(plan, {"one_way_ms": (0, 10)}, [made])
    text = sweep_markdown(data)
    assert not data["complete"]
    assert "netns (emulated guest, not a VM)" in text
    assert "1 of 2 combinations" in text
    assert "1 run was not valid and was made again" in text
    assert "| +2.00 " in text


def test_the_picture_has_room_for_its_labels_and_says_what_was_not_measured() -> None:
    label = "smr-map-server · hold false · 50 ms one way"
    rows = [
        (label, row({}, summary(migration(22.0)), [])),
        ("other", row({}, summary(migration(None), median=None), [])),
    ]
    svg = draw_grid("grid", rows, "Remapping latency", "netns", WIDE).inline()
    written = re.search(rf'<text x="([0-9.]+)"[^>]*text-anchor="end"[^>]*>{label}', svg)
    assert written is not None
    assert float(written[1]) >= text_width(label, 12)
    assert "not measured" in svg
    assert "22 ms (bound +2.0 ms)" in svg


def test_what_takes_seconds_has_a_picture_of_its_own(tmp_path: Path) -> None:
    grid = {"one_way_ms": (0, 10)}
    rows = [row({"one_way_ms": 0}, summary(migration(22.0)), []), row({"one_way_ms": 10}, summary(migration(58e3)), [])]
    plan = {"name": "n", "description": "d", "seed": 1, "order": [{"one_way_ms": 0}, {"one_way_ms": 10}]}
    write_sweep(tmp_path, sweep_data(plan, grid, rows))
    pictures = {path.stem: path.read_text() for path in (tmp_path / "plots").glob("*.svg")}
    assert "0 ms one way" in pictures["remap-latency"]
    assert "10 ms one way" not in pictures["remap-latency"]
    assert "10 ms one way" in pictures["remap-latency-slow"]
