"""Write into a run's folder: Parquet and CSV tables, pictures, check sums."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet

from testbed.measure.analysis import Analysis
from testbed.measure.fates import ProbeRow, probe_rows
from testbed.measure.model import NEVER, Int64s, ProbeSeries
from testbed.measure.phases import PHASES
from testbed.measure.summary import COUNTS, TIMES
from testbed.report.pictures import Picture
from testbed.report.plots.theme import CSS

PROBES = pyarrow.schema(
    [
        ("flow", pyarrow.string()),
        ("direction", pyarrow.string()),
        ("seq", pyarrow.int64()),
        ("scheduled_ns", pyarrow.int64()),
        ("sent_ns", pyarrow.int64()),
        ("received_ns", pyarrow.int64()),
        ("replies", pyarrow.int32()),
        ("kernel_sent_ns", pyarrow.int64()),
    ]
)
GAPS = pyarrow.schema(
    [
        ("migration", pyarrow.int64()),
        ("flow", pyarrow.string()),
        ("direction", pyarrow.string()),
        ("start_ms", pyarrow.float64()),
        ("length_ms", pyarrow.float64()),
        ("length_by_send_ms", pyarrow.float64()),
        ("at_least_ms", pyarrow.float64()),
        ("lost", pyarrow.int64()),
        ("unsendable", pyarrow.int64()),
        ("first_seq", pyarrow.int64()),
        ("last_seq", pyarrow.int64()),
        ("open", pyarrow.bool_()),
        ("outage", pyarrow.bool_()),
    ]
)
CHECKSUMS = "SHA256SUMS"
#: The page, from a picture's file.
PAGE = "../report.html"


def write_probes(folder: Path, series: Iterable[ProbeSeries]) -> list[Path]:
    """Write each log as Parquet and remove all JSONL, which is the same data; returns the files.

    The Parquet file is complete under its name before the JSONL goes.
    """
    folder.mkdir(exist_ok=True)
    written = []
    for one in series:
        path = folder / f"{one.flow}-{one.direction}.parquet"
        table = pyarrow.table(
            {
                "flow": [one.flow] * len(one),
                "direction": [one.direction] * len(one),
                "seq": _nullable(one.seq),
                "scheduled_ns": one.scheduled_ns,
                "sent_ns": _nullable(one.sent_ns),
                "received_ns": _nullable(one.received_ns),
                "replies": one.replies.astype("int32"),
                "kernel_sent_ns": _nullable(one.kernel_sent_ns),
            },
            schema=PROBES,
        )
        partial = path.with_suffix(".partial")
        parquet.write_table(table, partial)
        partial.replace(path)
        written.append(path)
    for file in folder.glob("*.jsonl"):
        file.unlink()
    return written


def _nullable(column: Int64s) -> Any:
    return pyarrow.array(column, mask=column == NEVER)


def write_gaps(path: Path, migrations: Sequence[Mapping[str, Any]]) -> None:
    """Write the gaps of all migrations of a summary as one Parquet table."""
    rows = [{"migration": m["index"], **gap} for m in migrations for gap in m["gaps"]]
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=GAPS), path)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as RFC 4180 has it; what is missing is an empty field."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(columns)
        writer.writerows(rows)


def write_tables(folder: Path, analysis: Analysis, migrations: Sequence[Mapping[str, Any]]) -> None:
    """Write migrations.csv (a row a migration), gaps.csv and probes.csv (a row a probe, with its fate)."""
    metrics = (*TIMES, *COUNTS)
    about = ("index", "guest", "source", "destination", "verdict", "warm_up", "error")
    write_csv(
        folder / "migrations.csv",
        (*about, *metrics, *(f"{phase}_ms" for phase in PHASES)),
        (
            [*(m[name] for name in about), *(m["metrics"][name] for name in metrics),
             *(m["phases_ms"][phase] for phase in PHASES)]
            for m in migrations
        ),
    )  # fmt: skip
    write_csv(
        folder / "gaps.csv",
        GAPS.names,
        ([m["index"], *(gap[name] for name in GAPS.names[1:])] for m in migrations for gap in m["gaps"]),
    )
    write_csv(
        folder / "probes.csv",
        [column.name for column in fields(ProbeRow)],
        (tuple(getattr(row, column.name) for column in fields(ProbeRow)) for row in probe_rows(analysis)),
    )


def write_pictures(folder: Path, pictures: Iterable[Picture]) -> None:
    """Write each picture as SVG, wide and narrow, with its data as JSON beside it."""
    folder.mkdir(exist_ok=True)
    for picture in pictures:
        (folder / f"{picture.name}.svg").write_text(picture.wide.standalone(CSS, PAGE))
        (folder / f"{picture.name}-narrow.svg").write_text(picture.narrow.standalone(CSS, PAGE))
        text = json.dumps(picture.data, indent=2, ensure_ascii=False)
        (folder / f"{picture.name}.json").write_text(text + "\n")


def write_checksums(folder: Path) -> None:
    """Write SHA256SUMS over every file of the folder, in the form that `sha256sum -c` reads."""
    lines = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != CHECKSUMS:
            with path.open("rb") as file:
                digest = hashlib.sha256()
                while block := file.read(1 << 20):
                    digest.update(block)
            lines.append(f"{digest.hexdigest()}  {path.relative_to(folder).as_posix()}\n")
    (folder / CHECKSUMS).write_text("".join(lines))
