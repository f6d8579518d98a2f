"""From what a person wrote to every address, name and route. Pure.

The scheme, for site number n (its place in the file, from 1) in the RLOC space S, 10.0.0.0/8 by default:

    core - mapping system   S.0.0.0/24   core .1, mapping system .2
    core - xTR              S.0.n.0/24   core .1, xTR .2 (its RLOC)
    core - further xTRs     S.0.m.0/24   the same, m from 201 on, over all sites
    infrastructure LAN      S.1.n.0/24   xTR .1, Xen host .2
    out of band             172.31.255.0/24   lab .1, Xen hosts .11, .12, ...

In an IPv6 space a link has the n-th /64, core ::1, xTR ::2; infrastructure LANs, and beside the RLOC the links of
sites that have one, are then as in 10.0.0.0/8.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Network, ip_address, ip_network

from testbed.plan.model import (
    Bridge,
    Correspondent,
    FurtherXtr,
    Guest,
    Impairment,
    Interface,
    Link,
    MappingSystem,
    Node,
    Plan,
    Route,
    Site,
    XenHost,
)
from testbed.spec.checks import dynamic_prefix_of, experiment_findings
from testbed.spec.experiment import Experiment
from testbed.spec.problems import Problem, SpecError
from testbed.spec.scalars import short_name
from testbed.spec.topology import (
    CORRESPONDENT_HOST,
    GuestSpec,
    LinkSpec,
    SiteSpec,
    Topology,
    further_xtr_names,
    short_names,
    xen_host_name,
    xtr_name,
)
from testbed.spec.underlay import (
    FIRST_FURTHER_LINK,
    Network,
    access_network,
    infrastructure_network,
    lan_address,
    migration_space,
)

#: The orchestrator's own network to the Xen hosts, outside Mininet.
OUT_OF_BAND = IPv4Network("172.31.255.0/24")
FIRST_XEN_HOST = 11
#: The Xen project's OUI; the guest's place in the file follows.
GUEST_MAC = "00:16:3e:00:00:{:02x}"
#: A site's xTRs from the second on, on its EID LAN; locally administered.
FURTHER_MAC = "02:00:5e:00:01:{:02x}"


@dataclass(frozen=True, slots=True)
class _Resolved:
    """A site's part of the plan."""

    site: Site
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    bridges: tuple[Bridge, ...]
    core_route: Route | None
    xen_host: XenHost | None


def build_plan(topology: Topology, experiment: Experiment | None = None) -> Plan:
    """Resolve a topology, and the experiment's choices if there is one.

    With an experiment, the guest it names comes first, has its memory and vCPUs, and Xen hosts are in
    the plan only when they are booted (substrate `xen`).

    Raises:
        SpecError: the experiment does not fit the topology.
    """
    if experiment is not None:
        problems = [
            Problem(".".join(str(part) for part in loc), None, None, what)
            for loc, what in experiment_findings(experiment, topology)
        ]
        if problems:
            raise SpecError(problems)
    core = topology.core.name
    space = ip_network(topology.rloc_space)
    with_hosts = experiment is None or experiment.substrate == "xen"
    parts = [_resolve(number, site, topology, with_hosts) for number, site in enumerate(topology.sites, 1)]
    mapping = topology.mapping_system
    mapping_access = [_ends(access_network(space, 0, mapping.rloc), mapping.rloc)]
    mapping_link = _link(core, mapping.name, "ms", mapping.link, mapping_access)
    core_address, mapping_rloc = (_bare(end.addresses[0]) for end in mapping_link.ends)
    mapping_node = Node(mapping.name, "mapping-system", (Route(str(space), core_address),))
    core_node = Node(core, "router", tuple(part.core_route for part in parts if part.core_route))
    correspondent, correspondent_node, parts = _correspondent(topology, parts)
    site_nodes = [node for part in parts for node in part.nodes]
    return Plan(
        name=topology.name,
        nodes=(core_node, mapping_node, *site_nodes, correspondent_node),
        links=(mapping_link, *(link for part in parts for link in part.links)),
        bridges=tuple(bridge for part in parts for bridge in part.bridges),
        sites=tuple(part.site for part in parts),
        mapping_system=MappingSystem(mapping_node.name, mapping_rloc),
        correspondent=correspondent,
        xen_hosts=tuple(part.xen_host for part in parts if part.xen_host),
        guests=_guests(topology, experiment),
    )


def _bare(address: str) -> str:
    return address.partition("/")[0]


def _nth(network: Network, number: int) -> str:
    return f"{network.network_address + number}/{network.prefixlen}"


def _ends(network: Network, rloc: str | None = None) -> tuple[str, str]:
    """Return the core's and the other end's address of a link: .1, or .254 where the RLOC is .1; the RLOC, or .2."""
    far = f"{rloc}/{network.prefixlen}" if rloc else _nth(network, 2)
    return _nth(network, 254 if far == _nth(network, 1) else 1), far


def _link(core: str, node: str, short: str, spec: LinkSpec, addresses: list[tuple[str, str]]) -> Link:
    """Join a node to the core; of the (core's, node's) addresses the first are those of the RLOC."""
    near, far = zip(*addresses, strict=True)
    return Link(
        name=f"core-{short}",
        ends=(Interface(core, f"to-{short}", near), Interface(node, "rloc0", far)),
        impairment=Impairment(spec.delay_ms, spec.jitter_ms, spec.loss_percent, spec.rate_mbit, spec.queue_ms),
        mtu=spec.mtu,
    )


def _resolve(number: int, spec: SiteSpec, topology: Topology, with_hosts: bool) -> _Resolved:
    space, short = ip_network(topology.rloc_space), short_name(spec.name)
    carrying = migration_space(space)
    xtr = xtr_name(spec)
    addresses = [_ends(access_network(space, number, spec.rloc), spec.rloc)]
    spaces = [space]
    if spec.xen_host is not None and carrying != space:
        addresses.append(_ends(access_network(carrying, number)))
        spaces.append(carrying)
    link = _link(topology.core.name, xtr, short, spec.link, addresses)
    core_addresses, far_addresses = ([_bare(address) for address in end.addresses] for end in link.ends)
    gateway = _gateway(spec)
    further, further_links = _further_xtrs(number, spec, topology)
    ports = [Interface(xtr, "eid0", gateway, spec.gateway.mac)]
    ports += [Interface(each.node, "eid0", each.addresses, each.mac) for each in further]
    eid_bridge = Bridge(f"eid-{short}", spec.name, "eid", tuple(ports), spec.eid_mtu)
    bridges, core_route, xen_host = [eid_bridge], None, None
    if spec.xen_host is not None:
        network = infrastructure_network(space, number)
        port = Interface(xtr, "infra0", (_nth(network, 1),))
        # The migration stream crosses the core, so its LAN's packets are the access link's size.
        bridges.append(Bridge(f"inf-{short}", spec.name, "infrastructure", (port,), spec.link.mtu))
        core_route = Route(str(network), far_addresses[-1])
        before = sum(1 for site in topology.sites[: number - 1] if site.xen_host is not None)
        xen_host = XenHost(
            name=xen_host_name(spec, spec.xen_host),
            site=spec.name,
            out_of_band=_nth(OUT_OF_BAND, FIRST_XEN_HOST + before),
            migration=_nth(network, 2),
            migration_gateway=_bare(port.addresses[0]),
            eid_bridge=eid_bridge.name,
            infrastructure_bridge=bridges[-1].name,
            memory_mib=spec.xen_host.memory_mib,
            dom0_memory_mib=spec.xen_host.dom0_memory_mib,
        )
    site = Site(
        name=spec.name,
        xtr=xtr,
        rloc=far_addresses[0],
        eid_prefixes=spec.eid_prefixes,
        dynamic_eid_prefixes=spec.dynamic_eid_prefixes,
        gateway=gateway,
        gateway_mac=spec.gateway.mac,
        eid_bridge=eid_bridge.name,
        eid_interface="eid0",
        core_interface="rloc0",
        key_id=spec.key_id,
        rloc_priority=spec.rloc_priority,
        rloc_weight=spec.rloc_weight,
        instance_id=spec.instance_id,
        further_xtrs=further,
    )
    routes = [Route(str(each), via) for each, via in zip(spaces, core_addresses, strict=True)]
    nodes = [Node(xtr, "xtr", tuple(routes))]
    for each, its_link in zip(further, further_links, strict=True):
        nodes.append(Node(each.node, "xtr", (Route(str(space), _bare(its_link.ends[0].addresses[0])),)))
    links = (link, *further_links)
    return _Resolved(site, tuple(nodes), links, tuple(bridges), core_route, xen_host if with_hosts else None)


def _further_xtrs(
    site_number: int, spec: SiteSpec, topology: Topology
) -> tuple[tuple[FurtherXtr, ...], tuple[Link, ...]]:
    """Return a site's xTRs beside the first, and their links to the core."""
    before = sum(len(site.further_xtrs) for site in topology.sites[: site_number - 1])
    networks = [ip_network(prefix) for prefix in (*spec.eid_prefixes, *spec.dynamic_eid_prefixes)]
    xtrs, links = [], []
    named = zip(spec.further_xtrs, further_xtr_names(spec), short_names(spec)[1:], strict=True)
    for number, (each, name, short) in enumerate(named, 2):
        link_number = FIRST_FURTHER_LINK + before + number - 2
        ends = _ends(access_network(ip_network(topology.rloc_space), link_number, each.rloc), each.rloc)
        links.append(_link(topology.core.name, name, short, each.link, [ends]))
        addresses = tuple(f"{lan_address(network, number)}/{network.prefixlen}" for network in networks)
        mac = FURTHER_MAC.format(number)
        xtrs.append(FurtherXtr(name, _bare(ends[1]), each.rloc_priority, each.rloc_weight, addresses, mac))
    return tuple(xtrs), tuple(links)


def _gateway(spec: SiteSpec) -> tuple[str, ...]:
    """Return the gateway's interface addresses, one for each prefix of the site."""
    found = []
    for prefix in (*spec.eid_prefixes, *spec.dynamic_eid_prefixes):
        network = ip_network(prefix)
        given = [a for a in spec.gateway.addresses if ip_address(a).version == network.version]
        inside = [a for a in given if ip_address(a) in network]
        found.append(f"{inside[0] if inside else network.network_address + 1}/{network.prefixlen}")
    return tuple(found)


def _gateway_for(eid: str, gateways: tuple[str, ...]) -> tuple[str, int]:
    """Return the gateway's address and the prefix length of the prefix that covers `eid`."""
    for gateway in gateways:
        network = ip_network(gateway, strict=False)
        if ip_address(eid).version == network.version and ip_address(eid) in network:
            return _bare(gateway), network.prefixlen
    raise KeyError(eid)


def _correspondent(topology: Topology, parts: list[_Resolved]) -> tuple[Correspondent, Node, list[_Resolved]]:
    """Put the correspondent on its site's EID LAN; return it, its node, and the parts with its port."""
    spec = topology.correspondent
    home = next(part for part in parts if part.site.name == spec.site)
    eid = spec.eid or str(ip_network(home.site.eid_prefixes[0]).network_address + CORRESPONDENT_HOST)
    gateway, length = _gateway_for(eid, home.site.gateway)
    default = "0.0.0.0/0" if ip_address(eid).version == 4 else "::/0"
    node = Node(spec.name, "correspondent", (Route(default, gateway),))
    port = Interface(spec.name, "eid0", (f"{eid}/{length}",))
    lan = home.bridges[0]
    lan = Bridge(lan.name, lan.site, lan.purpose, (*lan.ports, port), lan.mtu)
    with_port = replace(home, bridges=(lan, *home.bridges[1:]))
    moved = [with_port if part is home else part for part in parts]
    return Correspondent(spec.name, spec.site, eid), node, moved


def _guests(topology: Topology, experiment: Experiment | None) -> tuple[Guest, ...]:
    sites = {site.name: site for site in topology.sites}
    guests = [_guest(index, spec, sites[spec.site]) for index, spec in enumerate(topology.guests, 1)]
    if experiment is None:
        return tuple(guests)
    choice = experiment.guest
    name = choice.name or guests[0].name
    chosen = [
        Guest(
            guest.name, guest.site, guest.eid, guest.prefix_length, guest.gateway, guest.mac,
            choice.memory_mib or guest.memory_mib, choice.vcpus or guest.vcpus,
        )
        for guest in guests
        if guest.name == name
    ]  # fmt: skip
    return (*chosen, *(guest for guest in guests if guest.name != name))


def _guest(index: int, spec: GuestSpec, site: SiteSpec) -> Guest:
    prefix = dynamic_prefix_of(spec.eid, site)
    assert prefix is not None, "checked when the topology was loaded"
    gateway, length = _gateway_for(spec.eid, _gateway(site))
    return Guest(
        name=spec.name,
        site=spec.site,
        eid=spec.eid,
        prefix_length=length,
        gateway=gateway,
        mac=spec.mac or GUEST_MAC.format(index),
        memory_mib=spec.memory_mib,
        vcpus=spec.vcpus,
    )
