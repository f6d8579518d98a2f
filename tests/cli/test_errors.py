"""What a person sees who types something wrong: the cause, what is allowed, the next command. No root needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIRST = "experiments/first-migration.yaml"


#: The command line as somebody else would have it. (Really being somebody else fails where a checkout is root's alone.)
NOT_ROOT = "import os, sys; os.geteuid = lambda: 1000; sys.argv[0] = 'testbed'; from testbed.cli import main; main()"


def typed(*arguments: str, root: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line, as somebody who is not root if `root` is False."""
    argv = [sys.executable, *(["-m", "testbed"] if root else ["-c", NOT_ROOT]), *arguments]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", FIRST, "--set", "mechanism=tll"], ["--set mechanism=tll", "did you mean 'ttl'", "smr-old-xtr"]),
        (["run", FIRST, "--set", "probes.interval=5"], ["interval_ms"]),
        (["run", "experiments/missing.yaml"], ["experiments/missing.yaml", "No such file"]),
        (["run", FIRST, "--fail-if", "stuntime > 3"], ["column 1", "stuntime_ms"]),
        (["run", FIRST, "--fail-if", "stuntime_ms.median >"], ["--fail-if", "column"]),
    ],
)
def test_wrong_input_is_explained(arguments: list[str], says: list[str]) -> None:
    done = typed(*arguments)
    assert done.returncode == 11
    assert "Traceback" not in done.stderr
    for word in says:
        assert word in done.stderr, done.stderr


@pytest.mark.parametrize("command", [["run", FIRST], ["up", FIRST], ["down"], ["status"], ["inspect"]])
def test_without_root_the_sudo_line_is_offered(command: list[str]) -> None:
    done = typed(*command, root=False)
    assert done.returncode == 11
    assert "next: sudo" in done.stderr
    assert " ".join(command) in done.stderr


def test_doctor_needs_no_root_and_speaks_json() -> None:
    done = typed("doctor", "--format", "json", root=False)
    assert done.returncode in (0, 13), done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert {"root", "kernel", "netem", "QEMU", "images", "KVM"} <= set(checks)
    for check in checks.values():
        assert check["state"] in ("ok", "limited", "missing")
        if check["state"] == "missing":
            assert check["consequence"]
    # A file's presence proves nothing: without a proof KVM is never "ok".
    assert checks["KVM"]["state"] == "limited" or "proved" in checks["KVM"]["found"]


def test_every_command_has_help() -> None:
    listed = typed("--help").stdout
    for command in (
        "doctor",
        "validate",
        "graph",
        "run",
        "up",
        "down",
        "status",
        "inspect",
        "exec",
        "report",
        "decode",
    ):
        assert command in listed
        assert typed(command, "--help").returncode == 0
