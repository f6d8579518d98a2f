"""The report in a real browser: on a screen, a tablet and a telephone, light and dark, on paper, and clicked at."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path

import pytest

from testbed.measure.grid import row
from testbed.report import build_report, build_set_report
from testbed.report.sweep import sweep_data, write_sweep
from tests.browser import PAPER_WIDTH, View, browser, check_report, open_page, opened
from tests.unit.measure.synthetic import Story, write_run
from tests.unit.measure.test_captured import captured_run
from tests.unit.measure.test_report import with_an_ipv6_eid, write_pcap
from tests.waiting import wait_until

ROOT = Path(__file__).parents[3]
THERE, BACK = Story(), Story(source="site-b", destination="site-a")
CAPTURE = {"node": "xtr-b", "interface": "xtr-b-eid", "file": "pcap/xtr-b-xtr-b-eid.pcapng", "dropped": 0}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of six migrations with a capture, a log and a console."""
    folder = write_run(tmp_path_factory.mktemp("browser") / "run", [THERE, BACK] * 3, captures=[CAPTURE])
    for name in ("pcap", "logs/xtr-a", "console"):
        (folder / name).mkdir(parents=True)
    write_pcap(folder / str(CAPTURE["file"]), [(0, "52:54:00:00:00:0a")])
    (folder / "logs" / "xtr-a" / "xtr-a.log").write_text("said\n")
    (folder / "console" / "vm1.log").write_text("booted\n")
    build_report(folder)
    return folder / "report.html"


def test_the_report_in_a_browser(report: Path) -> None:
    check_report(report, pictures=("timeline", "waterfall", "distribution"))


def test_long_names_of_flows_and_many_of_them_have_room(tmp_path: Path) -> None:
    for folder in (with_an_ipv6_eid(write_run(tmp_path / "ipv6", [THERE])), captured_run(tmp_path / "captured")):
        build_report(folder)
        check_report(folder / "report.html")


def test_reports_of_several_runs_in_a_browser(report: Path, tmp_path: Path) -> None:
    """Of a set, and of a sweep."""
    other = write_run(tmp_path / "other", [Story(mechanism="pubsub")] * 6)
    build_set_report([report.parent, other], tmp_path / "set")
    check_report(tmp_path / "set" / "report.html", pictures=("groups", "distribution-stuntime"))
    summary = json.loads((report.parent / "summary.json").read_text())
    rows = [row({"one_way_ms": delay}, summary, [("r1", "PASS")]) for delay in (0, 10)]
    plan = {"name": "n", "description": "d", "seed": 1, "order": [{"one_way_ms": 0}, {"one_way_ms": 10}]}
    (tmp_path / "sweep").mkdir()
    write_sweep(tmp_path / "sweep", sweep_data(plan, {"one_way_ms": (0, 10)}, rows))
    check_report(tmp_path / "sweep" / "report.html", pictures=("remap-latency",))


def test_the_readme_picture_is_made_by_a_script(report: Path, tmp_path: Path) -> None:
    picture = tmp_path / "report.png"
    command = [str(ROOT / "script" / "screenshot"), str(report.parent), str(picture)]
    subprocess.run(command, env={**os.environ, "BROWSER": browser(), "HEIGHT": "700"}, check=True, capture_output=True)
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (1280, 700)
    nothing = subprocess.run([*command[:1], str(tmp_path)], check=False, capture_output=True, text=True)
    assert nothing.returncode == 2
    assert "next: script/screenshot" in nothing.stderr


#: Which place a link led to, whether it can be seen, and whether the window shows it.
TARGET = """(() => {
  const e = document.querySelector(":target");
  if (!e) return null;
  const r = e.getBoundingClientRect();
  const inView = r.top < innerHeight && r.bottom > 0;
  return JSON.stringify({id: e.id, seen: e.checkVisibility(), inView, text: e.textContent.slice(0, 400)});
})()"""


@pytest.mark.parametrize("view", [View(1280), View(390)], ids=str)
def test_a_click_on_a_gap_opens_its_probes_and_their_frames(report: Path, view: View) -> None:
    with opened(report, view) as tab:
        tip = tab.evaluate("document.querySelector('.p-plot a .p-loss title').textContent")
        assert "probes lost" in tip
        details = "document.querySelector('[id^=gap-0-]').parentElement.open"
        assert tab.evaluate(details) is False
        tab.click(".p-plot a text")
        wait_until(lambda: tab.evaluate(TARGET), "a click leads to the gap")
        target = json.loads(tab.evaluate(TARGET))
        assert target["id"].startswith("gap-0-icmp-to-guest-")
        assert target["seen"]
        assert target["inView"]
        assert tab.evaluate(details) is True
        assert "last seen" in target["text"]


def test_a_link_to_a_migration_that_is_closed_opens_it(report: Path) -> None:
    with opened(report, View(1280)) as tab:
        section = "document.querySelector('#migration-4')"
        assert tab.evaluate(f"{section}.checkVisibility()") is False
        tab.click("#migrations a[href='#migration-4']")
        wait_until(lambda: tab.evaluate(TARGET), "a click leads to the migration")
        assert tab.evaluate(f"{section}.checkVisibility()") is True
        target = json.loads(tab.evaluate(TARGET))
        assert (target["id"], target["inView"]) == ("migration-4", True)


def test_a_page_that_is_too_wide_or_reaches_out_is_found_out(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        "<!DOCTYPE html><img src='http://127.0.0.1:9/x.png'><div style='width:2000px'>wide</div>"
        "<script>console.error('said')</script>"
    )
    found = open_page(page, View(390))
    assert found.facts["overflow"] > 0
    assert "http://127.0.0.1:9/x.png" in found.requests
    assert any("said" in complaint for complaint in found.complaints)


def test_what_a_reader_would_miss_is_found_out(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        "<!DOCTYPE html><style>.scroll{overflow-x:auto}</style>"
        "<div class='scroll'><div style='width:2000px'>cut off</div></div>"
        "<p style='color:#eee'>faint</p><details><summary>more</summary><p>closed</p></details>"
        "<svg class='p-plot' viewBox='0 0 100 20' aria-labelledby='x'><text x='90' y='15'>longer than that</text></svg>"
    )
    facts = open_page(page, View(PAPER_WIDTH, paper=True)).facts
    assert len(facts["scrolling"]) == 1
    assert facts["faint"] == ["P.: faint"]
    assert facts["closed"] == ["DETAILS.: moreclosed"]
    assert facts["cut_in_plots"] == ["x: longer than that"]
