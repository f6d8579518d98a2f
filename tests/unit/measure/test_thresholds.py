"""--fail-if expressions: what they mean, and what is said of those that cannot be read."""

from __future__ import annotations

import pytest

from testbed.measure.thresholds import ThresholdError, evaluate, parse

METRICS = frozenset({"stuntime_ms", "probes_lost", "vm_downtime_ms"})
FIGURES = {
    "stuntime_ms": {
        "n": 3,
        "median": 1400.0,
        "min": 1200.0,
        "max": 1900.0,
        "p95": None,
        "ci95": [1300.0, 1500.0],
    },
    "probes_lost": {"n": 3, "median": 140.0, "min": 120.0, "max": 190.0, "p95": None, "ci95": None},
    "vm_downtime_ms": None,
}


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("stuntime_ms.median > 2000", False),
        ("stuntime_ms.median>1399.9", True),
        ("stuntime_ms > 1800", True),  # a bare metric means its worst value
        ("stuntime_ms.ci95_high >= 1500", True),
        ("stuntime_ms.min != 1200", False),
        ("probes_lost.n < 3", False),
        ("stuntime_ms.median > 2000 or probes_lost > 100", True),
        ("stuntime_ms.median > 2000 and probes_lost > 100", False),
        ("vm_downtime_ms > 1", None),
        ("vm_downtime_ms.n < 3", True),  # that nothing was measured is known
        ("stuntime_ms.p95 > 1", None),
        ("vm_downtime_ms > 1 or probes_lost > 100", True),
        ("vm_downtime_ms > 1 and probes_lost > 100", None),
        ("vm_downtime_ms > 1 and probes_lost > 1e3", False),
    ],
)
def test_meaning(expression: str, holds: bool | None) -> None:
    assert evaluate(parse(expression, METRICS), FIGURES, 3).holds is holds


def test_figure_of_some_migrations_only_may_fail_a_run_and_not_pass_it() -> None:
    """Of the fourth migration nothing is known: the worst value may be its."""
    assert evaluate(parse("stuntime_ms > 1800", METRICS), FIGURES, 4).holds is True
    passed = evaluate(parse("stuntime_ms > 2000", METRICS), FIGURES, 4)
    assert passed.holds is None
    assert passed.detail == "stuntime_ms.max = 1900 of 3 of 4 migrations, not measured in the others"
    assert evaluate(parse("stuntime_ms.n < 3", METRICS), FIGURES, 4).holds is False


@pytest.mark.parametrize(
    ("expression", "column", "words"),
    [
        ("", 1, "a figure is missing"),
        ("stuntime > 3", 1, "no metric 'stuntime'"),
        ("stuntime_ms.mean > 3", 13, "no statistic 'mean'"),
        ("stuntime_ms.median >", 21, "a number is missing"),
        ("stuntime_ms.median", 19, "an operator is missing"),
        ("stuntime_ms.median > fast", 22, "'fast' is not a number"),
        ("stuntime_ms > 3 xor probes_lost > 1", 17, "'xor' is not expected here"),
        ("stuntime_ms > 3 and", 20, "a figure is missing"),
        ("__import__('os') > 1", 11, "'(' is not part of an expression"),
        ("stuntime_ms = 3", 13, "'=' is not part of an expression"),
        ("2000 < stuntime_ms", 1, "'2000' is not a figure"),
    ],
)
def test_errors_say_where_and_what_is_allowed(expression: str, column: int, words: str) -> None:
    with pytest.raises(ThresholdError) as caught:
        parse(expression, METRICS)
    assert caught.value.column == column
    assert words in str(caught.value)
    assert "allowed:" in str(caught.value)
