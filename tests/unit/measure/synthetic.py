"""Runs whose right answers are known by construction: probes, events, and a whole folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from testbed.events import Event
from testbed.measure.analysis import Run
from testbed.measure.model import Interval, Migration, Probe, ProbeSeries
from testbed.plan import model

MS = 1_000_000
INTERVAL_MS = 10
#: Where the monotonic clock stands when the first migration is requested.
START_NS = 5_000_000 * MS
WALL_OFFSET_NS = 1_700_000_000_000_000_000

EID, MAC = "192.168.0.10", "52:54:00:00:00:0a"
RLOC = {"site-a": "10.0.1.2", "site-b": "10.0.2.2", "site-c": "10.0.3.2"}

#: A reply's way: (send time in ms from t0) → the round trips of its replies in ms; () is lost.
Path_ = Callable[[float], tuple[float, ...]]


def probes(
    answer: Path_,
    *,
    start_ms: float = -1000,
    end_ms: float = 3000,
    origin_ns: int = START_NS,
    lateness_ms: Callable[[float], float | None] = lambda due: 0.0,
    flow: str = "icmp",
    direction: str = "to-guest",
) -> ProbeSeries:
    """A log of probes that are due every INTERVAL_MS; `lateness_ms` None is a probe never sent."""
    rows = []
    for seq, due_ms in enumerate(np.arange(start_ms, end_ms, INTERVAL_MS)):
        due_ns, late = origin_ns + round(float(due_ms) * MS), lateness_ms(float(due_ms))
        if late is None:
            rows.append(Probe(seq, due_ns, None, None, 0))
            continue
        sent_ns = due_ns + round(late * MS)
        replies = answer(float(due_ms) + late)
        received_ns = sent_ns + round(min(replies) * MS) if replies else None
        rows.append(Probe(seq, due_ns, sent_ns, received_ns, len(replies)))
    return ProbeSeries.of(flow, direction, rows)


def outage(*spans: tuple[float, float], rtt_ms: float = 4.0) -> Path_:
    """Nothing sent inside a span (its end excluded) is answered."""

    def answer(sent_ms: float) -> tuple[float, ...]:
        return () if any(start <= sent_ms < end for start, end in spans) else (rtt_ms,)

    return answer


@dataclass(frozen=True)
class Story:
    """When what happens in one migration, in ms from t0; a mark that is None never happens."""

    marks: dict[str, float | None] = field(
        default_factory=lambda: {
            "t1": 20.0,
            "t2": 800.0,
            "t3": 1500.0,
            "t4": 1510.0,
            "t5": 1514.0,
            "t6": 1516.0,
            "t7": 1540.0,
            "t8": 1528.0,
            "t9": 1541.0,
            "t10": 1560.0,
            "t11": 1590.0,
            "t12": 1592.0,
            "t13": 1594.0,
        }
    )
    source: str = "site-a"
    destination: str = "site-b"
    ok: bool | None = True
    error: str = ""
    mechanism: str = "smr-old-xtr"

    def without(self, *labels: str) -> Story:
        """The same without some marks."""
        return replace(self, marks={**self.marks, **dict.fromkeys(labels)})

    def with_(self, **marks: float | None) -> Story:
        """The same with other times."""
        return replace(self, marks={**self.marks, **marks})


def event(at_ms: float, source: str, kind: str, origin_ns: int = START_NS, **fields: Any) -> Event:
    mono_ns = origin_ns + round(at_ms * MS)
    return Event(mono_ns, mono_ns + WALL_OFFSET_NS, source, kind, fields)


XTR = {"site-a": "xtr-a", "site-b": "xtr-b", "site-c": "xtr-c"}


def events(story: Story, *, index: int = 0, origin_ns: int = START_NS) -> list[Event]:
    """What the components say of a story, refreshes of other EIDs between."""
    old, new = XTR[story.source], XTR[story.destination]
    hosts = {"site-a": "xen-a", "site-b": "xen-b"}
    rloc, old_rloc = RLOC[story.destination], RLOC[story.source]
    published = story.mechanism == "pubsub"
    said: dict[str, tuple[str, str, dict[str, Any]]] = {
        "t1": (hosts[story.source], "precopy_started", {"guest": "vm1"}),
        "t2": (
            hosts[story.source],
            "guest_suspended",
            {"guest": "vm1", "uncertainty_ms": 1.0, "via": "libxl"},
        ),
        "t3": (
            hosts[story.destination],
            "guest_resumed",
            {"guest": "vm1", "uncertainty_ms": 1.0, "via": "libxl"},
        ),
        "t4": (
            f"tap-{story.destination}",
            "guest_first_frame",
            {"guest": "vm1", "uncertainty_ms": 0.1, "via": "frame"},
        ),
        "t5": (new, "eid_detected", {"eid": EID}),
        "t6": (new, "map_register_sent", {"eid": EID, "nonce": 7 + index}),
        "t7": (new, "map_notify_received", {"eid": EID, "nonce": 7 + index}),
        "t8": ("ms", "mapping_changed", {"eid": EID, "rloc": rloc, "old_rloc": old_rloc}),
        "t9": (old, "eid_departed", {"eid": EID, "rloc": rloc}),
        "t10": ("xtr-c", "map_request_sent", {"eid": EID, "nonce": 99}),
        "t11": (
            "xtr-c",
            "publication_received" if published else "map_reply_received",
            {"eid": EID, "rloc": rloc, "nonce": 99},
        ),
        "t12": ("xtr-c", "map_cache_changed", {"eid": EID, "rloc": rloc, "old_rloc": old_rloc}),
        "t13": ("xtr-c", "first_packet_new_rloc", {"eid": EID, "rloc": rloc, "old_rloc": old_rloc}),
    }
    found = [
        event(-1000, "lab", "baseline_started", origin_ns),
        event(-5, "lab", "baseline_ended", origin_ns),
        event(
            0,
            "lab",
            "migration_requested",
            origin_ns,
            index=index,
            guest="vm1",
            from_site=story.source,
            to_site=story.destination,
        ),
        # Noise that a careless selection would take: another EID, another node, a refresh.
        event(5, new, "map_register_sent", origin_ns, eid=EID, nonce=1),
        event(6, "xtr-c", "map_request_sent", origin_ns, eid="192.168.9.9", nonce=2),
        event(7, "xtr-c", "map_reply_received", origin_ns, eid=EID, rloc=old_rloc, nonce=3),
        event(8, "xtr-c", "map_cache_changed", origin_ns, eid=EID, rloc=old_rloc),
        event(9, old, "map_cache_changed", origin_ns, eid=EID, rloc=rloc),
        event(2990, "lab", "settle_ended", origin_ns, index=index),
    ]
    for label, (source, kind, fields) in said.items():
        at_ms = story.marks[label]
        if at_ms is not None and not (published and label == "t10"):
            found.append(event(at_ms, source, kind, origin_ns, **fields))
    if story.ok is not None:
        found.append(event(1700, "lab", "migration_ended", origin_ns, index=index, ok=story.ok, error=story.error))
    return sorted(found, key=lambda e: e.mono_ns)


def migration(story: Story, **changes: Any) -> Migration:
    """The migration of a story, as the report's reader would find it."""
    whole = Migration(
        index=0,
        guest="vm1",
        eid=EID,
        mac=MAC,
        source_site=story.source,
        destination_site=story.destination,
        source_xtr=XTR[story.source],
        destination_xtr=XTR[story.destination],
        source_rloc=RLOC[story.source],
        destination_rloc=RLOC[story.destination],
        map_server="ms",
        correspondent="correspondent",
        correspondent_itr="xtr-c",
        mechanism=story.mechanism,
        window=Interval(START_NS, START_NS + 2990 * MS),
        baseline=Interval(START_NS - 1000 * MS, START_NS - 5 * MS),
        ended_ok=story.ok,
        error=story.error,
    )
    return replace(whole, **changes)


def clock(step_ms: float = 0.0) -> dict[str, Any]:
    """The manifest's clock readings, the wall clock set by `step_ms` in between."""
    start, end = START_NS - 2000 * MS, START_NS + 5000 * MS
    return {
        "start": {"mono_ns": start, "wall_ns": start + WALL_OFFSET_NS},
        "end": {"mono_ns": end, "wall_ns": end + WALL_OFFSET_NS + round(step_ms * MS)},
    }


def manifest(**changes: Any) -> dict[str, Any]:
    """A manifest as the orchestrator writes it."""
    return {
        "run_id": "2026-11-22T091500Z-3f2a9c",
        "experiment": {"topology": "two-sites", "options": {"proxy_reply": True}},
        "overrides": ["mechanism=smr-old-xtr"],
        "command": ["testbed", "run", "experiments/first.yaml", "--set", "mechanism=smr-old-xtr"],
        "git_commit": "0123456789abcdef",
        "versions": {"testbed": "0.1.0", "xen": "4.17.7", "libvirt": "9.0.0"},
        "host": {
            "cpu": "a processor", "cores": 2, "kernel": "6.18.0",
            "load_before": 0.4, "load_after": 1.9, "steal_percent": 0.2,
        },
        "substrate": "xen",
        "accelerator": "tcg",
        "accelerator_reason": "a probe guest did not boot under KVM within 5 s",
        "hypervisor": "Xen 4.17.7",
        "mechanism": "smr-old-xtr",
        "seed": 20261122,
        "impairments": [
            {"link": "core-xtr-a", "requested": {"delay_ms": 5}, "effective": {"delay_ms": 5.02}},
            {"link": "core-xtr-c", "requested": {"delay_ms": 10}, "effective": {"delay_ms": 10.03}},
        ],
        "clock": clock(),
        "probes": {"interval_ms": INTERVAL_MS, "flows": ["icmp"]},
        "baseline_s": 1.0,
        "settle_s": 1.3,
        "sites": RLOC,
        "guests": ["vm1"],
        "captures": [],
        "outcome": {"ok": True, "error": None, "code": None},
        "emulated": [],
        **changes,
    }  # fmt: skip


def run(story: Story, *series: ProbeSeries, **manifest_changes: Any) -> Run:
    """A run of one migration, without a folder."""
    one = migration(story)
    found = manifest(mechanism=story.mechanism, **manifest_changes)
    return Run(found, events(story), series, [one], INTERVAL_MS * MS)


def plan() -> model.Plan:
    """The resolved plan of a lab of three sites."""

    def link(name: str, one: str, other: str, delay_ms: float) -> model.Link:
        ends = (model.Interface(one, f"{one}-{other}"), model.Interface(other, f"{other}-{one}"))
        return model.Link(name, ends, model.Impairment(delay_ms=delay_ms))

    def site(name: str, letter: str, dynamic: bool) -> model.Site:
        prefix = ("192.168.0.0/24",) if dynamic else ("192.168.3.0/24",)
        return model.Site(
            name, f"xtr-{letter}", RLOC[name], () if dynamic else prefix, prefix if dynamic else (),
            ("192.168.0.1/24",), "00:00:5e:00:01:01",
            f"br-{letter}-eid", f"xtr-{letter}-eid", f"xtr-{letter}-core",
        )  # fmt: skip

    return model.Plan(
        name="two-sites",
        nodes=(),
        links=(
            link("core-ms", "core", "ms", 2.0),
            link("core-xtr-a", "core", "xtr-a", 5.0),
            link("core-xtr-b", "core", "xtr-b", 5.0),
            link("core-xtr-c", "core", "xtr-c", 10.0),
        ),
        bridges=(),
        sites=(site("site-a", "a", True), site("site-b", "b", True), site("site-c", "c", False)),
        mapping_system=model.MappingSystem("ms", "10.0.0.2"),
        correspondent=model.Correspondent("correspondent", "site-c", "192.168.3.10"),
        xen_hosts=(),
        guests=(model.Guest("vm1", "site-a", EID, 24, "192.168.0.1", MAC),),
    )


def write_run(folder: Path, stories: Iterable[Story], *, seed: int = 1, **manifest_changes: Any) -> Path:
    """Write a whole run's folder: a story every 4 s, probes with jitter, as a real run leaves it."""
    rng = np.random.default_rng(seed)
    all_events: list[Event] = []
    series: list[ProbeSeries] = []
    stories = list(stories)
    for index, story in enumerate(stories):
        origin_ns = START_NS + index * 4000 * MS
        all_events += events(story, index=index, origin_ns=origin_ns)
        end = story.marks["t13"] if story.ok else 5000.0
        lost = (story.marks["t2"] or 1e9, end or 5000.0)

        def answer(sent_ms: float, lost: tuple[float, float] = lost) -> tuple[float, ...]:
            if lost[0] - 4 <= sent_ms < lost[1] - 12:
                return ()
            slow = 60 * np.exp(-(sent_ms - lost[1]) / 40) if sent_ms >= lost[1] - 12 else 0.0
            return (31.0 + float(rng.gamma(2.0, 0.4)) + float(slow),)

        series.append(probes(answer, origin_ns=origin_ns, lateness_ms=lambda due: float(rng.exponential(0.08))))
    folder.mkdir(parents=True)
    (folder / "probes").mkdir()
    lines = []
    for number, one in enumerate(series):
        for seq, due, sent, received, replies in zip(
            one.seq, one.scheduled_ns, one.sent_ns, one.received_ns, one.replies, strict=True
        ):
            answered = None if received < 0 else int(received)
            record = {"flow": "icmp", "direction": "to-guest", "seq": int(seq) + 400 * number,
                      "scheduled_ns": int(due), "sent_ns": int(sent),
                      "received_ns": answered, "replies": int(replies),
                      "kernel_sent_ns": int(sent) + 90_000 + int(seq) % 100 * 1000}  # fmt: skip
            lines.append(json.dumps(record) + "\n")
    (folder / "probes" / "icmp.jsonl").write_text("".join(lines))
    (folder / "events.jsonl").write_text("".join(e.to_json() + "\n" for e in all_events))
    end_ns = START_NS + (len(stories) * 4000 + 1000) * MS
    readings = {"start": clock()["start"], "end": {"mono_ns": end_ns, "wall_ns": end_ns + WALL_OFFSET_NS}}
    document = manifest(
        **{"clock": readings, "mechanism": stories[0].mechanism if stories else "ttl", **manifest_changes}
    )
    (folder / "manifest.json").write_text(json.dumps(document, indent=2))
    (folder / "plan.json").write_text(json.dumps(asdict(plan()), indent=2))
    return folder
