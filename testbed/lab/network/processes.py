"""Running commands, in the lab's own namespaces or in a node's."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from testbed.lab.network.errors import NetworkError

#: A command of the bring-up that takes longer than this hangs.
TIMEOUT_S = 20.0


def run(argv: Sequence[str], *, input_text: str = "", timeout_s: float = TIMEOUT_S) -> str:
    """Run a command and return its standard output.

    Raises:
        NetworkError: it failed, or did not end in time; what it said is in `why`.
    """
    shown = " ".join(argv)
    try:
        done = subprocess.run(argv, input=input_text, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError("command-failed", f"`{shown}` did not run", why=str(error)) from error
    if done.returncode:
        raise NetworkError("command-failed", f"`{shown}` ended with {done.returncode}", why=done.stderr.strip())
    return done.stdout


def in_node(pid: int, argv: Sequence[str]) -> list[str]:
    """Return the command line that runs `argv` in the network and mount namespaces of process `pid`."""
    return ["mnexec", "-a", str(pid), *argv]


def run_scripts(scripts: Mapping[str, str], pids: Mapping[str, int]) -> None:
    """Run one shell script in each node, all at the same time.

    Args:
        scripts: node → script, which ends at its first failing command.
        pids: node → a process in it.

    Raises:
        NetworkError: at least one failed; `why` has the first one's words.
    """
    started: list[tuple[str, subprocess.Popen[str]]] = []
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    failures = []
    for node in scripts:
        started.append((node, subprocess.Popen(in_node(pids[node], ["sh", "-e"]), text=True, **pipes)))
    for node, process in started:
        try:
            _, said = process.communicate(scripts[node], timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            said = f"no end within {TIMEOUT_S} s: {process.communicate()[1]}"
        if process.returncode:
            failures.append(f"{node}: {said.strip()}")
    if failures:
        raise NetworkError("node-setup-failed", f"{len(failures)} nodes could not be set up", why=failures[0])
