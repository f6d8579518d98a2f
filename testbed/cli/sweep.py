"""`testbed sweep EXPERIMENT`: a grid of runs, resumable. It needs root."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from testbed.cli.run import INTERRUPTED, Experiment, Overrides, follow

if TYPE_CHECKING:
    from testbed.cli.console import Progress
    from testbed.lab.session import Study
    from testbed.lab.sweeps import SweepFolder
    from testbed.spec import Cell

#: How often a combination is tried whose runs are not valid: on a busy machine some are not.
ATTEMPTS = 3


class SweepFormat(str, Enum):
    """How to print the result."""

    TEXT = "text"
    JSON = "json"


def sweep(
    experiment: Experiment,
    overrides: Overrides = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", help="Only combinations with this value, mechanism=pubsub; repeatable.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The sweep's own folder; sweeps/NAME if left out.", show_default=False)
    ] = None,
    output: Annotated[SweepFormat, typer.Option("--format", help="text or json (sweep.json).")] = SweepFormat.TEXT,
) -> None:
    """Run every combination of an experiment's `sweep.grid`. Needs root.

    Typed again, it goes on with what is not done yet, or with another part of it. Exit codes: 0 all combinations
    passed, 10 one failed, 12 one could not be measured.
    """
    from testbed.cli.console import Progress, require_root
    from testbed.cli.handover import handed_over
    from testbed.lab.session import read_study
    from testbed.lab.sweeps import SweepFolder
    from testbed.report.sweep import sweep_markdown

    study = read_study(experiment, overrides or [])
    folder_name = out or Path("sweeps") / study.experiment.name
    if study.experiment.sweep is not None:
        require_root()
    with handed_over(folder_name), Progress() as progress:
        folder = SweepFolder(folder_name.resolve(), study)
        cells = folder.chosen(only or [])
        for number, cell in enumerate(cells, 1):
            done = folder.done(cell)
            if done is None or not done.conclusive:
                progress.phase(f"{number}/{len(cells)} {cell.slug}")
                _measure(experiment, study, folder, cell, progress)
                _report(folder, study)
        progress.phase("report")
        data = _report(folder, study)
    if output is SweepFormat.JSON:
        typer.echo(json.dumps(data, indent=2))
    else:
        typer.echo(sweep_markdown(data))
        typer.echo(f"report: {folder.path / 'report.html'}")
    raise typer.Exit(_exit_code(data))


def _measure(experiment: Path, study: Study, folder: SweepFolder, cell: Cell, progress: Progress) -> None:
    """Run one combination until a run of it says something about it, and record how it went."""
    from testbed.cli.console import command_line
    from testbed.lab.session import Session, read_study
    from testbed.lab.sweeps import Done
    from testbed.report import build_report

    assert study.experiment.sweep is not None
    this = read_study(experiment, [*study.overrides, *cell.overrides])
    migrations = this.experiment.warm_up + study.experiment.sweep.repeat
    earlier = folder.done(cell)
    attempts = earlier.attempts if earlier is not None else ()
    for _ in range(ATTEMPTS):
        session = Session(this, out=folder.runs, migrations=migrations, command=command_line())
        session.prepare(lambda line: progress.detail("images", line))
        failure = follow(session, progress, phases=False)
        if failure == INTERRUPTED:
            raise typer.Exit(130)  # as shells say it; the next call begins with this combination
        attempt = session.run_id, build_report(session.run_dir).verdict.value
        progress.detail(*attempt)
        attempts = (*attempts, attempt)
        done = Done(cell, *attempt, attempts)
        folder.record(done)
        if done.conclusive:
            return


def _report(folder: SweepFolder, study: Study) -> dict[str, Any]:
    """Write the report of what is done so far; returns the content of sweep.json."""
    from testbed.measure.grid import row
    from testbed.report.sets import summary_of
    from testbed.report.sweep import sweep_data, write_sweep

    assert study.experiment.sweep is not None
    found = [done for cell in folder.order if (done := folder.done(cell)) is not None]
    rows = [
        row(done.cell, summary_of(folder.runs / done.run_id), done.attempts, settings=done.cell.settings)
        for done in found
    ]
    plan = json.loads((folder.path / "plan.json").read_text())
    data = sweep_data(plan, study.experiment.sweep.grid, rows)
    write_sweep(folder.path, data)
    return data


def _exit_code(data: dict[str, Any]) -> int:
    """The worst verdict's exit code, in the order 11, 12, 10."""
    from testbed.measure.verdict import Verdict

    codes = {Verdict(row["verdict"]).exit_code for row in data["rows"]}
    return next((code for code in (11, 12, 10, 13) if code in codes), 0)
