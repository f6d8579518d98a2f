"""The words on a picture of a plan, the same in every format. Pure."""

from __future__ import annotations

from testbed.plan.model import Correspondent, Guest, Link, MappingSystem, Plan, Site, XenHost


def link_to(plan: Plan, node: str) -> Link:
    """Return the link between the core and a node; StopIteration if there is none."""
    return next(link for link in plan.links if link.ends[1].node == node)


def link_label(link: Link) -> str:
    """Return what a link does to packets, "5 ms ± 1 ms · 0.1 % loss · 100 Mbit/s", or its MTU if nothing."""
    asked, parts = link.impairment, []
    if asked.delay_ms or asked.jitter_ms:
        jitter = f" ± {asked.jitter_ms:g} ms" if asked.jitter_ms else ""
        parts.append(f"{asked.delay_ms:g} ms{jitter}")
    if asked.loss_percent:
        parts.append(f"{asked.loss_percent:g} % loss")
    if asked.rate_mbit is not None:
        rate = asked.rate_mbit
        parts.append(f"{rate / 1000:g} Gbit/s" if rate >= 1000 else f"{rate:g} Mbit/s")
    if link.mtu != 1500 or not parts:
        parts.append(f"MTU {link.mtu}")
    return " · ".join(parts)


def mapping_lines(mapping: MappingSystem) -> list[str]:
    """Return the mapping system's name, roles and locator."""
    return [mapping.node, "Map-Server, Map-Resolver", f"RLOC {mapping.rloc}"]


def xtr_lines(site: Site) -> list[list[str]]:
    """Return each xTR's name and locator, and what the locator is worth if there are several."""
    if not site.further_xtrs:
        return [[site.xtr, f"RLOC {site.rloc}"]]
    worth = [(site.rloc_priority, site.rloc_weight), *((x.rloc_priority, x.rloc_weight) for x in site.further_xtrs)]
    return [
        [node, f"RLOC {rloc}", f"priority {priority}, weight {weight}"]
        for node, rloc, (priority, weight) in zip(site.xtrs, site.rlocs, worth, strict=True)
    ]


def lan_lines(site: Site) -> list[str]:
    """Return the prefixes of a site's EID LAN, those that its EIDs may leave marked, its gateways and instance."""
    prefixes = [*site.eid_prefixes, *(f"{prefix} (dynamic)" for prefix in site.dynamic_eid_prefixes)]
    gateways = [gateway.partition("/")[0] for gateway in site.gateway]
    lines = [*(f"EID LAN {prefix}" for prefix in prefixes), *(f"gateway {gateway}" for gateway in gateways)]
    return [*lines, f"instance {site.instance_id}"] if site.instance_id else lines


def host_lines(host: XenHost) -> list[str]:
    """Return a Xen host's name and where its migration stream comes from."""
    return [host.name, f"Xen host, migrates from {host.migration.partition('/')[0]}"]


def guest_lines(guest: Guest) -> list[str]:
    """Return a guest's name, EID and size."""
    cpus = "vCPU" if guest.vcpus == 1 else "vCPUs"
    return [guest.name, f"EID {guest.eid}", f"{guest.memory_mib} MiB, {guest.vcpus} {cpus}"]


def correspondent_lines(correspondent: Correspondent) -> list[str]:
    """Return the correspondent's name and EID."""
    return [correspondent.node, f"EID {correspondent.eid}"]
