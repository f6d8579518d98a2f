"""How many probes the links alone may lose, when a site has more than one."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from testbed.report.context import expected_loss
from tests.unit.measure.synthetic import Story, migration
from tests.unit.plan.test_build import dual_homed


@pytest.mark.parametrize(("first", "second", "expected"), [(0, 0, 0.0), (0, 10, 0.1), (10, 0, 0.19), (10, 20, 0.28)])
def test_what_comes_back_may_come_by_the_worst_of_its_sites_links(first: int, second: int, expected: float) -> None:
    lossy = (f"sites.2.link.loss_percent={first}", f"sites.2.further_xtrs.0.link.loss_percent={second}")
    assert expected_loss(asdict(dual_homed(*lossy)), migration(Story())) == pytest.approx(expected)
