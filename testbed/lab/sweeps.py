"""A sweep's folder: which combinations there are, in which order they are run, and which are done.

Nothing is kept in memory that a resumed sweep would miss: each combination that is done is a file, written whole.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError
from testbed.lab.session import Study
from testbed.spec import Cell, GridValue, cells_of

#: Verdicts after which a combination is done. What says nothing about it (INVALID, ERROR) is tried again.
CONCLUSIVE = ("PASS", "FAIL")


@dataclass(frozen=True, slots=True)
class Done:
    """How a combination was measured, over all calls of the sweep.

    Attributes:
        cell: which one.
        run_id: of the run that counts.
        verdict: of that run.
        attempts: (run, verdict) of every run, in order; those before the last were not conclusive.
    """

    cell: Cell
    run_id: str
    verdict: str
    attempts: tuple[tuple[str, str], ...]

    @property
    def conclusive(self) -> bool:
        """Whether its run says something about it; if not, the next call of the sweep tries it again."""
        return self.verdict in CONCLUSIVE


class SweepFolder:
    """The state of one sweep.

    Args:
        path: of the folder; made if it is not there.
        study: the experiment with its `sweep` section.

    Raises:
        TestbedError: the folder is another sweep's.
    """

    def __init__(self, path: Path, study: Study) -> None:
        if study.experiment.sweep is None:
            raise TestbedError(
                "no-sweep", f"{study.experiment.name} has no sweep section",
                why="a sweep needs `sweep: {grid: {mechanism: [pubsub, smr-old-xtr]}}`",
                next_command="testbed run EXPERIMENT",
            )  # fmt: skip
        self.path = path
        self._cells = path / "cells"
        self.order = shuffled(cells_of(study.experiment.sweep), study.experiment.seed)
        self._cells.mkdir(parents=True, exist_ok=True)
        self._claim(study)

    @property
    def runs(self) -> Path:
        """The folder of the run folders."""
        return self.path / "runs"

    def _claim(self, study: Study) -> None:
        supplied = [study.experiment_text, study.topology_text, *study.overrides]
        plan = {
            "schema_version": 1,
            "name": study.experiment.name,
            "description": study.experiment.description,
            "fingerprint": hashlib.sha256(json.dumps(supplied).encode()).hexdigest(),
            "seed": study.experiment.seed,
            "overrides": list(study.overrides),
            "order": [dict(cell) for cell in self.order],
        }
        file = self.path / "plan.json"
        if not file.exists():
            (self.path / "experiment.yaml").write_text(study.experiment_text)
            (self.path / "topology.yaml").write_text(study.topology_text)
            _write(file, plan)
        elif json.loads(file.read_text())["fingerprint"] != plan["fingerprint"]:
            raise TestbedError(
                "sweep-differs", f"{self.path} holds a sweep of another experiment",
                why="the experiment, its topology or an override has changed since; its rows could not be compared",
                next_command="testbed sweep EXPERIMENT --out ANOTHER-FOLDER",
            )  # fmt: skip

    def chosen(self, only: Sequence[str]) -> list[Cell]:
        """The combinations that have all of some values, in the order of execution.

        Args:
            only: `mechanism=pubsub` each; several of one key allow each of its values.

        Raises:
            TestbedError: the grid has no such key or value.
        """
        wanted: dict[str, list[GridValue]] = {}
        for text in only:
            key, _, value = text.partition("=")
            known = {str(cell[key]): cell[key] for cell in self.order if key in cell}
            if value not in known:
                allowed = sorted(f"{key}={value}" for cell in self.order for key, value in cell.items())
                raise TestbedError(
                    "not-in-grid", f"the sweep has no {text!r}",
                    why=f"its grid has {', '.join(dict.fromkeys(allowed))}",
                )  # fmt: skip
            wanted.setdefault(key, []).append(known[value])
        return [cell for cell in self.order if cell.is_among(wanted)]

    def done(self, cell: Cell) -> Done | None:
        """How a combination was measured last, None if it has not been yet."""
        file = self._cells / f"{cell.slug}.json"
        if not file.exists():
            return None
        raw = json.loads(file.read_text())
        return Done(cell, raw["run_id"], raw["verdict"], tuple((run, verdict) for run, verdict in raw["attempts"]))

    def record(self, done: Done) -> None:
        """Note that a combination is done."""
        content = {
            "cell": dict(done.cell), "run_id": done.run_id, "verdict": done.verdict, "attempts": done.attempts,
        }  # fmt: skip
        _write(self._cells / f"{done.cell.slug}.json", content)


def shuffled(cells: Sequence[Cell], seed: int) -> list[Cell]:
    """The order of execution: what drifts while a sweep runs must not look like a treatment."""
    order = list(cells)
    random.Random(seed).shuffle(order)
    return order


def _write(file: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    partial = file.with_name(file.name + ".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(file)
