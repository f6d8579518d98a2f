"""The engine of `testbed decode`: LISP packets of pcap and pcapng captures, current with RFC 9300 and 9301.

`lisp_packets(frames(path))` yields a record for every LISP packet; `frames` alone serves whoever needs
the captured frames, `Capture` also what the capturing program says about drops.
"""

from testbed.decode.capture import Capture, CaptureError, CaptureInterface, Frame, frames
from testbed.decode.link import ip_offset
from testbed.decode.packet import LispPacket, Malformed, lisp_packet, lisp_packets
from testbed.decode.text import render

__all__ = [
    "Capture",
    "CaptureError",
    "CaptureInterface",
    "Frame",
    "LispPacket",
    "Malformed",
    "frames",
    "ip_offset",
    "lisp_packet",
    "lisp_packets",
    "render",
]
