"""What the hosts' `xenstore-events` helper says: datagrams on the out-of-band network, stamped on arrival.

dom0's clock stops and jumps with its machine, so nothing is taken from it: an event's time is the
arrival at the orchestrator, the machine's CLOCK_MONOTONIC. What lies between (the helper's wake-up, the emulated
network card) is in the event's uncertainty.
"""

from __future__ import annotations

import select
import socket
import threading
import time

from testbed.eventlog import EventLog

PORT = 7008
UNCERTAINTY_MS = 10.0


class HostEvents:
    """Receives the datagrams and writes them to the event log, from a thread, until closed.

    A `@releaseDomain` that follows a suspend request of the same host is the moment in which the guest
    has suspended (the hypervisor counts it as a shutdown with the reason "suspend").
    """

    def __init__(self, address: str, names: dict[str, str], events: EventLog) -> None:
        self._names = names
        self._events = events
        self._suspending: dict[str, bool] = {}
        self.guest = ""  # the guest that is migrating, named in the events
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, PORT))
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="host-events", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed.is_set():
            if not select.select([self._socket], [], [], 0.2)[0]:
                continue
            data, (address, _port) = self._socket.recvfrom(8192)
            stamp_ns = time.monotonic_ns()
            host = self._names.get(address)
            if host is not None:
                name, _, rest = data.decode(errors="replace").partition("\t")
                path, _, value = rest.partition("\t")
                self._heard(host, name, path, value, stamp_ns)

    def _heard(self, host: str, name: str, path: str, value: str, stamp_ns: int) -> None:
        self._events.emit("xenstore_event", mono_ns=stamp_ns, source=host, name=name, path=path, value=value)
        if name == "shutdown-request" and value == "suspend":
            self._suspending[host] = True
            self._events.emit("guest_suspend_requested", mono_ns=stamp_ns, source=host, guest=self.guest, via="libxl")
        elif name == "released" and self._suspending.pop(host, False):
            self._events.emit(
                "guest_suspended",
                mono_ns=stamp_ns,
                source=host,
                guest=self.guest,
                via="libxl",
                uncertainty_ms=UNCERTAINTY_MS,
            )

    def close(self) -> None:
        """Stop receiving; idempotent."""
        self._closed.set()
        self._thread.join(1.0)
        self._socket.close()
