"""What is run in each node to make it what the plan says, as shell scripts. Plain text in, plain text out."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_interface

from testbed.plan.model import Bridge, Interface, Node, Plan

#: Before any interface exists, so that each takes the defaults as it is made.
#: arp_ignore, arp_announce: an xTR answers for an address only where it has it, and asks in that
#: address's name; with the defaults it would answer on the EID LAN for its RLOC.
#: icmp_ratelimit: probes that are answered late because the kernel saves ICMP are no measurement.
SYSCTLS_EVERYWHERE = {
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
    "net.ipv4.conf.all.arp_ignore": 1,
    "net.ipv4.conf.all.arp_announce": 2,
    "net.ipv4.conf.all.accept_redirects": 0,
    "net.ipv4.conf.default.accept_redirects": 0,
    "net.ipv4.conf.all.send_redirects": 0,
    "net.ipv4.conf.default.send_redirects": 0,
    "net.ipv4.icmp_ratelimit": 0,
}
SYSCTLS_ROUTER = {"net.ipv4.ip_forward": 1}
#: Addresses that are usable at once, and no address that the plan does not know.
SYSCTLS_IPV6 = {
    "net.ipv6.conf.all.disable_ipv6": 0,
    "net.ipv6.conf.default.disable_ipv6": 0,
    "net.ipv6.conf.all.accept_ra": 0,
    "net.ipv6.conf.default.accept_ra": 0,
    "net.ipv6.conf.all.accept_dad": 0,
    "net.ipv6.conf.default.accept_dad": 0,
    "net.ipv6.icmp.ratelimit": 0,
}
SYSCTLS_IPV6_ROUTER = {"net.ipv6.conf.all.forwarding": 1}
#: Where no IPv6 is planned there is none: router solicitations and MLD would be in every capture.
SYSCTLS_NO_IPV6 = {"net.ipv6.conf.all.disable_ipv6": 1, "net.ipv6.conf.default.disable_ipv6": 1}
#: What passes a bridge is not a router's business; these exist only where br_netfilter is.
BRIDGE_NETFILTER = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables")
#: Checksums and segments are made by the sender, so that captures and the relay see real packets.
OFFLOADS_OFF = "tx off rx off tso off gso off gro off"


def interfaces_of(plan: Plan, node: str) -> list[tuple[Interface, int]]:
    """Return a node's interfaces with their MTUs."""
    found = [(end, link.mtu) for link in plan.links for end in link.ends if end.node == node]
    return found + [(port, bridge.mtu) for bridge in plan.bridges for port in bridge.ports if port.node == node]


def has_ipv6(plan: Plan, node: Node) -> bool:
    """Say whether the plan gives a node an IPv6 address."""
    addresses = [a for interface, _ in interfaces_of(plan, node.name) for a in interface.addresses]
    return any(ip_interface(address).version == 6 for address in addresses)


def sysctl_script(plan: Plan, node: Node) -> str:
    """Return the script that sets a node's kernel parameters, before it has interfaces."""
    router = node.role in ("router", "xtr")
    ipv4 = SYSCTLS_EVERYWHERE | (SYSCTLS_ROUTER if router else {})
    if has_ipv6(plan, node):
        return _sysctl(ipv4 | SYSCTLS_IPV6 | (SYSCTLS_IPV6_ROUTER if router else {}))
    return _sysctl(ipv4) + _if_there("/proc/sys/net/ipv6", _sysctl(SYSCTLS_NO_IPV6))


def interface_script(plan: Plan, node: Node) -> str:
    """Return the script that sets a node's addresses and routes, once its interfaces are there."""
    interfaces = interfaces_of(plan, node.name)
    batch = ["link set lo up"]
    for interface, mtu in interfaces:
        batch.append(f"link set {interface.name} mtu {mtu} up")
        for address in interface.addresses:
            # The gateway is the same at every site: duplicate detection would be right, and in the way.
            nodad = " nodad" if ip_interface(address).version == 6 else ""
            batch.append(f"address add {address} dev {interface.name}{nodad}")
    for route in node.routes:
        batch.append(f"route add {route.prefix} via {route.via}")
    return _offloads([interface.name for interface, _ in interfaces]) + _ip_batch(batch)


def neighbour_script(plan: Plan, node: Node, macs: Mapping[tuple[str, str], str]) -> str:
    """Return the script that tells a node the MACs of its neighbours on point-to-point links.

    Resolving them would take a round trip over the emulated distance, in the first packet of each
    direction and again whenever an entry has become stale: a cost of Ethernet, which no such link has.

    Args:
        plan: of the lab.
        node: whose neighbours.
        macs: (node, interface) → MAC.
    """
    batch = []
    for link in plan.links:
        for near, far in (link.ends, link.ends[::-1]):
            if near.node == node.name:
                mac = macs[far.node, far.name]
                addresses = [address.partition("/")[0] for address in far.addresses]
                batch += [f"neighbour replace {a} lladdr {mac} dev {near.name} nud permanent" for a in addresses]
    return _ip_batch(batch) if batch else ""


def relay_script(interfaces: list[tuple[str, int]]) -> str:
    """Return the script that raises the relay's (name, MTU) interfaces, which have no addresses."""
    names = [name for name, _ in interfaces]
    batch = [f"link set {name} mtu {mtu} up" for name, mtu in interfaces]
    return _if_there("/proc/sys/net/ipv6", _sysctl(SYSCTLS_NO_IPV6)) + _offloads(names) + _ip_batch(batch)


def lab_script() -> str:
    """Return the script that prepares the lab's root network namespace, where the bridges will be."""
    script = _if_there("/proc/sys/net/ipv6", _sysctl(SYSCTLS_NO_IPV6))
    for name in BRIDGE_NETFILTER:
        script += _if_there(f"/proc/sys/net/bridge/{name}", _sysctl({f"net.bridge.{name}": 0}))
    return script + _ip_batch(["link set lo up"])


def bridge_script(bridge: Bridge, ports: list[str]) -> str:
    """Return the script that makes a LAN of `ports`, which are there already.

    A frame passes from the first moment (no spanning tree, no forward delay) and multicast goes to
    everybody (no snooping, so no querier is needed for ND).
    """
    options = "stp_state 0 forward_delay 0 mcast_snooping 0"
    batch = [
        f"link add name {bridge.name} type bridge {options}",
        *(f"link set {port} master {bridge.name} mtu {bridge.mtu} up" for port in ports),
        f"link set {bridge.name} mtu {bridge.mtu} up",
    ]
    return _offloads(ports) + _ip_batch(batch)


def _sysctl(values: dict[str, int]) -> str:
    return "sysctl -q -w " + " ".join(f"{key}={value}" for key, value in values.items()) + "\n"


def _if_there(path: str, script: str) -> str:
    return f"if [ -e {path} ]; then {script.strip()}; fi\n"


def _offloads(names: list[str]) -> str:
    return "".join(f"ethtool -K {name} {OFFLOADS_OFF} >/dev/null\n" for name in names)


def _ip_batch(lines: list[str]) -> str:
    return "ip -batch - <<'END'\n" + "\n".join(lines) + "\nEND\n"
