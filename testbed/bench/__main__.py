"""A measurement in namespaces of its own: `python -m testbed.bench KIND ARGUMENTS.json`, run by `testbed.bench.own`.

Progress goes to standard error, the result as JSON to standard output.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError


def _dataplane(**arguments: Any) -> dict[str, Any]:
    from testbed.bench.dataplane import bench

    return bench(**arguments)


def _agent(**arguments: Any) -> dict[str, Any]:
    from testbed.bench.agent import bench_agent

    return bench_agent(**arguments)


KINDS: dict[str, Callable[..., dict[str, Any]]] = {"dataplane": _dataplane, "agent": _agent}


def main() -> int:
    """Measure and print; the exit code of a TestbedError is its own."""
    kind, arguments = sys.argv[1], json.loads(sys.argv[2])
    # Named namespaces are files; these must go with us, whatever ends us.
    Path("/run/netns").mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run/netns"], check=True)
    try:
        result = KINDS[kind](**arguments, say=lambda line: print(line, file=sys.stderr, flush=True))
    except TestbedError as error:
        said = {name: getattr(error, name) for name in ("code", "what", "why", "next_command")}
        print(json.dumps({"error": said}))
        return error.exit_code
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
