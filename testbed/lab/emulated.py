"""The substrate `netns`: the guest is a network namespace that is unplugged at one site and plugged in at another.

No VM and no hypervisor takes part; what is real is the network: the frames, the xTRs, the mapping system.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from testbed.eventlog import EventLog
from testbed.lab.announcement import announcement
from testbed.lab.captures import CapturePoint
from testbed.lab.network.network import Network
from testbed.lab.network.processes import in_node, run
from testbed.lab.network.sockets import socket_inside
from testbed.lab.substrate import Moved, Nature
from testbed.plan.model import Guest, Plan
from testbed.spec.experiment import Experiment

#: The guest's end of its cable, and the end that is plugged into a site's EID LAN.
GUEST_INTERFACE, PORT = "eth0", "guest-port"
UNPLUGGED = 0
#: Where the first packet of a guest goes that announces itself by speaking: to be thrown away (RFC 863).
DISCARD_PORT = 9
ETH_P_ALL = 3


class EmulatedLab:
    """The experiment's guest as a namespace.

    Args:
        plan: of the lab.
        experiment: how the guest behaves, and the seed of its downtimes.
        network: up already.
        events: the lab's event log.
        start_services: starts what answers in the guest; its node is there by then.
        expect: tells a site's xTR which EID the guest's MAC has.
    """

    def __init__(
        self,
        plan: Plan,
        experiment: Experiment,
        network: Network,
        events: EventLog,
        start_services: Callable[[], None],
        expect: Callable[[str], None],
    ) -> None:
        self._plan, self._network, self._events = plan, network, events
        self._behaviour = experiment.emulated_guest
        self._random = random.Random(experiment.seed)
        self._start_services, self._expect = start_services, expect
        self._guest: Guest = plan.guests[0]
        self._bridges = {site.name: site.eid_bridge for site in plan.sites}
        self._source = "emulated-guest"
        self._route = IPRoute()
        self._pid: int
        self._wire: socket.socket

    def capture_points(self) -> list[CapturePoint]:
        """The EID LANs that the guest may be on: a bridge sees every frame of its LAN."""
        instance_id = self._plan.site(self._guest.site).instance_id
        here = [site for site in self._plan.sites if site.instance_id == instance_id]
        movable = [site for site in here if site.dynamic_eid_prefixes]
        return [CapturePoint(site.name, site.eid_bridge, site=site.name) for site in movable]

    def up(self) -> None:
        """Make the guest's namespace and its cable, not plugged in anywhere."""
        guest = self._guest
        self._pid = self._network.add_host(guest.name)
        mtus = {bridge.name: bridge.mtu for bridge in self._plan.bridges}
        mtu = str(min(mtus[self._bridges[site]] for site in self._bridges))
        near = ["name", GUEST_INTERFACE, "netns", str(self._pid), "address", guest.mac, "mtu", mtu]
        run(["ip", "link", "add", *near, "type", "veth", "peer", "name", PORT, "mtu", mtu])
        run(["ip", "link", "set", PORT, "up"])
        run(in_node(self._pid, ["sh", "-e"]), input_text=guest_script(guest))
        self._wire = socket_inside(self._pid, socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._wire.bind((GUEST_INTERFACE, 0))

    def abandon(self) -> None:
        """Nothing here waits."""

    def start_guest(self) -> None:
        """Boot: its services start, it is plugged in, and it asks for its gateway, as whoever boots does."""
        self._start_services()
        self._plug(self._guest.site)
        version = ip_address(self._guest.eid).version
        self._say("arp-request" if version == 4 else "na")
        self._events.emit("guest_created", guest=self._guest.name, via="emulated")

    def guest_answers(self) -> None:
        """Nothing was done beside its start."""

    def migrate(self, source_site: str, destination_site: str) -> Moved:
        """Unplug the guest at the source, leave it silent for its downtime, plug it in at the destination."""
        announce = self._behaviour.announce
        downtime_ms = self._random.uniform(self._behaviour.downtime_ms.min, self._behaviour.downtime_ms.max)
        if announce == "rarp":
            self._expect(destination_site)
        about = {"guest": self._guest.name, "via": "emulated"}

        began_ns = time.monotonic_ns()
        self._unplug()
        suspended_ns = time.monotonic_ns()
        self._events.emit(
            "guest_suspended", mono_ns=suspended_ns, site=source_site, downtime_ms=downtime_ms,
            uncertainty_ms=(suspended_ns - began_ns) / 1e6, **about,
        )  # fmt: skip
        _sleep_until(suspended_ns + round(downtime_ms * 1e6))
        resumed_ns = time.monotonic_ns()
        self._plug(destination_site)
        plugged_ns = time.monotonic_ns()
        self._say(announce)
        self._events.emit(
            "guest_resumed", mono_ns=resumed_ns, site=destination_site,
            uncertainty_ms=(plugged_ns - resumed_ns) / 1e6, **about,
        )  # fmt: skip
        if announce == "none":
            _sleep_until(resumed_ns + round(self._behaviour.speaks_after_ms * 1e6))
            self._speak()
        return Moved(True)

    def placement(self) -> dict[str, Any]:
        """Site → whether the guest's cable is in its LAN, as the kernel says, and whether the guest lives."""
        master = self._master()
        return {
            site: {"guests": [self._guest.name] if self._route.link_lookup(ifname=bridge) == [master] else []}
            for site, bridge in self._bridges.items()
        }

    def runs_only_at(self, site: str, placement: dict[str, Any]) -> bool:
        """Whether the guest's cable is in this site's LAN and in no other."""
        return [name for name, found in placement.items() if found["guests"]] == [site]

    def nature(self) -> Nature:
        """Nothing is accelerated, and nothing is a virtual machine."""
        guest = "a network namespace, detached, silent and attached; no VM is migrated, its downtime is set"
        emulated = (
            f"the guest: {guest}",
            f"network links: {self._network.backend} (delay, rate and loss are imposed)",
        )
        return Nature("netns", None, "no virtual machine runs", None, emulated)

    def collect(self, run_dir: Path) -> list[str]:
        """A namespace has no console; what its services said is in the logs already."""
        return []

    def close(self) -> None:
        """Close the descriptors; the namespace goes with the lab."""
        if hasattr(self, "_wire"):
            self._wire.close()
        self._route.close()

    # --- the cable

    def _port(self) -> int:
        return int(self._route.link_lookup(ifname=PORT)[0])

    def _master(self) -> int:
        return int(self._route.get_links(self._port())[0].get_attr("IFLA_MASTER") or UNPLUGGED)

    def _plug(self, site: str) -> None:
        bridge = self._route.link_lookup(ifname=self._bridges[site])[0]
        self._route.link("set", index=self._port(), master=bridge)

    def _unplug(self) -> None:
        """From here every frame of the guest ends at its unplugged port, and none reaches it."""
        self._route.link("set", index=self._port(), master=UNPLUGGED)

    def _say(self, kind: str) -> None:
        frame = announcement(kind, self._guest)
        if frame is not None:
            self._wire.send(frame)

    def _speak(self) -> None:
        """The guest's first packet of its own: a datagram to its correspondent, which nobody answers."""
        peer = self._plan.correspondent.eid.partition("/")[0]
        family = socket.AF_INET6 if ":" in peer else socket.AF_INET
        with socket_inside(self._pid, family, socket.SOCK_DGRAM, 0) as speaking:
            speaking.sendto(b"\0", (peer, DISCARD_PORT))


def guest_script(guest: Guest) -> str:
    """The script that gives a guest its address and its way out, run in its namespace."""
    checksums = f"ethtool -K {GUEST_INTERFACE} tx off rx off tso off gso off gro off >/dev/null\n"
    nodad = " nodad" if ":" in guest.eid else ""
    gateway = guest.gateway.partition("/")[0]
    if ":" in guest.eid:
        quiet = "sysctl -q -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.accept_ra=0\n"
    else:
        quiet = "if [ -e /proc/sys/net/ipv6 ]; then sysctl -q -w net.ipv6.conf.all.disable_ipv6=1; fi\n"
    # Probes that are answered late because the kernel saves ICMP are no measurement.
    quiet += "sysctl -q -w net.ipv4.icmp_ratelimit=0\n"
    batch = [
        "link set lo up",
        f"link set {GUEST_INTERFACE} up",
        f"address add {guest.eid}/{guest.prefix_length} dev {GUEST_INTERFACE}{nodad}",
        f"route add default via {gateway}",
    ]
    return quiet + checksums + "ip -batch - <<'END'\n" + "\n".join(batch) + "\nEND\n"


def _sleep_until(moment_ns: int) -> None:
    left_ns = moment_ns - time.monotonic_ns()
    if left_ns > 0:
        time.sleep(left_ns / 1e9)
