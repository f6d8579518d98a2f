"""What became of each single probe: the rows behind the counts and the gaps. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from testbed.measure.analysis import Analysis, FlowResult, MigrationResult
from testbed.measure.gaps import Gap, lost_in, overtaken
from testbed.measure.losses import Fate
from testbed.measure.model import NEVER, NS_PER_MS, ms
from testbed.measure.probepackets import ProbeKey

#: So many of a gap's probes are told one by one, half of them from its start and half from its end.
TOLD_OF_A_GAP = 20


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """One probe of one migration (its baseline included); the columns of probes.csv.

    Attributes:
        migration: its index.
        flow, direction, seq: which probe; `seq` is None for one that could not be sent.
        sent_from_t0_ms: when it was sent, or due if it never was, from the request to migrate.
        sent_ns, received_ns: CLOCK_MONOTONIC; None if not sent, not answered.
        kernel_sent_ns: CLOCK_MONOTONIC when the kernel handed it to the device; None without such a stamp.
        rtt_ms: from `sent_ns` to `received_ns`.
        replies: how many came; more than one is a duplicate.
        outcome: "answered", "lost", "never sent", "unsendable" (its sender was suspended when it was due).
        lost: of a lost one "request" or "reply"; "" if captures do not tell.
        last_seen, last_seen_frame: capture and frame number of the last sighting of a lost one.
        reordered: its reply was overtaken by the reply to a later probe.
        triangular: it went to the old xTR and from there to the new one.
    """

    migration: int
    flow: str
    direction: str
    seq: int | None
    sent_from_t0_ms: float
    sent_ns: int | None
    received_ns: int | None
    kernel_sent_ns: int | None
    rtt_ms: float | None
    replies: int
    outcome: str
    lost: str
    last_seen: str
    last_seen_frame: int | None
    reordered: bool
    triangular: bool


def probe_rows(analysis: Analysis) -> Iterator[ProbeRow]:
    """Yield every decided probe of every migration, flow after flow in the order due."""
    fates = analysis.run.fates or {}
    for result in analysis.migrations:
        for flow in result.flows:
            yield from _flow_rows(result, flow, fates)


def _flow_rows(result: MigrationResult, flow: FlowResult, fates: Mapping[ProbeKey, Fate]) -> Iterator[ProbeRow]:
    series, migration = flow.series, result.migration
    late = np.zeros(len(series), dtype=np.bool_)
    late[series.was_answered] = overtaken(series.where(series.was_answered))
    for at in range(len(series)):
        sent_ns, received_ns, seq = int(series.sent_ns[at]), int(series.received_ns[at]), int(series.seq[at])
        kernel_ns = int(series.kernel_sent_ns[at])
        is_sent, is_answered = sent_ns != NEVER, sent_ns != NEVER and received_ns != NEVER
        fate = fates.get(ProbeKey(series.flow, series.direction, seq)) or Fate()
        is_lost = is_sent and not is_answered
        last = fate.last if is_lost else None
        moment_ns = sent_ns if is_sent else int(series.scheduled_ns[at])
        yield ProbeRow(
            migration=migration.index,
            flow=series.flow,
            direction=series.direction,
            seq=None if seq == NEVER else seq,
            sent_from_t0_ms=ms(moment_ns - migration.window.start_ns),
            sent_ns=sent_ns if is_sent else None,
            received_ns=received_ns if is_answered else None,
            kernel_sent_ns=kernel_ns if kernel_ns != NEVER else None,
            rtt_ms=ms(received_ns - sent_ns) if is_answered else None,
            replies=int(series.replies[at]),
            outcome=_outcome(is_sent, is_answered, is_numbered=seq != NEVER),
            lost=("reply" if fate.reply else "request") if last else "",
            last_seen=last.capture if last else "",
            last_seen_frame=(last.number or None) if last else None,
            reordered=bool(late[at]),
            triangular=fate.is_triangular(migration.source_xtr, migration.destination_xtr),
        )


def _outcome(is_sent: bool, is_answered: bool, *, is_numbered: bool) -> str:
    if is_sent:
        return "answered" if is_answered else "lost"
    return "never sent" if is_numbered else "unsendable"


def triangular_count(result: MigrationResult, flow: FlowResult, fates: Mapping[ProbeKey, Fate] | None) -> int | None:
    """How many of a flow's probes went through both xTRs; None if nothing was captured or TCP hides its probes."""
    if fates is None or flow.series.flow == "tcp":
        return None
    old, new = result.migration.source_xtr, result.migration.destination_xtr
    keys = (ProbeKey(flow.series.flow, flow.series.direction, int(seq)) for seq in flow.series.seq)
    return sum(1 for key in keys if key in fates and fates[key].is_triangular(old, new))


def told_of_gap(
    gap: Gap, flow: FlowResult, fates: Mapping[ProbeKey, Fate] | None, origin_ns: int
) -> list[dict[str, Any]]:
    """The first and last lost probes of a gap, with the frame in which each was seen last.

    Args:
        gap: of the flow.
        flow: whose probes.
        fates: of the captures; None if nothing was captured.
        origin_ns: what `sent_ms` counts from.
    """
    series = flow.series
    places = np.flatnonzero(lost_in(gap, series))
    half = TOLD_OF_A_GAP // 2
    if len(places) > TOLD_OF_A_GAP:
        places = np.concatenate([places[:half], places[-half:]])
    told: list[dict[str, Any]] = []
    for at in places:
        seq = int(series.seq[at])
        fate = (fates or {}).get(ProbeKey(series.flow, series.direction, seq))
        last = fate.last if fate else None
        told.append(
            {
                "seq": seq,
                "sent_ms": round((int(series.sent_ns[at]) - origin_ns) / NS_PER_MS, 3),
                "fate": fate.words if fate else None,
                "capture": last.capture if last else None,
                "frame": (last.number or None) if last else None,
            }
        )
    return told
