"""An xTR's process: `python -m testbed.lab.agents.xtr CONFIG.json`.

Joins the state machines of `testbed.lisp.xtr` to the control port, the site's LAN, the kernel's
neighbour table and the eBPF data plane.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import uvloop

from testbed.dataplane import open_ebpf
from testbed.dataplane.model import DataPlane
from testbed.dataplane.slowpath import TAP_QUEUE_FRAMES
from testbed.lab.agents.driver import BATCH, Driver, NonceStore
from testbed.lab.agents.neighbours import NeighbourTable
from testbed.lab.agents.priority import AGENT_PRIORITY, Pace, settle_memory
from testbed.lab.agents.runtime import Runtime, read_key, run_agent
from testbed.lab.agents.sockets import ControlSocket, LanSocket
from testbed.lab.agents.translation import destination_of, entry_of, input_of
from testbed.lab.agents.understudy import rehearse
from testbed.lisp.actions import (
    AnswerNeighbour,
    BindNeighbour,
    ClearForwarding,
    Inject,
    ProbeNeighbour,
    RequestEcho,
    SaveNonce,
    SetForwarding,
    SetLocatorStatus,
    UnbindNeighbour,
)
from testbed.lisp.config import SiteLocator, XtrConfig, XtrOptions, options_from
from testbed.lisp.inputs import (
    HostExpected,
    HostGone,
    HostSighted,
    PacketMissed,
    SiteLocatorChanged,
    Started,
)
from testbed.lisp.mechanisms import Mechanism, mechanism_named
from testbed.lisp.registrar import NONCE_OWNER
from testbed.lisp.rehearsal import Part, Rehearsal
from testbed.lisp.sealing import Secret
from testbed.lisp.sightings import (
    Sighting,
    SightingKind,
    arp_reply,
    arp_request,
    neighbour_advertisement,
    neighbour_solicitation,
    read_frame,
)
from testbed.lisp.subscriptions import NONCE_OWNER as SUBSCRIPTION_NONCE_OWNER
from testbed.lisp.wire import XtrIdentity
from testbed.lisp.xtr import Xtr

#: Between two looks at which neighbours have to be asked whether they are still there.
NEIGHBOUR_CHECK_S = 5.0


def config_from(raw: Mapping[str, Any]) -> XtrConfig:
    """The xTR's configuration; TestbedError, KeyError or ValueError if it is wrong."""
    rloc = ip_address(raw["rloc"])
    # RFC 9301 §5.6 wants 128 bits that no other xTR of the site has: the node's name and locator are.
    derived = int.from_bytes(hashlib.sha256(f"{raw['node']} {rloc}".encode()).digest()[:16], "big")
    return XtrConfig(
        rloc=rloc,
        identity=XtrIdentity(int(raw.get("xtr_id", derived)), int(raw.get("site_id", 0))),
        eid_prefixes=tuple(ip_network(prefix) for prefix in raw["eid_prefixes"]),
        dynamic_eid_prefixes=tuple(ip_network(prefix) for prefix in raw["dynamic_eid_prefixes"]),
        eid_space=tuple(ip_network(prefix) for prefix in raw["eid_space"]),
        gateways=tuple(ip_address(address.split("/")[0]) for address in _listed(raw["gateway"])),
        map_servers=tuple(ip_address(address) for address in raw["map_servers"]),
        map_resolvers=tuple(ip_address(address) for address in raw["map_resolvers"]),
        secret=Secret.configured(int(raw["key_id"]), read_key(Path(raw["key_file"])), raw["authentication"]),
        mechanism=_mechanism(raw),
        options=options_from(XtrOptions, raw.get("options", {})),
        locators=tuple(_site_locator(each) for each in raw.get("locators", ())),
        instance_id=int(raw.get("instance_id", 0)),
    )


def _site_locator(raw: Mapping[str, Any]) -> SiteLocator:
    return SiteLocator(ip_address(raw["rloc"]), int(raw.get("priority", 1)), int(raw.get("weight", 100)))


def _mechanism(raw: Mapping[str, Any]) -> Mechanism:
    """The mechanism, probing as often as the configuration says if it probes at all."""
    named = mechanism_named(raw["mechanism"])
    interval_s = raw.get("rloc_probe_interval_s")
    if interval_s is None or not named.probe_interval_s:
        return named
    return replace(named, probe_interval_s=float(interval_s))


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


class XtrAgent:
    """The xTR's descriptors and what is done about each.

    Args:
        runtime: of the agent.
        config: of the xTR.
        plane: its data plane.
        lan: the frames of its LAN.
        neighbours: the kernel's table of that LAN.
        control: its control port.
        nonces: its persistent nonces.
        pace: of the process.

    Attributes:
        driver: of its state machine.
    """

    def __init__(
        self,
        runtime: Runtime,
        config: XtrConfig,
        plane: DataPlane,
        lan: LanSocket,
        neighbours: NeighbourTable,
        control: ControlSocket,
        nonces: NonceStore,
        pace: Pace,
    ) -> None:
        self._log, self._plane, self._lan, self._gateways = runtime.log, plane, lan, config.gateways
        self._rlocs = (config.rloc, *config.fellows)
        self._neighbours = neighbours
        self._check: asyncio.TimerHandle | None = None
        self._gateway_mac: str = runtime.config["gateway_mac"].lower()
        # Without a saved nonce the time is one that an earlier life of this xTR cannot have reached.
        nonce = nonces.saved.get(NONCE_OWNER, time.time_ns())
        self._machine = Xtr(
            config,
            nonce=nonce,
            random64=lambda: secrets.randbits(64),
            subscription_nonce=nonces.saved.get(SUBSCRIPTION_NONCE_OWNER),
        )
        self.driver = Driver(
            runtime.log,
            control,
            {
                SaveNonce: nonces.save,
                SetForwarding: self._set_forwarding,
                SetLocatorStatus: lambda action: plane.set_locator_status(action.bits),
                RequestEcho: lambda action: plane.request_echo(action.rloc, action.nonce),
                ClearForwarding: lambda action: plane.delete_entry(action.eid, action.instance_id),
                BindNeighbour: self._bind_neighbour,
                UnbindNeighbour: lambda action: neighbours.unbind(action.eid),
                AnswerNeighbour: self._answer_neighbour,
                ProbeNeighbour: self._probe_neighbour,
                Inject: lambda action: plane.inject(action.packet),
            },
            pace,
        )
        runtime.on("inspect", self._inspect)
        runtime.on("hint", self._hint)
        runtime.on("expect", self._expect)
        runtime.on("gone", self._gone)
        runtime.on("locator", self._locator)
        self._readers: dict[int, Callable[[], None]] = {
            lan.fileno(): self._read_lan,
            plane.event_fd(): self._read_reports,
            plane.miss_fd(): self._read_missed,
        }

    def start(self) -> None:
        """Register what is here, and begin to listen."""
        self.driver.start(self._machine)
        self.driver.feed(Started(), time.monotonic_ns())
        for descriptor, reader in self._readers.items():
            asyncio.get_running_loop().add_reader(descriptor, reader)
        self._check_neighbours()

    def stop(self) -> None:
        """Take no input any more."""
        if self._check is not None:
            self._check.cancel()
        for descriptor in self._readers:
            asyncio.get_running_loop().remove_reader(descriptor)
        self.driver.stop()
        self._log.emit("packets_dropped", **self._drops(), unresolved=self._unresolved())

    def _unresolved(self) -> int:
        """How many packets wait for a mapping that will not come any more, here and on their way from the kernel."""
        held: dict[str, int] = self._machine.inspect(time.monotonic_ns())["held_packets"]
        waiting = 0
        while waiting < TAP_QUEUE_FRAMES and self._plane.read_missed() is not None:
            waiting += 1
        return sum(held.values()) + waiting

    def _check_neighbours(self) -> None:
        self._neighbours.check()
        self._check = asyncio.get_running_loop().call_later(NEIGHBOUR_CHECK_S, self._check_neighbours)

    # --- inputs ------------------------------------------------------------------------------------

    def _read_lan(self) -> None:
        for _ in range(BATCH):
            try:
                received = self._lan.receive()
            except OSError:
                self._listen_again(self._lan.fileno())  # the interface is down, and may come up again
                return
            if received is None:
                return
            frame, arrival_ns = received
            sighting = read_frame(frame)
            if sighting is not None and sighting.mac != self._gateway_mac:
                self.driver.feed(HostSighted(sighting, arrival_ns), time.monotonic_ns())

    def _listen_again(self, descriptor: int) -> None:
        """Go on reading what had an error: uvloop's loop has stopped to."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(descriptor)
        loop.add_reader(descriptor, self._readers[descriptor])

    def _read_reports(self) -> None:
        for report in self._plane.read_events():
            self.driver.feed(input_of(report), time.monotonic_ns())

    def _read_missed(self) -> None:
        # A packet without a mapping may be the first of its source. Who that is comes first, so that
        # its registration reaches the Map-Server before its question does.
        self._read_reports()
        for _ in range(BATCH):
            packet = self._plane.read_missed()
            if packet is None:
                return
            self.driver.feed(PacketMissed(destination_of(packet), packet), time.monotonic_ns())

    # --- the control socket ------------------------------------------------------------------------

    def _inspect(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        self.driver.catch_up()
        state = self._machine.inspect(time.monotonic_ns())
        for row in state["map_cache"]:
            packets, octets, last_used_ns = self._plane.usage(ip_network(row["eid"]), state["instance_id"])
            row.update(packets=packets, bytes=octets, last_used_ns=last_used_ns)
        return {**state, **self._drops(), "mtu": self._plane.mtus()}

    def _drops(self) -> dict[str, Any]:
        """What the data plane dropped, by reason, and could not report; why the kernel's part is missing, if it is."""
        drops = {reason: count for reason, count in self._plane.drops().items() if count}
        said: dict[str, Any] = {"drops": drops, "reports_lost": self._plane.reports_lost()}
        why = self._plane.drops_not_counted()
        return said if why is None else {**said, "drops_not_counted": why}

    def _hint(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The orchestrator says that a guest runs here now."""
        now = time.monotonic_ns()
        sighting = Sighting(SightingKind.HINT, str(request["mac"]).lower(), ip_address(request["eid"]))
        self.driver.feed(HostSighted(sighting, now), now)
        return {}

    def _expect(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The orchestrator says which MAC an EID has, wherever it is."""
        expected = HostExpected(ip_address(request["eid"]), str(request["mac"]).lower())
        self.driver.feed(expected, time.monotonic_ns())
        return {}

    def _gone(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The orchestrator says that a guest of this site was destroyed."""
        self.driver.feed(HostGone(ip_address(request["eid"])), time.monotonic_ns())
        return {}

    def _locator(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The operator says whether a locator of this site is up."""
        rloc, up = ip_address(request["rloc"]), request["up"]
        if rloc not in self._rlocs or not isinstance(up, bool):
            known = ", ".join(map(str, self._rlocs))
            raise ValueError(f"{request['rloc']!r} up {up!r}; allowed: one of {known}, true or false")
        self.driver.feed(SiteLocatorChanged(rloc, up), time.monotonic_ns())
        return {}

    # --- actions -----------------------------------------------------------------------------------

    def _set_forwarding(self, action: SetForwarding) -> None:
        self._plane.set_entry(entry_of(action))

    def _bind_neighbour(self, action: BindNeighbour) -> None:
        """Spare the kernel the question; where its table is full (gc_thresh3), it asks when it has to."""
        try:
            self._neighbours.bind(action.eid, action.mac)
        except OSError as error:
            self._log.emit("neighbour_not_bound", eid=str(action.eid), reason=error.strerror)

    def _answer_neighbour(self, action: AnswerNeighbour) -> None:
        if isinstance(action.eid, IPv4Address) and isinstance(action.asker, IPv4Address):
            frame = arp_reply(
                mac=self._gateway_mac, address=action.eid, to_mac=action.asker_mac, to_address=action.asker
            )
        elif isinstance(action.eid, IPv6Address) and isinstance(action.asker, IPv6Address):
            frame = neighbour_advertisement(
                mac=self._gateway_mac, address=action.eid, to_mac=action.asker_mac, to_address=action.asker
            )
        else:
            return
        self._lan.send(frame)

    def _probe_neighbour(self, action: ProbeNeighbour) -> None:
        for gateway in self._gateways:
            if isinstance(action.eid, IPv4Address) and isinstance(gateway, IPv4Address):
                self._lan.send(arp_request(mac=self._gateway_mac, address=gateway, to_mac=action.mac, asked=action.eid))
            elif isinstance(action.eid, IPv6Address) and isinstance(gateway, IPv6Address):
                self._lan.send(
                    neighbour_solicitation(mac=self._gateway_mac, address=gateway, to_mac=action.mac, asked=action.eid)
                )


@asynccontextmanager
async def xtr_agent(runtime: Runtime) -> AsyncIterator[None]:
    """An xTR in the node's network namespace, for as long as the context is open."""
    config = config_from(runtime.config)
    with ExitStack() as stack:
        nonces = NonceStore(Path(runtime.config["state"]))
        stack.callback(nonces.close)
        control = ControlSocket(config.rloc)
        stack.callback(control.close)
        plane = open_ebpf(
            rloc=config.rloc,
            core_interface=runtime.config["core_interface"],
            eid_interface=runtime.config["eid_interface"],
            dynamic_eid_prefixes=config.dynamic_eid_prefixes,
            instance_id=config.instance_id,
            map_versioning=config.mechanism.map_versions,
            on_path_mtu=lambda rloc, mtu: runtime.log.emit("path_mtu_changed", rloc=str(rloc), mtu=mtu),
            locator_status_bits=None if config.options.locator_status_bits == "none" else 0,
            echo_timeout_ms=config.options.echo_nonce_timeout_s * 1000 if config.options.echo_nonce else None,
            hear_sources=config.options.gleaning,
            hear_locator_status=config.options.locator_status_bits != "none",
        )
        stack.callback(plane.close)
        lan = LanSocket(runtime.config["eid_interface"])
        stack.callback(lan.close)
        neighbours = NeighbourTable(runtime.config["eid_interface"])
        stack.callback(neighbours.close)
        pace = Pace()
        agent = XtrAgent(runtime, config, plane, lan, neighbours, control, nonces, pace)
        stack.callback(agent.stop)
        if every_ms := runtime.config.get("rehearse_every_ms"):
            part = Part.MOBILE_SITE if config.dynamic_eid_prefixes else Part.CORRESPONDENT
            rehearsal = Rehearsal(
                part, config.mechanism, xtr_options=config.options, authentication=runtime.config["authentication"]
            )
            dry: dict[type, Callable[[Any], None]] = {SetForwarding: lambda action: plane.rehearse(entry_of(action))}
            stack.enter_context(
                rehearse(
                    rehearsal,
                    every_ms / 1000,
                    agent=agent.driver,
                    log=runtime.log,
                    control=control,
                    pace=pace,
                    dry=dry,
                )
            )
        pace.take(AGENT_PRIORITY)
        settle_memory()
        agent.start()
        yield


if __name__ == "__main__":
    sys.exit(run_agent("xtr", xtr_agent, run=uvloop.run))
