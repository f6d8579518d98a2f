"""A guest as a libvirt domain: its XML, its start."""

from __future__ import annotations

import string
from dataclasses import dataclass
from xml.sax.saxutils import escape

import libvirt

from testbed.errors import TestbedError
from testbed.lab.hypervisor.host import Host
from testbed.lab.hypervisor.machine import LEAN_LINUX
from testbed.paths import XEN

MINIMUM_MEMORY_MIB = 64


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """What a guest's domain needs: identity, size, its one address and the anycast gateway.

    Attributes:
        prober: what `images/guest/prober.c` is to do, "TARGET,INTERVAL_NS,FLOW[,FLOW]"; "" has it not started.
    """

    name: str
    uuid: str
    mac: str
    address: str
    gateway: str
    memory_mib: int
    vcpus: int
    prober: str = ""


def domain_xml(spec: GuestSpec) -> str:
    """The domain XML of a guest, from `xen/guest.xml`."""
    values = {name: escape(str(getattr(spec, name)), {"'": "&apos;"}) for name in spec.__slots__}
    template = string.Template((XEN / "guest.xml").read_text())
    return template.substitute(values, lean_linux=LEAN_LINUX)


def create(host: Host, spec: GuestSpec) -> None:
    """Start the guest on a host (transient domain); TestbedError with libvirt's words if it cannot."""
    if spec.memory_mib < MINIMUM_MEMORY_MIB:
        raise TestbedError(
            "guest-too-small", f"{spec.name}: {spec.memory_mib} MiB is too little to build a PVH domain",
            next_command=f"--set guest.memory_mib={MINIMUM_MEMORY_MIB}",
        )  # fmt: skip
    try:
        host.libvirt.handle.createXML(domain_xml(spec), 0)
    except libvirt.libvirtError as error:
        raise TestbedError("guest-failed", f"{host.name} could not start {spec.name}", why=str(error)) from error


def destroy(host: Host, name: str) -> None:
    """End a guest at once; TestbedError with libvirt's words if that fails."""
    try:
        host.libvirt.handle.lookupByName(name).destroy()
    except libvirt.libvirtError as error:
        raise TestbedError("guest-stays", f"{host.name} could not end {name}", why=str(error)) from error
