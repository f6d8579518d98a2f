"""Draw all pictures of a run, each wide and narrow, with its data beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from testbed.measure.analysis import Analysis, MigrationResult
from testbed.measure.headline import words_of
from testbed.measure.summary import Summary, counted
from testbed.report.plots.distribution import draw_distribution
from testbed.report.plots.sequence import draw_sequence, marks_of
from testbed.report.plots.svg import Canvas
from testbed.report.plots.theme import NARROW, WIDE, Layout
from testbed.report.plots.timeline import draw_timeline
from testbed.report.plots.waterfall import draw_waterfall
from testbed.report.words import substrate_line

#: From so many migrations on their distribution is drawn; the band around that of fewer says nothing.
DISTRIBUTED = 5


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture.

    Attributes:
        name: of its files, without ending.
        caption: one sentence below it.
        wide, narrow: for screens and for telephones.
        data: what it shows, JSON-serialisable.
    """

    name: str
    caption: str
    wide: Canvas
    narrow: Canvas
    data: Any


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
    """The distribution, where there is one."""
    values = [
        (entry["index"], entry["metrics"]["stuntime_ms"])
        for entry in counted(summary["migrations"])
        if entry["metrics"]["stuntime_ms"] is not None
    ]
    if len(values) < DISTRIBUTED:
        return ()
    outliers = summary["statistics"]["stuntime_ms"]["outliers"]

    def draw_one(layout: Layout) -> Canvas:
        title = f"Outage of the peer over {len(values)} migrations"
        return draw_distribution(values, outliers, summary["probe_interval_ms"], title, _subtitle(summary), layout)

    data = {
        "metric": "stuntime_ms",
        "values": [{"index": i, "value": v} for i, v in values],
        "outliers": outliers,
    }
    caption = "Left, the share of migrations with an outage not above x; right, every migration in its order."
    return (Picture("distribution-stuntime", caption, draw_one(WIDE), draw_one(NARROW), data),)
