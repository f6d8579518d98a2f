"""Reports of synthetic run folders: complete, self-contained, the same bytes every time."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import dpkt
import pyarrow.parquet as parquet
import pytest

from testbed.report import build_report
from testbed.report.html import csp_hash
from testbed.report.load import RunFolderError, load, load_probes
from testbed.report.plots.svg import Scale, spread
from tests.folders import digests
from tests.unit.measure.synthetic import EID, MAC, MS, START_NS, WALL_OFFSET_NS, Story, clock, write_run

FAILED = Story(ok=False, error="timed out <after> 30 s & more").without(*(f"t{n}" for n in range(3, 14)))
STORIES = {
    "one": [Story()],
    "several": [Story(), Story(source="site-b", destination="site-a"), Story()],
    "failed": [FAILED],
    "none": [],
    "pubsub": [Story(mechanism="pubsub")],
}


@pytest.fixture(params=sorted(STORIES))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", STORIES[request.param])


def test_built_twice_is_byte_identical(folder: Path) -> None:
    """The second time from Parquet, the first time from JSONL."""
    build_report(folder)
    first = digests(folder)
    build_report(folder)
    assert digests(folder) == first
    assert {"summary.json", "report.html", "report.md", "junit.xml", "gaps.parquet", "SHA256SUMS"} <= set(first)


def test_built_elsewhere_is_byte_identical(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", STORIES["several"])
    other = tmp_path / "a" / "b"
    shutil.copytree(one, other)
    build_report(one)
    build_report(other)
    assert digests(one) == digests(other)


def test_checksums_are_right(folder: Path) -> None:
    build_report(folder)
    listed = dict(reversed(line.split("  ", 1)) for line in (folder / "SHA256SUMS").read_text().splitlines())
    found = digests(folder)
    found.pop("SHA256SUMS")
    assert listed == found


class References(HTMLParser):
    """Everything in a page that could fetch something, run something, or break the policy."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.forbidden: list[str] = []
        self.policy = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("script", "link", "iframe", "object", "embed", "base", "form"):
            self.forbidden.append(tag)
        self.forbidden += [f"{tag} {name}" for name in values if name == "style" or name.startswith("on")]
        self.fetched += [values[name] or "" for name in ("src", "srcset", "xlink:href") if name in values]
        if tag == "a" and re.match(r"(?i)[a-z]+:|//", values.get("href") or ""):
            self.forbidden.append(f"a {values['href']}")
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"] or ""


def test_page_needs_no_network_and_keeps_its_policy(folder: Path) -> None:
    (folder / "topology.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    build_report(folder)
    page = (folder / "report.html").read_text()
    found = References()
    found.feed(page)
    assert found.forbidden == []
    assert all(reference.startswith("data:image/svg+xml;base64,") for reference in found.fetched)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert f"style-src 'sha256-{csp_hash(style)}'" in found.policy
    assert "default-src 'none'" in found.policy
    assert "@import" not in style
    assert "url(" not in style
    assert "alert(1)" not in page


class Words(HTMLParser):
    """The pieces of text of a page's tables, captions and paragraphs below its header."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self._inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("header", "td", "th", "p", "figcaption", "dd", "pre", "h3"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._inside:
            self._inside.remove(tag)

    def handle_data(self, data: str) -> None:
        if self._inside and "header" not in self._inside:
            self.pieces += [line.strip() for line in data.splitlines()] if "pre" in self._inside else [data.strip()]


@pytest.mark.parametrize("story", sorted(STORIES))
def test_markdown_says_what_the_page_says(story: str, tmp_path: Path) -> None:
    """Every piece of text of the page's tables, captions and paragraphs is in the Markdown, in its place's words."""
    captures = [{"node": "xtr-b", "interface": "eid", "file": "pcap/xtr-b-eid.pcapng", "dropped": 0}]
    folder = write_run(tmp_path / "run", STORIES[story], captures=captures, emulated=["the links: relay"])
    (folder / "topology.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    (folder / "pcap").mkdir()
    write_pcap(folder / captures[0]["file"], [(0, MAC)])
    build_report(folder, fail_if=["stuntime_ms.median > 1"])
    page = Words()
    page.feed((folder / "report.html").read_text())
    raw = (folder / "report.md").read_text()
    text = " ".join(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"\*\*|`|\\(?=\|)", "", raw)).split())
    links = {"SVG", "data", ",", ".", "Pictures:", ":"}
    absent = [piece for piece in page.pieces if " ".join(piece.split()) not in text and piece not in links]
    assert absent == []
    assert "![the topology](topology.svg)" in raw
    assert '"run_id"' in raw


def test_every_migration_has_a_place_and_a_row_that_leads_to_its_data(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", STORIES["several"])
    (folder / "logs" / "ms").mkdir(parents=True)
    (folder / "logs" / "ms" / "ms.log").write_text("said\n")
    build_report(folder)
    page = (folder / "report.html").read_text()
    navigation = re.search(r"<nav.*?</nav>", page, re.DOTALL)
    assert navigation is not None
    overview = re.search(r'<section id="migrations">.*?</section>', page, re.DOTALL)
    assert overview is not None
    for number in range(3):
        assert f'id="migration-{number}"' in page
        assert f'href="#migration-{number}"' in navigation[0]
        assert f'href="#migration-{number}"' in overview[0]
        assert f'href="#data-{number}"' in overview[0]
        assert f"rows of migration {number}" in page
    assert overview[0].count('href="logs/"') == 3
    assert "seq 0 to 398, the baseline included" in page
    assert "seq 400 to 798, the baseline included" in page
    assert 'href="pcap/"' not in page  # nothing was captured


def test_one_migration_has_its_row_too(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [Story()])
    build_report(folder)
    assert 'href="#data-0"' in (folder / "report.html").read_text()
    assert "## All migrations" in (folder / "report.md").read_text()


def test_links_of_a_picture_lead_into_the_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [Story()])
    build_report(folder)
    page = (folder / "report.html").read_text()
    for name in ("timeline-0.svg", "timeline-0-narrow.svg"):
        anchors = re.findall(r'<a href="([^"]*)"', (folder / "plots" / name).read_text())
        assert anchors
        for anchor in anchors:
            file, _, place = anchor.partition("#")
            assert file == "../report.html"
            assert f'id="{place}"' in page


def test_text_from_outside_is_escaped(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [FAILED])
    build_report(folder)
    assert "timed out &lt;after&gt; 30 s &amp; more" in (folder / "report.html").read_text()
    ElementTree.fromstring((folder / "junit.xml").read_text())


def test_pictures_are_well_formed_and_have_their_data(folder: Path) -> None:
    build_report(folder)
    for picture in (folder / "plots").glob("*.svg"):
        root = ElementTree.fromstring(picture.read_text())
        assert root.find("{http://www.w3.org/2000/svg}title") is not None
        assert "nan" not in picture.read_text()
        assert json.loads((folder / "plots" / f"{picture.stem.removesuffix('-narrow')}.json").read_text())


def test_substrate_and_accelerator_are_on_everything(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", STORIES["several"])
    build_report(folder)
    for picture in (folder / "plots").glob("*.svg"):
        text = "".join(ElementTree.fromstring(picture.read_text()).itertext())
        assert "xen" in text, picture
        assert "tcg (emulated)" in text, picture
    assert "xen · tcg (emulated)" in (folder / "report.md").read_text()


def test_summary_has_the_contract(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [Story()])
    build_report(folder)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["schema_version"] == 1
    keys = {
        "run_id",
        "verdict",
        "substrate",
        "accelerator",
        "hypervisor",
        "mechanism",
        "migrations",
        "statistics",
    }
    assert keys <= set(summary)
    (migration,) = summary["migrations"]
    assert {
        "index",
        "verdict",
        "guest",
        "source",
        "destination",
        "metrics",
        "phases_ms",
        "gaps",
        "events",
    } <= set(migration)
    metrics = {"migration_time_ms", "vm_downtime_ms", "stuntime_ms", "remap_latency_ms", "unattributed_ms",
               "probes_sent", "probes_lost", "probes_duplicated"}  # fmt: skip
    assert metrics <= set(migration["metrics"])
    assert {"flow", "direction", "start_ms", "length_ms", "lost"} <= set(migration["gaps"][0])
    assert {"kind", "source", "t_ms"} <= set(migration["events"][0])
    assert {"n", "median", "ci95", "iqr", "min", "max"} <= set(summary["statistics"]["stuntime_ms"])
    assert migration["bound"]["bound_ms"] == 7 + 7 + 15 + 12 + 12


def test_emulated_guest_is_not_called_a_vm(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [Story()], substrate="netns", accelerator="none", hypervisor=None)
    build_report(folder)
    for name in ("report.html", "report.md", "plots/waterfall-0.svg", "plots/waterfall-0-narrow.svg"):
        text = (folder / name).read_text().replace("not a VM", "")
        assert "emulated guest" in text
        assert not re.search(r"\bVM\b", text), name


def with_an_ipv6_eid(folder: Path) -> Path:
    for name in ("plan.json", "events.jsonl"):
        path = folder / name
        path.write_text(path.read_text().replace(EID, "fd00::10"))
    return folder


def test_an_echo_to_an_ipv6_eid_is_called_icmpv6(tmp_path: Path) -> None:
    """Wherever people read it; in the data the flow keeps the name that the experiment gives it."""
    folder = with_an_ipv6_eid(write_run(tmp_path / "run", [Story()]))
    (migration,) = build_report(folder).data["migrations"]
    assert [gap["flow"] for gap in migration["gaps"]] == ["icmp"]
    assert migration["metrics"]["remap_latency_ms"] is not None
    for file in ("report.md", "report.html", "junit.xml", "plots/timeline-0.svg"):
        text = (folder / file).read_text()
        assert "icmpv6 to-guest" in text
        assert "icmp to-guest" not in text


def test_several_migrations_have_their_own_baselines_and_windows(tmp_path: Path) -> None:
    summary = build_report(write_run(tmp_path / "run", STORIES["several"])).data
    assert [m["source"] for m in summary["migrations"]] == ["site-a", "site-b", "site-a"]
    assert summary["verdict"] == "PASS"
    assert summary["statistics"]["vm_downtime_ms"]["n"] == 3
    for migration in summary["migrations"]:
        assert len(migration["gaps"]) == 1
        assert migration["metrics"]["vm_downtime_ms"] == 700.0
        assert migration["probes"][0]["baseline_sent"] in (99, 100)


def test_gaps_and_probes_in_parquet(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [Story()])
    before = load_probes(folder / "probes")
    summary = build_report(folder).data
    assert not list((folder / "probes").glob("*.jsonl"))
    (after,), (log,) = load_probes(folder / "probes"), before
    for column in ("seq", "scheduled_ns", "sent_ns", "received_ns", "replies"):
        assert (getattr(after, column) == getattr(log, column)).all()
    rows = parquet.read_table(folder / "gaps.parquet").to_pylist()
    assert [row["length_ms"] for row in rows] == [g["length_ms"] for g in summary["migrations"][0]["gaps"]]


def test_conversion_killed_in_between_counts_no_probe_twice(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [Story()])
    log = (folder / "probes" / "icmp.jsonl").read_text()
    sent = build_report(folder).data["migrations"][0]["metrics"]["probes_sent"]
    (folder / "probes" / "icmp.jsonl").write_text(log)
    assert build_report(folder).data["migrations"][0]["metrics"]["probes_sent"] == sent


def test_torn_last_lines_are_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [Story()])
    for name in ("events.jsonl", "probes/icmp.jsonl"):
        with (folder / name).open("a") as file:
            file.write('{"mono_ns": 12')
    assert build_report(folder).verdict.value == "PASS"


def test_first_and_last_frames_from_captures(tmp_path: Path) -> None:
    captures = [
        {
            "node": "xen-a",
            "interface": "tap0",
            "site": "site-a",
            "file": "pcap/xen-a-tap0.pcapng",
            "dropped": 0,
        },
        {"node": "xtr-b", "interface": "xtr-b-eid", "file": "pcap/xtr-b-xtr-b-eid.pcapng", "dropped": 0},
    ]
    folder = write_run(tmp_path / "run", [Story().without("t4")], captures=captures)
    (folder / "pcap").mkdir()
    write_pcap(folder / captures[0]["file"], [(700, MAC), (796, MAC), (798, "00:00:5e:00:01:01")])
    write_pcap(folder / captures[1]["file"], [(-100, MAC), (1400, "00:00:5e:00:01:01"), (1512, MAC), (1600, MAC)])
    (migration,) = build_report(folder).data["migrations"]
    t4 = next(e for e in migration["events"] if e["label"] == "t4")
    assert t4["via"] == "frame"
    assert t4["source"] == "capture xtr-b-xtr-b-eid"
    assert t4["t_ms"] == pytest.approx(712, abs=0.001)
    t2 = next(e for e in migration["events"] if e["label"] == "t2")
    assert t2["via"] == "libxl"
    assert t2["others"][0]["difference_ms"] == pytest.approx(-4, abs=0.001)


def write_pcap(path: Path, frames: list[tuple[float, str]]) -> None:
    with path.open("wb") as file:
        writer = dpkt.pcapng.Writer(file)
        for at_ms, mac in frames:
            data = b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) + b"\x08\x06" + bytes(46)
            writer.writepkt(data, ts=(START_NS + at_ms * MS + WALL_OFFSET_NS) / 1e9)


def test_junit_counts(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [Story(), FAILED], clock=clock(3))
    build_report(folder, fail_if=["stuntime_ms.median > 1"])
    suite = ElementTree.fromstring((folder / "junit.xml").read_text())
    assert suite.get("failures") == "2"  # the migration and the threshold
    assert suite.get("errors") == "1"  # the clock
    assert suite.get("tests") == str(len(suite.findall("testcase")))


def test_run_without_migration_is_not_an_empty_success(tmp_path: Path) -> None:
    outcome = {"ok": False, "error": "xen-a did not boot", "code": 11}
    folder = write_run(tmp_path / "run", [], outcome=outcome)
    assert build_report(folder).exit_code == 11
    suite = ElementTree.fromstring((folder / "junit.xml").read_text())
    assert suite.find("testcase/error[@message='Nothing was migrated: xen-a did not boot']") is not None


def test_run_skipped_before_it_had_a_plan(tmp_path: Path) -> None:
    manifest = {"run_id": "x", "substrate": "xen", "accelerator": None, "mechanism": "ttl",
                "outcome": {"ok": False, "error": "no image of dom0", "code": 13}}  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    summary = build_report(tmp_path)
    assert summary.exit_code == 13
    assert summary.headline == "Nothing was migrated, a prerequisite is missing: no image of dom0"
    suite = ElementTree.fromstring((tmp_path / "junit.xml").read_text())
    assert suite.find("testcase[@name='the run']/skipped") is not None


def test_request_without_plan_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [Story()])
    (folder / "plan.json").unlink()
    with pytest.raises(RunFolderError) as caught:
        build_report(folder)
    assert "lacks 'sites'" in str(caught.value)


def test_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="not the folder of a whole run"):
        load(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(RunFolderError) as caught:
        load(tmp_path)
    assert "not an object" in str(caught.value)


def test_spread_keeps_labels_apart_and_inside() -> None:
    placed = spread([10, 11, 12, 90], [20, 20, 20, 20], 0, 100)
    assert all(b - a >= 19.9 for a, b in pairwise(placed))
    assert placed[0] >= 9.9
    assert placed[-1] <= 90.1


@pytest.mark.parametrize(
    ("low", "high", "at_most", "ticks"),
    [
        (0, 10, 5, [0, 2, 4, 6, 8, 10]),
        (-140, 1150, 10, [0, 200, 400, 600, 800, 1000]),
        (3, 4, 2, [3, 3.5, 4]),
    ],
)
def test_ticks_are_round(low: float, high: float, at_most: int, ticks: list[float]) -> None:
    assert Scale(low, high, 0, 100).ticks(at_most) == ticks
