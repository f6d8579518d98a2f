"""How long random tests play: as long as CI does (`script/test`), or as long as one waits at a desk."""

from __future__ import annotations

import os

#: Set by script/test.
THOROUGH = bool(os.environ.get("TESTBED_THOROUGH"))
#: Mutated messages that each robustness test reads.
MUTATIONS = 200_000 if THOROUGH else 20_000


def examples(number: int) -> int:
    """How many examples are played where CI plays so many."""
    return number if THOROUGH else max(number // 4, 1)
