"""Running a test's function in a machine of its own: new PID, network and mount namespaces.

`in_own_lab("tests.netns.cases_network", "up")` imports the module there, calls the function and returns
what it returned (JSON); an exception there fails the test here with its traceback.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--net", "--mount", "--mount-proc")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces")


def lab_command(module: str, function: str, *arguments: str) -> list[str]:
    """Return the command line that runs `function` in a lab of its own."""
    return [*UNSHARE, sys.executable, "-m", "tests.netns.own_lab", module, function, *arguments]


def in_own_lab(module: str, function: str, *arguments: str, timeout_s: float = 60.0) -> Any:
    """Run a function in a lab of its own and return its result."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        lab_command(module, function, *arguments),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def own_names() -> None:
    """Hide the machine's named namespaces, which are files that others make and remove meanwhile."""
    Path("/run/netns").mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run/netns"], check=True)


if __name__ == "__main__":
    own_names()
    called = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
    print(json.dumps(called(*sys.argv[3:])))
