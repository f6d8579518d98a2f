"""The arrows of the architecture: who may import whom, and which packages do no I/O."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "testbed"

#: Packages without I/O: time, randomness and bytes are arguments.
PURE = ("spec", "plan", "lisp", "measure")
IO_MODULES = {
    "socket", "subprocess", "time", "random", "secrets", "os", "threading", "multiprocessing",
    "asyncio", "anyio", "select", "shutil", "tempfile", "signal", "urllib", "http", "ssl", "fcntl",
    "libvirt", "mininet", "pyroute2", "paramiko",
}  # fmt: skip

#: package → the packages of ours that it may import (beside the errors and the event type).
MAY_IMPORT: dict[str, set[str]] = {
    "spec": set(),
    "lisp": set(),
    "decode": {"lisp"},
    "plan": {"spec"},
    "dataplane": {"lisp"},
    "lab.network": {"plan"},
    "lab.hypervisor": {"plan"},
    "lab.agents": {"lisp", "dataplane"},
    "measure": set(),
    # Drives the others to measure them; nothing but the command line imports it.
    "bench": {"lisp", "dataplane", "lab", "report"},
    "report": {"measure", "plan", "decode"},
}
EVERYBODY = {"errors", "events"}
NOT_PURE_EVERYBODY = {"eventlog", "native", "paths"}


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            if node.module and node.module.startswith("testbed"):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files_of(package: str) -> list[Path]:
    return sorted((PACKAGE / package.replace(".", "/")).rglob("*.py"))


@pytest.mark.parametrize("package", PURE)
def test_pure_packages_do_no_io(package: str) -> None:
    for path in files_of(package):
        used = {name.split(".")[0] for name in imports_of(path)} & IO_MODULES
        assert not used, f"{path} imports {sorted(used)}"


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_arrows(package: str) -> None:
    allowed = MAY_IMPORT[package] | EVERYBODY | {package}
    if package not in PURE:
        allowed |= NOT_PURE_EVERYBODY
    for path in files_of(package):
        for name in imports_of(path):
            if name.startswith("testbed."):
                inner = name.removeprefix("testbed.")
                assert any(inner == a or inner.startswith(a + ".") for a in allowed), f"{path} imports {name}"


def test_nothing_imports_the_command_line() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] not in ("cli", "__main__.py"):
            assert not any(name.startswith("testbed.cli") for name in imports_of(path)), path


def test_only_the_command_line_imports_the_benchmarks() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] not in ("cli", "bench"):
            assert not any(name.startswith("testbed.bench") for name in imports_of(path)), path
