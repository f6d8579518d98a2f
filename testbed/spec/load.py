"""Text in, models out. Pure: whoever reads the files is elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from testbed.spec.checks import Finding, experiment_findings, topology_findings
from testbed.spec.document import Document
from testbed.spec.experiment import Experiment
from testbed.spec.problems import Problem, SpecError
from testbed.spec.sweep import ONE_WAY, TOPOLOGY, is_of_topology, single_values
from testbed.spec.topology import Topology
from testbed.spec.validate import validate


def load_topology(text: str, filename: str, *, overrides: Sequence[str] = ()) -> Topology:
    """Return the topology that `text` describes.

    Args:
        text: YAML.
        filename: what problems are placed in.
        overrides: `topology.sites.0.link.delay_ms=5`, or `one_way_ms=10` for the delay between any two edges.

    Raises:
        SpecError: with every problem as `filename:line:column: what, what is allowed`.
    """
    document = Document(text, filename)
    for assignment in overrides:
        _override_topology(document, assignment)
    topology = validate(document, Topology)
    _raise_findings(document, topology_findings(topology))
    return topology


def _override_topology(document: Document, assignment: str) -> None:
    """Lay one override over a topology. Every path between two edges has two links, hence half of the delay each."""
    label, (key, _, value) = f"--set {assignment}", assignment.partition("=")
    if key != ONE_WAY:
        document.override(assignment.removeprefix(TOPOLOGY), label=label)
        return
    try:
        each_ms = float(value) / 2
    except ValueError as error:
        raise SpecError([Problem(label, None, None, f"{value!r} is no delay; allowed: milliseconds")]) from error
    sites = document.data.get("sites")
    places = []
    for index, site in enumerate(sites if isinstance(sites, tuple) else ()):
        further = site.get("further_xtrs") if isinstance(site, Mapping) else ()
        count = len(further) if isinstance(further, tuple) else 0
        places += [f"sites.{index}", *(f"sites.{index}.further_xtrs.{number}" for number in range(count))]
    for place in ("mapping_system", *places):
        document.override(f"{place}.link.delay_ms={each_ms!r}", label=label)


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


def check_grid(
    text: str, filename: str, topology_text: str, *, overrides: Sequence[str], topology_overrides: Sequence[str]
) -> None:
    """Check every value of an experiment's grid by itself.

    Args:
        text: the experiment, which is right without its grid.
        filename: of the experiment.
        topology_text: of the topology that it names, which is right too.
        overrides: laid over the experiment.
        topology_overrides: laid over the topology.

    Raises:
        SpecError: with every problem at the value of the grid that makes it.
    """
    document = Document(text, filename)
    for each in overrides:
        document.override(each)
    sweep = validate(document, Experiment).sweep
    problems = []
    for loc, each in single_values(sweep) if sweep is not None else ():
        try:
            if each.startswith("sweep"):
                raise SpecError([Problem(filename, None, None, "a grid cannot change the sweep")])
            if is_of_topology(each):
                load_topology(topology_text, "", overrides=[*topology_overrides, each])
            else:
                load_experiment(text, filename, overrides=[*overrides, each])
        except SpecError as error:
            problems += [document.problem(loc, problem.what) for problem in error.problems]
    if problems:
        raise SpecError(problems)


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
