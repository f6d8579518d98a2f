"""The file that a Map-Server's registrations outlive it in."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from testbed.lab.agents.registrations import RegistrationStore
from testbed.lab.agents.runtime import AgentConfigError
from testbed.lisp.actions import KeepRegistration
from testbed.lisp.wire import EidPrefix

EIDS = [EidPrefix(ip_network(f"192.168.0.{n}/32")) for n in range(4)]


def kept(number: int, text: str) -> KeepRegistration:
    return KeepRegistration(EIDS[number], lambda: text)


def opened(path: Path, *, boot: str = "one", spare_lines: int = 1024) -> RegistrationStore:
    return RegistrationStore(path, boot=boot, spare_lines=spare_lines)


def test_what_was_stored_is_there_again_however_the_process_ended(tmp_path: Path) -> None:
    path = tmp_path / "registrations"
    store = opened(path)
    assert store.texts == []
    for action in (kept(0, "a"), kept(1, "b"), kept(0, "c"), kept(2, "d"), KeepRegistration(EIDS[1], None)):
        store.save(action)
    # not closed: a killed process closes nothing
    assert sorted(opened(path).texts) == ["c", "d"]


def test_half_a_line_at_the_end_is_none_and_spoils_nothing_after_it(tmp_path: Path) -> None:
    path = tmp_path / "registrations"
    opened(path).save(kept(0, "a"))
    with path.open("ab") as file:
        file.write(b"192.168.0.1/32 half of")
    store = opened(path)
    assert store.texts == ["a"]
    store.save(kept(2, "whole"))
    assert opened(path).texts == ["a", "whole"]


def test_octets_that_are_no_text_are_somebody_elses_to_judge(tmp_path: Path) -> None:
    path = tmp_path / "registrations"
    opened(path).save(kept(0, "a"))
    with path.open("ab") as file:
        file.write(b"\xff\xfe\0 \x80\n\n\n")
    store = opened(path)
    assert store.texts[0] == "a"
    store.close()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"nonsense\n", b"boot two\n192.168.0.1/32 x\n", b"\xff" * 100])
def test_another_boots_file_or_none_of_ours_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "registrations"
    path.write_bytes(content)
    store = opened(path)
    assert store.texts == []
    store.save(kept(0, "a"))
    assert path.read_text() == "boot one\n192.168.0.0/32 a\n"


def test_the_file_does_not_grow_with_refreshes(tmp_path: Path) -> None:
    path = tmp_path / "registrations"
    store = opened(path, spare_lines=10)
    for turn in range(200):
        for number in range(3):
            store.save(kept(number, f"refresh {turn}"))
        assert len(path.read_text().splitlines()) <= 1 + 2 * 3 + 10
    assert opened(path).texts == ["refresh 199"] * 3
    assert [each.name for each in tmp_path.iterdir()] == ["registrations"]


def test_the_boot_is_the_machines(tmp_path: Path) -> None:
    RegistrationStore(tmp_path / "registrations").close()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert (tmp_path / "registrations").read_text() == f"boot {boot}\n"


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(AgentConfigError, match="Cannot keep registrations"):
        opened(tmp_path / "none" / "registrations")
