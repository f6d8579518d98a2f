"""`testbed bench dataplane|mapping|remap`: performance figures, as ratios against peers in the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Measure the data plane, the mapping system, or the mechanisms; figures depend on the machine, ratios less.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON (docs/reference/bench.md).")]
Rounds = Annotated[int, typer.Option(min=1, help="Measurements of each figure; medians are compared.")]


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _table(rows: list[dict[str, Any]]) -> None:
    """Rows with the same keys as columns; what is None is a dash."""
    names = list(rows[0])
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    for line in cells:
        typer.echo("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print(result: dict[str, Any], *, as_json: bool, tables: dict[str, list[dict[str, Any]]]) -> None:
    if as_json:
        typer.echo(json.dumps(result, indent=2))
        return
    for title, rows in tables.items():
        if rows:
            typer.echo(f"{title}:")
            _table(rows)
    machine = result["machine"]
    typer.echo(f"on {machine['cpus']} CPUs ({machine['model'] or 'unknown'}), load {machine['load_1min']:.2g} before")


@app.command()
def dataplane(
    rounds: Rounds = 3,
    duration_s: Annotated[int, typer.Option(min=1, help="Of one measurement, seconds.")] = 2,
    as_json: Json = False,
) -> None:
    """Compare the eBPF data plane with kernel VXLAN and plain routing over the same path. Needs root."""
    from testbed.bench.own import machine, measured
    from testbed.cli.console import require_root

    require_root()
    about = machine()
    result = {"machine": about, **measured("dataplane", {"rounds": rounds, "duration_s": duration_s}, _say)}
    ratios = [
        {"LISP over": peer, **{load: _ratio(ratio, result["ratio_range"][peer][load]) for load, ratio in loads.items()}}
        for peer, loads in result["ratio"].items()
    ]
    medians = [{"": mode, **loads} for mode, loads in result["median"].items()]
    tables = {"ratio of medians (lowest to highest of a round)": ratios, "median (tcp bit/s, udp packets/s)": medians}
    _print(result, as_json=as_json, tables=tables)


def _ratio(ratio: float | None, rounds: list[float] | None) -> str | None:
    return None if ratio is None or rounds is None else f"{ratio:.3f} ({rounds[0]:.3f} to {rounds[1]:.3f})"


@app.command()
def mapping(
    sizes: Annotated[str, typer.Option(help="How many EIDs are registered, ascending.")] = "1000,100000,1000000",
    subscribers: Annotated[str, typer.Option(help="How many xTRs are told of a move.")] = "1,10,100,1000",
    rounds: Rounds = 5,
    as_json: Json = False,
) -> None:
    """Measure the Map-Server: how it grows with EIDs and subscribers; with root its real process too."""
    import os

    from testbed.bench.mapping import growth, publications
    from testbed.bench.own import machine, measured

    counts = _numbers(subscribers)
    result: dict[str, Any] = {"machine": machine()}
    result["growth"] = growth(_numbers(sizes), say=_say)
    result["publications"] = publications(counts, rounds=rounds, say=_say)
    result["agent"] = None
    if os.geteuid() == 0:
        result["agent"] = measured("agent", {"counts": counts, "rounds": rounds}, _say)
    else:
        _say("the Map-Server's process is measured as root only")
    agent = result["agent"] or {"publications": []}
    tables = {
        "by EIDs registered": result["growth"],
        "by subscribers": result["publications"],
        "its process over UDP": [{name: agent[name] for name in agent if name != "publications"}]
        if result["agent"]
        else [],
        "its process, by subscribers": agent["publications"],
    }
    _print(result, as_json=as_json, tables=tables)


@app.command()
def remap(
    experiment: Annotated[Path, typer.Argument(help="An experiment on the substrate netns.")] = Path(
        "experiments/netns-quick.yaml"
    ),
    mechanisms: Annotated[str, typer.Option(help="Which, in this order; empty: all that react to a move.")] = "",
    repeat: Annotated[int, typer.Option(min=1, help="Walk the migrations this often.")] = 1,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Lay key=value over the experiment.")] = None,
    out: Annotated[Path, typer.Option("--out", help="The folder that takes the runs' folders.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """Run an experiment under each mechanism: remapping latency beside its analytic bound. Needs root."""
    from testbed.bench.own import machine
    from testbed.bench.remap import MECHANISMS, bench
    from testbed.cli.console import require_root
    from testbed.cli.handover import handed_over

    require_root()
    chosen = [word for word in mechanisms.split(",") if word] or list(MECHANISMS)
    about = machine()
    with handed_over(out):
        rows = bench(experiment, out=out, mechanisms=chosen, repeat=repeat, overrides=overrides or [], say=_say)
    shown = [{name: value for name, value in row.items() if name != "run"} for row in rows]
    _print({"machine": about, "mechanisms": rows}, as_json=as_json, tables={"by mechanism": shown})


def _numbers(text: str) -> list[int]:
    """Comma-separated whole numbers above 0."""
    try:
        numbers = [int(word.replace("_", "")) for word in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise typer.BadParameter(f"{text!r} is no list of numbers like 1000,100000")
    return numbers
