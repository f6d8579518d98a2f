"""Interfaces of the caller's network namespace, by ioctl: no event loop, so usable inside anyone's."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import socket
import struct
import subprocess
from collections.abc import Mapping
from ipaddress import ip_address

from testbed.dataplane.model import Address
from testbed.errors import TestbedError

SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
SIOCGIFMTU, SIOCSIFMTU = 0x8921, 0x8922
SIOCSIFHWADDR = 0x8924
SIOCSIFTXQLEN = 0x8943
SIOCETHTOOL = 0x8946
ARPHRD_ETHER = 1
IFF_UP, IFF_MULTICAST = 0x1, 0x1000
IPV6_LEAST_MTU = 1280

#: ethtool's "set" commands of the offloads that change what is on a wire (linux/ethtool.h).
ETHTOOL_SET_OFFLOAD = {"rx": 0x15, "tx": 0x17, "tso": 0x1F, "gso": 0x24, "gro": 0x2C}


def index_of(name: str) -> int:
    """The index of an interface; TestbedError if there is none of that name."""
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise TestbedError(
            "interface-missing", f"There is no interface {name} here.", next_command="ip -brief link"
        ) from error


def mtu_of(name: str) -> int:
    """The MTU of an interface, octets of IP."""
    mtu: int = struct.unpack_from("i", _ioctl(SIOCGIFMTU, name, b""))[0]
    return mtu


def configure(name: str, *, mac: bytes, mtu: int, queue_frames: int) -> None:
    """Give an Ethernet interface its MAC, MTU and transmit queue's length, and set it up."""
    _ioctl(SIOCSIFHWADDR, name, struct.pack("H", ARPHRD_ETHER) + mac)
    _ioctl(SIOCSIFMTU, name, struct.pack("i", mtu))
    _ioctl(SIOCSIFTXQLEN, name, struct.pack("i", queue_frames))
    (flags,) = struct.unpack_from("h", _ioctl(SIOCGIFFLAGS, name, b""))
    _ioctl(SIOCSIFFLAGS, name, struct.pack("h", flags | IFF_UP))


def forget_multicast(name: str, *, mtu: int) -> None:
    """Make an interface that is down report of no multicast group, ever; IPv6's settings of it are then the default's.

    A router's interface has joined the group of all routers when it was made, and would report that or, had it
    left, its leaving. Below IPv6's least MTU the kernel forgets all that it had of IPv6 there; above it begins anew.
    """
    (flags,) = struct.unpack_from("H", _ioctl(SIOCGIFFLAGS, name, b""))
    _ioctl(SIOCSIFFLAGS, name, struct.pack("H", flags & ~IFF_MULTICAST))
    for octets in (IPV6_LEAST_MTU - 1, mtu):
        _ioctl(SIOCSIFMTU, name, struct.pack("i", octets))


def addresses() -> list[tuple[str, Address]]:
    """(interface, address) of every address that is neither loopback nor link-local."""
    shown = subprocess.run(["ip", "-json", "address", "show"], capture_output=True, text=True, check=True)
    found = []
    for link in json.loads(shown.stdout):
        for info in link.get("addr_info", ()):
            address = ip_address(info["local"])
            if not address.is_loopback and not address.is_link_local:
                found.append((str(link["ifname"]), address))
    return found


def is_cable_to_elsewhere(name: str) -> bool:
    """Whether an interface is one end of a veth cable whose other end is in another network namespace."""
    shown = subprocess.run(
        ["ip", "-json", "-details", "link", "show", "dev", name], capture_output=True, text=True, check=True
    )
    (link,) = json.loads(shown.stdout)
    return link.get("linkinfo", {}).get("info_kind") == "veth" and "link_netnsid" in link


def prepare_interface(name: str, *, off: tuple[str, ...] = ("tx", "tso", "gso", "gro")) -> None:
    """Turn offloads off, so that every packet on this interface is a whole one with its checksum.

    The data plane does not need it: it carries super-packets and checksums that are still to be
    computed. It is for links whose frames are looked at (captures), or whose other end computes nothing.

    Args:
        name: of the interface.
        off: keys of ETHTOOL_SET_OFFLOAD; what a driver does not know is left as it is.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for offload in off:
            value = ctypes.create_string_buffer(struct.pack("II", ETHTOOL_SET_OFFLOAD[offload], 0))
            request = struct.pack("16sP", name.encode(), ctypes.addressof(value)).ljust(40, b"\0")
            try:
                fcntl.ioctl(control, SIOCETHTOOL, request)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise


class RefusedFrames:
    """Frames that were to be sent and were not (errors and drops of the interface), since this was made.

    It stays with the network namespace in which it was made, wherever its reader goes.

    Args:
        reasons: name of an interface → why it refuses frames.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self._reasons = reasons
        self._file = open("/proc/thread-self/net/dev")  # noqa: SIM115
        self._before = self._read()

    def by_reason(self) -> dict[str, int]:
        """Reason → frames; of an interface that has gone, 0."""
        now = self._read()
        return {reason: max(0, now.get(name, 0) - self._before[name]) for name, reason in self._reasons.items()}

    def close(self) -> None:
        """Close the kernel's file."""
        self._file.close()

    def _read(self) -> dict[str, int]:
        self._file.seek(0)
        counted = {}
        for line in self._file:
            name, _, counters = line.partition(":")
            if name.strip() in self._reasons:
                errors, dropped = counters.split()[10:12]  # of transmission: bytes packets errs drop
                counted[name.strip()] = int(errors) + int(dropped)
        return counted


def _ioctl(request: int, name: str, argument: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, request, struct.pack("16s", name.encode()) + argument.ljust(24, b"\0"))
        return answer[16:]
