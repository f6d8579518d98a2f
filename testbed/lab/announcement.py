"""What a guest says when it arrives on a LAN: the frame of each kind of announcement. No I/O.

Hypervisors and guests differ in it: a Xen guest's netfront sends a gratuitous ARP, QEMU sends a RARP in
the guest's name, an IPv6 guest an unsolicited Neighbor Advertisement, and many say nothing at all.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

from testbed.lisp.sightings import ETHERTYPE_RARP, arp_request, mac_octets, neighbour_advertisement
from testbed.plan.model import Guest

BROADCAST = "ff:ff:ff:ff:ff:ff"
#: RFC 4291 §2.7.1 and RFC 2464 §7: all nodes of the link, and the MAC of that group.
ALL_NODES, ALL_NODES_MAC = IPv6Address("ff02::1"), "33:33:00:00:00:01"
_REVERSE_REQUEST = 3


def announcement(kind: str, guest: Guest) -> bytes | None:
    """The frame that announces a guest; None for `none`.

    Args:
        kind: "garp", "arp-request", "rarp", "na" or "none".
        guest: who announces itself.

    Raises:
        ValueError: ARP for an IPv6 EID, ND for an IPv4 one, or an unknown kind.
    """
    eid, gateway = ip_address(guest.eid), ip_address(guest.gateway.partition("/")[0])
    if kind == "none":
        return None
    if kind == "rarp":
        return reverse_request(guest.mac)
    if kind == "garp" and isinstance(eid, IPv4Address):
        return arp_request(mac=guest.mac, address=eid, to_mac=BROADCAST, asked=eid)
    if kind == "arp-request" and isinstance(eid, IPv4Address) and isinstance(gateway, IPv4Address):
        return arp_request(mac=guest.mac, address=eid, to_mac=BROADCAST, asked=gateway)
    if kind == "na" and isinstance(eid, IPv6Address):
        return neighbour_advertisement(mac=guest.mac, address=eid, to_mac=ALL_NODES_MAC, to_address=ALL_NODES)
    raise ValueError(f"{kind} cannot announce {eid}")


def reverse_request(mac: str) -> bytes:
    """A broadcast RARP request about the sender itself, as QEMU's self-announcement sends it (RFC 903)."""
    own = mac_octets(mac)
    ethernet = mac_octets(BROADCAST) + own + struct.pack("!H", ETHERTYPE_RARP)
    return ethernet + struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, _REVERSE_REQUEST, own, bytes(4), own, bytes(4))
