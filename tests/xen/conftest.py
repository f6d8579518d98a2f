"""The labs of these tests are recorded apart from those of the machine: what ends all labs ends only these."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from testbed.paths import runtime
from tests.netns.runs import lab_folder


@pytest.fixture(scope="package", autouse=True)
def own_labs() -> Iterator[None]:
    """A folder for the records of labs, in which what is known of the accelerator is known already."""
    known = runtime() / "accelerator.json"
    with lab_folder() as folder, pytest.MonkeyPatch.context() as patch:
        if known.exists():
            shutil.copy2(known, folder)
        patch.setenv("TESTBED_RUNTIME", str(folder))
        yield
