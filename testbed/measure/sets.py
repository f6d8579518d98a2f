"""Pool the summaries of several runs and compare pools: what may be put together, and what not. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from testbed.errors import TestbedError
from testbed.measure.analysis import Randomness
from testbed.measure.compare import compare
from testbed.measure.conditions import differing, told
from testbed.measure.phases import PHASES
from testbed.measure.summary import TIMES, counted, rounded, statistics_of, success_of, value_of

#: Verdicts of runs whose figures may be pooled, if they can be trusted. A failed threshold does not spoil them.
POOLED = ("PASS", "FAIL")

#: What is compared, in this order.
COMPARED = (*TIMES, *(f"{phase}_ms" for phase in PHASES))


class IncomparableError(TestbedError):
    """Two pools that were measured on different substrates or accelerators, or under different conditions."""

    def __init__(self, what: str, why: str, flag: str) -> None:
        super().__init__("incomparable", what, why=why, next_command=f"testbed compare A B {flag}")


@dataclass(frozen=True, slots=True)
class Pool:
    """The migrations of some runs that were made in the same way.

    Attributes:
        substrate, accelerator, mechanism: of all of them.
        conditions: what else their times depend on, the same in all of them (`conditions`).
        apart: names of the conditions in which other pools beside it differ.
        runs: identifiers, in order.
        left_out: runs whose figures do not count, with their verdict.
        migrations: entries of the summaries, in order of execution.
        interval_ms: their probes'.
    """

    substrate: str | None
    accelerator: str | None
    mechanism: str | None
    conditions: Mapping[str, Any]
    apart: tuple[str, ...]
    runs: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    migrations: tuple[Mapping[str, Any], ...]
    interval_ms: float

    @property
    def name(self) -> str:
        """The mechanism, with substrate and accelerator, and the conditions that set it apart."""
        parts = (self.mechanism, self.substrate, self.accelerator, told(self.conditions, self.apart))
        return " · ".join(str(part) for part in parts if part)

    @property
    def label(self) -> str:
        """What sets it apart among pools of one substrate: the mechanism, and the conditions that differ."""
        return " · ".join(
            part for part in (self.mechanism or "no mechanism", told(self.conditions, self.apart)) if part
        )

    def values(self, metric: str) -> list[float]:
        """The values of a metric, in order of execution, of the migrations that count."""
        found = [value_of(migration, metric) for migration in counted(self.migrations)]
        return [value for value in found if value is not None]


def pool(summaries: Sequence[Mapping[str, Any]]) -> list[Pool]:
    """Pool runs by substrate, accelerator, mechanism and conditions, in the order in which these first appear.

    A run that does not count may have broken off before it knew all of these: it is left out of the pool that it
    would have been in as far as it knows, and has one of its own only where there is none.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(summaries)), key=lambda at: not _counts(summaries[at])):
        run = summaries[index]
        same = _is_like if _counts(run) else _may_be_like
        known = next((group for group in groups if same(run, summaries[group[0]])), None)
        if known is None:
            groups.append([index])
        else:
            known.append(index)
    ordered = [[summaries[index] for index in sorted(group)] for group in sorted(groups, key=min)]
    apart = tuple(differing([_first(runs)["conditions"] for runs in ordered]))
    return [_pool(runs, apart) for runs in ordered]


def _is_like(run: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two runs were made in the same way."""
    return all(run[name] == other[name] for name in ("substrate", "accelerator", "mechanism", "conditions"))


def _may_be_like(run: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a run was made in the same way as another as far as it knows how."""
    mine, its = run["conditions"], other["conditions"]
    known = all(its.get(name, value) == value for name, value in mine.items())
    return known and all(run[name] in (None, other[name]) for name in ("substrate", "accelerator", "mechanism"))


def _first(runs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The first run that counts; the first of all if none does."""
    return next((run for run in runs if _counts(run)), runs[0])


def _pool(runs: Sequence[Mapping[str, Any]], apart: tuple[str, ...]) -> Pool:
    usable = [run for run in runs if _counts(run)]
    first = _first(runs)
    return Pool(
        first["substrate"],
        first["accelerator"],
        first["mechanism"],
        first["conditions"],
        apart,
        tuple(str(run["run_id"]) for run in runs),
        tuple((str(run["run_id"]), str(run["verdict"])) for run in runs if not _counts(run)),
        tuple(migration for run in usable for migration in run["migrations"]),
        float(first["probe_interval_ms"] or 0),
    )


def _counts(run: Mapping[str, Any]) -> bool:
    """Whether a run's figures may be pooled: a migration that failed does not hide that the clock was set."""
    spoilt = any(finding["severity"] == "invalid" and finding["ok"] is False for finding in run["validity"])
    return run["verdict"] in POOLED and not spoilt


def pool_summary(one: Pool, rng: Randomness) -> dict[str, Any]:
    """A pool as JSON: who is in it, its statistics and success rate."""
    return {
        "name": one.name,
        "substrate": one.substrate,
        "accelerator": one.accelerator,
        "mechanism": one.mechanism,
        "conditions": dict(one.conditions),
        "runs": list(one.runs),
        "left_out": _left_out(one),
        "probe_interval_ms": one.interval_ms,
        "statistics": statistics_of(one.migrations, rng),
        "success": success_of(one.migrations),
    }


def _left_out(one: Pool) -> list[dict[str, str]]:
    return [{"run_id": run, "verdict": verdict} for run, verdict in one.left_out]


def compare_pools(
    a: Pool, b: Pool, rng: Randomness, *, across_substrates: bool = False, across_conditions: bool = False
) -> dict[str, Any]:
    """Compare pool B with pool A, metric by metric.

    Args:
        a: the reference.
        b: the candidate.
        rng: the generator of each figure, by its name.
        across_substrates: allow different substrates or accelerators.
        across_conditions: allow different conditions: delays, probes, options of LISP. Mechanisms may always differ.

    Raises:
        IncomparableError: for what is different and not allowed to be.
    """
    for what in ("substrate", "accelerator"):
        one, other = getattr(a, what), getattr(b, what)
        if one != other and not across_substrates:
            raise IncomparableError(
                f"{one} and {other} are not compared",
                f"the runs have different {what}s, and so do their times",
                "--across-substrates",
            )
    apart = differing([a.conditions, b.conditions])
    if a.substrate != b.substrate:  # an emulated guest has a pause of its own, which is told by its substrate
        apart = [name for name in apart if not name.startswith("emulated_guest.")]
    if apart and not across_conditions:
        raise IncomparableError(
            "runs under different conditions are not compared",
            f"A has {told(a.conditions, apart)}; B has {told(b.conditions, apart)}",
            "--across-conditions",
        )
    floor = max(a.interval_ms, b.interval_ms)
    rows = {}
    for metric in COMPARED:
        found = compare(a.values(metric), b.values(metric), rng(f"compare {metric}"), floor=floor)
        rows[metric] = None if found is None else rounded(asdict(found))
    return {
        "a": a.name,
        "b": b.name,
        "floor_ms": floor,
        "conditions_apart": {name: [a.conditions.get(name), b.conditions.get(name)] for name in apart},
        "counted": {"a": len(counted(a.migrations)), "b": len(counted(b.migrations))},
        "left_out": {"a": _left_out(a), "b": _left_out(b)},
        "metrics": rows,
    }
