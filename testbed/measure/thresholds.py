"""Read and evaluate `--fail-if` expressions: `stuntime_ms.median > 2000`.

The grammar, whole:

    expression = comparison { ("and" | "or") comparison }     left to right, no brackets
    comparison = figure ("<" | "<=" | ">" | ">=" | "==" | "!=") number
    figure     = metric "." statistic | metric                a bare metric means its worst value, max
    statistic  = "n" | "median" | "min" | "max" | "p95" | "ci95_low" | "ci95_high"
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from testbed.errors import TestbedError

STATISTICS = ("n", "median", "min", "max", "p95", "ci95_low", "ci95_high")
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
    "<": operator.lt, ">": operator.gt,
}  # fmt: skip

_TOKEN = re.compile(
    r"\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
    r"|(?P<name>[A-Za-z_]\w*(?:\.\w+)?)|(?P<operator><=|>=|==|!=|<|>))"
)


class ThresholdError(TestbedError):
    """An expression that cannot be read, or names a figure that does not exist."""

    def __init__(self, expression: str, column: int, what: str, allowed: str) -> None:
        pointer = " " * (column - 1) + "^"
        super().__init__(
            "threshold-expression",
            f"--fail-if, column {column}: {what}\n    {expression}\n    {pointer}",
            why=f"allowed: {allowed}",
            next_command="testbed run EXPERIMENT --fail-if 'stuntime_ms.median > 2000'",
        )
        self.column = column


@dataclass(frozen=True, slots=True)
class Comparison:
    """One `figure operator number`, and the column where it begins."""

    metric: str
    statistic: str
    operator: str
    number: float
    column: int


@dataclass(frozen=True, slots=True)
class Threshold:
    """A whole expression: comparisons with the words between them."""

    expression: str
    comparisons: tuple[Comparison, ...]
    joins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an expression came to.

    Attributes:
        expression: as given.
        holds: True means that the run fails; None if a figure in it was not measured.
        detail: the figures that it was decided on.
    """

    expression: str
    holds: bool | None
    detail: str


def parse(expression: str, metrics: frozenset[str]) -> Threshold:
    """Read an expression.

    Args:
        expression: the text after `--fail-if`.
        metrics: the names that may be used.

    Raises:
        ThresholdError: with the column, 1-based, and what is allowed there.
    """
    tokens = _tokens(expression)
    comparisons: list[Comparison] = []
    joins: list[str] = []
    position = 0
    while True:
        comparisons.append(_comparison(expression, tokens[position : position + 3], metrics))
        position += 3
        if position >= len(tokens):
            return Threshold(expression, tuple(comparisons), tuple(joins))
        kind, text, column = tokens[position]
        if kind != "name" or text not in ("and", "or"):
            raise ThresholdError(expression, column, f"'{text}' is not expected here", "and, or, the end")
        joins.append(text)
        position += 1


def _tokens(expression: str) -> list[tuple[str, str, int]]:
    """(kind, text, column) of every token."""
    tokens, position = [], 0
    while expression[position:].strip():
        match = _TOKEN.match(expression, position)
        if match is None:
            column = position + len(expression[position:]) - len(expression[position:].lstrip()) + 1
            raise ThresholdError(
                expression, column, f"'{expression[column - 1]}' is not part of an expression",
                "a figure, a number, " + " ".join(OPERATORS),
            )  # fmt: skip
        kind = match.lastgroup or ""
        tokens.append((kind, match.group(kind), match.start(kind) + 1))
        position = match.end()
    return tokens


def _comparison(expression: str, tokens: list[tuple[str, str, int]], metrics: frozenset[str]) -> Comparison:
    """Read three tokens as `figure operator number`."""
    wanted = (
        ("name", "a figure", ", ".join(sorted(metrics))),
        ("operator", "an operator", " ".join(OPERATORS)),
        ("number", "a number", "such as 2000 or 1.5"),
    )
    for index, (kind, what, allowed) in enumerate(wanted):
        if index >= len(tokens):
            raise ThresholdError(expression, len(expression) + 1, f"{what} is missing", allowed)
        if tokens[index][0] != kind:
            raise ThresholdError(expression, tokens[index][2], f"'{tokens[index][1]}' is not {what}", allowed)
    (_, name, column), (_, sign, _), (_, number, _) = tokens
    metric, dot, statistic = name.partition(".")
    if metric not in metrics:
        raise ThresholdError(expression, column, f"no metric '{metric}'", ", ".join(sorted(metrics)))
    if dot and statistic not in STATISTICS:
        place = column + len(metric) + 1
        raise ThresholdError(expression, place, f"no statistic '{statistic}'", ", ".join(STATISTICS))
    return Comparison(metric, statistic or "max", sign, float(number), column)


def evaluate(threshold: Threshold, statistics: Mapping[str, Mapping[str, Any] | None], migrations: int) -> Outcome:
    """Evaluate an expression on a summary's statistics.

    A figure that was not measured decides nothing: `holds` is None, which makes the run INVALID. Where only some
    migrations have it, those may fail the run and cannot pass it. `n` is always known.

    Args:
        threshold: of `parse`.
        statistics: metric → its entry in summary.json.
        migrations: how many of them the statistics should be of.
    """
    result: bool | None = None
    details = []
    for index, item in enumerate(threshold.comparisons):
        entry = statistics.get(item.metric)
        value = _value(entry, item.statistic)
        holds = None if value is None else OPERATORS[item.operator](value, item.number)
        words = _missing(entry, item.statistic) if value is None else f"{value:g}"
        measured = entry["n"] if entry else 0
        if value is not None and item.statistic != "n" and measured < migrations:
            words += f" of {measured} of {migrations} migrations, not measured in the others"
            holds = holds or None
        details.append(f"{item.metric}.{item.statistic} = {words}")
        if index == 0:
            result = holds
        else:
            result = _join(threshold.joins[index - 1], result, holds)
    return Outcome(threshold.expression, result, ", ".join(details))


def _value(entry: Mapping[str, Any] | None, statistic: str) -> float | None:
    """One statistic of a metric; None if it was not measured."""
    if entry is None:
        return 0.0 if statistic == "n" else None
    if statistic.startswith("ci95_"):
        interval = entry.get("ci95")
        return None if interval is None else float(interval[statistic == "ci95_high"])
    value = entry.get(statistic)
    return None if value is None else float(value)


def _missing(entry: Mapping[str, Any] | None, statistic: str) -> str:
    """That a statistic was not measured, and why if its metric was."""
    why = (entry or {}).get("reasons", {}).get(statistic.partition("_")[0])
    return f"not measured ({why})" if why else "not measured"


def _join(word: str, left: bool | None, right: bool | None) -> bool | None:
    """Kleene's three-valued `and` and `or`."""
    decisive = word == "or"
    if decisive in (left, right):
        return decisive
    return None if None in (left, right) else not decisive
