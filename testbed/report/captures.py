"""Read a run's captures once and collect everything that only frames know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.decode import Capture, CaptureError, lisp_packet
from testbed.decode import Frame as CapturedFrame
from testbed.events import Event
from testbed.measure.captured import CapturedProbes
from testbed.measure.frames import (
    CAPTURE_UNCERTAINTY_MS,
    Frame,
    GuestFrames,
    Passage,
    SenderMacs,
    StreamFrames,
    WallClock,
)
from testbed.measure.losses import Fate, LossFinder
from testbed.measure.model import Migration, ProbeSeries, same_address
from testbed.measure.probepackets import ProbeKey
from testbed.report.context import capture_sites, captured_directions, migration_addresses, xtrs_of
from testbed.report.messages import ETHERNET, ControlFrames


def captured_frames(folder: Path, captures: Iterable[Mapping[str, Any]], problems: list[str]) -> Iterator[Frame]:
    """Every frame of every capture that a manifest lists, file after file.

    Args:
        folder: the run's.
        captures: of the manifest.
        problems: where to note a capture that is missing, damaged or cut.
    """
    for entry in captures:
        capture = Capture(folder / entry["file"])
        try:
            for frame in capture.frames():
                yield Frame(frame.wall_ns, str(entry["node"]), str(entry["interface"]), frame.data, frame.number)
        except CaptureError as error:
            problems.append(f"{entry['file']}: {error.why}")
        if capture.truncated:
            problems.append(f"{entry['file']}: ends in the middle of a frame")


@dataclass(slots=True)
class NewRlocFrames:
    """Collects the first packet that the correspondent's ITR encapsulates to the new RLOC (t13).

    Attributes:
        migrations: to look for.
        core: (node, interface) of each ITR's capture on the core side → the ITR.
        found: migration index → (CLOCK_MONOTONIC, the frame).
    """

    migrations: Sequence[Migration]
    core: Mapping[tuple[str, str], str]
    found: dict[int, tuple[int, Frame]] = field(default_factory=dict)

    def see(self, frame: Frame, mono_ns: int) -> None:
        """Take a captured frame into account; frames may come in any order."""
        itr = self.core.get((frame.node, frame.interface))
        if itr is None:
            return
        for migration in self.migrations:
            window, known = migration.window, self.found.get(migration.index)
            if migration.correspondent_itr != itr or not window.start_ns <= mono_ns < window.end_ns:
                continue
            if (known is None or mono_ns < known[0]) and _is_to_new_rloc(frame, migration):
                self.found[migration.index] = (mono_ns, frame)

    def events(self) -> list[Event]:
        """A `first_packet_new_rloc` for every migration in which there was one, with `via` "frame"."""
        events = []
        for migration in self.migrations:
            if migration.index in self.found:
                mono_ns, frame = self.found[migration.index]
                fields = {
                    "eid": migration.eid,
                    **({"instance_id": migration.instance_id} if migration.instance_id else {}),
                    "rloc": migration.destination_rloc,
                    "via": "frame",
                    "uncertainty_ms": CAPTURE_UNCERTAINTY_MS,
                }
                source = f"capture {frame.node}-{frame.interface}"
                events.append(Event(mono_ns, frame.wall_ns, source, "first_packet_new_rloc", fields))
        return events


def _is_to_new_rloc(frame: Frame, migration: Migration) -> bool:
    """Whether a frame carries a data packet for the guest to the destination's RLOC."""
    packet = lisp_packet(CapturedFrame(0, frame.wall_ns, frame.data, ETHERNET))
    if packet is None or packet.plane != "data" or "inner" not in packet.message:
        return False
    same_instance = packet.message.get("instance_id", 0) == migration.instance_id
    to_rloc = same_address(packet.destination, migration.destination_rloc)
    return same_instance and to_rloc and same_address(packet.message["inner"]["destination_eid"], migration.eid)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the captures of a run told.

    Attributes:
        events: t1, t13, last and first frames of the guests, the xTRs' control messages.
        fates: probe → where it was last seen; None if nothing was captured.
        macs: migration index → the MACs that spoke for the guest's EID at the destination.
        probes: those of guests that keep no log; None if nothing was captured.
    """

    events: tuple[Event, ...] = ()
    fates: Mapping[ProbeKey, Fate] | None = None
    macs: Mapping[int, set[str]] = field(default_factory=dict)
    probes: CapturedProbes | None = None


def look(
    frames: Iterable[Frame],
    plan: Mapping[str, Any],
    manifest: Mapping[str, Any],
    migrations: Sequence[Migration],
    series: Sequence[ProbeSeries],
) -> Seen:
    """Read all frames once.

    Args:
        frames: of all captures, in any order.
        plan: plan.json.
        manifest: manifest.json; without its clock's start no frame can be placed in time.
        migrations: of the run; without any there is nothing to look for.
        series: its probe logs.
    """
    if "start" not in (manifest.get("clock") or {}) or not migrations:
        return Seen()
    clock = WallClock.of(manifest["clock"])
    passages = [
        Passage(m.index, m.guest, m.mac, m.source_site, m.destination_site, m.window, m.eid) for m in migrations
    ]
    lans = capture_sites(plan, manifest)
    guests = GuestFrames(passages, lans)
    speakers = SenderMacs(passages, lans, (mac for _, _, _, mac in xtrs_of(plan)))
    core = {(xtr, site["core_interface"]): xtr for site, xtr, _, _ in xtrs_of(plan)}
    encapsulated = NewRlocFrames(migrations, core)
    hosts = {host["site"]: host["name"] for host in plan["xen_hosts"]}
    streams = StreamFrames(passages, migration_addresses(plan), hosts)
    messages = ControlFrames(migrations, core, {xtr: rloc for _, xtr, rloc, _ in xtrs_of(plan)})
    eids, macs = {migration.eid for migration in migrations}, {migration.mac for migration in migrations}
    taps = [(entry["node"], entry["interface"]) for entry in manifest.get("captures") or () if entry.get("site")]
    captured = CapturedProbes(eids, macs, taps)
    losses = LossFinder.of(series, eids, core, captured_directions(manifest))
    any_frame = False
    for frame in frames:
        any_frame, mono_ns = True, clock.mono_ns(frame.wall_ns)
        for collector in (guests, speakers, encapsulated, streams, messages, losses, captured):
            collector.see(frame, mono_ns)
    found = [*guests.events(), *encapsulated.events(), *streams.events(), *messages.found]
    events = sorted(found, key=lambda event: event.mono_ns)
    return Seen(tuple(events), losses.fates, speakers.found, captured) if any_frame else Seen(tuple(events))
