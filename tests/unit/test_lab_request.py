"""A lab's folder: where its sockets are."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.errors import TestbedError
from testbed.lab.request import Request
from testbed.lab.session import new_run_id


@pytest.mark.parametrize("spare", [0, -1])
def test_a_runtime_folder_whose_sockets_would_have_too_long_a_path_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    request = Request(new_run_id(), "up", str(tmp_path))
    longest = 107 - len(f"/labs/{request.lab}/") - 32 - spare
    monkeypatch.setenv("TESTBED_RUNTIME", "r" * longest)
    if spare == 0:
        request.check_folder()
        return
    with pytest.raises(TestbedError, match=f"has {longest} octets, at most {longest - 1} are allowed") as refused:
        request.check_folder()
    assert refused.value.next_command == "export TESTBED_RUNTIME=/run/testbed"
