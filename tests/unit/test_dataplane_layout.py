"""The Python twin of the kernel's structures, and the compiler that makes their programs."""

from __future__ import annotations

import re
import struct
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from testbed.dataplane import compiler, layout
from testbed.dataplane.model import DataPlaneEventKind, Entry, EntryKind, Locator
from testbed.errors import PrerequisiteMissingError, TestbedError

SOURCES = Path(compiler.SOURCES)


def locator(rloc: str, priority: int = 1, weight: int = 100) -> Locator:
    return Locator(ip_address(rloc), priority, weight)


def entry(*locators: Locator) -> Entry:
    return Entry(ip_network("192.168.2.0/24"), EntryKind.REMOTE, locators)


def chosen(*locators: Locator, families: tuple[int, ...] = (4, 6)) -> list[str]:
    return [str(one.rloc) for one in layout.usable_locators(entry(*locators), frozenset(families))]


def test_best_priority_of_a_reachable_family_is_used() -> None:
    four, six = locator("10.0.0.1", priority=2), locator("fd00::1", priority=1)
    assert chosen(four, six) == ["fd00::1"]
    assert chosen(four, six, families=(4,)) == ["10.0.0.1"]
    assert chosen(locator("10.0.0.1", priority=255)) == []
    assert chosen(locator("10.0.0.1", weight=0), locator("10.0.0.2", weight=1)) == ["10.0.0.2"]
    assert chosen(locator("10.0.0.1", weight=0), locator("10.0.0.2", weight=0)) == ["10.0.0.1", "10.0.0.2"]
    assert len(chosen(*(locator(f"10.0.0.{n}") for n in range(1, 20)))) == layout.MAX_LOCATORS


@pytest.mark.parametrize(
    ("weights", "thresholds"),
    [
        ((100,), [65536]),
        ((75, 25), [49152, 65536]),
        ((0, 0), [32768, 65536]),
        ((1, 1, 1), [21845, 43690, 65536]),
    ],
)
def test_weights_become_shares_of_the_hash(weights: tuple[int, ...], thresholds: list[int]) -> None:
    locators = tuple(locator(f"10.0.0.{n}", weight=weight) for n, weight in enumerate(weights, 1))
    value = layout.encode_entry(layout.KernelKind.REMOTE, locators)
    found = [struct.unpack_from("=16sII", value, 24 + 24 * n)[2] for n in range(len(weights))]
    assert found == thresholds
    assert len(value) == layout.ENTRY_SIZE


def test_an_entry_counts_on_from_the_one_that_it_replaces() -> None:
    kept = layout.Counters(packets=1, bytes=2, last_used_ns=3)
    counted = struct.pack("=QQQ", kept.packets, kept.bytes, 3)
    replaced = layout.encode_entry(layout.KernelKind.AWAY, locator_status=0b101)[: -len(counted)] + counted
    value = layout.encode_entry(layout.KernelKind.REMOTE, (locator("10.0.0.1"),), generation=7)
    assert layout.decode_counters(value) == layout.Counters()
    assert layout.decode_counters(layout.counting_on(value, replaced)) == kept
    assert layout.counting_on(value, replaced)[: -len(counted)] == value[: -len(counted)]
    assert layout.decode_counters(replaced).locator_status == 0b101


def test_an_expiry_in_the_past_is_not_never() -> None:
    never = layout.encode_entry(layout.KernelKind.LOCAL)
    past = layout.encode_entry(layout.KernelKind.LOCAL, expires_ns=0)
    assert struct.unpack_from("=Q", never)[0] == 0
    assert struct.unpack_from("=Q", past)[0] == 1


def test_keys_put_the_instance_before_the_prefix() -> None:
    key = layout.encode_key(ip_network("192.168.2.0/24"), 0x010203)
    assert key == struct.pack("=I", 56) + b"\x00\x01\x02\x03" + b"\xc0\xa8\x02\x00"
    assert len(layout.encode_key(ip_network("fd00::/8"), 0)) == 24


def test_reports_are_decoded() -> None:
    sample = struct.pack(
        "=QIIBBBx6s2xI16s16s16s", 99, 2, 7, 4, 6, 4, bytes(6), 0,
        b"\x0a\0\0\x01" + bytes(12), ip_address("fd00::1").packed, b"\x0a\0\0\x02" + bytes(12),
    )  # fmt: skip
    event, generation = layout.decode_report(sample)
    assert (event.kind, event.mono_ns, generation) == (DataPlaneEventKind.STALE_PACKET, 99, 7)
    assert (str(event.eid), str(event.rloc), str(event.peer), event.mac) == (
        "10.0.0.1",
        "fd00::1",
        "10.0.0.2",
        None,
    )


def test_kinds_have_the_kernels_numbers() -> None:
    declared = re.findall(r"KIND_([A-Z]+) = (\d+)", (SOURCES / "state.h").read_text())
    assert {name: int(number) for name, number in declared} == {kind.name: kind.value for kind in layout.KernelKind}
    assert {kind.name for kind in EntryKind} < {kind.name for kind in layout.KernelKind}


def test_every_reason_is_used_and_named_once() -> None:
    code = "".join(path.read_text() for path in SOURCES.iterdir() if path.name != "reasons.h")
    table = (SOURCES / "reasons.h").read_text()
    drops, rest = table.split("#define KERNEL_DROP_REASONS")
    kernels, holds = rest.split("#define HOLD_REASONS")
    for prefix, text, names in (
        ("DROP", drops, layout.DROP_REASONS),
        ("KERNEL_DROP", kernels, layout.KERNEL_DROP_REASONS),
        ("HOLD", holds, layout.HOLD_REASONS),
    ):
        declared = re.findall(r"X\(([A-Z_]+), ", text)
        assert len(declared) == len(names) == len(set(names))
        for constant in declared:
            assert f"{prefix}_{constant}" in code, constant


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrerequisiteMissingError) as caught:
        compiler.compiled_object()
    assert "apt-get install" in caught.value.next_command
    assert "clang" in caught.value.next_command


def test_a_failed_compilation_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clang = tmp_path / "clang"
    clang.write_text("#!/bin/sh\necho 'no such header' >&2\nexit 1\n")
    clang.chmod(0o755)
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(TestbedError, match="no such header"):
        compiler.compiled_object()
    assert list((tmp_path / "cache" / "bpf").iterdir()) == []


def test_a_compiled_object_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clang = tmp_path / "clang"
    clang.write_text('#!/bin/sh\necho x >> "$0.calls"\nfor last; do :; done\necho object > "$last"\n')
    clang.chmod(0o755)
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    first = compiler.compiled_object()
    assert first == compiler.compiled_object()
    assert first.read_text() == "object\n"
    assert (tmp_path / "clang.calls").read_text() == "x\n"
