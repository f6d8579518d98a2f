"""The dom0 and guest images: where they are, and building them when they are not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError
from testbed.lab.hypervisor import kept
from testbed.paths import IMAGES, cache

BUILDER = IMAGES / "build.py"


@dataclass(frozen=True, slots=True)
class ImageSet:
    """A built set of images; the files are described in `images/build.py`."""

    folder: Path

    @property
    def digest(self) -> str:
        """The digest of the recipe that made them."""
        return self.folder.name

    def manifest(self) -> dict[str, Any]:
        """Package versions and sizes, as the builder wrote them."""
        loaded: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())
        return loaded

    def file(self, name: str) -> Path:
        """The path of one of the images' files."""
        return self.folder / name


def find_images() -> ImageSet | None:
    """The images of the present recipe, or None if they were not built yet."""
    command = ["/usr/bin/python3", str(BUILDER), "--cache", str(cache()), "--print-path"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    folder = Path(shown.stdout.strip())
    return ImageSet(folder) if folder.is_dir() else None


def ensure_images(progress: Callable[[str], None]) -> ImageSet:
    """The images, built first if need be (about 20 s); `progress` takes the builder's lines.

    Raises:
        TestbedError: the build failed; `why` has its last lines.
    """
    found = find_images()
    if found is not None:
        kept.used(found.folder, keep=kept.IMAGE_SETS)
        return found
    command = ["/usr/bin/python3", str(BUILDER), "--cache", str(cache())]
    building = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert building.stderr is not None
    assert building.stdout is not None
    said = []
    for line in building.stderr:
        said.append(line.rstrip())
        progress(line.rstrip())
    folder = building.stdout.read().strip()
    if building.wait() != 0:
        raise TestbedError(
            "images-failed", "the dom0 and guest images could not be built",
            why="\n".join(said[-12:]), next_command=f"sudo {BUILDER} --force",
        )  # fmt: skip
    kept.used(Path(folder), keep=kept.IMAGE_SETS)
    return ImageSet(Path(folder))
