"""What the cache keeps of a kind: the few that were used last. Every change of a recipe makes another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

#: Sets of images, 320 MB each, and saved states of a pair of hosts, as much again.
IMAGE_SETS = 3
STATES = 4


def used(folder: Path, *, keep: int) -> None:
    """Mark a folder of the cache as used now, and delete those beside it beyond the `keep` that were used last.

    Whoever has a file of a deleted folder open goes on reading it.
    """
    os.utime(folder)
    beside = [path for path in folder.parent.iterdir() if path.is_dir() and "." not in path.name]
    beside.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in beside[keep:]:
        shutil.rmtree(path, ignore_errors=True)
