"""A plan's network, up in the namespaces that this process is in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import anyio.to_thread

from testbed.lab.network.errors import NetworkError, ToolMissingError
from testbed.lab.network.impairment import (
    Backend,
    EffectiveImpairment,
    is_impaired,
    netem_arguments,
    netem_effective,
    relay_arguments,
)
from testbed.lab.network.processes import in_node, run, run_scripts
from testbed.lab.network.relay import Relay, RelayedLink, build_relay
from testbed.lab.network.scripts import (
    bridge_script,
    interface_script,
    lab_script,
    neighbour_script,
    relay_script,
    sysctl_script,
)
from testbed.paths import cache
from testbed.plan.model import Bridge, Interface, Link, Plan

#: Beginning with "_", which no node of a plan does.
RELAY_NODE = "_relay"
#: Packages that have what the bring-up calls.
TOOLS = {"mnexec": "mininet", "ip": "iproute2", "tc": "iproute2", "ethtool": "ethtool", "sysctl": "procps",
         "ping": "iputils-ping"}  # fmt: skip
#: The inode of the machine's first PID namespace (PROC_PID_INIT_INO, linux/proc_ns.h).
FIRST_PID_NAMESPACE = 0xEFFFFFFC
PINGS = 4


def kernel_has_netem() -> bool:
    """Say whether netem works, by putting one on an interface of a namespace made for it."""
    probe = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


class Network:
    """Mininet nodes, LANs and impaired links of a plan; a context manager.

    It must run in a lab's own PID, network and mount namespaces, and whatever the nodes shall see of
    the file system is mounted before: their mount namespaces are copies, made when they start.
    """

    def __init__(
        self,
        plan: Plan,
        run_dir: Path,
        *,
        seed: int = 1,
        backend: Literal["auto", "netem", "relay"] = "auto",
        cache_dir: Path | None = None,
    ) -> None:
        """Prepare; nothing happens before the context is entered.

        Args:
            plan: what to bring up.
            run_dir: of the run; `logs/` in it takes the relay's standard error.
            seed: of losses and jitter (the relay's; netem has its own generator).
            backend: who impairs links; `auto`: netem where the kernel has it.
            cache_dir: where the compiled relay is kept; the testbed's cache if left out.
        """
        self.plan = plan
        self._logs = run_dir / "logs"
        self._seed = seed
        self._wanted = backend
        self._cache_dir = cache_dir or cache()
        self._stack = ExitStack()
        self._mininet: Any = None
        self._relay: Relay | None = None
        self._macs: dict[tuple[str, str], str] = {}
        self.backend: Backend = "none"

    def __enter__(self) -> Network:
        """Bring everything up; on failure take down what was up and raise the first error."""
        _check_surroundings()
        try:
            self._up()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take everything down, in reverse."""
        self._stack.__exit__(kind, error, trace)

    # --- use

    def node(self, name: str) -> Any:
        """Return Mininet's node of that name.

        Raises:
            NetworkError: there is none.
        """
        if self._mininet is None or name not in self._mininet.nameToNode:
            known = ", ".join(node.name for node in self.plan.nodes)
            raise NetworkError("no-such-node", f"no node is called {name!r}; there are {known}")
        return self._mininet.nameToNode[name]

    def pids(self) -> dict[str, int]:
        """Return a process of each node, to enter its namespaces by."""
        return {node.name: int(self.node(node.name).pid) for node in self.plan.nodes}

    def popen(
        self,
        node: str,
        argv: Sequence[str],
        *,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = subprocess.DEVNULL,
        stderr: int | IO[Any] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process in a node, in a session of its own (the terminal's ^C does not reach it)."""
        line = in_node(int(self.node(node).pid), argv)
        return subprocess.Popen(line, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True)

    def exec(self, node: str, argv: Sequence[str], timeout: float = 10.0) -> subprocess.CompletedProcess[str]:
        """Run a command in a node to its end, at most `timeout` seconds; its output is text.

        Raises:
            subprocess.TimeoutExpired: it did not end in time, and was killed.
        """
        line = in_node(int(self.node(node).pid), argv)
        return subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )

    def add_host(self, name: str) -> int:
        """Add a host without interfaces beside the plan's nodes; returns a process of it, to enter it by.

        Raises:
            NetworkError: a node has that name.
        """
        if self._mininet is None or name in self._mininet.nameToNode:
            raise NetworkError("name-taken", f"a node is called {name!r} already")
        return int(self._mininet.addHost(name, ip=None).pid)

    def attach_tap(self, bridge: str, tap: str) -> None:
        """Put a tap (or any interface of the lab's root namespace) on a LAN, with its MTU, and raise it.

        Raises:
            NetworkError: there is no such bridge or interface.
        """
        mtu = {lan.name: lan.mtu for lan in self.plan.bridges}.get(bridge)
        if mtu is None:
            raise NetworkError("no-such-bridge", f"no bridge is called {bridge!r}")
        run(["ip", "link", "set", tap, "master", bridge, "mtu", str(mtu), "up"])

    def impairments(self) -> list[EffectiveImpairment]:
        """Return each link's impairment as asked and as it is; it pings every link, all at once."""
        pings = [self._ping(link) for link in self.plan.links]
        rtts_ms = [_smallest_rtt_ms(ping) for ping in pings]
        counters = self._relay.counters() if self._relay else []
        by_interface = {counter["from"]: counter for counter in counters}
        found = []
        for number, link in enumerate(self.plan.links):
            backend = self.backend if is_impaired(link.impairment) else "none"
            effective: dict[str, Any] = {}
            own: tuple[Any, ...] = ()
            if backend == "netem":
                node, interface = link.ends[0].node, link.ends[0].name
                effective = netem_effective(self.exec(node, ["tc", "-j", "qdisc", "show", "dev", interface]).stdout)
            elif backend == "relay" and self._relay is not None:
                effective = {**relay_arguments(link), "scheduling": self._relay.policy}
                nodes = tuple(end.node for end in link.ends)
                own = tuple(
                    {**by_interface[name], "from": near, "to": far}
                    for name, near, far in zip(_relay_names(number), nodes, nodes[::-1], strict=True)
                )
            found.append(EffectiveImpairment(link.name, backend, link.impairment, effective, rtts_ms[number], own))
        return found

    # --- bring-up

    def _up(self) -> None:
        # Imported here: Mininet is the distribution's, and only a lab needs it.
        from testbed.lab.network.nodes import empty_network

        self._logs.mkdir(parents=True, exist_ok=True)
        impaired = [link for link in self.plan.links if is_impaired(link.impairment)]
        if impaired:
            wanted = "netem" if self._wanted == "auto" and kernel_has_netem() else self._wanted
            self.backend = "netem" if wanted == "netem" else "relay"
        program = build_relay(self._cache_dir) if self.backend == "relay" else None
        run(["sh", "-e"], input_text=lab_script())
        self._mininet = empty_network()
        self._stack.callback(self._mininet.stop)
        for node in self.plan.nodes:
            self._mininet.addHost(node.name, ip=None)
        if program is not None:
            self._mininet.addHost(RELAY_NODE, ip=None)
        self._in_nodes(sysctl_script)
        macs = (f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}" for number in range(1, 1 << 16))
        relayed = [self._add_link(number, link, macs) for number, link in enumerate(self.plan.links)]
        for number, bridge in enumerate(self.plan.bridges, 1):
            self._add_bridge(number, bridge, macs)
        self._in_nodes(interface_script)
        self._in_nodes(partial(neighbour_script, macs=self._macs))
        self._mininet.build()
        self._mininet.start()
        if program is not None:
            self._start_relay(program, [link for link in relayed if link is not None])

    def _in_nodes(self, script_of: Any) -> None:
        run_scripts({node.name: script_of(self.plan, node) for node in self.plan.nodes}, self.pids())

    def _add_link(self, number: int, link: Link, macs: Any) -> RelayedLink | None:
        """Make a link, through the relay if it is impaired there; return it then."""
        left, right = link.ends
        if not is_impaired(link.impairment) or self.backend != "relay":
            self._veth(left, right.node, right.name, macs, far_mac=right.mac)
            if is_impaired(link.impairment):
                for end in link.ends:
                    argv = [
                        "tc",
                        "qdisc",
                        "replace",
                        "dev",
                        end.name,
                        "root",
                        "netem",
                        *netem_arguments(link),
                    ]
                    run(in_node(int(self.node(end.node).pid), argv))
            return None
        near, far = _relay_names(number)
        self._veth(left, RELAY_NODE, near, macs)
        self._veth(right, RELAY_NODE, far, macs)
        return RelayedLink(link, near, far)

    def _veth(self, end: Interface, far_node: str, far_name: str, macs: Any, far_mac: str | None = None) -> None:
        near_mac, peer_mac = end.mac or next(macs), far_mac or next(macs)
        self._macs |= {(end.node, end.name): near_mac, (far_node, far_name): peer_mac}
        self._mininet.addLink(
            end.node, far_node, intfName1=end.name, intfName2=far_name, addr1=near_mac, addr2=peer_mac
        )

    def _add_bridge(self, number: int, bridge: Bridge, macs: Any) -> None:
        lan = self._mininet.addSwitch(bridge.name, dpid=f"{number:x}", inNamespace=False)
        ports = []
        for index, port in enumerate(bridge.ports):
            # "eid-a", port 0: "e0-a"
            kind, _, short = bridge.name.partition("-")
            ports.append(f"{kind[0]}{index}-{short}")
            self._veth(port, bridge.name, ports[-1], macs)
        lan.script = bridge_script(bridge, ports)

    def _start_relay(self, program: Path, links: list[RelayedLink]) -> None:
        pid = int(self.node(RELAY_NODE).pid)
        ends = [(name, relayed.link.mtu) for relayed in links for name in (relayed.left, relayed.right)]
        run_scripts({RELAY_NODE: relay_script(ends)}, {RELAY_NODE: pid})
        self._relay = Relay(program, pid, links, self._seed, self._logs / "relay.log")
        self._stack.callback(self._relay.stop)

    def _ping(self, link: Link) -> subprocess.Popen[bytes]:
        target = link.ends[1].addresses[0].partition("/")[0]
        wait_s = max(1, round(4 * (link.impairment.delay_ms + link.impairment.jitter_ms) / 1e3))
        argv = ["ping", "-n", "-q", "-c", str(PINGS), "-i", "0.02", "-W", str(wait_s), target]
        return self.popen(link.ends[0].node, argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


@asynccontextmanager
async def network(plan: Plan, run_dir: Path, **options: Any) -> AsyncIterator[Network]:
    """Bring a `Network` up and take it down in worker threads, so that an event loop goes on."""
    net = Network(plan, run_dir, **options)
    await anyio.to_thread.run_sync(net.__enter__)
    try:
        yield net
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(partial(net.__exit__, None, None, None))


def _relay_names(number: int) -> tuple[str, str]:
    return (f"l{number}", f"r{number}")


def _smallest_rtt_ms(ping: subprocess.Popen[bytes]) -> float | None:
    """Return the minimum that a ping's summary says; the first one resolves addresses too."""
    output = ping.communicate()[0].decode()
    match = re.search(r"= ([0-9.]+)/", output)
    return float(match[1]) if match else None


def _check_surroundings() -> None:
    """Refuse to run without the tools, or in the machine's own network namespace."""
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            raise ToolMissingError("tool-missing", f"{tool} is missing", next_command=f"apt-get install {package}")
    first = os.stat("/proc/self/ns/pid").st_ino == FIRST_PID_NAMESPACE
    # A container is in no first PID namespace; but it has a way out, and a lab has none.
    routes = Path("/proc/self/net/route").read_text().splitlines()
    routed = any(line.split()[1] == "00000000" for line in routes)
    if first or routed:
        raise NetworkError(
            "not-in-a-lab",
            "the network would come up in the machine's own network namespace",
            why="a lab has PID, network and mount namespaces of its own, so nothing of it stays behind",
            next_command="unshare --pid --fork --kill-child --net --mount --mount-proc …",
        )
