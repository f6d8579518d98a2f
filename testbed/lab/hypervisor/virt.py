"""libvirt: one event loop thread, connections with keepalive, domain events on the machine's clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import libvirt

from testbed.errors import TestbedError

#: (event, detail) codes of a domain's lifecycle → words, as far as a migration meets them.
LIFECYCLE = {
    0: "defined", 1: "undefined", 2: "started", 3: "suspended", 4: "resumed", 5: "stopped",
    6: "shutdown", 7: "pmsuspended", 8: "crashed",
}  # fmt: skip
RESUMED, RESUMED_MIGRATED = 4, 1
STATES = {1: "running", 2: "blocked", 3: "paused", 4: "shutdown", 5: "shut off", 6: "crashed"}

#: How long a broken connection is tried anew before the host's libvirt counts as gone.
REOPEN_DEADLINE_S = 10.0

DomainEvent = Callable[[str, str, int, int], None]
"""(domain's name, event word, detail code, mono_ns)"""

_started = threading.Lock()
_loop: threading.Thread | None = None


def start_event_loop() -> None:
    """Register libvirt's event loop and run it in a thread; once a process, before the first connection."""
    global _loop
    with _started:
        if _loop is not None:
            return
        libvirt.virEventRegisterDefaultImpl()
        libvirt.registerErrorHandler(lambda *_: None, None)  # errors come as exceptions; keep stderr clean

        def run() -> None:
            while True:
                libvirt.virEventRunDefaultImpl()

        _loop = threading.Thread(target=run, name="libvirt-events", daemon=True)
        _loop.start()


class Connection:
    """A libvirt connection to one host; reopened by `open` after it broke."""

    def __init__(self, uri: str, on_event: DomainEvent) -> None:
        self.uri = uri
        self._on_event = on_event
        self.handle: Any = None
        self._callback = -1

    def open(self, deadline_s: float) -> None:
        """Connect, trying until the deadline; TestbedError with libvirt's words then."""
        self.close()
        start_event_loop()
        end = time.monotonic() + deadline_s
        while True:
            try:
                handle = libvirt.open(self.uri)
                handle.setKeepAlive(5, 6)
                self._callback = handle.domainEventRegisterAny(
                    None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle, None
                )
                self.handle = handle
                return
            except libvirt.libvirtError as error:
                if time.monotonic() > end:
                    raise TestbedError(
                        "libvirt-unreachable",
                        f"no libvirt at {self.uri} within {deadline_s:.0f} s",
                        why=str(error),
                    ) from error
                time.sleep(0.1)

    def _lifecycle(self, _connection: Any, domain: Any, event: int, detail: int, _opaque: Any) -> None:
        stamp_ns = time.monotonic_ns()
        self._on_event(domain.name(), LIFECYCLE.get(event, str(event)), detail, stamp_ns)

    def alive(self) -> bool:
        """Whether the connection still answers."""
        try:
            return self.handle is not None and bool(self.handle.isAlive())
        except libvirt.libvirtError:
            return False

    def domains(self) -> list[dict[str, Any]]:
        """Every domain but dom0: name, uuid, id, state; TestbedError if the host's libvirt does not answer."""
        try:
            listed = self.handle.listAllDomains()
        except libvirt.libvirtError:
            self.open(REOPEN_DEADLINE_S)  # the connection broke, which says nothing of the daemon yet
            listed = self.handle.listAllDomains()
        found = []
        for domain in listed:
            if domain.ID() != 0:
                state = STATES.get(domain.state()[0], "unknown")
                found.append({"name": domain.name(), "uuid": domain.UUIDString(), "id": domain.ID(), "state": state})
        return found

    def close(self) -> None:
        """End the connection; idempotent, never raises."""
        try:
            if self.handle is not None:
                self.handle.domainEventDeregisterAny(self._callback)  # it would hold the connection open
                self.handle.close()
        except libvirt.libvirtError:
            pass
        self.handle = None
