"""`testbed decode PCAP`: the LISP packets of a capture, as text or JSON. Needs no root."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer


class DecodeFormat(str, Enum):
    """How to print packets."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


class DecodePlane(str, Enum):
    """Which packets to print."""

    ALL = "all"
    CONTROL = "control"
    DATA = "data"


def decode(
    pcap: Annotated[Path, typer.Argument(help="A capture, pcap or pcapng.", show_default=False)],
    output: Annotated[
        DecodeFormat,
        typer.Option("--format", help="text; json: one document; jsonl: one packet a line."),
    ] = DecodeFormat.TEXT,
    plane: Annotated[
        DecodePlane, typer.Option(help="Only control messages (UDP 4342), or only data packets (4341).")
    ] = DecodePlane.ALL,
) -> None:
    """Show the LISP packets of a capture, current with RFC 9300, 9301, 9437 and 8111.

    What cannot be read is shown as `MALFORMED at byte N: field: why`, counted from the start of the
    LISP message. A capture that ends in the middle of a frame is decoded as far as it goes.
    """
    from testbed.decode import Capture, lisp_packets, render

    capture = Capture(pcap)
    packets = (
        packet for packet in lisp_packets(capture.frames()) if plane is DecodePlane.ALL or packet.plane == plane.value
    )
    if output is DecodeFormat.JSON:
        listed = [packet.to_json() for packet in packets]
        typer.echo(json.dumps({"capture": str(pcap), "packets": listed, **_about(capture)}, indent=2))
        return
    for packet in packets:
        typer.echo(render(packet) if output is DecodeFormat.TEXT else json.dumps(packet.to_json()))
    if output is DecodeFormat.TEXT:
        for interface in capture.interfaces:
            if interface.dropped:
                name = interface.name or "the interface"
                typer.echo(f"note: {interface.dropped} frames were dropped while capturing on {name}", err=True)
        if capture.truncated:
            typer.echo("note: the capture ends in the middle of a frame (its writer was killed?)", err=True)


def _about(capture: Any) -> dict[str, Any]:
    """What the capture says about itself, once it is read."""
    interfaces = [
        {"name": interface.name, "received": interface.received, "dropped": interface.dropped}
        for interface in capture.interfaces
    ]
    return {"interfaces": interfaces, "truncated": capture.truncated}
