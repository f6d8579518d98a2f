"""Draw all pictures of a run, each wide and narrow, with its data beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.measure.analysis import Analysis, MigrationResult
from testbed.measure.headline import words_of
from testbed.measure.summary import Summary, counted, value_of
from testbed.report.plots.distribution import Sample, draw_distribution
from testbed.report.plots.sequence import draw_sequence, marks_of
from testbed.report.plots.svg import Canvas
from testbed.report.plots.theme import NARROW, WIDE, Layout
from testbed.report.plots.timeline import draw_timeline
from testbed.report.plots.waterfall import draw_waterfall
from testbed.report.words import metric_names, substrate_line

#: From so many migrations on their distribution is drawn; the band around that of fewer says nothing.
DISTRIBUTED = 5
#: Metrics that probes count: no value is sharper than their interval.
WHOLE_INTERVALS = (
    "stuntime_ms", "stuntime_by_send_ms", "gaps_total_ms", "longest_silence_ms", "above_baseline_p99_ms",
    "naive_outage_ms",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture.

    Attributes:
        name: of its files, without ending.
        caption: one sentence below it.
        wide, narrow: for screens and for telephones.
        data: what it shows, JSON-serialisable.
        metric: whose distribution it is, "" for other pictures.
    """

    name: str
    caption: str
    wide: Canvas
    narrow: Canvas
    data: Any
    metric: str = ""


@dataclass(frozen=True, slots=True)
class Pictures:
    """All pictures of a run; those of a migration by its index."""

    migrations: Mapping[int, tuple[Picture, ...]]
    set: tuple[Picture, ...]

    def all(self) -> list[Picture]:
        """Every picture, in the report's order."""
        return [*self.set, *(picture for some in self.migrations.values() for picture in some)]


def draw(analysis: Analysis, summary: Summary) -> Pictures:
    """Draw everything that the report shows."""
    entries = {entry["index"]: entry for entry in summary.data["migrations"]}
    pictures = {
        result.migration.index: _migration_pictures(result, entries[result.migration.index], summary.data)
        for result in analysis.migrations
    }
    return Pictures(pictures, _set_pictures(summary.data))


def _migration_pictures(
    result: MigrationResult, entry: Mapping[str, Any], summary: Mapping[str, Any]
) -> tuple[Picture, ...]:
    migration = result.migration
    nodes = {
        "source_xtr": migration.source_xtr,
        "destination_xtr": migration.destination_xtr,
        "map_server": migration.map_server,
        "itr": migration.correspondent_itr,
    }
    route = f"{migration.guest}: {migration.source_site} → {migration.destination_site}"
    title = f"{route}, migration {migration.index}"
    subtitle, more = _subtitle(summary), f"{title} · {_subtitle(summary)}"
    series = result.primary.series if result.primary else None
    words = words_of(summary["substrate"])

    def timeline(layout: Layout) -> Canvas:
        return draw_timeline(entry, nodes, series, title, subtitle, layout)

    def sequence(layout: Layout) -> Canvas:
        return draw_sequence(entry, nodes, "Who told whom", more, layout)

    def waterfall(layout: Layout) -> Canvas:
        return draw_waterfall(entry, words, "Whose part was how long", more, layout)

    marks = [{"label": e["label"], "t_ms": e["t_ms"], "source": e["source"]} for e in entry["events"]]
    number = migration.index
    pictures = [
        Picture(
            f"timeline-{number}",
            "Each lane shows where that node takes the guest to be; while the lanes' colours differ, "
            "packets go astray. Shaded: what the peer lost; a click leads to its probes and "
            "their frames. Below, each probe's round trip when it was sent.",
            timeline(WIDE),
            timeline(NARROW),
            {"origin": entry["origin"], "marks": marks, "gaps": entry["gaps"]},
        ),
        Picture(
            f"waterfall-{number}",
            "The outage and its parts at the time they took. Orange is the hypervisor's, blue the network's, "
            "hatched grey nobody's. The diamond is where the remapping would end if only distance took time.",
            waterfall(WIDE),
            waterfall(NARROW),
            {
                "metrics": entry["metrics"],
                "phases_ms": entry["phases_ms"],
                "unattributed": entry["unattributed"],
                "bound": entry["bound"],
            },
        ),
    ]
    if len(marks_of(entry)) > 1:
        pictures.append(
            Picture(
                f"sequence-{number}",
                "The remapping, magnified: the messages between the nodes, from the guest's first frame on.",
                sequence(WIDE),
                sequence(NARROW),
                {"origin": entry["origin"], "marks": marks},
            )
        )
    return tuple(pictures)


def _subtitle(summary: Mapping[str, Any]) -> str:
    parts = [summary["mechanism"] or "no mechanism", substrate_line(summary)]
    return " · ".join(parts)


def _set_pictures(summary: Mapping[str, Any]) -> tuple[Picture, ...]:
    """The distribution of every metric, that of the outage first."""
    return distributions(summary["migrations"], summary["statistics"], summary, _subtitle(summary), "")


def distributions(
    migrations: Sequence[Mapping[str, Any]],
    statistics: Mapping[str, Any],
    source: Mapping[str, Any],
    subtitle: str,
    suffix: str,
) -> tuple[Picture, ...]:
    """The distributions of the metrics that were measured often enough.

    Args:
        migrations: entries of the summary, or of several.
        statistics: of these migrations.
        source: says `substrate` and `probe_interval_ms`.
        subtitle: what was run, with substrate and accelerator.
        suffix: of the pictures' names.
    """
    pictures = []
    for metric, (name, _) in metric_names(source["substrate"]).items():
        found = [(migration, value_of(migration, metric)) for migration in counted(migrations)]
        values = tuple((int(migration["index"]), value) for migration, value in found if value is not None)
        if len(values) < DISTRIBUTED:
            continue
        entry = statistics[metric]
        sharpness_ms = float(source["probe_interval_ms"] or 0.0) if metric in WHOLE_INTERVALS else 0.0
        sample = Sample(name, values, entry["median"], tuple(entry["outliers"]), sharpness_ms)
        pictures.append(_distribution(metric, suffix, sample, subtitle))
    return tuple(pictures)


def _distribution(metric: str, suffix: str, sample: Sample, subtitle: str) -> Picture:
    name = f"distribution-{metric.removesuffix('_ms')}{suffix}"
    title = f"{sample.name[0].upper()}{sample.name[1:]}"
    wide, narrow = (draw_distribution(name, sample, title, subtitle, layout) for layout in (WIDE, NARROW))
    values = [{"index": index, "value": value} for index, value in sample.values]
    caption = (
        "Left, the share of migrations that were not above x; right, every migration in the order of execution. "
        "Outliers, beyond 1.5 interquartile ranges, are marked and never removed."
    )
    data = {"metric": metric, "values": values, "median": sample.median, "outliers": list(sample.outliers)}
    return Picture(name, caption, wide, narrow, data, metric)
