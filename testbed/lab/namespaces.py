"""A lab is one process tree in its own PID, network and mount namespaces: the kernel is the reaper.

When the supervisor ends, in whatever way, every process, interface, namespace and mount of the lab goes with it. What
the kernel cannot reap is the lab's folder below /run, which `remove` deletes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from testbed.errors import TestbedError
from testbed.lab.request import Request

PR_SET_PDEATHSIG = 1
UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--net", "--mount", "--mount-proc")

#: In a lab's folder: who `unshare` and who the supervisor is, each as its PID and start time.
OUTER = "unshare.pid"
SUPERVISOR = "supervisor.pid"
#: How long `unshare` may take to fork the supervisor.
FORK_S = 10.0


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends (for `preexec_fn`)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def launch(request: Request) -> subprocess.Popen[bytes]:
    """Start a lab's supervisor in new namespaces.

    A lab of mode "run" dies with the process that launched it; one of mode "up" outlives it. Its standard
    streams go to the run's `logs/lab/supervisor.log`.
    """
    path = request.save()
    logs = Path(request.run_dir) / "logs" / "lab"
    logs.mkdir(parents=True, exist_ok=True)

    with (logs / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            [*UNSHARE, sys.executable, "-m", "testbed.lab.supervisor", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with_parent if request.mode == "run" else None,
        )
    _record(request.folder / OUTER, process.pid)
    _record_supervisor(request.folder, process)
    return process


def _record(path: Path, pid: int) -> None:
    path.write_text(f"{pid} {start_ticks(pid)}")


def _record_supervisor(folder: Path, unshare: subprocess.Popen[bytes]) -> None:
    """Note who the supervisor is while `unshare`, its parent, can still say so: it may outlive it for a moment."""
    end = time.monotonic() + FORK_S
    while unshare.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError, IndexError):
            child = int(Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()[0])
            _record(folder / SUPERVISOR, child)
            return
        time.sleep(0.005)


def start_ticks(pid: int) -> int:
    """When a process started (field 22 of /proc/PID/stat): with the PID it names one process for ever."""
    return int(_stat(pid)[19])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third, the process's state, on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _recorded(path: Path) -> int | None:
    """The PID, in this namespace, of the process noted in `path`; None if it has ended."""
    try:
        pid, started = (int(word) for word in path.read_text().split())
        stat = _stat(pid)
    except (OSError, ValueError):
        return None
    # A process whose first thread has ended is a zombie long before its last one has (field 20, num_threads).
    ended = stat[0] == "Z" and int(stat[17]) <= 1
    return pid if int(stat[19]) == started and not ended else None


def supervisor_pid(folder: Path) -> int | None:
    """The PID, in this namespace, of a lab's supervisor; None if it is gone."""
    return _recorded(folder / SUPERVISOR)


def survivor(folder: Path) -> int | None:
    """The PID of the process that still holds a lab's namespaces; None if the kernel has reaped the lab.

    A supervisor that is killed stays until the kernel has ended everything else in its PID namespace, which can take
    longer than the end of the `unshare` that held it.
    """
    return _recorded(folder / OUTER) or _recorded(folder / SUPERVISOR)


def terminate(folder: Path, *, grace_s: float) -> bool:
    """Ask the supervisor to end, kill the lab if it has not within `grace_s`; True if it went by itself."""
    inner = supervisor_pid(folder)
    if inner is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(inner, signal.SIGTERM)
    end = time.monotonic() + grace_s
    while (pid := survivor(folder)) is not None:
        if time.monotonic() > end:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            wait_gone(folder, 10.0)
            return False
        time.sleep(0.05)
    return True


def wait_gone(folder: Path, deadline_s: float) -> None:
    """Wait until nothing of the lab runs; TestbedError if something still does at the deadline."""
    end = time.monotonic() + deadline_s
    while (pid := survivor(folder)) is not None:
        if time.monotonic() > end:
            raise TestbedError("lab-survives", f"the lab of {folder.name} does not end", next_command=f"kill -9 {pid}")
        time.sleep(0.02)


def remove(folder: Path) -> None:
    """Delete what the kernel does not reap: the lab's runtime folder, with its secrets."""
    shutil.rmtree(folder, ignore_errors=True)


def enter_command(folder: Path, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` inside a lab; TestbedError if the lab is not up."""
    inner = supervisor_pid(folder)
    if inner is None:
        raise TestbedError("lab-not-up", f"no lab {folder.name} is up", next_command="testbed status")
    return ["nsenter", "--target", str(inner), "--pid", "--net", "--mount", "--", *argv]
