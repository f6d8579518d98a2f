"""The pace of an agent: high for what others wait for, low for the rest, one where it may have no priority."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from testbed.lab.agents import priority
from testbed.lab.agents.priority import AGENT_PRIORITY, Pace


class Scheduler:
    """The kernel's, as far as an agent asks it."""

    def __init__(self, permits: bool) -> None:
        self._permits, self.priorities = permits, [0]

    def setscheduler(self, pid: int, policy: int, param: os.sched_param) -> None:
        if not self._permits:
            raise PermissionError
        assert policy == os.SCHED_FIFO
        self.priorities.append(param.sched_priority)

    def setparam(self, pid: int, param: os.sched_param) -> None:
        self.priorities.append(param.sched_priority)


@pytest.fixture
def scheduler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scheduler]:
    kernel = Scheduler(request.param)
    monkeypatch.setattr(priority.os, "sched_setscheduler", kernel.setscheduler)
    monkeypatch.setattr(priority.os, "sched_setparam", kernel.setparam)
    monkeypatch.setattr(priority.os, "setpriority", lambda which, who, niceness: None)
    return kernel


@pytest.mark.parametrize("scheduler", [True], indirect=True)
def test_it_changes_only_when_it_has_to(scheduler: Scheduler) -> None:
    pace = Pace()
    pace.relax()  # not taken yet
    assert pace.take(AGENT_PRIORITY) == "fifo-5"
    for step in (pace.hurry, pace.relax, pace.relax, pace.hurry, pace.hurry):
        step()
    assert scheduler.priorities == [0, AGENT_PRIORITY, 1, AGENT_PRIORITY]


@pytest.mark.parametrize("scheduler", [False], indirect=True)
def test_who_may_have_none_has_one_pace(scheduler: Scheduler) -> None:
    pace = Pace()
    assert pace.take(AGENT_PRIORITY) == "nice-10"
    pace.relax()
    pace.hurry()
    assert scheduler.priorities == [0]
