"""Sockets of a node's namespace in the hands of another process: sending then starts no process there."""

from __future__ import annotations

import ctypes
import os
import socket
import threading

CLONE_NEWNET = 0x40000000


def socket_inside(pid: int, family: int, kind: int, protocol: int) -> socket.socket:
    """Open a socket in the network namespace of process `pid`; a socket stays where it was made.

    A thread enters that namespace and ends there, so that the caller never leaves its own.

    Raises:
        OSError: the process is gone, or the kernel refuses.
    """
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def make() -> None:
        try:
            namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(namespace, CLONE_NEWNET):
                    number = ctypes.get_errno()
                    raise OSError(number, f"setns: {os.strerror(number)}")
                made.append(socket.socket(family, kind, protocol))
            finally:
                os.close(namespace)
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]
