"""What a mapping in a message means to an ITR (RFC 9301 §5.4, §5.5)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from testbed.lisp.actions import MINUTE_NS, Address, Forwarding, ForwardingLocator, Prefix
from testbed.lisp.config import XtrConfig
from testbed.lisp.map_cache import CacheEntry
from testbed.lisp.wire import PRIORITY_UNUSABLE, TTL_LOCAL_DECISION, EidPrefix, EidRecord, LocatorFlag
from testbed.lisp.wire import Action as MappingAction

#: What a negative answer does to packets (RFC 9301 §5.4); anything unassigned drops.
NEGATIVE: dict[int, Forwarding] = {
    MappingAction.NO_ACTION: Forwarding.DROP,
    MappingAction.NATIVELY_FORWARD: Forwarding.NATIVE,
    MappingAction.SEND_MAP_REQUEST: Forwarding.RESOLVE,
}


def cache_entry(record: EidRecord, eid: Prefix, now: int, local_ttl_ns: int) -> CacheEntry:
    """A record as the cache holds it.

    Args:
        record: with a TTL above 0.
        eid: its prefix.
        now: nanoseconds; the lifetime counts from here, whatever passes.
        local_ttl_ns: lifetime if the record leaves it to us.
    """
    lifetime_ns = record.ttl_minutes * MINUTE_NS
    if record.ttl_minutes == TTL_LOCAL_DECISION:
        lifetime_ns = local_ttl_ns
    locators = usable_locators(record)
    if record.locators:
        # Locators that are all down leave nothing to do but drop, until the mapping ends.
        forwarding = Forwarding.REMOTE if locators else Forwarding.DROP
    else:
        forwarding = NEGATIVE.get(record.action, Forwarding.DROP)
    listed = tuple(each.rloc if isinstance(each.rloc, Address) else None for each in record.locators)
    instance_id = record.eid.instance_id if isinstance(record.eid, EidPrefix) else 0
    return CacheEntry(eid, forwarding, locators, now + lifetime_ns, instance_id, record.map_version, now, listed)


def usable_locators(record: EidRecord) -> tuple[ForwardingLocator, ...]:
    """The locators that packets may be sent to: R-bit set and priority below 255 (RFC 9301 §5.4)."""
    return tuple(
        ForwardingLocator(locator.rloc, locator.priority, locator.weight)
        for locator in record.locators
        if isinstance(locator.rloc, Address)
        and LocatorFlag.REACHABLE in locator.flags
        and locator.priority < PRIORITY_UNUSABLE
    )


@dataclass(frozen=True, slots=True)
class Judged:
    """The records of a message.

    Attributes:
        taken: what is to be believed, each within the EID space.
        refused: what is not, and why.
    """

    taken: list[EidRecord]
    refused: list[tuple[EidRecord, str]]


def judge(records: tuple[EidRecord, ...], asked: Prefix, config: XtrConfig) -> Judged:
    """Which records answer a question or belong to a subscription (RFC 9301 §5.5, §9).

    That is what overlaps the prefix asked for, and more-specifics of what covers it. A negative record
    wider than the EID space counts within it; a mapping wider than that claims what its sender cannot have.
    """
    judged = Judged([], [])
    usable: list[tuple[EidRecord, Prefix]] = []
    for record in records:
        found = _usable(record, asked, config)
        if isinstance(found, str):
            judged.refused.append((record, found))
        else:
            usable.append((record, found))
    covering = [prefix for _, prefix in usable if prefix.overlaps(asked)]
    for record, prefix in usable:
        if any(prefix.overlaps(each) for each in covering):
            eid = config.in_instance(prefix)
            judged.taken.append(record if record.eid == eid else replace(record, eid=eid))
        else:
            judged.refused.append((record, "not what was asked for"))
    return judged


def _usable(record: EidRecord, asked: Prefix, config: XtrConfig) -> Prefix | str:
    """The prefix for which a record may count, whatever was asked, or why it may not at all."""
    if not isinstance(record.eid, EidPrefix):
        return "unknown AFI"
    prefix = config.prefix_of(record.eid)
    if prefix is None:
        return "another instance"
    if any(each.overlaps(prefix) and each.prefixlen <= prefix.prefixlen for each in config.eid_prefixes):
        return "inside our own prefix"
    if config.is_own_address(prefix):
        return "our own address"
    spaces = [space for space in config.eid_space if space.overlaps(prefix)]
    if not spaces:
        return "outside the EID space"
    if any(space.prefixlen <= prefix.prefixlen for space in spaces):
        return prefix
    if record.locators:
        return "wider than the EID space"
    return next((space for space in spaces if space.overlaps(asked)), spaces[0])


#: A locator is local to one xTR of a site and not to another.
_OWN_WORD = int(LocatorFlag.LOCAL)


def agree(one: EidRecord, other: EidRecord) -> bool:
    """Whether two xTRs registered the same mapping: only whose own each locator is may differ (L-bit)."""
    return replace(one, locators=()) == replace(other, locators=()) and shared(one) == shared(other)


def shared(record: EidRecord) -> tuple[tuple[object, ...], ...]:
    """The locators of a mapping without what each xTR of the site says in its own way: to be compared with others."""
    return tuple(
        [
            (
                each.rloc, each.priority, each.weight, each.multicast_priority, each.multicast_weight,
                int(each.flags) | _OWN_WORD,
            )
            for each in record.locators
        ]
    )  # fmt: skip


def best_rloc(entry: CacheEntry) -> Address | None:
    """The locator that packets prefer, or None."""
    best = min(entry.locators, key=lambda locator: locator.priority, default=None)
    return best.rloc if best else None


def first_rloc(record: EidRecord) -> Address | None:
    """The first usable locator of a record, or None."""
    return next((each.rloc for each in usable_locators(record)), None)
