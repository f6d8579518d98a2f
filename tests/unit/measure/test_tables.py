"""Tables as data: what they are in Markdown, and figures as they are written in them."""

from __future__ import annotations

import pytest

from testbed.report.tables import MISSING, Cell, Column, Detail, Table, heads, numeric, row, yes_or_no
from testbed.report.words import microseconds, milliseconds, uncertainty


def test_a_table_in_markdown() -> None:
    inner = Table.of(("a",), [["x"]], [Cell("More in"), Cell("all.csv", href="all.csv")])
    table = Table.of(
        heads("Name", *numeric("ms"), Column("Leads to", inline=True)),
        [
            row([Cell("a|b", "strong"), "1.0", [Cell("here", href="#here"), Cell("f", href="f.csv")]]),
            row(["second", MISSING, ""], Detail("Its rows", inner, "place")),
        ],
    )
    assert table.markdown() == [
        "| Name     | ms  | Leads to         |",
        "| -------- | --: | ---------------- |",
        "| **a\\|b** | 1.0 | here; [f](f.csv) |",
        "| second   | —   |                  |",
        "",
        "Its rows:",
        "",
        "| a   |",
        "| --- |",
        "| x   |",
        "",
        "More in [all.csv](all.csv)",
        "",
    ]


def test_columns_without_anything_are_left_out() -> None:
    table = Table.of(("Metric", "P95", "n"), [["one", MISSING, "1"], ["two", "", "2"]]).without_empty()
    assert [column.name for column in table.columns] == ["Metric", "n"]
    assert [cell.text for (cell,) in table.rows[1].cells] == ["two", "2"]


def test_a_table_without_rows_is_nothing() -> None:
    assert Table.of(("a",), []).markdown() == []


def test_whether_something_holds() -> None:
    assert yes_or_no(True, "not seen") == Cell("yes", "ok")
    assert yes_or_no(False, "not seen") == Cell("no", "bad")
    assert yes_or_no(False, "not seen", no="no: flagged", flag=True) == Cell("no: flagged", "flag")
    assert yes_or_no(None, "not seen") == Cell("not seen", "flag")


@pytest.mark.parametrize(
    ("value", "words"), [(None, ""), (0.1, "0.1"), (0.772594, "0.77"), (2.277, "2.3"), (50.1, "50"), (10.0, "10")]
)
def test_an_uncertainty_has_two_digits(value: float | None, words: str) -> None:
    assert uncertainty(value) == words


def test_times_have_the_sign_that_is_printed() -> None:
    assert (milliseconds(-3.25), milliseconds(None)) == ("−3.2", "—")
    assert (microseconds(-1.0), microseconds(1.0, signed=True), microseconds(None)) == ("−1.000", "+1.000", "—")
