"""Packets of ours that the kernel dropped after it was handed them, and no interface counts (bpf/dropped.bpf.c)."""

from __future__ import annotations

import secrets
import struct
from contextlib import ExitStack

from testbed.dataplane.compiler import compiled_object
from testbed.dataplane.layout import KERNEL_DROP_REASONS
from testbed.dataplane.libbpf import BpfObject
from testbed.errors import TestbedError


class KernelDrops:
    """Counts dropped packets by their mark, from when it is made; where the kernel cannot, says why."""

    def __init__(self) -> None:
        #: What the programs must mark packets with, even; 0: nothing is counted.
        self.mark = 0
        #: Why nothing is counted, or None.
        self.why_not: str | None = None
        self._resources = ExitStack()
        try:
            with ExitStack() as stack:
                program = BpfObject(compiled_object("dropped"))
                stack.callback(program.close)
                mark = secrets.randbits(31) << 1 or 2
                program.map("watched", 4)[bytes(4)] = struct.pack("=I", mark | 1)
                self._counters = program.per_cpu_map("kernel_drop_counters", 8)
                stack.callback(program.attach("dropped"))
                self._resources, self.mark = stack.pop_all(), mark
        except TestbedError as error:  # no BTF, or Linux before 5.17: forwarding needs neither
            self.why_not = error.what

    def by_reason(self) -> dict[str, int]:
        """Reason → packets; empty if they are not counted."""
        if not self.mark:
            return {}
        return {
            reason: sum_of(self._counters[struct.pack("=I", number)])
            for number, reason in enumerate(KERNEL_DROP_REASONS)
        }

    def close(self) -> None:
        """Detach and free; idempotent. What is read afterwards is empty."""
        self.mark = 0
        self._resources.close()


def sum_of(value: bytes) -> int:
    """The sum of a counter that every processor has of its own (`BpfObject.per_cpu_map`)."""
    return sum(struct.unpack(f"={len(value) // 8}Q", value))
