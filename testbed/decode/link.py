"""From a captured frame to the IP packet in it: link layers, 802.1Q tags. Pure."""

from __future__ import annotations

#: LINKTYPE_ values (tcpdump.org/linktypes.html).
NULL, ETHERNET, RAW, LOOP, LINUX_SLL, IPV4, IPV6, LINUX_SLL2 = 0, 1, 101, 108, 113, 228, 229, 276
#: DLT_RAW leaked into files under two other numbers.
_BARE = {RAW, IPV4, IPV6, 12, 14}

_IP = {0x0800, 0x86DD}
_TAGS = {0x8100, 0x88A8, 0x9100}

#: link type → (octets before the EtherType, octets of the header with it).
_ETHERTYPE_AT = {ETHERNET: (12, 14), LINUX_SLL: (14, 16), LINUX_SLL2: (0, 20)}


def ip_offset(data: bytes, link_type: int) -> int | None:
    """Where the IP packet begins in a frame.

    Args:
        data: the frame.
        link_type: LINKTYPE_ value.

    Returns:
        The offset, or None if the frame holds no IP packet or its link type is not known.
    """
    if link_type in _BARE:
        return 0
    if link_type in (NULL, LOOP):
        return 4 if len(data) > 4 and data[4] >> 4 in (4, 6) else None
    if link_type not in _ETHERTYPE_AT:
        return None
    place, offset = _ETHERTYPE_AT[link_type]
    ether_type = int.from_bytes(data[place : place + 2], "big")
    while ether_type in _TAGS:
        # A tag is the tag control information, then the next EtherType.
        ether_type = int.from_bytes(data[offset + 2 : offset + 4], "big")
        offset += 4
    return offset if ether_type in _IP and offset < len(data) else None
