"""When it goes wrong: the destination's libvirtd dies in pre-copy, Ctrl-C comes, the lab is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from testbed.lab.session import labs
from testbed.paths import cache
from tests.waiting import wait_until
from tests.xen.lab import FIRST, ROOT, Run, command, left_behind, machine_state

pytestmark = [pytest.mark.xen, pytest.mark.timeout(900)]


def run_folder(out: Path) -> Path:
    (folder,) = [path for path in out.iterdir() if path.is_dir()]
    return folder


def events_of(folder: Path) -> str:
    path = folder / "events.jsonl"
    return path.read_text() if path.exists() else ""


def test_destination_libvirtd_dies_in_precopy(tmp_path: Path) -> None:
    before = machine_state()
    process = subprocess.Popen(
        [sys.executable, "-m", "testbed", "run", str(FIRST), "--out", str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    said: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: said.extend(process.stdout or []), daemon=True)
    reader.start()
    wait_until(lambda: any(tmp_path.iterdir()), "the run's folder", deadline_s=120.0)
    folder = run_folder(tmp_path)
    wait_until(
        lambda: "migration_requested" in events_of(folder) or process.poll() is not None, "pre-copy", deadline_s=300.0
    )
    lab = labs()[-1]
    wait_until(lambda: saving(lab.name) or process.poll() is not None, "the stream", deadline_s=120.0)
    killed = command("exec", "--lab", lab.name, "xen-b", "sh", "-c", "kill -9 $(pidof libvirtd)", timeout_s=60.0)
    assert killed.returncode == 0, killed.stderr
    process.wait(300.0)
    reader.join(10.0)
    run = Run(folder, subprocess.CompletedProcess([], process.returncode, "".join(said), ""))
    assert process.returncode == 10, run.said()
    assert run.summary["verdict"] == "FAIL"
    (migration,) = run.summary["migrations"]
    assert migration["verdict"] == "FAIL"
    assert migration["metrics"]["stuntime_ms"] is None or migration["metrics"]["remap_latency_ms"] is None
    (ended,) = run.of("migration_ended")
    assert "libvirt" in ended.fields["error"]
    (verification,) = run.of("verification")
    assert verification.fields["site"] == "site-a"
    assert verification.fields["ok"], verification.fields  # answers at A, mapping at A, nowhere else
    assert verification.fields["mapping"] == ["10.0.1.2"]
    assert run.of("recovered")
    assert left_behind(before) == {}


def saving(lab: str) -> bool:
    """Whether libxl's helper sends the guest's memory at the source."""
    return command("exec", "--lab", lab, "xen-a", "pidof", "libxl-save-helper", timeout_s=60.0).returncode == 0


def interrupted_after(event: str, out: Path) -> Path:
    """Run the first migration, interrupt it when `event` happens, and return the run's folder."""
    process = subprocess.Popen(
        [sys.executable, "-m", "testbed", "run", str(FIRST), "--out", str(out)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    wait_until(lambda: any(out.iterdir()) and event in events_of(run_folder(out)), event, deadline_s=300.0)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=150.0)[0]
    assert process.returncode == 11, said
    assert "interrupted" in said
    folder = run_folder(out)
    assert json.loads((folder / "summary.json").read_text())["verdict"] == "ERROR"
    return folder


def test_interrupt_takes_the_lab_down_and_keeps_the_evidence(tmp_path: Path) -> None:
    before = machine_state()
    # Restored hosts may be ready before the agents are: what is up then must be asked for its logs all the same.
    folder = interrupted_after("hosts_ready", tmp_path)
    assert "evidence_missing" not in events_of(folder)
    for host in ("xen-a", "xen-b"):
        assert (folder / "logs" / host / "libvirtd.log").exists()
        assert (folder / "console" / f"{host}.log").exists()
    assert left_behind(before) == {}


def test_interrupt_while_hosts_come_up_ends_them_and_keeps_their_state(tmp_path: Path) -> None:
    before, states = machine_state(), saved_states()
    folder = interrupted_after("accelerator_chosen", tmp_path)
    happened = events_of(folder)
    assert "saved_state_refused" not in happened
    assert "hosts_ready" not in happened, "the interrupt came too late to show anything"
    assert "evidence_missing" in happened
    assert saved_states() == states
    assert left_behind(before) == {}


def saved_states() -> set[str]:
    """The names of the saved states of booted hosts."""
    return {path.parent.name for path in (cache() / "states").glob("*/complete")}


#: Leaves the listener (dropbear's pid file) and ends every session, its own too.
END_SSH_SESSIONS = 'for pid in $(pidof dropbear); do [ "$pid" = "$(cat /var/run/dropbear.pid)" ] || kill "$pid"; done'


def test_up_exec_inspect_down_and_kill(tmp_path: Path) -> None:
    before = machine_state()
    up = command("up", str(FIRST), "--out", str(tmp_path))
    assert up.returncode == 0, up.stderr
    try:
        lab = labs()[-1]
        status = json.loads(command("status", "--format", "json").stdout)
        assert lab.name in {each["lab"] for each in status["labs"] if each["state"] == "up"}
        ping = command("exec", "--lab", lab.name, "correspondent", "ping", "-c", "2", "192.168.0.10")
        assert ping.returncode == 0, ping.stdout
        state = json.loads(command("inspect", "--lab", lab.name, "--format", "json").stdout)
        assert state["guest_site"] == "site-a"
        assert any(r["eid"] == "192.168.0.10/32" for r in state["agents"]["ms"]["registrations"])
        unknown = command("exec", "--lab", lab.name, "nobody", "true")
        assert unknown.returncode == 11
        assert "there are" in unknown.stderr
        listed = command("exec", "--lab", lab.name, "xen-a", "xl", "list")
        assert "vm1" in listed.stdout
        for name in (".", "keys", "hosts"):
            assert (lab / name).stat().st_mode & 0o077 == 0
        # A connection that breaks is made again, with the lab's key: the saved state's opens nothing any more.
        command("exec", "--lab", lab.name, "xen-a", "sh", "-c", END_SSH_SESSIONS)
        state = json.loads(command("inspect", "--lab", lab.name, "--format", "json").stdout)
        assert "vm1" in state["placement"]["xen-a"]["hypervisor"]
        # The hard way: kill the process that holds the lab. The kernel reaps, `down` waits and removes the rest.
        pid = int((lab / "unshare.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
    finally:
        down = command("down", "--all")
    assert down.returncode == 0, down.stderr

    assert left_behind(before) == {}
    again = command("down")
    assert again.returncode == 0
    assert "no lab is up" in again.stdout
