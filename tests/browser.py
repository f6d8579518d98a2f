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


@dataclass(frozen=True)
class View:
    """How a page is looked at: width of the window in CSS pixels, dark or light, on a screen or on paper."""

    width: int
    dark: bool = False
    paper: bool = False

    def __str__(self) -> str:
        return f"{self.width} px{', dark' if self.dark else ''}{', print' if self.paper else ''}"


#: A4 with the margins of the style sheet, in CSS pixels: (210 - 2 * 11) mm.
PAPER_WIDTH = 710
VIEWS = (View(1280), View(390), View(820), View(1280, dark=True), View(390, dark=True), View(PAPER_WIDTH, paper=True))


@dataclass
class Page:
    """A page as the browser had it in one view.

    Attributes:
        view: how it was looked at.
        requests: every URL that was asked for, the page itself included.
        complaints: console messages, exceptions, violations of the page's policy.
        facts: what `FACTS` found.
    """

    view: View
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


#: What a test wants to know, as the page's own measure of itself.
FACTS = """(() => {
  const box = e => e.getBoundingClientRect();
  const visible = e => box(e).width > 0 && box(e).height > 0 && e.checkVisibility();
  const named = e => e.tagName + "." + (e.getAttribute("class") || "") + ": " + e.textContent.trim().slice(0, 40);
  const all = selector => [...document.querySelectorAll(selector)];
  const inner = e => e.closest("pre, svg") !== null;
  const wide = all("body *").filter(e => visible(e) && !inner(e) && e.getBoundingClientRect().right > innerWidth + 1);
  const plots = all("svg.p-plot").filter(visible);
  const size = svg => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  const cut = plots.flatMap(svg => [...svg.querySelectorAll("text")].filter(text => {
    const box = text.getBBox(), room = svg.viewBox.baseVal;
    return box.x < -0.5 || box.x + box.width > room.width + 0.5 || box.y < -1 || box.y + box.height > room.height + 1;
  }).map(text => svg.getAttribute("aria-labelledby") + ": " + text.textContent));
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const seen = new Map();
  const rgba = colour => {
    if (!seen.has(colour)) {
      canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
      seen.set(colour, [...canvas.getImageData(0, 0, 1, 1).data]);
    }
    return seen.get(colour);
  };
  const light = colour => {
    const [r, g, b] = rgba(colour).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = e => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (rgba(colour)[3] > 0) return colour;
    }
    return "white";
  };
  const contrast = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const own = e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  const faint = all("body *").filter(e => !inner(e) && own(e) && visible(e)).filter(
    e => contrast(getComputedStyle(e).color, behind(e)) < 4.5);
  const faintInPlots = plots.flatMap(svg => [...svg.querySelectorAll("text:not(.p-on-bar)")].filter(
    text => contrast(getComputedStyle(text).fill, behind(svg)) < 4.5));
  return JSON.stringify({
    overflow: document.documentElement.scrollWidth - innerWidth,
    too_wide: wide.map(named),
    scrolling: all(".scroll").filter(e => visible(e) && e.scrollWidth > e.clientWidth + 1).map(named),
    cut_in_plots: cut,
    faint: [...faint, ...faintInPlots].map(named),
    background: light(getComputedStyle(document.body).backgroundColor),
    closed: all("details").filter(e => e.lastElementChild && !e.lastElementChild.checkVisibility()).map(named),
    plots: plots.map(svg => svg.getAttribute("aria-labelledby")),
    smallest_type_px: Math.min(...plots.map(svg => 11 * size(svg))),
    tables: all("table").map(t => t.rows.length),
    headings: all("h1, h2, h3").map(h => h.textContent.trim()),
    dead_anchors: all('a[href^="#"]').map(a => a.getAttribute("href").slice(1)).filter(
      id => !document.getElementById(id)),
    files: [...new Set(all("a[href]:not([href^='#'])").map(a => a.getAttribute("href")))],
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

    def wait(self, method: str, session: str) -> None:
        """Return when an event of a page has come."""
        while not any((event["method"], event.get("sessionId")) == (method, session) for event in self.events):
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


class Tab:
    """A page that is open."""

    def __init__(self, tools: DevTools, session: str) -> None:
        self._tools, self._session = tools, session

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self._tools.call("Runtime.evaluate", self._session, expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def click(self, selector: str) -> None:
        """Click with the mouse into the middle of the first visible element that a selector names."""
        script = """(() => {
          const e = [...document.querySelectorAll(SELECTOR)].find(e => e.getBoundingClientRect().width > 0);
          e.scrollIntoView({block: "center"});
          const r = e.getBoundingClientRect();
          return [r.x + r.width / 2, r.y + r.height / 2];
        })()""".replace("SELECTOR", json.dumps(selector))
        x, y = self.evaluate(script)
        for kind in ("mousePressed", "mouseReleased"):
            self._tools.call(
                "Input.dispatchMouseEvent", self._session, type=kind, x=x, y=y, button="left", clickCount=1
            )

    def picture(self, *, whole: bool = False) -> bytes:
        """A PNG of what the window shows, or of the whole page."""
        shot = self._tools.call("Page.captureScreenshot", self._session, captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])

    def events(self) -> list[dict[str, Any]]:
        """What the browser has reported of this page so far."""
        return [event for event in self._tools.events if event.get("sessionId") == self._session]


@contextlib.contextmanager
def opened(
    path: Path, view: View, *, height: int = 900, whole: bool = False, tools: DevTools | None = None
) -> Iterator[Tab]:
    """Open a file in a tab.

    Args:
        path: of the page.
        view: how to look at it.
        height: of the window.
        whole: make the window as high as the page.
        tools: of the browser; one of its own if there is none.
    """
    with contextlib.ExitStack() as stack:
        tools = tools or stack.enter_context(running())
        target = tools.call("Target.createTarget", url="about:blank")["targetId"]
        session = tools.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Network", "Log", "Runtime", "Page"):
            tools.call(f"{domain}.enable", session)
        metrics = {"width": view.width, "height": height, "deviceScaleFactor": 1, "mobile": view.width < 600}
        tools.call("Emulation.setDeviceMetricsOverride", session, **metrics)
        colours = [{"name": "prefers-color-scheme", "value": "dark" if view.dark else "light"}]
        tools.call("Emulation.setEmulatedMedia", session, media="print" if view.paper else "screen", features=colours)
        tools.call("Page.navigate", session, url=path.resolve().as_uri())
        tools.wait("Page.loadEventFired", session)
        tab = Tab(tools, session)
        if whole:
            metrics["height"] = tab.evaluate("document.documentElement.scrollHeight")
            tools.call("Emulation.setDeviceMetricsOverride", session, **metrics)
        yield tab
        tools.call("Target.closeTarget", targetId=target)


def open_page(path: Path, view: View, tools: DevTools | None = None) -> Page:
    """Open a file and look at it, in a browser of its own if none is given."""
    page = Page(view)
    with opened(path, view, tools=tools) as tab:
        page.facts = json.loads(tab.evaluate(FACTS))
        for event in tab.events():
            what = event["params"]
            if event["method"] == "Network.requestWillBeSent":
                page.requests.append(what["request"]["url"])
            elif event["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
                page.complaints.append(json.dumps(what))
    return page


def check_report(path: Path, *, pictures: tuple[str, ...] = ("timeline", "waterfall")) -> None:
    """Assert that a run's report.html is whole, asks nothing of any network, and can be read everywhere.

    Everywhere: on a screen, a tablet and a telephone, light and dark, and on paper.

    Args:
        path: of the page.
        pictures: names that must be among its pictures.
    """
    with running() as tools:
        for view in VIEWS:
            began = time.monotonic()
            page = open_page(path, view, tools)
            facts, where = page.facts, f"{path.name} at {view}"
            remote = [url for url in page.requests if not url.startswith(("file:", "data:"))]
            assert remote == [], f"{where} asks the network"
            assert [url for url in page.requests if url.startswith("file:")] == [path.resolve().as_uri()], where
            assert page.complaints == [], where
            assert facts["overflow"] <= 0, f"{where} is {facts['overflow']} px too wide: {facts['too_wide']}"
            assert facts["too_wide"] == [], where
            assert facts["scrolling"] == [], f"{where} hides a part of a table"
            assert facts["cut_in_plots"] == [], f"{where} cuts words of pictures off"
            assert facts["faint"] == [], f"{where} has words that hardly differ from what is behind them"
            assert (facts["background"] < 0.05) == view.dark, where
            if view.paper:
                assert facts["closed"] == [], f"{where} leaves out what is closed on the screen"
            for name in pictures:
                assert any(str(plot).startswith(name) for plot in facts["plots"]), f"{where} shows no {name}"
            assert facts["smallest_type_px"] >= (6.5 if view.paper else 9), where
            assert facts["tables"], where
            assert min(facts["tables"]) > 1, f"{where} has a table without rows"
            assert facts["dead_anchors"] == [], where
            for file in facts["files"]:
                assert (path.parent / file).exists(), f"{where} links to {file}, which is not there"
            assert time.monotonic() - began < DEADLINE_S
