"""Whatever is in a frame or a file: a packet, nothing, or the one error of captures."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from testbed.decode import CaptureError, Frame, frames, lisp_packet, lisp_packets, render
from tests.captures import (
    control,
    enhanced_packet,
    ethernet,
    interface,
    option,
    pcap,
    section_header,
    statistics,
)
from tests.effort import MUTATIONS
from tests.property import strategies
from tests.property.test_wire import SEED, mutated
from tests.vectors.tables import MESSAGES, octets

READ = MUTATIONS // 10
FRAMES = [ethernet(control(octets(text)), 100) for _, _, text in MESSAGES]


@given(strategies.messages.map(lambda message: message.encode()).filter(lambda data: len(data) < 1400))
def test_every_message_is_decoded_and_rendered(data: bytes) -> None:
    packet = lisp_packet(Frame(1, 1, ethernet(control(data)), 1))
    assert packet is not None
    assert packet.message["type"] is not None
    assert render(packet)
    assert packet.to_json()


@given(st.sampled_from([0, 1, 12, 101, 113, 147, 228, 276]), st.binary(max_size=120))
def test_no_frame_raises(link_type: int, data: bytes) -> None:
    packet = lisp_packet(Frame(1, 0, data, link_type))
    assert packet is None or render(packet)


def test_no_mutated_frame_raises() -> None:
    chance = random.Random(SEED)
    found = 0
    for number in range(READ):
        data = mutated(chance.choice(FRAMES), chance)
        try:
            packet = lisp_packet(Frame(1, 1, data, 1))
            if packet is not None:
                found += 1
                assert render(packet)
        except Exception as error:
            raise AssertionError(f"mutation {number} of seed {SEED}: {data.hex()}") from error
    assert found > READ // 10


def test_no_mutated_capture_raises_another_error(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    pcapng = section_header() + interface("core", option(9, b"\x09"), option(14, bytes(8)))
    pcapng += b"".join(enhanced_packet(0, 1, frame) for frame in FRAMES[:3])
    pcapng += statistics(0, option(4, bytes(8)))
    path = tmp_path / "capture"
    outcomes = set()
    for _ in range(READ):
        path.write_bytes(mutated(chance.choice([pcap(FRAMES[:3]), pcapng]), chance))
        try:
            read = list(frames(path))
            outcomes.add(len(read))
            assert all(render(packet) for packet in lisp_packets(read))
        except CaptureError:
            outcomes.add(-1)
    assert {-1, 0, 1, 2, 3} <= outcomes
