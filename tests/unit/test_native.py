"""Programs in C are compiled once; without a compiler, or with a fault in them, there is a clear error."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from testbed import native
from testbed.errors import PrerequisiteMissingError, TestbedError


def write(folder: Path, text: str) -> Path:
    path = folder / "answer.c"
    path.write_text(text)
    return path


def test_a_program_is_compiled_once_and_again_when_its_source_changes(tmp_path: Path) -> None:
    source = write(tmp_path, "int main(void) { return 42; }\n")
    program = native.program(source, tmp_path / "cache")
    assert subprocess.run([program], check=False).returncode == 42
    made = program.stat().st_mtime_ns
    assert native.program(source, tmp_path / "cache") == program
    assert program.stat().st_mtime_ns == made
    other = native.program(write(tmp_path, "int main(void) { return 43; }\n"), tmp_path / "cache")
    assert subprocess.run([other], check=False).returncode == 43
    assert sorted(tmp_path.glob("cache/*")) == sorted([program, other])  # nothing half made


def test_what_does_not_compile_says_where(tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match=r"answer\.c does not compile") as caught:
        native.program(write(tmp_path, "int main(void) { return x; }\n"), tmp_path / "cache")
    assert (caught.value.code, "answer.c:1:" in caught.value.why) == ("c-compilation-failed", True)


def test_a_missing_compiler_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrerequisiteMissingError) as caught:
        native.program(write(tmp_path, "int main(void) { return 0; }\n"), tmp_path / "cache")
    assert caught.value.next_command == "apt-get install gcc libc6-dev"
