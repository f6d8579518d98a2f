"""Nonces that outlive an agent's process."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.lab.agents.driver import NonceStore
from testbed.lab.agents.runtime import AgentConfigError
from testbed.lisp.actions import SaveNonce


def test_what_was_saved_is_there_again_however_the_process_ended(tmp_path: Path) -> None:
    path = tmp_path / "state"
    store = NonceStore(path)
    store.save([SaveNonce("map-register", 7), SaveNonce("last a/1.0", 9)])
    store.save([SaveNonce("map-register", 8)])
    # not closed: a killed process closes nothing
    assert NonceStore(path).saved == {"map-register": 8, "last a/1.0": 9}


def test_a_restart_keeps_one_line_for_each_owner(tmp_path: Path) -> None:
    path = tmp_path / "state"
    store = NonceStore(path)
    for nonce in range(1, 100):
        store.save([SaveNonce("map-register", nonce)])
    store.close()
    NonceStore(path).close()
    assert path.read_text() == "99 map-register\n"


def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("nonsense\n")
    with pytest.raises(AgentConfigError, match="Cannot keep nonces"):
        NonceStore(path)
    assert path.read_text() == "nonsense\n"
