"""Runs a measurement in PID, network and mount namespaces of its own: nothing is left, whatever ends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from testbed.errors import PrerequisiteMissingError, TestbedError
from testbed.lab.namespaces import UNSHARE, die_with_parent


def measured(kind: str, arguments: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """The result of `python -m testbed.bench KIND` there.

    Args:
        kind: a key of `testbed.bench.__main__.KINDS`.
        arguments: of its function, as JSON can carry them.
        say: told of each figure as it comes.

    Raises TestbedError as the measurement does, and if it ends without a result.
    """
    command = [*UNSHARE, sys.executable, "-m", "testbed.bench", kind, json.dumps(arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        last = ""
        try:
            # The result is one line at the end, short enough for the pipe while progress is read.
            for line in process.stderr:
                last = line.rstrip()
                say(last)
            printed = process.stdout.read()
        except BaseException:
            process.kill()
            raise
    result: dict[str, Any] = json.loads(printed) if printed else {}
    if not result:
        raise TestbedError("bench-died", "the measurement ended without a result", why=last)
    if "error" in result:
        error = result["error"]
        missing = process.returncode == PrerequisiteMissingError.exit_code
        kind_of_error = PrerequisiteMissingError if missing else TestbedError
        raise kind_of_error(error["code"], error["what"], why=error["why"], next_command=error["next_command"])
    return result


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    model = ""
    with open("/proc/cpuinfo") as lines:
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "model": model,
        "kernel": os.uname().release,
        "python": sys.version.split()[0],
        "load_1min": os.getloadavg()[0],
    }
