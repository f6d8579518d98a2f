"""What can go wrong while a plan is brought up."""

from __future__ import annotations

from testbed.errors import PrerequisiteMissingError, TestbedError


class NetworkError(TestbedError):
    """The network could not be brought up, or a command in a node failed."""


class ToolMissingError(PrerequisiteMissingError):
    """A program that the network needs is not installed."""
