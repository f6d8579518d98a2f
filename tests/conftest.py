"""What holds for every test: markers by folder, ^C, no deadline of an example, and that no skip hides a loss.

Under script/test a skip whose reason is not on the list fails the run.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from tests.effort import examples

ALLOWED = Path(__file__).with_name("allowed-skips.txt")
_refused: list[str] = []
settings.register_profile("patient", deadline=None, max_examples=examples(100))  # a busy machine is slow, not wrong
settings.load_profile("patient")


def allowed_reasons() -> list[str]:
    """The reasons of the list, without comments."""
    lines = (line.strip() for line in ALLOWED.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def pytest_configure() -> None:
    """^C reaches what the tests start: a shell's background job (`script/test &`) begins with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a test needs is said by its folder: `netns/` and `xen/` are marked so, whole."""
    for item in items:
        for folder in ("netns", "xen"):
            if Path(__file__).with_name(folder) in item.path.parents:
                item.add_marker(folder)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not os.environ.get("TESTBED_STRICT_SKIPS"):
        return
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not any(reason.startswith(allowed) for allowed in allowed_reasons()):
            _refused.append(f"{report.nodeid}: {reason}")
    for line in _refused:
        terminalreporter.write_line(f"SKIP NOT ALLOWED {line}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    if _refused:
        pytest.exit(f"{len(_refused)} skips are not on the list in {ALLOWED.name}", returncode=1)
