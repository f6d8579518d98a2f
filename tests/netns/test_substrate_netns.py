"""The emulated guest: every announcement, every mechanism, its labels, its evidence, and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from testbed.lab.agentprocess import ask
from testbed.lab.announcement import announcement
from testbed.lab.namespaces import supervisor_pid
from testbed.lab.network.sockets import socket_inside
from testbed.lisp.sightings import SightingKind, read_frame
from testbed.plan.model import Guest
from tests.netns.own_lab import needs_root
from tests.netns.runs import QUICK, Run, command, lab_folder, run
from tests.waiting import wait_until

ONE = "migrations=[{to: site-b}]"
UNLIMITED = "lisp.limiters={map_request: false, map_reply: false, smr: false, smr_invoked: false}"
#: Longer than the interval between two RLOC-probes of a second, give or take a tenth.
PROBED_MEANWHILE = "settle_s=0.8"
RLOC_B = "10.0.2.2"
GUEST = Guest("vm1", "site-a", "192.168.0.10", 24, "192.168.0.1", "52:54:00:00:00:0a")


def only_migration(done: Run) -> dict[str, Any]:
    assert done.summary["verdict"] == "PASS", done.summary["headline"]
    (migration,) = done.summary["migrations"]
    return dict(migration)


@needs_root
@pytest.mark.parametrize(
    ("announce", "via"),
    [("garp", "gratuitous-arp"), ("arp-request", "arp-request"), ("rarp", "rarp"), ("none", "packet")],
)
def test_each_announcement_is_what_the_new_xtr_detects_it_by(tmp_path: Path, announce: str, via: str) -> None:
    done = run(tmp_path, ONE, f"emulated_guest.announce={announce}", "emulated_guest.speaks_after_ms=300")
    metrics = only_migration(done)["metrics"]
    assert done.first("eid_detected", "xtr-b")["via"] == via
    away_ms = (done.first("guest_resumed")["mono_ns"] - done.first("guest_suspended")["mono_ns"]) / 1e6
    assert metrics["vm_downtime_ms"] == pytest.approx(away_ms, abs=0.1)
    assert away_ms >= 100
    assert metrics["remap_latency_ms"] is not None
    # Who says nothing is not there, however long it runs already.
    assert (metrics["reconnection_ms"] > 250) == (announce == "none")


@needs_root
def test_an_ipv6_guest_is_detected_by_its_neighbour_advertisement(tmp_path: Path) -> None:
    done = run(tmp_path, ONE, "emulated_guest.announce=na", "topology=../topologies/two-sites-ipv6.yaml")
    metrics = only_migration(done)["metrics"]
    detected = done.first("eid_detected", "xtr-b")
    assert (detected["eid"], detected["via"]) == ("fd00:0:0:1::10", "neighbour-advertisement")
    assert metrics["remap_latency_ms"] >= 50
    assert metrics["reconnection_ms"] < 50


@needs_root
@pytest.mark.parametrize(
    ("mechanism", "options", "cause"),
    [
        ("smr-old-xtr", ("lisp.proxy_reply=false", "lisp.hold=false"), ("smr_sent", "xtr-a")),
        ("smr-map-server", (UNLIMITED,), ("smr_sent", "ms")),
        ("smr-new-xtr", (UNLIMITED,), ("smr_sent", "xtr-b")),
        ("pubsub", ("lisp.proxy_reply=false",), ("publication_received", "xtr-c")),
        ("rloc-probe", ("lisp.rloc_probe_interval_s=1", PROBED_MEANWHILE), ("rloc_probe_answered", "xtr-c")),
    ],
)
def test_each_mechanism_remaps_not_sooner_than_its_bound(
    tmp_path: Path, mechanism: str, options: tuple[str, ...], cause: tuple[str, str]
) -> None:
    done = run(tmp_path, ONE, f"mechanism={mechanism}", *options)
    migration = only_migration(done)
    latency_ms, bound = migration["metrics"]["remap_latency_ms"], migration["bound"]
    kind, source = cause
    suspended_ns = done.first("guest_suspended")["mono_ns"]
    assert kind in [e["kind"] for e in done.events if e["source"] == source and e["mono_ns"] > suspended_ns]
    if mechanism == "rloc-probe":
        assert 20 <= latency_ms <= bound["bound_ms"] + 200
    else:
        assert bound["bound_ms"] <= latency_ms <= bound["bound_ms"] + 200


@needs_root
def test_agents_that_rehearse_say_so_and_change_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, ONE, "lisp.rehearse_every_ms=5")
    migration = only_migration(done)
    assert migration["bound"]["bound_ms"] <= migration["metrics"]["remap_latency_ms"]
    rehearsing = {e["source"]: e["every_ms"] for e in done.events if e["kind"] == "rehearsing"}
    assert rehearsing == dict.fromkeys(("ms", "xtr-a", "xtr-b", "xtr-c"), 5.0)
    assert done.first("processors_kept_awake")["how"] in ("pm-qos", "idle-loops")
    # What is rehearsed has names for documentation, RFC 5737; none of it may show.
    assert not [e for e in done.events if "198.51.100." in json.dumps(e) or "192.0.2." in json.dumps(e)]


@needs_root
def test_it_says_everywhere_that_it_is_no_vm_and_leaves_nothing(tmp_path: Path) -> None:
    before = interfaces()
    done = run(tmp_path, ONE, "emulated_guest.downtime_ms={min: 20, max: 60}")
    migration = only_migration(done)
    assert (done.summary["substrate"], done.summary["accelerator"], done.summary["hypervisor"]) == ("netns", None, None)
    assert any("no VM is migrated" in part for part in done.manifest["emulated"])
    for report in ("report.md", "report.html"):
        assert "not a VM" in (done.folder / report).read_text()
    assert done.first("guest_suspended")["via"] == done.first("guest_resumed")["via"] == "emulated"
    assert 20 <= migration["metrics"]["vm_downtime_ms"] <= 75
    seen = {capture["site"]: capture["received"] for capture in done.manifest["captures"] if "site" in capture}
    assert seen["site-a"] > 50
    assert seen["site-b"] > 10
    looked = [event["mono_ns"] for event in done.events if event["kind"] == "placement" and event["when"] == "after"]
    assert looked[0] > done.first("settle_ended")["mono_ns"]  # so that the probes do not see the looking
    checks = done.first("verification")["checks"]
    assert checks == dict.fromkeys(
        ("guest_only_here", "guest_answers", "mapping_only_here", "boot_id_unchanged", "uptime_not_backwards"), True
    )
    assert migration["verification"]["checks"] == {**checks, "mac_unchanged": True}
    assert migration["verification"]["macs"] == [done.first("eid_detected", "xtr-b")["mac"]]
    assert interfaces() == before


@needs_root
def test_there_and_back_at_once_ends_where_it_ends(tmp_path: Path) -> None:
    # B and back to A: what the first move still has under way must not undo the second one.
    done = run(tmp_path, "migrations=[{path: [site-b, site-a], repeat: 2}]", "settle_s=0.2", "baseline_s=0.2")
    assert [m["verdict"] for m in done.summary["migrations"]] == ["PASS"] * 4
    verified = [event for event in done.events if event["kind"] == "verification"]
    assert [event["mapping"] for event in verified] == [[RLOC_B], ["10.0.1.2"]] * 2
    requested = [event["mono_ns"] for event in done.events if event["kind"] == "migration_requested"]
    assert requested[1] - requested[0] < 5e9


@needs_root
@pytest.mark.parametrize(("moves", "verdict"), [(("site-b", "site-a"), "PASS"), ((), "SKIPPED")])
def test_a_lab_by_hand_has_a_report_too(tmp_path: Path, moves: tuple[str, ...], verdict: str) -> None:
    out = tmp_path / "runs"
    with lab_folder() as runtime:
        up = command("up", str(QUICK), "--out", str(out), runtime=runtime)
        assert up.returncode == 0, up.stderr
        try:
            for site in moves:
                moved = command("migrate", site, runtime=runtime)
                assert moved.returncode == 0, moved.stderr
        finally:
            down = command("down", runtime=runtime)
        assert down.returncode == 0, down.stderr
        (folder,) = out.iterdir()
        command("report", str(folder), runtime=runtime)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["outcome"]["ok"]
    assert summary["verdict"] in (verdict, "INVALID" if moves else verdict)  # a busy machine may spoil the probing
    assert [m["verdict"] for m in summary["migrations"]] == ["PASS"] * len(moves)
    assert [m["destination"] for m in summary["migrations"]] == list(moves)
    assert all(m["metrics"]["stuntime_ms"] > 100 for m in summary["migrations"])


@needs_root
def test_refreshes_and_a_late_copy_of_the_old_registration_do_not_take_the_mapping_back(tmp_path: Path) -> None:
    sets = ("--set", "lisp.refresh_s=0.2", "--set", "lisp.limiters.smr=false")
    with lab_folder() as runtime:
        up = command("up", str(QUICK), "--out", str(tmp_path / "runs"), *sets, runtime=runtime)
        assert up.returncode == 0, up.stderr
        try:
            (lab,) = (runtime / "labs").iterdir()
            with wire_of(lab, "xtr-a", "rloc0") as wire:
                copies = [map_register(wire) for _ in range(2)]
                moved = command("migrate", "site-b", runtime=runtime)
                assert moved.returncode == 0, moved.stderr
                for copy in 5 * copies:
                    handled = registers_handled(lab)
                    wire.send(copy)
                    wait_until(lambda handled=handled: registers_handled(lab) > handled + 1, "refreshes")
                    assert mapping(lab) == [RLOC_B]
        finally:
            down = command("down", runtime=runtime)
        assert down.returncode == 0, down.stderr


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("garp", SightingKind.GRATUITOUS_ARP),
        ("arp-request", SightingKind.ARP_REQUEST),
        ("rarp", SightingKind.RARP),
    ],
)
def test_an_announcement_is_read_as_what_it_is(kind: str, seen: SightingKind) -> None:
    frame = announcement(kind, GUEST)
    assert frame is not None
    sighting = read_frame(frame)
    assert sighting is not None
    assert (sighting.kind, sighting.mac) == (seen, GUEST.mac)
    assert frame[:6] == b"\xff" * 6


def test_an_unsolicited_advertisement_goes_to_all_nodes_of_the_link() -> None:
    guest = Guest("vm1", "site-a", "fd00::10", 64, "fd00::1", "52:54:00:00:00:0a")
    frame = announcement("na", guest)
    assert frame is not None
    sighting = read_frame(frame)
    assert sighting is not None
    assert (sighting.kind, str(sighting.eid)) == (SightingKind.NEIGHBOUR_ADVERTISEMENT, "fd00::10")
    assert frame[:6] == bytes.fromhex("333300000001")
    assert frame[58] & 0x40 == 0  # not solicited (RFC 4861 §4.4)


@pytest.mark.parametrize(("kind", "eid"), [("garp", "fd00::10"), ("na", "192.168.0.10"), ("smoke", "192.168.0.10")])
def test_what_cannot_announce_an_eid_is_refused(kind: str, eid: str) -> None:
    with pytest.raises(ValueError, match=f"{kind} cannot announce {eid}"):
        announcement(kind, Guest("vm1", "site-a", eid, 24, "192.168.0.1", GUEST.mac))


def interfaces() -> list[str]:
    """The machine's interfaces outside of any lab."""
    return sorted(os.listdir("/sys/class/net"))


def wire_of(lab: Path, node: str, interface: str) -> socket.socket:
    """A raw socket on an interface of a node, in this process."""
    inside = int(json.loads((lab / "nodes.json").read_text())["nodes"][node])
    supervisor = supervisor_pid(lab)
    assert supervisor is not None
    wire = socket_inside(pid_outside(supervisor, inside), socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    wire.bind((interface, 0x0003))
    wire.settimeout(10.0)
    return wire


def pid_outside(supervisor: int, inside: int) -> int:
    """The number that a lab's process has here, by its number inside (NSpid, proc(5))."""
    lab = os.readlink(f"/proc/{supervisor}/ns/pid")
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it may end while it is looked at
            numbers = re.search(r"^NSpid:(.*)$", (entry / "status").read_text(), re.MULTILINE)
            if numbers and numbers[1].split()[-1] == str(inside) and os.readlink(entry / "ns" / "pid") == lab:
                return int(entry.name)
    raise AssertionError(f"no process of the lab is {inside}")


def map_register(wire: socket.socket) -> bytes:
    """The next Map-Register of a dynamic EID that passes, as a frame (RFC 9301 §5.6)."""
    while True:
        frame = wire.recv(2048)
        is_control = frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[36:38] == (4342).to_bytes(2, "big")
        if is_control and frame[42] >> 4 == 3 and frame[26:30] == bytes((10, 0, 1, 2)):
            return frame


def registers_handled(lab: Path) -> int:
    """How many Map-Registers the Map-Server has looked at so far."""
    events = (Path(json.loads((lab / "request.json").read_text())["run_dir"]) / "events.jsonl").read_text()
    return events.count('"map_register_received"') + events.count('"registration_refused"')


def mapping(lab: Path) -> list[str]:
    """The locators of the guest's EID."""
    state = ask(lab / "ms.sock", {"op": "inspect"})
    return [rloc for row in state["registrations"] if row["eid"] == "192.168.0.10/32" for rloc in row["locators"]]
