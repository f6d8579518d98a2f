"""LISP forwarding: `open_ebpf` gives the kernel's data plane, `model` says what any must do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.dataplane.ebpf import open_ebpf

__all__ = ["open_ebpf"]


def __getattr__(name: str) -> Any:
    # Netlink and ctypes are loaded only by whoever opens a data plane, not by users of the model.
    if name == "open_ebpf":
        from testbed.dataplane.ebpf import open_ebpf

        return open_ebpf
    raise AttributeError(name)
