"""The Vagrantfile, by vagrant's own word."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("vagrant") is None, reason="vagrant is not installed")
def test_vagrant_validates(tmp_path: Path) -> None:
    environment = {**os.environ, "VAGRANT_HOME": str(tmp_path), "VAGRANT_CHECKPOINT_DISABLE": "1"}
    done = subprocess.run(
        ["vagrant", "validate", "--ignore-provider"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_vagrantfile_provisions_with_the_bootstrap() -> None:
    text = (ROOT / "Vagrantfile").read_text()
    assert "script/bootstrap" in text
    assert "libvirt.nested = true" in text
