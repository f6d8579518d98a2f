"""The responder: echoes UDP and TCP (RFC 862), for hosts that have nothing else that answers.

    python -m testbed.lab.agents.responder CONFIG.json

Beside what every agent has, its configuration may name `addresses` (all of the node's by default)
and `port` (7 by default). With `identity` true it also says who it is on UDP port 7007, as a guest's
service does: `{"boot_id", "uptime_ms"}`. An emulated guest boots when its responder starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from testbed.lab.agents.identity import PORT as IDENTITY_PORT
from testbed.lab.agents.runtime import Runtime, run_agent

ECHO_PORT = 7
ANYWHERE = ("0.0.0.0", "::")
CHUNK_OCTETS = 1 << 16


class _Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._transport.sendto(data, addr)

    def error_received(self, exc: Exception) -> None:
        """An ICMP error about an earlier reply: its asker has gone, which is no concern of an echo."""


class _Identity(_Echo):
    def __init__(self) -> None:
        self._boot_id, self._booted_ns = str(uuid.uuid4()), time.monotonic_ns()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        uptime_ms = (time.monotonic_ns() - self._booted_ns) // 1_000_000
        self._transport.sendto(json.dumps({"boot_id": self._boot_id, "uptime_ms": uptime_ms}).encode(), addr)


async def _echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(CHUNK_OCTETS):
            writer.write(data)
            await writer.drain()
    writer.close()


def _bound(kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = socket.socket(family, kind)
    bound.setblocking(False)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    # An EID that arrives with its guest need not be there yet.
    bound.setsockopt(socket.SOL_IP, 15, 1)  # IP_FREEBIND
    bound.bind((address, port))
    return bound


@contextlib.asynccontextmanager
async def responding(runtime: Runtime) -> AsyncIterator[None]:
    """Echo until the block ends."""
    loop = asyncio.get_running_loop()
    port = int(runtime.config.get("port", ECHO_PORT))
    async with contextlib.AsyncExitStack() as stack:
        for address in runtime.config.get("addresses", ANYWHERE):
            transport, _ = await loop.create_datagram_endpoint(_Echo, sock=_bound(socket.SOCK_DGRAM, address, port))
            stack.callback(transport.close)
            server = await asyncio.start_server(_echo_stream, sock=_bound(socket.SOCK_STREAM, address, port))
            stack.callback(server.close)
            if runtime.config.get("identity"):
                asked = _bound(socket.SOCK_DGRAM, address, IDENTITY_PORT)
                transport, _ = await loop.create_datagram_endpoint(_Identity, sock=asked)
                stack.callback(transport.close)
        runtime.on("inspect", lambda _: {"port": port})
        yield


def main() -> int:
    """Run the agent."""
    return run_agent("responder", responding)


if __name__ == "__main__":
    sys.exit(main())
