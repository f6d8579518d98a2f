"""Times that follow from a plan's links. Pure."""

from __future__ import annotations

from testbed.plan.model import Plan

#: How many standard deviations of jitter a packet may be late.
JITTER_SIGMAS = 4.0


def longest_round_trip_ms(plan: Plan) -> float:
    """How long a packet and its answer may be on their way between two edges, queues not counted.

    A path through the core has two links: no round trip takes longer than twice the two slowest.
    """
    slowest = sorted(link.impairment.delay_ms + JITTER_SIGMAS * link.impairment.jitter_ms for link in plan.links)[-2:]
    return 2.0 * sum(slowest)
