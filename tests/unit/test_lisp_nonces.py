"""Nonces near the end of their 64 bits, from whoever can bring us there, are refused and logged."""

from __future__ import annotations

from testbed.lisp.actions import SECOND_NS
from testbed.lisp.inputs import ControlReceived
from testbed.lisp.nonces import FURTHEST_AHEAD, HIGHEST_NONCE, LAST_NONCE
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
