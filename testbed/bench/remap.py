"""How long the network takes to follow a guest, by mechanism, beside what theory says: one run of each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from testbed.lab.session import Session, read_study
from testbed.report import build_report

#: The mechanisms that react to a move; `ttl` and `rloc-probe` take their interval, whatever the machine.
MECHANISMS = ("smr-old-xtr", "smr-map-server", "pubsub", "map-version")


def bench(
    experiment: Path,
    *,
    out: Path,
    mechanisms: Sequence[str] = MECHANISMS,
    repeat: int = 1,
    overrides: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Run an experiment under each mechanism.

    Args:
        experiment: the file; its substrate should be `netns`, which needs seconds and no hypervisor.
        out: the folder that takes the runs.
        mechanisms: in this order.
        repeat: walks of the experiment's path in each run.
        overrides: `key=value` laid over the experiment.
        say: told of each figure as it comes.

    Returns a row for each mechanism, see `row_of`, with the run's folder as `run`.
    """
    rows = []
    for mechanism in mechanisms:
        study = read_study(experiment, [*overrides, f"mechanism={mechanism}"])
        session = Session(study, out=out, repeat=repeat, command=f"testbed bench remap {experiment}")
        session.prepare(say)
        try:
            session.launch()
            for line in session.follow():
                if line is not None and line["type"] == "phase":
                    say(f"{mechanism}: {line['name']}")
        finally:
            session.end()
        row = {**row_of(mechanism, build_report(session.run_dir).data), "run": str(session.run_dir)}
        say(f"{mechanism}: remapped after {row['remap_latency_ms']} ms, by theory {row['bound_ms']} ms")
        rows.append(row)
    return rows


def row_of(mechanism: str, summary: dict[str, Any]) -> dict[str, Any]:
    """What a run's summary says of its mechanism; migrations for warming up do not count.

    Returns `mechanism`, `verdict`, `migrations` (how many were measured), the medians `remap_latency_ms`, `bound_ms`,
    and `stuntime_ms`, and `ratio`, remap latency over bound. What was not measured is None.
    """
    counted = [each for each in summary["migrations"] if not each["warm_up"]]
    measured = [each for each in counted if each["metrics"]["remap_latency_ms"] is not None]
    remapped = _median([each["metrics"]["remap_latency_ms"] for each in measured])
    bound = _median([each["bound"]["bound_ms"] for each in measured if each["bound"] is not None])
    return {
        "mechanism": mechanism,
        "verdict": summary["verdict"],
        "migrations": len(measured),
        "remap_latency_ms": remapped,
        "bound_ms": bound,
        "ratio": remapped / bound if remapped is not None and bound else None,
        "stuntime_ms": _median([each["metrics"]["stuntime_ms"] for each in counted]),
    }


def _median(figures: Sequence[float | None]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return statistics.median(known) if known else None
