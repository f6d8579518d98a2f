"""Nonces near the end of their 64 bits, from whoever can bring us there, are refused and logged."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from testbed.lisp.actions import SECOND_NS
from testbed.lisp.inputs import ControlReceived
from testbed.lisp.nonces import FURTHEST_AHEAD, HIGHEST_NONCE, LAST_NONCE, LOWEST_SUBSCRIPTION_NONCE, NONCE_STEP
from testbed.lisp.subscriptions import HIGHEST_FLOOR, NONCE_OWNER, NONCES_KEPT, Subscriptions
from testbed.lisp.wire import EidRecord, LocatorFlag, MapNotify, RlocRecord, XtrIdentity, host_eid
from tests.unit.lisp_network import EID, MAP_SERVER, RLOCS, Network, settled, site_secret
from tests.unit.lisp_server import RLOC_B, RLOC_C, Server, events, sends

MOBILE_EID = f"{EID}/32"


def test_an_unauthenticated_subscription_under_the_last_nonce_is_refused_and_the_next_move_survives() -> None:
    server = Server(mechanism="pubsub")
    server.register("192.168.3.0/24", site="c", source=RLOC_C)
    server.register(MOBILE_EID)
    asked = server.request(MOBILE_EID, nonce=LAST_NONCE, subscribe=True, xtr=XtrIdentity(int(RLOC_C)))
    assert [event["reason"] for event in events(asked, "control_dropped")] == ["nonces exhausted"]
    assert sends(asked) == []
    server.register(MOBILE_EID, site="b", source=RLOC_B)


def test_a_map_register_under_the_last_nonce_is_refused_and_one_below_the_limit_can_lose_its_eid() -> None:
    server = Server()
    (refused,) = events(server.register(MOBILE_EID, nonce=LAST_NONCE), "registration_refused")
    assert refused["reason"] == "nonces exhausted: this xTR needs a new key"
    server.register(MOBILE_EID, nonce=HIGHEST_NONCE)
    moved = server.register(MOBILE_EID, site="b", source=RLOC_B)
    assert events(moved, "mapping_changed")[0]["reason"] == "moved"
    assert "departure" in [event["reason"] for event in events(moved, "map_notify_sent")]


def test_a_map_notify_does_not_drive_the_register_nonce_to_its_end() -> None:
    network = settled(Network())
    locators = (RlocRecord(RLOCS["xtr-b"], flags=LocatorFlag.REACHABLE),)
    for nonce, reason in ((LAST_NONCE, "nonces exhausted"), (FURTHEST_AHEAD * 2, "nonce far ahead of ours")):
        notify = MapNotify(nonce, (EidRecord(host_eid(EID), 60, locators),))
        network.give("xtr-a", ControlReceived(site_secret("xtr-a").seal(notify), MAP_SERVER, 4342))
        assert network.saw("control_dropped", "xtr-a")[-1].fields["reason"] == reason
    network.run_for(120 * SECOND_NS)
    assert network.owner() == "xtr-a"


def test_a_publication_under_the_highest_nonce_costs_its_prefix_the_subscription_and_nothing_else() -> None:
    network = settled(Network("pubsub"))
    (asked,) = network.saw("map_request_sent", "xtr-c")
    locators = (RlocRecord(RLOCS["xtr-b"], flags=LocatorFlag.REACHABLE),)
    notify = MapNotify(HIGHEST_NONCE, (EidRecord(host_eid(EID), 60, locators),))
    network.give("xtr-c", ControlReceived(site_secret("xtr-c").seal(notify), MAP_SERVER, 4342))
    assert network.saw("publication_received", "xtr-c")
    network.run_for(60 * SECOND_NS)
    assert network.saw("map_reply_received", "xtr-c")  # a plain request has the right mapping back
    assert network.nodes["xtr-c"].saved[NONCE_OWNER] == int(asked.fields["nonce"], 16)


@pytest.mark.parametrize("highest", [HIGHEST_FLOOR, HIGHEST_NONCE, LAST_NONCE])
def test_a_stored_nonce_near_the_end_leaves_room_for_subscriptions(highest: int) -> None:
    nonce = Subscriptions(lambda: 0, 0, highest).next_nonce(ip_network(f"{EID}/32"))
    assert nonce == HIGHEST_FLOOR + NONCE_STEP + 1


def test_nonces_of_prefixes_that_are_let_go_leave_room_for_subscriptions() -> None:
    subscriptions = Subscriptions(lambda: 0, 0)
    subscriptions.acknowledged(ip_network("10.0.0.1/32"), HIGHEST_NONCE, 0)
    subscriptions.forget(ip_network("10.0.0.1/32"))
    for number in range(NONCES_KEPT):
        subscriptions.next_nonce(ip_network(f"10.{number >> 8}.{number & 255}.2/32"))
    assert subscriptions.next_nonce(ip_network("10.0.0.1/32")) == LOWEST_SUBSCRIPTION_NONCE
