"""The substrate `xen`: the plan's Xen hosts and its real guest, joined to the lab's network by taps."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from testbed.eventlog import EventLog
from testbed.lab.captures import STREAM_EDGES, CapturePoint
from testbed.lab.hypervisor import guest as guests
from testbed.lab.hypervisor import migration
from testbed.lab.hypervisor.accelerator import Choice, choose, qemu_version
from testbed.lab.hypervisor.fleet import Fleet, HostPlan
from testbed.lab.hypervisor.host import Host
from testbed.lab.hypervisor.hostevents import PORT, HostEvents
from testbed.lab.hypervisor.images import ImageSet
from testbed.lab.hypervisor.machine import MachineSpec
from testbed.lab.network.network import Network
from testbed.lab.substrate import Moved, Nature
from testbed.plan.model import Guest, Plan, XenHost
from testbed.spec.experiment import Experiment

OUT_OF_BAND_BRIDGE = "oob"
#: The guest that warms a host; it has no address and says nothing on the LAN.
REHEARSAL = "rehearsal"
REHEARSAL_MIB = 96
REHEARSAL_MAC = "00:16:3e:ff:ff:01"


def tap_names(host: XenHost) -> tuple[str, str, str]:
    """The (out-of-band, EID LAN, infrastructure LAN) taps of a host, in the order of dom0's interfaces."""
    return f"{host.name}-oob", f"{host.name}-eid", f"{host.name}-mig"


class XenLab:
    """Real Xen hosts under QEMU with the experiment's guest.

    Args:
        plan: of the lab.
        experiment: accelerator, guest, timeouts.
        images: dom0 and guest images.
        network: up already; its bridges take the taps.
        folder: the lab's runtime folder.
        run_dir: the run's folder, which takes the consoles as they are written.
        events: the lab's event log.
        progress: takes (host, stage).
        cold: boot from nothing.
    """

    def __init__(
        self,
        plan: Plan,
        experiment: Experiment,
        images: ImageSet,
        network: Network,
        folder: Path,
        run_dir: Path,
        events: EventLog,
        progress: Callable[[str, str], None],
        *,
        cold: bool,
    ) -> None:
        self._plan = plan
        self._experiment = experiment
        self._images = images
        self._network = network
        self._events = events
        self._progress = progress
        self._cold = cold
        self._guest: Guest = plan.guests[0]
        self._uuid = str(uuid.uuid4())
        self._accelerator: Choice | None = None
        self._hypervisor: str | None = None
        self._abandoned = threading.Event()
        self._hosts_by_site = {host.site: host.name for host in plan.xen_hosts}
        self._folder = folder
        self._console = run_dir / "console"
        self._fleet: Fleet | None = None
        self._host_events: HostEvents | None = None
        self._rehearsing: list[Host] = []
        self._make_taps()

    def _make_taps(self) -> None:
        gateway, _, length = self._plan.out_of_band_gateway.partition("/")
        with IPRoute() as route:
            route.link("add", ifname=OUT_OF_BAND_BRIDGE, kind="bridge")
            bridge = route.link_lookup(ifname=OUT_OF_BAND_BRIDGE)[0]
            route.link("set", index=bridge, state="up")
            route.addr("add", index=bridge, address=gateway, prefixlen=int(length))
            for host in self._plan.xen_hosts:
                for tap in tap_names(host):
                    route.link("add", ifname=tap, kind="tuntap", mode="tap")
                out_of_band = route.link_lookup(ifname=tap_names(host)[0])[0]
                route.link("set", index=out_of_band, master=bridge, state="up")
        for host in self._plan.xen_hosts:
            _, eid, infrastructure = tap_names(host)
            self._network.attach_tap(host.eid_bridge, eid)
            self._network.attach_tap(host.infrastructure_bridge, infrastructure)
        self._gateway = gateway

    def capture_points(self) -> list[CapturePoint]:
        """Every host's tap on the EID LAN, and the beginnings and ends of streams on the infrastructure LAN."""
        points = []
        for host in self._plan.xen_hosts:
            _, eid_tap, infrastructure_tap = tap_names(host)
            points.append(CapturePoint(host.name, eid_tap, site=host.site))
            points.append(CapturePoint(host.name, infrastructure_tap, STREAM_EDGES))
        return points

    def up(self) -> None:
        """Choose the accelerator and bring all hosts up."""
        self._progress("accelerator", "proving")
        self._accelerator = choose(self._experiment.accelerator, self._images)
        self._events.emit(
            "accelerator_chosen", accelerator=self._accelerator.accelerator, reason=self._accelerator.reason
        )
        plans = [self._host_plan(number, host) for number, host in enumerate(self._plan.xen_hosts, 1)]
        self._host_events = HostEvents(
            self._gateway,
            {plan.out_of_band: plan.machine.name for plan in plans},
            self._events,
        )
        self._fleet = Fleet(plans, self._images, self._folder / "hosts", self._console, self._events, self._abandoned)
        self._fleet.up(self._progress, cold=self._cold)
        self._hypervisor = next(iter(self._fleet.hosts.values())).hypervisor_version()

    def abandon(self) -> None:
        """End the machines whose dom0 is not ready yet."""
        self._abandoned.set()
        if self._fleet is not None:
            self._fleet.abandon()

    def _host_plan(self, number: int, host: XenHost) -> HostPlan:
        assert self._accelerator is not None
        mtus = {bridge.name: bridge.mtu for bridge in self._plan.bridges}
        parameters = (
            ("name", host.name),
            ("out_of_band", host.out_of_band),
            ("migration", host.migration),
            ("migration_gateway", host.migration_gateway),
            ("migration_mtu", str(mtus[host.infrastructure_bridge])),
            ("events", f"{self._gateway}:{PORT}"),
        )
        machine = MachineSpec(
            host.name, number, self._accelerator.accelerator, host.memory_mib, host.dom0_memory_mib,
            tap_names(host), parameters,
        )  # fmt: skip
        return HostPlan(machine, host.out_of_band.split("/")[0], host.migration.split("/")[0])

    def start_guest(self) -> None:
        """Create the guest's domain at its site."""
        assert self._fleet is not None
        guest = self._guest
        spec = guests.GuestSpec(
            name=guest.name,
            uuid=self._uuid,
            mac=guest.mac,
            address=f"{guest.eid}/{guest.prefix_length}",
            gateway=guest.gateway,
            memory_mib=guest.memory_mib,
            vcpus=guest.vcpus,
            prober=self._prober(),
        )
        host = self._fleet.hosts[self._hosts_by_site[guest.site]]
        self._progress(host.name, f"starting {guest.name}")
        guests.create(host, spec)
        self._events.emit("guest_created", source=host.name, guest=guest.name, uuid=self._uuid)
        if self._accelerator is not None and self._accelerator.accelerator == "tcg":
            self._rehearse([each for each in self._fleet.hosts.values() if each is not host])

    def _prober(self) -> str:
        """What the guest's own prober is told (`images/guest/prober.c`); "" if nothing is probed from it."""
        probes = self._experiment.probes
        if "from-guest" not in probes.directions:
            return ""
        target, interval_ns = self._plan.correspondent.eid.partition("/")[0], round(probes.interval_ms * 1e6)
        return ",".join([target, str(interval_ns), *probes.flows])

    def _rehearse(self, hosts: list[Host]) -> None:
        """Start a guest without an address on the hosts that have run none, beside the start of the real one.

        TCG translates code when it first runs. Without a rehearsal the first migration to a host pays for the
        translation of everything that builds and connects a guest there: up to 2 s of its outage.
        """
        self._rehearsing = hosts
        for host in hosts:
            spec = guests.GuestSpec(REHEARSAL, str(uuid.uuid4()), REHEARSAL_MAC, "", "", REHEARSAL_MIB, 1)
            self._progress(host.name, "rehearsing")
            guests.create(host, spec)

    def guest_answers(self) -> None:
        """End the rehearsals."""
        for host in self._rehearsing:
            guests.destroy(host, REHEARSAL)
            self._events.emit("host_rehearsed", source=host.name)
        self._rehearsing = []

    def migrate(self, source_site: str, destination_site: str) -> Moved:
        """Live-migrate the guest between the Xen hosts of two sites."""
        assert self._fleet is not None
        assert self._host_events is not None
        source = self._fleet.hosts[self._hosts_by_site[source_site]]
        destination = self._fleet.hosts[self._hosts_by_site[destination_site]]
        self._host_events.guest = self._guest.name
        outcome = migration.migrate(
            source, destination, self._guest.name, deadline_s=self._experiment.timeouts_s.migration
        )
        if outcome.ok:
            return Moved(True)
        said = [outcome.error, *destination.libxl_errors(), *source.libxl_errors()]
        return Moved(False, "\n".join(said), tuple(migration.recover(source, destination, self._guest.name)))

    def placement(self) -> dict[str, Any]:
        """Host → libvirt's and the hypervisor's lists of domains."""
        return self._fleet.placement() if self._fleet is not None else {}

    def runs_only_at(self, site: str, placement: dict[str, Any]) -> bool:
        """Whether both libvirt and the hypervisor have the guest at this site's host and at no other."""
        at = self._hosts_by_site[site]
        for host, found in placement.items():
            here = [domain for domain in found["libvirt"] if domain["uuid"] == self._uuid]
            if (len(here) == 1) != (host == at) or (self._guest.name in found["hypervisor"]) != (host == at):
                return False
        return True

    def nature(self) -> Nature:
        """The accelerator really used and the hypervisor's own version."""
        choice = self._accelerator
        emulated = [f"network links: {self._network.backend} (delay, rate and loss are imposed)"]
        if choice is not None and choice.accelerator == "tcg":
            emulated.insert(
                0, "the Xen hosts' processors: QEMU TCG, so times of the hypervisor are longer than on iron"
            )
        else:
            emulated.insert(0, "the Xen hosts: QEMU machines under KVM")
        manifest = self._images.manifest()
        packages = manifest["packages"]
        versions = {
            "qemu": qemu_version(),
            "dom0_kernel": manifest["dom0_kernel"],
            "guest_kernel": manifest["guest_kernel"],
            "xen": packages.get("xen-hypervisor-4.17-amd64", "unknown"),
            "libvirt": packages.get("libvirt-daemon", "unknown"),
            "images": self._images.digest,
        }
        return Nature(
            "xen",
            choice.accelerator if choice else None,
            choice.reason if choice else "",
            self._hypervisor,
            tuple(emulated),
            versions,
        )

    def collect(self, run_dir: Path) -> list[str]:
        """Fetch every host's logs and the guest's consoles."""
        return self._fleet.collect(run_dir) if self._fleet is not None else []

    def close(self) -> None:
        """End the machines."""
        if self._host_events is not None:
            self._host_events.close()
        if self._fleet is not None:
            self._fleet.close()
