"""Whatever the text, a file is either a model or a list of placed problems."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.plan import build_plan
from testbed.spec import SpecError, kind_of, load_experiment, load_topology

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
TOPOLOGY = (ROOT / "topologies/two-sites.yaml").read_text()
EXPERIMENT = (ROOT / "experiments/netns-quick.yaml").read_text()
SYNTAX = ["", " ", "\t", "\n", ":", "- ", "{", "}", "[", "]", "&a ", "*a", "<<: *a", "!!int ", "|", "#", "'", '"']
VALUES = ["---\n", "null", "-1", "1e999", "0x10", "2020-01-01", "192.168.0.0/24", "10.0.1.2", "site-b", "\0", "é"]
SCRAPS = st.sampled_from(SYNTAX + VALUES)


@st.composite
def damaged(draw: st.DrawFn, text: str) -> str:
    """The text with a few pieces replaced by scraps."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        text = text[:start] + draw(SCRAPS) + text[end:]
    return text


def placed_or(load: Callable[[], T]) -> T | None:
    """Return what `load` returns, or None if it raises problems that all have a place."""
    caught: SpecError
    try:
        return load()
    except SpecError as error:
        caught = error
    assert caught.problems
    assert all(problem.line and problem.column and problem.what for problem in caught.problems)
    return None


@given(damaged(TOPOLOGY) | st.text())
def test_a_damaged_topology_has_a_plan_or_placed_problems(text: str) -> None:
    topology = placed_or(lambda: load_topology(text, "t.yaml"))
    if topology is not None:
        build_plan(topology)


@given(damaged(EXPERIMENT) | st.text())
def test_a_damaged_experiment_has_placed_problems_if_any(text: str) -> None:
    topology = load_topology(TOPOLOGY, "t.yaml")
    experiment = placed_or(lambda: load_experiment(text, "e.yaml", topology=topology))
    if experiment is not None:
        build_plan(topology, experiment)


@given(damaged(TOPOLOGY) | st.text())
def test_the_kind_of_any_text_is_known_or_refused(text: str) -> None:
    assert placed_or(lambda: kind_of(text, "t.yaml")) in ("topology", "experiment", None)


@pytest.mark.parametrize("text", ["&a\nb: *a\n", "a: " + 600 * "[", "a: " + 600 * "[" + 600 * "]"])
def test_what_has_no_end_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"t\.yaml:1:1: nested too deeply"):
        load_topology(text, "t.yaml")


@pytest.mark.parametrize("text", ["!!int name: x\n", "a: !!float b\n", "a: !!timestamp x\n", "a: !!binary '*'\n"])
def test_a_tag_that_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"t\.yaml:1:\d+: "):
        load_topology(text, "t.yaml")
