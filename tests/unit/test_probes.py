"""The prober's schedule, payload and ledger."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.lab.agents import probes
from testbed.lab.agents.probes import Ledger, Probe, Schedule

RUN = b"run-id-8"
MS = 1_000_000


def test_a_late_prober_sends_no_burst() -> None:
    schedule = Schedule(start_ns=1000 * MS, interval_ns=10 * MS)
    assert schedule.take(999 * MS) == (range(0), None)
    assert schedule.take(1000 * MS) == (range(0), 0)
    assert schedule.take(1009 * MS) == (range(0), None)
    missed, due = schedule.take(1047 * MS)
    assert (list(missed), due) == ([1, 2, 3], 4)
    assert schedule.due_ns(due) == 1040 * MS


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=50), st.integers(5 * MS, 1000 * MS))
def test_every_probe_is_taken_exactly_once(times: list[int], interval_ns: int) -> None:
    schedule = Schedule(0, interval_ns)
    taken: list[int] = []
    for now_ns in sorted(times):
        missed, due = schedule.take(now_ns)
        taken += missed
        if due is not None:
            taken.append(due)
            assert schedule.due_ns(due) <= now_ns < schedule.due_ns(due + 1)
    assert taken == list(range(max(times) // interval_ns + 1))


@given(st.integers(0, 2**64 - 1))
def test_payload_round_trip(seq: int) -> None:
    payload = probes.encode_payload(RUN, seq)
    assert probes.decode_payload(payload, RUN) == seq
    assert probes.decode_payload(payload + b"padding", RUN) == seq
    assert probes.decode_payload(payload, b"other-id") is None
    assert probes.decode_payload(payload[:-1], RUN) is None


def rows_of(ledger: Ledger, output: bytearray) -> list[dict[str, object]]:
    for offset, rows in ledger.changed_rows():
        assert offset <= len(output)
        output[offset : offset + len(rows)] = rows
    return [json.loads(line) for line in output.decode().splitlines()]


def test_rows_are_in_order_of_sending_and_corrected_in_place() -> None:
    ledger, output = Ledger("icmp", "to-guest"), bytearray()
    for seq in range(4):
        ledger.add(Probe(seq, seq * 10, None if seq == 2 else seq * 10 + 1))
    assert ledger.answer(0, 5) == 0
    first = rows_of(ledger, output)
    assert [row["received_ns"] for row in first] == [5, None, None, None]
    assert list(ledger.changed_rows()) == []
    assert ledger.answer(3, 99) == 1  # the one never sent is nobody's loss
    assert ledger.answer(1, 98) == 0  # late: it was delayed, not lost
    assert ledger.answer(1, 97) == 0
    assert ledger.answer(2, 96) == 0  # never sent: not ours
    assert ledger.answer(4, 95) == 0
    rows = rows_of(ledger, output)
    assert list(rows[0].items()) == [
        ("flow", "icmp"),
        ("direction", "to-guest"),
        ("seq", 0),
        ("scheduled_ns", 0),
        ("sent_ns", 1),
        ("received_ns", 5),
        ("replies", 1),
        ("kernel_sent_ns", None),
    ]
    assert [(row["seq"], row["sent_ns"], row["received_ns"], row["replies"]) for row in rows] == [
        (0, 1, 5, 1),
        (1, 11, 97, 2),
        (2, None, None, 0),
        (3, 31, 99, 1),
    ]
    assert ledger.summary() == {
        "sent": 3,
        "never_sent": 1,
        "answered": 3,
        "duplicated": 1,
        "lateness_p99_ns": 1,
        "lateness_max_ns": 1,
    }


def test_rows_that_are_taken_a_few_at_a_time_are_the_same_rows() -> None:
    """What changes in between is given again, also where its row was given before."""
    ledger, output = Ledger("udp", "from-guest"), bytearray()
    for seq in range(7):
        ledger.add(Probe(seq, seq * 10, seq * 10 + 1))
    taken = []
    while some := list(ledger.changed_rows(3)):
        taken.append(sum(len(rows) for _, rows in some) // probes.ROW_OCTETS)
        for offset, rows in some:
            output[offset : offset + len(rows)] = rows
        if len(taken) == 1:
            ledger.answer(1, 99)
            ledger.departed(6, 98)
    assert taken == [3, 3, 2]
    rows = [json.loads(line) for line in output.decode().splitlines()]
    assert [row["seq"] for row in rows] == list(range(7))
    assert [row["received_ns"] for row in rows] == [None, 99, None, None, None, None, None]
    assert rows[6]["kernel_sent_ns"] == 98


def test_probes_out_of_order_are_refused() -> None:
    ledger = Ledger("udp", "from-guest")
    with pytest.raises(ValueError, match="probe 1 after 0"):
        ledger.add(Probe(1, 0, 0))


def test_outstanding_looks_at_what_was_sent_since() -> None:
    ledger = Ledger("udp", "from-guest")
    ledger.add(Probe(0, 100, 100))
    ledger.add(Probe(1, 200, 200))
    ledger.add(Probe(2, 300, None))
    assert ledger.outstanding(150)
    ledger.answer(1, 250)
    assert not ledger.outstanding(150)
    assert ledger.outstanding(100)


def test_the_longest_row_fits() -> None:
    top = 2**63 - 1
    row = Ledger("icmp", "from-guest").row(Probe(top, top, top, top, 2**31))
    assert len(row) == probes.ROW_OCTETS
    assert row.endswith(b" \n")
