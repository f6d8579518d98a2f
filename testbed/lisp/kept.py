"""Registrations that outlive the Map-Server's process: as text to be stored, and what of it still counts.

What is stored is a convenience: without it every xTR registers anew within a refresh (RFC 9301 §8.2), and until then
the Map-Server denies what it has forgotten, and cannot tell an xTR of a loss whose address it does not know. So what
cannot be read, has ended, or does not go with the nonces and the configuration is left out, and nothing else depends
on it: who may register what, in which order, stands in the nonces alone (`testbed.lisp.ownership`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from testbed.lisp.actions import KeepRegistration
from testbed.lisp.admission import Correspondent, Correspondents
from testbed.lisp.config import MapServerConfig
from testbed.lisp.merging import united
from testbed.lisp.ownership import Claimant, Ownership
from testbed.lisp.registry import Part, Registration
from testbed.lisp.wire import Eid, EidPrefix, EidRecord
from testbed.lisp.wire.reader import Reader


@dataclass(frozen=True, slots=True)
class Kept:
    """A registration from before a restart, and how each of its owners is written to.

    An owner's secret is used as configured, until the owner is heard again (it may use it in a tolerated way).
    """

    registration: Registration
    correspondents: tuple[Correspondent, ...]


@dataclass(frozen=True, slots=True)
class _Text:
    """Makes the text of a registration whose owners are written to at `ports`."""

    registration: Registration
    ports: tuple[int, ...]

    def __call__(self) -> str:
        """One line of JSON."""
        kept = self.registration
        values = {
            "record": kept.record.encode().hex(),
            "merged": kept.merged,
            "registered_ns": kept.registered_ns,
            "parts": [_part_values(part, port) for part, port in zip(kept.parts, self.ports, strict=True)],
        }
        return json.dumps(values, separators=(",", ":"))


def _part_values(part: Part, port: int) -> dict[str, Any]:
    return {
        "owner": str(part.owner),
        "rloc": str(part.rloc),
        "port": port,
        "record": part.record.encode().hex(),
        "proxy": part.proxy,
        "notify": part.notify,
        "nonce": part.nonce,
        "expires_ns": part.expires_ns,
    }


def keep(registered: Registration | EidPrefix, correspondents: Correspondents) -> KeepRegistration:
    """Store what is registered, or that nothing is of a prefix."""
    if isinstance(registered, EidPrefix):
        return KeepRegistration(registered, None)
    peers = [correspondents.get(owner) for owner in registered.owners]
    ports = tuple(peer.port for peer in peers if peer is not None)
    return KeepRegistration(registered.eid, _Text(registered, ports) if len(ports) == len(peers) else None)


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
    """One stored registration; ValueError, KeyError or TypeError if nothing of it counts."""
    record, registered_ns, merged = _record(values["record"]), values["registered_ns"], values["merged"]
    if type(registered_ns) is not int or type(merged) is not bool:
        raise ValueError("a field of another type")
    if not registered_ns <= now:
        raise ValueError("from another boot")
    found: list[tuple[Part, Correspondent]] = []
    why = ValueError("no registration")
    for part_values in values["parts"]:
        try:
            found.append(_part(part_values, record.eid, config, ownership, now))
        except ValueError as error:
            why = error
    sites = {correspondent.site.name: correspondent.site for _, correspondent in found}
    if len(sites) != 1 or not (merged or len(values["parts"]) == 1):
        raise why
    parts, correspondents = zip(*found, strict=True)
    if len(parts) < len(values["parts"]):
        record = replace(united(parts), map_version=0)
    assert isinstance(record.eid, EidPrefix)
    (site,) = sites.values()
    return Kept(Registration(record.eid, site, parts, record, merged, registered_ns), correspondents)


def _part(values: Any, eid: Eid, config: MapServerConfig, ownership: Ownership, now: int) -> tuple[Part, Correspondent]:
    """What one xTR had registered; ValueError, KeyError or TypeError if it does not count."""
    owner, record = Claimant.parse(values["owner"]), _record(values["record"])
    port, nonce, expires_ns = numbers = [values[name] for name in ("port", "nonce", "expires_ns")]
    flags = [values[name] for name in ("proxy", "notify")]
    if any(type(number) is not int for number in numbers) or any(type(flag) is not bool for flag in flags):
        raise ValueError("a field of another type")
    site = next((each for each in config.sites if each.name == owner.site), None)
    if site is None or record.eid != eid or not isinstance(eid, EidPrefix) or not site.may_register(eid):
        raise ValueError("not an EID of this site")
    if not 0 < port < 65536:
        raise ValueError("no port")
    if now >= expires_ns:
        raise ValueError("ended")
    last = ownership.last_nonce(owner)
    if last is None or nonce > last:
        raise ValueError("later than its owner's last nonce")
    if site.is_dynamic(eid) and owner not in ownership.owners_of(eid):
        raise ValueError("claimed by another since")
    rloc = ip_address(values["rloc"])
    part = Part(owner, rloc, record, proxy=flags[0], notify=flags[1], nonce=nonce, expires_ns=expires_ns)
    return part, Correspondent(rloc, port, site, site.secret)


def _record(text: str) -> EidRecord:
    reader = Reader(bytes.fromhex(text))
    record = EidRecord.decode(reader)
    if reader.remaining or not record.ttl_minutes:
        raise ValueError("no registration")
    return record
