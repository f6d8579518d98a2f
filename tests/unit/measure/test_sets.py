"""Several runs together, and two against each other: what is pooled, what is refused, what is said."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from testbed.cli.compare import compare as compare_command
from testbed.cli.report import report as report_command
from testbed.measure.sets import IncomparableError
from testbed.report import build_report, build_set_report, compare_runs
from testbed.report.html import csp_hash
from testbed.report.load import RunFolderError
from tests.unit.measure.synthetic import Story, clock, write_run


def stories(mechanism: str, extra_ms: float, number: int = 8) -> list[Story]:
    """Migrations whose ITR learns `extra_ms` later, a few milliseconds apart from each other."""
    return [
        Story(mechanism=mechanism).with_(
            t10=1560.0 + extra_ms + 7 * i,
            t11=1590.0 + extra_ms + 7 * i,
            t12=1592.0 + extra_ms + 7 * i,
            t13=1594.0 + extra_ms + 7 * i,
        )
        for i in range(number)
    ]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    for name, mechanism, extra_ms in (("1", "ttl", 400.0), ("2", "pubsub", 0.0)):
        write_run(folder / name, stories(mechanism, extra_ms), run_id=name)
    write_run(folder / "3", stories("ttl", 0.0, 1), run_id="3", clock=clock(50))
    return folder


def test_faster_mechanism_has_improved(runs: Path) -> None:
    found = compare_runs(runs / "1", runs / "2")["metrics"]
    assert found["stuntime_ms"]["word"] == "improved"
    assert found["stuntime_ms"]["difference"] == pytest.approx(-400, abs=12)
    assert found["vm_downtime_ms"]["word"] == "within noise"
    assert found["resolution_ms"] is None  # with PubSub there is none
    assert compare_runs(runs / "2", runs / "1")["metrics"]["stuntime_ms"]["word"] == "regressed"


def test_run_against_itself_is_within_noise(runs: Path) -> None:
    found = compare_runs(runs / "2", runs / "2")["metrics"]["stuntime_ms"]
    assert found["word"] in ("within noise", "cannot tell")
    assert found["difference"] == 0


@pytest.mark.parametrize("changed", [{"substrate": "netns"}, {"accelerator": "kvm"}])
def test_different_substrates_need_a_flag(runs: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    other = write_run(tmp_path / "other", stories("pubsub", 0.0), **changed)
    with pytest.raises(IncomparableError, match="not compared"):
        compare_runs(runs / "2", other)
    assert compare_runs(runs / "2", other, across_substrates=True)["metrics"]["stuntime_ms"] is not None


def delayed(folder: Path, delay_ms: float) -> Path:
    """The folder of a run, with another delay on all links of its plan."""
    plan = json.loads((folder / "plan.json").read_text())
    for link in plan["links"]:
        link["impairment"]["delay_ms"] = delay_ms
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder


def other_conditions(folder: Path, what: str) -> Path:
    """A folder with a run of `pubsub` under other conditions."""
    if what == "delay":
        return delayed(write_run(folder, stories("pubsub", 0.0)), 50.0)
    if what == "option":
        return write_run(folder, stories("pubsub", 0.0), experiment={"lisp": {"proxy_reply": False}})
    written = write_run(folder, stories("pubsub", 0.0))
    log = written / "probes" / "icmp.jsonl"
    log.write_text(log.read_text().replace('"flow": "icmp", "direction": "to-guest"', what))
    return written


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("delay", "B has links.delay_ms 50.0"),
        ("option", "B has lisp.proxy_reply False"),
        ('"flow": "udp", "direction": "from-guest"', "B has outage_of udp from-guest"),
    ],
)
def test_different_conditions_are_named_and_need_a_flag(runs: Path, tmp_path: Path, what: str, named: str) -> None:
    other = other_conditions(tmp_path / "other", what)
    with pytest.raises(IncomparableError, match="different conditions") as caught:
        compare_runs(runs / "2", other)
    assert named in caught.value.why
    assert caught.value.next_command == "testbed compare A B --across-conditions"
    result = invoke(compare_command, str(runs / "2"), str(other), "--across-conditions")
    assert result.exit_code == 0, result.output
    assert f"- {named.split()[2]}: A " in result.output


def test_delays_are_not_pooled(tmp_path: Path) -> None:
    """Two runs at 0 ms and at 50 ms are two pools, whose names say so, and neither is compared with the other."""
    for name, delay_ms in (("near", 0.0), ("far", 50.0)):
        delayed(write_run(tmp_path / name, stories("ttl", 0.0, 1), run_id=name), delay_ms)
    data = build_set_report([tmp_path / "near", tmp_path / "far"], tmp_path / "set")
    assert [(one["runs"], one["name"]) for one in data["pools"]] == [
        (["near"], "ttl · xen · tcg · links.delay_ms 0.0"),
        (["far"], "ttl · xen · tcg · links.delay_ms 50.0"),
    ]
    assert data["comparisons"] == []


def test_run_that_broke_off_early_does_not_make_a_folder_mixed(tmp_path: Path) -> None:
    """It has no probes, no accelerator and may have no plan: left out of the pool that it would have been in."""
    outcome = {"ok": False, "error": "xen-a did not boot", "code": 11}
    early = write_run(tmp_path / "a" / "0", [], run_id="early", outcome=outcome, accelerator=None, mechanism="ttl")
    (early / "probes" / "icmp.jsonl").unlink()
    (early / "plan.json").unlink()
    write_run(tmp_path / "a" / "1", stories("ttl", 0.0), run_id="whole")
    write_run(tmp_path / "b", stories("ttl", 0.0))
    result = invoke(compare_command, str(tmp_path / "a"), str(tmp_path / "b"))
    assert result.exit_code == 0, result.output
    assert "- left out of A: early (ERROR)" in result.output


def test_comparison_with_nothing_is_no_success(tmp_path: Path) -> None:
    write_run(tmp_path / "a", stories("ttl", 0.0))
    write_run(tmp_path / "b" / "1", stories("ttl", 0.0), run_id="stepped", clock=clock(50))
    failed = [*stories("ttl", 0.0, 1), Story(mechanism="ttl", ok=False, error="refused")]
    write_run(tmp_path / "b" / "2", failed, run_id="failed and stepped", clock=clock(50))
    result = invoke(compare_command, str(tmp_path / "a"), str(tmp_path / "b"), "--fail-on-regression")
    assert result.exit_code == 12
    assert "- left out of B: stepped (INVALID)\n" in result.output
    assert "- left out of B: failed and stepped (FAIL)\n" in result.output
    assert "- B is empty: no migration of it counts" in result.output


def test_summary_of_an_older_version_is_to_be_built_again(runs: Path) -> None:
    path = runs / "1" / "summary.json"
    build_report(runs / "1")
    summary = json.loads(path.read_text())
    del summary["conditions"]
    path.write_text(json.dumps(summary))
    with pytest.raises(RunFolderError) as caught:
        compare_runs(runs / "1", runs / "2")
    assert caught.value.next_command == f"testbed report {runs / '1'}"


def test_folder_of_different_kinds_is_refused(runs: Path) -> None:
    with pytest.raises(RunFolderError) as caught:
        compare_runs(runs, runs / "1")
    assert "different kinds" in str(caught.value)


def test_set_report(runs: Path, tmp_path: Path) -> None:
    data = build_set_report([runs], tmp_path / "set")
    assert [(one["mechanism"], one["statistics"]["stuntime_ms"]["n"]) for one in data["pools"]] == [
        ("ttl", 8),  # the run with the stepped clock is left out, and said so
        ("pubsub", 8),
    ]
    assert data["pools"][0]["left_out"] == [{"run_id": "3", "verdict": "INVALID"}]
    assert data["comparisons"][0]["metrics"]["stuntime_ms"]["word"] == "improved"
    page = (tmp_path / "set" / "report.html").read_text()
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert csp_hash(style) in page
    assert not re.search(r"(src|href)=\"(https?:)?//", page)
    first = {p.name: p.read_bytes() for p in (tmp_path / "set").rglob("*") if p.is_file()}
    build_set_report([runs], tmp_path / "set")
    assert {p.name: p.read_bytes() for p in (tmp_path / "set").rglob("*") if p.is_file()} == first


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError):
        build_set_report([tmp_path], tmp_path / "out")


def invoke(command: Any, *words: str) -> Any:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(words))


def test_report_command(runs: Path, tmp_path: Path) -> None:
    result = invoke(report_command, str(runs / "1"), str(runs / "2"), "--together", str(tmp_path / "set"))
    assert result.exit_code == 0, result.output
    assert result.output.count("PASS: vm1 moved 8 times") == 2
    assert (tmp_path / "set" / "report.html").exists()


def test_report_command_as_json_fails_on_a_threshold(runs: Path, tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    result = invoke(
        report_command,
        str(runs / "1"),
        "--format",
        "json",
        "--junit",
        str(junit),
        "--fail-if",
        "stuntime_ms > 9",
    )
    assert result.exit_code == 10
    assert json.loads(result.output)["verdict"] == "FAIL"
    assert "<failure" in junit.read_text()


def test_report_command_prints_every_threshold_and_why_a_run_is_invalid(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [Story().without("t4")])
    junit = tmp_path / "junit.xml"
    thresholds = ("--fail-if", "stuntime_ms > 9999", "--fail-if", "remap_latency_ms > 10")
    result = invoke(report_command, str(folder), "--junit", str(junit), *thresholds)
    assert result.exit_code == 12
    assert result.output.startswith("INVALID: vm1 moved from site-a to site-b")
    assert "  Not decided: remap_latency_ms > 10: remap_latency_ms.max = not measured\n" in result.output
    assert "  fail if stuntime_ms > 9999: no (stuntime_ms.max = " in result.output
    assert "  fail if remap_latency_ms > 10: not decided: invalid (" in result.output
    assert "  outage measured by icmp to-guest; probes: " in result.output
    assert re.search(r" P99 of lateness 0\.\d+ ms \(icmp to-guest\), every 10 ms\n", result.output)
    assert 'error message="not decided: remap_latency_ms.max = not measured" type="not measured"' in junit.read_text()


def test_report_command_has_the_worst_exit_code(runs: Path) -> None:
    assert invoke(report_command, str(runs)).exit_code == 12


def test_compare_command(runs: Path) -> None:
    result = invoke(compare_command, str(runs / "2"), str(runs / "1"), "--fail-on-regression")
    assert result.exit_code == 10
    # "regressed by 212 ms (95 % CI 140 ms to 290 ms), n = 8 against 8"
    said = re.search(
        r"stuntime\) +regressed by (\d+) ms \(95 % CI (\d+) ms to (\d+) ms\), n = 8 against 8", result.output
    )
    assert said
    difference, low, high = map(int, said.groups())
    assert low <= difference <= high
    assert invoke(compare_command, str(runs / "1"), str(runs / "2"), "--fail-on-regression").exit_code == 0
    as_json = invoke(compare_command, str(runs / "1"), str(runs / "2"), "--format", "json")
    assert json.loads(as_json.output)["metrics"]["stuntime_ms"]["word"] == "improved"
    as_markdown = invoke(compare_command, str(runs / "1"), str(runs / "2"), "--format", "markdown")
    assert "| outage of the peer (stuntime)" in as_markdown.output


def test_threshold_of_the_manifest_is_kept_when_rebuilt(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [Story()], fail_if=["stuntime_ms.median > 1"])
    assert build_report(folder).exit_code == 10
