"""Reading the files that a person wrote: the only place where a path becomes a topology or an experiment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from testbed.errors import TestbedError
from testbed.spec import (
    Experiment,
    Problem,
    SpecError,
    Topology,
    check_grid,
    is_of_topology,
    load_experiment,
    load_topology,
)


class FileUnreadableError(TestbedError):
    """A file that cannot be read, or is no text."""


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises:
        FileUnreadableError: it is not there, no file, not ours to read, or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FileUnreadableError("file-unreadable", f"{path}: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise FileUnreadableError("file-unreadable", f"{path}: {error.strerror}") from error


def read_topology(path: Path, overrides: Sequence[str] = ()) -> Topology:
    """Return the topology of a file with overrides; raises `SpecError` or `FileUnreadableError`."""
    return load_topology(read_text(path), str(path), overrides=overrides)


def topology_path(experiment: Experiment, path: Path) -> Path:
    """Return the path of the topology that the experiment in file `path` names, relative to that file."""
    return Path(os.path.normpath(path.parent / experiment.topology))


def read_experiment(path: Path, overrides: Sequence[str] = ()) -> tuple[Experiment, Topology]:
    """Return the experiment of a file with overrides, and its topology, checked against each other.

    Args:
        path: of the experiment; its `topology` is relative to it, an override's too.
        overrides: as `--set` takes them; those of the topology are `topology.…` and `one_way_ms`.

    Raises:
        SpecError: either file or an override is wrong; problems of the topology are in its own name.
        FileUnreadableError: the experiment cannot be read.
    """
    text = read_text(path)
    of_topology = [each for each in overrides if is_of_topology(each)]
    of_experiment = [each for each in overrides if not is_of_topology(each)]
    experiment = load_experiment(text, str(path), overrides=of_experiment)
    named = topology_path(experiment, path)
    try:
        topology = read_topology(named, of_topology)
    except FileUnreadableError as error:
        what = f"topology {experiment.topology!r} cannot be read: {error.what}"
        raise SpecError([Problem(str(path), None, None, what)]) from error
    if experiment.sweep is not None:
        check_grid(text, str(path), read_text(named), overrides=of_experiment, topology_overrides=of_topology)
    return load_experiment(text, str(path), overrides=of_experiment, topology=topology), topology
