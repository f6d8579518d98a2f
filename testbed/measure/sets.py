"""Pool the summaries of several runs and compare pools: what may be put together, and what not. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from testbed.errors import TestbedError
from testbed.measure.analysis import Randomness
from testbed.measure.compare import compare
from testbed.measure.phases import PHASES
from testbed.measure.summary import TIMES, counted, rounded, statistics_of, success_of, value_of

#: Verdicts of runs whose figures may be pooled. A failed threshold does not spoil the figures.
POOLED = ("PASS", "FAIL")

#: What is compared, in this order.
COMPARED = (*TIMES, *(f"{phase}_ms" for phase in PHASES))


class IncomparableError(TestbedError):
    """Two pools that were measured on different substrates, accelerators or by different probes."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__("incomparable", what, why=why, next_command="testbed compare A B --across-substrates")


@dataclass(frozen=True, slots=True)
class Pool:
    """The migrations of some runs that were made in the same way.

    Attributes:
        substrate, accelerator, mechanism: of all of them.
        runs: identifiers, in order.
        left_out: runs whose figures do not count, with their verdict.
        migrations: entries of the summaries, in order of execution.
        interval_ms: the longest probe interval among them.
    """

    substrate: str | None
    accelerator: str | None
    mechanism: str | None
    runs: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    migrations: tuple[Mapping[str, Any], ...]
    interval_ms: float

    @property
    def name(self) -> str:
        """The mechanism, with substrate and accelerator."""
        return " · ".join(str(part) for part in (self.mechanism, self.substrate, self.accelerator) if part)

    def values(self, metric: str) -> list[float]:
        """The values of a metric, in order of execution, of the migrations that count."""
        found = [value_of(migration, metric) for migration in counted(self.migrations)]
        return [value for value in found if value is not None]


def pool(summaries: Sequence[Mapping[str, Any]]) -> list[Pool]:
    """Pool runs by substrate, accelerator and mechanism, in the order in which these first appear."""
    groups: dict[tuple[str | None, str | None, str | None], list[Mapping[str, Any]]] = {}
    for summary in summaries:
        key = (summary["substrate"], summary["accelerator"], summary["mechanism"])
        groups.setdefault(key, []).append(summary)
    return [_pool(key, runs) for key, runs in groups.items()]


def _pool(key: tuple[str | None, str | None, str | None], runs: Sequence[Mapping[str, Any]]) -> Pool:
    usable = [run for run in runs if run["verdict"] in POOLED]
    return Pool(
        *key,
        tuple(str(run["run_id"]) for run in runs),
        tuple((str(run["run_id"]), str(run["verdict"])) for run in runs if run["verdict"] not in POOLED),
        tuple(migration for run in usable for migration in run["migrations"]),
        max(float(run["probe_interval_ms"] or 0) for run in runs),
    )


def pool_summary(one: Pool, rng: Randomness) -> dict[str, Any]:
    """A pool as JSON: who is in it, its statistics and success rate."""
    return {
        "name": one.name,
        "substrate": one.substrate,
        "accelerator": one.accelerator,
        "mechanism": one.mechanism,
        "runs": list(one.runs),
        "left_out": [{"run_id": run, "verdict": verdict} for run, verdict in one.left_out],
        "probe_interval_ms": one.interval_ms,
        "statistics": statistics_of(one.migrations, rng),
        "success": success_of(one.migrations),
    }


def compare_pools(a: Pool, b: Pool, rng: Randomness, *, across: bool = False) -> dict[str, Any]:
    """Compare pool B with pool A, metric by metric.

    Args:
        a: the reference.
        b: the candidate.
        rng: the generator of each figure, by its name.
        across: allow different substrates or accelerators.

    Raises:
        IncomparableError: for different substrates or accelerators without `across`.
    """
    for what in ("substrate", "accelerator"):
        one, other = getattr(a, what), getattr(b, what)
        if one != other and not across:
            raise IncomparableError(
                f"{one} and {other} are not compared",
                f"the runs have different {what}s, and so do their times",
            )
    floor = max(a.interval_ms, b.interval_ms)
    rows = {}
    for metric in COMPARED:
        found = compare(a.values(metric), b.values(metric), rng(f"compare {metric}"), floor=floor)
        rows[metric] = None if found is None else rounded(asdict(found))
    return {"a": a.name, "b": b.name, "floor_ms": floor, "metrics": rows}
