"""What each agent is told, from the plan and the experiment."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from testbed.lab.hypervisor.keys import write_secret
from testbed.lisp.config import MapServerOptions, XtrOptions
from testbed.plan.model import Guest, Plan, Site
from testbed.spec.experiment import Experiment

SITE_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """One agent to start: its name in the lab, its kind, its node, its configuration."""

    name: str
    kind: str
    node: str
    config: Mapping[str, Any]


def make_site_keys(plan: Plan, folder: Path) -> dict[str, Path]:
    """A secret for each site, 0600, new in every lab; returns site → file."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = {}
    for site in plan.sites:
        files[site.name] = folder / f"{site.name}.key"
        write_secret(files[site.name], secrets.token_hex(SITE_KEY_BYTES).encode())
    return files


class Configs:
    """The configurations of a lab's agents.

    Args:
        plan: of the lab.
        experiment: its mechanism and options.
        events: the run's events.jsonl.
        folder: the lab's runtime folder.
    """

    def __init__(self, plan: Plan, experiment: Experiment, events: Path, folder: Path) -> None:
        self._plan = plan
        self._experiment = experiment
        self._events = events
        self._folder = folder
        self._keys = make_site_keys(plan, folder / "keys")

    def _agent(self, name: str, kind: str, node: str, **config: Any) -> AgentSpec:
        shared = {"node": node, "events": str(self._events), "control": str(self._folder / f"{name}.sock")}
        return AgentSpec(name, kind, node, {**shared, **config})

    def _limits(self, options: type[XtrOptions] | type[MapServerOptions]) -> dict[str, float]:
        """The rate limits that are switched off, as far as a kind of agent has them."""
        known = {each.name for each in fields(options)}
        off = [f"{name}_interval_s" for name, on in self._experiment.lisp.limiters.model_dump().items() if not on]
        return {name: 0.0 for name in off if name in known}

    def map_server(self) -> AgentSpec:
        """The Map-Server and Map-Resolver."""
        lisp = self._experiment.lisp
        sites = [
            {
                "name": site.name,
                "eid_prefixes": list(site.eid_prefixes),
                "dynamic_eid_prefixes": list(site.dynamic_eid_prefixes),
                "instance_id": site.instance_id,
                "key_id": site.key_id,
                "key_file": str(self._keys[site.name]),
            }
            for site in self._plan.sites
        ]
        node = self._plan.mapping_system.node
        return self._agent(
            node,
            "mapserver",
            node,
            rloc=self._plan.mapping_system.rloc,
            sites=sites,
            state=str(self._folder / f"{node}.state"),
            mechanism=self._experiment.mechanism,
            rehearse_every_ms=lisp.rehearse_every_ms,
            authentication=lisp.authentication,
            options={
                "proxy_reply": lisp.proxy_reply,
                "tolerate": list(lisp.tolerate),
                **self._limits(MapServerOptions),
            },
        )

    def xtrs(self, site: Site) -> list[AgentSpec]:
        """A site's xTRs; of several each registers its own locator, and the Map-Server merges them."""
        priorities = [site.rloc_priority, *(each.rloc_priority for each in site.further_xtrs)]
        weights = [site.rloc_weight, *(each.rloc_weight for each in site.further_xtrs)]
        locators = [
            {"rloc": rloc, "priority": priority, "weight": weight}
            for rloc, priority, weight in zip(site.rlocs, priorities, weights, strict=True)
        ]
        first = self._xtr(site, site.xtr, site.rloc, site.gateway, site.gateway_mac, locators)
        others = [
            self._xtr(site, each.node, each.rloc, each.addresses, each.mac, locators) for each in site.further_xtrs
        ]
        return [first, *others]

    def _xtr(
        self, site: Site, node: str, rloc: str, gateway: tuple[str, ...], mac: str, locators: list[dict[str, Any]]
    ) -> AgentSpec:
        """One of them: its locator, its addresses and MAC on the LAN; all locators of the site."""
        lisp = self._experiment.lisp
        options: dict[str, Any] = {
            "registration_ttl_minutes": lisp.registration_ttl_minutes,
            "refresh_s": lisp.refresh_s,
            "proxy_reply": lisp.proxy_reply,
            "on_miss": "hold" if lisp.hold else "drop",
            "tolerate": list(lisp.tolerate),
            "echo_nonce": lisp.echo_nonce,
            "gleaning": lisp.gleaning,
            "locator_status_bits": lisp.locator_status_bits,
        }
        if lisp.rloc_probing:
            options["rloc_probe_interval_s"] = lisp.rloc_probe_interval_s
        if site.further_xtrs:
            options["merge_registrations"] = True
        options |= self._limits(XtrOptions)
        instance = [each for each in self._plan.sites if each.instance_id == site.instance_id]
        space = {prefix for each in instance for prefix in (*each.eid_prefixes, *each.dynamic_eid_prefixes)}
        return self._agent(
            node,
            "xtr",
            node,
            rloc=rloc,
            locators=locators,
            core_interface=site.core_interface,
            eid_interface=site.eid_interface,
            eid_prefixes=list(site.eid_prefixes),
            dynamic_eid_prefixes=list(site.dynamic_eid_prefixes),
            eid_space=sorted(space),
            instance_id=site.instance_id,
            gateway=list(gateway),
            gateway_mac=mac,
            authentication=lisp.authentication,
            map_servers=[self._plan.mapping_system.rloc],
            map_resolvers=[self._plan.mapping_system.rloc],
            key_id=site.key_id,
            key_file=str(self._keys[site.name]),
            state=str(self._folder / f"{node}.state"),
            mechanism=self._experiment.mechanism,
            rloc_probe_interval_s=lisp.rloc_probe_interval_s,
            rehearse_every_ms=lisp.rehearse_every_ms,
            options=options,
        )

    def emulated_guest(self, guest: Guest) -> AgentSpec:
        """What answers in an emulated guest, beside its kernel."""
        return self._agent(guest.name, "responder", guest.name, addresses=[guest.eid], identity=True)

    def correspondent_services(self) -> AgentSpec:
        """What answers at the correspondent when the guest asks."""
        node = self._plan.correspondent.node
        return self._agent(f"responder-{node}", "responder", node)

    def probers(self, guest: Guest, probes_folder: Path) -> list[AgentSpec]:
        """The probers, one a flow and direction: at the correspondent, or in an emulated guest.

        A Xen guest has its own prober (`images/guest/prober.c`), of which captures tell.
        """
        node, eid = self._plan.correspondent.node, self._plan.correspondent.eid.split("/")[0]
        ends = {"to-guest": (node, eid, guest.eid), "from-guest": (guest.name, guest.eid, eid)}
        probes = self._experiment.probes
        directions = [way for way in probes.directions if way not in probes.captured(self._experiment.substrate)]
        return [
            self._agent(
                f"prober-{flow}-{direction}",
                "prober",
                ends[direction][0],
                source=ends[direction][1],
                target=ends[direction][2],
                flow=flow,
                direction=direction,
                interval_ms=probes.interval_ms,
                output=str(probes_folder / f"{flow}-{direction}.jsonl"),
            )
            for direction in directions
            for flow in probes.flows
        ]
