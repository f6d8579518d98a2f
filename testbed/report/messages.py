"""Find the control messages of t6, t7, t10 and t11 in captures: a second source, by nonce, for what agents say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from testbed.decode import Frame as CapturedFrame
from testbed.decode import lisp_packet
from testbed.events import Event
from testbed.measure.frames import CAPTURE_UNCERTAINTY_MS, Frame
from testbed.measure.model import Migration
from testbed.measure.timeline import CAPTURED

#: LINKTYPE_ETHERNET: what is captured in a lab.
ETHERNET = 1
#: UDP port of LISP's control plane (RFC 9301 §4), as it is in a frame.
_CONTROL_PORT = (4342).to_bytes(2, "big")
#: (type of the message, whether the node sent it) → the kind of event that tells of it.
_TELLS = {
    ("Map-Register", True): "map_register_sent",
    ("Map-Notify", False): "map_notify_received",
    ("Map-Request", True): "map_request_sent",
    ("Map-Reply", False): "map_reply_received",
}


@dataclass(slots=True)
class ControlFrames:
    """Collects the control messages that xTRs sent and received on their core side, in migrations' windows.

    Attributes:
        migrations: in whose windows.
        cores: (node, interface) of a capture at an xTR's core side → the xTR.
        rlocs: the xTR → its locator.
        found: as events.
    """

    migrations: Sequence[Migration]
    cores: Mapping[tuple[str, str], str]
    rlocs: Mapping[str, str]
    found: list[Event] = field(default_factory=list)

    def see(self, frame: Frame, mono_ns: int) -> None:
        """Take a captured frame into account; frames may come in any order."""
        node = self.cores.get((frame.node, frame.interface))
        if node is None or _CONTROL_PORT not in frame.data:
            return
        if not any(one.window.start_ns <= mono_ns < one.window.end_ns for one in self.migrations):
            return
        packet = lisp_packet(CapturedFrame(0, frame.wall_ns, frame.data, ETHERNET))
        if packet is None or packet.plane != "control":
            return
        message = packet.message.get("inner", packet.message)
        says = _TELLS.get((str(message["type"]), packet.source == self.rlocs[node]))
        if says is not None and "nonce" in message:
            fields = {
                "says": says,
                "node": node,
                "nonce": hex(int(message["nonce"], 16)),  # as agents write it: without leading zeros
                "via": "frame",
                "uncertainty_ms": CAPTURE_UNCERTAINTY_MS,
            }
            source = f"capture {frame.node}-{frame.interface}"
            self.found.append(Event(mono_ns, frame.wall_ns, source, CAPTURED, fields))
