"""Give what a command wrote as root to the person who typed sudo: everything that follows needs no root.

No secret is in a run's folder: keys and sockets are in the lab's runtime folder, which stays root's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def missing(path: Path) -> list[Path]:
    """A folder and those above it, as far as they do not exist yet."""
    return [folder for folder in (path, *path.parents) if not folder.exists()]


@contextmanager
def handed_over(*paths: Path) -> Iterator[list[Path]]:
    """Hand over some files or folders, and what was made on the way to them, when the block ends, however it does.

    Args:
        paths: existing or not.

    Yields:
        a list that takes further paths.
    """
    made = [folder for path in paths for folder in missing(path.resolve())]
    more = list(paths)
    try:
        yield more
    finally:
        _hand_over([*made, *more])


def _hand_over(paths: Iterable[Path]) -> None:
    """Change owner (to SUDO_UID and SUDO_GID) and mode (as the umask says; dumpcap's files are 0600) of whole trees."""
    if os.geteuid() != 0:
        return
    umask = os.umask(0o077)
    os.umask(umask)
    owner = int(os.environ.get("SUDO_UID", "-1")), int(os.environ.get("SUDO_GID", "-1"))  # -1: as it is
    for path in dict.fromkeys(inner for outer in paths if outer.exists() for inner in (outer, *outer.rglob("*"))):
        os.chown(path, *owner, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | ((0o777 if path.is_dir() else 0o666) & ~umask))
