"""Our programs in C: each is compiled once into the cache, under the digest of its source."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from testbed.errors import PrerequisiteMissingError, TestbedError

FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra")
INSTALL = "apt-get install gcc libc6-dev"


def program(source: Path, cache_dir: Path, *libraries: str) -> Path:
    """Compile a program of one file unless the cache has it.

    Args:
        source: the file, `NAME.c`.
        cache_dir: where the program is kept, as `NAME-DIGEST`.
        libraries: what it is linked with, as `-lm`.

    Raises:
        PrerequisiteMissingError: there is no C compiler.
        TestbedError: it does not compile.
    """
    words = (*FLAGS, *libraries)
    digest = hashlib.sha256(source.read_bytes() + " ".join(words).encode()).hexdigest()[:16]
    made = cache_dir / f"{source.stem}-{digest}"
    if made.exists():
        return made
    compiler = shutil.which("cc")
    if compiler is None:
        what = f"There is no C compiler (`cc`), and {source.name} is not compiled yet"
        raise PrerequisiteMissingError("cc-missing", what, next_command=INSTALL)
    cache_dir.mkdir(parents=True, exist_ok=True)
    # Built beside and renamed: of two labs that start at once neither runs the other's half-written file.
    partial = made.with_name(f"{made.name}.{os.getpid()}")
    argv = [compiler, *FLAGS, "-o", str(partial), str(source), *libraries]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        what = f"{source.name} does not compile"
        raise TestbedError("c-compilation-failed", what, why=done.stderr.strip()[-2000:], next_command=INSTALL)
    partial.replace(made)
    return made
