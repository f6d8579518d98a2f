"""A lab: a plan come to life, in the namespaces of this process. Brought up in order, taken down in reverse."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError
from testbed.eventlog import EventLog
from testbed.lab.agentprocess import AgentProcess
from testbed.lab.awake import processors_awake
from testbed.lab.captures import Captures, capture_points
from testbed.lab.configs import Configs
from testbed.lab.emulated import EmulatedLab
from testbed.lab.hypervisor.images import ensure_images
from testbed.lab.network.network import Network
from testbed.lab.progress import ProgressWriter
from testbed.lab.request import Request
from testbed.lab.substrate import Substrate
from testbed.lab.xenlab import XenLab
from testbed.plan.model import Plan
from testbed.spec.experiment import Experiment


class Lab:
    """Network, agents, captures, hosts and guest of one plan.

    Attributes:
        plan, experiment, request: what it is made from.
        run_dir: the run's folder.
        events: the orchestrator's event log.
        network: up after `up`.
        substrate: holds the guest.
        guest_site: where the guest is, as far as the lab knows.
        captures: records of the captures, for the manifest, once they have ended.
    """

    def __init__(
        self, request: Request, plan: Plan, experiment: Experiment, events: EventLog, progress: ProgressWriter
    ) -> None:
        self.request, self.plan, self.experiment = request, plan, experiment
        self.run_dir = Path(request.run_dir)
        self.events, self.progress = events, progress
        self.guest = plan.guests[0]
        self.guest_site = self.guest.site
        self.captures: list[dict[str, Any]] = []
        self.agents: dict[str, AgentProcess] = {}
        self._configs = Configs(plan, experiment, self.run_dir / "events.jsonl", request.folder)
        self._stack = contextlib.ExitStack()
        self._capturing: Captures | None = None
        self.network: Network
        self.substrate: Substrate

    # --- up and down

    def up(self) -> None:
        """Bring everything up until the guest answers its correspondent."""
        self.progress.phase("network")
        if self.experiment.lisp.rehearse_every_ms is not None:
            how = self._stack.enter_context(processors_awake())
            self.events.emit("processors_kept_awake", how=how)
        self.network = self._stack.enter_context(Network(self.plan, self.run_dir, seed=self.experiment.seed))
        self.substrate = self._make_substrate()
        self._stack.callback(self.substrate.close)
        self.progress.phase("hosts")
        with ThreadPoolExecutor(max_workers=1) as pool:
            hosts = pool.submit(self.substrate.up)
            try:
                self._start_captures()
                self._start_agents()
                hosts.result()
            except BaseException:
                if not hosts.done():  # one that did not come up by itself is still asked for its logs
                    self.substrate.abandon()
                raise
        self._wait_sites()
        self.progress.phase("guest")
        self.substrate.start_guest()
        # First the registration, then the first packet to it: an ITR that asks too early is told for a minute
        # that nobody has the EID (RFC 9301 §8.3's negative reply).
        self.progress.detail(self.guest.name, "waiting for its registration")
        self.wait_mapping(self.guest_site, self.experiment.timeouts_s.guest_boot)
        self.wait_guest(self.experiment.timeouts_s.agents)
        self.substrate.guest_answers()

    def _make_substrate(self) -> Substrate:
        if self.experiment.substrate == "netns":
            return EmulatedLab(
                self.plan, self.experiment, self.network, self.events, self._start_guest_agent, self._expect_guest
            )
        images = ensure_images(lambda line: self.progress.detail("images", line))
        return XenLab(
            self.plan,
            self.experiment,
            images,
            self.network,
            self.request.folder,
            self.run_dir,
            self.events,
            self.progress.detail,
            cold=self.request.cold,
        )

    def _start_guest_agent(self) -> None:
        """Start what answers in an emulated guest."""
        self._start_agent(self._configs.emulated_guest(self.guest)).wait_ready(self.experiment.timeouts_s.agents)

    def _expect_guest(self, site: str) -> None:
        """Tell a site's xTR which EID the guest's MAC has: a RARP carries no IP (RFC 903)."""
        self.agents[self.plan.site(site).xtr].ask({"op": "expect", "eid": self.guest.eid, "mac": self.guest.mac})

    def _start_captures(self) -> None:
        points = capture_points(self.plan, self.substrate.capture_points())
        self._capturing = Captures(points, self.network, self.run_dir)
        self._stack.callback(self._stop_captures)
        self._capturing.wait_ready()

    def _stop_captures(self) -> None:
        if self._capturing is not None and not self.captures:
            self.captures = self._capturing.stop()

    def _start_agents(self) -> None:
        specs = [self._configs.map_server(), *(xtr for site in self.plan.sites for xtr in self._configs.xtrs(site))]
        if "from-guest" in self.experiment.probes.directions:
            specs.append(self._configs.correspondent_services())
        for spec in specs:
            self._start_agent(spec)
        for agent in self.agents.values():
            agent.wait_ready(self.experiment.timeouts_s.agents)

    def _start_agent(self, spec: Any) -> AgentProcess:
        agent = AgentProcess(spec, self.network, self.request.folder, self.run_dir / "logs")
        self.agents[spec.name] = agent
        self._stack.callback(agent.stop)
        return agent

    def close(self) -> None:
        """Take everything down, in reverse; idempotent."""
        for agent in self.agents.values():
            agent.ask_to_end()  # all at once; each is waited for in its turn
        self._stack.close()

    # --- probing

    def start_probers(self) -> None:
        """Start the probers."""
        (self.run_dir / "probes").mkdir(exist_ok=True)
        for spec in self._configs.probers(self.guest, self.run_dir / "probes"):
            self._start_agent(spec).wait_ready(self.experiment.timeouts_s.agents)

    def stop_probers(self) -> None:
        """End the probers; their last rows are then written."""
        for name, agent in self.agents.items():
            if name.startswith("prober-"):
                agent.stop()

    def answered(self) -> int:
        """How many probes have been answered so far, over all flows."""
        return sum(
            int(agent.ask({"op": "answered"})["answered"])
            for name, agent in self.agents.items()
            if name.startswith("prober-")
        )

    def check_agents(self) -> None:
        """Raise TestbedError if an agent has died: what follows would measure its absence."""
        for agent in self.agents.values():
            agent.check_alive()

    # --- what is so

    def guest_identity(self, deadline_s: float) -> dict[str, Any] | None:
        """The guest's boot ID and uptime, asked by its correspondent through the overlay; None without an answer."""
        module = [sys.executable, "-m", "testbed.lab.agents.identity", self.guest.eid, str(deadline_s)]
        try:
            done = self.network.exec(self.plan.correspondent.node, module, timeout=deadline_s + 5.0)
        except subprocess.TimeoutExpired:
            return None
        return dict(json.loads(done.stdout)) if done.returncode == 0 else None

    def wait_guest(self, deadline_s: float) -> dict[str, Any]:
        """Wait until the guest answers its correspondent; TestbedError if it does not."""
        self.progress.detail(self.guest.name, "waiting for its first answer")
        identity = self.guest_identity(deadline_s)
        if identity is None:
            raise TestbedError(
                "guest-silent",
                f"{self.guest.name} ({self.guest.eid}) did not answer {self.plan.correspondent.node} "
                f"within {deadline_s:.0f} s",
                next_command=f"less {self.run_dir}/console/{self.guest.name}@*.log",
            )
        self.events.emit("guest_identity", guest=self.guest.name, **identity)
        return identity

    def mapping(self) -> list[str]:
        """The locators that the Map-Server has for the guest's EID, [] if it is not registered."""
        instance_id = self.plan.site(self.guest.site).instance_id
        return self._registered(f"{self.guest.eid}/{128 if ':' in self.guest.eid else 32}", instance_id)

    def _registered(self, prefix: str, instance_id: int) -> list[str]:
        """The locators that the Map-Server has for an EID-prefix of an instance, [] if it is not registered."""
        for found in self.agents[self.plan.mapping_system.node].inspect()["registrations"]:
            if (found["eid"], found.get("instance_id", 0)) == (prefix, instance_id):
                return list(found["locators"])
        return []

    def wait_mapping(self, site: str, deadline_s: float) -> None:
        """Wait until the guest's EID is registered at this site's RLOC and nowhere else."""
        self._wait_registered(self.guest.eid, self.mapping, self.plan.site(site).rlocs, deadline_s)

    def _wait_sites(self) -> None:
        """Wait until every site's own prefixes are registered: see `up` for who asks too early."""
        for site in self.plan.sites:
            for prefix in site.eid_prefixes:
                found = partial(self._registered, prefix, site.instance_id)
                self._wait_registered(prefix, found, site.rlocs, self.experiment.timeouts_s.agents)

    def _wait_registered(
        self, eid: str, found_at: Callable[[], list[str]], rlocs: tuple[str, ...], deadline_s: float
    ) -> None:
        end = time.monotonic() + deadline_s
        while sorted(found := found_at()) != sorted(rlocs):
            if time.monotonic() > end:
                raise TestbedError(
                    "eid-unregistered",
                    f"{eid} is not registered at {', '.join(rlocs)} after {deadline_s:.0f} s",
                    why=f"the Map-Server has {found or 'nothing'}",
                )
            self.check_agents()
            time.sleep(0.05)

    def inspect(self) -> dict[str, Any]:
        """Every agent's state, and what runs where."""
        agents = {}
        for name, agent in self.agents.items():
            try:
                agents[name] = agent.inspect()
            except TestbedError as error:
                agents[name] = {"error": str(error)}
        return {"guest_site": self.guest_site, "agents": agents, "placement": self.substrate.placement()}
