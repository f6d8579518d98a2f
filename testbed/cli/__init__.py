"""The command line: `testbed COMMAND`. Nothing imports it; heavy imports happen inside the commands."""

from __future__ import annotations

import os
import sys

import typer

from testbed.cli import bench
from testbed.cli.compare import compare
from testbed.cli.decode import decode
from testbed.cli.doctor import doctor
from testbed.cli.graph import graph
from testbed.cli.labs import down, exec_, inspect, migrate, shell, status
from testbed.cli.lig import lig
from testbed.cli.report import report
from testbed.cli.run import run, up
from testbed.cli.sweep import sweep
from testbed.cli.validate import validate
from testbed.errors import TestbedError

app = typer.Typer(
    name="testbed",
    help="Live-migrate a Xen VM that is a LISP endpoint, and see whose part of the outage was whose.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (
    doctor,
    validate,
    graph,
    run,
    sweep,
    up,
    migrate,
    status,
    inspect,
    lig,
    shell,
    down,
    report,
    compare,
    decode,
):
    app.command()(command)
app.add_typer(bench.app, name="bench")
app.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(exec_)


def main() -> None:
    """Entry point: errors of ours are printed with the next command to type, never as a trace."""
    try:
        app()
    except PermissionError as error:
        what = f"{error.filename}: {error.strerror}"
        denied = TestbedError("permission-denied", what, next_command=f"sudo chown -R {os.getuid()} {error.filename}")
        print(f"error: {denied}", file=sys.stderr)
        sys.exit(denied.exit_code)
    except TestbedError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
