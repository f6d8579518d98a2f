"""Brings a plan's nodes, LANs and impaired links up in Mininet."""

from testbed.lab.network.errors import NetworkError, ToolMissingError
from testbed.lab.network.impairment import EffectiveImpairment
from testbed.lab.network.network import Network, network

__all__ = ["EffectiveImpairment", "Network", "NetworkError", "ToolMissingError", "network"]
