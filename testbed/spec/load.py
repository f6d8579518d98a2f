"""Text in, models out. Pure: whoever reads the files is elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from testbed.spec.checks import Finding, experiment_findings, topology_findings
from testbed.spec.document import Document
from testbed.spec.experiment import Experiment
from testbed.spec.problems import Problem, SpecError
from testbed.spec.topology import Topology
from testbed.spec.validate import validate


def load_topology(text: str, filename: str) -> Topology:
    """Return the topology that `text` describes.

    Raises:
        SpecError: with every problem as `filename:line:column: what, what is allowed`.
    """
    document = Document(text, filename)
    topology = validate(document, Topology)
    _raise_findings(document, topology_findings(topology))
    return topology


def load_experiment(
    text: str, filename: str, *, overrides: Sequence[str] = (), topology: Topology | None = None
) -> Experiment:
    """Return the experiment that `text` describes with `overrides` laid over it.

    Args:
        text: YAML.
        filename: what problems are placed in.
        overrides: assignments as `--set` takes them, `probes.interval_ms=5`; later ones win.
        topology: the one that the experiment names, once it is known; checks what refers to it.

    Raises:
        SpecError: with every problem, placed in the file or at the override that made it.
    """
    document = Document(text, filename)
    for assignment in overrides:
        document.override(assignment)
    experiment = validate(document, Experiment)
    _raise_findings(document, experiment_findings(experiment, topology))
    return experiment


def apply_overrides(
    experiment_text: str, overrides: Sequence[str], filename: str, *, topology: Topology | None = None
) -> Experiment:
    """Return `load_experiment` with overrides, in the order in which a command line has them."""
    return load_experiment(experiment_text, filename, overrides=overrides, topology=topology)


def kind_of(text: str, filename: str) -> Literal["topology", "experiment"]:
    """Say which of the two kinds of file `text` is, by the keys that only one of them has.

    Raises:
        SpecError: it is not YAML, or neither.
    """
    keys = Document(text, filename).data.keys()
    if keys & {"sites", "mapping_system", "correspondent", "rloc_space"}:
        return "topology"
    if keys & {"topology", "migrations", "mechanism", "substrate"}:
        return "experiment"
    what = "neither a topology nor an experiment; allowed: a file with `sites:` or with `topology:`"
    raise SpecError([Problem(filename, 1, 1, what)])


def _raise_findings(document: Document, findings: Iterable[Finding]) -> None:
    problems = [document.problem(loc, what) for loc, what in findings]
    if problems:
        raise SpecError(problems)
