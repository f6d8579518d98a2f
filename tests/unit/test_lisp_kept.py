"""Registrations that outlive the Map-Server: what is taken up again, what is not, and who is told the sooner for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from testbed.lisp.actions import MINUTE_NS, SECOND_NS, Action, Emit, GiveWay, KeepRegistration, SaveNonce, SendControl
from testbed.lisp.config import MapServerOptions, XtrOptions
from testbed.lisp.wire import MapNotify, MapRegisterFlag, MapReply, decode_control
from tests.unit.lisp_network import EID as MOVING
from tests.unit.lisp_network import RLOCS, Network
from tests.unit.lisp_server import RLOC_A, RLOC_B, SITES, Server
from tests.unit.test_lisp_migration import settled

EID = "192.168.0.10/32"


class Disk:
    """What a Map-Server has stored."""

    def __init__(self) -> None:
        self.nonces: dict[str, int] = {}
        self.texts: dict[str, str] = {}

    def take(self, actions: list[Action]) -> list[Action]:
        for action in actions:
            if isinstance(action, SaveNonce):
                self.nonces[action.owner] = action.nonce
            elif isinstance(action, KeepRegistration):
                self.texts.pop(str(action.eid), None)
                if action.text is not None:
                    self.texts[str(action.eid)] = action.text()
        return actions

    def started(self, *, now: int = 0, **options: Any) -> tuple[Server, dict[str, Any]]:
        """A Map-Server that finds this, and what it says of it."""
        server = Server(saved=dict(self.nonces), **options)
        server.now = now
        said = server.machine.restore(self.texts.values(), now)
        return server, next((dict(action.fields) for action in said if isinstance(action, Emit)), {})


@pytest.fixture
def disk() -> Disk:
    """After A has registered the EID and C its prefix, at 1 s."""
    server, found = Server(), Disk()
    server.now = SECOND_NS
    found.take(server.register(EID, nonce=5))
    found.take(server.register("192.168.3.0/24", nonce=5, site="c", source=RLOCS["xtr-c"]))
    return found


def registered(server: Server) -> dict[str, tuple[str, ...]]:
    rows = server.machine.inspect(server.now)["registrations"]
    return {row["eid"]: tuple(row["locators"]) for row in rows}


def notifies(actions: list[Action], destination: Any) -> list[MapNotify]:
    sent = [each for each in actions if isinstance(each, SendControl) and each.destination == destination]
    return [message for message in (decode_control(each.payload) for each in sent) if isinstance(message, MapNotify)]


def test_what_was_registered_is_so_after_a_restart_until_it_would_have_ended(disk: Disk) -> None:
    server, said = disk.started(now=2 * SECOND_NS)
    assert said == {"restored": 2, "left_out": 0, "reasons": []}
    assert registered(server) == {EID: ("10.0.1.2",), "192.168.3.0/24": ("10.0.3.2",)}
    (reply,) = [decode_control(each.payload) for each in server.request(EID) if isinstance(each, SendControl)]
    assert isinstance(reply, MapReply)
    assert [str(locator.rloc) for locator in reply.records[0].locators] == ["10.0.1.2"]
    server.now = SECOND_NS + 180 * SECOND_NS
    assert server.machine.next_deadline() == server.now
    ended = disk.take(server.machine.handle_timer(server.now))
    assert [action.fields["reason"] for action in ended if isinstance(action, Emit)] == ["registration expired"] * 2
    assert disk.texts == {}


def test_it_is_stored_before_its_xtr_is_told(disk: Disk) -> None:
    actions = Server().register(EID, nonce=5)
    kinds = [type(action) for action in actions]
    assert kinds.index(KeepRegistration) < kinds.index(SendControl)


@pytest.mark.parametrize("mechanism", ["smr-map-server", "map-version"])
def test_whoever_somebody_waits_for_is_told_first(mechanism: str) -> None:
    """That is who lost it; whoever registered is not kept waiting if its packets need a map-version."""
    server = Server(mechanism=mechanism)
    server.register(EID, nonce=5)
    actions = server.register(EID, nonce=3, site="b", source=RLOC_B)
    order = [
        action.destination if isinstance(action, SendControl) else type(action)
        for action in actions
        if isinstance(action, (SendControl, GiveWay, KeepRegistration))
    ]
    gives_way = [GiveWay] if mechanism != "map-version" else []
    assert order == [RLOC_A, *gives_way, KeepRegistration, RLOC_B]
    stored = [number for number, action in enumerate(actions) if isinstance(action, SaveNonce)]
    assert any(actions[number].owner.startswith("fence") for number in stored)
    assert max(stored) < min(number for number, action in enumerate(actions) if isinstance(action, SendControl))


def test_a_loser_is_told_at_once_although_it_has_not_been_heard_since(disk: Disk) -> None:
    """Without what was stored nobody knows where it is, and it is told when it registers the next time."""
    server, _ = disk.started(now=2 * SECOND_NS)
    actions = server.register(EID, nonce=3, site="b", source=RLOC_B)
    (notice,) = notifies(actions, RLOC_A)
    assert str(notice.records[0].locators[0].rloc) == "10.0.2.2"
    disk.texts.clear()
    forgetful, said = disk.started(now=2 * SECOND_NS)
    assert said == {}
    assert notifies(forgetful.register(EID, nonce=3, site="b", source=RLOC_B), RLOC_A) == []


def test_rfc9301_5_6_replay_protection_is_of_the_nonces_alone(disk: Disk) -> None:
    server, _ = disk.started(now=2 * SECOND_NS)
    for nonce in (4, 5):
        (refused,) = [each.fields for each in server.register(EID, nonce=nonce) if isinstance(each, Emit)]
        assert (refused["reason"], refused["last_nonce"]) == ("replay", "0x5")
    refreshed = server.register(EID, nonce=6)
    assert "mapping_changed" not in [each.kind for each in refreshed if isinstance(each, Emit)]


def test_what_was_withdrawn_is_not_there(disk: Disk) -> None:
    server, _ = disk.started(now=2 * SECOND_NS)
    disk.take(server.register(EID, nonce=6, ttl_minutes=0))
    assert list(disk.texts) == ["192.168.3.0/24"]


def test_anothers_withdrawal_leaves_what_is_stored(disk: Disk) -> None:
    server, _ = disk.started(now=2 * SECOND_NS)
    before = dict(disk.texts)
    disk.take(server.register(EID, nonce=6, site="b", source=RLOC_B, ttl_minutes=0))
    assert disk.texts == before


def test_a_registration_with_its_own_lifetime_keeps_it(disk: Disk) -> None:
    server, _ = disk.started(now=2 * SECOND_NS)
    flags = MapRegisterFlag.USE_TTL | MapRegisterFlag.WANT_MAP_NOTIFY
    disk.take(server.register(EID, nonce=6, ttl_minutes=60, flags=flags))
    later, _ = disk.started(now=59 * MINUTE_NS)
    assert EID in registered(later)


def changed(name: str, value: Any) -> Callable[[dict[str, Any]], str]:
    return lambda values: json.dumps({**values, name: value})


def changed_part(name: str, value: Any) -> Callable[[dict[str, Any]], str]:
    return lambda values: json.dumps({**values, "parts": [{**values["parts"][0], name: value}]})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda values: "",
        lambda values: "{",
        lambda values: "[1]",
        lambda values: "7",
        lambda values: json.dumps({name: value for name, value in values.items() if name != "parts"}),
        lambda values: json.dumps({**values, "parts": [dict(list(values["parts"][0].items())[1:])]}),
        lambda values: json.dumps({**values, "parts": values["parts"] * 2}),
        changed("parts", []),
        changed("parts", 5),
        changed("merged", 1),
        changed_part("owner", "nobody/10.0.1.2"),
        changed_part("owner", 5),
        changed_part("owner", "c/3.0"),
        changed("record", "00"),
        changed("record", "zz"),
        changed_part("record", "00"),
        changed_part("notify", None),
        changed_part("proxy", "yes"),
        changed_part("port", 0),
        changed_part("port", True),
        changed_part("rloc", "10.0.1"),
        changed_part("nonce", 6),  # above the last one that its owner is known to have used
        changed_part("expires_ns", 2 * SECOND_NS),
        changed_part("expires_ns", "later"),
        changed("registered_ns", 3 * SECOND_NS),  # of another clock
        lambda values: json.dumps({**values, "record": values["record"] + "00"}),
        lambda values: json.dumps({**values, "record": "00000000" + values["record"][8:]}),  # TTL 0
    ],
)
def test_what_cannot_be_is_left_out_and_the_rest_counts(disk: Disk, spoil: Callable[[dict[str, Any]], str]) -> None:
    disk.texts[EID] = spoil(json.loads(disk.texts[EID]))
    server, said = disk.started(now=2 * SECOND_NS)
    assert (said["restored"], said["left_out"]) == (1, 1)
    assert list(registered(server)) == ["192.168.3.0/24"]
    assert server.register(EID, nonce=6)  # it registers anew, as ever


def test_a_claim_that_was_stored_counts_more_than_a_registration_that_was_not(disk: Disk) -> None:
    """The Map-Server was killed between the two."""
    server, _ = disk.started(now=2 * SECOND_NS)
    before = dict(disk.texts)
    disk.take(server.register(EID, nonce=3, site="b", source=RLOC_B))
    disk.texts = before
    again, said = disk.started(now=3 * SECOND_NS)
    assert said["reasons"] == ["claimed by another since"]
    assert EID not in registered(again)


def test_a_site_that_may_not_register_it_any_more_has_not(disk: Disk) -> None:
    sites = (replace(SITES[0], dynamic_eid_prefixes=()), *SITES[1:])
    server, said = disk.started(now=2 * SECOND_NS, sites=sites)
    assert said["reasons"] == ["not an EID of this site"]
    assert list(registered(server)) == ["192.168.3.0/24"]


def test_a_map_version_is_not_counted_on_by_a_restart() -> None:
    server, disk = Server(mechanism="map-version"), Disk()
    disk.take(server.register(EID, nonce=5))
    (version,) = [row["map_version"] for row in server.machine.inspect(0)["registrations"]]
    again, _ = disk.started(now=SECOND_NS, mechanism="map-version")
    again.register(EID, nonce=6)
    assert [row["map_version"] for row in again.machine.inspect(0)["registrations"]] == [version]


@pytest.mark.parametrize("keeps", [False, True])
def test_a_move_while_the_map_server_is_dead_waits_for_no_refresh_of_the_old_xtr(keeps: bool) -> None:
    network = settled(Network(xtr_options=XtrOptions(refresh_s=60), map_server_options=MapServerOptions()))
    network.faults = lambda source, destination, payload, count: []
    network.sight("xtr-b")
    network.run_for(5 * SECOND_NS)  # B has asked at 0, 1 and 3 s
    network.restart_map_server(keeps=keeps)
    restarted = network.now
    network.faults = lambda source, destination, payload, count: [10_000_000]
    network.run_for(3 * SECOND_NS)  # and asks at 7
    assert network.owner() == "xtr-b"
    told = network.saw("eid_departed", "xtr-a", since_ns=restarted)
    assert bool(told) is keeps
    assert network.host_state("xtr-a", MOVING) == ("away" if keeps else "local")
    network.run_for(61 * SECOND_NS)
    assert network.host_state("xtr-a", MOVING) == "away"


def test_a_prefix_is_stored_once_however_often_it_is_refreshed(disk: Disk) -> None:
    server, _ = disk.started(now=2 * SECOND_NS)
    for nonce in range(6, 20):
        disk.take(server.register(EID, nonce=nonce))
    assert list(disk.texts) == ["192.168.3.0/24", EID]
    assert [part["nonce"] for part in json.loads(disk.texts[EID])["parts"]] == [19]
    assert ip_network(EID) == ip_network(list(disk.texts)[1])


SHARED = "192.168.3.0/24"
MERGE = MapRegisterFlag.WANT_MAP_NOTIFY | MapRegisterFlag.MERGE
FELLOWS = [RLOCS["xtr-c"], ip_address("10.0.4.2"), ip_address("10.0.5.2")]


@pytest.fixture
def shared() -> Disk:
    """After three xTRs of site C have registered its prefix, 10 s one after the other."""
    server, disk = Server(), Disk()
    for rloc in FELLOWS:
        disk.take(server.register(SHARED, nonce=5, site="c", source=rloc, flags=MERGE))
        server.now += 10 * SECOND_NS
    return disk


def test_all_parts_of_a_merged_mapping_are_taken_up_each_with_its_end(shared: Disk) -> None:
    server, said = shared.started(now=30 * SECOND_NS)
    assert said == {"restored": 1, "left_out": 0, "reasons": []}
    assert registered(server) == {SHARED: ("10.0.3.2", "10.0.4.2", "10.0.5.2")}
    server.now = 185 * SECOND_NS
    actions = shared.take(server.machine.handle_timer(server.now))
    assert registered(server) == {SHARED: ("10.0.4.2", "10.0.5.2")}
    assert notifies(actions, FELLOWS[1])  # it is written to although it has not been heard since
    assert len(json.loads(shared.texts[SHARED])["parts"]) == 2


def test_a_part_that_has_ended_or_is_spoilt_is_left_out_of_the_set(shared: Disk) -> None:
    later, said = shared.started(now=185 * SECOND_NS)
    assert said == {"restored": 1, "left_out": 0, "reasons": []}
    assert registered(later) == {SHARED: ("10.0.4.2", "10.0.5.2")}
    values = json.loads(shared.texts[SHARED])
    values["parts"][2]["nonce"] = 6  # above the last one that its owner is known to have used
    shared.texts[SHARED] = json.dumps(values)
    again, _ = shared.started(now=30 * SECOND_NS)
    assert registered(again) == {SHARED: ("10.0.3.2", "10.0.4.2")}


def test_a_part_that_is_withdrawn_is_not_there_after_a_restart(shared: Disk) -> None:
    server, _ = shared.started(now=30 * SECOND_NS)
    shared.take(server.register(SHARED, nonce=6, site="c", source=FELLOWS[0], flags=MERGE, ttl_minutes=0))
    again, _ = shared.started(now=31 * SECOND_NS)
    assert registered(again) == {SHARED: ("10.0.4.2", "10.0.5.2")}


def test_a_part_of_another_site_is_left_out_of_the_set(shared: Disk) -> None:
    values = json.loads(shared.texts[SHARED])
    values["parts"][0]["owner"] = "a/10.0.1.2"
    shared.texts[SHARED] = json.dumps(values)
    server, _ = shared.started(now=30 * SECOND_NS)
    assert registered(server) == {SHARED: ("10.0.4.2", "10.0.5.2")}
