"""What a person writes: topologies and experiments, and errors that say where. Pure."""

from testbed.spec.experiment import Experiment
from testbed.spec.load import apply_overrides, kind_of, load_experiment, load_topology
from testbed.spec.problems import Problem, SpecError
from testbed.spec.topology import Topology

__all__ = [
    "Experiment",
    "Problem",
    "SpecError",
    "Topology",
    "apply_overrides",
    "kind_of",
    "load_experiment",
    "load_topology",
]
