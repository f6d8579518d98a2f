"""`testbed compare A B`: two runs or sets of runs against each other. Needs no root."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class CompareFormat(str, Enum):
    """What to print."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


def compare(
    a: Annotated[Path, typer.Argument(help="The reference: a run, or a folder of runs.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="The candidate: a run, or a folder of runs.", show_default=False)],
    output: Annotated[
        CompareFormat, typer.Option("--format", help="text: the metrics that decide; or everything.")
    ] = CompareFormat.TEXT,
    across_substrates: Annotated[
        bool, typer.Option("--across-substrates", help="Compare different substrates or accelerators.")
    ] = False,
    across_conditions: Annotated[
        bool,
        typer.Option(
            "--across-conditions", help="Compare different delays, probes, or options of LISP; they are named."
        ),
    ] = False,
    fail_on_regression: Annotated[
        bool, typer.Option("--fail-on-regression", help="Exit with 10 if the outage has regressed.")
    ] = False,
) -> None:
    """Compare B with A: difference of medians with its interval, Cliff's delta, a permutation test, a word.

    The words are: improved, regressed, within noise, cannot tell. Nothing below the probe interval counts.
    Exit codes: 0 compared, 10 regressed and `--fail-on-regression`, 12 no outage on one of the sides to compare.
    """
    from testbed.report import compare_runs
    from testbed.report.sets import comparison_markdown, left_out_lines
    from testbed.report.words import METRIC_NAMES, comparison_words

    comparison = compare_runs(a, b, across_substrates=across_substrates, across_conditions=across_conditions)
    outage = comparison["metrics"]["stuntime_ms"]
    if output is CompareFormat.JSON:
        typer.echo(json.dumps(comparison, indent=2, ensure_ascii=False))
    elif output is CompareFormat.MARKDOWN:
        typer.echo(comparison_markdown(comparison))
    else:
        typer.echo("\n".join([f"A  {comparison['a']}", f"B  {comparison['b']}", *left_out_lines(comparison), ""]))
        for metric in ("stuntime_ms", "vm_downtime_ms", "remap_latency_ms", "unattributed_ms"):
            found, name = comparison["metrics"][metric], METRIC_NAMES[metric][0]
            typer.echo(f"{name:32} {comparison_words(found)}")
    if outage is None:
        raise typer.Exit(12)
    if fail_on_regression and outage["word"] == "regressed":
        raise typer.Exit(10)
