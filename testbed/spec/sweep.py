"""A grid of experiments: every combination of the listed values, each one experiment. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from typing import Annotated

from pydantic import Field

from testbed.spec.problems import Loc
from testbed.spec.validate import Model

#: The grid's shorthand for the delays of all links of the topology, which no single key of it is.
ONE_WAY = "one_way_ms"
#: What the grid's other keys into the topology begin with.
TOPOLOGY = "topology."

GridValue = bool | int | float | str
Values = Annotated[tuple[GridValue, ...], Field(min_length=1)]


class SweepSpec(Model):
    """Which experiments a sweep makes of one.

    Attributes:
        grid: dotted key of the experiment → its values; `one_way_ms` is the delay between any two edges
            of the topology, `topology.…` any other key of it.
        repeat: migrations that count, of each combination; one lab performs them, there and back, after the
            experiment's `warm_up`.
    """

    grid: Annotated[dict[str, Values], Field(min_length=1)]
    repeat: Annotated[int, Field(ge=1, le=10_000)] = 1


class Cell(dict[str, GridValue]):
    """One combination: key → value, in the order of the grid."""

    @property
    def overrides(self) -> list[str]:
        """As `--set` takes them."""
        return [assignment(key, value) for key, value in self.items()]

    @property
    def slug(self) -> str:
        """Its name, as part of a path: `mechanism=pubsub,one_way_ms=10`."""
        text = ",".join(f"{key}={value}" for key, value in self.items())
        return "".join(letter if letter.isalnum() or letter in "=,._-" else "-" for letter in text)


def assignment(key: str, value: GridValue) -> str:
    """An override as `--set` takes it; JSON is YAML."""
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"


def cells_of(sweep: SweepSpec) -> list[Cell]:
    """Every combination, the last key's values changing fastest."""
    return [Cell(zip(sweep.grid, values, strict=True)) for values in product(*sweep.grid.values())]


def single_values(sweep: SweepSpec) -> Iterator[tuple[Loc, str]]:
    """Yield every value of the grid with its place in the file, as an override."""
    for key, values in sweep.grid.items():
        for index, value in enumerate(values):
            yield ("sweep", "grid", key, index), assignment(key, value)


def is_of_topology(override: str) -> bool:
    """Whether an override changes the topology and not the experiment."""
    return override.startswith(TOPOLOGY) or override.partition("=")[0] == ONE_WAY
