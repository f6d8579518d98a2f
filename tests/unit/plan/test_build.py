"""The plan of two-sites, to the last address, and what holds for every plan."""

from __future__ import annotations

import re
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.plan import PlanError, build_plan, plan_from_json, plan_to_json
from testbed.plan.model import Interface, Plan
from testbed.spec import Experiment, SpecError, Topology, load_experiment, load_topology

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).with_name("two-sites.json")
IFNAMSIZ = 16  # with the terminating zero, linux/if.h


def two_sites() -> Topology:
    path = ROOT / "topologies/two-sites.yaml"
    return load_topology(path.read_text(), path.name)


def first_migration(*overrides: str) -> Experiment:
    path = ROOT / "experiments/first-migration.yaml"
    return load_experiment(path.read_text(), path.name, overrides=overrides)


def test_two_sites_is_what_the_reference_says() -> None:
    assert plan_to_json(build_plan(two_sites())) == GOLDEN.read_text()


def test_a_plan_survives_json() -> None:
    plan = build_plan(two_sites())
    assert plan_from_json(plan_to_json(plan)) == plan


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"name": 3}'])
def test_json_that_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="not a plan"):
        plan_from_json(text)


def test_an_experiment_sizes_its_guest() -> None:
    plan = build_plan(two_sites(), first_migration("guest.memory_mib=128", "guest.vcpus=2"))
    assert (plan.guest("vm1").memory_mib, plan.guest("vm1").vcpus) == (128, 2)
    assert [host.name for host in plan.xen_hosts] == ["xen-a", "xen-b"]


def test_no_xen_host_is_planned_for_the_netns_substrate() -> None:
    assert build_plan(two_sites(), first_migration("substrate=netns")).xen_hosts == ()


def test_an_experiment_that_does_not_fit_has_no_plan() -> None:
    with pytest.raises(SpecError, match=r"^migrations\.0\.to: no site is called 'site-x'"):
        build_plan(two_sites(), first_migration("migrations.0.to=site-x"))


def test_an_rloc_that_is_the_first_address_leaves_the_core_another() -> None:
    text = (ROOT / "topologies/two-sites.yaml").read_text().replace(
        "- name: site-c", "- name: site-c\n    rloc: 10.9.9.1"
    )  # fmt: skip
    plan = build_plan(load_topology(text, "t.yaml"))
    near, far = (end.addresses for link in plan.links if link.name == "core-c" for end in link.ends)
    assert (near, far) == (("10.9.9.254/24",), ("10.9.9.1/24",))


def test_with_ipv6_locators_only_migration_streams_are_ipv4() -> None:
    path = ROOT / "topologies/two-sites-ipv6-rlocs.yaml"
    plan = build_plan(load_topology(path.read_text(), path.name))
    ends = {link.name: tuple(end.addresses for end in link.ends) for link in plan.links}
    assert ends["core-ms"] == (("fd10::1/64",), ("fd10::2/64",))
    assert ends["core-c"] == (("fd10:0:0:3::1/64",), ("fd10:0:0:3::2/64",))
    assert ends["core-a"] == (("fd10:0:0:1::1/64", "10.0.1.1/24"), ("fd10:0:0:1::2/64", "10.0.1.2/24"))
    assert [site.rloc for site in plan.sites] == [f"fd10:0:0:{n}::2" for n in (1, 2, 3)]
    assert plan.mapping_system.rloc == "fd10::2"
    assert [host.migration for host in plan.xen_hosts] == ["10.1.1.2/24", "10.1.2.2/24"]
    routes = {node.name: [(route.prefix, route.via) for route in node.routes] for node in plan.nodes}
    assert routes["xtr-a"] == [("fd10::/48", "fd10:0:0:1::1"), ("10.0.0.0/8", "10.0.1.1")]
    assert routes["xtr-c"] == [("fd10::/48", "fd10:0:0:3::1")]
    assert routes["core"] == [("10.1.1.0/24", "10.0.1.2"), ("10.1.2.0/24", "10.0.2.2")]


# A digit at the end could be another site's further xTR.
short_names = st.from_regex(r"[a-z]([a-z0-9]{0,9}[a-z])?", fullmatch=True).filter(lambda name: name != "ms")


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Topologies of one to six sites, some of which share a dynamic prefix and have Xen hosts."""
    names = draw(st.lists(short_names, min_size=2, max_size=6, unique=True))
    space = draw(st.sampled_from(["10.0.0.0/8", "100.64.0.0/10", "fd10::/48"]))
    lines = ["schema_version: 1", "name: drawn", f"rloc_space: '{space}'", "sites:"]
    for index, name in enumerate(names):
        mobile = index > 0 and draw(st.booleans())
        kind, prefix = ("dynamic_eid_prefixes", "2001:db8::/64" if draw(st.booleans()) else "172.20.0.0/24")
        if not mobile:
            kind, prefix = "eid_prefixes", f"192.168.{index}.0/24"
        lines += [f"  - name: site-{name}", f"    {kind}: ['{prefix}']"]
        if not mobile and (further := draw(st.integers(0, 3))):
            lines.append(f"    further_xtrs: [{', '.join(['{}'] * further)}]")
        if draw(st.booleans()):
            lines.append("    xen_host: {}")
    lines.append(f"correspondent: {{name: peer-of-all, site: site-{names[0]}}}")
    return load_topology("\n".join(lines) + "\n", "drawn.yaml")


def interfaces(plan: Plan) -> list[Interface]:
    ends = [end for link in plan.links for end in link.ends]
    return ends + [port for bridge in plan.bridges for port in bridge.ports]


@given(topologies())
def test_in_every_plan_names_fit_and_addresses_are_unique(topology: Topology) -> None:
    plan = build_plan(topology)
    assert plan_from_json(plan_to_json(plan)) == plan
    names = [(port.node, port.name) for port in interfaces(plan)]
    names += [("", bridge.name) for bridge in plan.bridges]
    assert len(set(names)) == len(names)
    assert all(len(name) < IFNAMSIZ and re.fullmatch(r"[a-z0-9-]+", name) for _, name in names)
    nodes = [node.name for node in plan.nodes] + [host.name for host in plan.xen_hosts]
    assert len(set(nodes)) == len(nodes)
    gateways = {gateway for site in plan.sites for gateway in site.gateway}
    addresses = [a for port in interfaces(plan) for a in port.addresses if a not in gateways]
    addresses += [host.migration for host in plan.xen_hosts]
    addresses += [host.out_of_band for host in plan.xen_hosts]
    assert len({ip_interface(address).ip for address in addresses}) == len(addresses)


@given(topologies())
def test_in_every_plan_next_hops_are_neighbours(topology: Topology) -> None:
    plan = build_plan(topology)
    networks = {
        node.name: [ip_interface(a).network for p in interfaces(plan) if p.node == node.name for a in p.addresses]
        for node in plan.nodes
    }
    for node in plan.nodes:
        for route in node.routes:
            assert any(ip_interface(route.via).ip in network for network in networks[node.name])
    for site in plan.sites:
        assert all(ip_interface(rloc).ip in ip_network(topology.rloc_space) for rloc in site.rlocs)


def test_a_site_says_what_its_locator_is_worth() -> None:
    text = (ROOT / "topologies/two-sites.yaml").read_text()
    given = re.sub(r"( +)(- name: site-b\n)", r"\1\2\1  rloc_priority: 7\n\1  rloc_weight: 30\n", text)
    site = build_plan(load_topology(given, "given.yaml")).site("site-b")
    assert (site.rloc_priority, site.rloc_weight) == (7, 30)
    with pytest.raises(SpecError, match="255 is out of range; allowed: at most 254"):
        load_topology(given.replace("rloc_priority: 7", "rloc_priority: 255"), "given.yaml")


def test_an_instance_belongs_to_a_site_and_to_every_node_of_it() -> None:
    path = ROOT / "topologies/two-instances.yaml"
    plan = build_plan(load_topology(path.read_text(), path.name))
    assert {site.name: site.instance_id for site in plan.sites} == {
        "site-a": 7, "site-b": 7, "site-c": 7, "site-d": 8, "site-e": 8,
    }  # fmt: skip
    assert plan.site("site-c").eid_prefixes == plan.site("site-e").eid_prefixes
    nodes = ("xtr-a", "vm1", "correspondent", "xtr-e", "core", "ms")
    assert [plan.instance_of(node) for node in nodes] == [7, 7, 7, 8, 7, 7]


def dual_homed(*overrides: str, text: str | None = None) -> Plan:
    path = ROOT / "topologies/dual-homed-correspondent.yaml"
    return build_plan(load_topology(text or path.read_text(), path.name, overrides=overrides))


def test_a_sites_second_xtr_has_a_link_a_locator_and_an_address_on_the_lan_of_its_own() -> None:
    plan = dual_homed()
    site = plan.site("site-c")
    (second,) = site.further_xtrs
    assert (site.xtrs, site.rlocs) == (("xtr-c", "xtr-c2"), ("10.0.3.2", "10.0.201.2"))
    assert (second.addresses, second.mac) == (("192.168.3.254/24",), "02:00:5e:00:01:02")
    (lan,) = [bridge for bridge in plan.bridges if bridge.site == "site-c"]
    assert [(port.node, port.addresses) for port in lan.ports] == [
        ("xtr-c", ("192.168.3.1/24",)),
        ("xtr-c2", ("192.168.3.254/24",)),
        ("correspondent", ("192.168.3.10/24",)),
    ]
    ends = {link.name: [(end.node, end.name, end.addresses) for end in link.ends] for link in plan.links}
    assert ends["core-c2"] == [("core", "to-c2", ("10.0.201.1/24",)), ("xtr-c2", "rloc0", ("10.0.201.2/24",))]
    (node,) = [node for node in plan.nodes if node.name == "xtr-c2"]
    assert [(route.prefix, route.via) for route in node.routes] == [("10.0.0.0/8", "10.0.201.1")]
    # Hosts send by the first.
    (host,) = [node for node in plan.nodes if node.role == "correspondent"]
    assert [route.via for route in host.routes] == ["192.168.3.1"]


def test_what_a_further_xtr_has_may_be_given() -> None:
    given = "{name: back-door, rloc: 10.0.9.9, rloc_priority: 3, rloc_weight: 7, link: {delay_ms: 20}}"
    plan = dual_homed(f"sites.2.further_xtrs=[{given}]")
    (second,) = plan.site("site-c").further_xtrs
    assert (second.node, second.rloc, second.rloc_priority, second.rloc_weight) == ("back-door", "10.0.9.9", 3, 7)
    assert next(link for link in plan.links if link.name == "core-c2").impairment.delay_ms == 20


def test_an_ipv6_lan_has_an_address_for_it_too() -> None:
    plan = dual_homed("sites.2.eid_prefixes=['fd00:0:0:3::/64']", "rloc_space=fd10::/48")
    (second,) = plan.site("site-c").further_xtrs
    assert (second.rloc, second.addresses) == ("fd10:0:0:c9::2", ("fd00:0:0:3::fffe/64",))


def test_the_delay_between_two_edges_is_that_by_any_xtr() -> None:
    delays = {link.name: link.impairment.delay_ms for link in dual_homed("one_way_ms=30").links}
    assert set(delays.values()) == {15.0}
    assert "core-c2" in delays
