"""The lab's shape in network namespaces, with real agents: sites A and B share a LAN's addresses, C asks.

core 10.0.n.1 - xtr-a, -b, -c 10.0.n.2 - their LANs; ms 10.0.0.2; `guest` 192.168.0.10 is on the LAN of
A or B, `peer` 192.168.3.10 on that of C. A guest moves by its cable being plugged in elsewhere. With `two_xtrs`
site C has a second one, xtr-d 10.0.4.2, of a worse priority; the LAN's gateway stays xtr-c.

With a second instance there are the same sites, hosts and hosts' addresses again, at the same Map-Server: the names
of their nodes begin with `other-`, their locators are 10.1.n.2.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.waiting import wait_until, whole_lines

ROOT = Path(__file__).parents[2]
GATEWAY_MAC = "00:00:5e:00:01:01"
GUEST, GUEST_MAC = "192.168.0.10", "00:16:3e:00:00:0a"
PEER = "192.168.3.10"
GUEST6, PEER6 = "fd0e::10", "fd0e:3::10"
SITES = {"a": ("192.168.0", 1), "b": ("192.168.0", 2), "c": ("192.168.3", 3)}
LAN6 = {"a": "fd0e", "b": "fd0e", "c": "fd0e:3"}
OTHER = "other-"
#: Of each instance.
NODES = ("guest", "peer", *(f"{role}-{site}" for site in SITES for role in ("xtr", "lan")))
#: No duplicate address detection: link-local addresses are usable at once, not after a second or two.
SETTINGS = (
    "ipv4.ip_forward=1",
    "ipv4.conf.all.rp_filter=0",
    "ipv6.conf.all.forwarding=1",
    "ipv6.conf.default.accept_dad=0",
)


class Lab:
    """Namespaces, links and agents; gone when closed.

    Args:
        folder: for configurations, logs and events.
        mechanism: of every agent.
        xtr_options: of every xTR.
        map_server_options: of the Map-Server.
        two_xtrs: site C has two.
        instances: of the sites, and of those whose names begin with `other-`, if there are any.
        weights: of their locators, which then have one priority; without them the first is preferred.
    """

    def __init__(
        self,
        folder: Path,
        mechanism: str,
        xtr_options: dict[str, Any] | None = None,
        map_server_options: dict[str, Any] | None = None,
        two_xtrs: bool = False,
        instances: tuple[int, ...] = (0,),
        weights: tuple[int, int] | None = None,
    ) -> None:
        self._weights = weights
        #: What the names of nodes begin with → their instance-ID.
        self._instances = dict(zip(("", OTHER), instances, strict=False))
        self.xtrs = {f"{whose}xtr-{site}": site for whose in self._instances for site in SITES}
        self.xtrs |= {"xtr-d": "c"} if two_xtrs else {}
        self._nodes = ("core", "ms", "xtr-d", *(f"{whose}{node}" for whose in self._instances for node in NODES))
        self.folder = folder
        self.events_path = folder / "events.jsonl"
        self.events_path.touch()
        self._prefix = f"la{os.getpid()}-"
        self._mechanism = mechanism
        # A guest of these tests moves within the 3 s that RFC 9301 §5.4 wants between two Map-Replies.
        unlimited = {"map_reply_interval_s": 0}
        self._xtr_options = {**unlimited, **(xtr_options or {})}
        self._map_server_options = {**unlimited, **(map_server_options or {})}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._resources = ExitStack()
        with ExitStack() as stack:
            stack.callback(self._remove_namespaces)
            self._wire()
            stack.callback(self._stop_agents)
            self._resources = stack.pop_all()

    def close(self) -> None:
        self._resources.close()

    # --- namespaces --------------------------------------------------------------------------------

    def _ns(self, node: str) -> str:
        return self._prefix + node

    def run(self, node: str, *command: str) -> subprocess.CompletedProcess[str]:
        full = ["ip", "netns", "exec", self._ns(node), *command]
        return subprocess.run(full, capture_output=True, text=True, timeout=60)

    def _ip(self, node: str, *lines: str) -> None:
        command = ["ip", "-netns", self._ns(node), "-batch", "-"]
        subprocess.run(command, input="\n".join(lines), text=True, check=True)

    def _wire(self) -> None:
        for node in self._nodes:
            subprocess.run(["ip", "netns", "add", self._ns(node)], check=True)
            self._ip(node, "link set lo up")
            for key in SETTINGS:
                self.run(node, "sysctl", "-qw", f"net.{key}")
        self._link("core", "to-ms", "ms", "core")
        self._ip("core", "addr add 10.0.0.1/24 dev to-ms")
        self._ip("ms", "addr add 10.0.0.2/24 dev core", "route add default via 10.0.0.1")
        for whose in self._instances:
            self._wire_sites(whose)
        self._link("core", "to-d", "xtr-d", "core")
        self._ip("core", "addr add 10.0.4.1/24 dev to-d")
        self._ip("xtr-d", "addr add 10.0.4.2/24 dev core", "route add default via 10.0.4.1")
        self._link("lan-c", "xtr-d", "xtr-d", "eid")
        self._ip("lan-c", "link set xtr-d master site")
        self._ip("xtr-d", "addr add 192.168.3.2/24 dev eid", "addr add fd0e:3::2/64 dev eid nodad")

    def _wire_sites(self, whose: str) -> None:
        for site, (lan, number) in SITES.items():
            xtr, bridge, access = f"{whose}xtr-{site}", f"{whose}lan-{site}", self._access(whose, number)
            self._link("core", f"{whose}to-{site}", xtr, "core")
            self._ip("core", f"addr add {access}.1/24 dev {whose}to-{site}")
            self._ip(xtr, f"addr add {access}.2/24 dev core", f"route add default via {access}.1")
            self._ip(bridge, "link add name site type bridge forward_delay 0", "link set site up")
            self._link(bridge, "xtr", xtr, "eid")
            self._ip(bridge, "link set xtr master site")
            self._ip(
                xtr,
                f"link set eid address {GATEWAY_MAC}",
                f"addr add {lan}.1/24 dev eid",
                f"addr add {LAN6[site]}::1/64 dev eid nodad",
                "link set eid up",
            )
        peer, guest = f"{whose}peer", f"{whose}guest"
        self._link(f"{whose}lan-c", "peer", peer, "eth0")
        self._ip(f"{whose}lan-c", "link set peer master site")
        self._ip(peer, f"addr add {PEER}/24 dev eth0", "route add default via 192.168.3.1")
        self._ip(peer, f"addr add {PEER6}/64 dev eth0 nodad", "route add default via fd0e:3::1")
        self._link(f"{whose}lan-a", "guest", guest, "eth0")
        self._ip(f"{whose}lan-a", "link set guest master site")
        self._ip(guest, f"link set eth0 address {GUEST_MAC}", f"addr add {GUEST}/24 dev eth0")
        self._ip(guest, "route add default via 192.168.0.1")
        self._ip(guest, f"addr add {GUEST6}/64 dev eth0 nodad", "route add default via fd0e::1")

    @staticmethod
    def _access(whose: str, number: int) -> str:
        return f"10.{1 if whose else 0}.{number}"

    @staticmethod
    def _whose(node: str) -> str:
        return OTHER if node.startswith(OTHER) else ""

    def _link(self, one: str, one_name: str, other: str, other_name: str) -> None:
        self._ip(
            one,
            f"link add {one_name} type veth peer name {other_name} netns {self._ns(other)}",
            f"link set {one_name} up",
        )
        self._ip(other, f"link set {other_name} up")

    def _remove_namespaces(self) -> None:
        for node in self._nodes:
            subprocess.run(["ip", "netns", "del", self._ns(node)], check=False, stderr=subprocess.DEVNULL)

    def move_guest(self, source: str, destination: str) -> None:
        """Plug the guest's cable in at another site's LAN."""
        self._ip(f"lan-{source}", f"link set guest netns {self._ns(f'lan-{destination}')}")
        self._ip(f"lan-{destination}", "link set guest master site", "link set guest up")

    def announce_guest(self, *, rarp: bool = False) -> None:
        """Send what a resumed guest sends, one gratuitous ARP; or a RARP, as hypervisors do for it."""
        mac, address = bytes.fromhex(GUEST_MAC.replace(":", "")), socket.inet_aton(GUEST)
        frame = b"\xff" * 6 + mac + bytes.fromhex("08060001080006040001") + mac + address + bytes(6) + address
        if rarp:
            frame = b"\xff" * 6 + mac + bytes.fromhex("80350001080006040003") + (mac + bytes(4)) * 2
        code = (
            "import socket, sys; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW);"
            "s.bind(('eth0', 0)); s.send(bytes.fromhex(sys.argv[1]))"
        )
        sent = self.run("guest", sys.executable, "-c", code, frame.hex())
        assert sent.returncode == 0, sent.stderr

    # --- agents ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start every agent and wait until each is ready."""
        # A question about a prefix that nobody has registered yet is answered "natively, for a minute",
        # so what is there from the start is registered before anyone asks.
        self.start_agent("ms")
        for wait in [self._launch(xtr) for xtr in self.xtrs]:
            wait()
        for whose in self._instances:
            xtr = f"{whose}xtr-c"
            wait_until(lambda xtr=xtr: len(self.saw("map_notify_received", xtr)) == 2, f"{xtr} is registered")

    def start_agent(self, node: str) -> None:
        """Start one agent and wait until it is ready."""
        self._launch(node)()

    def _launch(self, node: str) -> Callable[[], object]:
        """Start an agent; what is returned waits for it."""
        kind = "mapserver" if node == "ms" else "xtr"
        path = self.folder / f"{node}.json"
        path.write_text(json.dumps(self._map_server() if node == "ms" else self._xtr(node)))
        since_ns = time.monotonic_ns()
        log = (self.folder / f"{node}.log").open("ab")
        command = ["ip", "netns", "exec", self._ns(node), sys.executable, "-m", f"testbed.lab.agents.{kind}"]
        self.processes[node] = subprocess.Popen([*command, str(path)], cwd=ROOT, stderr=log)
        log.close()

        def ready() -> bool:
            process = self.processes[node]
            assert process.poll() is None, (self.folder / f"{node}.log").read_text()
            return bool(self.saw("agent_ready", node, since_ns=since_ns))

        return lambda: wait_until(ready, f"{node} is ready", deadline_s=30)

    def stop_agent(self, node: str) -> int:
        process = self.processes.pop(node)
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=10)

    def _stop_agents(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def _common(self, node: str) -> dict[str, Any]:
        return {
            "node": node,
            "events": str(self.events_path),
            "control": str(self.folder / f"{node}.control"),
            "state": str(self.folder / f"{node}.state"),
            "mechanism": self._mechanism,
            "authentication": "hmac-sha-256-128+hkdf",
        }

    def _site(self, whose: str, site: str) -> dict[str, Any]:
        key_file = self.folder / f"{whose}site-{site}.key"
        if not key_file.exists():
            key_file.touch(mode=0o600)
            key_file.write_text(f"secret of {whose}{site}\n")
        prefixes = [f"{SITES[site][0]}.0/24", f"{LAN6[site]}::/64"]
        return {
            "eid_prefixes": prefixes if site == "c" else [],
            "dynamic_eid_prefixes": [] if site == "c" else prefixes,
            "instance_id": self._instances[whose],
            "key_id": 0,
            "key_file": str(key_file),
        }

    def _xtr(self, node: str) -> dict[str, Any]:
        site = self.xtrs[node]
        lan, number = SITES[site]
        whose = self._whose(node)
        rloc, gateway_mac = f"{self._access(whose, number)}.2", GATEWAY_MAC
        gateway = [f"{lan}.1/24", f"{LAN6[site]}::1/64"]
        if node == "xtr-d":
            rloc, gateway = "10.0.4.2", [f"{lan}.2/24", f"{LAN6[site]}::2/64"]
            gateway_mac = self.run(node, "cat", "/sys/class/net/eid/address").stdout.strip()
        locators: list[dict[str, Any]] = [{"rloc": "10.0.3.2", "priority": 1}, {"rloc": "10.0.4.2", "priority": 2}]
        if self._weights is not None:
            locators = [
                {"rloc": rloc, "priority": 1, "weight": weight}
                for rloc, weight in zip(("10.0.3.2", "10.0.4.2"), self._weights, strict=True)
            ]
        return {
            **self._common(node),
            **self._site(whose, site),
            "rloc": rloc,
            "locators": locators if site == "c" and "xtr-d" in self.xtrs else [],
            "core_interface": "core",
            "eid_interface": "eid",
            "eid_space": ["192.168.0.0/16", "fd0e::/16"],
            "gateway": gateway,
            "gateway_mac": gateway_mac,
            "map_servers": ["10.0.0.2"],
            "map_resolvers": ["10.0.0.2"],
            "options": self._xtr_options,
        }

    def _map_server(self) -> dict[str, Any]:
        return {
            **self._common("ms"),
            "rloc": "10.0.0.2",
            "sites": [
                {"name": f"{whose}{site}", **self._site(whose, site)} for whose in self._instances for site in SITES
            ],
            "options": self._map_server_options,
        }

    def ask(self, node: str, **request: Any) -> dict[str, Any]:
        """One request on an agent's control socket."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(self.folder / f"{node}.control"))
            client.sendall(json.dumps(request).encode() + b"\n")
            answer: dict[str, Any] = json.loads(client.makefile().readline())
        return answer

    def saw(self, kind: str, node: str, *, since_ns: int = 0) -> list[dict[str, Any]]:
        """Events of a kind that a node wrote, in the order of their time."""
        events = [json.loads(line) for line in whole_lines(self.events_path)]
        found = [e for e in events if (e["kind"], e["source"]) == (kind, node) and e["mono_ns"] >= since_ns]
        return sorted(found, key=lambda event: int(event["mono_ns"]))
