"""Pictures of a plan: SVG (our own layout), Mermaid and Graphviz. Pure; the same plan, the same bytes."""

from __future__ import annotations

from typing import Literal

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
from testbed.plan.graph_svg import render_svg
from testbed.plan.model import Plan, Site

GraphFormat = Literal["svg", "mermaid", "dot"]


def render(plan: Plan, format: GraphFormat = "svg") -> str:
    """Return a picture of the plan, with a newline at its end."""
    return {"svg": render_svg, "mermaid": render_mermaid, "dot": render_dot}[format](plan)


def _core(plan: Plan) -> str:
    return next(node.name for node in plan.nodes if node.role == "router")


def _members(plan: Plan, site: Site) -> list[tuple[str, str, list[str], str]]:
    """Return what stands at a site: (identifier, kind, lines, the identifier that it hangs on)."""
    first, *further = xtr_lines(site)
    found = [(site.xtr, "xtr", first, ""), (site.eid_bridge, "lan", lan_lines(site), site.xtr)]
    found += [(lines[0], "xtr", lines, site.eid_bridge) for lines in further]
    home = site.eid_bridge
    for host in plan.xen_hosts:
        if host.site == site.name:
            found.append((host.name, "host", host_lines(host), home))
            home = host.name
    found += [(g.name, "guest", guest_lines(g), home) for g in plan.guests if g.site == site.name]
    if plan.correspondent.site == site.name:
        found.append((plan.correspondent.node, "host", correspondent_lines(plan.correspondent), site.eid_bridge))
    return found


#: Mermaid's brackets for each kind of thing.
_MERMAID_SHAPES = {"xtr": ("[", "]"), "lan": ("([", "])"), "host": ("[", "]"), "guest": ("{{", "}}")}


def render_mermaid(plan: Plan) -> str:
    """Return a Mermaid flowchart, which GitHub draws inside Markdown."""

    def identifier(name: str) -> str:
        return "n_" + name.replace("-", "_")  # "end" alone is a keyword

    def text(lines: list[str]) -> str:
        return '"' + "<br/>".join(lines) + '"'

    core, mapping = _core(plan), plan.mapping_system.node
    out = ["flowchart TB", f'  {identifier(core)}(("{core}"))']
    out.append(f"  {identifier(mapping)}[{text(mapping_lines(plan.mapping_system))}]")
    out.append(f'  {identifier(core)} ---|"{link_label(link_to(plan, mapping))}"| {identifier(mapping)}')
    for site in plan.sites:
        out.append(f'  subgraph {identifier(site.name)}["{site.name}"]')
        for name, kind, lines, hangs_on in _members(plan, site):
            left, right = _MERMAID_SHAPES[kind]
            out.append(f"    {identifier(name)}{left}{text(lines)}{right}")
            if hangs_on:
                out.append(f"    {identifier(hangs_on)} --- {identifier(name)}")
        out.append("  end")
        for xtr in site.xtrs:
            out.append(f'  {identifier(core)} ---|"{link_label(link_to(plan, xtr))}"| {identifier(xtr)}')
    return "\n".join(out) + "\n"


_DOT_SHAPES = {"xtr": "box", "lan": "oval", "host": "box", "guest": "component"}


def render_dot(plan: Plan) -> str:
    """Return a Graphviz graph."""

    def text(lines: list[str]) -> str:
        return "\\n".join(lines)

    core, mapping = _core(plan), plan.mapping_system.node
    out = [f'graph "{plan.name}" {{', '  node [fontname="sans-serif"]; edge [fontname="sans-serif"];']
    out.append(f'  "{core}" [shape=circle];')
    out.append(f'  "{mapping}" [shape=box, label="{text(mapping_lines(plan.mapping_system))}"];')
    out.append(f'  "{core}" -- "{mapping}" [label="{link_label(link_to(plan, mapping))}"];')
    for site in plan.sites:
        out.append(f'  subgraph "cluster_{site.name}" {{')
        out.append(f'    label="{site.name}";')
        for name, kind, lines, hangs_on in _members(plan, site):
            out.append(f'    "{name}" [shape={_DOT_SHAPES[kind]}, label="{text(lines)}"];')
            if hangs_on:
                out.append(f'    "{hangs_on}" -- "{name}";')
        out.append("  }")
        for xtr in site.xtrs:
            out.append(f'  "{core}" -- "{xtr}" [label="{link_label(link_to(plan, xtr))}"];')
    return "\n".join([*out, "}"]) + "\n"
