"""The prober's TCP flow: one connection to an echo port on which the probes are messages, one after the other.

TCP loses nothing as long as the connection lives: what it shows is whether it lives and how long it stalls. A
connection that broke is opened again, so that the next migration finds one; what was due meanwhile was never sent.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Callable
from ipaddress import ip_address

from testbed.lab.agents import probes
from testbed.lab.agents.sockets import SO_TIMESTAMPNS, arrival_ns

SEND_BUFFER_OCTETS = 1 << 20
CHUNK_OCTETS = 1 << 14
ANCILLARY_OCTETS = 512
#: How long a connection attempt may take before another one is made, in probes.
ATTEMPT_PROBES = 200


class Stream:
    """A connection that carries probes, and the order in which they come back.

    Args:
        source, target: addresses.
        port: of the echo service.
        run_id: of the probes.
        watch: called with a socket that is to be read when it can be.
        unwatch: called with one that is not any more, before it is closed.
        say: called with an event's kind and what it says.
    """

    def __init__(
        self,
        source: str,
        target: str,
        port: int,
        run_id: bytes,
        watch: Callable[[socket.socket], None],
        unwatch: Callable[[socket.socket], object],
        say: Callable[[str, dict[str, object]], None],
    ) -> None:
        self._source, self._target, self._run_id = source, (target, port), run_id
        self._family = socket.AF_INET if ip_address(target).version == 4 else socket.AF_INET6
        self._watch, self._unwatch, self._say = watch, unwatch, say
        self.connections = 0
        self.octets_in_order = 0
        self._open()

    def _open(self) -> None:
        """Begin to connect; the outcome shows when a probe is due."""
        self._expected: deque[int] = deque()
        self._unsent, self._received = b"", b""
        self._connected, self._waited = False, 0
        self.socket = socket.socket(self._family, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_OCTETS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.bind((self._source, 0))
        self.socket.connect_ex(self._target)

    def _is_connected(self) -> bool:
        if self._connected:
            return True
        self._waited += 1
        try:
            self.socket.getpeername()
        except OSError:
            if self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or self._waited > ATTEMPT_PROBES:
                self.socket.close()
                self._open()
            return False
        self._connected = True
        self.connections += 1
        self._watch(self.socket)
        self._say("tcp_connected", {"connection": self.connections})
        return True

    def send(self, seq: int) -> bool:
        """Send a probe; False if there is no connection, or no room in it."""
        if not self._is_connected():
            return False
        message = self._unsent + probes.encode_payload(self._run_id, seq)
        try:
            taken = self.socket.send(message)
        except BlockingIOError:
            taken = 0
        except OSError as error:
            self._broken(error)
            return False
        if taken == 0 and self._unsent:
            return False
        self._unsent = message[taken:]
        self._expected.append(seq)
        return True

    def receive(self) -> list[tuple[int, int]]:
        """What has come back since: (sequence number, CLOCK_MONOTONIC of the arrival), in order."""
        found: list[tuple[int, int]] = []
        while self._connected:
            try:
                octets, ancillary, _, _ = self.socket.recvmsg(CHUNK_OCTETS, ANCILLARY_OCTETS)
            except BlockingIOError:
                break
            except OSError as error:
                self._broken(error)
                break
            if not octets:
                self._broken(ConnectionResetError(errno.ECONNRESET, "closed by the peer"))
                break
            moment_ns = arrival_ns(ancillary)
            self._received += octets
            while len(self._received) >= probes.PAYLOAD_OCTETS:
                message, self._received = (
                    self._received[: probes.PAYLOAD_OCTETS],
                    self._received[probes.PAYLOAD_OCTETS :],
                )
                seq = probes.decode_payload(message, self._run_id)
                if seq is None or not self._expected or self._expected.popleft() != seq:
                    self._broken(ValueError(f"message {seq} out of order"))
                    return found
                self.octets_in_order += len(message)
                found.append((seq, moment_ns))
        return found

    def _broken(self, error: Exception) -> None:
        """Say that the connection has ended, and try another one."""
        self._say(
            "tcp_broken", {"connection": self.connections, "error": str(error), "unanswered": len(self._expected)}
        )
        self._unwatch(self.socket)
        self.socket.close()
        self._open()

    def close(self) -> None:
        """Close the connection."""
        if self._connected:
            self._unwatch(self.socket)
        self.socket.close()
