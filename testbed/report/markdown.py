"""The report as Markdown, for a pull request or a job's summary page: the same tables and words as the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from testbed.measure.headline import Words, words_of
from testbed.measure.reasons import verdict_reasons
from testbed.measure.summary import Summary
from testbed.report import migration_tables as one
from testbed.report.evidence import impairments_table
from testbed.report.pictures import Picture, Pictures
from testbed.report.run_tables import (
    calibration_table,
    checks_table,
    command_of,
    facts,
    figures_table,
    migrations_table,
    trust,
)
from testbed.report.words import (
    CALIBRATION_WORDS,
    CLOCK_WORDS,
    bound_words,
    limiter_words,
    migration_title,
    raw_files,
    substrate_line,
    unexplained_words,
)


def markdown(
    summary: Summary, manifest: Mapping[str, Any], pictures: Pictures, files: Sequence[str], *, topology: bool
) -> str:
    """Write the report; the pictures are linked as files.

    Args:
        summary: of the run.
        manifest: manifest.json.
        pictures: of the run.
        files: of the run's folder, relative to it.
        topology: whether there is a topology.svg.
    """
    data = summary.data
    words, where = words_of(data["substrate"]), substrate_line(data)
    lines = [
        f"# {data['verdict']}: {data['headline']}",
        "",
        f"`{where}` · `{data['mechanism'] or 'no mechanism'}` · run `{data['run_id']}`",
        "",
        *(f"> {reason}\n" for reason in verdict_reasons(data)),
        *(f"> Emulated: {text}\n" for text in manifest.get("emulated") or ()),
        *_pictures(pictures.set[:1]),
    ]
    if pictures.set[1:]:
        rest = [f"![{picture.name}](plots/{picture.name}.svg)\n" for picture in pictures.set[1:]]
        lines += _folded("The distribution of every other metric", rest)
    if data["migrations"]:
        lines += [f"## All migrations ({where})", "", *migrations_table(data, files).markdown()]
    lines += [f"## Figures ({where})", "", *figures_table(data).markdown()]
    lines += ["## Can it be trusted?", "", f"{trust(data).words}.", "", *checks_table(data).markdown(), CLOCK_WORDS, ""]
    if data["calibration"]:
        lines += ["### Calibration: outages of known length", "", CALIBRATION_WORDS, ""]
        lines += calibration_table(data).markdown()
    for number, migration in enumerate(data["migrations"]):
        told = _migration(migration, data, manifest, pictures.migrations[migration["index"]], files, words)
        is_open = number == 0 or migration["verdict"] != "PASS"
        lines += told if is_open else _folded(migration_title(migration), told)
    lines += ["## What was run", ""]
    lines += ["![the topology](topology.svg)", ""] if topology else []
    lines += [*(f"- {name}: {value}" for name, value in facts(manifest)), ""]
    effects = impairments_table(manifest)
    if effects.rows:
        lines += ["### Impairments, requested and read back", "", *effects.markdown()]
    lines += ["### Run it again", "", "```", command_of(manifest), "```", ""]
    lines += ["Raw data: " + ", ".join(f"[{name}]({name})" for name in raw_files(files)) + ".", ""]
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    lines += _folded("Manifest", ["```json", text, "```", ""])
    return "\n".join(lines)


def _folded(summary: str, lines: Sequence[str]) -> list[str]:
    """Lines that open at a click."""
    return [f"<details><summary>{escape(summary)}</summary>", "", *lines, "</details>", ""]


def _pictures(pictures: Sequence[Picture]) -> list[str]:
    return [line for p in pictures for line in (f"![{p.name}](plots/{p.name}.svg)", "", f"*{p.caption}*", "")]


def _migration(
    migration: Mapping[str, Any],
    data: Mapping[str, Any],
    manifest: Mapping[str, Any],
    pictures: Sequence[Picture],
    files: Sequence[str],
    words: Words,
) -> list[str]:
    """One migration: its pictures, parts, timeline, gaps, probes, evidence, raw data."""
    warm_up = ", warm-up, not counted" if migration["warm_up"] else ""
    lines = [f"## {migration_title(migration)} ({substrate_line(data)}): {migration['verdict']}{warm_up}", ""]
    lines += [f"> {note}\n" for note in (migration["error"], unexplained_words(migration)) if note]
    lines += _pictures(pictures)
    lines += ["### Parts of the outage", ""]
    lines += one.parts_table(migration, words, data["probe_interval_ms"]).markdown()
    if migration["bound"]:
        before, formula, after = bound_words(migration["bound"])
        theory = f"{before} `{formula}`, {after}" if formula else before
        lines += [f"{theory} {limiter_words(migration)}", ""]
    lines += ["### Timeline: what was seen, by whom, how surely", "", *one.timeline_table(migration).markdown()]
    lines += ["### Gaps: every run of unanswered probes", ""]
    captures = one.capture_files(manifest, files)
    lines += one.gaps_table(migration, captures).markdown() or ["None: every probe was answered.", ""]
    lines += ["### Probes", "", *(one.probes_table(migration).markdown() or ["No probe log was found.", ""])]
    if migration["tcp"]:
        lines += ["### TCP connections through the migration", "", *one.tcp_table(migration).markdown()]
    lines += ["### Was it the same guest, and is it here only?", ""]
    lines += one.evidence_table(migration).markdown() or ["It was not verified: the run ended before.", ""]
    names = [picture.name for picture in pictures]
    return [*lines, "### Raw data of this migration", "", *one.raw_table(migration, manifest, files, names).markdown()]
