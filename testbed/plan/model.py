"""The resolved plan of a lab: every node, address, link and guest, as plain data. Pure.

Made from a topology by `testbed.plan.build`, written to a run's `plan.json`, and read by everything
that brings the lab to life. Addresses are strings (`10.0.1.2`), prefixes `10.0.1.0/24`, interface
addresses `10.0.1.2/24`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["router", "xtr", "mapping-system", "correspondent"]


@dataclass(frozen=True, slots=True)
class Impairment:
    """What a link does to packets, per direction.

    Attributes:
        delay_ms: one-way delay added.
        jitter_ms: standard deviation of the delay.
        loss_percent: independent loss probability, per cent.
        rate_mbit: rate limit, or None for none.
        queue_ms: how long the queue in front of the rate limit is; what does not fit is dropped.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss_percent: float = 0.0
    rate_mbit: float | None = None
    queue_ms: float = 20.0


@dataclass(frozen=True, slots=True)
class Interface:
    """One end of a link: the node, the interface's name in it, its addresses and MAC."""

    node: str
    name: str
    addresses: tuple[str, ...] = ()
    mac: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A point-to-point link between two nodes (routers, xTRs, the mapping system).

    The first address of each end is of the RLOC's network.
    """

    name: str
    ends: tuple[Interface, Interface]
    impairment: Impairment
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class Bridge:
    """A LAN: a Linux bridge in the lab's root namespace, with the nodes' interfaces on it.

    Xen hosts (taps) and emulated guests join it by name.
    """

    name: str
    site: str
    purpose: Literal["eid", "infrastructure"]
    ports: tuple[Interface, ...]
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class Route:
    """A static route of a node."""

    prefix: str
    via: str


@dataclass(frozen=True, slots=True)
class Node:
    """A Mininet node: its own network namespace."""

    name: str
    role: Role
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True)
class FurtherXtr:
    """An xTR of a site beside the first: packets come in through it, and leave by the first.

    Attributes:
        node: that is it.
        rloc: its locator.
        rloc_priority, rloc_weight: of the locator in the site's mappings.
        addresses: its own interface addresses on the EID LAN.
        mac: of its interface there.
    """

    node: str
    rloc: str
    rloc_priority: int
    rloc_weight: int
    addresses: tuple[str, ...]
    mac: str


@dataclass(frozen=True, slots=True)
class Site:
    """A LISP site.

    Attributes:
        name: of the site.
        xtr: the node that is its ITR and ETR.
        rloc: the xTR's locator.
        eid_prefixes: prefixes that live here whole (registered at start).
        dynamic_eid_prefixes: prefixes whose single EIDs may appear here (registered when seen).
        gateway: the anycast gateway's interface addresses on the EID LAN ("192.168.0.1/24").
        gateway_mac: the anycast gateway's MAC, the same at every site of a dynamic prefix.
        eid_bridge: the LAN's bridge.
        eid_interface: the xTR's interface on that LAN.
        core_interface: the xTR's interface towards the core.
        key_id: of the site's authentication key (RFC 9301 §5.6); 0 interoperates with old peers.
        rloc_priority: of the locator in the site's mappings.
        rloc_weight: of the locator in the site's mappings.
        instance_id: of its EID prefixes (RFC 8060 §4.1).
        further_xtrs: beside `xtr`, with the same names of interfaces.
    """

    name: str
    xtr: str
    rloc: str
    eid_prefixes: tuple[str, ...]
    dynamic_eid_prefixes: tuple[str, ...]
    gateway: tuple[str, ...]
    gateway_mac: str
    eid_bridge: str
    eid_interface: str
    core_interface: str
    key_id: int = 0
    rloc_priority: int = 1
    rloc_weight: int = 100
    instance_id: int = 0
    further_xtrs: tuple[FurtherXtr, ...] = ()

    @property
    def xtrs(self) -> tuple[str, ...]:
        """The nodes of all its xTRs, the first one first."""
        return (self.xtr, *(each.node for each in self.further_xtrs))

    @property
    def rlocs(self) -> tuple[str, ...]:
        """Their locators, in the same order."""
        return (self.rloc, *(each.rloc for each in self.further_xtrs))


@dataclass(frozen=True, slots=True)
class MappingSystem:
    """The node that is Map-Server and Map-Resolver, and its address."""

    node: str
    rloc: str


@dataclass(frozen=True, slots=True)
class Correspondent:
    """The host that talks to the VM."""

    node: str
    site: str
    eid: str


@dataclass(frozen=True, slots=True)
class XenHost:
    """A Xen host of a site.

    Attributes:
        name: host name of its dom0.
        site: where it stands.
        out_of_band: interface address on the orchestrator's own network ("172.31.255.11/24").
        migration: interface address on the site's infrastructure LAN, which the core routes; the
            migration stream takes it ("10.1.1.2/24").
        migration_gateway: the next hop of `migration`.
        eid_bridge: the bridge that its guests' LAN is.
        infrastructure_bridge: the bridge of `migration`.
        memory_mib: of the emulated machine.
        dom0_memory_mib: of its dom0.
    """

    name: str
    site: str
    out_of_band: str
    migration: str
    migration_gateway: str
    eid_bridge: str
    infrastructure_bridge: str
    memory_mib: int = 1024
    dom0_memory_mib: int = 512


@dataclass(frozen=True, slots=True)
class Guest:
    """The VM that is a LISP endpoint."""

    name: str
    site: str
    eid: str
    prefix_length: int
    gateway: str
    mac: str
    memory_mib: int = 96
    vcpus: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """A lab, resolved."""

    name: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    bridges: tuple[Bridge, ...]
    sites: tuple[Site, ...]
    mapping_system: MappingSystem
    correspondent: Correspondent
    xen_hosts: tuple[XenHost, ...]
    guests: tuple[Guest, ...]
    out_of_band_gateway: str = "172.31.255.1/24"

    def site(self, name: str) -> Site:
        """The site of that name; KeyError if there is none."""
        return {site.name: site for site in self.sites}[name]

    def guest(self, name: str) -> Guest:
        """The guest of that name; KeyError if there is none."""
        return {guest.name: guest for guest in self.guests}[name]

    def instance_of(self, node: str) -> int:
        """The instance-ID of the site that a node belongs to; the correspondent's for what belongs to none."""
        site_of = {site.xtr: site.name for site in self.sites} | {guest.name: guest.site for guest in self.guests}
        return self.site(site_of.get(node, self.correspondent.site)).instance_id

    def xen_host_of(self, site: str) -> XenHost:
        """The Xen host that stands at a site; KeyError if there is none."""
        for host in self.xen_hosts:
            if host.site == site:
                return host
        raise KeyError(site)
