"""`testbed bench`, as far as it goes without root."""

from __future__ import annotations

import json
import os

import pytest
from typer.testing import CliRunner

from testbed.cli.bench import app


@pytest.fixture
def anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not root, so that no process is measured."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@pytest.mark.usefixtures("anybody")
def test_mapping_as_json() -> None:
    arguments = ["mapping", "--sizes", "10,20", "--subscribers", "1,2", "--rounds", "1", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert set(result) == {"machine", "growth", "publications", "agent"}
    assert [row["eids"] for row in result["growth"]] == [10, 20]
    assert [row["subscribers"] for row in result["publications"]] == [1, 2]
    assert result["agent"] is None
    assert result["machine"]["cpus"] >= 1


@pytest.mark.usefixtures("anybody")
def test_mapping_as_text() -> None:
    done = CliRunner().invoke(app, ["mapping", "--sizes", "10", "--subscribers", "1", "--rounds", "1"])
    assert done.exit_code == 0, done.output
    header = next(line for line in done.stdout.splitlines() if "octets_per_eid" in line)
    assert header.split()[:2] == ["eids", "requests_per_s"]


@pytest.mark.parametrize("sizes", ["", "x", "0", "10,-1"])
def test_sizes_must_be_numbers(sizes: str) -> None:
    done = CliRunner().invoke(app, ["mapping", "--sizes", sizes, "--subscribers", "1"])
    assert done.exit_code == 2
