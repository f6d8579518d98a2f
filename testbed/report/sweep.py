"""The report of a sweep: sweep.json, and its rows as a picture and a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from testbed.measure.grid import ordered
from testbed.report.html import render_sweep
from testbed.report.pictures import Picture
from testbed.report.plots.grid import draw_grid
from testbed.report.plots.theme import NARROW, WIDE
from testbed.report.tables import MISSING, Cell, Column, Content, Table, heads, numeric
from testbed.report.words import badges, milliseconds, milliseconds_interval
from testbed.report.write import write_checksums, write_pictures

SCHEMA_VERSION = 1
#: What takes longer is drawn apart.
SLOW_MS = 1000.0
COLUMNS = heads(
    "Combination", "Verdict",
    *numeric("n", "Median, ms", "95 % interval, ms", "Bound, ms", "Above it, ms", "Waiting, ms", "Outage, ms"),
    Column("Rate limits"), Column("Run"),
)  # fmt: skip


def sweep_data(
    plan: Mapping[str, Any], grid: Mapping[str, Sequence[Any]], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The content of sweep.json.

    Args:
        plan: of the sweep's folder: name, description, seed, order.
        grid: key → its values.
        rows: of the combinations that are done.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "name": plan["name"],
        "description": plan["description"],
        "seed": plan["seed"],
        "grid": {key: list(values) for key, values in grid.items()},
        "order": plan["order"],
        "complete": len(rows) == len(plan["order"]),
        "rows": ordered(rows, grid),
    }


def write_sweep(folder: Path, data: Mapping[str, Any]) -> None:
    """Write a sweep's sweep.json, report.html, report.md, plots/ and SHA256SUMS."""
    pictures = _pictures(data)
    write_pictures(folder / "plots", pictures)
    (folder / "sweep.json").write_text(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    (folder / "report.md").write_text(sweep_markdown(data))
    (folder / "report.html").write_text(render_sweep(data, pictures, sweep_table(data), how(data)))
    write_checksums(folder)


def label_of(row: Mapping[str, Any], grid: Mapping[str, Sequence[Any]]) -> str:
    """A combination in few words: "pubsub · 10 ms one way"; a key's last part stands for it."""
    words = [row["mechanism"]] if "mechanism" not in grid else []
    for key in grid:
        value = row[key]
        if key == "mechanism":
            words.append(str(value))
        elif key == "one_way_ms":
            words.append(f"{value:g} ms one way")
        else:
            words.append(f"{key.rpartition('.')[2]} {json.dumps(value) if isinstance(value, bool) else value}")
    return " · ".join(words)


def sweep_table(data: Mapping[str, Any]) -> Table:
    """The combinations as a table."""
    return Table.of(COLUMNS, (_table_row(row, data["grid"]) for row in data["rows"]))


def _table_row(row: Mapping[str, Any], grid: Mapping[str, Sequence[Any]]) -> list[Content]:
    found, outage = row["remap_latency_ms"], row["stuntime_ms"]
    return [
        label_of(row, grid),
        Cell(row["verdict"], "ok" if row["verdict"] == "PASS" else "bad"),
        "0" if found is None else str(found["n"]),
        MISSING if found is None else Cell(milliseconds(found["median"]), "strong"),
        MISSING if found is None else milliseconds_interval(found["ci95"]),
        milliseconds(row["bound_ms"]),
        MISSING if row["excess_ms"] is None else f"{row['excess_ms']:+.2f}".replace("-", "−"),
        milliseconds(row["waiting_ms"]),
        MISSING if outage is None else milliseconds(outage["median"]),
        ", ".join(row["limiters"]) or "none",
        row["run_id"],
    ]


def sweep_markdown(data: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    kinds = dict.fromkeys(" · ".join(badges(row)) for row in data["rows"])
    lines = [f"# {data['name']}", "", data["description"], "", f"{'; '.join(kinds)}. {how(data)}", ""]
    return "\n".join([*lines, *sweep_table(data).markdown()])


def how(data: Mapping[str, Any]) -> str:
    """How the sweep was made, in a sentence or two."""
    done, all_of_it = len(data["rows"]), len(data["order"])
    tried_again = sum(len(row["attempts"]) - 1 for row in data["rows"])
    words = (
        f"{done} of {all_of_it} combinations, in an order shuffled with seed {data['seed']}; each was measured in one "
        "lab, in which the guest migrated there and back"
    )
    if tried_again:
        runs = "1 run was" if tried_again == 1 else f"{tried_again} runs were"
        words += f"; {runs} not valid and {runs.split()[-1]} made again (sweep.json has them)"
    words += "".join(f"; {said}" for said in _settings(data))
    return words + (
        ". The bound is that of theory, for the median: delays only, nothing computed, and half a probe interval where "
        "its formula has a packet to wait for. Of what is above it, “waiting” is another half until a packet uses the "
        "new RLOC."
    )


def _settings(data: Mapping[str, Any]) -> list[str]:
    """What was set for some combinations only: "ttl with lisp.registration_ttl_minutes=1"."""
    users: dict[str, list[str]] = {}
    for row in data["rows"]:
        if row["settings"]:
            words = ", ".join(f"{key}={json.dumps(value)}" for key, value in row["settings"].items())
            users.setdefault(words, []).append(str(row["mechanism"]))
    return [f"{' and '.join(dict.fromkeys(names))} with {words}" for words, names in users.items()]


def _pictures(data: Mapping[str, Any]) -> list[Picture]:
    """A picture of what takes less than a second, and one of what takes longer, on whose axis that would be a line."""
    rows = [(label_of(row, data["grid"]), row) for row in data["rows"]]
    fast = [(label, row) for label, row in rows if _extent_ms(row) < SLOW_MS]
    slow = [(label, row) for label, row in rows if _extent_ms(row) >= SLOW_MS]
    groups = {"remap-latency": fast, "remap-latency-slow": slow} if fast and slow else {"remap-latency": rows}
    return [_picture(name, group) for name, group in groups.items() if any(row["remap_latency_ms"] for _, row in group)]


def _extent_ms(row: Mapping[str, Any]) -> float:
    extent_ms: float = max([row["bound_ms"] or 0.0, *(value for value in row["values_ms"] if value is not None)])
    return extent_ms


def _picture(name: str, rows: list[tuple[str, Mapping[str, Any]]]) -> Picture:
    title = "Remapping latency beside its bound"
    kinds = " / ".join(dict.fromkeys(" · ".join(badges(row)) for _, row in rows))
    wide, narrow = (draw_grid(name, rows, title, kinds, layout) for layout in (WIDE, NARROW))
    caption = (
        "Every dot is a migration; the line is the median, the band its 95 % interval (from n = 6 on), "
        "the dashed line the bound."
    )
    return Picture(name, caption, wide, narrow, [{"label": label, **row} for label, row in rows])
