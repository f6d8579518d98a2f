"""Tables of text (Markdown, which also reads well in a terminal), and the rows that several reports share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from testbed.measure.sets import COMPARED
from testbed.report.words import METRIC_NAMES, figure, interval, signed, signed_interval

COMPARISON_COLUMNS = ("metric", "B is", "difference", "95 % interval", "Cliff's δ", "p", "n", "why")


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """The lines of a Markdown table, its columns aligned, followed by an empty line."""
    cells = [[_escaped(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(3, *(len(row[index]) for row in cells)) for index in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"

    return [line(cells[0]), line(["-" * width for width in widths]), *(line(row) for row in cells[1:]), ""]


def _escaped(cell: Any) -> str:
    return str(cell).replace("|", "\\|").replace("\n", " ")


def comparison_rows(comparison: Mapping[str, Any]) -> list[list[str]]:
    """A comparison as rows: metric, verdict word, difference, interval, Cliff's delta, p, n, why."""
    rows = []
    for metric in COMPARED:
        found, name = comparison["metrics"][metric], METRIC_NAMES[metric][0]
        if found is None:
            rows.append([name, "cannot tell", "—", "—", "—", "—", "", "not measured on both sides"])
            continue
        rows.append(
            [
                name,
                found["word"],
                signed(found["difference"]),
                signed_interval(found["ci95"]),
                f"{found['cliffs_delta']:+.2f}",
                "—" if found["p_value"] is None else f"{found['p_value']:.3g}",
                f"{found['n_a']}, {found['n_b']}",
                found["why"],
            ]
        )
    return rows


def pool_rows(data: Mapping[str, Any]) -> list[list[str]]:
    """The pools of a set as rows."""
    rows = []
    for one in data["pools"]:
        found, success = one["statistics"]["stuntime_ms"], one["success"]
        times = f"{success['succeeded']} of {success['n']}"
        head = [one["name"], str(len(one["runs"])), times]
        if found is None:
            rows.append([*head, "0", "—", "—", "—", "—", "—"])
        else:
            rows.append(
                [
                    *head,
                    str(found["n"]),
                    figure(found["median"]),
                    interval(found["ci95"]),
                    interval(found["iqr"]),
                    figure(found["min"]),
                    figure(found["max"]),
                ]
            )
    return rows
