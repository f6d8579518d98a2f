"""Compile the data plane's programs once and keep the object in the cache."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from testbed.errors import PrerequisiteMissingError, TestbedError

SOURCES = Path(__file__).parent / "bpf"
#: v3 (Linux 5.12) for the atomic exchange with which a change of RLOC is announced exactly once.
FLAGS = ("-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall")
INSTALL = "sudo apt-get install clang libbpf-dev linux-libc-dev"


def cache_directory() -> Path:
    """Where compiled objects are kept: $TESTBED_CACHE, or ~/.cache/testbed."""
    configured = os.environ.get("TESTBED_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "testbed"


def source_digest() -> str:
    """SHA-256 of the sources' names and contents and of the compiler's flags."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for path in sorted(SOURCES.iterdir()):
        if path.suffix in (".c", ".h"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def compiled_object(name: str = "lisp") -> Path:
    """Return the compiled programs of a `.bpf.c`, compiling them if this version of the sources never was.

    Raises PrerequisiteMissingError without clang, TestbedError if it fails.
    """
    target = cache_directory() / "bpf" / f"{name}-{platform.machine()}-{source_digest()[:16]}.o"
    if target.exists():
        return target
    clang = shutil.which("clang")
    if clang is None:
        raise PrerequisiteMissingError(
            "clang-missing", "The data plane cannot be compiled: there is no clang.", next_command=INSTALL
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    # Debian keeps <asm/types.h> in a folder that the bpf target does not search by itself.
    multiarch = f"/usr/include/{platform.machine()}-linux-gnu"
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / f"{name}.o"
        command = [clang, *FLAGS, "-I", multiarch, "-c", str(SOURCES / f"{name}.bpf.c"), "-o", str(made)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise TestbedError(
                "bpf-compilation-failed",
                "clang could not compile the data plane.",
                why=result.stderr.strip()[-2000:],
                next_command=INSTALL,
            )
        made.rename(target)  # atomic: two first users at once both end with a whole object
    return target
