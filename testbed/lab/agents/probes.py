"""The prober without its sockets: schedule, payload, ledger of what was sent and came back. Pure.

Schedule and payload of echoes are in echo.c too.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"TBPROBE1"
RUN_ID_OCTETS = 8
_PAYLOAD = struct.Struct(f"!8s{RUN_ID_OCTETS}sQ")
PAYLOAD_OCTETS = _PAYLOAD.size

#: Octets of a row in the output. Rows have one length, so that a late reply can be written into its own.
ROW_OCTETS = 256


class Schedule:
    """When each probe is due: probe n at `start_ns + n * interval_ns`, whatever happened before."""

    def __init__(self, start_ns: int, interval_ns: int) -> None:
        self.start_ns, self.interval_ns = start_ns, interval_ns
        self._next = 0

    def due_ns(self, seq: int) -> int:
        """The moment at which a probe is due."""
        return self.start_ns + seq * self.interval_ns

    def take(self, now_ns: int) -> tuple[range, int | None]:
        """What is due at `now_ns`: (probes that can no longer be sent in their interval, the one to send).

        A prober that was held up does not send a burst: what it missed stays missing in the record.
        """
        latest = (now_ns - self.start_ns) // self.interval_ns
        if latest < self._next:
            return range(0), None
        missed = range(self._next, latest)
        self._next = latest + 1
        return missed, latest


@dataclass(slots=True)
class Probe:
    """One probe; times are CLOCK_MONOTONIC in nanoseconds.

    `sent_ns` is when it was handed to the kernel, None if it was never sent; `kernel_sent_ns` when the kernel
    handed it to the device, None if it did not say.
    """

    seq: int
    scheduled_ns: int
    sent_ns: int | None
    received_ns: int | None = None
    replies: int = 0
    kernel_sent_ns: int | None = None


class Ledger:
    """Every probe of one flow in the order of its schedule, and which rows of the output are stale.

    Attributes:
        probes: all of them.
        answered: how many have had at least one reply.
    """

    def __init__(self, flow: str, direction: str) -> None:
        self._labels = json.dumps({"flow": flow, "direction": direction}, separators=(",", ":"))[:-1]
        self.probes: list[Probe] = []
        self.answered = 0
        self._changed: set[int] = set()
        self._last_answered: int | None = None

    def add(self, probe: Probe) -> None:
        """Record a probe that was sent or should have been; `seq` must be the next one."""
        if probe.seq != len(self.probes):
            raise ValueError(f"probe {probe.seq} after {len(self.probes)} probes")
        self.probes.append(probe)
        self._changed.add(probe.seq)

    def answer(self, seq: int, received_ns: int) -> int:
        """Record a reply; returns how many probes sent between the last answered one and it are unanswered.

        A reply to a probe that was not sent (an old run's, a forged one) is left out and counts 0.
        """
        if not 0 <= seq < len(self.probes) or self.probes[seq].sent_ns is None:
            return 0
        probe = self.probes[seq]
        self.answered += not probe.replies
        probe.replies += 1
        if probe.received_ns is None or received_ns < probe.received_ns:
            probe.received_ns = received_ns
        self._changed.add(seq)
        first = 0 if self._last_answered is None else self._last_answered + 1
        self._last_answered = max(first - 1, seq)
        between = self.probes[first:seq]
        return sum(1 for other in between if other.sent_ns is not None and not other.replies)

    def departed(self, seq: int, moment_ns: int) -> None:
        """Record when the kernel gave a probe to the device."""
        if 0 <= seq < len(self.probes):
            self.probes[seq].kernel_sent_ns = moment_ns
            self._changed.add(seq)

    def outstanding(self, since_ns: int) -> bool:
        """Whether a probe sent at `since_ns` or later still waits for its reply."""
        for probe in reversed(self.probes):
            if probe.sent_ns is not None:
                if probe.sent_ns < since_ns:
                    return False
                if probe.received_ns is None:
                    return True
        return False

    def changed_rows(self, most: int | None = None) -> Iterator[tuple[int, bytes]]:
        """(offset in the output, octets) of rows changed since they were last given here, neighbours joined.

        Args:
            most: how many rows at once, the first ones; all of them if left out.
        """
        run: list[bytes] = []
        first = previous = -1
        chosen = sorted(self._changed)[:most]
        self._changed.difference_update(chosen)
        for seq in chosen:
            if run and seq != previous + 1:
                yield first * ROW_OCTETS, b"".join(run)
                run = []
            if not run:
                first = seq
            run.append(self.row(self.probes[seq]))
            previous = seq
        if run:
            yield first * ROW_OCTETS, b"".join(run)

    def row(self, probe: Probe) -> bytes:
        """A probe as one line of JSON, padded with spaces to ROW_OCTETS."""
        # By hand: the library takes three times as long, and the schedule waits for it.
        line = (
            f'{self._labels},"seq":{probe.seq},"scheduled_ns":{probe.scheduled_ns},"sent_ns":{_json(probe.sent_ns)}'
            f',"received_ns":{_json(probe.received_ns)},"replies":{probe.replies}'
            f',"kernel_sent_ns":{_json(probe.kernel_sent_ns)}}}'
        ).encode()
        if len(line) >= ROW_OCTETS:
            raise ValueError(f"a row of {len(line)} octets")
        return line.ljust(ROW_OCTETS - 1) + b"\n"

    def summary(self) -> dict[str, int | None]:
        """Counts, and how late probes went out (99th percentile and maximum, nanoseconds)."""
        late = sorted(p.sent_ns - p.scheduled_ns for p in self.probes if p.sent_ns is not None)
        return {
            "sent": len(late),
            "never_sent": len(self.probes) - len(late),
            "answered": self.answered,
            "duplicated": sum(1 for probe in self.probes if probe.replies > 1),
            "lateness_p99_ns": late[len(late) * 99 // 100] if late else None,
            "lateness_max_ns": late[-1] if late else None,
        }


def _json(number: int | None) -> str:
    return "null" if number is None else str(number)


def encode_payload(run_id: bytes, seq: int) -> bytes:
    """What a probe carries: the run's id (8 octets) and a sequence number that does not wrap."""
    return _PAYLOAD.pack(MAGIC, run_id, seq)


def decode_payload(data: bytes, run_id: bytes) -> int | None:
    """The sequence number of a reply to this run's probe, or None."""
    if len(data) < PAYLOAD_OCTETS:
        return None
    magic, whose, seq = _PAYLOAD.unpack_from(data)
    return int(seq) if (magic, whose) == (MAGIC, run_id) else None
