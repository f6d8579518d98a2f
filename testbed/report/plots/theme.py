"""Colours and type of the pictures, for light and dark; told apart without colour vision too.

Hues after Okabe and Ito (2008): orange is the hypervisor's, blue the network's, grey with hatching
nobody's; purple is the source site and green the destination's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.resources import files

from testbed.report.plots.svg import Canvas, text_width

CSS = (files("testbed.report") / "templates" / "plots.css").read_text().strip()


@dataclass(frozen=True, slots=True)
class Layout:
    """How wide a picture is and how much room its margins have, in pixels.

    Attributes:
        name: "wide" or "narrow", the part of a file name.
        width: of the picture.
        left, right: margins of the plotting area; with `left` small, row labels go above their rows.
        ticks: about how many on the time axis.
        labels_above: whether row labels stand above the rows instead of left of them.
    """

    name: str
    width: float
    left: float
    right: float
    ticks: int
    labels_above: bool


def heading(canvas: Canvas, title: str, subtitle: str, layout: Layout) -> float:
    """Write title and subtitle, over as many lines as needed; returns where the picture begins.

    Args:
        canvas: to write on.
        title: of the picture.
        subtitle: what was run, its parts joined with " · ".
        layout: wide or narrow.
    """
    left = 0.0 if layout.labels_above else layout.left
    room, y = layout.width - left, 16.0
    for line in _wrapped(title.split(" "), " ", lambda text: text_width(text, 14, bold=True) > room):
        canvas.text(left, y, line, "p-title")
        y += 18
    for line in _wrapped(subtitle.split(" · "), " · ", lambda text: text_width(text, 12) > room):
        canvas.text(left, y, line, "p-sub")
        y += 16
    return y


def _wrapped(parts: Iterable[str], between: str, is_too_long: Callable[[str], bool]) -> list[str]:
    """Parts joined into as few lines as they fit into; one that is too long by itself has its own."""
    lines: list[str] = []
    for part in parts:
        if lines and not is_too_long(lines[-1] + between + part):
            lines[-1] += between + part
        else:
            lines.append(part)
    return lines


def tick_label(canvas: Canvas, x: float, y: float, text: str) -> None:
    """Write an axis's figure below `x`, moved as little as needed to lie within the picture."""
    half = text_width(text, 13) / 2  # figures are wider than the mean character
    canvas.text(min(max(x, half), canvas.width - half), y, text, "p-small", anchor="middle")


WIDE = Layout("wide", 1080, 168, 24, 10, labels_above=False)
NARROW = Layout("narrow", 380, 10, 10, 4, labels_above=True)
