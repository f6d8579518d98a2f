"""Reports of several runs together, and comparisons of two."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from testbed.measure.sets import Pool, compare_pools, pool, pool_summary
from testbed.measure.summary import counted
from testbed.report.build import build_report, seeded
from testbed.report.html import render_set
from testbed.report.load import RunFolderError
from testbed.report.pictures import Picture, distributions
from testbed.report.plots.groups import Group, draw_groups
from testbed.report.plots.theme import NARROW, WIDE
from testbed.report.set_tables import comparison_table, pool_table
from testbed.report.words import METRIC_NAMES, badges
from testbed.report.write import write_checksums, write_pictures

#: Bootstraps over several runs have no run's seed; this one makes them repeatable.
SET_SEED = 0


def run_folders(path: Path) -> list[Path]:
    """The run folders that a path means: itself, or those in it, by name (and so by time).

    Raises:
        RunFolderError: if there is none.
    """
    if (path / "manifest.json").is_file():
        return [path]
    found = sorted(entry.parent for entry in path.glob("*/manifest.json"))
    if not found:
        raise RunFolderError(path, "there is no manifest.json in it, nor in the folders below")
    return found


def summary_of(run: Path) -> Mapping[str, Any]:
    """The summary of a run: summary.json, which is built first if it is not there."""
    path = run / "summary.json"
    if not path.exists():
        return build_report(run).data
    try:
        summary = json.loads(path.read_text())
    except ValueError as error:
        raise RunFolderError(run, f"summary.json: {error}") from error
    if not isinstance(summary, dict) or summary.get("schema_version") != 1:
        raise RunFolderError(run, "summary.json is not of schema version 1")
    if "conditions" not in summary:
        raise RunFolderError(run, "summary.json does not say under which conditions it ran", f"testbed report {run}")
    return summary


def pool_of(paths: Sequence[Path]) -> list[Pool]:
    """The pools of all runs that some paths mean."""
    return pool([summary_of(run) for path in paths for run in run_folders(path)])


def compare_runs(
    a: Path, b: Path, *, across_substrates: bool = False, across_conditions: bool = False
) -> dict[str, Any]:
    """Compare two runs, or folders of runs.

    Args:
        a: the reference.
        b: the candidate.
        across_substrates: allow different substrates or accelerators.
        across_conditions: allow different conditions.

    Raises:
        IncomparableError: see `compare_pools`.
        RunFolderError: for a folder without runs, or with runs of different kinds.
    """
    allowed = {"across_substrates": across_substrates, "across_conditions": across_conditions}
    return compare_pools(_only_pool(a), _only_pool(b), seeded(SET_SEED), **allowed)


def _only_pool(path: Path) -> Pool:
    pools = pool_of([path])
    if len(pools) > 1:
        raise RunFolderError(path, "its runs are of different kinds: " + "; ".join(one.name for one in pools))
    return pools[0]


def build_set_report(run_dirs: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write one report of several runs: summary.json, report.html, report.md, plots/, SHA256SUMS.

    Runs are pooled by substrate, accelerator, mechanism and conditions; each pool is compared with the first one
    that differs in the mechanism only.

    Args:
        run_dirs: run folders, or folders of them.
        out: the folder to write, made if need be.

    Returns:
        the content of summary.json.
    """
    pools, rng = pool_of(run_dirs), seeded(SET_SEED)
    firsts: dict[tuple[Any, ...], Pool] = {}
    comparisons = []
    for one in pools:
        first = firsts.setdefault((one.substrate, one.accelerator, repr(one.conditions)), one)
        if first is not one:
            comparisons.append(compare_pools(first, one, rng))
    data = {
        "schema_version": 1,
        "pools": [pool_summary(one, rng) for one in pools],
        "comparisons": comparisons,
    }
    groups, distributed = _pictures(pools, data), _distributions(pools, data)
    pictures = [*groups, *distributed]
    out.mkdir(parents=True, exist_ok=True)
    write_pictures(out / "plots", pictures)
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    (out / "summary.json").write_text(text + "\n")
    (out / "report.md").write_text(set_markdown(data, pictures))
    (out / "report.html").write_text(render_set(data, groups, distributed))
    write_checksums(out)
    return data


def _pictures(pools: Sequence[Pool], data: Mapping[str, Any]) -> list[Picture]:
    groups = []
    for one, entry in zip(pools, data["pools"], strict=True):
        statistics, values = entry["statistics"]["stuntime_ms"], one.values("stuntime_ms")
        if statistics is not None:
            ends = tuple(statistics["ci95"]) if statistics["ci95"] else None
            groups.append(Group(one.label, " · ".join(badges(entry)), tuple(values), statistics["median"], ends))
    if not groups:
        return []
    kinds = " / ".join(dict.fromkeys(group.badges for group in groups))
    title = "Outage of the peer by mechanism"
    wide, narrow = (draw_groups(groups, title, kinds, layout) for layout in (WIDE, NARROW))
    caption = "Every dot is a migration; the line is the median, the band its 95 % interval (from n = 6 on)."
    shown = [{"name": g.name, "badges": g.badges, "values_ms": list(g.values)} for g in groups]
    return [Picture("groups-stuntime", caption, wide, narrow, shown)]


def _distributions(pools: Sequence[Pool], data: Mapping[str, Any]) -> list[Picture]:
    """The distribution of every metric, those of the pools that were measured often enough side by side."""
    found: list[Picture] = []
    for number, (one, entry) in enumerate(zip(pools, data["pools"], strict=True)):
        numbered = [{**migration, "index": index} for index, migration in enumerate(counted(one.migrations))]
        subtitle = " · ".join([one.mechanism or "no mechanism", *badges(entry)])
        found += distributions(numbered, entry["statistics"], entry, subtitle, f"-{number}")
    order = list(METRIC_NAMES)
    return sorted(found, key=lambda picture: order.index(picture.metric))


def comparison_markdown(comparison: Mapping[str, Any]) -> str:
    """A comparison as Markdown."""
    intro = (
        f"A is `{comparison['a']}`, B is `{comparison['b']}`; differences are medians of B minus those of A; "
        f"nothing below {comparison['floor_ms']:g} ms, the probe interval, counts."
    )
    head = [f"## {comparison['b']} against {comparison['a']}", "", intro, "", *left_out_lines(comparison), ""]
    return "\n".join([*head, *comparison_table(comparison).markdown()])


def left_out_lines(comparison: Mapping[str, Any]) -> list[str]:
    """What is not in a comparison, or not the same on its two sides, a line each."""
    lines = [f"- {name}: A {values[0]}, B {values[1]}" for name, values in comparison["conditions_apart"].items()]
    for side in ("a", "b"):
        left_out = comparison["left_out"][side]
        lines += [f"- left out of {side.upper()}: {run['run_id']} ({run['verdict']})" for run in left_out]
        if not comparison["counted"][side]:
            lines.append(f"- {side.upper()} is empty: no migration of it counts, so nothing was compared")
    return lines


def set_markdown(data: Mapping[str, Any], pictures: Sequence[Picture]) -> str:
    """A set report as Markdown; the pictures are linked as files."""
    lines = ["# Outage of the peer by mechanism", ""]
    lines += pool_table(data).markdown()
    for one in data["pools"]:
        lines += [f"- left out of {one['name']}: {run['run_id']} ({run['verdict']})" for run in one["left_out"]]
    lines += ["", *(comparison_markdown(comparison) for comparison in data["comparisons"])]
    lines += [f"![{picture.name}](plots/{picture.name}.svg)\n" for picture in pictures]
    return "\n".join(lines) + "\n"
