"""A page in headless Chromium, over the DevTools pipe: what it asks of the network, complains about, and looks like.

The browser is part of what the tests need (script/bootstrap installs it); without one a test fails and says so.
On Ubuntu `chromium` is a snap, whose confinement keeps it out of /tmp: BROWSER may name another one.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip
DEADLINE_S = 60.0


def browser() -> str:
    """The browser's path; AssertionError if there is none."""
    found = os.environ.get("BROWSER") or next((path for name in NAMES if (path := shutil.which(name))), None)
    assert found, "no Chromium: script/bootstrap installs it, or set BROWSER to one"
    return found


@dataclass
class Page:
    """A page as the browser had it at one width.

    Attributes:
        width: of the window, CSS pixels.
        requests: every URL that was asked for, the page itself included.
        complaints: console messages, exceptions, violations of the page's policy.
        facts: what `FACTS` found.
        png: a picture of the top of it.
    """

    width: int
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    png: bytes = b""


#: What a test wants to know, as the page's own measure of itself.
FACTS = """(() => {
  const visible = e => { const r = e.getBoundingClientRect(); return r.width > 0 && r.height > 0; };
  const named = e => e.tagName + "." + (e.getAttribute("class") || "") + ": " + e.textContent.trim().slice(0, 40);
  const scrolls = e => e.closest(".scroll, pre, svg") !== null;
  const wide = [...document.body.querySelectorAll("*")].filter(
    e => visible(e) && !scrolls(e) && e.getBoundingClientRect().right > innerWidth + 1);
  const small = [...document.querySelectorAll("svg.p-plot")].filter(visible).map(
    svg => 11 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width);
  return JSON.stringify({
    overflow: document.documentElement.scrollWidth - innerWidth,
    too_wide: wide.map(named),
    plots: [...document.querySelectorAll("svg.p-plot > title")].filter(t => visible(t.parentNode)).map(
      t => t.parentNode.getAttribute("aria-labelledby")),
    smallest_type_px: Math.min(...small),
    tables: [...document.querySelectorAll("table")].filter(visible).map(t => t.rows.length),
    headings: [...document.querySelectorAll("h1, h2, h3")].map(h => h.textContent.trim()),
    dead_anchors: [...document.querySelectorAll('a[href^="#"]')].map(a => a.getAttribute("href").slice(1)).filter(
      id => !document.getElementById(id)),
  });
})()"""


class DevTools:
    """The two ends of a running browser's DevTools pipe: NUL-terminated JSON."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing
        self._rest, self._number = b"", 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method and return its result; events that come meanwhile are kept."""
        self._number += 1
        request = {"id": self._number, "method": method, "params": parameters}
        if session:
            request["sessionId"] = session
        os.write(self._writing, json.dumps(request).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result

    def wait(self, method: str) -> None:
        """Return when an event has come."""
        while not any(event["method"] == method for event in self.events):
            self._next()

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            octets = os.read(self._reading, 1 << 20)
            assert octets, "the browser has ended"
            self._rest += octets
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message


@contextlib.contextmanager
def running() -> Iterator[DevTools]:
    """A browser with a profile of its own, gone at the end."""
    to_browser, ours_out = os.pipe()
    ours_in, from_browser = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The shell puts the pipe where the browser expects it: descriptors 3 and 4.
        script = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        process = subprocess.Popen(
            ["bash", "-c", script, browser(), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        try:
            yield DevTools(ours_in, ours_out)
        finally:
            os.close(ours_out)
            os.close(ours_in)
            process.terminate()
            process.wait(DEADLINE_S)


def open_page(path: Path, width: int, *, height: int = 900) -> Page:
    """Open a file and look at it.

    Args:
        path: of the page.
        width: of the window, CSS pixels.
        height: of the picture.
    """
    page = Page(width)
    with running() as tools:
        target = tools.call("Target.createTarget", url="about:blank")["targetId"]
        session = tools.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Network", "Log", "Runtime", "Page"):
            tools.call(f"{domain}.enable", session)
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        tools.call("Emulation.setDeviceMetricsOverride", session, **metrics)
        tools.call("Page.navigate", session, url=path.resolve().as_uri())
        tools.wait("Page.loadEventFired")
        found = tools.call("Runtime.evaluate", session, expression=FACTS, returnByValue=True)["result"]
        page.facts = json.loads(found["value"])
        page.png = base64.b64decode(tools.call("Page.captureScreenshot", session)["data"])
        for event in tools.events:
            what = event["params"]
            if event["method"] == "Network.requestWillBeSent":
                page.requests.append(what["request"]["url"])
            elif event["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
                page.complaints.append(json.dumps(what))
    return page


def check_report(path: Path, *, pictures: tuple[str, ...] = ("timeline", "waterfall")) -> None:
    """Assert that a run's report.html is whole, asks nothing of any network, and can be read on a screen and a phone.

    Args:
        path: of the page.
        pictures: names that must be among its pictures.
    """
    for width in (1280, 390):
        began = time.monotonic()
        page = open_page(path, width)
        where = f"{path.name} at {width} px"
        remote = [url for url in page.requests if not url.startswith(("file:", "data:"))]
        assert remote == [], f"{where} asks the network"
        assert [url for url in page.requests if url.startswith("file:")] == [path.resolve().as_uri()], where
        assert page.complaints == [], where
        assert page.facts["overflow"] <= 0, f"{where} is {page.facts['overflow']} px too wide: {page.facts['too_wide']}"
        assert page.facts["too_wide"] == [], where
        shown = page.facts["plots"]
        for name in pictures:
            assert any(str(plot).startswith(name) for plot in shown), f"{where} shows no {name}: {shown}"
        assert page.facts["smallest_type_px"] >= 9, where
        assert page.facts["tables"], where
        assert min(page.facts["tables"]) > 1, f"{where} has a table without rows"
        assert page.facts["dead_anchors"] == [], where
        assert time.monotonic() - began < DEADLINE_S
