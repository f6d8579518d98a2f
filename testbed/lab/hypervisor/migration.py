"""Live migration by libvirt, driven from outside the hosts, and putting things right when it fails.

What fails how, and what recovers it, was tried case by case: docs/explanation/xen-on-qemu.md.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import libvirt

from testbed.errors import TestbedError
from testbed.lab.hypervisor.host import Host


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a migration ended: `error` has libvirt's words ("" when it succeeded)."""

    ok: bool
    error: str = ""


def migrate(source: Host, destination: Host, guest: str, *, deadline_s: float) -> Outcome:
    """Live-migrate a guest; the stream goes from host to host by the destination's migration address.

    Returns when libvirt does. A migration that has not ended by the deadline is reported as failed.
    """
    ended: list[Outcome] = []

    def run() -> None:
        try:
            domain = source.libvirt.handle.lookupByName(guest)
            parameters = {libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{destination.migration}"}
            domain.migrate3(destination.libvirt.handle, parameters, libvirt.VIR_MIGRATE_LIVE)
            ended.append(Outcome(True))
        except libvirt.libvirtError as error:
            ended.append(Outcome(False, f"libvirt: {error}"))

    thread = threading.Thread(target=run, name=f"migrate-{guest}", daemon=True)
    thread.start()
    thread.join(deadline_s)
    if thread.is_alive():
        return Outcome(False, f"libvirt: the migration of {guest} had not ended after {deadline_s:.0f} s")
    return ended[0]


def recover(source: Host, destination: Host, guest: str) -> list[str]:
    """After a failed migration: free libvirt's leaked locks and remove a half-built copy; returns what was done.

    The paused copy at the destination is destroyed only when the source is seen to run the guest:
    the last copy is never destroyed.
    """
    done = []
    at_source = source.xl_domains().get(guest)
    at_destination = destination.xl_domains().get(guest)
    source_runs = at_source is not None and not set(at_source[1]) & set("psc")
    if at_destination is not None:
        if not source_runs:
            raise TestbedError(
                "guest-in-doubt",
                f"{guest} does not run at {source.name} ({at_source}) and is {at_destination} at {destination.name}: "
                "nothing was destroyed",
                why="a migration failed after the guest was suspended; either copy may be the good one",
            )
        if "p" in at_destination[1]:
            destination.shell.check(["xl", "destroy", str(at_destination[0])])
            done.append(f"destroyed the paused copy at {destination.name} ({guest} runs at {source.name})")
    for host in (source, destination):
        host.restart_libvirtd()
        done.append(f"restarted libvirtd at {host.name}")
    return done
