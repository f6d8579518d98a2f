"""docs/how-to/raw-data.md: every line in it is run, against a run whose answers are known."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest

from testbed.report import build_report
from tests.unit.measure.synthetic import Story, write_run

TEXT = (Path(__file__).parents[3] / "docs" / "how-to" / "raw-data.md").read_text()
LINES = re.findall(r"```python\n(.*?)\n```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    build_report(write_run(folder, [Story(), Story(source="site-b", destination="site-a")]))
    return folder


def answer(run: Path, number: int) -> list[dict[str, Any]]:
    """The rows that a documented line gives."""
    result = eval(LINES[number].replace("RUN", str(run)), {"duckdb": duckdb})
    return [dict(zip(result.columns, row, strict=True)) for row in result.fetchall()]


def test_the_document_has_one_line_a_question() -> None:
    assert len(LINES) == 5
    assert all("\n" not in line for line in LINES)


def test_sent_and_answered(run: Path) -> None:
    """Two migrations of 4 s at 10 ms; 794 and a few ms of each unanswered."""
    (row,) = answer(run, 0)
    assert (row["flow"], row["direction"], row["sent"]) == ("icmp", "to-guest", 800)
    assert 800 - row["answered"] == 2 * 79


def test_slowest_round_trips(run: Path) -> None:
    times = [row["rtt_ms"] for row in answer(run, 1)]
    assert times == sorted(times, reverse=True)
    assert 60 < times[0] < 120


def test_where_probes_were_lost(run: Path) -> None:
    """Nothing was captured in this run: the place is empty, the number is not."""
    rows = answer(run, 2)
    assert [(row["migration"], row["last_seen"], row["probes"]) for row in rows] == [(0, None, 79), (1, None, 79)]


def test_outages_of_all_runs(run: Path) -> None:
    rows = answer(run, 3)
    assert [(row["index"], row["source"], row["destination"]) for row in rows] == [
        (0, "site-a", "site-b"),
        (1, "site-b", "site-a"),
    ]
    assert all(800 < row["stuntime_ms"] < 900 for row in rows)
    assert all(row["vm_downtime_ms"] == 700 for row in rows)


def test_timeline(run: Path) -> None:
    rows = answer(run, 4)
    assert (rows[0]["s"], rows[0]["kind"]) == (0, "baseline_started")
    assert {"migration_requested", "eid_detected", "first_packet_new_rloc"} <= {row["kind"] for row in rows}


def test_csv_and_parquet_say_the_same(run: Path) -> None:
    with (run / "probes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    query = f"SELECT sent_ns, received_ns, kernel_sent_ns FROM '{run}/probes/*.parquet' ORDER BY sent_ns"
    known = {sent: (received, kernel) for sent, received, kernel in duckdb.sql(query).fetchall()}
    assert len(rows) > 700
    for row in rows:
        received = int(row["received_ns"]) if row["received_ns"] else None
        assert known[int(row["sent_ns"])] == (received, int(row["kernel_sent_ns"]))
