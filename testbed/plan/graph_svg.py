"""A plan as SVG: the core in the middle, sites above and below it, each a card from its xTR to its guests.

Colours are Okabe and Ito's, which colour-blind people tell apart, and every box says in words what it
is. The picture has its own light ground, so it reads the same on a dark page and on paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.sax.saxutils import escape

from testbed.plan.graph_labels import (
    correspondent_lines,
    guest_lines,
    host_lines,
    lan_lines,
    link_label,
    link_to,
    mapping_lines,
    xtr_lines,
)
from testbed.plan.model import Plan, Site

CARD_WIDTH, CARD_GAP, MARGIN = 290, 40, 24
CARD_TITLE, PADDING, LINE, GAP = 30, 12, 18, 14
ROW_GAP = 96
MAPPING_WIDTH = 200
CORE_RADIUS = 40
#: Mean advance of the sans-serif faces at 13 px, for the grounds of labels.
CHARACTER = 6.7
FONT = "font-family=\"Inter, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif\""

#: kind → (stroke, fill)
COLOURS = {
    "core": ("#555555", "#eeeeee"),
    "mapping": ("#a3507c", "#f9eaf2"),
    "xtr": ("#0072b2", "#e3f1fa"),
    "xtrs": ("#0072b2", "#ffffff"),
    "lan": ("#56768a", "#ffffff"),
    "host": ("#00795a", "#e4f5ef"),
    "guest": ("#a86f00", "#fdf1d8"),
    "correspondent": ("#b24a00", "#fce9dd"),
}


@dataclass(frozen=True, slots=True)
class _Box:
    """A box of a card: its words, and the boxes inside it."""

    kind: str
    lines: list[str]
    inner: tuple[_Box, ...] = ()

    @property
    def height(self) -> int:
        return 2 * PADDING + LINE * len(self.lines) + sum(box.height + GAP for box in self.inner)


@dataclass(frozen=True, slots=True)
class _Card:
    """A site: its boxes in order of their distance from the core."""

    site: Site
    label: str
    boxes: tuple[_Box, ...]

    @property
    def height(self) -> int:
        return CARD_TITLE + sum(box.height for box in self.boxes) + GAP * (len(self.boxes) - 1) + 2 * PADDING


def render_svg(plan: Plan) -> str:
    """Return the plan as one SVG element, with a newline at its end."""
    above, below = _rows(plan)
    columns = max(len(above), len(below), 1)
    mapping = _Box("mapping", mapping_lines(plan.mapping_system))
    mapping_label = link_label(link_to(plan, plan.mapping_system.node))
    width = max(
        2 * MARGIN + columns * CARD_WIDTH + (columns - 1) * CARD_GAP,
        # The core is in the middle, so what is on its right counts twice.
        2 * (CORE_RADIUS + round(_label_width(mapping_label)) + 2 * CARD_GAP + MAPPING_WIDTH + MARGIN),
    )
    top_height = max((card.height for card in above), default=-ROW_GAP)
    core_y = MARGIN + top_height + ROW_GAP + CORE_RADIUS
    below_y = core_y + CORE_RADIUS + ROW_GAP
    height = below_y + max((card.height for card in below), default=-ROW_GAP) + MARGIN
    core_x = width // 2
    lines: list[str] = []
    shapes: list[str] = []
    for cards, upwards in ((above, True), (below, False)):
        for index, card in enumerate(cards):
            left = (width - len(cards) * CARD_WIDTH - (len(cards) - 1) * CARD_GAP) // 2
            left += index * (CARD_WIDTH + CARD_GAP)
            # Cards stand on the line nearest to the core.
            top = MARGIN + top_height - card.height if upwards else below_y
            shapes.append(_card(card, left, top, upwards))
            edge = top + card.height - PADDING if upwards else top + CARD_TITLE + PADDING
            lines.append(_link(core_x, core_y, left + CARD_WIDTH // 2, edge, card.label))
    mapping_x = width - MARGIN - MAPPING_WIDTH
    lines.append(_link(core_x, core_y, mapping_x, core_y, mapping_label))
    shapes.append(_box(mapping, mapping_x, core_y - mapping.height // 2, MAPPING_WIDTH))
    core = next(node.name for node in plan.nodes if node.role == "router")
    stroke, fill = COLOURS["core"]
    shapes.append(
        f'<circle cx="{core_x}" cy="{core_y}" r="{CORE_RADIUS}" fill="{fill}" stroke="{stroke}" '
        'stroke-width="2"/>' + _text(core_x, core_y + 5, core, bold=True)
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" {FONT} font-size="13">'
    )
    title = f"<title>{escape(plan.name)}</title><desc>{escape(_description(plan))}</desc>"
    ground = f'<rect width="{width}" height="{height}" rx="12" fill="#fbfbfa"/>'
    return "\n".join([head, title, ground, *lines, *shapes, "</svg>"]) + "\n"


def _description(plan: Plan) -> str:
    sites = "; ".join(
        f"{site.name} behind " + " and ".join(f"{lines[0]}, {lines[1]}" for lines in xtr_lines(site))
        for site in plan.sites
    )
    return f"Sites around the core router: {sites}. Mapping system at {plan.mapping_system.rloc}."


def _rows(plan: Plan) -> tuple[list[_Card], list[_Card]]:
    """Put the sites that guests move between below the core, the others above; or split evenly."""
    cards = [_make_card(plan, site) for site in plan.sites]
    below = [card for card in cards if card.site.dynamic_eid_prefixes]
    above = [card for card in cards if not card.site.dynamic_eid_prefixes]
    if abs(len(below) - len(above)) > 2:
        half = (len(cards) + 1) // 2
        ordered = above + below if len(above) < len(below) else below + above
        return ordered[: len(cards) - half], ordered[len(cards) - half :]
    return above, below


def _make_card(plan: Plan, site: Site) -> _Card:
    labels = [link_label(link_to(plan, xtr)) for xtr in site.xtrs]
    xtrs = [_Box("xtr", lines) for lines in xtr_lines(site)]
    label = labels[0]
    if len(xtrs) > 1:
        # One line leads to the card, and to each xTR in it; what each link is like stands in its box.
        label = f"{len(xtrs)} links"
        each = tuple(_Box("xtr", [*box.lines, link]) for box, link in zip(xtrs, labels, strict=True))
        xtrs = [_Box("xtrs", [f"{len(each)} xTRs"], each)]
    boxes = [*xtrs, _Box("lan", lan_lines(site))]
    guests = tuple(_Box("guest", guest_lines(guest)) for guest in plan.guests if guest.site == site.name)
    hosts = [host for host in plan.xen_hosts if host.site == site.name]
    boxes += [_Box("host", host_lines(host), guests) for host in hosts]
    if not hosts:
        boxes += guests
    if plan.correspondent.site == site.name:
        boxes.append(_Box("correspondent", correspondent_lines(plan.correspondent)))
    return _Card(site, label, tuple(boxes))


def _card(card: _Card, left: int, top: int, upwards: bool) -> str:
    """Draw a site: the title on top, then its boxes; the xTR is the box next to the core."""
    out = [
        _rect(left, top, CARD_WIDTH, card.height, 10, "#ffffff", "#c9c9c4"),
        _text(left + CARD_WIDTH // 2, top + 22, card.site.name, bold=True, size=15),
    ]
    y = top + CARD_TITLE + PADDING
    middle = left + CARD_WIDTH // 2
    boxes = card.boxes[::-1] if upwards else card.boxes
    for index, box in enumerate(boxes):
        if index:
            out.append(_line(middle, y - GAP, middle, y))
        out.append(_box(box, left + PADDING, y, CARD_WIDTH - 2 * PADDING))
        y += box.height + GAP
    return "\n".join(out)


def _box(box: _Box, x: int, y: int, width: int) -> str:
    stroke, fill = COLOURS[box.kind]
    rounding = 16 if box.kind == "lan" else 6
    out = [_rect(x, y, width, box.height, rounding, fill, stroke)]
    for number, line in enumerate(box.lines):
        bold = number == 0 and box.kind != "lan"
        out.append(_text(x + width // 2, y + PADDING + 13 + number * LINE, line, bold=bold))
    inner_y = y + PADDING + LINE * len(box.lines) + GAP // 2
    for inner in box.inner:
        out.append(_box(inner, x + PADDING, inner_y, width - 2 * PADDING))
        inner_y += inner.height + GAP
    return "\n".join(out)


def _link(x1: int, y1: int, x2: int, y2: int, label: str) -> str:
    """Draw a link to the core with its label on it, nearer to the far end, where links are apart."""
    horizontal = y1 == y2
    share = 0.5 if horizontal else 0.62
    # The core's disc and the card hide some of the line: the label goes on what is seen.
    start = CORE_RADIUS if horizontal else 0
    x = x1 + start + (x2 - x1 - start) * share
    y = y1 + (y2 - y1) * share
    half = _label_width(label) / 2
    ground = _rect(round(x - half), round(y - 12), round(2 * half), 24, 12, "#fbfbfa", "#c9c9c4")
    return _line(x1, y1, x2, y2) + ground + _text(round(x), round(y + 5), label)


def _label_width(label: str) -> float:
    return len(label) * CHARACTER + 16


def _line(x1: int, y1: int, x2: int, y2: int) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#777777" stroke-width="2"/>'


def _rect(x: int, y: int, width: int, height: int, rounding: int, fill: str, stroke: str) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{rounding}" fill="{fill}" '
        f'stroke="{stroke}" stroke-width="1.5"/>'
    )


def _text(x: int, y: int, words: str, *, bold: bool = False, size: int = 0) -> str:
    weight = ' font-weight="600"' if bold else ""
    font_size = f' font-size="{size}"' if size else ""
    return f'<text x="{x}" y="{y}" text-anchor="middle" fill="#1a1a1a"{weight}{font_size}>{escape(words)}</text>'
