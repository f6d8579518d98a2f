"""The first process of a lab: `python -m testbed.lab.supervisor REQUEST.json`, inside its namespaces.

It brings the lab up, performs the experiment or waits for requests, gathers the evidence whatever happens, and ends;
the kernel takes the rest. SIGTERM at any moment means: gather what there is, and end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from testbed.errors import TestbedError
from testbed.eventlog import EventLog
from testbed.lab import manifest as manifests
from testbed.lab.control import ControlServer
from testbed.lab.lab import Lab
from testbed.lab.progress import ProgressWriter
from testbed.lab.request import Request
from testbed.lab.runner import Runner
from testbed.plan.codec import plan_from_json
from testbed.spec.experiment import Experiment

INTERRUPTED = {"ok": False, "code": 11, "error": "interrupted"}


class InterruptedLabError(BaseException):
    """SIGTERM came. Not an Exception: nothing on the way may swallow it."""


#: Of a lab that was brought up and taken down again.
NOTHING_ASKED = {"ok": True, "code": 13, "error": "nobody asked for a migration"}


def describe(error: BaseException) -> dict[str, Any]:
    """An error as the manifest's outcome and the command line's message."""
    if isinstance(error, InterruptedLabError):
        return INTERRUPTED
    if isinstance(error, TestbedError):
        return {
            "ok": False, "code": error.exit_code, "id": error.code, "error": error.what, "why": error.why,
            "next_command": error.next_command,
        }  # fmt: skip
    last = traceback.extract_tb(error.__traceback__)[-1]
    return {
        "ok": False, "code": 11, "id": "internal", "error": f"{type(error).__name__}: {error}",
        "why": f"at {Path(last.filename).name}:{last.lineno}; the whole trace is in logs/lab/supervisor.log",
        "next_command": "",
    }  # fmt: skip


class Supervisor:
    """Owns the lab and the run's manifest."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._run_dir = Path(request.run_dir)
        self._manifest = manifests.read(self._run_dir)
        self._experiment = Experiment.model_validate_json(json.dumps(self._manifest["experiment"]))
        self._events = EventLog(self._run_dir / "events.jsonl", "lab")
        self._progress = ProgressWriter(request.folder)
        plan = plan_from_json((self._run_dir / "plan.json").read_text())
        self._lab = Lab(request, plan, self._experiment, self._events, self._progress)
        self._cpu_before = manifests.cpu_times()

    def run(self) -> dict[str, Any]:
        """Do what was asked; returns the outcome. Evidence is gathered in every case."""
        outcome: dict[str, Any] = {"ok": True, "code": 0}
        try:
            self._lab.up()
            self._save_nodes()
            runner = Runner(self._lab)
            if self._request.mode == "run":
                runner.run(self._request.itinerary)
            else:
                self._serve(runner)
                outcome = outcome if runner.migrations else NOTHING_ASKED
        except BaseException as error:
            if not isinstance(error, TestbedError | InterruptedLabError):
                traceback.print_exc()
            outcome = describe(error)
        # From here on nothing interrupts: what was measured must be on disk before the lab goes.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._progress.phase("evidence")
        try:
            self._gather(outcome)
        except Exception as error:  # the outcome of the run matters more than a missing log
            traceback.print_exc()
            self._events.emit("evidence_failed", error=str(error))
        self._progress.phase("down")
        self._lab.close()
        self._finish(outcome)
        return outcome

    def _save_nodes(self) -> None:
        """Write where the nodes are, for `testbed exec` and `shell`."""
        nodes = {"nodes": self._lab.network.pids()}
        (self._request.folder / "nodes.json").write_text(json.dumps(nodes))

    def _serve(self, runner: Runner) -> None:
        """Mode "up": migrate and inspect on request, until SIGTERM, which interrupts a migration only."""
        migrating = threading.Event()

        def migrate(request: dict[str, Any]) -> dict[str, Any]:
            migrating.set()
            try:
                moved = runner.step(str(request["to"]))
            finally:
                migrating.clear()
            return {"migrated": moved.ok, "error": moved.error, "recovered": list(moved.recovered)}

        handlers = {"inspect": lambda _: self._lab.inspect(), "migrate": migrate}
        with ControlServer(self._request.folder / "lab.sock", handlers):
            self._progress.ready()
            try:
                while True:
                    signal.pause()
            except InterruptedLabError:
                if migrating.is_set():
                    raise

    def _gather(self, outcome: dict[str, Any]) -> None:
        lab = self._lab
        if not hasattr(lab, "substrate"):
            return
        lab.stop_probers()
        nature = lab.substrate.nature()
        self._manifest |= {
            "accelerator": nature.accelerator,
            "accelerator_reason": nature.accelerator_reason,
            "hypervisor": nature.hypervisor,
            "emulated": list(nature.emulated),
        }
        self._manifest["versions"] |= nature.versions
        final = {name: self._try(agent.inspect) for name, agent in lab.agents.items() if agent.process.poll() is None}
        (self._run_dir / "logs" / "lab" / "agents.json").write_text(json.dumps(final, indent=2, default=str))
        if outcome["code"] == 0 or "guest" in outcome.get("id", ""):
            self._manifest["impairments"] = [asdict(effective) for effective in lab.network.impairments()]
        missing = lab.substrate.collect(self._run_dir)
        if missing:
            self._events.emit("evidence_missing", missing=missing)

    @staticmethod
    def _try(action: Any) -> Any:
        try:
            return action()
        except TestbedError as error:
            return {"error": str(error)}

    def _finish(self, outcome: dict[str, Any]) -> None:
        total, stolen = (after - before for after, before in zip(manifests.cpu_times(), self._cpu_before, strict=True))
        self._manifest["host"] |= {
            "load_after": round(os.getloadavg()[0], 2),
            "steal_percent": round(100.0 * stolen / total, 2) if total else None,
        }
        self._manifest["clock"]["end"] = manifests.clock_reading()
        self._manifest["captures"] = self._lab.captures
        self._manifest["outcome"] = outcome
        manifests.write(self._run_dir, self._manifest)
        self._progress.ended(ok=bool(outcome["ok"]), error=None if outcome["ok"] else outcome)


def main() -> int:
    """Entry point; the exit code is the outcome's."""
    request = Request.load(Path(sys.argv[1]))

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise InterruptedLabError

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's ^C is the command line's to handle
    return int(Supervisor(request).run()["code"])


if __name__ == "__main__":
    # Threads that wait for a machine which is gone must not keep a lab alive: PID 1 ends, the kernel reaps.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
