"""What this machine can do for a lab: each check says what it found, what follows, what mends it. No root needed."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from testbed.errors import TestbedError
from testbed.lab.hypervisor.accelerator import KVM, choose, qemu_version
from testbed.lab.hypervisor.images import BUILDER, find_images
from testbed.paths import cache

BOOTSTRAP = "sudo script/bootstrap"
#: program → (what is lost without it, whether a lab can do without).
PROGRAMS: dict[str, tuple[str, bool]] = {
    "unshare": ("no lab", False),
    "mnexec": ("no Mininet nodes", False),
    "brctl": ("no Mininet bridges", False),
    "ethtool": ("no links with offloads off", False),
    "dumpcap": ("no captures, so no first and last frames", False),
    "clang": ("the data plane cannot be compiled", False),
    "cc": ("what sends probes, the link relay and the images' helpers cannot be compiled", False),
    "mmdebstrap": ("images cannot be built", True),
    "mkfs.erofs": ("images cannot be built", True),
    "tshark": ("one test is skipped: the comparison with its dissector", True),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing about the machine.

    Attributes:
        name: of what was looked at.
        state: "ok", "limited" (something is done another way), "missing" (something cannot be done).
        found: what is there.
        consequence: what follows; "" if nothing is amiss.
        fix: the command that mends it; "" if there is none.
    """

    name: str
    state: Literal["ok", "limited", "missing"]
    found: str
    consequence: str = ""
    fix: str = ""


def check_machine() -> Iterator[Check]:
    """Every check, as its result is known; the accelerator's proof takes up to 12 s when it was not made before."""
    checks: tuple[Callable[[], Iterator[Check]], ...] = (
        _privilege, _kernel, _programs, _libraries, _qemu, _images, _accelerator, _states,
    )  # fmt: skip
    for check in checks:
        yield from check()


def _privilege() -> Iterator[Check]:
    if os.geteuid() == 0:
        yield Check("root", "ok", "yes")
    else:
        yield Check("root", "limited", "no", "run, up and down need root; validate, graph, report and decode do not")


def _kernel() -> Iterator[Check]:
    yield Check("kernel", "ok", os.uname().release)
    tun = os.path.exists("/dev/net/tun")
    yield Check("taps", "ok" if tun else "missing", "/dev/net/tun", "" if tun else "no Xen hosts and no slow path")
    btf = os.path.exists("/sys/kernel/btf/vmlinux")
    jit = _read("/proc/sys/net/core/bpf_jit_enable")
    detail = f"BTF {'yes' if btf else 'no'}, JIT {jit or 'unknown'}"
    yield Check(
        "eBPF", "ok" if jit in ("1", "2") else "limited", detail, "" if jit in ("1", "2") else "slower forwarding"
    )
    if os.geteuid() == 0:
        probe = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
        netem = subprocess.run(probe, capture_output=True).returncode == 0
        yield Check(
            "netem", "ok" if netem else "limited", "works" if netem else "not in this kernel",
            "" if netem else "delay, loss and rate are imposed by our relay process instead",
        )  # fmt: skip
    else:
        yield Check("netem", "limited", "not tried: needs root", fix="sudo testbed doctor")


def _programs() -> Iterator[Check]:
    for program, (lost, optional) in PROGRAMS.items():
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
        if path:
            yield Check(program, "ok", path)
        else:
            yield Check(program, "limited" if optional else "missing", "not installed", lost, BOOTSTRAP)


def _libraries() -> Iterator[Check]:
    for module, package in (("mininet", "mininet"), ("libvirt", "python3-libvirt")):
        there = importlib.util.find_spec(module) is not None
        yield Check(
            f"Python {module}",
            "ok" if there else "missing",
            package,
            "" if there else "no lab",
            "" if there else BOOTSTRAP,
        )
    libbpf = ctypes.util.find_library("bpf")
    yield Check(
        "libbpf",
        "ok" if libbpf else "missing",
        libbpf or "not installed",
        "" if libbpf else "no data plane",
        "" if libbpf else BOOTSTRAP,
    )


def _qemu() -> Iterator[Check]:
    try:
        yield Check("QEMU", "ok", qemu_version())
    except TestbedError as error:
        yield Check("QEMU", "missing", error.why, "no Xen hosts", BOOTSTRAP)


def _images() -> Iterator[Check]:
    found = find_images()
    if found is None:
        yield Check("images", "limited", "not built", "the first run builds them, about 20 s", f"sudo {BUILDER}")
        return
    packages = found.manifest()["packages"]
    yield Check("images", "ok", f"{found.digest}: Xen {packages.get('xen-hypervisor-4.17-amd64', '?')}")


def _accelerator() -> Iterator[Check]:
    tcg = "the Xen hosts are emulated (TCG): everything works, the hypervisor's times are longer than on iron"
    if not KVM.exists():
        yield Check("KVM", "limited", f"{KVM} does not exist", tcg)
        return
    images = find_images()
    if images is None or not os.access(KVM, os.W_OK):
        why = "the images are not built" if images is None else f"{KVM} is not ours to open"
        yield Check("KVM", "limited", f"{KVM} exists; not proved: {why}", tcg, "sudo testbed doctor")
        return
    choice = choose("auto", images)
    yield Check(
        "KVM",
        "ok" if choice.accelerator == "kvm" else "limited",
        choice.reason,
        "" if choice.accelerator == "kvm" else tcg,
    )


def _states() -> Iterator[Check]:
    folder = cache() / "states"
    try:
        states = [path.name for path in folder.iterdir() if (path / "complete").exists()]
    except OSError:
        states = []
    yield Check("saved states", "ok", f"{len(states)} of booted Xen hosts in {folder}")


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
