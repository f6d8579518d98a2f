"""`testbed doctor`: what this machine can do. Needs no root (and says what it could not try without)."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum
from typing import Annotated

import typer

MARKS = {"ok": "ok      ", "limited": "limited ", "missing": "MISSING "}


class DoctorFormat(str, Enum):
    """How to print."""

    TEXT = "text"
    JSON = "json"


def doctor(
    output: Annotated[DoctorFormat, typer.Option("--format", help="text or json.")] = DoctorFormat.TEXT,
) -> None:
    """Say what this machine can do, what follows from what is missing, and what mends it.

    KVM counts only if a Xen host really boots under it. Exit code 13 if something is missing that every lab needs.
    """
    from testbed.lab.machinechecks import check_machine

    checks = []
    for check in check_machine():
        checks.append(check)
        if output is DoctorFormat.TEXT:
            typer.echo(f"{MARKS[check.state]} {check.name}: {check.found}")
            if check.consequence:
                typer.echo(f"          so: {check.consequence}")
            if check.fix:
                typer.echo(f"          next: {check.fix}")
    if output is DoctorFormat.JSON:
        typer.echo(json.dumps({"checks": [asdict(check) for check in checks]}, indent=2))
    if any(check.state == "missing" for check in checks):
        raise typer.Exit(13)
