"""What a person writes: topologies and experiments, and errors that say where. Pure."""

from testbed.spec.experiment import Experiment
from testbed.spec.load import apply_overrides, check_grid, kind_of, load_experiment, load_topology
from testbed.spec.problems import Problem, SpecError
from testbed.spec.sweep import Cell, GridValue, SweepSpec, cells_of, is_of_topology
from testbed.spec.topology import Topology

__all__ = [
    "Cell",
    "Experiment",
    "GridValue",
    "Problem",
    "SpecError",
    "SweepSpec",
    "Topology",
    "apply_overrides",
    "cells_of",
    "check_grid",
    "is_of_topology",
    "kind_of",
    "load_experiment",
    "load_topology",
]
