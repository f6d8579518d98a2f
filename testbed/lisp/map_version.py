"""Map-Version numbers: their order, and who counts them (RFC 9302 §6; docs/adr/0004-map-versions.md)."""

from __future__ import annotations

from collections.abc import Callable

from testbed.lisp.actions import Action, SaveNonce
from testbed.lisp.mapping import shared
from testbed.lisp.wire import EidPrefix, EidRecord

#: "No version number": never counted, never compared (RFC 9302 §6.1).
NULL_MAP_VERSION = 0
#: 12 bits without the null version.
VERSIONS = (1 << 12) - 1
_HALF = 1 << 11
#: The owner under which a prefix's count is stored.
COUNT_OWNER = "map-version"


def is_newer(version: int, than: int) -> bool:
    """Whether one version is newer than another, neither being null (RFC 9302 §6)."""
    if version > than:
        return version - than <= _HALF
    return than - version > _HALF


def next_version(version: int) -> int:
    """The version after one; the null version is skipped (RFC 9302 §6.1)."""
    return version % VERSIONS + 1


class MapVersions:
    """The versions of a Map-Server's mappings: one more whenever a prefix's locators change.

    What is counted does not wrap, so that it can be stored like a nonce; the version is made from it.

    Args:
        saved: counts by owner, from persistent storage; added to as they change.
        random64: gives 64 random bits.
    """

    def __init__(self, saved: dict[str, int], random64: Callable[[], int]) -> None:
        self._saved = saved
        self._random64 = random64
        #: As `shared` gives them.
        self._locators: dict[EidPrefix, tuple[tuple[object, ...], ...]] = {}

    def restore(self, record: EidRecord, eid: EidPrefix) -> None:
        """Know what a prefix's locators were before a restart."""
        self._locators[eid] = shared(record)

    def number(self, record: EidRecord, eid: EidPrefix, brought: int) -> tuple[EidRecord, list[Action]]:
        """Give a registered mapping its version.

        Args:
            record: as registered; locators in wire order, so that equal sets are equal.
            eid: its prefix.
            brought: the version that the ETR calls it, or 0.

        Returns the record with its version, and what to do before anyone is told of it. A version that
        the ETR brings counts if it is newer than ours; an older one is that of an earlier mapping.
        """
        owner = f"{COUNT_OWNER} {eid}"
        count = self._saved.get(owner)
        # After a restart the locators before may be unknown, and so may have changed.
        locators = shared(record)
        same = count is not None and self._locators.get(eid) == locators
        self._locators[eid] = locators
        if count is None:
            # RFC 9302 §6: the first one is random, unless the ETR has one.
            new = brought - 1 if brought else self._random64() % VERSIONS
        elif brought and is_newer(brought, _version(count)):
            new = count + (brought - _version(count)) % VERSIONS
        else:
            new = count if same else count + 1
        if new == count:
            return record.numbered(_version(count)), []
        self._saved[owner] = new
        return record.numbered(_version(new)), [SaveNonce(owner, new)]


def _version(count: int) -> int:
    return count % VERSIONS + 1
