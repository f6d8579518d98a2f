"""`testbed graph FILE`: a picture of a topology, from the file alone. Needs no root."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class GraphOutput(str, Enum):
    """What to draw."""

    SVG = "svg"
    MERMAID = "mermaid"
    DOT = "dot"


def graph(
    file: Annotated[Path, typer.Argument(help="A topology, or an experiment.", show_default=False)],
    output: Annotated[
        GraphOutput, typer.Option("--format", help="svg; mermaid for Markdown; dot for Graphviz.")
    ] = GraphOutput.SVG,
    out: Annotated[Path | None, typer.Option("--out", help="Write to this file instead of standard output.")] = None,
) -> None:
    """Draw a topology: sites, RLOCs, EIDs, hosts, guests, and what the links do to packets.

    Given an experiment, draw the topology as that experiment uses it.
    """
    from testbed.errors import TestbedError
    from testbed.plan import build_plan
    from testbed.plan.graph import render
    from testbed.spec import kind_of
    from testbed.specfiles import read_experiment, read_text, read_topology

    try:
        if kind_of(read_text(file), str(file)) == "topology":
            plan = build_plan(read_topology(file))
        else:
            experiment, topology = read_experiment(file)
            plan = build_plan(topology, experiment)
    except TestbedError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(error.exit_code) from error
    picture = render(plan, output.value)
    if out is None:
        typer.echo(picture, nl=False)
    else:
        out.write_text(picture, encoding="utf-8")
