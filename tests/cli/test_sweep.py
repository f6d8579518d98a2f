"""`testbed sweep` says what is wrong with a grid before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from testbed.cli import app
from testbed.errors import TestbedError
from testbed.spec import SpecError

ROOT = Path(__file__).parents[2]
RUNNER = CliRunner()


TEXT = (ROOT / "experiments" / "netns-quick.yaml").read_text()
#: Of the grid, below an experiment and the word `sweep:`.
LINE = TEXT.count("\n") + 2


def sweep_of(tmp_path: Path, grid: str) -> Path:
    text = TEXT.replace("../topologies", str(ROOT / "topologies"))
    path = tmp_path / "sweep.yaml"
    path.write_text(f"{text}sweep:\n  grid: {grid}\n")
    return path


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("{mechanism: [pubsub, gossip]}", f":{LINE}:30: 'gossip' is not known"),
        ("{one_way_ms: [1000000]}", f":{LINE}:23: 500000.0 is out of range; allowed: at most 60000"),
        ("{lisp.hodl: [true]}", f":{LINE}:22: unknown key 'hodl'; did you mean 'hold'?"),
        ("{}", "too few items"),
    ],
)
def test_a_wrong_grid_is_said_with_its_line(tmp_path: Path, grid: str, said: str) -> None:
    path = sweep_of(tmp_path, grid)
    result = RUNNER.invoke(app, ["sweep", str(path), "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, SpecError)
    assert f"{path}" in str(result.exception)
    assert said in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_validate_says_the_same(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["validate", "--format", "json", str(sweep_of(tmp_path, "{mechanism: [gossip]}"))])
    assert result.exit_code == 11
    (problem,) = json.loads(result.stdout)["files"][0]["problems"]
    assert (problem["line"], problem["column"]) == (LINE, 22)


def test_an_experiment_without_a_grid_says_what_a_sweep_needs(tmp_path: Path) -> None:
    quick = str(ROOT / "experiments" / "netns-quick.yaml")
    result = RUNNER.invoke(app, ["sweep", quick, "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, TestbedError)
    assert "has no sweep section" in str(result.exception)
    assert "sweep: {grid:" in str(result.exception)
