"""One Xen host: its machine, its SSH, its libvirt, its logs; layered readiness with named stages."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError
from testbed.eventlog import EventLog
from testbed.lab.hypervisor.keys import LabKeys
from testbed.lab.hypervisor.machine import TIME_SCALE, Machine
from testbed.lab.hypervisor.ssh import Shell
from testbed.lab.hypervisor.virt import RESUMED, RESUMED_MIGRATED, Connection

#: Seconds that each layer may take under KVM; TIME_SCALE multiplies them.
BUDGET_S = {"console": 30.0, "ssh": 15.0, "xenstored": 10.0, "libvirt": 15.0}

#: What is fetched from a host at the end: (command, file name in logs/<host>/ or console/).
EVIDENCE = (
    ("xl dmesg", "xl-dmesg.log"),
    ("xl info", "xl-info.log"),
    ("xl list -v", "xl-list.log"),
    ("cat /var/log/libvirt/libvirtd.log", "libvirtd.log"),
    ("cat /var/log/xen/xenstored-access.log", "xenstored-access.log"),
    ("dmesg", "dmesg.log"),
)

RESTART_LIBVIRTD = """\
kill -9 $(pidof libvirtd) 2>/dev/null; rm -f /run/libvirtd.pid /run/libvirt/libvirt-sock
libvirtd -d --listen -f /etc/libvirt/libvirtd.conf > /dev/null 2>&1 < /dev/null
n=0; while [ ! -S /run/libvirt/libvirt-sock ] && [ $n -lt 150 ]; do n=$((n + 1)); usleep 100000; done
[ -S /run/libvirt/libvirt-sock ]"""

Progress = Callable[[str, str], None]
"""(host's name, what it waits for or has reached)"""


class Host:
    """A Xen host that is up or coming up.

    Attributes:
        name: of the host.
        out_of_band: its address on the orchestrator's network.
        migration: its address that the migration stream goes to.
        ready: whether all of its layers have answered.
        restored: whether it came from a saved state.
    """

    def __init__(self, machine: Machine, out_of_band: str, migration: str, keys: LabKeys, events: EventLog) -> None:
        self.name = machine.spec.name
        self.machine = machine
        self.out_of_band = out_of_band
        self.migration = migration
        self.keys = keys
        self.shell = Shell(out_of_band, keys)
        self.libvirt = Connection(f"xen+tcp://{out_of_band}/system", self._domain_event)
        self.ready = False
        self.restored = False
        self._events = events

    def budget_s(self, layer: str) -> float:
        """The time a layer may take on this accelerator."""
        return BUDGET_S[layer] * TIME_SCALE[self.machine.spec.accelerator]

    def _domain_event(self, domain: str, event: str, detail: int, mono_ns: int) -> None:
        self._events.emit(
            "domain_event",
            mono_ns=mono_ns,
            source=self.name,
            guest=domain,
            event=event,
            detail=detail,
            via="libvirt",
        )
        if event == "resumed" and detail == RESUMED_MIGRATED:
            assert RESUMED == 4
            # The callback crosses the host's libvirtd and an RPC: it comes late, by up to a few tens of ms under TCG.
            self._events.emit(
                "guest_resumed",
                mono_ns=mono_ns,
                source=self.name,
                guest=domain,
                via="libvirt",
                uncertainty_ms=50.0,
            )

    def wait_ready(self, progress: Progress) -> None:
        """Wait through the layers: console, SSH, xenstored, libvirt; TestbedError names the one that failed."""
        end = time.monotonic() + self.budget_s("console")
        seen = ""
        while (stage := self.machine.stage()) != "libvirtd":
            self.machine.check_alive()
            if stage != seen:
                progress(self.name, f"dom0: {stage}")
                seen = stage
            if time.monotonic() > end:
                raise TestbedError(
                    "host-boot-timeout",
                    f"{self.name} did not come up within {self.budget_s('console'):.0f} s",
                    why="\n".join([f"last stage: {seen or 'none'}", *self.machine.console_tail(10)]),
                )
            time.sleep(0.05)
        progress(self.name, "libvirt")
        self.libvirt.open(self.budget_s("libvirt"))
        self.libvirt.handle.getVersion()
        progress(self.name, "ssh")
        self.shell.connect(self.budget_s("ssh"))
        self.shell.check("xenstore-read /local/domain/0/name", deadline_s=self.budget_s("xenstored"))
        self._is_ready(progress)

    def reconnect(self, state_keys: LabKeys, progress: Progress) -> None:
        """After a restore: replace the saved state's keys by the lab's, set the clock, connect."""
        self.machine.check_alive()
        self.shell = Shell(self.out_of_band, state_keys)
        self.shell.connect(self.budget_s("ssh"))
        self.shell.check(
            f"cat > /root/.ssh/authorized_keys && date -s @{int(time.time())} > /dev/null",
            stdin=self.keys.client_public.encode() + b"\n",
        )
        # The connection stays; the key that opened it opens no other from here on.
        self.shell.keys = self.keys
        progress(self.name, "libvirt")
        self.libvirt.open(self.budget_s("libvirt"))
        self.restored = True
        self._is_ready(progress)

    def _is_ready(self, progress: Progress) -> None:
        self.ready = True
        progress(self.name, "ready")

    def restart_libvirtd(self) -> None:
        """Restart the daemon (frees the job locks that a failed migration leaks) and connect again."""
        self.libvirt.close()
        self.shell.check(RESTART_LIBVIRTD, deadline_s=self.budget_s("libvirt"))
        self.libvirt.open(self.budget_s("libvirt"))

    def xl_domains(self) -> dict[str, tuple[int, str]]:
        """Map name → (domain ID, xl's state letters), as the hypervisor has it, without libvirt."""
        found = {}
        for line in self.shell.check("xl list").splitlines()[1:]:
            words = line.split()
            if len(words) >= 6 and words[1] != "0":
                found[words[0]] = (int(words[1]), words[4])
        return found

    def hypervisor_version(self) -> str:
        """Return e.g. `Xen 4.17.7`, as the hypervisor itself reports it."""
        shown = self.shell.check("xl info xen_version").strip()
        if not re.match(r"^\d+\.\d+", shown):
            raise TestbedError("version-unknown", f"{self.name}: xl says {shown!r} for its version")
        return f"Xen {shown}"

    def placement(self) -> dict[str, Any]:
        """What runs here, from libvirt and from the hypervisor: evidence of where a guest is."""
        return {
            "libvirt": self.libvirt.domains(),
            "hypervisor": {name: {"id": i, "state": s} for name, (i, s) in self.xl_domains().items()},
        }

    def collect(self, logs: Path, consoles: Path) -> list[str]:
        """Fetch the host's logs and consoles; what could not be fetched is returned as a list of words."""
        missing = []
        logs.mkdir(parents=True, exist_ok=True)
        consoles.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            (logs / "qemu.log").write_bytes((self.machine.folder / "qemu.log").read_bytes())
        for command, name in EVIDENCE:
            try:
                self.machine.check_alive()
                (logs / name).write_text(self.shell.run(command, deadline_s=20.0).output)
            except TestbedError as error:
                missing.append(f"{self.name}/{name}: {error.what}")
                break  # a dead host would make each of the others wait as long
        else:
            for name in self._list("/var/log/xen/console"):  # guest-vm1.log
                domain = name.removeprefix("guest-").removesuffix(".log")
                self._fetch(f"/var/log/xen/console/{name}", consoles / f"{domain}@{self.name}.log")
            for name in self._list("/var/log/libvirt/libxl"):
                self._fetch(f"/var/log/libvirt/libxl/{name}", logs / f"libxl-{name.removeprefix('libxl-')}")
        return missing

    def _list(self, folder: str) -> list[str]:
        return self.shell.run(["ls", folder], deadline_s=20.0).output.split()

    def _fetch(self, path: str, target: Path) -> None:
        target.write_text(self.shell.run(["cat", path], deadline_s=20.0).output)

    def libxl_errors(self) -> list[str]:
        """The last lines of libxl's log that speak of an error, prefixed with the host's name."""
        try:
            log = self.shell.run("tail -n 60 /var/log/libvirt/libxl/libxl-driver.log", deadline_s=20.0).output
        except TestbedError as error:
            return [f"{self.name}: libxl's log cannot be read: {error.what}"]
        wrong = [line for line in log.splitlines() if "rror" in line or "fail" in line.lower()]
        return [f"{self.name} libxl: {line}" for line in wrong[-5:]]

    def close(self) -> None:
        """End the connections and the machine."""
        self.libvirt.close()
        self.shell.close()
        self.machine.stop()
