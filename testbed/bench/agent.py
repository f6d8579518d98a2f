"""The Map-Server's real process over UDP on the loopback interface: what sockets and the event loop cost.

Runs in network and mount namespaces of its own (`testbed.bench.__main__`).
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from testbed.bench.mapping import (
    EIDS,
    LIFETIME_S,
    MAP_SERVER,
    PORT,
    ROUNDS,
    SAMPLE,
    SUBSCRIBER_LIMIT,
    SUBSCRIBERS,
    Messages,
    address,
    locator,
)
from testbed.errors import TestbedError
from testbed.lisp.actions import CONTROL_PORT

READY_S = 20.0
ANSWER_S = 10.0
#: Messages on their way at once: enough to keep the process busy, far fewer than its socket holds.
WINDOW = 32
LONGEST = 65_536


@contextlib.contextmanager
def _map_server(folder: Path, messages: Messages) -> Iterator[None]:
    """The agent's process, for as long as the block runs; TestbedError if it does not come up."""
    sites = []
    for site in messages.sites:
        key_file = folder / f"{site.name}.key"
        key_file.touch(mode=0o600)
        key_file.write_bytes(site.secret.key)
        keys: dict[str, Any] = {"key_id": site.secret.key_id, "key_file": str(key_file)}
        sites.append({"name": site.name, "eid_prefixes": [], "dynamic_eid_prefixes": [str(EIDS)], **keys})
    events, config = folder / "events.jsonl", folder / "ms.json"
    events.touch()
    config.write_text(
        json.dumps(
            {
                "node": "ms", "events": str(events), "control": str(folder / "ms.sock"),
                "state": str(folder / "ms.state"),
                "rloc": str(MAP_SERVER), "sites": sites, "mechanism": "pubsub", "authentication": "hmac-sha-256-128",
                "options": {"registration_lifetime_s": LIFETIME_S, "map_reply_interval_s": 0.0},
            }
        )
    )  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "testbed.lab.agents.mapserver", str(config)])
    try:
        end = time.monotonic() + READY_S
        while "agent_ready" not in events.read_text():
            if process.poll() is not None or time.monotonic() > end:
                raise TestbedError("bench-agent", "the Map-Server's process does not come up")
            select.select([], [], [], 0.02)
        yield
    finally:
        process.kill()
        process.wait()


def _socket(rloc: IPv4Address, port: int = CONTROL_PORT) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.bind((str(rloc), port))
    opened.settimeout(ANSWER_S)
    return opened


def _rate(sent: socket.socket, answered: socket.socket, payloads: Sequence[bytes]) -> float:
    """Messages a second, each answered by one datagram, with a window of them on their way."""
    begun = time.perf_counter()
    try:
        for number, payload in enumerate(payloads):
            if number >= WINDOW:
                answered.recv(LONGEST)
            sent.sendto(payload, (str(MAP_SERVER), CONTROL_PORT))
        for _ in range(min(WINDOW, len(payloads))):
            answered.recv(LONGEST)
    except TimeoutError:
        raise TestbedError("bench-agent", f"the Map-Server did not answer within {ANSWER_S:g} s") from None
    return len(payloads) / (time.perf_counter() - begun)


def _exchange(sent: socket.socket, payload: bytes) -> None:
    sent.sendto(payload, (str(MAP_SERVER), CONTROL_PORT))
    sent.recv(LONGEST)


def _publication_ms(messages: Messages, subscribers: Sequence[socket.socket], mover: int) -> float:
    """From a move's Map-Register until the last subscriber has its Map-Notify; then everybody acknowledges."""
    payload, rloc = messages.registration(0, [address(0)], xtr=SUBSCRIBER_LIMIT + mover)
    poll = select.epoll()
    waiting = {each.fileno(): each for each in subscribers}
    for descriptor in waiting:
        poll.register(descriptor, select.EPOLLIN)
    told: list[tuple[socket.socket, bytes]] = []
    with contextlib.closing(_socket(rloc)) as own, poll:
        begun = time.perf_counter()
        own.sendto(payload, (str(MAP_SERVER), CONTROL_PORT))
        while waiting:
            ready = poll.poll(ANSWER_S)
            if not ready:
                raise TestbedError("bench-agent", f"{len(waiting)} of {len(subscribers)} subscribers were not told")
            for descriptor, _ in ready:
                poll.unregister(descriptor)
                subscriber = waiting.pop(descriptor)
                told.append((subscriber, subscriber.recv(LONGEST)))
        elapsed = time.perf_counter() - begun
    for subscriber, notify in told:
        ack = messages.acknowledgement(notify, IPv4Address(subscriber.getsockname()[0]))
        assert ack is not None
        subscriber.sendto(ack, (str(MAP_SERVER), CONTROL_PORT))
    return elapsed * 1000


def bench_agent(
    *, counts: Sequence[int] = SUBSCRIBERS, rounds: int = ROUNDS, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measure the agent.

    Args:
        counts: of subscribers.
        rounds: moves at each count; medians are returned.
        say: told of each figure as it comes.

    Returns `registrations_per_s` and `requests_per_s` with a window of messages on their way, and for each
    count `publications`: `subscribers` and `last_told_ms`. Raises TestbedError if an answer does not come.
    """
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # On the loopback interface the whole prefix is local: a locator for everybody.
    subprocess.run(["ip", "address", "add", f"{MAP_SERVER}/8", "dev", "lo"], check=True)
    messages = Messages()
    rows = []
    with tempfile.TemporaryDirectory() as folder, _map_server(Path(folder), messages):
        with contextlib.closing(_socket(locator(0, 1))) as etr:
            payloads = [messages.registration(0, [address(number)])[0] for number in range(SAMPLE)]
            registrations = _rate(etr, etr, payloads)
        say(f"registrations_per_s {registrations:.0f}")
        with (
            contextlib.closing(_socket(locator(1, 1))) as itr,
            contextlib.closing(_socket(locator(1, 1), PORT)) as port,
        ):
            payloads = [messages.request(address(number))[0] for number in range(SAMPLE)]
            requests = _rate(itr, port, payloads)
        say(f"requests_per_s {requests:.0f}")
        with contextlib.ExitStack() as stack:
            subscribers: list[socket.socket] = []
            mover = 0
            for count in sorted(counts):
                for number in range(len(subscribers) + 1, count + 1):
                    subscriber = stack.enter_context(contextlib.closing(_socket(locator(1, number))))
                    _exchange(subscriber, messages.registration(1, [address(SAMPLE + number)], xtr=number)[0])
                    _exchange(subscriber, messages.request(address(0), subscriber=number)[0])
                    subscribers.append(subscriber)
                took = []
                for _ in range(rounds):
                    mover += 1
                    took.append(_publication_ms(messages, subscribers, mover))
                rows.append({"subscribers": count, "last_told_ms": round(statistics.median(took), 3)})
                say(f"{count} subscribers: the last was told after {rows[-1]['last_told_ms']} ms")
    return {
        "registrations_per_s": round(registrations),
        "requests_per_s": round(requests),
        "publications": rows,
    }
