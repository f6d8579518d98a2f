"""The commands for labs that are up: status, inspect, migrate, exec, shell, down."""

from __future__ import annotations

import json
import os
import shlex
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from testbed.errors import TestbedError


class LabFormat(str, Enum):
    """How to print."""

    TEXT = "text"
    JSON = "json"


Lab = Annotated[str | None, typer.Option("--lab", help="Which lab, if several are up.")]
Format = Annotated[LabFormat, typer.Option("--format", help="text or json.")]


def chosen(name: str | None) -> Path:
    """The folder of the lab that is meant; TestbedError if that is not one."""
    from testbed.lab.session import labs

    known = labs()
    if name is not None:
        for folder in known:
            if folder.name == name:
                return folder
        raise TestbedError("no-such-lab", f"no lab is called {name}", next_command="testbed status")
    if len(known) != 1:
        listed = ", ".join(folder.name for folder in known) or "none"
        raise TestbedError("which-lab", f"which lab? There are: {listed}", next_command="testbed status")
    return known[0]


def _state(folder: Path) -> dict[str, Any]:
    from testbed.lab.namespaces import supervisor_pid
    from testbed.lab.progress import ProgressReader
    from testbed.lab.request import Request

    phase, ready = "", False
    for line in ProgressReader(folder).new():
        phase = line["name"] if line["type"] == "phase" else phase
        ready = ready or line["type"] == "ready"
    pid = supervisor_pid(folder)
    try:
        run_dir: str | None = Request.load(folder / "request.json").run_dir
    except (OSError, ValueError):
        run_dir = None
    state = "dead" if pid is None else ("up" if ready else "busy")
    return {"lab": folder.name, "state": state, "phase": phase, "pid": pid, "run_dir": run_dir}


def status(output: Format = LabFormat.TEXT) -> None:
    """List the labs of this machine, and what each is doing. Needs root."""
    from testbed.cli.console import require_root
    from testbed.lab.session import labs

    require_root()
    found = [_state(folder) for folder in labs()]
    if output is LabFormat.JSON:
        typer.echo(json.dumps({"labs": found}, indent=2))
        return
    for lab in found:
        note = "  (testbed down cleans up)" if lab["state"] == "dead" else ""
        typer.echo(f"{lab['lab']}  {lab['state']}  {lab['phase']}  {lab['run_dir']}{note}")
    if not found:
        typer.echo("no labs")


def _ask(folder: Path, request: dict[str, Any], deadline_s: float) -> dict[str, Any]:
    from testbed.lab.agentprocess import ask

    if not (folder / "lab.sock").exists():
        raise TestbedError("lab-not-up", f"the lab {folder.name} takes no requests", next_command="testbed status")
    return ask(folder / "lab.sock", request, deadline_s=deadline_s)


def inspect(
    agent: Annotated[str | None, typer.Argument(help="Only this agent (xtr-a, ms, …).")] = None,
    lab: Lab = None,
    output: Format = LabFormat.TEXT,
) -> None:
    """Show the state of a lab's agents: registrations, map-caches, hosts seen, counters. Needs root."""
    from testbed.cli.console import require_root

    require_root()
    state = _ask(chosen(lab), {"op": "inspect"}, 30.0)
    state.pop("ok")
    if agent is not None:
        if agent not in state["agents"]:
            raise TestbedError("no-such-agent", f"no agent {agent}; there are {', '.join(sorted(state['agents']))}")
        state = state["agents"][agent]
    if output is LabFormat.JSON:
        typer.echo(json.dumps(state, indent=2))
    else:
        _print_tree(state, 0)


def _print_tree(value: Any, depth: int) -> None:
    """An object as indented lines, a list of objects as one line each."""
    indent = "  " * depth
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, dict | list) and item:
                typer.echo(f"{indent}{key}:")
                _print_tree(item, depth + 1)
            else:
                typer.echo(f"{indent}{key}: {item if item not in ({}, []) else '-'}")
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                typer.echo(indent + "- " + ", ".join(f"{key} {part}" for key, part in item.items()))
            else:
                typer.echo(f"{indent}- {item}")


def migrate(
    site: Annotated[str, typer.Argument(help="Where the guest shall go.", show_default=False)],
    lab: Lab = None,
) -> None:
    """Migrate the guest of a lab that is up. Needs root."""
    from testbed.cli.console import require_root

    require_root()
    answer = _ask(chosen(lab), {"op": "migrate", "to": site}, 1800.0)
    if not answer["migrated"]:
        raise TestbedError("migration-failed", f"the guest did not move to {site}", why=answer["error"])
    typer.echo(f"the guest is at {site}")


def node_command(folder: Path, node: str, command: list[str]) -> list[str]:
    """The command line that runs something in a node of a lab, or on one of its Xen hosts."""
    from testbed.lab.namespaces import enter_command
    from testbed.lab.request import Request
    from testbed.plan.codec import plan_from_json

    request = Request.load(folder / "request.json")
    plan = plan_from_json((Path(request.run_dir) / "plan.json").read_text())
    for host in plan.xen_hosts:
        if host.name == node:
            key, known = folder / "hosts" / "keys" / "client", folder / "hosts" / "keys" / "known_hosts"
            address = host.out_of_band.split("/")[0]
            ssh = ["ssh", "-q", "-i", str(key), "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes"]
            terminal = ["-t"] if os.isatty(0) else []
            return enter_command(folder, [*ssh, *terminal, f"root@{address}", shlex.join(command)])
    try:
        pids = json.loads((folder / "nodes.json").read_text())["nodes"]
    except OSError as error:
        raise TestbedError("lab-not-up", f"the lab {folder.name} is not up", next_command="testbed status") from error
    if node not in pids:
        known_names = ", ".join([*pids, *(host.name for host in plan.xen_hosts)])
        raise TestbedError("no-such-node", f"no node {node}; there are {known_names}")
    return enter_command(folder, ["mnexec", "-a", str(pids[node]), *command])


def exec_(
    node: Annotated[str, typer.Argument(help="A node (xtr-a, correspondent, …) or a Xen host (xen-a).")],
    command: Annotated[list[str], typer.Argument(help="The command and its arguments.")],
    lab: Lab = None,
) -> None:
    """Run a command in a node or on a Xen host of a lab that is up; its exit code is ours. Needs root."""
    from testbed.cli.console import require_root

    require_root()
    argv = node_command(chosen(lab), node, command)
    os.execvp(argv[0], argv)


def shell(
    node: Annotated[str, typer.Argument(help="A node (xtr-a, correspondent, …) or a Xen host (xen-a).")],
    lab: Lab = None,
) -> None:
    """Open a shell in a node or on a Xen host of a lab that is up. Needs root."""
    from testbed.cli.console import require_root

    require_root()
    argv = node_command(chosen(lab), node, ["sh", "-l"])
    os.execvp(argv[0], argv)


def down(
    lab: Lab = None,
    everything: Annotated[bool, typer.Option("--all", help="Every lab of this machine.")] = False,
) -> None:
    """Take a lab down, gathering its evidence first; nothing happens if none is up. Needs root."""
    from testbed.cli.console import require_root
    from testbed.cli.handover import handed_over
    from testbed.lab import namespaces
    from testbed.lab.request import Request
    from testbed.lab.session import GRACE_S, labs

    require_root()
    known = labs()
    meant = known if everything or (lab is None and len(known) < 2) else [chosen(lab)]
    for folder in meant:
        try:
            run_dir = Request.load(folder / "request.json").run_dir
        except (OSError, ValueError):
            run_dir = "unknown"
        with handed_over(*([Path(run_dir)] if run_dir != "unknown" else [])):
            clean = namespaces.terminate(folder, grace_s=GRACE_S)
        namespaces.remove(folder)
        how = "is down" if clean else "did not end by itself and was killed"
        typer.echo(f"lab {folder.name} {how}; its evidence is in {run_dir}")
    if not meant:
        typer.echo("no lab is up")
