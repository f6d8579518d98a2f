"""`testbed run EXPERIMENT` and `testbed up EXPERIMENT`. They need root."""

from __future__ import annotations

import importlib
import json
import shutil
import threading
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from testbed.cli.console import Progress
    from testbed.lab.session import Session


#: What `follow` returns after Ctrl-C.
INTERRUPTED = {"id": "interrupted", "error": "interrupted"}


class RunFormat(str, Enum):
    """How to print the result."""

    TEXT = "text"
    JSON = "json"


Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Lay key=value over the experiment (probes.interval_ms=5); repeatable."),
]
Out = Annotated[Path, typer.Option("--out", help="The folder that takes the run's folder.")]
Cold = Annotated[bool, typer.Option("--cold", help="Boot the Xen hosts from nothing, not from a saved state.")]
Experiment = Annotated[Path, typer.Argument(help="An experiment's YAML file.", show_default=False)]
Accelerator = Annotated[
    str | None, typer.Option("--accelerator", help="auto, kvm or tcg, whatever the experiment says.")
]


def run(
    experiment: Experiment,
    repeat: Annotated[int, typer.Option(min=1, help="Walk the migrations this often, back and forth.")] = 1,
    overrides: Overrides = None,
    out: Out = Path("runs"),
    junit: Annotated[Path | None, typer.Option(help="Also write the JUnit report to this file.")] = None,
    fail_if: Annotated[
        list[str] | None, typer.Option("--fail-if", help="Fail if it holds: 'stuntime_ms.median > 2000'; repeatable.")
    ] = None,
    cold: Cold = False,
    accelerator: Accelerator = None,
    output: Annotated[RunFormat, typer.Option("--format", help="text or json (summary.json).")] = RunFormat.TEXT,
) -> None:
    """Run a whole experiment: up, baseline, migrate, settle, report, down. Needs root.

    Exit codes: 0 pass, 10 fail, 11 error, 12 invalid, 13 skipped.
    """
    from testbed.cli.console import Progress, command_line, require_root
    from testbed.cli.handover import handed_over
    from testbed.lab.session import Session, read_study
    from testbed.measure.reasons import result_lines
    from testbed.measure.summary import METRICS
    from testbed.measure.thresholds import parse

    for expression in fail_if or []:
        parse(expression, METRICS)
    study = read_study(experiment, _overrides(overrides, accelerator))
    require_root()
    session = Session(study, out=out, repeat=repeat, cold=cold, fail_if=fail_if or [], command=command_line())
    with handed_over(session.run_dir, *([junit] if junit else [])), Progress() as progress:
        session.prepare(lambda line: progress.detail("images", line))
        # The report's libraries take a second or two to load: while the lab comes up, not after it.
        threading.Thread(target=importlib.import_module, args=("testbed.report",), daemon=True).start()
        follow(session, progress)
        progress.phase("report")
        from testbed.report import build_report

        summary = build_report(session.run_dir)
        if junit is not None:
            shutil.copy(session.run_dir / "junit.xml", junit)
    if output is RunFormat.JSON:
        typer.echo(json.dumps(summary.data, indent=2))
    else:
        typer.echo("\n".join(result_lines(summary.data)))
        typer.echo(f"report: {session.run_dir / 'report.html'}")
    raise typer.Exit(summary.exit_code)


def up(
    experiment: Experiment,
    overrides: Overrides = None,
    out: Out = Path("runs"),
    cold: Cold = False,
    accelerator: Accelerator = None,
) -> None:
    """Bring an experiment's lab up until its guest answers, and leave it up. Needs root.

    `testbed migrate SITE`, `status`, `inspect`, `exec`, `shell` and `down` work with it.
    """
    from testbed.cli.console import Progress, command_line, require_root
    from testbed.cli.handover import handed_over
    from testbed.errors import TestbedError
    from testbed.lab.session import Session, read_study

    study = read_study(experiment, _overrides(overrides, accelerator))
    require_root()
    session = Session(study, out=out, mode="up", cold=cold, command=command_line())
    with handed_over(session.run_dir), Progress() as progress:
        session.prepare(lambda line: progress.detail("images", line))
        failure = follow(session, progress)
    if failure is not None:
        raise TestbedError(
            failure.get("id", "lab-failed"), failure["error"], why=failure.get("why", ""),
            next_command=failure.get("next_command", ""),
        )  # fmt: skip
    typer.echo(f"lab {session.run_id} is up; its evidence goes to {session.run_dir}")
    typer.echo("next: testbed migrate SITE | testbed inspect | testbed shell NODE | testbed down")


def _overrides(overrides: list[str] | None, accelerator: str | None) -> list[str]:
    return [*(overrides or []), *([f"accelerator={accelerator}"] if accelerator else [])]


def follow(session: Session, progress: Progress, *, phases: bool = True) -> dict[str, str] | None:
    """Show what the lab does until it has ended or is ready; returns the error that it ended with, if any.

    Ctrl-C takes the lab down; what it has measured stays in the run's folder.

    Args:
        session: prepared, not launched.
        progress: where to show it.
        phases: whether the lab's phases are ours; else they are details of one.
    """
    failure = None
    ended = ready = interrupted = False
    try:
        session.launch()
        for line in session.follow():
            if line is None:
                progress.tick()
            elif line["type"] == "phase" and phases:
                progress.phase(line["name"])
            elif line["type"] == "phase":
                progress.detail("lab", line["name"])
            elif line["type"] == "detail" and phases:
                progress.detail(line["who"], line["what"])
            elif line["type"] == "ready":
                ready = True
            elif line["type"] == "ended":
                ended, failure = True, line["error"]
    except KeyboardInterrupt:
        interrupted = True
        progress.detail("interrupted", "gathering the evidence and taking the lab down")
        failure = dict(INTERRUPTED)
    finally:
        if not ready:
            session.end()
    return failure if ended or ready or interrupted else session.note_death()
