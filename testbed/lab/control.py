"""The control socket of a lab that stays up: one JSON object a line, one answer a line."""

from __future__ import annotations

import contextlib
import json
import os
import socketserver
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from testbed.errors import TestbedError

Handler = Callable[[dict[str, Any]], dict[str, Any]]


class ControlServer:
    """Serves a Unix socket (0600) from a thread; requests are handled one at a time.

    Args:
        path: of the socket.
        handlers: op → what answers it.
    """

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        lock = threading.Lock()

        class Session(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    for line in self.rfile:
                        with lock:
                            answer = respond(line, handlers)
                        self.wfile.write(json.dumps(answer, default=str).encode() + b"\n")

        path.unlink(missing_ok=True)
        umask = os.umask(0o177)
        try:
            self._server = socketserver.ThreadingUnixStreamServer(str(path), Session)
        finally:
            os.umask(umask)
        self._server.daemon_threads = True

    def __enter__(self) -> ControlServer:
        """Begin to serve."""
        threading.Thread(target=self._server.serve_forever, name="control", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def respond(line: bytes, handlers: Mapping[str, Handler]) -> dict[str, Any]:
    """The answer to one line; a bad request is an answer, never an exception."""
    try:
        request = json.loads(line)
        handler = handlers[request["op"]]
    except (ValueError, KeyError, TypeError):
        return {"ok": False, "error": f"expected an object with op, one of {', '.join(sorted(handlers))}"}
    try:
        return {"ok": True, **handler(request)}
    except TestbedError as error:
        return {"ok": False, "error": str(error)}
    except (KeyError, ValueError) as error:
        return {"ok": False, "error": f"{type(error).__name__}: {error}"}
