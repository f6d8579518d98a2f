"""`testbed lig EID`: ask a lab's mapping system as an ITR would (RFC 6835)."""

from __future__ import annotations

import os
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer

from testbed.cli.labs import Lab, chosen, node_command
from testbed.errors import TestbedError


def lig(
    eid: Annotated[str, typer.Argument(help="Whose mapping is asked for.", show_default=False)],
    node: Annotated[str | None, typer.Option(help="Where to ask from; the correspondent's xTR by default.")] = None,
    map_resolver: Annotated[str | None, typer.Option(help="Whom to ask; the lab's by default.")] = None,
    instance_id: Annotated[
        int | None,
        typer.Option(min=0, max=(1 << 24) - 1, help="Of the EID; the node's by default.", show_default=False),
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=5, help="Map-Requests at most.")] = 3,
    lab: Lab = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Ask the mapping system of a lab that is up for an EID: mapping, TTL, locators, round trip. Needs root.

    Exit codes: 0 with an answer, also a negative one; 10 if nobody answers.
    """
    from testbed.cli.console import require_root
    from testbed.lab.request import Request
    from testbed.plan.codec import plan_from_json

    for given in (eid, map_resolver):
        if given is not None:
            _address(given)
    require_root()
    folder = chosen(lab)
    plan = plan_from_json((Path(Request.load(folder / "request.json").run_dir) / "plan.json").read_text())
    xtr = plan.site(plan.correspondent.site).xtr
    instance_id = plan.instance_of(node or xtr) if instance_id is None else instance_id
    resolver = map_resolver or plan.mapping_system.rloc
    command = [sys.executable, "-m", "testbed.lab.agents.lig", resolver, eid, "--count", str(count)]
    command += ["--instance-id", str(instance_id)] if instance_id else []
    argv = node_command(folder, node or xtr, [*command, *(["--json"] if as_json else [])])
    os.execvp(argv[0], argv)


def _address(text: str) -> None:
    try:
        ip_address(text)
    except ValueError as error:
        raise TestbedError("not-an-address", f"{text!r} is no IP address", next_command="testbed lig --help") from error
