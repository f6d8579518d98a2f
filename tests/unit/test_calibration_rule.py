"""The netlink message of the calibration, octet by octet (linux/fib_rules.h)."""

from __future__ import annotations

import pytest

from testbed.lab.calibration import RTM_DELRULE, RTM_NEWRULE, rule_message

HEADS = {4: "02200000 00000006 00000000", 6: "0a800000 00000006 00000000"}
PRIORITY_AND_PORTS = "0800 0600 f5100000  0500 1600 11 000000  0800 1800 f510 f510"
#: (kind, RLOC, type and flags, header of the rule, attribute of the destination).
MESSAGES = [
    (RTM_NEWRULE, "10.0.1.2", "2000 0506", HEADS[4], "0800 0100 0a000102"),
    (RTM_DELRULE, "fd00::2", "2100 0500", HEADS[6], "1400 0100 fd000000000000000000000000000002"),
]


@pytest.mark.parametrize(("kind", "rloc", "head", "rule", "destination"), MESSAGES)
def test_rule_message(kind: int, rloc: str, head: str, rule: str, destination: str) -> None:
    octets = rule_message(kind, rloc)
    assert int.from_bytes(octets[:4], "little") == len(octets)
    assert octets[4:8] == bytes.fromhex(head)
    assert octets[16:] == bytes.fromhex(rule + destination + PRIORITY_AND_PORTS)
