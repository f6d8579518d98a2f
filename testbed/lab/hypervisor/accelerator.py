"""Which accelerator the hosts run on: chosen by proof, never by the presence of a file.

A para-virtual or filtered KVM starts a vCPU and still cannot boot a hypervisor, so the proof is the thing itself:
our Xen and its dom0 kernel, under KVM, until dom0's init speaks.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from testbed.errors import TestbedError
from testbed.lab.hypervisor.images import ImageSet
from testbed.lab.hypervisor.keys import generate
from testbed.lab.hypervisor.machine import Accelerator, Machine, MachineSpec
from testbed.paths import runtime

KVM = Path("/dev/kvm")
PROOF_DEADLINE_S = 12.0


@dataclass(frozen=True, slots=True)
class Choice:
    """The accelerator and why it was taken."""

    accelerator: Accelerator
    reason: str


def choose(wanted: Literal["auto", "kvm", "tcg"], images: ImageSet) -> Choice:
    """Take what is wanted; with "auto", KVM if it is proved to boot a Xen host, TCG otherwise.

    The proof is kept until the machine reboots or QEMU or the images change: by root, for everybody.
    """
    if wanted != "auto":
        return Choice(wanted, "asked for")
    if not KVM.exists():
        return Choice("tcg", f"{KVM} does not exist")
    identity = {
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "qemu": qemu_version(),
        "images": images.digest,
    }
    kept = runtime() / "accelerator.json"
    try:
        known = json.loads(kept.read_text())
        if known.get("identity") == identity:
            return Choice(**known["choice"])
    except (OSError, ValueError, TypeError):
        pass
    choice = prove(images)
    with contextlib.suppress(PermissionError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"identity": identity, "choice": asdict(choice)}))
    return choice


def prove(images: ImageSet) -> Choice:
    """Boot a Xen host under KVM until dom0's init speaks; TCG if it does not within 12 s."""
    spec = MachineSpec("probe", 200, "kvm", 768, 384, (), (("name", "probe"),))
    with tempfile.TemporaryDirectory(prefix="testbed-probe-") as folder:
        machine = Machine(spec, images, Path(folder), Path(folder) / "console.log")
        started = time.monotonic()
        try:
            machine.start(generate().seed_archive())
            while time.monotonic() - started < PROOF_DEADLINE_S:
                machine.check_alive()
                if machine.stage():
                    took_s = time.monotonic() - started
                    return Choice("kvm", f"proved: a Xen host's dom0 booted under KVM in {took_s:.1f} s")
                time.sleep(0.05)
        except TestbedError as error:
            last = error.why.strip().splitlines()[:1]
            return Choice("tcg", f"{KVM} exists, but Xen does not boot under it: {' '.join(last)[:200]}")
        finally:
            machine.stop()
        seen = "the hypervisor started, dom0 did not" if machine.console_tail(1) else "not one line on the console"
    return Choice("tcg", f"{KVM} exists, but Xen does not boot under it within {PROOF_DEADLINE_S:.0f} s ({seen})")


def qemu_version() -> str:
    """The first line of `qemu-system-x86_64 --version`; PrerequisiteMissing-like error if there is none."""
    try:
        shown = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise TestbedError(
            "qemu-missing",
            "qemu-system-x86_64 cannot be run",
            why=str(error),
            next_command="sudo script/bootstrap",
        ) from error
    return shown.stdout.splitlines()[0]
