"""What no single value shows: references, overlaps, duplicates. Pure.

Every function yields (loc, what is wrong and what is allowed).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network

from testbed.spec.experiment import Experiment, MigrationSpec
from testbed.spec.problems import Loc, allowed_instead
from testbed.spec.sweep import case_findings
from testbed.spec.topology import (
    CORRESPONDENT_HOST,
    GuestSpec,
    SiteSpec,
    Topology,
    further_xtr_names,
    short_names,
    xen_host_name,
    xtr_name,
)
from testbed.spec.underlay import (
    FIRST_FURTHER_LINK,
    FURTHER_LINKS,
    LINK_LENGTH,
    LONGEST_SPACE,
    Network,
    access_network,
    lan_address,
    migration_space,
)

Finding = tuple[Loc, str]

#: RFC 8200 §5.
IPV6_LEAST_MTU = 1280
#: What LISP puts before a packet, by address family of the RLOCs: IP, UDP and LISP header (RFC 9300 §5.1, §5.2).
ENCAPSULATION_OCTETS = {4: 36, 6: 56}


def topology_findings(topology: Topology) -> Iterator[Finding]:
    """Yield everything that is wrong between the parts of a topology."""
    yield from _duplicates(topology)
    yield from _rlocs(topology)
    yield from _prefixes(topology)
    for index, site in enumerate(topology.sites):
        yield from _gateways(("sites", index), site)
        version = ip_network(topology.rloc_space).version
        yield from _width(("sites", index, "link", "mtu"), site.link.mtu, site, version)
        for number, each in enumerate(site.further_xtrs):
            yield from _width(("sites", index, "further_xtrs", number, "link", "mtu"), each.link.mtu, site, version)
        yield from _further_xtrs(("sites", index, "further_xtrs"), site, topology)
    yield from _correspondent(topology)
    for index, guest in enumerate(topology.guests):
        yield from _guest(("guests", index), guest, topology)


def experiment_findings(experiment: Experiment, topology: Topology | None) -> Iterator[Finding]:
    """Yield what is wrong in an experiment, alone or against its topology."""
    for index, migration in enumerate(experiment.migrations):
        yield from _one_form(("migrations", index), migration)
    downtime = experiment.emulated_guest.downtime_ms
    if downtime.min > downtime.max:
        loc: Loc = ("emulated_guest", "downtime_ms", "min")
        yield loc, f"min {downtime.min:g} is more than max {downtime.max:g}; allowed: at most max"
    if experiment.lisp.echo_nonce and experiment.mechanism == "map-version":
        yield (
            ("lisp", "echo_nonce"),
            "map-versions take the nonce's place (RFC 9300 §5.3); allowed with map-version: false",
        )
    yield from _probes(experiment)
    if experiment.sweep is not None:
        yield from case_findings(experiment.sweep)
    if topology is not None:
        yield from _against_topology(experiment, topology)


def _probes(experiment: Experiment) -> Iterator[Finding]:
    """Yield flows and directions that cannot be probed."""
    flows, directions = experiment.probes.flows, experiment.probes.directions
    if set(flows) == {"tcp"}:
        yield ("probes", "flows"), "a connection does not show which probe was lost; allowed: tcp beside icmp or udp"
    if "tcp" in flows and experiment.probes.interval_ms < 1:
        yield ("probes", "interval_ms"), "too often for a connection's messages; allowed with tcp: at least 1"
    for key, values in (("flows", flows), ("directions", directions)):
        for position, value in enumerate(values):
            if value in values[:position]:
                yield ("probes", key, position), f"{value} is there twice; allowed: each once"
    if experiment.substrate == "xen" and "from-guest" in directions:
        yield from _probes_of_a_virtual_machine(flows, directions)


def _probes_of_a_virtual_machine(flows: Sequence[str], directions: Sequence[str]) -> Iterator[Finding]:
    """Yield what a guest cannot probe whose clock stands still while it is suspended.

    What it sent and what came back is read from captures, after the run: nobody knows of it while the run lives.
    """
    if "to-guest" not in directions:
        loc: Loc = ("probes", "directions", 0)
        yield loc, "a run waits until its guest answers; allowed with substrate xen: from-guest beside to-guest"
    if "tcp" in flows:
        why = "which message TCP carries again is not told from captures"
        yield ("probes", "flows", flows.index("tcp")), f"{why}; allowed with a Xen guest's from-guest: icmp, udp"


def _unknown(word: str, kind: str, known: list[str]) -> str:
    return f"no {kind} is called {word!r}{allowed_instead(word, known)}"


def _duplicates(topology: Topology) -> Iterator[Finding]:
    """Yield names that two things have, given or derived; sites and nodes are different kinds."""
    names: list[tuple[str, str, Loc]] = [
        ("node", topology.core.name, ("core", "name")),
        ("node", topology.mapping_system.name, ("mapping_system", "name")),
        ("node", topology.correspondent.name, ("correspondent", "name")),
    ]
    for index, site in enumerate(topology.sites):
        for number, short in enumerate(short_names(site)):
            place = ("further_xtrs", number - 1) if number else ("name",)
            names.append(("site", short, ("sites", index, *place)))
        for number, (each, name) in enumerate(zip(site.further_xtrs, further_xtr_names(site), strict=True)):
            place = ("further_xtrs", number, *(("name",) if each.name else ()))
            names.append(("node", name, ("sites", index, *place)))
        names.append(("node", xtr_name(site), ("sites", index, "xtr" if site.xtr else "name")))
        if site.xen_host is not None:
            key = ("xen_host", "name") if site.xen_host.name else ("name",)
            names.append(("node", xen_host_name(site, site.xen_host), ("sites", index, *key)))
    names += [("node", guest.name, ("guests", i, "name")) for i, guest in enumerate(topology.guests)]
    # The mapping system's link to the core is called as a site's would be.
    seen = {("site", "ms")}
    for kind, name, loc in names:
        if (kind, name) in seen:
            yield loc, f"{name!r} is already the name of another {kind}; allowed: a name of its own"
        seen.add((kind, name))


def _rlocs(topology: Topology) -> Iterator[Finding]:
    """Yield locators outside the RLOC space, and links whose network is taken."""
    space = ip_network(topology.rloc_space)
    length, longest = LINK_LENGTH[space.version], LONGEST_SPACE[space.version]
    if space.prefixlen > longest:
        yield ("rloc_space",), f"{space} is too small for the derived addresses; allowed: /{longest} or shorter"
        return
    given: list[tuple[str | None, Loc]] = [(topology.mapping_system.rloc, ("mapping_system", "rloc"))]
    given += [(site.rloc, ("sites", i, "rloc")) for i, site in enumerate(topology.sites)]
    further = [
        (each.rloc, ("sites", i, "further_xtrs", j, "rloc"))
        for i, site in enumerate(topology.sites)
        for j, each in enumerate(site.further_xtrs)
    ]
    if len(further) > FURTHER_LINKS:
        yield further[FURTHER_LINKS][1][:-1], f"{len(further)} further xTRs; allowed: {FURTHER_LINKS} in all"
        return
    numbered = [*enumerate(given), *enumerate(further, FIRST_FURTHER_LINK)]
    taken: dict[Network, str] = {}
    for number, (rloc, loc) in numbered:
        subnet = access_network(space, number, rloc)
        if rloc is not None:
            if not _overlap(str(subnet), str(space)):
                yield loc, f"RLOC {rloc} is outside the RLOC space; allowed: in {space}"
            elif rloc in (str(subnet.network_address), str(subnet.broadcast_address)):
                yield loc, f"RLOC {rloc} is not a host's address of {subnet}"
        owner = ".".join(str(part) for part in loc[:-1])
        if subnet in taken:
            yield loc, f"the link's network {subnet} is that of {taken[subnet]} too; allowed: one /{length} a link"
        taken.setdefault(subnet, owner)


def _prefixes(topology: Topology) -> Iterator[Finding]:
    """Yield EID prefixes that overlap within an instance; the same dynamic one at several sites is mobility."""
    spaces = {topology.rloc_space: "RLOC space"}
    if any(site.xen_host is not None for site in topology.sites):
        spaces.setdefault(str(migration_space(ip_network(topology.rloc_space))), "migration space")
    seen: dict[int, list[tuple[str, str, bool, int]]] = {}
    for index, site in enumerate(topology.sites):
        if not site.eid_prefixes and not site.dynamic_eid_prefixes:
            yield ("sites", index), f"site {site.name!r} has neither eid_prefixes nor dynamic_eid_prefixes"
        same_instance = seen.setdefault(site.instance_id, [])
        for key, prefixes in (
            ("eid_prefixes", site.eid_prefixes),
            ("dynamic_eid_prefixes", site.dynamic_eid_prefixes),
        ):
            dynamic = key.startswith("dynamic")
            for position, prefix in enumerate(prefixes):
                loc: Loc = ("sites", index, key, position)
                if ip_network(prefix).num_addresses < 16:
                    yield loc, f"{prefix} is too small for a LAN; allowed: 16 addresses or more"
                for space, name in spaces.items():
                    if _overlap(prefix, space):
                        yield loc, f"EID prefix {prefix} overlaps the {name} {space}; allowed: apart from it"
                for other, owner, other_dynamic, owner_index in same_instance:
                    shared = dynamic and other_dynamic and prefix == other and owner_index != index
                    if _overlap(prefix, other) and not shared:
                        yield (
                            loc,
                            (
                                f"{prefix} overlaps {other} of {owner}; allowed: distinct prefixes, "
                                "the same dynamic prefix at several sites, or another instance_id"
                            ),
                        )
                same_instance.append((prefix, site.name, dynamic, index))


def _overlap(one: str, other: str) -> bool:
    a, b = ip_network(one), ip_network(other)
    return a.version == b.version and a.overlaps(b)


def _gateways(loc: Loc, site: SiteSpec) -> Iterator[Finding]:
    prefixes = (*site.eid_prefixes, *site.dynamic_eid_prefixes)
    for position, address in enumerate(site.gateway.addresses):
        if not any(_contains(prefix, address) for prefix in prefixes):
            yield (
                (*loc, "gateway", "addresses", position),
                (f"gateway {address} is in no prefix of {site.name}; allowed: in {', '.join(prefixes)}"),
            )
    if site.gateway.addresses:
        for prefix in prefixes:
            inside = [a for a in site.gateway.addresses if _contains(prefix, a)]
            if len(inside) != 1:
                yield (
                    (*loc, "gateway", "addresses"),
                    (f"{len(inside)} gateway addresses in {prefix}; allowed: one a prefix"),
                )


def _further_xtrs(loc: Loc, site: SiteSpec, topology: Topology) -> Iterator[Finding]:
    """Yield why a site cannot have the xTRs that it has beside the first."""
    if not site.further_xtrs:
        return
    if site.dynamic_eid_prefixes:
        yield (
            loc,
            (
                f"{site.name} has dynamic_eid_prefixes, and nothing says which of several xTRs forwards for a guest; "
                "allowed: further xTRs at sites with eid_prefixes only"
            ),
        )
    taken = _gateway_addresses(site)
    if topology.correspondent.site == site.name and site.eid_prefixes:
        derived = ip_network(site.eid_prefixes[0]).network_address + CORRESPONDENT_HOST
        taken.add(topology.correspondent.eid or str(derived))
    for prefix in site.eid_prefixes:
        for number in range(2, 2 + len(site.further_xtrs)):
            address = lan_address(ip_network(prefix), number)
            if address in taken or not _contains(prefix, address):
                yield (*loc, number - 2), f"its address in {prefix}, {address}, is taken; allowed: a free one there"


def _width(loc: Loc, mtu: int, site: SiteSpec, rloc_version: int) -> Iterator[Finding]:
    """Yield a link that carries no encapsulated IPv6 packet of the least MTU, which no IPv6 host goes below."""
    least = IPV6_LEAST_MTU + ENCAPSULATION_OCTETS[rloc_version]
    has_ipv6 = any(ip_network(prefix).version == 6 for prefix in (*site.eid_prefixes, *site.dynamic_eid_prefixes))
    if has_ipv6 and mtu < least:
        yield loc, f"{mtu} is too narrow for the IPv6 EIDs of {site.name}; allowed: {least} or more"


def _contains(prefix: str, address: str) -> bool:
    network, host = ip_network(prefix), ip_address(address)
    return network.version == host.version and host in network


def _correspondent(topology: Topology) -> Iterator[Finding]:
    correspondent = topology.correspondent
    sites = {site.name: site for site in topology.sites}
    if correspondent.site not in sites:
        yield ("correspondent", "site"), _unknown(correspondent.site, "site", list(sites))
        return
    prefixes = sites[correspondent.site].eid_prefixes
    if not prefixes:
        yield ("correspondent", "site"), f"{correspondent.site} has no eid_prefixes for the correspondent"
    elif correspondent.eid in _gateway_addresses(sites[correspondent.site]):
        yield ("correspondent", "eid"), f"{correspondent.eid} is the gateway's; allowed: a free address"
    elif correspondent.eid and not any(_contains(prefix, correspondent.eid) for prefix in prefixes):
        yield (
            ("correspondent", "eid"),
            (f"{correspondent.eid} is in no prefix of {correspondent.site}; allowed: in {', '.join(prefixes)}"),
        )


def _guest(loc: Loc, guest: GuestSpec, topology: Topology) -> Iterator[Finding]:
    sites = {site.name: site for site in topology.sites}
    if guest.site not in sites:
        yield (*loc, "site"), _unknown(guest.site, "site", list(sites))
        return
    site = sites[guest.site]
    prefix = dynamic_prefix_of(guest.eid, site)
    if prefix is None:
        listed = ", ".join(site.dynamic_eid_prefixes) or "none are declared"
        yield (*loc, "eid"), f"{guest.eid} is in no dynamic prefix of {site.name}; allowed: in {listed}"
        return
    home = sites.get(topology.correspondent.site, site)
    if site.instance_id != home.instance_id:
        yield (
            (*loc, "site"),
            (
                f"{site.name} is in instance {site.instance_id}, the correspondent in {home.instance_id}; "
                "allowed: a site in the correspondent's instance"
            ),
        )
    before = {other.eid for other in topology.guests[: int(loc[1])]}
    if guest.eid in before or guest.eid in _gateway_addresses(site):
        yield (*loc, "eid"), f"{guest.eid} is taken by another guest or the gateway; allowed: a free address"


def _gateway_addresses(site: SiteSpec) -> set[str]:
    prefixes = (*site.eid_prefixes, *site.dynamic_eid_prefixes)
    return set(site.gateway.addresses) or {str(next(iter(ip_network(p).hosts()))) for p in prefixes}


def dynamic_prefix_of(eid: str, site: SiteSpec) -> str | None:
    """Return the dynamic prefix of `site` that covers `eid`, or None."""
    for prefix in site.dynamic_eid_prefixes:
        if _contains(prefix, eid):
            return prefix
    return None


def _one_form(loc: Loc, migration: MigrationSpec) -> Iterator[Finding]:
    if (migration.to is None) == (not migration.path):
        yield loc, "a migration has one of two forms; allowed: `to: site-b`, or `path: [site-b, site-a]`"
    if migration.to is not None and migration.repeat != 1:
        yield (*loc, "repeat"), "`to` cannot be repeated; allowed: `path: [there, back]` with `repeat`"


def _against_topology(experiment: Experiment, topology: Topology) -> Iterator[Finding]:
    guests = {guest.name: guest for guest in topology.guests}
    if not guests:
        yield ("topology",), f"topology {topology.name!r} has no guest; allowed: one with guests"
        return
    name = experiment.guest.name or topology.guests[0].name
    if name not in guests:
        yield ("guest", "name"), _unknown(name, "guest", list(guests))
        return
    guest = guests[name]
    sites = {site.name: site for site in topology.sites}
    yield from _announcement(experiment, guest)
    if experiment.substrate == "xen" and guest.site in sites and sites[guest.site].xen_host is None:
        yield ("substrate",), f"{guest.site}, where {name} starts, has no xen_host; allowed: netns"
    here = guest.site
    for loc, destination in _steps(experiment):
        if destination not in sites:
            yield loc, _unknown(destination, "site", list(sites))
            continue
        site = sites[destination]
        if destination == here:
            yield loc, f"{name} is at {destination} already; allowed: another site"
        if guest.site in sites and site.instance_id != sites[guest.site].instance_id:
            yield (
                loc,
                (
                    f"{destination} is in instance {site.instance_id}, {name} in {sites[guest.site].instance_id}; "
                    "allowed: a site in the guest's instance"
                ),
            )
        if dynamic_prefix_of(guest.eid, site) is None:
            yield (
                loc,
                f"{destination} has no dynamic prefix with {name}'s EID {guest.eid}; allowed: one that has",
            )
        if experiment.substrate == "xen" and site.xen_host is None:
            yield loc, f"{destination} has no xen_host; allowed with substrate xen: a site with one"
        here = destination


def _announcement(experiment: Experiment, guest: GuestSpec) -> Iterator[Finding]:
    """Yield an announcement that the guest's EID cannot be announced by: ARP is IPv4's, ND is IPv6's."""
    announce, version = experiment.emulated_guest.announce, ip_address(guest.eid).version
    fitting = ("na",) if version == 6 else ("garp", "arp-request")
    if experiment.substrate == "netns" and announce not in (*fitting, "rarp", "none"):
        listed = ", ".join((*fitting, "rarp", "none"))
        yield ("emulated_guest", "announce"), f"{announce!r} cannot announce {guest.eid}; allowed: {listed}"


def _steps(experiment: Experiment) -> Iterator[tuple[Loc, str]]:
    """Yield each step with its place in the file; a path that repeats is walked twice, to see it close."""
    for index, migration in enumerate(experiment.migrations):
        if migration.to is not None:
            yield ("migrations", index, "to"), migration.to
        for _ in range(min(migration.repeat, 2)):
            for position, site in enumerate(migration.path):
                yield ("migrations", index, "path", position), site
