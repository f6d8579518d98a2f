"""Where things are: the checkout, the cache, the runtime folder."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
IMAGES = REPOSITORY / "images"
XEN = REPOSITORY / "xen"


def cache() -> Path:
    """Images, saved states and compiled programs, kept between runs ($TESTBED_CACHE)."""
    return Path(os.environ.get("TESTBED_CACHE", "/var/cache/testbed"))


def runtime() -> Path:
    """Sockets and secrets of the labs that are up ($TESTBED_RUNTIME)."""
    return Path(os.environ.get("TESTBED_RUNTIME", "/run/testbed"))
