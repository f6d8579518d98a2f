"""The skeleton every agent shares: configuration, event log, control socket, signals, a clean end.

An agent is an async context manager made from a `Runtime`. Entering it opens its sockets, leaving
it closes them; in between `run_agent` serves the control socket and waits for SIGTERM or SIGINT.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError
from testbed.eventlog import EventLog

#: Answers one request of the control socket with the fields of the reply (without "ok").
ControlHandler = Callable[[Mapping[str, Any]], Mapping[str, Any]]

#: A control request longer than this is refused; asyncio's own limit would end the connection.
MAX_REQUEST_BYTES = 64 * 1024


class AgentConfigError(TestbedError):
    """The agent's configuration file cannot be used."""


class Runtime:
    """What an agent is given: its configuration, its event log, its control socket's table.

    Attributes:
        kind: of agent ("xtr", "mapserver", "prober").
        node: the name of the node it runs in, which is the source of its events.
        config: the configuration file, as read.
        log: the run's event log.
    """

    def __init__(self, kind: str, config: Mapping[str, Any], log: EventLog) -> None:
        self.kind = kind
        self.node = str(config["node"])
        self.config = config
        self.log = log
        self._handlers: dict[str, ControlHandler] = {}
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None

    def on(self, op: str, handler: ControlHandler) -> None:
        """Answer `{"op": op, …}` on the control socket with what `handler` returns."""
        self._handlers[op] = handler

    def stop(self) -> None:
        """End the agent, as SIGTERM does."""
        self._stop.set()

    def fail(self, error: BaseException) -> None:
        """End the agent because of a fault; a wrong agent must not go on being measured."""
        if self._failure is None:
            self._failure = error
            traceback.print_exception(error)
            self.log.emit("agent_failed", error=f"{type(error).__name__}: {error}")
        self._stop.set()

    @property
    def failure(self) -> BaseException | None:
        """The first fault, if there was one."""
        return self._failure

    async def wait_stopped(self) -> None:
        """Return once somebody called `stop` or `fail`."""
        await self._stop.wait()

    def answer(self, line: bytes) -> dict[str, Any]:
        """The reply to one line of the control socket; a bad request is an answer, never an exception."""
        try:
            request = json.loads(line)
        except ValueError as error:
            return {"ok": False, "error": f"not JSON: {error}"}
        if not isinstance(request, dict) or not isinstance(request.get("op"), str):
            return {"ok": False, "error": 'expected an object with a string "op"'}
        handler = self._handlers.get(request["op"])
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            return {"ok": False, "error": f"unknown op {request['op']!r}; known: {known}"}
        try:
            return {"ok": True, **handler(request)}
        except (KeyError, ValueError, TestbedError) as error:
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}


def read_config(path: Path) -> dict[str, Any]:
    """Read an agent's configuration.

    Raises AgentConfigError if the file cannot be read, is not a JSON object, or lacks one of the
    keys that every agent has.
    """
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise AgentConfigError("agent-config", f"Cannot read {path}", why=str(error)) from error
    if not isinstance(config, dict):
        raise AgentConfigError("agent-config", f"{path} is not a JSON object")
    missing = [key for key in ("node", "events", "control") if key not in config]
    if missing:
        raise AgentConfigError("agent-config", f"{path} lacks {', '.join(missing)}")
    return config


def read_key(path: Path) -> bytes:
    """Read a secret; refuse one that others can read.

    Returns the file's bytes without a trailing newline. Raises AgentConfigError if the file is
    missing, empty, or its mode has any bit for group or others.
    """
    try:
        mode = path.stat().st_mode
        key = path.read_bytes().rstrip(b"\n")
    except OSError as error:
        raise AgentConfigError("key-file", f"Cannot read the key file {path}", why=str(error)) from error
    if mode & 0o077:
        raise AgentConfigError(
            "key-file-mode", f"The key file {path} is readable by others", next_command=f"chmod 600 {path}"
        )
    if not key:
        raise AgentConfigError("key-file", f"The key file {path} is empty")
    return key


async def _serve_control(runtime: Runtime, path: Path) -> asyncio.AbstractServer:
    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that goes away mid-line is its own affair.
        with contextlib.suppress(ConnectionError, ValueError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                writer.write(json.dumps(runtime.answer(line), default=str).encode() + b"\n")
                await writer.drain()
        writer.close()

    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode must be right from the first moment, not after a chmod.
    umask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(umask)
    return await asyncio.start_unix_server(session, sock=listener, limit=MAX_REQUEST_BYTES)


async def _run(
    kind: str,
    config: Mapping[str, Any],
    log: EventLog,
    make: Callable[[Runtime], AbstractAsyncContextManager[None]],
) -> int:
    loop = asyncio.get_running_loop()
    runtime = Runtime(kind, config, log)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, runtime.stop)

    def on_exception(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        runtime.fail(context.get("exception") or RuntimeError(context["message"]))

    loop.set_exception_handler(on_exception)
    control_path = Path(config["control"])
    async with make(runtime):
        control = await _serve_control(runtime, control_path)
        try:
            log.emit("agent_ready", agent=kind, pid=os.getpid())
            await runtime.wait_stopped()
        finally:
            control.close()
            control_path.unlink(missing_ok=True)
    if runtime.failure is not None:
        return 11
    log.emit("agent_stopped", agent=kind)
    return 0


def run_agent(
    kind: str,
    make: Callable[[Runtime], AbstractAsyncContextManager[None]],
    arguments: list[str] | None = None,
    *,
    run: Callable[[Coroutine[Any, Any, int]], int] = asyncio.run,
) -> int:
    """Run an agent until it is told to end; the body of `python -m testbed.lab.agents.<kind>`.

    Args:
        kind: of agent; goes into its events.
        make: makes the agent from its runtime.
        arguments: the command line without the program's name: the configuration's path.
        run: runs a coroutine in an event loop. Those who are in a remapping's way take uvloop's, which is quicker, and
            stops reading a descriptor that has an error (docs/adr/0007-event-loop-of-the-lisp-agents.md).

    Returns the exit code: 0 after SIGTERM or SIGINT, 11 after a fault.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 1:
        print(f"usage: python -m testbed.lab.agents.{kind} CONFIG.json", file=sys.stderr)
        return 2
    try:
        config = read_config(Path(given[0]))
        log = EventLog(Path(config["events"]), str(config["node"]))
        try:
            return run(_run(kind, config, log, make))
        finally:
            log.close()
    except TestbedError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return error.exit_code
