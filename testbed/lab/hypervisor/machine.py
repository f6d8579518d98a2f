"""A Xen host as a QEMU machine: its command line (pure), its process, its QMP monitor.

What is chosen and why stands in docs/explanation/xen-on-qemu.md.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qemu.qmp import QMPClient

from testbed.errors import TestbedError
from testbed.lab.hypervisor.images import ImageSet
from testbed.lab.hypervisor.keys import write_secret

Accelerator = Literal["kvm", "tcg"]

#: CPU models: under TCG nested paging and a random generator on the plainest model is what works and was fastest.
CPU = {"kvm": "host", "tcg": "qemu64,+npt,+rdrand"}
ACCEL = {"kvm": "kvm", "tcg": "tcg,thread=multi"}
#: What a kernel can leave out in an emulated lab: memory zeroed on allocation, mitigations, auditing, self-tests.
LEAN_LINUX = "mitigations=off init_on_alloc=0 audit=0 apparmor=0 cryptomgr.notests nowatchdog random.trust_cpu=on"
#: QEMU's niceness: the agents and probers must not be starved by the emulation (design: measurement, rule 5).
NICE = 5
#: How much longer than under KVM things take, for deadlines.
TIME_SCALE = {"kvm": 1.0, "tcg": 4.0}


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """All that makes a Xen host's machine.

    Attributes:
        name: of the host, and of its files.
        number: unique in the lab, 1 … 200; gives MACs and the machine's UUID.
        accelerator: kvm or tcg.
        memory_mib: of the machine.
        dom0_memory_mib: of dom0.
        taps: (out-of-band, EID LAN, infrastructure LAN) tap interfaces, in the order of dom0's eth0, eth1, eth2.
        parameters: `testbed.*` words for dom0's init.
    """

    name: str
    number: int
    accelerator: Accelerator
    memory_mib: int
    dom0_memory_mib: int
    taps: tuple[str, ...]
    parameters: tuple[tuple[str, str], ...]


def command_line(
    spec: MachineSpec, images: ImageSet, folder: Path, console: Path, *, incoming: bool = False
) -> list[str]:
    """QEMU's command line for a host whose sockets and seed disk are in `folder`."""
    dom0 = f"max:{spec.dom0_memory_mib}M"
    hypervisor = (
        f"dom0_mem={spec.dom0_memory_mib}M,{dom0} dom0_max_vcpus=1 console=com1 com1=115200 "
        "loglvl=info guest_loglvl=info vga=none spec-ctrl=no xpti=no"
    )
    words = " ".join(f"testbed.{key}={value}" for key, value in spec.parameters)
    kernel = f"{images.file('vmlinux')} console=hvc0 quiet net.ifnames=0 ipv6.disable_ipv6=1 {LEAN_LINUX} {words}"
    command = [
        "qemu-system-x86_64", "-name", spec.name, "-nodefaults", "-no-reboot", "-display", "none",
        "-machine", "q35", "-accel", ACCEL[spec.accelerator], "-cpu", CPU[spec.accelerator],
        "-m", str(spec.memory_mib), "-smp", "1",
        "-uuid", f"00000000-0000-4000-8000-{spec.number:012x}",
        "-kernel", str(images.file("xen.elf")), "-append", hypervisor,
        "-initrd", f"{kernel},{images.file('initrd.cpio')}",
        "-drive", f"file={images.file('root.erofs')},format=raw,if=none,id=root,readonly=on",
        "-device", "virtio-blk-pci,drive=root",
        "-drive", f"file={folder / 'seed.tar'},format=raw,if=none,id=seed,readonly=on",
        "-device", "virtio-blk-pci,drive=seed",
        "-chardev", f"file,id=console,path={console},append=on", "-serial", "chardev:console",
        "-qmp", f"unix:{folder / 'qmp.sock'},server=on,wait=off",
    ]  # fmt: skip
    for index, tap in enumerate(spec.taps):
        command += ["-netdev", f"tap,id=net{index},ifname={tap},script=no,downscript=no"]
        command += ["-device", f"virtio-net-pci,netdev=net{index},mac={mac(spec.number, index)},romfile="]
    if incoming:
        command += ["-incoming", "defer"]
    return command


def mac(number: int, index: int) -> str:
    """The MAC of a host's interface `index`, in QEMU's range."""
    return f"52:54:00:10:{number:02x}:{index:02x}"


class Machine:
    """A running QEMU machine. `folder` (0700) holds its seed disk and QMP socket, `console` takes its console."""

    def __init__(self, spec: MachineSpec, images: ImageSet, folder: Path, console: Path) -> None:
        self.spec = spec
        self.images = images
        self.folder = folder
        self.console = console
        self.process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._starting_or_stopping = threading.Lock()

    def start(self, seed: bytes, *, incoming: bool = False) -> None:
        """Start the machine, once; with `incoming` it waits for `restore`. TestbedError after `stop`."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.console.parent.mkdir(parents=True, exist_ok=True)
        write_secret(self.folder / "seed.tar", seed)
        command = command_line(self.spec, self.images, self.folder, self.console, incoming=incoming)
        with self._starting_or_stopping, (self.folder / "qemu.log").open("wb") as errors:
            if self._stopped:
                raise TestbedError("machine-stopped", f"the machine of {self.spec.name} was stopped before it started")
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                preexec_fn=lambda: os.nice(NICE) and None,
            )

    def check_alive(self) -> None:
        """Raise TestbedError with QEMU's last words if the process has ended."""
        if self.process is None or self.process.poll() is not None:
            log = self.folder / "qemu.log"
            said = log.read_text(errors="replace").strip() if log.exists() else "it never started"
            raise TestbedError(
                "machine-died", f"the machine of {self.spec.name} has ended",
                why="\n".join([*said.splitlines()[-5:], *self.console_tail(15)]),
                next_command="testbed doctor",
            )  # fmt: skip

    def console_tail(self, lines: int) -> list[str]:
        """The last lines of the console."""
        try:
            return self.console.read_text(errors="replace").splitlines()[-lines:]
        except FileNotFoundError:
            return []

    def stage(self) -> str:
        """The last stage that dom0's init named on the console ("" before the first)."""
        for line in reversed(self.console_tail(200)):
            if "testbed-stage " in line:
                return line.split("testbed-stage ", 1)[1].split()[0]
        return ""

    def qmp(self, *commands: tuple[str, dict[str, Any]], deadline_s: float = 20.0) -> list[Any]:
        """Execute QMP commands in order and return their results."""

        async def converse() -> list[Any]:
            client = QMPClient(self.spec.name)
            await client.connect(str(self.folder / "qmp.sock"))
            try:
                return [await client.execute(name, arguments or None) for name, arguments in commands]
            finally:
                await client.disconnect()

        async def bounded() -> list[Any]:
            return await asyncio.wait_for(converse(), deadline_s)

        try:
            return asyncio.run(bounded())
        except Exception as error:
            self.check_alive()
            names = ", ".join(name for name, _ in commands)
            raise TestbedError("qmp-failed", f"{self.spec.name}: QMP {names} failed", why=repr(error)) from error

    def wait_qmp(self, deadline_s: float) -> None:
        """Wait until the monitor's socket is there."""
        end = time.monotonic() + deadline_s
        while not (self.folder / "qmp.sock").exists():
            self.check_alive()
            if time.monotonic() > end:
                raise TestbedError("qmp-missing", f"{self.spec.name}: no QMP socket within {deadline_s:.0f} s")
            time.sleep(0.01)

    def save(self, target: Path) -> None:
        """Write the machine's state to `target` (0600); the machine is stopped while that lasts, and goes on."""
        partial = target.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        os.close(os.open(partial, os.O_CREAT | os.O_WRONLY, 0o600))
        self.qmp(("stop", {}), ("migrate-set-parameters", {"max-bandwidth": 10 << 30}))
        try:
            self.qmp(("migrate", {"uri": f"exec:cat > '{partial}'"}))
            self._wait_migration("save")
        finally:
            self.qmp(("cont", {}))
        partial.rename(target)

    def restore(self, source: Path) -> None:
        """Load a state into a machine that was started with `incoming`, and let it run."""
        self.wait_qmp(10.0)
        self.qmp(("migrate-incoming", {"uri": f"exec:cat '{source}'"}))
        self._wait_migration("restore")
        self.qmp(("cont", {}))

    def _wait_migration(self, what: str, deadline_s: float = 60.0) -> None:
        end = time.monotonic() + deadline_s
        while True:
            status = self.qmp(("query-migrate", {}))[0].get("status")
            if status == "completed":
                return
            if status in ("failed", "cancelled") or time.monotonic() > end:
                raise TestbedError("state-failed", f"{self.spec.name}: {what} of the machine's state: {status}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the process, and let none start; idempotent, from any thread."""
        with self._starting_or_stopping:
            self._stopped = True
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.process.wait()
