"""A sweep's grid: its combinations, and every mistake in it at its place."""

from __future__ import annotations

import pytest

from testbed.spec import SpecError, cells_of, check_grid, load_experiment, load_topology
from tests.unit.spec.test_problems import EXPERIMENT, TOPOLOGY

SWEEP = EXPERIMENT.replace("xen", "netns") + "sweep: {grid: {GRID}, repeat: 3}\n"


def with_grid(grid: str) -> str:
    return SWEEP.replace("GRID", grid)


def problems(grid: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        check_grid(with_grid(grid), "e.yaml", TOPOLOGY, overrides=[], topology_overrides=[])
    return [str(problem) for problem in caught.value.problems]


def test_every_combination_is_a_cell_in_the_order_of_the_grid() -> None:
    sweep = load_experiment(with_grid("mechanism: [ttl, pubsub], lisp.hold: [true, false]"), "e.yaml").sweep
    assert sweep is not None
    assert [cell.overrides for cell in cells_of(sweep)] == [
        ["mechanism=ttl", "lisp.hold=true"],
        ["mechanism=ttl", "lisp.hold=false"],
        ["mechanism=pubsub", "lisp.hold=true"],
        ["mechanism=pubsub", "lisp.hold=false"],
    ]
    assert len({cell.slug for cell in cells_of(sweep)}) == 4


def with_cases(cases: str) -> str:
    grid = "{grid: {mechanism: [ttl, pubsub], one_way_ms: [0, 10]}, cases: [CASES]}"
    return EXPERIMENT.replace("xen", "netns") + f"sweep: {grid.replace('CASES', cases)}\n"


def test_a_case_sets_what_its_combinations_need_and_no_others() -> None:
    cases = (
        "{when: {mechanism: [ttl]}, set: {warm_up: 1, lisp.hold: false}},"
        "{when: {mechanism: [ttl], one_way_ms: [10]}, set: {warm_up: 2}}"
    )
    sweep = load_experiment(with_cases(cases), "e.yaml").sweep
    assert sweep is not None
    assert [cell.overrides for cell in cells_of(sweep)] == [
        ["warm_up=1", "lisp.hold=false", "mechanism=ttl", "one_way_ms=0"],
        ["warm_up=2", "lisp.hold=false", "mechanism=ttl", "one_way_ms=10"],
        ["mechanism=pubsub", "one_way_ms=0"],
        ["mechanism=pubsub", "one_way_ms=10"],
    ]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("{when: {mechansim: [ttl]}, set: {warm_up: 1}}", "no key of the grid is called 'mechansim'; did you mean"),
        (
            "{when: {mechanism: [tll]}, set: {warm_up: 1}}",
            "'tll' is no value of mechanism in the grid; did you mean 'ttl'?",
        ),
        ("{when: {mechanism: [ttl]}, set: {one_way_ms: 1}}", "one_way_ms is a key of the grid; allowed: any other"),
        ("{when: {mechanism: [ttl]}, set: {warm_op: 1}}", "unknown key 'warm_op'; did you mean 'warm_up'?"),
        ("{when: {mechanism: [ttl]}, set: {sweep.repeat: 1}}", "a grid cannot change the sweep"),
        ("{set: {warm_up: 1}}", "key 'when' is missing"),
    ],
)
def test_a_mistake_in_a_case_is_said_at_its_place(case: str, said: str) -> None:
    def read() -> None:
        load_experiment(with_cases(case), "e.yaml")
        check_grid(with_cases(case), "e.yaml", TOPOLOGY, overrides=[], topology_overrides=[])

    with pytest.raises(SpecError) as caught:
        read()
    (problem,) = (str(each) for each in caught.value.problems)
    assert said in problem
    assert problem.startswith("e.yaml:9:")


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("mechanism: [ttl, pubsbu]", "e.yaml:9:33: 'pubsbu' is not known; did you mean 'pubsub'?"),
        ("mechansim: [ttl]", "e.yaml:9:28: unknown key 'mechansim'; did you mean 'mechanism'?"),
        ("probes.interval_ms: [10, 0]", "e.yaml:9:41: 0 is out of range; allowed: at least 0.2"),
        ("one_way_ms: [0, -10]", "is out of range; allowed: at least 0"),
        ("one_way_ms: [far]", "e.yaml:9:29: 'far' is no delay; allowed: milliseconds"),
        ("topology.sites.0.link.delay: [1]", "unknown key 'delay'; did you mean 'delay_ms'?"),
        ("sweep.repeat: [1]", "a grid cannot change the sweep"),
        ("mechanism: []", "e.yaml:9:27: too few items; allowed: at least 1"),
        ("mechanism: ttl", "e.yaml:9:27: 'ttl' is of the wrong type; allowed: a list"),
    ],
)
def test_a_mistake_in_the_grid_is_said_at_its_place(grid: str, said: str) -> None:
    assert any(said in problem for problem in problems(grid)), problems(grid)


def test_a_good_grid_has_no_problem() -> None:
    check_grid(
        with_grid("mechanism: [ttl, pubsub], one_way_ms: [0, 12.5], topology.sites.0.link.loss_percent: [1]"),
        "e.yaml", TOPOLOGY, overrides=[], topology_overrides=[],
    )  # fmt: skip


def test_one_way_is_the_delay_between_any_two_edges() -> None:
    topology = load_topology(TOPOLOGY, "t.yaml", overrides=["one_way_ms=25"])
    assert {site.link.delay_ms for site in topology.sites} == {12.5}
    assert topology.mapping_system.link.delay_ms == 12.5


@pytest.mark.parametrize(
    ("downtime", "said"),
    [
        ("{min: 80, max: 20}", "min 80 is more than max 20"),
        ("soon", "'soon' is no downtime; allowed: milliseconds, or {min: 50, max: 200}"),
        ("-1", "-1.0 is out of range; allowed: at least 0"),
        ("{min: 5}", "key 'max' is missing"),
    ],
)
def test_a_wrong_downtime_is_said(downtime: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_experiment(EXPERIMENT, "e.yaml", overrides=[f"emulated_guest.downtime_ms={downtime}"])
    assert said in str(caught.value)


def test_a_number_is_a_downtime_that_does_not_vary() -> None:
    experiment = load_experiment(EXPERIMENT, "e.yaml", overrides=["emulated_guest.downtime_ms=70"])
    drawn = experiment.emulated_guest.downtime_ms
    assert (drawn.min, drawn.max) == (70.0, 70.0)


@pytest.mark.parametrize(("announce", "fits"), [("garp", True), ("rarp", True), ("none", True), ("na", False)])
def test_an_announcement_must_fit_the_guests_eid(announce: str, fits: bool) -> None:
    text = EXPERIMENT.replace("xen", "netns")
    overrides = [f"emulated_guest.announce={announce}"]
    topology = load_topology(TOPOLOGY, "t.yaml")
    if fits:
        load_experiment(text, "e.yaml", overrides=overrides, topology=topology)
        return
    with pytest.raises(
        SpecError, match=r"'na' cannot announce 192\.168\.0\.10; allowed: garp, arp-request, rarp, none"
    ):
        load_experiment(text, "e.yaml", overrides=overrides, topology=topology)
