"""A grid of experiments: every combination of the listed values, each one experiment. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Annotated

from pydantic import Field

from testbed.spec.problems import Loc, allowed_instead
from testbed.spec.validate import Model

#: The grid's shorthand for the delays of all links of the topology, which no single key of it is.
ONE_WAY = "one_way_ms"
#: What the grid's other keys into the topology begin with.
TOPOLOGY = "topology."

GridValue = bool | int | float | str
Values = Annotated[tuple[GridValue, ...], Field(min_length=1)]


class SweepCase(Model):
    """What some combinations need beside their values: a mechanism that waits for a timer needs a short one.

    Attributes:
        when: key of the grid → the values for which this holds; all keys together.
        set: dotted key → value, as a grid's; null is what a key has that is left out.
    """

    when: Annotated[dict[str, Values], Field(min_length=1)]
    set: Annotated[dict[str, GridValue | None], Field(min_length=1)]


class SweepSpec(Model):
    """Which experiments a sweep makes of one.

    Attributes:
        grid: dotted key of the experiment → its values; `one_way_ms` is the delay between any two edges
            of the topology, `topology.…` any other key of it.
        repeat: migrations that count, of each combination; one lab performs them, there and back, after the
            experiment's `warm_up`.
        cases: what goes with some of the values.
    """

    grid: Annotated[dict[str, Values], Field(min_length=1)]
    repeat: Annotated[int, Field(ge=1, le=10_000)] = 1
    cases: tuple[SweepCase, ...] = ()


class Cell(dict[str, GridValue]):
    """One combination: key → value, in the order of the grid.

    Attributes:
        settings: key → value of the cases that hold for it.
    """

    def __init__(self, values: Iterable[tuple[str, GridValue]], cases: Iterable[SweepCase] = ()) -> None:
        super().__init__(values)
        self.settings: dict[str, GridValue | None] = {}
        for case in cases:
            if self.is_among(case.when):
                self.settings |= case.set

    def is_among(self, chosen: Mapping[str, Sequence[GridValue]]) -> bool:
        """Whether each of these keys has one of the values that are chosen for it."""
        return all(self[key] in values for key, values in chosen.items())

    @property
    def overrides(self) -> list[str]:
        """As `--set` takes them."""
        return [assignment(key, value) for key, value in {**self.settings, **self}.items()]

    @property
    def slug(self) -> str:
        """Its name, as part of a path: `mechanism=pubsub,one_way_ms=10`."""
        text = ",".join(f"{key}={value}" for key, value in self.items())
        return "".join(letter if letter.isalnum() or letter in "=,._-" else "-" for letter in text)


def assignment(key: str, value: GridValue | None) -> str:
    """An override as `--set` takes it; JSON is YAML."""
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"


def cells_of(sweep: SweepSpec) -> list[Cell]:
    """Every combination, the last key's values changing fastest."""
    rows = product(*sweep.grid.values())
    return [Cell(zip(sweep.grid, values, strict=True), sweep.cases) for values in rows]


def single_values(sweep: SweepSpec) -> Iterator[tuple[Loc, str]]:
    """Yield every value of the grid and of its cases with its place in the file, as an override."""
    for key, values in sweep.grid.items():
        for index, value in enumerate(values):
            yield ("sweep", "grid", key, index), assignment(key, value)
    for number, case in enumerate(sweep.cases):
        for key, setting in case.set.items():
            yield ("sweep", "cases", number, "set", key), assignment(key, setting)


def case_findings(sweep: SweepSpec) -> Iterator[tuple[Loc, str]]:
    """Yield what a case names that the grid has not, or has itself."""
    for number, case in enumerate(sweep.cases):
        for key, values in case.when.items():
            loc: Loc = ("sweep", "cases", number, "when", key)
            if key not in sweep.grid:
                yield loc, f"no key of the grid is called {key!r}{allowed_instead(key, list(sweep.grid))}"
                continue
            known = [str(value) for value in sweep.grid[key]]
            for index, value in enumerate(values):
                if value not in sweep.grid[key]:
                    what = f"{value!r} is no value of {key} in the grid{allowed_instead(str(value), known)}"
                    yield (*loc, index), what
        for key in case.set:
            if key in sweep.grid:
                loc = ("sweep", "cases", number, "set", key)
                yield loc, f"{key} is a key of the grid; allowed: any other"


def is_of_topology(override: str) -> bool:
    """Whether an override changes the topology and not the experiment."""
    return override.startswith(TOPOLOGY) or override.partition("=")[0] == ONE_WAY
