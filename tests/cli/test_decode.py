"""`testbed decode`, as a person or a script calls it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import typer
from typer.testing import CliRunner

from testbed.cli.decode import decode
from testbed.decode import CaptureError
from testbed.lisp.wire import DataHeader
from testbed.lisp.wire.inet import build_icmp_echo, build_udp_packet
from tests.captures import (
    ITR,
    MAP_SERVER,
    WALL_NS,
    control,
    enhanced_packet,
    ethernet,
    interface,
    option,
    pcap,
    section_header,
    statistics,
)
from tests.vectors.tables import MESSAGES, octets

app = typer.Typer()
app.command()(decode)

REQUEST = ethernet(control(octets(MESSAGES[0][2])))
DATA = ethernet(
    build_udp_packet(ITR, MAP_SERVER, 61000, 4341, DataHeader().encode() + build_icmp_echo(ITR, MAP_SERVER, 1, 2, b""))
)


def capture(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "capture.pcap"
    path.write_bytes(data)
    return str(path)


def test_text(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [capture(tmp_path, pcap([REQUEST, DATA]))])
    assert result.exit_code == 0
    assert result.stdout == (
        "1 2026-11-22T09:15:00.123456789Z 10.0.3.2:4000 > 10.0.0.2:4342 "
        "Map-Request nonce 0x0102030405060708 192.168.0.10/32\n"
        "    source eid: 192.168.3.10\n"
        "    itr rlocs: 10.0.3.2\n"
        "    record 192.168.0.10/32\n"
        "2 2026-11-22T09:15:00.123456789Z 10.0.3.2:61000 > 10.0.0.2:4341 "
        "Data 10.0.3.2 > 10.0.0.2 icmp type 8 id 1 seq 2\n"
        "    inner octets: 28\n"
    )


def test_json_is_one_document(tmp_path: Path) -> None:
    data = (
        section_header()
        + interface("core", option(9, b"\x09"))
        + enhanced_packet(0, WALL_NS, REQUEST)
        + statistics(0, option(4, struct.pack("<Q", 9)), option(5, struct.pack("<Q", 2)))
    )
    path = capture(tmp_path, data + b"\6\0")
    result = CliRunner().invoke(app, [path, "--format", "json"])
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["capture"] == path
    assert document["truncated"] is True
    assert document["interfaces"] == [{"name": "core", "received": 9, "dropped": 2}]
    assert [packet["message"]["type"] for packet in document["packets"]] == ["Map-Request"]
    assert document["packets"][0]["wall_ns"] == WALL_NS
    assert document["packets"][0]["interface"] == "core"


def test_jsonl_and_plane(tmp_path: Path) -> None:
    path = capture(tmp_path, pcap([REQUEST, DATA, REQUEST]))
    for plane, numbers in (("all", [1, 2, 3]), ("control", [1, 3]), ("data", [2])):
        result = CliRunner().invoke(app, [path, "--format", "jsonl", "--plane", plane])
        assert [json.loads(line)["frame"] for line in result.stdout.splitlines()] == numbers


def test_notes_about_the_capture(tmp_path: Path) -> None:
    data = section_header() + interface("core") + statistics(0, option(5, struct.pack("<Q", 2)))
    result = CliRunner().invoke(app, [capture(tmp_path, data + b"\6\0")])
    assert "note: 2 frames were dropped while capturing on core" in result.output
    assert "note: the capture ends in the middle of a frame" in result.output


def test_no_capture(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [capture(tmp_path, b"not a capture")])
    assert isinstance(result.exception, CaptureError)
    assert result.exception.exit_code == 11
    assert "neither pcap nor pcapng" in str(result.exception)
