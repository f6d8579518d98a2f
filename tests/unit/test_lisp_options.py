"""Options of agents as configuration files have them, and the machines' tables."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.lisp.config import OptionError, XtrOptions, options_from
from testbed.lisp.machine import Machine, TransitionError
from testbed.lisp.registrar import TRANSITIONS, RegistrationInput, RegistrationState


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"refresh": 1}, "No option 'refresh'"),
        ({"refresh_s": "60"}, "does not fit float"),
        ({"held_packets": 1.5}, "does not fit int"),
        ({"proxy_reply": 1}, "does not fit bool"),
        ({"on_miss": "queue"}, "does not fit Literal"),
    ],
)
def test_options_are_checked(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        options_from(XtrOptions, given)


def test_options_are_taken() -> None:
    options = options_from(XtrOptions, {"on_miss": "drop", "refresh_s": 5, "held_packets": 1})
    assert (options.on_miss, options.refresh_s, options.held_packets) == ("drop", 5, 1)


def test_a_machine_takes_only_the_rows_of_its_table() -> None:
    machine = Machine(TRANSITIONS, RegistrationState.GONE)
    assert not any(machine.accepts(each) for each in RegistrationInput)
    with pytest.raises(TransitionError, match="REFRESH in state GONE"):
        machine.feed(RegistrationInput.REFRESH)
