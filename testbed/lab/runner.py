"""The experiment itself: baseline, migrate, settle, verify; once for every stop of the itinerary."""

from __future__ import annotations

import time
from typing import Any

from testbed.errors import TestbedError
from testbed.lab.calibration import Injector
from testbed.lab.lab import Lab
from testbed.lab.substrate import Moved
from testbed.plan.times import longest_round_trip_ms

#: How long to wait, beyond the settle window, for a guest that does not answer yet.
ANSWER_DEADLINE_S = 30.0
#: After a first answer the path counts as restored when this many probes in a row have come back.
POLL_S = 0.1
#: Clean probing between two known outages: at least so long, and at least so many probes.
CLEAN_S, CLEAN_PROBES = 0.4, 20
#: What hosts and links may take for a probe beyond the links' delays.
PROCESSING_S = 0.05


class Runner:
    """Performs migrations in a lab whose probers run; every step is an event."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._probing = False
        self._identity: dict[str, Any] | None = None
        self._index = 0

    def run(self, itinerary: tuple[str, ...]) -> None:
        """Walk the itinerary; stops after a migration that failed (its evidence is what matters then)."""
        lab = self._lab
        self._start()
        self._calibrate()
        for site in itinerary:
            lab.progress.phase(f"migration {self._index + 1}/{len(itinerary)}")
            if not self.step(site).ok:
                break
        lab.stop_probers()

    @property
    def migrations(self) -> int:
        """How many were tried."""
        return self._index

    def step(self, site: str) -> Moved:
        """Probe for a baseline, then move the guest to a site, let it settle, verify where everything is.

        Raises:
            TestbedError: it is there already.
        """
        if site == self._lab.guest_site:
            raise TestbedError("already-there", f"{self._lab.guest.name} is at {site} already")
        self._start()
        self._baseline()
        return self._migrate(site)

    def _start(self) -> None:
        """Start the probers and note who the guest is, unless that was done."""
        if not self._probing:
            self._probing = True
            self._lab.start_probers()
            self._identity = self._lab.guest_identity(10.0)

    def _calibrate(self) -> None:
        """Make the known outages that the experiment asks for, each with clean probing before and after it."""
        lab, asked = self._lab, self._lab.experiment.calibration
        if not asked.outages_ms:
            return
        lab.progress.phase(f"calibration: {len(asked.outages_ms) * asked.repeat} known outages")
        clean_s = max(CLEAN_S, CLEAN_PROBES * lab.experiment.probes.interval_ms / 1e3)
        with Injector(lab.plan, lab.network, lab.guest_site) as injector:
            for length_ms in asked.outages_ms * asked.repeat:
                self._pause(clean_s)
                made = injector.inject(length_ms)
                lab.events.emit(
                    "outage_injected", mono_ns=made.start_ns, end_ns=made.end_ns, asked_ms=length_ms,
                    uncertainty_ms=made.uncertainty_ns / 1e6,
                )  # fmt: skip
        self._pause(clean_s)

    def _baseline(self) -> None:
        lab = self._lab
        seconds = lab.experiment.baseline_s
        lab.progress.detail("baseline", f"{seconds:g} s of clean probing")
        lab.events.emit("baseline_started", index=self._index)
        self._pause(seconds)
        lab.events.emit("baseline_ended", index=self._index)
        # A probe of the baseline that is still on its way must find the guest where it was.
        self._pause(longest_round_trip_ms(lab.plan) / 1e3 + PROCESSING_S)

    def _migrate(self, site: str) -> Moved:
        lab, index = self._lab, self._index
        source = lab.guest_site
        before = lab.substrate.placement()
        lab.events.emit("placement", index=index, when="before", hosts=before)
        lab.progress.detail(lab.guest.name, f"migrating {source} → {site}")
        lab.events.emit(
            "migration_requested", index=index, guest=lab.guest.name, from_site=source, to_site=site,
            warm_up=index < lab.experiment.warm_up,
        )  # fmt: skip
        moved = lab.substrate.migrate(source, site)
        lab.events.emit("migration_ended", index=index, ok=moved.ok, error=moved.error)
        for action in moved.recovered:
            lab.events.emit("recovered", index=index, action=action)
        if moved.ok:
            lab.guest_site = site
        lab.progress.detail("settling", f"{lab.experiment.settle_s:g} s")
        self._settle()
        # Looking at the hosts takes their processors' time: what the probes see of it is none of the migration's.
        lab.events.emit("settle_ended", index=index)
        self._verify(index, lab.guest_site)
        self._index += 1
        return moved

    def _settle(self) -> None:
        """Wait the settle window, and longer while the guest is silent: an outage is measured to its end."""
        lab = self._lab
        lisp = lab.experiment.lisp
        patience_s = ANSWER_DEADLINE_S
        if lab.experiment.mechanism == "ttl":
            patience_s += 60.0 * lisp.registration_ttl_minutes
        end = time.monotonic() + patience_s
        self._pause(lab.experiment.settle_s)
        known = lab.answered()
        while time.monotonic() < end:
            time.sleep(POLL_S)
            lab.check_agents()
            answered = lab.answered()
            if answered > known:
                break
            lab.progress.detail("settling", f"{lab.guest.name} does not answer yet")
        else:
            return
        self._pause(min(1.0, lab.experiment.settle_s))

    def _verify(self, index: int, site: str) -> None:
        """After a migration: the guest is here only, is the same one, and its EID is registered here only."""
        lab = self._lab
        after = lab.substrate.placement()
        identity = lab.guest_identity(10.0)
        rloc = lab.plan.site(site).rloc
        checks: dict[str, bool] = {
            "guest_only_here": lab.substrate.runs_only_at(site, after),
            "guest_answers": identity is not None,
            "mapping_only_here": lab.mapping() == [rloc],
        }
        if identity is not None and self._identity is not None:
            checks["boot_id_unchanged"] = identity["boot_id"] == self._identity["boot_id"]
            checks["uptime_not_backwards"] = identity["uptime_ms"] >= self._identity["uptime_ms"]
            self._identity = identity
        lab.events.emit("placement", index=index, when="after", hosts=after)
        lab.events.emit("guest_identity", index=index, guest=lab.guest.name, **(identity or {"error": "no answer"}))
        lab.events.emit(
            "verification", index=index, site=site, ok=all(checks.values()), checks=checks, mapping=lab.mapping()
        )

    def _pause(self, seconds: float) -> None:
        """Let time pass; an agent that dies meanwhile ends the run."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))
            self._lab.check_agents()
