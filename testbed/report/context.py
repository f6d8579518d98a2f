"""Find out from a plan, a manifest and the events who was who in each migration of a run."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from testbed.events import Event
from testbed.measure.bounds import Bound, Roles, remapping_bound
from testbed.measure.model import NS_PER_MS, Interval, Migration

#: What belongs to a migration when nothing marks its end.
FOREVER_NS = 2**63 - 1

Plan = Mapping[str, Any]


def migrations_of(plan: Plan, manifest: Mapping[str, Any], events: Sequence[Event]) -> list[Migration]:
    """The migrations that were requested, in order, with everything that their analysis must know.

    Args:
        plan: plan.json.
        manifest: manifest.json.
        events: in the order of `mono_ns`.
    """
    requests = [event for event in events if event.kind == "migration_requested"]
    moments = [event.mono_ns for event in requests]
    migrations = []
    previous_ns = 0
    for order, request in enumerate(requests):
        next_ns = moments[order + 1] if order + 1 < len(moments) else FOREVER_NS
        settled_ns = _settled_ns(events, request.mono_ns, next_ns)
        window = Interval(request.mono_ns, next_ns if settled_ns is None else settled_ns)
        baseline = _baseline(events, manifest, previous_ns, request.mono_ns)
        # What is verified after a migration comes after its window, so that probes do not see the verifying.
        span = Interval(request.mono_ns, next_ns)
        migration = _migration(plan, manifest, events, request, order, window, baseline, span)
        migrations.append(replace(migration, settled=settled_ns is not None))
        previous_ns = request.mono_ns
    return migrations


def _settled_ns(events: Sequence[Event], start_ns: int, next_ns: int) -> int | None:
    """The end of a migration's settle window; None if the run was broken off before."""
    return next((e.mono_ns for e in events if e.kind == "settle_ended" and start_ns < e.mono_ns < next_ns), None)


def _baseline(events: Sequence[Event], manifest: Mapping[str, Any], previous_ns: int, start_ns: int) -> Interval | None:
    """The last baseline window before a request: as marked by events, or as long as the manifest says."""
    started = [e.mono_ns for e in events if e.kind == "baseline_started" and previous_ns <= e.mono_ns <= start_ns]
    ended = [e.mono_ns for e in events if e.kind == "baseline_ended" and previous_ns <= e.mono_ns <= start_ns]
    if started:
        return Interval(started[-1], ended[-1] if ended and ended[-1] > started[-1] else start_ns)
    seconds = manifest.get("baseline_s")
    return Interval(start_ns - round(float(seconds) * 1e9), start_ns) if seconds else None


def _migration(
    plan: Plan,
    manifest: Mapping[str, Any],
    events: Sequence[Event],
    request: Event,
    order: int,
    window: Interval,
    baseline: Interval | None,
    span: Interval,
) -> Migration:
    """One request with the plan's answers to who and where; `span` lasts until the next request."""
    sites = {site["name"]: site for site in plan["sites"]}
    guests = {guest["name"]: guest for guest in plan["guests"]}
    source, destination = sites[request.fields["from_site"]], sites[request.fields["to_site"]]
    guest, correspondent = guests[request.fields["guest"]], plan["correspondent"]
    index = int(request.fields.get("index", order))
    end = next(
        (
            event
            for event in events
            if event.kind == "migration_ended"
            and event.mono_ns >= request.mono_ns
            and event.mono_ns < window.end_ns
            and event.fields.get("index", index) == index
        ),
        None,
    )
    verification = _verification(events, span, index)
    return Migration(
        index=index,
        guest=guest["name"],
        eid=str(guest["eid"]).partition("/")[0],
        mac=guest["mac"],
        source_site=source["name"],
        destination_site=destination["name"],
        source_xtr=source["xtr"],
        destination_xtr=destination["xtr"],
        source_rloc=source["rloc"],
        destination_rloc=destination["rloc"],
        map_server=plan["mapping_system"]["node"],
        correspondent=correspondent["node"],
        correspondent_itr=sites[correspondent["site"]]["xtr"],
        mechanism=str(manifest.get("mechanism") or ""),
        window=window,
        baseline=baseline,
        warm_up=bool(request.fields.get("warm_up", False)),
        ended_ok=None if end is None else bool(end.fields.get("ok")),
        error="" if end is None else str(end.fields.get("error") or ""),
        failed_checks=_failed(verification),
        verification=verification,
        has_precopy=manifest.get("substrate") != "netns",
        instance_id=int(source.get("instance_id", 0)),
    )


def _failed(verification: Mapping[str, Any] | None) -> tuple[str, ...]:
    checks = verification["checks"] if verification is not None else {}
    return tuple(sorted(name for name, ok in checks.items() if not ok))


def with_mac_check(migration: Migration, macs: Collection[str]) -> Migration:
    """The migration with what its captures say of rule 7: whoever spoke for the EID at the destination has its MAC.

    Args:
        migration: verified, or nothing is added.
        macs: that were seen; none decides nothing.
    """
    if migration.verification is None or not macs:
        return migration
    checks = {**migration.verification["checks"], "mac_unchanged": set(macs) == {migration.mac.lower()}}
    verification = {**migration.verification, "checks": checks, "macs": sorted(macs)}
    return replace(migration, verification=verification, failed_checks=_failed(verification))


def _verification(events: Sequence[Event], span: Interval, index: int) -> Mapping[str, Any] | None:
    """What was looked at after a migration, and what was seen; None if it was not verified."""
    inside = [e for e in events if span.start_ns <= e.mono_ns < span.end_ns and e.fields.get("index", index) == index]
    verified = next((event for event in inside if event.kind == "verification"), None)
    if verified is None:
        return None
    before = [e for e in events if e.mono_ns < span.start_ns]
    identities = (
        [e for e in before if e.kind == "guest_identity"][-1:],
        [e for e in inside if e.kind == "guest_identity"],
    )
    placements = [e for e in before if e.kind == "placement"][-1:], [e for e in inside if e.kind == "placement"]
    told = {"index", "guest", "when"}

    def first(found: Sequence[Event]) -> Mapping[str, Any] | None:
        return {k: v for k, v in found[0].fields.items() if k not in told} if found else None

    return {
        "checks": dict(verified.fields.get("checks", {})),
        "mapping": list(verified.fields.get("mapping", ())),
        "placement": {
            "before": (first(placements[0]) or {}).get("hosts"),
            "after": (first(placements[1]) or {}).get("hosts"),
        },
        "identity": {"before": first(identities[0]), "after": first(identities[1])},
    }


def one_way_delays(plan: Plan) -> dict[tuple[str, str], float]:
    """The one-way delay of every pair of nodes over the least-delay path, in milliseconds."""
    links: dict[str, list[tuple[str, float]]] = {}
    for link in plan["links"]:
        one, other = (end["node"] for end in link["ends"])
        delay_ms = float(link["impairment"]["delay_ms"])
        links.setdefault(one, []).append((other, delay_ms))
        links.setdefault(other, []).append((one, delay_ms))
    return {(start, end): delay for start in links for end, delay in _from(links, start).items()}


def _from(links: Mapping[str, Sequence[tuple[str, float]]], start: str) -> dict[str, float]:
    """Dijkstra's algorithm from one node."""
    best: dict[str, float] = {}
    queue = [(0.0, start)]
    while queue:
        delay, node = heapq.heappop(queue)
        if node not in best:
            best[node] = delay
            for neighbour, more in links[node]:
                heapq.heappush(queue, (delay + more, neighbour))
    return best


def expected_loss(plan: Plan, migration: Migration) -> float:
    """The probability that a probe or its reply is lost to the impairments between the two sites."""
    loss = {
        end["node"]: float(link["impairment"]["loss_percent"]) / 100 for link in plan["links"] for end in link["ends"]
    }
    out, guests = (loss.get(node, 0.0) for node in (migration.correspondent_itr, migration.source_xtr))
    # What comes back may come by any of its site's xTRs: by the worst, as far as anybody knows.
    homes = [each.get("further_xtrs") or () for each in plan["sites"] if each["xtr"] == migration.correspondent_itr]
    back = max([out, *(loss.get(each["node"], 0.0) for further in homes for each in further)])
    return 1 - (1 - out) * (1 - back) * (1 - guests) ** 2


def bound_of(plan: Plan, manifest: Mapping[str, Any], migration: Migration, interval_ns: int) -> Bound:
    """The analytic bound of a migration's remapping, from the plan's delays and the experiment's options."""
    experiment = manifest.get("experiment") or {}
    options = experiment.get("lisp") or {}
    directions = (experiment.get("probes") or {}).get("directions") or ()
    roles = Roles(migration.destination_xtr, migration.source_xtr, migration.map_server, migration.correspondent_itr)
    try:
        return remapping_bound(
            migration.mechanism,
            one_way_delays(plan),
            roles,
            probe_interval_ms=interval_ns / NS_PER_MS,
            guest_speaks="from-guest" in directions,
            proxy_reply=bool(options.get("proxy_reply", True)),
            ttl_minutes=options.get("registration_ttl_minutes"),
            rloc_probe_interval_s=options.get("rloc_probe_interval_s"),
        )
    except KeyError as missing:
        return Bound(None, "", f"the plan has no path for {missing}")


def migration_addresses(plan: Plan) -> dict[str, str]:
    """Site → the address of its Xen host that streams of memory come from and go to, without prefix length."""
    return {host["site"]: str(host["migration"]).partition("/")[0] for host in plan["xen_hosts"]}


def xtrs_of(plan: Plan) -> Iterator[tuple[Mapping[str, Any], str, str, str]]:
    """Every xTR: (its site, its node, its RLOC, its MAC on the EID LAN); older plans have one a site."""
    for site in plan["sites"]:
        yield site, site["xtr"], site["rloc"], site["gateway_mac"]
        for each in site.get("further_xtrs") or ():
            yield site, each["node"], each["rloc"], each["mac"]


def capture_sites(plan: Plan, manifest: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """(node, interface) of every capture that sees a site's EID LAN → the site.

    These are the xTRs' interfaces on the LAN, the bridge itself and what is plugged into it. A
    capture on a host's tap says its site itself (`site` in the manifest's `captures`).
    """
    sites = {(xtr, site["eid_interface"]): site["name"] for site, xtr, _, _ in xtrs_of(plan)}
    bridges = {bridge["name"]: bridge for bridge in plan["bridges"] if bridge["purpose"] == "eid"}
    for bridge in bridges.values():
        sites.update({(port["node"], port["name"]): bridge["site"] for port in bridge["ports"]})
    for capture in manifest.get("captures") or ():
        where = (capture["node"], capture["interface"])
        if capture.get("site"):
            sites[where] = capture["site"]
        elif capture["interface"] in bridges:
            sites[where] = bridges[capture["interface"]]["site"]
    return sites


def captured_directions(manifest: Mapping[str, Any]) -> Sequence[str]:
    """The directions whose probes have no log of their sender's: captures tell them."""
    return (manifest.get("probes") or {}).get("captured") or ()
