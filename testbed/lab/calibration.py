"""Outages of known length at a known instant: what the measurement is held against.

Between the correspondent and the guest the core router drops data packets (LISP's port 4341) that go to the
guest's site, and nothing else: the control plane does not notice. One netlink message begins it and one ends it,
each stamped right before and right after the system call in which the kernel acts on it.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType

from testbed.errors import TestbedError
from testbed.lab.network.network import Network
from testbed.lab.network.sockets import socket_inside
from testbed.plan.model import Plan

#: LISP data packets (RFC 9300 §5.1).
LISP_DATA_PORT = 4341

# linux/netlink.h, linux/rtnetlink.h, linux/fib_rules.h
NETLINK_ROUTE = 0
NLMSG_ERROR = 2
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
RTM_NEWRULE, RTM_DELRULE = 32, 33
FR_ACT_BLACKHOLE = 6
FRA_DST, FRA_PRIORITY, FRA_IP_PROTO, FRA_DPORT_RANGE = 1, 6, 22, 24
#: Before the rule of the main table, so that it decides.
PRIORITY = 4341
_MESSAGE_HEADER = struct.Struct("=IHHII")
_RULE_HEADER = struct.Struct("=8BI")
_ERROR = struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class Injected:
    """An outage that was made; times are CLOCK_MONOTONIC.

    Attributes:
        start_ns, end_ns: when the kernel began to drop and when it ceased.
        uncertainty_ns: of both together: half of what the two system calls took.
    """

    start_ns: int
    end_ns: int
    uncertainty_ns: int


def rule_message(kind: int, rloc: str) -> bytes:
    """The netlink message that makes (RTM_NEWRULE) or removes (RTM_DELRULE) the dropping of data packets to an RLOC."""
    address = ip_address(rloc)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = _RULE_HEADER.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, FR_ACT_BLACKHOLE, 0)
    body += _attribute(FRA_DST, address.packed)
    body += _attribute(FRA_PRIORITY, struct.pack("=I", PRIORITY))
    body += _attribute(FRA_IP_PROTO, bytes([socket.IPPROTO_UDP]))
    body += _attribute(FRA_DPORT_RANGE, struct.pack("=HH", LISP_DATA_PORT, LISP_DATA_PORT))
    flags = NLM_F_REQUEST | NLM_F_ACK | (NLM_F_CREATE | NLM_F_EXCL if kind == RTM_NEWRULE else 0)
    return _MESSAGE_HEADER.pack(_MESSAGE_HEADER.size + len(body), kind, flags, 1, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


class Injector:
    """Makes outages between the core and one site; a context manager, at whose end nothing is dropped.

    Args:
        plan: of the lab.
        network: up.
        site: whose inbound data packets are dropped.
    """

    def __init__(self, plan: Plan, network: Network, site: str) -> None:
        here = plan.site(site)
        ends = next(link.ends for link in plan.links if here.xtr in {end.node for end in link.ends})
        router = next(end.node for end in ends if end.node != here.xtr)
        self._rloc, self._dropping = here.rloc, False
        self._socket = socket_inside(network.pids()[router], socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)

    def __enter__(self) -> Injector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._dropping:
                self._act(RTM_DELRULE)
        finally:
            self._socket.close()

    def inject(self, length_ms: float) -> Injected:
        """Drop for about `length_ms`; how long it really was is in the result.

        Raises:
            TestbedError: the kernel refuses.
        """
        began_ns, dropping_ns = self._act(RTM_NEWRULE)
        self._dropping = True
        time.sleep(max(0.0, (began_ns + length_ms * 1e6 - time.monotonic_ns()) / 1e9))
        ceasing_ns, ceased_ns = self._act(RTM_DELRULE)
        self._dropping = False
        return Injected(
            (began_ns + dropping_ns) // 2,
            (ceasing_ns + ceased_ns) // 2,
            (dropping_ns - began_ns + ceased_ns - ceasing_ns) // 2,
        )

    def _act(self, kind: int) -> tuple[int, int]:
        """Send one message, which the kernel acts on before the call returns; returns the stamps around it."""
        message = rule_message(kind, self._rloc)
        before_ns = time.monotonic_ns()
        self._socket.send(message)
        after_ns = time.monotonic_ns()
        answer = self._socket.recv(4096)
        (code,) = _ERROR.unpack_from(answer, _MESSAGE_HEADER.size)
        if _MESSAGE_HEADER.unpack_from(answer)[1] != NLMSG_ERROR or code:
            raise TestbedError(
                "calibration-failed", "the core does not take a rule that drops data packets", why=os.strerror(-code)
            )
        return before_ns, after_ns
