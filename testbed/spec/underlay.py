"""The networks under the overlay, by number: links to the core, and the LANs of Xen hosts' migration streams. Pure."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

Network = IPv4Network | IPv6Network

#: By address family of the RLOC space: a link's network, and the longest prefix that has enough of them.
LINK_LENGTH = {4: 24, 6: 64}
LONGEST_SPACE = {4: 15, 6: 56}
#: Links are numbered: the mapping system's is 0, then the sites', and the further xTRs' from here, over all sites.
FIRST_FURTHER_LINK, FURTHER_LINKS = 201, 55
#: Xen hosts migrate over IPv4; where the RLOC space is IPv6, this is what the core routes for them.
MIGRATION_SPACE = IPv4Network("10.0.0.0/8")


def access_network(space: Network, number: int, rloc: str | None = None) -> Network:
    """Return the network of a link to the core: that of its RLOC, or the space's, by the link's number."""
    length = LINK_LENGTH[space.version]
    if rloc is not None:
        given = ip_network(rloc)
        return given.supernet(new_prefix=LINK_LENGTH[given.version])
    return ip_network((int(space.network_address) + (number << space.max_prefixlen - length), length))


def lan_address(network: Network, number: int) -> str:
    """Return an EID LAN's address of a site's xTR, from the second on: counted down from .254, or from ::fffe."""
    end = network.network_address + min(network.num_addresses, 1 << 16) - 1 if network.version == 6 else network[-1]
    return str(end - (number - 1))


def infrastructure_network(space: Network, number: int) -> IPv4Network:
    """Return the LAN of a site's Xen host: a /24 of the second /16 of the space that carries migrations."""
    return IPv4Network((int(migration_space(space).network_address) + (1 << 16) + (number << 8), 24))


def migration_space(space: Network) -> IPv4Network:
    """Return what the core routes for migration streams: the RLOC space itself if it is IPv4."""
    return space if isinstance(space, IPv4Network) else MIGRATION_SPACE
