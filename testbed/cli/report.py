"""`testbed report RUN…`: rebuild reports from raw data. Needs no root."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class ReportFormat(str, Enum):
    """What to print."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of run folders.", show_default=False)],
    output: Annotated[
        ReportFormat,
        typer.Option("--format", help="text: a few lines a run; json: summary.json; markdown: report.md."),
    ] = ReportFormat.TEXT,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(help="Fail if this holds, for example 'stuntime_ms.median > 2000'.", show_default=False),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(help="Write JUnit XML here too (one run only).", show_default=False)
    ] = None,
    together: Annotated[
        Path | None, typer.Option(help="Write one report of all runs into this folder.", show_default=False)
    ] = None,
) -> None:
    """Rebuild summary.json, report.html, report.md, junit.xml and the plots of runs from their raw data.

    The same raw data gives the same bytes. The exit code is that of the worst run: 0 pass, 10 fail,
    11 error, 12 invalid, 13 skipped.
    """
    from testbed.cli.handover import handed_over
    from testbed.measure.reasons import result_lines
    from testbed.report import build_report, build_set_report
    from testbed.report.sets import run_folders

    folders = [folder for path in runs for folder in run_folders(path)]
    if junit is not None and len(folders) != 1:
        raise typer.BadParameter("needs exactly one run", param_hint="--junit")
    codes, summaries = [], []
    with handed_over(*folders, *(path for path in (junit, together) if path)):
        for folder in folders:
            summary = build_report(folder, fail_if=fail_if or ())
            codes.append(summary.exit_code)
            summaries.append(summary.data)
            if output is ReportFormat.TEXT:
                typer.echo("\n".join([*result_lines(summary.data), f"  {folder / 'report.html'}"]))
            elif output is ReportFormat.MARKDOWN:
                typer.echo((folder / "report.md").read_text())
            if junit is not None:
                junit.write_text((folder / "junit.xml").read_text())
        if output is ReportFormat.JSON:
            shown = summaries[0] if len(summaries) == 1 else summaries
            typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        if together is not None:
            build_set_report(folders, together)
            if output is ReportFormat.TEXT:
                typer.echo(f"{len(folders)} runs together\n  {together / 'report.html'}")
    raise typer.Exit(_worst(codes))


#: Exit codes from harmless to grave: a fact that failed outweighs a run that could not be judged.
_GRAVITY = (0, 13, 12, 11, 10)


def _worst(codes: list[int]) -> int:
    return max(codes, key=_GRAVITY.index)
