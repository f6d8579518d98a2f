"""Where the guest goes in a run: the experiment's destinations, walked there and back as often as asked. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def itinerary(origin: str, destinations: Sequence[str], repeat: int = 1) -> list[str]:
    """The destination of every migration of a run.

    A path that ends where it began is walked again as it is; any other is walked back and forth, so that
    `repeat` = 4 of "to site-b" from site-a gives B, A, B, A.

    Args:
        origin: the site where the guest starts.
        destinations: of the experiment, in order.
        repeat: how many times the path is walked.
    """
    forward = list(destinations)
    if forward and forward[-1] == origin:
        return forward * repeat
    backward = [*reversed(forward[:-1]), origin]
    return [site for walk in range(repeat) for site in (forward if walk % 2 == 0 else backward)]
