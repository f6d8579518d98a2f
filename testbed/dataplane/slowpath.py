"""The slow path: a private TAP on which the kernel hands over what it does not forward by itself."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from testbed.dataplane import icmp, interface
from testbed.dataplane.layout import HOLD_REASONS
from testbed.dataplane.model import Address
from testbed.dataplane.pathmtu import TooBig, read_too_big
from testbed.errors import TestbedError

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
TAP_MAC = bytes.fromhex("0200000000fe")
TAP_MTU = 65521  # the most that a TAP takes
#: Frames that wait for the agent; more are dropped and counted.
TAP_QUEUE_FRAMES = 512
#: Nothing of the kernel's own may come out of it: without a link-local address (addr_gen_mode none) it asks for
#: nothing. What goes in is filtered by the entries; what they leave to the kernel is routed, IPv6 too.
TAP_SETTINGS = {
    "ipv4": {"rp_filter": "0"},
    "ipv6": {"addr_gen_mode": "1", "accept_ra": "0", "accept_redirects": "0", "disable_ipv6": "0"},
}
PEER_MAC = bytes.fromhex("0200000000fd")
ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
ETHERNET_HEADER = 14
LONGEST_FRAME = 65536 + ETHERNET_HEADER
#: Frames looked at in one call, so that a flood of errors does not starve the caller's loop.
FRAMES_A_CALL = 64
#: ICMP errors sent in a second, and at once (RFC 1812 §4.3.2.8 asks for a limit and leaves its value).
ERRORS_PER_S = 100.0
ERRORS_AT_ONCE = 20.0
#: Why packets are dropped on this path, beside there being too many: they are malformed, their TTL ran
#: out, they are too long and their sources are told; a core router dropped one and told us; it cannot
#: have; the kernel had no room for one that was injected.
DROPPED_HERE = (
    "held-malformed",
    "held-ttl-expired",
    "held-too-big",
    "core-too-big",
    "icmp-implausible",
    "inject-no-room",
)


def packet_in(frame: bytes) -> bytes | None:
    """The IP packet in an Ethernet frame, without what follows it; None if there is no whole one.

    Its header says how long it is (RFC 791 §3.1, RFC 8200 §3): a link pads short frames, and anybody may.
    """
    packet = frame[ETHERNET_HEADER:]
    version = packet[0] >> 4 if packet else 0
    if ETHERTYPES.get(version) != frame[12:ETHERNET_HEADER]:
        return None
    if version == 4:
        header = (packet[0] & 15) * 4
        length = int.from_bytes(packet[2:4], "big")
    else:
        header = icmp.IPV6_HEADER
        length = header + int.from_bytes(packet[4:6], "big")
    return packet[:length] if icmp.IPV4_HEADER <= header <= length <= len(packet) else None


class Tap:
    """A TAP interface without addresses, in the caller's network namespace; gone when closed."""

    def __init__(self) -> None:
        try:
            self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise TestbedError(
                "tap-unavailable",
                "The slow path's TAP cannot be made.",
                why=f"/dev/net/tun: {error.strerror}",
                next_command="testbed doctor",
            ) from error
        request = struct.pack("16sH22x", b"lisp%d", IFF_TAP | IFF_NO_PI)
        try:
            answer = fcntl.ioctl(self.fd, TUNSETIFF, request)
        except OSError:
            os.close(self.fd)
            raise
        self.name = answer[:16].rstrip(b"\0").decode()
        self.ifindex = socket.if_nametoindex(self.name)
        interface.forget_multicast(self.name, mtu=TAP_MTU)
        for family, settings in TAP_SETTINGS.items():
            for key, value in settings.items():
                target = Path(f"/proc/sys/net/{family}/conf/{self.name}/{key}")
                if target.exists():
                    target.write_text(value)
        interface.configure(self.name, mac=TAP_MAC, mtu=TAP_MTU, queue_frames=TAP_QUEUE_FRAMES)

    def read(self) -> bytes | None:
        """The next frame, or None; never blocks."""
        try:
            return os.read(self.fd, LONGEST_FRAME)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in (errno.EBADFD, errno.EIO):  # the interface was taken down under us
                return None
            raise

    def write(self, packet: bytes) -> bool:
        """Let an IP packet enter the kernel on this interface; whether it had room for it."""
        frame = TAP_MAC + PEER_MAC + ETHERTYPES[packet[0] >> 4] + packet
        try:
            os.write(self.fd, frame)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EIO, errno.EBADFD):
                return False  # no room, or the interface was taken down under us
            raise
        return True

    def close(self) -> None:
        """Remove the interface."""
        os.close(self.fd)
        self.fd = -1  # never what the number is given to next


class SlowPath:
    """Sorts what the kernel held: packets to resolve for the agent, the rest answered or fragmented here.

    Args:
        tap: where packets come from, and go in again.
        gateways: the site's gateway addresses, that ICMP errors come from.
        clock: seconds, monotonic; limits the rate of ICMP errors.
    """

    def __init__(self, tap: Tap, gateways: tuple[Address, ...], clock: Callable[[], float] = time.monotonic) -> None:
        self._tap, self._clock = tap, clock
        #: Told what a core router says of a packet of ours; says whether it can be true.
        self.on_too_big: Callable[[TooBig], bool] = lambda said: False
        #: Asked when a packet is too long: whether some path's MTU has just been forgotten, being old.
        self.on_too_long: Callable[[], bool] = lambda: False
        self._router: dict[int, Address] = {address.version: address for address in reversed(gateways)}
        self._sockets: dict[int, socket.socket] = {}
        self._budget, self._budget_at = ERRORS_AT_ONCE, clock()
        self._dropped = dict.fromkeys(DROPPED_HERE, 0)
        #: ICMP errors that were due and not sent, because of their rate.
        self.errors_withheld = 0

    def next_missed(self) -> bytes | None:
        """The next inner packet without a mapping, or None; errors met on the way are dealt with."""
        for _ in range(FRAMES_A_CALL):
            frame = self._tap.read()
            if frame is None:
                return None
            packet = packet_in(frame)
            # Anything not marked by the programs (02:00:00:limit:limit:reason) is not ours.
            if frame[:3] != b"\x02\0\0" or frame[5] >= len(HOLD_REASONS) or packet is None:
                self._dropped["held-malformed"] += 1
                continue
            reason = HOLD_REASONS[frame[5]]
            if reason == "resolve":
                return packet
            if reason == "again":
                self.inject(packet)
            elif reason == "path-mtu":
                self._path_mtu(packet)
            elif reason in ("exceeds-mtu", "arrived-exceeds-mtu"):
                limit = int.from_bytes(frame[3:5], "big")
                self._exceeds_mtu(packet, limit, arrived=reason == "arrived-exceeds-mtu")
            else:
                self._ttl_expired(packet, arrived=reason == "arrived-ttl-expired")
        return None

    def inject(self, packet: bytes) -> None:
        """Send an inner IP packet through the entries."""
        if not self._tap.write(packet):
            self._dropped["inject-no-room"] += 1

    @property
    def fd(self) -> int:
        """A descriptor that is readable when a packet waits."""
        return self._tap.fd

    def drops(self) -> dict[str, int]:
        """Packets dropped on this path, by reason."""
        return dict(self._dropped)

    def close(self) -> None:
        """Close the TAP and the sockets of ICMP errors."""
        for raw in self._sockets.values():
            raw.close()
        self._tap.close()

    def _path_mtu(self, message: bytes) -> None:
        """A router of the core dropped a packet of ours (RFC 9300 §7.2), or somebody says so."""
        said = read_too_big(message)
        believed = said is not None and self.on_too_big(said)
        self._dropped["core-too-big" if believed else "icmp-implausible"] += 1

    def _exceeds_mtu(self, packet: bytes, limit: int, *, arrived: bool) -> None:
        """RFC 9300 §7: fragment the inner packet where it allows it, else tell its source."""
        # What fits is a segment of a super-packet that was too long as a whole.
        if len(packet) <= limit or self.on_too_long():
            self.inject(packet)
            return
        try:
            pieces = icmp.fragments(packet, limit) if packet[0] >> 4 == 4 else []
        except ValueError:  # DF, or not even the header fits
            pieces = []
        for piece in pieces:
            self.inject(piece)
        if not pieces:
            self._dropped["held-too-big"] += 1
            self._answer(packet, lambda router: icmp.too_big(packet, router, limit), arrived=arrived)

    def _ttl_expired(self, packet: bytes, *, arrived: bool) -> None:
        self._dropped["held-ttl-expired"] += 1
        self._answer(packet, lambda router: icmp.time_exceeded(packet, router), arrived=arrived)

    def _answer(self, packet: bytes, error: Callable[[Address], bytes], *, arrived: bool) -> None:
        """Send an ICMP error to a packet's source: at this site or, of one that arrived, by the entries."""
        router = self._may_answer(packet)
        if router is None:
            return
        if arrived:
            self.inject(error(router))
        else:
            self._send_to_site(error(router))

    def _may_answer(self, packet: bytes) -> Address | None:
        router = self._router.get(packet[0] >> 4)
        if router is None or not icmp.may_be_answered(packet):
            return None
        now = self._clock()
        self._budget = min(ERRORS_AT_ONCE, self._budget + (now - self._budget_at) * ERRORS_PER_S)
        self._budget_at = now
        if self._budget < 1:
            self.errors_withheld += 1
            return None
        self._budget -= 1
        return router

    def open_sockets(self) -> None:
        """Open the raw sockets of ICMP errors; call it in the xTR's network namespace."""
        for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
            if version in self._router:
                raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
                raw.setblocking(False)
                self._sockets[version] = raw

    def _send_to_site(self, packet: bytes) -> None:
        version = packet[0] >> 4
        destination = str(IPv4Address(packet[16:20]) if version == 4 else IPv6Address(packet[24:40]))
        try:
            self._sockets[version].sendto(packet, (destination, 0))
        except OSError:  # no route back: an ICMP error is never worth one of ours
            return
