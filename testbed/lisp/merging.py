"""What several xTRs of one site register of one prefix, as one mapping (RFC 9301 §5.6, merge-request bit).

RFC 9301 has the bit and says no more than that "RLOC-Records from different xTRs registering the same EID-Record" are
to be merged. What it leaves open is decided here; docs/adr/0006-merged-registrations.md is the argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_

from testbed.lisp.actions import Action, emit
from testbed.lisp.admission import Correspondents
from testbed.lisp.config import SiteConfig
from testbed.lisp.notifier import Notifier
from testbed.lisp.ownership import Claimant
from testbed.lisp.registry import Part, Registration
from testbed.lisp.wire import MAX_LOCATORS, EidPrefix, EidRecord, LocatorFlag, RlocRecord, in_wire_order


@dataclass(frozen=True, slots=True)
class MergeKey:
    """An unsolicited Map-Notify of a set that has changed: whom it is for, and of which prefix."""

    fellow: Claimant
    eid: EidPrefix


def registered(
    old: Registration | None, eid: EidPrefix, site: SiteConfig, part: Part, *, merges: bool, now: int
) -> Registration:
    """What a Map-Register's record makes of what is registered: its sender's alone, or one part among its site's.

    Args:
        old: what is registered of the prefix.
        eid: the prefix.
        site: of the sender.
        part: what it registers.
        merges: it asks for the parts of its site's xTRs to be merged; those that ask for it as well are.
        now: nanoseconds.
    """
    same_site = old is not None and old.site.name == site.name
    beside: tuple[Part, ...] = ()
    if old is not None and same_site and merges and old.merged:
        beside = tuple(each for each in old.parts if each.owner != part.owner)
    parts = (*beside, part)
    stays = old is not None and (part.owner in old.owners or (merges and same_site))
    began_ns = old.registered_ns if old is not None and stays else now
    return Registration(eid, site, parts, united(parts) if merges else part.record, merges, began_ns)


def united(parts: Iterable[Part]) -> EidRecord:
    """The mapping that several parts make.

    Of each locator what its own xTR says counts (L-bit); where that does not decide, the best priority, then the
    greatest weight. The TTL is the smallest, so that no part is in a cache for longer than its xTR wants. No locator is
    local to the set, and no map-version is brought to it unless all bring the same. It is authoritative if all are
    (A-bit); the action, which counts without locators only, is the one with the greatest number.
    """
    records = [part.record for part in parts]
    best: dict[object, RlocRecord] = {}
    for locator in (each for record in records for each in record.locators):
        other = best.get(locator.rloc)
        best[locator.rloc] = locator if other is None else max(locator, other, key=_weight_of_word)
    locators = in_wire_order(replace(each, flags=each.flags & ~LocatorFlag.LOCAL) for each in best.values())
    versions = {record.map_version for record in records}
    return replace(
        records[-1],
        ttl_minutes=min(record.ttl_minutes for record in records),
        locators=locators,
        action=max(record.action for record in records),
        flags=reduce(and_, (record.flags for record in records)),
        map_version=versions.pop() if len(versions) == 1 else 0,
    )


def _weight_of_word(locator: RlocRecord) -> tuple[bool, int, int, int, int, int]:
    own = LocatorFlag.LOCAL in locator.flags
    multicast = (-locator.multicast_priority, locator.multicast_weight)
    return (own, -locator.priority, locator.weight, *multicast, int(locator.flags))


def is_too_large(registration: Registration) -> bool:
    """Whether a set has more locators than one record holds, or as many xTRs."""
    return max(len(registration.parts), len(registration.record.locators)) > MAX_LOCATORS


def as_told_to(fellow: Claimant, registration: Registration) -> EidRecord:
    """A set as one of its xTRs is told of it: the locators that it called its own are (L-bit)."""
    part = next(each for each in registration.parts if each.owner == fellow)
    own = {each.rloc for each in part.record.locators if LocatorFlag.LOCAL in each.flags}
    if own.isdisjoint(each.rloc for each in registration.record.locators if LocatorFlag.LOCAL not in each.flags):
        return registration.record
    locators = tuple(
        replace(each, flags=each.flags | LocatorFlag.LOCAL) if each.rloc in own else each
        for each in registration.record.locators
    )
    return replace(registration.record, locators=locators)


def conflicts(old: Registration | None, new: Registration) -> list[Action]:
    """What the xTRs of a site do not agree on, for the log; said when it is new.

    Args:
        old: of the same prefix, before.
        new: with the last part to come at its end.
    """
    if old is None or old.site.name != new.site.name:
        return []
    part = new.parts[-1]
    if old.merged != new.merged and any(owner != part.owner for owner in old.owners):
        said = "with" if new.merged else "without"
        return [_conflict(new, "merge-request bit", f"registered {said} it last, which counts")]
    if not new.merged or any(each.owner == part.owner and each.record == part.record for each in old.parts):
        return []
    found: list[Action] = []
    if len({each.record.ttl_minutes for each in new.parts}) > 1:
        found.append(_conflict(new, "TTL", f"{new.record.ttl_minutes} minutes, the smallest, count"))
    for locator in part.record.locators:
        words = [each for other in new.parts for each in other.record.locators if each.rloc == locator.rloc]
        if len({replace(each, flags=each.flags & ~LocatorFlag.LOCAL) for each in words}) > 1:
            used = next(each for each in new.record.locators if each.rloc == locator.rloc)
            told = f"{used.rloc} has priority {used.priority}, weight {used.weight}"
            found.append(_conflict(new, "locator", told))
    return found


def _conflict(new: Registration, about: str, outcome: str) -> Action:
    return emit("merge_conflict", eid=new.eid, site=new.site.name, owner=str(new.owner), about=about, outcome=outcome)


def tell_fellows(
    registration: Registration,
    notifier: Notifier,
    correspondents: Correspondents,
    now: int,
    but: Claimant | None = None,
) -> list[Action]:
    """Tell the xTRs that share a mapping what it is now: they answer for it, and count its locators.

    Only who asks for Map-Notifies gets any (RFC 9301 §5.7). The nonce is that of the receiver's own Map-Register, so
    that it moves no clock (docs/adr/0003-who-owns-a-moving-eid.md).

    Args:
        registration: the mapping; one that is not merged is told to nobody.
        notifier: repeats it until it is acknowledged.
        correspondents: how each xTR is written to.
        now: nanoseconds.
        but: who knows.
    """
    actions: list[Action] = []
    for part in registration.parts if registration.merged else ():
        peer = correspondents.get(part.owner)
        if peer is not None and part.notify and part.owner != but:
            record = as_told_to(part.owner, registration)
            actions += notifier.notify(
                MergeKey(part.owner, registration.eid), part.nonce, (record,),
                secret=peer.secret, destination=peer.rloc, port=peer.port, reason="merged", now=now,
            )  # fmt: skip
    return actions
