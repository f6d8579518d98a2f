"""Distributions: of every metric that was measured often enough, with median and marked outliers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from testbed.report import build_report, build_set_report
from testbed.report.plots.distribution import Sample, draw_distribution
from testbed.report.plots.theme import NARROW, WIDE, Layout
from testbed.report.words import METRIC_NAMES
from tests.unit.measure.synthetic import Story, write_run

#: t3 in ms from the request: the fourth of six is an outlier.
RESUMED = (1500.0, 1501.0, 1502.0, 2300.0, 1503.0, 1504.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stories = [
        Story().with_(**{f"t{n}": t3 + (n - 3) * 5 for n in range(3, 14)}) for t3 in RESUMED
    ]  # fmt: skip
    folder = write_run(tmp_path_factory.mktemp("distribution") / "run", stories)
    build_report(folder)
    return folder


def test_every_metric_has_its_distribution(run: Path) -> None:
    statistics = json.loads((run / "summary.json").read_text())["statistics"]
    measured = {name for name in METRIC_NAMES if statistics[name] and statistics[name]["n"] >= 5}
    drawn = {json.loads(p.read_text())["metric"] for p in (run / "plots").glob("distribution-*.json")}
    assert drawn == measured
    assert {"stuntime_ms", "vm_downtime_ms", "remap_latency_ms", "detection_ms"} <= drawn
    page = (run / "report.html").read_text()
    for path in (run / "plots").glob("distribution-*.json"):
        assert f'href="plots/{path.stem}.svg"' in page


def test_an_outlier_is_marked_in_the_picture_and_in_the_tables(run: Path) -> None:
    data = json.loads((run / "plots" / "distribution-vm_downtime.json").read_text())
    assert data["outliers"] == [3]
    assert "p-outlier" in (run / "plots" / "distribution-vm_downtime.svg").read_text()
    text = (run / "report.md").read_text()
    (row,) = re.findall(r"^\| VM downtime;.*$", text, re.MULTILINE)
    assert "no. 3" in row
    (row,) = re.findall(r"^\| \*\*3\*\*.*$", text, re.MULTILINE)
    assert " *" in row
    assert "beyond 1.5 interquartile ranges" in text


@pytest.mark.parametrize("layout", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("values", [(1.0, 2.0, 3.0, 9.0), (1.0, 2.0, 9.0), (5.0, 5.0)])
def test_the_median_is_drawn_whatever_n_is(values: tuple[float, ...], layout: Layout) -> None:
    median = sorted(values)[len(values) // 2] if len(values) % 2 else sum(sorted(values)[1:3]) / 2
    median = 5.0 if values == (5.0, 5.0) else median
    sample = Sample("outage", tuple(enumerate(values)), median, (), 0.0)
    svg = draw_distribution("x", sample, "title", "xen", layout).inline()
    assert svg.count('class="p-median"') == 2
    assert "median " in svg
    assert "nan" not in svg


def test_an_axis_is_not_finer_than_the_probes() -> None:
    same = ((0, 150.0), (1, 150.2))
    assert Sample("outage", same, 150.1, (), 10.0).range() == (140.0, 160.2)
    low, high = Sample("detection", ((0, 0.5), (1, 0.7)), 0.6, (), 0.0).range()
    assert (low, high) == (pytest.approx(0.484), pytest.approx(0.716))


def test_a_set_has_the_distributions_of_its_pools(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", [Story(mechanism="pubsub")] * 5)
    build_set_report([run, other], tmp_path / "set")
    names = {path.stem for path in (tmp_path / "set" / "plots").glob("distribution-*.json")}
    assert {"distribution-stuntime-0", "distribution-stuntime-1", "distribution-remap_latency-1"} <= names
    page, text = ((tmp_path / "set" / name).read_text() for name in ("report.html", "report.md"))
    for name in names:
        assert f"plots/{name}.svg" in page
        assert f"plots/{name}.svg" in text


def test_a_long_title_goes_over_two_lines() -> None:
    sample = Sample("outage", ((0, 1.0), (1, 2.0)), 1.5, (), 0.0)
    title = "Time above the 99th percentile of the baseline, pre-copy"
    narrow, wide = (draw_distribution("x", sample, title, "xen", layout).inline() for layout in (NARROW, WIDE))
    lines = re.findall(r'class="p-title"[^>]*>([^<]*)<', narrow)
    assert len(lines) == 2
    assert " ".join(lines) == title
    assert re.findall(r'class="p-title"[^>]*>([^<]*)<', wide) == [title]
