"""`testbed validate FILE…`: checks topologies and experiments. Needs no root."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer


class ValidateFormat(str, Enum):
    """How to print what was found."""

    TEXT = "text"
    JSON = "json"


def validate(
    files: Annotated[list[Path], typer.Argument(help="Topologies and experiments.", show_default=False)],
    output: Annotated[ValidateFormat, typer.Option("--format", help="text or json.")] = ValidateFormat.TEXT,
) -> None:
    """Check topologies and experiments; say each mistake as `file:line:column: what, what is allowed`.

    An experiment is checked together with the topology that it names. Exit code 11 if anything is wrong.
    """
    results = [_check(path) for path in files]
    if output is ValidateFormat.JSON:
        typer.echo(json.dumps({"files": results}, indent=2))
    else:
        for result in results:
            for problem in result["problems"]:
                typer.echo(problem["text"], err=True)
            if not result["problems"]:
                typer.echo(f"{result['file']}: {result['kind']} {result['name']}: valid")
    if any(result["problems"] for result in results):
        raise typer.Exit(11)


def _check(path: Path) -> dict[str, Any]:
    """Return what is said of one file; `kind` and `name` are null where it is not known."""
    from testbed.plan import build_plan
    from testbed.spec import SpecError, kind_of
    from testbed.specfiles import FileUnreadableError, read_experiment, read_text, read_topology

    result: dict[str, Any] = {"file": str(path), "kind": None, "name": None, "problems": []}
    try:
        result["kind"] = kind_of(read_text(path), str(path))
        if result["kind"] == "topology":
            topology = read_topology(path)
            build_plan(topology)
            result["name"] = topology.name
        else:
            experiment, topology = read_experiment(path)
            build_plan(topology, experiment)
            result["name"] = experiment.name
    except FileUnreadableError as error:
        result["problems"] = [_problem(str(path), None, None, error.what, error.what)]
    except SpecError as error:
        result["problems"] = [
            _problem(problem.source, problem.line, problem.column, problem.what, str(problem))
            for problem in error.problems
        ]
    return result


def _problem(source: str, line: int | None, column: int | None, what: str, text: str) -> dict[str, Any]:
    return {"file": source, "line": line, "column": column, "what": what, "text": text}
