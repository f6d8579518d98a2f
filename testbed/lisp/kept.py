"""Registrations that outlive the Map-Server's process: as text to be stored, and what of it still counts.

What is stored is a convenience: without it every xTR registers anew within a refresh (RFC 9301 §8.2), and until then
the Map-Server denies what it has forgotten, and cannot tell an xTR of a loss whose address it does not know. So what
cannot be read, has ended, or does not go with the nonces and the configuration is left out, and nothing else depends
on it: who may register what, in which order, stands in the nonces alone (`testbed.lisp.ownership`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from testbed.lisp.actions import KeepRegistration
from testbed.lisp.admission import Correspondent, Correspondents
from testbed.lisp.config import MapServerConfig
from testbed.lisp.ownership import Claimant, Ownership
from testbed.lisp.registry import Registration
from testbed.lisp.wire import EidPrefix, EidRecord
from testbed.lisp.wire.reader import Reader


@dataclass(frozen=True, slots=True)
class Kept:
    """A registration from before a restart, and how its owner is written to.

    The owner's secret is used as configured, until the owner is heard again (it may use it in a tolerated way).
    """

    registration: Registration
    correspondent: Correspondent


@dataclass(frozen=True, slots=True)
class _Text:
    """Makes the text of a registration whose owner is written to at `port`."""

    registration: Registration
    port: int

    def __call__(self) -> str:
        """One line of JSON."""
        kept = self.registration
        values = {
            "owner": str(kept.owner),
            "rloc": str(kept.rloc),
            "port": self.port,
            "record": kept.record.encode().hex(),
            "proxy": kept.proxy,
            "nonce": kept.nonce,
            "registered_ns": kept.registered_ns,
            "expires_ns": kept.expires_ns,
        }
        return json.dumps(values, separators=(",", ":"))


def keep(eid: EidPrefix, registration: Registration | None, correspondents: Correspondents) -> KeepRegistration:
    """Store what is registered of a prefix, or that nothing is."""
    peer = correspondents.get(registration.owner) if registration is not None else None
    return KeepRegistration(
        eid, _Text(registration, peer.port) if registration is not None and peer is not None else None
    )


def restored(
    texts: Iterable[str], config: MapServerConfig, ownership: Ownership, now: int
) -> tuple[list[Kept], list[str]]:
    """What still counts of stored registrations, and why each other one does not."""
    found: list[Kept] = []
    refused: list[str] = []
    for text in texts:
        try:
            found.append(_kept(json.loads(text), config, ownership, now))
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # WireError is a ValueError
            refused.append(str(error) or type(error).__name__)
    return found, refused


def _kept(values: Any, config: MapServerConfig, ownership: Ownership, now: int) -> Kept:
    """One stored registration; ValueError, KeyError or TypeError if it does not count."""
    owner = Claimant.parse(values["owner"])
    reader = Reader(bytes.fromhex(values["record"]))
    record = EidRecord.decode(reader)
    numbers = [values[name] for name in ("port", "nonce", "registered_ns", "expires_ns")]
    if not all(type(number) is int for number in numbers) or type(values["proxy"]) is not bool:
        raise ValueError("a field of another type")
    port, nonce, registered_ns, expires_ns = numbers
    site = next((each for each in config.sites if each.name == owner.site), None)
    if site is None or not isinstance(record.eid, EidPrefix) or not site.may_register(record.eid):
        raise ValueError("not an EID of this site")
    if reader.offset != len(reader.data) or not 0 < port < 65536 or not record.ttl_minutes:
        raise ValueError("no registration")
    if not registered_ns <= now < expires_ns:
        raise ValueError("ended")
    eid, last = record.eid, ownership.last_nonce(owner)
    if last is None or nonce > last:
        raise ValueError("later than its owner's last nonce")
    if site.is_dynamic(eid) and ownership.owner_of(eid) != owner:
        raise ValueError("claimed by another since")
    rloc = ip_address(values["rloc"])
    registration = Registration(
        eid, owner, site, rloc, record,
        proxy=values["proxy"], nonce=nonce, registered_ns=registered_ns, expires_ns=expires_ns,
    )  # fmt: skip
    return Kept(registration, Correspondent(rloc, port, site, site.secret))
