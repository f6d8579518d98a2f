"""`testbed validate` and `testbed graph`, as a person or a script calls them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from testbed.cli.graph import graph
from testbed.cli.validate import validate

ROOT = Path(__file__).parents[2]
TOPOLOGIES = sorted((ROOT / "topologies").glob("*.yaml"))
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))
SVG = "{http://www.w3.org/2000/svg}"

app = typer.Typer()
app.command()(validate)
app.command()(graph)
runner = CliRunner()


def wrong_copy(tmp_path: Path) -> Path:
    text = (ROOT / "topologies/two-sites.yaml").read_text().replace("delay_ms: 5", "delay: 5", 1)
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    return path


def test_every_file_of_the_repository_is_valid() -> None:
    assert TOPOLOGIES
    assert EXPERIMENTS
    result = runner.invoke(app, ["validate", *map(str, TOPOLOGIES + EXPERIMENTS)])
    assert result.exit_code == 0, result.stderr
    assert len(result.stdout.splitlines()) == len(TOPOLOGIES + EXPERIMENTS)


def test_a_mistake_is_said_with_its_place_and_the_exit_code_is_11(tmp_path: Path) -> None:
    wrong = wrong_copy(tmp_path)
    result = runner.invoke(app, ["validate", str(TOPOLOGIES[0]), str(wrong)])
    assert result.exit_code == 11
    assert f"{TOPOLOGIES[0]}: topology" in result.stdout
    line = next(n for n, text in enumerate(wrong.read_text().splitlines(), 1) if "delay:" in text)
    assert f"{wrong}:{line}:10: unknown key 'delay'; did you mean 'delay_ms'?" in result.stderr


def test_json_has_every_problem_as_data(tmp_path: Path) -> None:
    wrong = wrong_copy(tmp_path)
    result = runner.invoke(app, ["validate", "--format", "json", str(wrong), str(EXPERIMENTS[0])])
    assert result.exit_code == 11
    first, second = json.loads(result.stdout)["files"]
    assert first["kind"] == "topology"
    (problem,) = first["problems"]
    assert (problem["file"], problem["column"]) == (str(wrong), 10)
    assert (second["kind"], second["problems"]) == ("experiment", [])


def test_a_topology_that_is_not_there_is_the_experiments_problem(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(EXPERIMENTS[0].read_text())
    result = runner.invoke(app, ["validate", str(path)])
    assert result.exit_code == 11
    assert f"{path}: topology '../topologies/two-sites.yaml' cannot be read" in result.stderr


@pytest.mark.parametrize(("name", "content"), [("none.yaml", None), ("binary.yaml", b"\xff\xfe\0")])
def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    for command in ("validate", "graph"):
        result = runner.invoke(app, [command, str(path)])
        assert result.exit_code == 11
        assert str(path) in result.stderr


@pytest.mark.parametrize("path", TOPOLOGIES + EXPERIMENTS, ids=lambda path: path.stem)
def test_every_file_is_drawn_in_every_format(path: Path) -> None:
    for name, beginning in (("svg", "<svg "), ("mermaid", "flowchart TB"), ("dot", 'graph "')):
        result = runner.invoke(app, ["graph", str(path), "--format", name])
        assert result.exit_code == 0, result.stderr
        assert result.stdout.startswith(beginning)


def test_the_svg_says_every_address_in_words(tmp_path: Path) -> None:
    out = tmp_path / "two-sites.svg"
    result = runner.invoke(app, ["graph", str(ROOT / "topologies/two-sites.yaml"), "--out", str(out)])
    assert (result.exit_code, result.stdout) == (0, "")
    words = [text.text for text in ET.parse(out).iter(f"{SVG}text")]
    for expected in ("core", "RLOC 10.0.1.2", "EID 192.168.0.10", "RLOC 10.0.0.2", "EID 192.168.3.10"):
        assert expected in words
    assert words.count("5 ms · 1 Gbit/s · MTU 9000") == 4


@pytest.mark.parametrize("path", TOPOLOGIES, ids=lambda path: path.stem)
def test_the_svg_keeps_everything_inside_and_apart(tmp_path: Path, path: Path) -> None:
    out = tmp_path / "topology.svg"
    runner.invoke(app, ["graph", str(path), "--out", str(out)])
    root = ET.parse(out).getroot()
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    boxes = [
        tuple(float(rect.get(key, 0)) for key in ("x", "y", "width", "height")) for rect in root.iter(f"{SVG}rect")
    ]
    assert all(x >= 0 and y >= 0 and x + w <= width and y + h <= height for x, y, w, h in boxes)
    for i, (x, y, w, h) in enumerate(boxes):
        for u, v, s, t in boxes[i + 1 :]:
            apart = x + w <= u or u + s <= x or y + h <= v or v + t <= y
            within = u >= x and v >= y and u + s <= x + w and v + t <= y + h
            assert apart or within, ((x, y, w, h), (u, v, s, t))


def test_a_topology_that_is_wrong_is_not_drawn(tmp_path: Path) -> None:
    result = runner.invoke(app, ["graph", str(wrong_copy(tmp_path))])
    assert (result.exit_code, result.stdout) == (11, "")
    assert "unknown key 'delay'" in result.stderr


def test_the_pictures_in_the_readme_are_the_current_ones() -> None:
    readme = (ROOT / "topologies/README.md").read_text()
    for path in TOPOLOGIES:
        drawn = runner.invoke(app, ["graph", str(path), "--format", "mermaid"]).stdout
        assert f"## `{path.name}`" in readme
        assert f"```mermaid\n{drawn}```\n" in readme, f"draw {path.name} again"


def test_the_readme_of_the_experiments_has_them_all() -> None:
    readme = (ROOT / "experiments/README.md").read_text()
    for path in EXPERIMENTS:
        assert f"`{path.name}`" in readme
