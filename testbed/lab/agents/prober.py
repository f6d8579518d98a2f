"""The prober: sends echoes on an absolute schedule and keeps the record of what came back.

    python -m testbed.lab.agents.prober CONFIG.json

Beside what every agent has, its configuration names `target` and `source` (addresses), `flow`
("icmp", "udp" or "tcp"), `direction` ("to-guest" or "from-guest", a label), `interval_ms` (0.2 … 1000,
with "tcp" 1 at least), `output` (rows as in docs/reference/interfaces.md) and, for UDP and TCP, `port` (7 by default).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import secrets
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError
from testbed.lab.agents import probes
from testbed.lab.agents.echo import Echo, Told
from testbed.lab.agents.priority import PROBER_PRIORITY, settle_memory, take_priority
from testbed.lab.agents.runtime import AgentConfigError, Runtime, run_agent
from testbed.lab.agents.stream import Stream

#: Echoes are sent by a program of their own, streams by this process.
FASTEST_MS, SLOWEST_MS = (0.2, 1.0), 1000.0
ECHO_PORT = 7  # RFC 862
FLOWS = ("icmp", "udp", "tcp")
DIRECTIONS = ("to-guest", "from-guest")
FLUSH_S = 0.25
#: How many rows are encoded before a stream's schedule is looked at again: some 50 µs, a few times more on a bad day.
ROWS_AT_ONCE = 25
#: How long replies are waited for after the last probe; an agent ends within a second.
FAREWELL_S = 0.8
#: So long the program that sends echoes has to tell of the last ones.
LAST_WORDS_S = 0.02

CLOCK_MONOTONIC = 1
TFD_TIMER_ABSTIME = 1
TFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK, TFD_CLOEXEC
NS = 1_000_000_000


class Timer:
    """A timerfd on CLOCK_MONOTONIC: readable at `start_ns` and at every `interval_ns` after it."""

    def __init__(self, start_ns: int, interval_ns: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.timerfd_create(CLOCK_MONOTONIC, TFD_FLAGS)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        times = struct.pack("@4l", *divmod(interval_ns, NS), *divmod(start_ns, NS))
        if libc.timerfd_settime(self.fd, TFD_TIMER_ABSTIME, times, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        """Take note of the expirations so far."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 8)

    def close(self) -> None:
        """Stop it."""
        os.close(self.fd)


class Prober:
    """One flow of probes; its callbacks are driven by the agent's event loop, which must run already.

    Attributes:
        priority: of who sends.
    """

    def __init__(self, runtime: Runtime) -> None:
        config = checked(runtime.config)
        self._runtime = runtime
        self._log = runtime.log
        self._labels = {"flow": config["flow"], "direction": config["direction"]}
        self._ledger = probes.Ledger(config["flow"], config["direction"])
        self._loop = asyncio.get_running_loop()
        self._output = os.open(config["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._echo: Echo | None = None
        self._stream: Stream | None = None
        self._timer: Timer | None = None
        self._stopped = False
        interval_ns = round(config["interval_ms"] * 1_000_000)
        run_id = secrets.token_bytes(probes.RUN_ID_OCTETS)
        where = config["source"], config["target"], int(config.get("port", ECHO_PORT)), run_id
        if config["flow"] == "tcp":
            self.priority = take_priority(PROBER_PRIORITY)
            self._stream = Stream(*where, self._watch_stream, self._loop.remove_reader, self._say)
            self._schedule = probes.Schedule(time.monotonic_ns() + interval_ns, interval_ns)
            self._timer = Timer(self._schedule.start_ns, interval_ns)
            self._loop.add_reader(self._timer.fd, self.on_timer)
        else:
            self._echo = Echo(config["flow"], *where, interval_ns)
            self.priority = self._echo.priority
            self._schedule = probes.Schedule(self._echo.start_ns, interval_ns)
            self._loop.add_reader(self._echo.fileno(), self.on_echoes)

    def _watch_stream(self, connected: socket.socket) -> None:
        self._loop.add_reader(connected, self.on_stream)

    def _say(self, kind: str, what: dict[str, object]) -> None:
        fields: dict[str, Any] = {**self._labels, **what}
        self._log.emit(kind, **fields)

    def on_timer(self) -> None:
        """Send on the stream what is due."""
        assert self._timer is not None
        assert self._stream is not None
        self._timer.clear()
        missed, due = self._schedule.take(time.monotonic_ns())
        self._miss(missed)
        if due is not None:
            sent_ns: int | None = time.monotonic_ns()
            if not self._stream.send(due):
                sent_ns = None
            self._ledger.add(probes.Probe(due, self._schedule.due_ns(due), sent_ns))

    def _miss(self, missed: range) -> None:
        for seq in missed:
            self._ledger.add(probes.Probe(seq, self._schedule.due_ns(seq), None))

    def on_stream(self) -> None:
        """Record what the connection has brought back."""
        assert self._stream is not None
        for seq, received_ns in self._stream.receive():
            self._answered(seq, received_ns)

    def on_echoes(self) -> None:
        """Record what has become of echoes."""
        assert self._echo is not None
        told = self._echo.read()
        if told is None:
            self._loop.remove_reader(self._echo.fileno())
            if not self._stopped:
                self._runtime.fail(RuntimeError("the program that sends the probes has ended"))
            return
        self._record(told)

    def _record(self, told: Iterable[tuple[int, int, int]]) -> None:
        for kind, seq, moment_ns in told:
            if kind == Told.DEPARTED:
                self._ledger.departed(seq, moment_ns)
            elif kind == Told.ANSWERED:
                self._answered(seq, moment_ns)
            else:
                self._miss(range(len(self._ledger.probes), seq))
                sent_ns = moment_ns if kind == Told.SENT else None
                self._ledger.add(probes.Probe(seq, self._schedule.due_ns(seq), sent_ns))

    def _answered(self, seq: int, received_ns: int) -> None:
        lost = self._ledger.answer(seq, received_ns)
        if lost:
            self._log.emit("first_answered_probe", mono_ns=received_ns, seq=seq, unanswered=lost, **self._labels)

    async def flush(self) -> None:
        """Write the rows that are new or have changed; a prober that is killed has lost no older ones.

        What is due meanwhile is sent: rows are encoded a few at a time, and written in a thread, since
        a write can wait for the disk.
        """
        rows: list[tuple[int, bytes]] = []
        while some := list(self._ledger.changed_rows(ROWS_AT_ONCE)):
            rows += some
            await asyncio.sleep(0)
        await self._loop.run_in_executor(None, self.write, rows)

    def write(self, rows: list[tuple[int, bytes]]) -> None:
        """Write rows; safe beside the event loop, since rows are values."""
        for offset, octets in rows:
            os.pwrite(self._output, octets, offset)

    def outstanding(self, since_ns: int) -> bool:
        """Whether a probe sent since then still waits for its reply."""
        return self._ledger.outstanding(since_ns)

    def summary(self) -> dict[str, int | None]:
        """Counts and lateness."""
        counts = self._ledger.summary()
        if self._stream is not None:
            counts |= {"connections": self._stream.connections, "octets_in_order": self._stream.octets_in_order}
        return counts

    def stop(self) -> None:
        """Send nothing any more."""
        self._stopped = True
        if self._timer is not None:
            self._loop.remove_reader(self._timer.fd)
        if self._echo is not None:
            self._echo.stop()

    def answered(self) -> int:
        """How many probes have been answered; cheap, unlike the summary, which looks at every probe."""
        return self._ledger.answered

    def close(self) -> None:
        """Write what is left, say how it went, close everything."""
        self.stop()
        if self._echo is not None:
            self._loop.remove_reader(self._echo.fileno())
            self._record(self._echo.close())
        self.write(list(self._ledger.changed_rows()))
        fields: dict[str, Any] = {**self._labels, **self.summary()}
        self._log.emit("probing_ended", **fields)
        if self._timer is not None:
            self._timer.close()
        if self._stream is not None:
            self._stream.close()
        os.close(self._output)


def checked(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration, if it can be used; AgentConfigError says what is wrong."""
    for key in ("target", "source", "flow", "direction", "interval_ms", "output"):
        if key not in config:
            raise AgentConfigError("agent-config", f"The prober's configuration lacks {key}")
    for key, allowed in (("flow", FLOWS), ("direction", DIRECTIONS)):
        if config[key] not in allowed:
            raise AgentConfigError("agent-config", f"{key} is {config[key]!r}; known: {', '.join(allowed)}")
    fastest_ms = FASTEST_MS[config["flow"] == "tcp"]
    if not fastest_ms <= float(config["interval_ms"]) <= SLOWEST_MS:
        raise AgentConfigError(
            "agent-config",
            f"interval_ms is {config['interval_ms']}; allowed: {fastest_ms:g} … {SLOWEST_MS:g}",
        )
    if not Path(config["output"]).parent.is_dir():
        raise AgentConfigError("agent-config", f"There is no folder for {config['output']}")
    return config


@contextlib.asynccontextmanager
async def probing(runtime: Runtime) -> AsyncIterator[None]:
    """Probe until the block ends, then wait shortly for the replies that are still out."""
    # Nothing here makes cycles, and a collection takes longer than the lateness that is tolerated.
    settle_memory()
    gc.disable()
    prober = Prober(runtime)
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()

    async def flushing() -> None:
        while not over.done():
            await asyncio.wait({over}, timeout=FLUSH_S)
            await prober.flush()

    flusher = loop.create_task(flushing())
    runtime.on("inspect", lambda _: {**prober.summary(), "priority": prober.priority})
    runtime.on("answered", lambda _: {"answered": prober.answered()})
    try:
        yield
        prober.stop()
        end_ns = time.monotonic_ns() + round(FAREWELL_S * NS)
        since_ns = time.monotonic_ns() - NS
        await asyncio.sleep(LAST_WORDS_S)
        while prober.outstanding(since_ns) and time.monotonic_ns() < end_ns:
            await asyncio.sleep(0.01)
    finally:
        over.set_result(None)
        try:
            await flusher
        finally:
            prober.close()


def main() -> int:
    """Run the agent."""
    try:
        return run_agent("prober", probing)
    except TestbedError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
