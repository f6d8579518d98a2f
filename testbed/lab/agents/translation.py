"""What the data plane reports as inputs of an xTR's state machine, and what that wants as the data plane's entries."""

from __future__ import annotations

from ipaddress import ip_address

from testbed.dataplane.model import DataPlaneEvent, DataPlaneEventKind, Entry, EntryKind, Locator
from testbed.lisp.actions import Address, SetForwarding
from testbed.lisp.inputs import (
    FirstPacketSent,
    HostSighted,
    Input,
    LocatorStatusSeen,
    NewSourceVersion,
    NonceEchoed,
    OldDestinationVersion,
    SourceSeen,
    StaleReceived,
)
from testbed.lisp.sightings import Sighting, SightingKind


def entry_of(action: SetForwarding) -> Entry:
    """What the state machine wants, as the data plane takes it."""
    locators = tuple(Locator(each.rloc, each.priority, each.weight) for each in action.locators)
    kind = EntryKind(action.forwarding.value)
    return Entry(action.eid, kind, locators, action.expires_ns, action.instance_id, action.map_version)


#: Reports of a packet's map-version → the input that it is.
_VERSION_INPUTS: dict[DataPlaneEventKind, type[OldDestinationVersion] | type[NewSourceVersion]] = {
    DataPlaneEventKind.OLD_DESTINATION_VERSION: OldDestinationVersion,
    DataPlaneEventKind.NEW_SOURCE_VERSION: NewSourceVersion,
}


def input_of(report: DataPlaneEvent) -> Input:
    """A report of the data plane as an input."""
    if report.kind is DataPlaneEventKind.EID_SEEN:
        sighting = Sighting(SightingKind.PACKET, report.mac or "", report.eid)
        return HostSighted(sighting, report.mono_ns)
    if report.kind in _VERSION_INPUTS:
        assert report.peer is not None
        assert report.map_version is not None
        return _VERSION_INPUTS[report.kind](report.eid, report.peer, report.map_version, report.mono_ns)
    if report.kind is DataPlaneEventKind.LOCATOR_STATUS:
        assert report.peer is not None
        assert report.locator_status is not None
        return LocatorStatusSeen(report.eid, report.peer, report.locator_status, report.mono_ns)
    if report.kind in (DataPlaneEventKind.NONCE_ECHOED, DataPlaneEventKind.NONCE_NOT_ECHOED):
        assert report.peer is not None
        return NonceEchoed(report.peer, report.kind is DataPlaneEventKind.NONCE_ECHOED, report.mono_ns)
    if report.kind is DataPlaneEventKind.UNMAPPED_SOURCE:
        assert report.peer is not None
        return SourceSeen(report.eid, report.peer, report.mono_ns)
    if report.kind is DataPlaneEventKind.STALE_PACKET:
        assert report.peer is not None
        return StaleReceived(report.eid, report.peer, report.mono_ns)
    assert report.rloc is not None
    return FirstPacketSent(report.eid, report.rloc, report.old_rloc, report.mono_ns)


def destination_of(packet: bytes) -> Address:
    """The destination of an inner IP packet; the data plane hands over none that is torn."""
    return ip_address(packet[16:20] if packet[0] >> 4 == 4 else packet[24:40])
