"""The report as one self-contained HTML file: no script, no network, one hashed style sheet."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup, escape

from testbed.measure.headline import PARTS, duration, words_of, written_parts
from testbed.measure.reasons import verdict_reasons
from testbed.measure.summary import Summary
from testbed.report import migration_tables as one
from testbed.report.evidence import impairments_table
from testbed.report.pictures import Picture, Pictures
from testbed.report.plots.theme import CSS
from testbed.report.run_tables import (
    calibration_table,
    command_of,
    facts,
    figures_table,
    migrations_table,
    trust,
)
from testbed.report.set_tables import comparison_table, pool_table
from testbed.report.tables import Table
from testbed.report.words import (
    CALIBRATION_WORDS,
    CLOCK_WORDS,
    badges,
    bound_words,
    limiter_words,
    migration_title,
    raw_files,
    unexplained_words,
)

#: Class of the colour of each of PARTS.
KINDS = ("hyper", "net", "rest")

#: So many migrations have their pictures in the page; those of the others are files beside it.
PICTURES_SHOWN = 5
#: With more checks than this only those that do not hold are open.
CHECKS_SHOWN = 16


def unbroken(text: str) -> Markup:
    """A text of which no line ends within a word with hyphens ("site-a") or between a figure and its unit."""
    text = re.sub(r"(\d) (ms|s)\b", "\\1\N{NO-BREAK SPACE}\\2", text)
    words = (
        escape(word) if "-" not in word else Markup('<span class="nb">{}</span>').format(word)
        for word in text.split(" ")
    )
    return Markup(" ").join(words)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("testbed.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["unbroken"] = unbroken
    return environment


def style_sheet() -> str:
    """The page's whole style sheet, without the newline at its end."""
    loader = _environment().loader
    assert loader is not None
    source, _, _ = loader.get_source(_environment(), "style.css")
    return (source + CSS).strip()


def csp_hash(text: str) -> str:
    """The hash by which a content security policy admits an inline style sheet."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def render(
    summary: Summary, manifest: Mapping[str, Any], pictures: Pictures, files: Sequence[str], topology_svg: str
) -> str:
    """Write the page.

    Args:
        summary: of the run.
        manifest: manifest.json.
        pictures: of the run.
        files: in the RAW_FOLDERS of the run's folder, relative to it.
        topology_svg: an SVG document, or "".
    """
    data = summary.data
    words = words_of(data["substrate"])
    captures = one.capture_files(manifest, files)
    return _page(
        "report.html.j2",
        s=data,
        badges=badges(data),
        pictures=pictures,
        shown=PICTURES_SHOWN,
        hero=hero_of(data),
        verdict_reasons=verdict_reasons(data),
        emulated=manifest.get("emulated") or [],
        migrations=migrations_table(data, files),
        figures=figures_table(data),
        trust=trust(data),
        checks_shown=CHECKS_SHOWN,
        calibration=calibration_table(data),
        parts=lambda migration: one.parts_table(migration, words, data["probe_interval_ms"]),
        timeline=one.timeline_table,
        gaps=lambda migration: one.gaps_table(migration, captures),
        probes=one.probes_table,
        tcp=one.tcp_table,
        evidence=one.evidence_table,
        raw=lambda migration, names: one.raw_table(migration, manifest, files, names),
        facts=facts(manifest),
        impairments=impairments_table(manifest),
        command=command_of(manifest),
        topology=base64.b64encode(topology_svg.encode()).decode() if topology_svg else "",
        manifest_text=json.dumps(manifest, indent=2, ensure_ascii=False),
        raw_files=raw_files(files),
        title_of=migration_title,
        bound_words=bound_words,
        limiter_words=limiter_words,
        unexplained_words=unexplained_words,
        calibration_words=CALIBRATION_WORDS,
        clock_words=CLOCK_WORDS,
    )


def _page(template: str, **content: Any) -> str:
    """A template with its content and the style sheet that its policy admits."""
    css = style_sheet()
    return _environment().get_template(template).render(css=css, css_hash=csp_hash(css), **content)


def render_set(data: Mapping[str, Any], pictures: Sequence[Picture], distributions: Sequence[Picture]) -> str:
    """Write the page of a set of runs.

    Args:
        data: summary.json of the set.
        pictures: of the set, shown first.
        distributions: of every metric, that of the outage first.
    """
    comparisons = [{**compared, "table": comparison_table(compared)} for compared in data["comparisons"]]
    shown = [picture for picture in distributions if picture.metric == "stuntime_ms"]
    rest = [picture for picture in distributions if picture.metric != "stuntime_ms"]
    return _page(
        "set.html.j2",
        s=data,
        pictures=pictures,
        shown=shown,
        rest=rest,
        pools=pool_table(data),
        comparisons=comparisons,
    )


def render_sweep(data: Mapping[str, Any], pictures: Sequence[Picture], table: Table, how: str) -> str:
    """Write the page of a sweep.

    Args:
        data: sweep.json.
        pictures: of the sweep.
        table: of its combinations.
        how: the sweep was made, in words.
    """
    kinds = list(dict.fromkeys(" · ".join(badges(row)) for row in data["rows"]))
    return _page("sweep.html.j2", s=data, pictures=pictures, combinations=table, kinds=kinds, how=how)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the outage as the page shows it largest.

    Attributes:
        name: what it is.
        kind: class of its colour: "hyper", "net", "rest".
        time: how long, with its unit.
        share: of all parts, 0 … 1.
        start: the shares of the parts before it.
    """

    name: str
    kind: str
    time: str
    share: float
    start: float


@dataclass(frozen=True, slots=True)
class Hero:
    """The outage and its parts: how long, how surely, of how many."""

    time: str
    sharpness: str
    of: str
    parts: tuple[Part, ...]


def hero_of(data: Mapping[str, Any]) -> Hero | None:
    """What the page shows largest; of one migration the parts have a digit more. None if it was not measured."""
    whole, entries = data["statistics"]["stuntime_ms"], [data["statistics"][f"{part}_ms"] for part in PARTS]
    if whole is None or None in entries:
        return None
    medians = [float(entry["median"]) for entry in entries]
    if whole["n"] == 1:
        times = written_parts(medians, whole["median"])
        sharpness = f"± {data['probe_interval_ms']:g} ms" if data["probe_interval_ms"] else ""
        of = "between the last answered probe before the loss and the first after it"
    else:
        times = [duration(median) for median in medians]
        ends = whole["ci95"]
        sharpness = f"95 % interval {duration(ends[0])} to {duration(ends[1])}" if ends else ""
        of = f"median of {whole['n']} migrations; below, the medians of its parts, which need not add up"
    names = zip((words_of(data["substrate"]).pause, "the network's remapping", "unattributed"), KINDS, strict=True)
    total, start, parts = sum(medians), 0.0, []
    for (name, kind), time, median in zip(names, times, medians, strict=True):
        share = median / total if total else 0.0
        parts.append(Part(name, kind, time, share, start))
        start += share
    return Hero(duration(whole["median"]), sharpness, of, tuple(parts))
