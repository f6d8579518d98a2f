"""One run from outside the lab: its folder prepared, its lab launched, followed, ended, cleaned up."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from testbed.errors import TestbedError
from testbed.lab import manifest as manifests
from testbed.lab import namespaces
from testbed.lab.hypervisor.images import ensure_images
from testbed.lab.progress import ProgressReader
from testbed.lab.request import Request
from testbed.plan.build import build_plan
from testbed.plan.codec import plan_to_json
from testbed.plan.graph import render
from testbed.plan.itinerary import itinerary
from testbed.plan.model import Plan
from testbed.spec.experiment import Experiment
from testbed.specfiles import read_experiment, read_text, topology_path

#: How long a lab may take to gather its evidence and end, once told to.
GRACE_S = 90.0
TOOLS = {"unshare": "util-linux", "mnexec": "mininet", "dumpcap": "wireshark-common", "ip": "iproute2"}


@dataclass(frozen=True, slots=True)
class Study:
    """An experiment with its topology, read and checked.

    Attributes:
        experiment, plan: the models.
        experiment_text, topology_text: as a person wrote them.
        overrides: of `--set`.
    """

    experiment: Experiment
    plan: Plan
    experiment_text: str
    topology_text: str
    overrides: tuple[str, ...]


def read_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Read an experiment and the topology that it names.

    Raises:
        SpecError: with every problem in either file.
        FileUnreadableError: a file cannot be read.
    """
    experiment, topology = read_experiment(path, overrides)
    texts = read_text(path), read_text(topology_path(experiment, path))
    return Study(experiment, build_plan(topology, experiment), *texts, tuple(overrides))


def new_run_id() -> str:
    """A run's ID: UTC time and six random hexadecimal digits."""
    return f"{time.strftime('%Y-%m-%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"


class Session:
    """A lab that this process launched.

    Args:
        study: what to run.
        out: the folder that takes the run's folder.
        mode: "run" or "up".
        repeat: how many times the itinerary is walked.
        migrations: walk it, there and back, until the guest has migrated so often, whatever `repeat` is.
        cold: boot the Xen hosts from nothing.
        fail_if: thresholds, kept in the manifest.
        command: what the person typed, kept in the manifest.
    """

    def __init__(
        self,
        study: Study,
        *,
        out: Path,
        mode: Literal["run", "up"] = "run",
        repeat: int = 1,
        migrations: int | None = None,
        cold: bool = False,
        fail_if: Sequence[str] = (),
        command: str = "",
    ) -> None:
        self.study = study
        self.run_id = new_run_id()
        self.run_dir = (out / self.run_id).resolve()
        stops = itinerary(study.plan.guests[0].site, list(study.experiment.destinations()), migrations or repeat)
        self.request = Request(self.run_id, mode, str(self.run_dir), tuple(stops[:migrations]), cold)
        self._manifest = manifests.first(
            run_id=self.run_id,
            experiment=study.experiment,
            supplied=study.experiment_text,
            overrides=list(study.overrides),
            command=command,
            plan=study.plan,
            fail_if=list(fail_if),
            repeat=repeat,
        )
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self, progress: Callable[[str], None]) -> None:
        """Check the tools and the runtime folder, build the images if they are missing, make the run's folder.

        The images are built here, outside: a lab's namespaces have no way to the package mirrors.
        """
        self.request.check_folder()
        for tool, package in TOOLS.items():
            if shutil.which(tool) is None:
                raise TestbedError(
                    "tool-missing", f"{tool} is not installed", why=f"it comes with the package {package}",
                    next_command="sudo script/bootstrap",
                )  # fmt: skip
        if self.study.experiment.substrate == "xen":
            ensure_images(progress)
        (self.run_dir / "logs").mkdir(parents=True)
        (self.run_dir / "experiment.yaml").write_text(self.study.experiment_text)
        (self.run_dir / "topology.yaml").write_text(self.study.topology_text)
        (self.run_dir / "plan.json").write_text(plan_to_json(self.study.plan))
        (self.run_dir / "topology.svg").write_text(render(self.study.plan, "svg"))
        manifests.write(self.run_dir, self._manifest)

    def launch(self) -> None:
        """Start the lab."""
        self._process = namespaces.launch(self.request)

    def follow(self) -> Iterator[dict[str, Any] | None]:
        """What the lab says, as it says it; None every 0.1 s in between. Ends when the lab has ended or is ready."""
        assert self._process is not None
        reader = ProgressReader(self.request.folder)
        while True:
            ended = self._process.poll() is not None
            for line in reader.new():
                yield line
                if line["type"] == "ready":
                    return
            if ended:
                return
            yield None
            time.sleep(0.1)

    def note_death(self) -> dict[str, Any]:
        """Write into the manifest that the lab ended without a word, with its last ones; returns the outcome."""
        log = self.run_dir / "logs" / "lab" / "supervisor.log"
        said = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        outcome = {
            "ok": False,
            "code": 11,
            "id": "lab-died",
            "error": f"the lab ended without a word{': ' + said[-1] if said else ''}",
            "why": f"its last lines are in {log}",
            "next_command": "testbed doctor",
        }
        manifests.write(self.run_dir, {**manifests.read(self.run_dir), "outcome": outcome})
        return outcome

    def end(self) -> bool:
        """End the lab, gathering its evidence first; True if it went without being killed. Idempotent."""
        clean = namespaces.terminate(self.request.folder, grace_s=GRACE_S)
        if self._process is not None:
            self._process.wait()
        namespaces.remove(self.request.folder)
        return clean


def labs() -> list[Path]:
    """The runtime folders of all labs that are recorded on this machine."""
    from testbed.paths import runtime

    folder = runtime() / "labs"
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.exists() else []
