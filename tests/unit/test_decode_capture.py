"""Reading captures: formats, clocks, interfaces, drops, and files that end too early."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import dpkt
import pytest

from testbed.decode import Capture, CaptureError, frames
from tests.captures import (
    WALL_NS,
    block,
    enhanced_packet,
    interface,
    option,
    pcap,
    section_header,
    statistics,
)

FRAMES = [b"first frame", b"second, longer frame", b""]


def written(folder: Path, data: bytes) -> Path:
    path = folder / "capture"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [True, False])
def test_pcap(tmp_path: Path, order: str, nanoseconds: bool) -> None:
    read = list(frames(written(tmp_path, pcap(FRAMES, order=order, nanoseconds=nanoseconds))))
    assert [frame.data for frame in read] == FRAMES
    assert [frame.number for frame in read] == [1, 2, 3]
    assert {frame.wall_ns for frame in read} == {WALL_NS if nanoseconds else WALL_NS // 1000 * 1000}
    assert {(frame.link_type, frame.interface) for frame in read} == {(1, "")}


def test_frame_check_sequence_bits_are_no_link_type(tmp_path: Path) -> None:
    data = bytearray(pcap(FRAMES))
    data[23] = 0x14
    assert next(frames(written(tmp_path, bytes(data)))).link_type == 1


def test_snapped_frame_keeps_its_length_on_the_wire(tmp_path: Path) -> None:
    data = bytearray(pcap([b"snap"]))
    data[36:40] = struct.pack("<I", 1500)
    frame = next(frames(written(tmp_path, bytes(data))))
    assert (frame.data, frame.wire_octets) == (b"snap", 1500)


def test_pcap_of_another_writer(tmp_path: Path) -> None:
    stream = io.BytesIO()
    writer = dpkt.pcap.Writer(stream, nano=True)
    writer.writepkt(b"frame", ts=1_795_338_900)
    read = list(frames(written(tmp_path, stream.getvalue())))
    assert [(frame.wall_ns, frame.data) for frame in read] == [(1_795_338_900_000_000_000, b"frame")]


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng(tmp_path: Path, order: str) -> None:
    data = (
        section_header(order)
        + interface("core", option(9, b"\x09", order), order=order)
        + interface("", link_type=101, order=order)
        + enhanced_packet(0, WALL_NS, b"nanoseconds", order)
        + block(4, bytes(8), order)  # name resolution: not ours
        + enhanced_packet(1, WALL_NS // 1000, b"microseconds by default", order)
    )
    read = list(frames(written(tmp_path, data)))
    assert [(frame.interface, frame.link_type, frame.wall_ns, frame.data) for frame in read] == [
        ("core", 1, WALL_NS, b"nanoseconds"),
        ("1", 101, WALL_NS // 1000 * 1000, b"microseconds by default"),
    ]


def test_pcapng_clock_of_binary_fractions_and_an_offset(tmp_path: Path) -> None:
    options = option(9, b"\x8a"), option(14, struct.pack("<q", 1_795_338_000))
    data = section_header() + interface("core", *options) + enhanced_packet(0, 900 * 1024 + 512, b"half")
    assert next(frames(written(tmp_path, data))).wall_ns == 1_795_338_900_500_000_000


def test_interface_name_cannot_steer_a_terminal(tmp_path: Path) -> None:
    data = section_header() + interface("\x1b[2Jcore") + enhanced_packet(0, 1, b"")
    assert next(frames(written(tmp_path, data))).interface == "\N{REPLACEMENT CHARACTER}[2Jcore"


def test_pcapng_sections_number_interfaces_anew(tmp_path: Path) -> None:
    first = section_header() + interface("a") + enhanced_packet(0, 1, b"x")
    second = section_header(">") + interface("b", order=">") + enhanced_packet(0, 1, b"y", ">")
    read = list(frames(written(tmp_path, first + second)))
    assert [(frame.number, frame.interface, frame.data) for frame in read] == [(1, "a", b"x"), (2, "b", b"y")]


def test_pcapng_drop_counts(tmp_path: Path) -> None:
    data = (
        section_header()
        + interface("a")
        + interface("b")
        + interface("c")
        + statistics(0, option(4, struct.pack("<Q", 100)), option(5, struct.pack("<Q", 3)))
        + statistics(1, option(5, struct.pack("<Q", 1)), option(7, struct.pack("<Q", 2)), option(0, b""))
        + interface("d")
        + statistics(3, option(7, struct.pack("<Q", 4)))
    )
    capture = Capture(written(tmp_path, data))
    assert list(capture.frames()) == []
    counts = [(interface.name, interface.received, interface.dropped) for interface in capture.interfaces]
    assert counts == [("a", 100, 3), ("b", None, 3), ("c", None, None), ("d", None, 4)]


def test_pcapng_simple_and_obsolete_packets(tmp_path: Path) -> None:
    obsolete = struct.pack("<HHIIII", 0, 7, 0, 5_000_000, 3, 3) + b"old"
    simple = struct.pack("<I", 6) + b"simple"
    data = section_header() + interface("a") + block(2, obsolete) + block(3, simple)
    read = list(frames(written(tmp_path, data)))
    assert [(frame.wall_ns, frame.data) for frame in read] == [(5_000_000_000, b"old"), (0, b"simple")]


PCAPNG = section_header() + interface("a") + b"".join(enhanced_packet(0, 1, frame) for frame in FRAMES)


@pytest.mark.parametrize("whole", [pcap(FRAMES), PCAPNG], ids=["pcap", "pcapng"])
def test_a_killed_writer_loses_its_last_frame_only(tmp_path: Path, whole: bytes) -> None:
    """For every length of file: the frames that are whole, and truncated unless it ends between two."""
    seen = set()
    for length in range(len(whole) + 1):
        capture = Capture(written(tmp_path, whole[:length]))
        read = [frame.data for frame in capture.frames()]
        assert read == FRAMES[: len(read)]
        seen.add((len(read), capture.truncated))
    assert {(0, True), (1, True), (1, False), (2, True), (2, False), (3, False)} <= seen
    assert (3, True) not in seen


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"<html>", "begins with 3c68746d: neither pcap nor pcapng"),
        (pcap([])[:24] + struct.pack("<4I", 0, 0, 1 << 21, 0), "frame 1 would be 2097152 octets long"),
        (section_header() + struct.pack("<II", 6, 13) + bytes(16), "a block of 13 octets"),
        (section_header() + struct.pack("<II", 6, 1 << 25), "a block of 33554432 octets"),
        (section_header() + enhanced_packet(0, 1, b"no interface"), "damaged block of type 6"),
        (section_header() + interface("a") + block(6, bytes(8)), "damaged block of type 6"),
        (
            section_header() + interface("a") + block(6, struct.pack("<5I", 0, 0, 0, 99, 99)),
            "99 octets in a block of 20",
        ),
    ],
)
def test_damaged(tmp_path: Path, data: bytes, why: str) -> None:
    with pytest.raises(CaptureError) as raised:
        list(frames(written(tmp_path, data)))
    assert why in raised.value.why
    assert raised.value.code == "capture-unreadable"


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="No such file"):
        list(frames(tmp_path / "nowhere.pcap"))
