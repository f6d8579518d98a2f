"""The tables of a report on several runs: what was pooled, and how pools compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from testbed.measure.sets import COMPARED
from testbed.report.run_tables import DESCRIBED, description
from testbed.report.tables import MISSING, Cell, Column, Content, Table, heads, numeric
from testbed.report.words import METRIC_NAMES, signed, signed_interval

#: Word of a comparison → how it is shown; the others are subordinate.
WORD_KINDS = {"improved": "ok", "regressed": "bad"}


def comparison_table(comparison: Mapping[str, Any]) -> Table:
    """A comparison, a row a metric: verdict word, difference, interval, Cliff's delta, p, n, why."""
    columns = heads(
        "Metric", "B is", *numeric("Difference", "95 % interval", "Cliff's δ", "p", "n (A, B)"), Column("Why"),
    )  # fmt: skip
    rows: list[list[Content]] = []
    for metric in COMPARED:
        found, name = comparison["metrics"][metric], METRIC_NAMES[metric][0]
        if found is None:
            rows.append([name, Cell("cannot tell", "sub"), *[MISSING] * 4, "", "not measured on both sides"])
            continue
        rows.append(
            [
                name,
                Cell(found["word"], WORD_KINDS.get(found["word"], "sub")),
                signed(found["difference"]),
                signed_interval(found["ci95"]),
                f"{found['cliffs_delta']:+.2f}".replace("-", "−"),
                MISSING if found["p_value"] is None else f"{found['p_value']:.3g}",
                f"{found['n_a']}, {found['n_b']}",
                found["why"],
            ]
        )
    return Table.of(columns, rows)


def pool_table(data: Mapping[str, Any]) -> Table:
    """The pools of a set with their outages."""
    columns = heads(
        "Pool",
        *numeric("Runs", "Succeeded", *DESCRIBED),
    )
    rows: list[list[Content]] = []
    for one in data["pools"]:
        found, success = one["statistics"]["stuntime_ms"], one["success"]
        head: list[Content] = [one["name"], str(len(one["runs"])), f"{success['succeeded']} of {success['n']}"]
        if found is None:
            rows.append([*head, "0", *[MISSING] * 5])
            continue
        rows.append([*head, *description(found)])
    return Table.of(columns, rows)
