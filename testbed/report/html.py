"""The report as one self-contained HTML file: no script, no network, one hashed style sheet."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup, escape

from testbed.measure.headline import PARTS, Words, duration, rounded_parts, words_of
from testbed.measure.model import protocol_of
from testbed.measure.phases import PHASES
from testbed.measure.summary import Summary, value_of
from testbed.report.evidence import evidence, impairments
from testbed.report.pictures import Picture, Pictures
from testbed.report.plots.theme import CSS
from testbed.report.plots.timeline import gap_anchor
from testbed.report.tables import COMPARISON_COLUMNS, comparison_rows, pool_rows
from testbed.report.words import (
    MARK_WORDS,
    badges,
    figure,
    interval,
    limiter_words,
    mark_name,
    metric_names,
    precise_figure,
)

#: So many migrations have their pictures in the page; those of the others are files beside it.
PICTURES_SHOWN = 5


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


def render(summary: Summary, manifest: Mapping[str, Any], pictures: Pictures, topology_svg: str) -> str:
    """Write the page.

    Args:
        summary: of the run.
        manifest: manifest.json.
        pictures: of the run.
        topology_svg: an SVG document, or "".
    """
    data, css = summary.data, style_sheet()
    words = words_of(data["substrate"])
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            s=data,
            css=css,
            css_hash=csp_hash(css),
            badges=badges(data),
            pause=words.pause,
            pictures=pictures,
            shown=PICTURES_SHOWN,
            figure=figure,
            limiter_words=limiter_words,
            interval=interval,
            mark_name=mark_name,
            mark_words=MARK_WORDS,
            metric_names=metric_names(data["substrate"]),
            median_note=_median_note(data),
            hero=_hero(data),
            share=lambda metric: _share(data, metric),
            parts_of=lambda migration: parts_of(migration, words),
            missing_reason=lambda metric: missing_reason(data, metric),
            verdict_reasons=verdict_reasons(data),
            evidence=evidence,
            gap_anchor=gap_anchor,
            protocol_of=protocol_of,
            capture_files={f"{c['node']}-{c['interface']}": c["file"] for c in manifest.get("captures") or ()},
            emulated=manifest.get("emulated") or [],
            topology=base64.b64encode(topology_svg.encode()).decode() if topology_svg else "",
            facts=facts(manifest),
            impairments=impairments(manifest),
            command=command_of(manifest),
            manifest=manifest,
            manifest_text=json.dumps(manifest, indent=2, ensure_ascii=False),
        )
    )


def render_set(data: Mapping[str, Any], pictures: Sequence[Picture]) -> str:
    """Write the page of a set of runs.

    Args:
        data: summary.json of the set.
        pictures: of the set.
    """
    css = style_sheet()
    comparisons = [{**one, "rows": comparison_rows(one)} for one in data["comparisons"]]
    return (
        _environment()
        .get_template("set.html.j2")
        .render(
            s=data,
            css=css,
            css_hash=csp_hash(css),
            pictures=pictures,
            pool_rows=pool_rows(data),
            comparisons=comparisons,
            columns=COMPARISON_COLUMNS,
        )
    )


def render_sweep(
    data: Mapping[str, Any],
    pictures: Sequence[Picture],
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    how: str,
) -> str:
    """Write the page of a sweep.

    Args:
        data: sweep.json.
        pictures: of the sweep.
        columns: of the table.
        rows: of the table.
        how: the sweep was made, in words.
    """
    css = style_sheet()
    kinds = list(dict.fromkeys(" · ".join(badges(row)) for row in data["rows"]))
    return (
        _environment()
        .get_template("sweep.html.j2")
        .render(
            s=data, css=css, css_hash=csp_hash(css), pictures=pictures, columns=columns, rows=rows, kinds=kinds, how=how
        )
    )


def _median_note(data: Mapping[str, Any]) -> str:
    entry = data["statistics"]["stuntime_ms"]
    if entry is None or entry["n"] == 1:
        return "as the probes saw it"
    return f"median of {entry['n']}"


def _hero(data: Mapping[str, Any]) -> dict[str, str]:
    """The outage and its parts as the page shows them largest; of one migration they add up as read."""
    entries = {name: data["statistics"][name] for name in ("stuntime_ms", *(f"{part}_ms" for part in PARTS))}
    if not all(entries.values()):
        return {}
    medians = {name: entry["median"] for name, entry in entries.items()}
    whole_ms = medians.pop("stuntime_ms")
    if entries["stuntime_ms"]["n"] == 1:
        written = dict(zip(medians, rounded_parts(list(medians.values()), whole_ms), strict=True))
    else:
        written = {name: duration(median) for name, median in medians.items()}
    return {"stuntime_ms": duration(whole_ms), **written}


def _share(data: Mapping[str, Any], metric: str) -> str:
    """A part's share of the outage; of several migrations, of the medians."""
    whole, part = data["statistics"]["stuntime_ms"], data["statistics"][metric]
    if not whole or not part or not whole["median"]:
        return ""
    return f"{100 * part['median'] / whole['median']:.0f} %"


def parts_of(migration: Mapping[str, Any], words: Words) -> list[dict[str, str]]:
    """The rows of a migration's table of parts."""
    rows = [
        ("stuntime_ms", "", "outage of the peer", "last answered probe before → first after"),
        ("vm_downtime_ms", "hyper", f"{words.downtime} ({words.pause})", ""),
        ("reconnection_ms", "hyper", "reconnection", ""),
        *((f"{phase}_ms", "net", phase, "") for phase in PHASES),
        ("unattributed_ms", "rest", "unattributed", ""),
        ("remap_latency_ms", "net", "remapping latency, whole", ""),
        ("migration_time_ms", "hyper", "migration time, whole", ""),
    ]
    result = []
    for metric, cls, name, between in rows:
        key = metric.removesuffix("_ms")
        ends = migration["phases_between"].get(key)
        value = value_of(migration, metric)
        why = migration["reasons"].get(metric) or migration["reasons"].get(key, "")
        if metric == "unattributed_ms" and value is not None:
            between = "; ".join(
                f"{rest['after']} → {rest['before']}: {precise_figure(rest['length_ms'])}"
                for rest in migration["unattributed"]
            )
        if metric == "stuntime_ms" and value is not None:
            why = f"{precise_figure(migration['metrics']['stuntime_by_send_ms'])} by send times"
        result.append(
            {
                "cls": cls,
                "name": name,
                "value": precise_figure(value),
                "between": between or (f"{ends[0]} → {ends[1]}" if ends else ""),
                "note": why,
            }
        )
    return result


def missing_reason(data: Mapping[str, Any], metric: str) -> str:
    """Why a metric has no statistics: the first migration's reason."""
    for migration in data["migrations"]:
        reasons = migration["reasons"]
        why = reasons.get(metric) or reasons.get(metric.removesuffix("_ms"))
        if why:
            return str(why)
    return "no migration succeeded" if data["migrations"] else "nothing was migrated"


def verdict_reasons(data: Mapping[str, Any]) -> list[str]:
    """Why a run did not pass, one sentence each."""
    reasons = []
    if data["verdict"] in ("ERROR", "SKIPPED") and data["migrations"]:
        reasons.append((data["outcome"] or {}).get("error") or "the run ended before it wrote its outcome")
    for finding in data["validity"]:
        if finding["severity"] == "invalid" and finding["ok"] is False:
            reasons.append(f"Not trustworthy: {finding['name']}: {finding['detail']}")
    for outcome in data["thresholds"]:
        if outcome["holds"]:
            reasons.append(f"Failed because {outcome['expression']}: {outcome['detail']}")
    return reasons


def facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was run and where, as name and value."""
    host = manifest.get("host") or {}
    accelerator = manifest.get("accelerator")
    reason = manifest.get("accelerator_reason")
    rows = [
        ("mechanism", manifest.get("mechanism")),
        ("hypervisor", manifest.get("hypervisor")),
        ("substrate", manifest.get("substrate")),
        ("accelerator", f"{accelerator}: {reason}" if reason else accelerator),
        ("guests", _listed(manifest.get("guests"))),
        ("sites", _listed(manifest.get("sites"))),
        ("probes", _listed(manifest.get("probes"))),
        ("baseline, settle", f"{manifest.get('baseline_s')} s, {manifest.get('settle_s')} s"),
        ("seed", manifest.get("seed")),
        ("machine", _listed({key: host[key] for key in ("cpu", "cores", "kernel") if key in host})),
        ("load before, after", f"{host.get('load_before')}, {host.get('load_after')}"),
        ("versions", _listed(manifest.get("versions"))),
        ("commit", manifest.get("git_commit")),
        ("overrides", _listed(manifest.get("overrides"))),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "", "None")]


def _listed(value: Any) -> str:
    """A list or an object as one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_listed(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_listed(item) for item in value)
    return "" if value is None else str(value)


def command_of(manifest: Mapping[str, Any]) -> str:
    """The command that ran it, quoted for a shell."""
    command = manifest.get("command") or ""
    return command if isinstance(command, str) else shlex.join(str(word) for word in command)
