"""What the command line asks of a lab's supervisor: one JSON file, so that the two share no memory."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from testbed.errors import TestbedError
from testbed.paths import runtime

#: What the kernel has room for in a Unix socket's path (unix(7): 108, with the NUL).
_SOCKET_PATH_OCTETS = 107
#: The longest name of a socket in a lab's folder: a node's (16) or an agent's, and "/qmp.sock" or ".sock".
_SOCKET_NAME_OCTETS = 32


@dataclass(frozen=True, slots=True)
class Request:
    """A lab to bring up.

    Attributes:
        lab: its name, which is the run's ID.
        mode: "run" performs the experiment and ends; "up" stays until it is told to go.
        run_dir: the run's folder; `plan.json` and `manifest.json` are in it already.
        itinerary: the destination site of each migration ("run").
        cold: boot the Xen hosts from nothing, whatever states are saved.
    """

    lab: str
    mode: Literal["run", "up"]
    run_dir: str
    itinerary: tuple[str, ...] = ()
    cold: bool = False

    @property
    def folder(self) -> Path:
        """The lab's runtime folder (0700): sockets, secrets, and the record of the lab."""
        return runtime() / "labs" / self.lab

    def check_folder(self) -> None:
        """Whether the sockets in the lab's folder will have names that the kernel takes; TestbedError if not."""
        spare = _SOCKET_PATH_OCTETS - len(f"{self.folder}/".encode()) - _SOCKET_NAME_OCTETS
        if spare < 0:
            octets = len(str(runtime()).encode())
            raise TestbedError(
                "runtime-path-too-long",
                f"TESTBED_RUNTIME has {octets} octets, at most {octets + spare} are allowed: {runtime()}",
                why="the path of a Unix socket has at most 107 octets (unix(7)), and the sockets of a lab are in it",
                next_command="export TESTBED_RUNTIME=/run/testbed",
            )

    def save(self) -> Path:
        """Write the request into the lab's folder, which is the journal's first entry; returns the file."""
        self.folder.mkdir(parents=True, mode=0o700)
        path = self.folder / "request.json"
        path.write_text(json.dumps(asdict(self)))
        return path

    @classmethod
    def load(cls, path: Path) -> Request:
        """Read what `save` wrote."""
        raw = json.loads(path.read_text())
        return cls(**{**raw, "itinerary": tuple(raw["itinerary"])})
