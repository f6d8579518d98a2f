"""All Xen hosts of a lab together: booted from nothing, or restored from the saved state of a booted fleet.

A state is good for exactly the QEMU, command lines and images that made it; its name is the digest of these. It holds
keys of its own (0600 in a 0700 folder), which a restored host exchanges for the lab's before anything else is done.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from testbed.errors import TestbedError
from testbed.eventlog import EventLog
from testbed.lab.hypervisor import kept
from testbed.lab.hypervisor import keys as lab_keys
from testbed.lab.hypervisor.accelerator import qemu_version
from testbed.lab.hypervisor.host import Host, Progress
from testbed.lab.hypervisor.images import ImageSet
from testbed.lab.hypervisor.keys import LabKeys
from testbed.lab.hypervisor.machine import Machine, MachineSpec, command_line
from testbed.paths import cache

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class HostPlan:
    """One host to bring up: its machine and its addresses (without prefix length)."""

    machine: MachineSpec
    out_of_band: str
    migration: str


def state_digest(plans: list[HostPlan], images: ImageSet) -> str:
    """The name of the saved state that fits these hosts: 16 hexadecimal characters."""
    lines = [command_line(plan.machine, images, Path("/folder"), Path("/console")) for plan in plans]
    text = json.dumps([qemu_version(), images.digest, lines])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Fleet:
    """The Xen hosts of a lab, in the order of the plan; `hosts` is keyed by name.

    Args:
        plans: the hosts.
        images: what they boot.
        folder: of the lab (0700), for seed disks, sockets and keys.
        console: the folder that takes the consoles as they are written.
        events: takes what happens.
        abandoned: set when nobody needs the hosts any more: no other attempt is made to bring them up.
    """

    def __init__(
        self,
        plans: list[HostPlan],
        images: ImageSet,
        folder: Path,
        console: Path,
        events: EventLog,
        abandoned: threading.Event,
    ) -> None:
        self._plans = plans
        self._images = images
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._console = console
        self._events = events
        self._abandoned = abandoned
        self._keys = lab_keys.generate()
        self._state = cache() / "states" / state_digest(plans, images)
        self.hosts: dict[str, Host] = {}

    def up(self, progress: Progress, *, cold: bool = False) -> None:
        """Bring all hosts up: from the saved state if there is one, else cold, saving the state then.

        A state that cannot be restored is thrown away and the hosts boot cold.
        """
        started = time.monotonic()
        restored = False
        if not cold and (self._state / "complete").exists():
            try:
                self._restore(progress)
                restored = True
            except TestbedError as error:
                if self._abandoned.is_set():
                    raise  # the state is as good as it was
                self._events.emit("saved_state_refused", state=self._state.name, why=f"{error.what}: {error.why}")
                shutil.rmtree(self._state, ignore_errors=True)
                self.close()
        if not restored:
            self._boot(progress)
            if not cold:
                self._save(progress)
        # For `testbed exec` and `testbed shell`:
        self._keys.save(self._folder / "keys")
        known = [f"{host.out_of_band} {self._keys.host_public}\n" for host in self.hosts.values()]
        (self._folder / "keys" / "known_hosts").write_text("".join(known))
        self._events.emit("hosts_ready", seconds=round(time.monotonic() - started, 3), restored=restored)

    def _prepare(self) -> None:
        self.hosts = {}
        for plan in self._plans:
            folder = self._folder / plan.machine.name
            shutil.rmtree(folder, ignore_errors=True)
            machine = Machine(plan.machine, self._images, folder, self._console / f"{plan.machine.name}.log")
            self.hosts[plan.machine.name] = Host(machine, plan.out_of_band, plan.migration, self._keys, self._events)
        # After the list is complete: `abandon` either sees all of it, or was told of before this line.
        if self._abandoned.is_set():
            raise TestbedError("hosts-abandoned", "the hosts are not needed any more")

    def _boot(self, progress: Progress) -> None:
        self._prepare()
        for host in self.hosts.values():
            host.machine.start(self._keys.seed_archive())
            progress(host.name, "hypervisor")
        self.each(lambda host: host.wait_ready(progress))

    def _restore(self, progress: Progress) -> None:
        state_keys = LabKeys.load(self._state / "keys")
        self._keys = replace(
            self._keys, host_key_dropbear=state_keys.host_key_dropbear, host_public=state_keys.host_public
        )
        self._prepare()

        def restore(host: Host) -> None:
            progress(host.name, "restoring")
            host.machine.console.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self._state / f"{host.name}.console", host.machine.console)
            host.machine.start(state_keys.seed_archive(), incoming=True)
            host.machine.restore(self._state / f"{host.name}.state")
            host.reconnect(state_keys, progress)

        self.each(restore)
        kept.used(self._state, keep=kept.STATES)

    def _save(self, progress: Progress) -> None:
        """Save the state of the booted hosts beside the others; a failure costs the state, not the lab."""
        partial = self._state.with_name(f"{self._state.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True, mode=0o700)
        try:
            self._keys.save(partial / "keys")

            def save(host: Host) -> None:
                progress(host.name, "saving state")
                host.libvirt.close()  # no connection into the machine survives in its image
                host.shell.close()
                host.machine.save(partial / f"{host.name}.state")
                shutil.copy(host.machine.console, partial / f"{host.name}.console")
                host.libvirt.open(host.budget_s("libvirt"))
                progress(host.name, "ready")

            self.each(save)
            (partial / "complete").write_text("")
            shutil.rmtree(self._state, ignore_errors=True)
            partial.rename(self._state)
            kept.used(self._state, keep=kept.STATES)
            # The state's keys must not open the lab that goes on: exchange them here too.
            used, fresh = self._keys, lab_keys.generate()
            self._keys = replace(fresh, host_key_dropbear=used.host_key_dropbear, host_public=used.host_public)

            def exchange(host: Host) -> None:
                host.keys = self._keys
                host.reconnect(used, progress)
                host.restored = False

            self.each(exchange)
        except (TestbedError, OSError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            self._events.emit("saved_state_failed", why=str(error))
            self.each(lambda host: host.machine.check_alive())

    def each(self, action: Callable[[Host], Result]) -> list[Result]:
        """Do something on all hosts at once; the first error is raised when all have ended."""
        with ThreadPoolExecutor(max_workers=max(1, len(self.hosts))) as pool:
            return [future.result() for future in [pool.submit(action, host) for host in self.hosts.values()]]

    def collect(self, run: Path) -> list[str]:
        """Fetch every host's logs into the run's folder; returns what is missing."""
        gathered = self.each(lambda host: host.collect(run / "logs" / host.name, run / "console"))
        return [word for words in gathered for word in words]

    def placement(self) -> dict[str, Any]:
        """Host → what runs there."""
        return dict(zip(self.hosts, self.each(lambda host: host.placement()), strict=True))

    def abandon(self) -> None:
        """End the machines that are still coming up, and with them the wait for them; `abandoned` is set before."""
        for host in list(self.hosts.values()):
            if not host.ready:
                host.machine.stop()

    def close(self) -> None:
        """End every machine."""
        for host in self.hosts.values():
            host.close()
