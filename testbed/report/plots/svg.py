"""A small SVG writer: elements with classes, no style attributes, numbers to a tenth of a pixel.

Colours live in one style sheet (`theme.CSS`), so that a picture follows the reader's light or dark
preference and passes a content security policy without inline style attributes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

#: Mean advance of a character of the system's sans-serif, in units of the font size, and that of bold ones.
CHARACTER_WIDTH, BOLD_WIDTH = 0.56, 0.68


def number(value: float) -> str:
    """A coordinate, to a tenth of a pixel, without trailing zeros."""
    text = f"{value:.1f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """About how wide a text will be, in pixels."""
    return len(text) * size * (BOLD_WIDTH if bold else CHARACTER_WIDTH)


@dataclass(slots=True)
class Canvas:
    """Elements of one picture, in the order painted.

    Attributes:
        width, height: of the view box; `height` may be set after drawing.
        title: what the picture shows, for readers who do not see it.
        identifier: unique in a page, prefix of the picture's ids.
    """

    width: float
    height: float
    title: str
    identifier: str
    elements: list[str] = field(default_factory=list)

    def element(self, name: str, content: str | None = None, **attributes: float | str) -> None:
        """Add an element; `_` in an attribute's name stands for `-`, `cls` for `class`."""
        written = []
        for key, value in attributes.items():
            text = value if isinstance(value, str) else number(value)
            key = "class" if key == "cls" else key.replace("_", "-")
            written.append(f"{key}={quoteattr(text)}")
        head = " ".join([name, *written])
        self.elements.append(f"<{head}/>" if content is None else f"<{head}>{content}</{name}>")

    def link(self, anchor: str) -> None:
        """What is added until `end_link` leads to a place in the page that has the picture."""
        self.elements.append(f"<a href={quoteattr('#' + anchor)}>")

    def end_link(self) -> None:
        """End the link."""
        self.elements.append("</a>")

    def text(self, x: float, y: float, text: str, cls: str = "p-text", *, anchor: str = "start", tip: str = "") -> None:
        """Write a line of text with its baseline at `y`."""
        content = escape(text) + (f"<title>{escape(tip)}</title>" if tip else "")
        self.element("text", content, x=x, y=y, cls=cls, text_anchor=anchor)

    def line(self, x1: float, y1: float, x2: float, y2: float, cls: str) -> None:
        """Draw a straight line."""
        self.element("line", x1=x1, y1=y1, x2=x2, y2=y2, cls=cls)

    def rect(
        self, x: float, y: float, width: float, height: float, cls: str, *, radius: float = 0, tip: str = ""
    ) -> None:
        """Draw a rectangle; nothing is drawn if it has no extent."""
        if width <= 0 or height <= 0:
            return
        content = f"<title>{escape(tip)}</title>" if tip else None
        self.element("rect", content, x=x, y=y, width=width, height=height, rx=radius, cls=cls)

    def path(self, d: str, cls: str, *, tip: str = "", **attributes: str) -> None:
        """Draw a path."""
        content = f"<title>{escape(tip)}</title>" if tip else None
        self.element("path", content, d=d, cls=cls, **attributes)

    def dots(self, points: list[tuple[float, float]], cls: str) -> None:
        """Draw many dots as one path of round caps, each half-pixel cell once."""
        cells = sorted({(round(x * 2) / 2, round(y * 2) / 2) for x, y in points})
        if cells:
            self.path("".join(f"M{number(x)} {number(y)}h0" for x, y in cells), cls)

    def inline(self) -> str:
        """The picture as an element for a page whose style sheet has `theme.CSS`."""
        return self._svg("")

    def standalone(self, css: str, page: str) -> str:
        """The picture as a file of its own.

        Args:
            css: `theme.CSS`.
            page: where, from that file, the page is that its links lead into.
        """
        text = '<?xml version="1.0" encoding="UTF-8"?>\n' + self._svg(f"<style>{css}</style>\n")
        return text.replace('<a href="#', f'<a href="{page}#')

    def _svg(self, style: str) -> str:
        size = f"{number(self.width)} {number(self.height)}"
        body = "\n".join(self.elements)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img" class="p-plot" '
            f'aria-labelledby="{self.identifier}-title">\n'
            f'<title id="{self.identifier}-title">{escape(self.title)}</title>\n{style}{body}\n</svg>\n'
        )


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear or logarithmic axis: data `low` … `high` onto pixels `start` … `end`."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value; values outside the data range fall outside the pixels."""
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, at_most: int) -> list[float]:
        """Round values across the range: 1, 2 or 5 times a power of ten."""
        return self._log_ticks(at_most) if self.logarithmic else _linear_ticks(self.low, self.high, at_most)

    def _log_ticks(self, at_most: int) -> list[float]:
        """Powers of ten, with twos and fives between while there is room."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for factors in ((1, 2, 5), (1, 3), (1,)):
            found = [f * 10.0**e for e in range(first, last + 1) for f in factors]
            found = [value for value in found if self.low <= value <= self.high]
            if len(found) <= at_most:
                return found
        return found[:: math.ceil(len(found) / at_most)]


def _linear_ticks(low: float, high: float, at_most: int) -> list[float]:
    rough = (high - low) / max(1, at_most)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 9) for index in range(first, last + 1)]


def spread(positions: list[float], widths: list[float], low: float, high: float) -> list[float]:
    """Move the centres of labels apart until none overlaps its neighbour, as little as needed.

    Args:
        positions: where the labels want their centres, ascending.
        widths: of the labels.
        low: the left edge that they must keep within, if they fit at all.
        high: the right one.
    """
    placed: list[float] = []
    for position, width in zip(positions, widths, strict=True):
        placed.append(max(position, low + width / 2))
    for _ in range(50):
        moved = False
        for left in range(len(placed) - 1):
            overlap = placed[left] + widths[left] / 2 - (placed[left + 1] - widths[left + 1] / 2)
            if overlap > 0.05:
                placed[left] -= overlap / 2
                placed[left + 1] += overlap / 2
                moved = True
        for index, width in enumerate(widths):
            kept = min(max(placed[index], low + width / 2), high - width / 2)
            moved = moved or abs(kept - placed[index]) > 0.05
            placed[index] = kept
        if not moved:
            break
    return placed
