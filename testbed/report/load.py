"""Read a run's folder. The only place that knows its files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

from testbed.errors import TestbedError
from testbed.events import Event, parse_events
from testbed.measure.analysis import Run, primary_first
from testbed.measure.captured import DIRECTION, CapturedProbes
from testbed.measure.conditions import conditions
from testbed.measure.frames import Frame
from testbed.measure.model import Migration, Probe, ProbeSeries
from testbed.report.captures import captured_frames, look
from testbed.report.context import bound_of, captured_directions, expected_loss, migrations_of, with_mac_check
from testbed.report.words import RAW_FOLDERS

#: Files in a run's folder that reports write.
OUTPUTS = (
    "summary.json", "report.html", "report.md", "junit.xml", "gaps.parquet", "gaps.csv", "migrations.csv", "probes.csv",
    "SHA256SUMS",
)  # fmt: skip


class RunFolderError(TestbedError):
    """A folder that is not a run's, or of which a file cannot be read."""

    def __init__(self, path: Path, why: str, next_command: str = "testbed run EXPERIMENT") -> None:
        super().__init__("run-folder", f"{path}: not the folder of a whole run", why=why, next_command=next_command)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run's folder, read.

    Attributes:
        path: the folder.
        manifest, plan: the JSON files.
        events: of events.jsonl in the order of `mono_ns`.
        series: the probe logs.
        topology_svg: the picture of the topology, "" if there is none.
        problems: what could not be read; reading the captures adds to it.
    """

    path: Path
    manifest: Mapping[str, Any]
    plan: Mapping[str, Any]
    events: tuple[Event, ...]
    series: tuple[ProbeSeries, ...]
    topology_svg: str
    problems: list[str] = field(default_factory=list)


def check_access(path: Path) -> None:
    """Check that a run's raw data can be read and its reports be written, before anything is.

    Raises:
        RunFolderError: naming what may not be read or written.
    """
    unreadable: list[Path] = []
    for folder, _, names in os.walk(path, onerror=lambda error: unreadable.append(Path(error.filename))):
        unreadable.extend(file for name in names if not os.access(file := Path(folder, name), os.R_OK))
    _refuse(path, "read", unreadable)  # all of it: check sums are over every file
    outputs = [file for name in OUTPUTS if (file := path / name).exists()]
    written = [folder for folder in (path, path / "probes", path / "plots") if folder.exists()]
    _refuse(path, "written", [entry for entry in written + outputs if not os.access(entry, os.W_OK)])


def _refuse(path: Path, what: str, entries: Sequence[Path]) -> None:
    """Raise RunFolderError if there are any entries."""
    if entries:
        names = ", ".join("the folder" if entry == path else str(entry.relative_to(path)) for entry in entries[:3])
        more = f" and {len(entries) - 3} more" if len(entries) > 3 else ""
        next_command = f"sudo chown -R {os.getuid()}:{os.getgid()} {path}"
        raise RunFolderError(path, f"may not be {what} by you: {names}{more}", next_command)


def load(path: Path) -> RunFolder:
    """Read a run's folder, captures left alone.

    Raises:
        RunFolderError: if manifest.json is missing, or it or plan.json is torn. A run that broke off
            before it had a plan has none.
    """
    events_file, topology, plan = path / "events.jsonl", path / "topology.svg", path / "plan.json"
    lines = events_file.read_text().splitlines() if events_file.exists() else []
    manifest = _json(path, "manifest.json")
    logs = load_probes(path / "probes")
    return RunFolder(
        path,
        manifest,
        _json(path, "plan.json") if plan.exists() else {},
        tuple(parse_events(lines)),
        tuple(replace(log, captured=log.direction in captured_directions(manifest)) for log in logs),
        topology.read_text() if topology.exists() else "",
    )


def raw_files(path: Path) -> list[str]:
    """The files in the RAW_FOLDERS of a run's folder, relative to it, in order."""
    found = (file for folder in RAW_FOLDERS for file in sorted((path / folder).rglob("*")) if file.is_file())
    return [file.relative_to(path).as_posix() for file in found]


def _json(folder: Path, name: str) -> Mapping[str, Any]:
    try:
        content = json.loads((folder / name).read_text())
    except OSError as error:
        raise RunFolderError(folder, f"{name}: {error.strerror}") from error
    except ValueError as error:
        raise RunFolderError(folder, f"{name}: {error}") from error
    if not isinstance(content, dict):
        raise RunFolderError(folder, f"{name} is not an object")
    return content


def load_probes(folder: Path) -> tuple[ProbeSeries, ...]:
    """The probe logs of a folder, one series a flow and direction.

    A log is JSONL while the run lives and Parquet afterwards. A Parquet file is complete as soon as
    it has its name, so where a conversion was killed in between, it counts and the JSONL does not.
    """
    whole: dict[tuple[str, str], list[Probe]] = {}
    for file in sorted(folder.glob("*.parquet")):
        _collect(whole, parquet.read_table(file).to_pylist())
    growing: dict[tuple[str, str], list[Probe]] = {}
    for file in sorted(folder.glob("*.jsonl")):
        _collect(growing, _jsonl_rows(file))
    rows = {**growing, **whole}
    return tuple(ProbeSeries.of(flow, direction, probes) for (flow, direction), probes in sorted(rows.items()))


def _collect(rows: dict[tuple[str, str], list[Probe]], records: Iterable[Mapping[str, Any]]) -> None:
    for record in records:
        probe = Probe(
            record["seq"],
            record["scheduled_ns"],
            record["sent_ns"],
            record["received_ns"],
            record["replies"],
            record.get("kernel_sent_ns"),
        )
        rows.setdefault((record["flow"], record["direction"]), []).append(probe)


def _jsonl_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a JSONL file; a torn last line (a killed prober) is left out."""
    for line in file.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def frames_of(folder: RunFolder) -> Iterator[Frame]:
    """Every frame of every capture in the manifest, file after file; a cut file ends where it is cut."""
    return captured_frames(folder.path, folder.manifest.get("captures") or (), folder.problems)


def to_run(folder: RunFolder, frames: Iterable[Frame]) -> Run:
    """Join what was read to what the measurement takes.

    Args:
        folder: of `load`.
        frames: of the captures (`frames_of`, or any others).
    """
    manifest, plan = folder.manifest, folder.plan
    interval_ns = _interval_ns(folder)
    try:
        migrations = migrations_of(plan, manifest, folder.events)
    except KeyError as missing:
        raise RunFolderError(folder.path, f"plan.json or a migration_requested event lacks {missing}") from None
    seen = look(frames, plan, manifest, migrations, folder.series)
    migrations = [with_mac_check(migration, seen.macs.get(migration.index, set())) for migration in migrations]
    series = folder.series if seen.probes is None else with_captured(folder, seen.probes, migrations, interval_ns)
    events = sorted([*folder.events, *seen.events], key=lambda event: event.mono_ns)
    # The window of the last migration has no end of its own: the run's last stamp ends it.
    last_ns = max(
        [event.mono_ns for event in events]
        + [int(max(log.sent_ns.max(), log.received_ns.max())) for log in series if len(log)],
        default=0,
    )
    migrations = [replace(m, window=m.window._replace(end_ns=min(m.window.end_ns, last_ns + 1))) for m in migrations]
    outage_of = next((log.name(one.eid) for log in primary_first(series) for one in migrations), None)
    return Run(
        manifest,
        events,
        series,
        migrations,
        interval_ns,
        max((expected_loss(plan, migration) for migration in migrations), default=0.0),
        {m.index: bound_of(plan, manifest, m, interval_ns) for m in migrations},
        seen.fates,
        tuple(folder.problems),
        conditions(plan, manifest, outage_of),
    )


def with_captured(
    folder: RunFolder, captured: CapturedProbes, migrations: Iterable[Migration], interval_ns: int
) -> tuple[ProbeSeries, ...]:
    """The probe logs of a run, with those that only captures tell made anew.

    Args:
        folder: the run's; its manifest says which directions these are.
        captured: has seen all frames; left-out probes are noted in the folder's problems.
        migrations: of the run.
        interval_ns: of the probes.
    """
    if DIRECTION not in captured_directions(folder.manifest):
        return folder.series
    stayed = [migration.window for migration in migrations if not migration.ended_ok]
    suspended_ns = [
        event.mono_ns
        for event in folder.events
        if event.kind == "guest_suspended" and any(w.start_ns <= event.mono_ns < w.end_ns for w in stayed)
    ]
    end_ns = max((event.mono_ns for event in folder.events if event.kind == "probing_ended"), default=None)
    logs = {(log.flow, log.direction): log for log in folder.series}
    for flow in folder.manifest["probes"]["flows"]:
        logs[flow, DIRECTION] = captured.log(flow, interval_ns, suspended_ns, end_ns)
    if captured.strangers:
        folder.problems.append(f"{captured.strangers} packets of probes of another boot of the guest were left out")
    return tuple(log for _, log in sorted(logs.items()))


def _interval_ns(folder: RunFolder) -> int:
    """The probes' interval; 0 in a run that broke off before it probed."""
    if not folder.series and "probes" not in folder.manifest:
        return 0
    try:
        return round(float(folder.manifest["probes"]["interval_ms"]) * 1_000_000)
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(folder.path, "manifest.json: probes.interval_ms is missing") from error
