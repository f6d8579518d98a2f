"""Mininet's nodes and links, as this lab wants them: quick, silent, and made by one `ip` each."""

from __future__ import annotations

from typing import Any

from mininet.link import Link as MininetLink
from mininet.log import setLogLevel
from mininet.net import Mininet
from mininet.nodelib import LinuxBridge

from testbed.lab.network.processes import run


class VethLink(MininetLink):  # type: ignore[misc]
    """A veth pair whose ends are made in their nodes' namespaces.

    Mininet's own puts the far end of a switch into the namespace of process 1, which is right only
    where the lab has a PID namespace of its own, and makes each end by hand in the node's shell.
    """

    @classmethod
    def makeIntfPair(  # noqa: N802 - Mininet's name
        cls,
        intfname1: str,
        intfname2: str,
        addr1: str | None = None,
        addr2: str | None = None,
        node1: Any = None,
        node2: Any = None,
        deleteIntfs: bool = False,  # noqa: N803 - Mininet's name
    ) -> None:
        """Make a veth pair: `intfname1` in `node1`, `intfname2` in `node2`, with their MACs."""
        near = ["name", intfname1, "address", str(addr1), "netns", str(node1.pid)]
        far = ["name", intfname2, "address", str(addr2), "netns", str(node2.pid)]
        run(["ip", "link", "add", *near, "type", "veth", "peer", *far])

    def delete(self) -> None:
        """Delete the pair: with one end goes the other."""
        near: Any = self.intf1
        near.delete()


class Lan(LinuxBridge):  # type: ignore[misc]
    """A bridge in the lab's root network namespace; a script makes it, as the nodes are made."""

    script: str = ""

    def start(self, _controllers: object) -> None:
        """Make the bridge and put its ports on it; called by Mininet."""
        run(["sh", "-e"], input_text=self.script)

    def stop(self, deleteIntfs: bool = True) -> None:  # noqa: N803 - Mininet's name
        """Take the bridge away; its ports went with their links."""
        run(["sh"], input_text=f"ip link delete {self.name} 2>/dev/null; :")


def empty_network() -> Mininet:
    """Return a Mininet without anything, with its output silenced.

    Mininet would first raise limits of the whole machine (open files, neighbour tables); a lab changes
    nothing outside its namespaces.
    """
    setLogLevel("error")
    Mininet.inited = True
    return Mininet(controller=None, switch=Lan, link=VethLink, build=False, waitConnected=False)
