"""Colours and type of the pictures, for light and dark; told apart without colour vision too.

Hues after Okabe and Ito (2008): orange is the hypervisor's, blue the network's, grey with hatching
nobody's; purple is the source site and green the destination's.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

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


WIDE = Layout("wide", 1080, 150, 24, 10, labels_above=False)
NARROW = Layout("narrow", 380, 10, 10, 4, labels_above=True)
