"""What a run leaves belongs to the person who typed sudo; what may not be read is said before anything is written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.cli.handover import handed_over
from testbed.report import build_report
from tests.folders import digests
from tests.unit.measure.synthetic import Story, write_run

ROOT = Path(__file__).parents[2]
IS_ROOT = os.geteuid() == 0
NOBODY = 65534


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that nobody can reach (pytest's own are closed to others)."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `testbed …` without root's rights; anybody else runs it as they are."""
    identity = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if IS_ROOT else {}
    return subprocess.run(
        [sys.executable, "-m", "testbed", *arguments],
        cwd=ROOT, env={**os.environ, "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=120, check=False, **identity,
    )  # fmt: skip


def with_capture(folder: Path) -> Path:
    """A run's folder with a capture, readable by its owner only as dumpcap leaves it."""
    entry = {"node": "xtr-c", "interface": "rloc0", "file": "pcap/xtr-c-rloc0.pcapng", "dropped": 0}
    written = write_run(folder, [Story()], captures=[entry])
    (written / "pcap").mkdir()
    capture = written / "pcap" / "xtr-c-rloc0.pcapng"
    capture.write_bytes(b"")
    capture.chmod(0o600)
    (written / "logs").mkdir()
    (written / "logs" / "lab.log").write_text("")
    return written


def test_everything_is_handed_over_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    monkeypatch.setenv("SUDO_GID", str(NOBODY))
    out, beside = tmp_path / "made" / "runs", tmp_path / "somebody's"
    beside.write_text("")

    def broken_off() -> None:
        with handed_over(out / "run"):
            with_capture(out / "run")
            (out / "run" / "link").symlink_to(beside)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken_off()
    owner = NOBODY if IS_ROOT else os.getuid()
    made = [tmp_path / "made", *(tmp_path / "made").rglob("*")]
    assert {path.lstat().st_uid for path in made} == {owner}
    assert beside.stat().st_uid == tmp_path.stat().st_uid == os.getuid()
    if IS_ROOT:
        umask = os.umask(0)
        os.umask(umask)
        assert (out / "run" / "pcap" / "xtr-c-rloc0.pcapng").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_report_needs_no_root_afterwards(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    monkeypatch.setenv("SUDO_GID", str(NOBODY))
    with handed_over(open_folder / "run"):
        build_report(with_capture(open_folder / "run"))
    before = digests(open_folder / "run")
    done = as_nobody("report", str(open_folder / "run"))
    assert done.returncode in (0, 12), done.stderr  # an empty capture is none
    assert done.stdout
    assert digests(open_folder / "run") == before


@pytest.mark.parametrize(
    "closed", ["pcap/xtr-c-rloc0.pcapng", "pcap", "events.jsonl", "manifest.json", "probes", "logs/lab.log"]
)
def test_what_may_not_be_read_is_said_and_nothing_is_written(open_folder: Path, closed: str) -> None:
    folder = with_capture(open_folder / "run")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    (folder / closed).chmod(0)
    inode_times = {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}
    done = as_nobody("report", str(folder))
    if not IS_ROOT:
        (folder / closed).chmod(0o777)
    assert done.returncode == 11
    assert "Traceback" not in done.stderr
    assert "next: sudo chown -R" in done.stderr, done.stderr
    assert {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))} == inode_times


def test_what_may_not_be_written_is_said(open_folder: Path) -> None:
    folder = write_run(open_folder / "run", [Story()])
    shutil.rmtree(folder / "probes")
    folder.chmod(0o555)
    done = as_nobody("report", str(folder))
    folder.chmod(0o755)
    assert done.returncode == 11
    assert "may not be written by you: the folder" in done.stderr
