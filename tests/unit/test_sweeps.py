"""A sweep's folder remembers what is done, and refuses another sweep's."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.errors import TestbedError
from testbed.lab.session import Study, read_study
from testbed.lab.sweeps import Done, SweepFolder
from testbed.spec import Cell, cells_of

ROOT = Path(__file__).parents[2]
MECHANISMS = ROOT / "experiments" / "mechanisms.yaml"


def study(*overrides: str) -> Study:
    return read_study(MECHANISMS, overrides)


def test_the_order_is_shuffled_by_the_seed_and_complete(tmp_path: Path) -> None:
    first, again = (SweepFolder(tmp_path / name, study()).order for name in ("a", "b"))
    other = SweepFolder(tmp_path / "c", study("seed=2")).order
    sweep = study().experiment.sweep
    assert sweep is not None
    assert first == again != other
    assert first != cells_of(sweep)
    assert sorted(cell.slug for cell in other) == sorted(cell.slug for cell in cells_of(sweep))


def test_a_resumed_sweep_knows_what_is_done(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path, study())
    done = Done(folder.order[0], "r2", "PASS", (("r1", "INVALID"), ("r2", "PASS")))
    folder.record(done)
    resumed = SweepFolder(tmp_path, study())
    assert resumed.done(folder.order[0]) == done
    assert done.conclusive
    assert not Done(folder.order[0], "r1", "INVALID", (("r1", "INVALID"),)).conclusive
    assert [resumed.done(cell) for cell in resumed.order[1:]] == [None] * (len(resumed.order) - 1)


def test_a_part_of_a_sweep_keeps_its_order(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path, study())
    assert folder.chosen([]) == folder.order
    part = folder.chosen(["mechanism=pubsub", "mechanism=ttl", "one_way_ms=10"])
    assert part == [
        cell for cell in folder.order if cell["mechanism"] in ("pubsub", "ttl") and cell["one_way_ms"] == 10
    ]
    assert len(part) == 2
    with pytest.raises(TestbedError, match="the sweep has no 'mechanism=gossip'"):
        folder.chosen(["mechanism=gossip"])


def test_a_mechanism_that_waits_for_a_timer_has_a_short_one() -> None:
    overrides = {cell["mechanism"]: cell.overrides for cell in cells_of_mechanisms()}
    assert "lisp.registration_ttl_minutes=1" in overrides["ttl"]
    assert overrides["pubsub"] == ["mechanism=pubsub", "one_way_ms=50"]


def cells_of_mechanisms() -> list[Cell]:
    sweep = study().experiment.sweep
    assert sweep is not None
    return cells_of(sweep)


def test_the_folder_of_another_sweep_is_refused(tmp_path: Path) -> None:
    SweepFolder(tmp_path, study())
    with pytest.raises(TestbedError, match="holds a sweep of another experiment"):
        SweepFolder(tmp_path, study("probes.interval_ms=5"))


def test_an_experiment_without_a_grid_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match="netns-quick has no sweep section"):
        SweepFolder(tmp_path / "never", read_study(ROOT / "experiments" / "netns-quick.yaml"))
    assert not (tmp_path / "never").exists()


def test_a_cells_overrides_reach_the_plan() -> None:
    delays = {link.impairment.delay_ms for link in study("one_way_ms=50").plan.links}
    assert delays == {25.0}
