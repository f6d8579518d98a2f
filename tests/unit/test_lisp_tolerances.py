"""Peers that deviate are refused, counted and logged; accepted, counted and logged with the option's word."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from testbed.errors import TestbedError
from testbed.lisp.actions import SECOND_NS, Action, SendControl
from testbed.lisp.config import MapServerOptions, XtrOptions, options_from
from testbed.lisp.inputs import ControlReceived
from testbed.lisp.sealing import Secret
from testbed.lisp.tolerances import Tolerance
from testbed.lisp.wire import (
    AlgorithmId,
    Authentication,
    EidPrefix,
    EidRecord,
    EncapsulatedControl,
    LocatorFlag,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapRegisterFlag,
    MapReply,
    MapRequest,
    MapRequestFlag,
    RequestedEid,
    RlocRecord,
    XtrIdentity,
    decode_control,
    host_eid,
)
from tests.unit.lisp_network import EID, MAP_SERVER, RLOCS, Network, settled, site_secret
from tests.unit.lisp_server import PORT, RLOC_A, RLOC_B, RLOC_C, SECRETS, SITES, Server, events, sends

OLD_PEER = replace(SECRETS["a"], algorithm=AlgorithmId.HMAC_SHA_1_96)


def server(*tolerated: Tolerance) -> Server:
    return Server(MapServerOptions(map_reply_interval_s=0, tolerate=frozenset(tolerated)))


def register(
    to: Server,
    *,
    nonce: int = 1,
    secret: Secret = SECRETS["a"],
    source: Any = RLOC_A,
    port: int = 4342,
    eids: tuple[str, ...] = ("192.168.0.10",),
) -> list[Action]:
    locators = (RlocRecord(source, flags=LocatorFlag.REACHABLE | LocatorFlag.LOCAL),)
    records = tuple(EidRecord(EidPrefix(ip_network(eid)), 60, locators) for eid in eids)
    flags = MapRegisterFlag.WANT_MAP_NOTIFY | MapRegisterFlag.PROXY_REPLY
    message = MapRegister(nonce, records, flags=flags, xtr=XtrIdentity(int(source)))
    return to.machine.handle(ControlReceived(secret.seal(message), source, port), to.now)


def accepted(to: Server) -> list[str]:
    return [row["eid"] for row in to.machine.inspect(to.now)["registrations"]]


def counters(to: Server) -> dict[str, int]:
    counted: dict[str, int] = to.machine.inspect(to.now)["counters"]
    return counted


SEALED = {
    Tolerance.SHA_1: OLD_PEER,
    Tolerance.MAC_OVER_TRAILER: replace(SECRETS["a"], cover_trailer=True),
}


@pytest.mark.parametrize("tolerance", SEALED)
def test_a_registration_sealed_otherwise(tolerance: Tolerance) -> None:
    strict = server()
    (refused,) = events(register(strict, secret=SEALED[tolerance]), "registration_refused")
    assert refused["reason"] == f"not tolerated: {tolerance.value}"
    assert accepted(strict) == []
    assert counters(strict) == {f"registrations_refused: not tolerated: {tolerance.value}": 1}

    tolerant = server(tolerance)
    actions = register(tolerant, secret=SEALED[tolerance])
    assert events(actions, "tolerated") == [{"tolerance": tolerance.value, "peer": str(RLOC_A)}]
    assert accepted(tolerant) == ["192.168.0.10/32"]
    assert counters(tolerant) == {f"tolerated: {tolerance.value}": 1}
    (notify,) = sends(actions)
    assert SEALED[tolerance].vouches_for(notify.payload)  # answered as it asked


def test_rfc6830_6_1_6_a_key_id_of_16_bits() -> None:
    """An old peer's key ID 2 (HMAC-SHA-256) of 16 bits is our key ID 0, algorithm 2."""
    ours = Secret(5, b"the site's")
    theirs = Secret(0, b"the site's")
    message = MapRegister(1, ())
    assert theirs.seal(message)[12:14] == b"\x00\x02"
    opened = ours.open(theirs.seal(message))
    assert opened is not None
    assert opened.needs == {Tolerance.WIDE_KEY_ID}
    assert theirs.vouches_for(opened.secret.seal(MapNotify(1, ())))
    assert ours.open(Secret(6, b"the site's").seal(message)) is None  # another key, whatever is tolerated
    assert not ours.vouches_for(theirs.seal(message))


@pytest.mark.parametrize("tolerated", [frozenset(), frozenset({Tolerance.WIDE_KEY_ID})])
def test_a_registration_under_a_key_id_of_16_bits(tolerated: frozenset[Tolerance]) -> None:
    site = replace(SITES[0], secret=Secret(5, SECRETS["a"].key))
    to = Server(MapServerOptions(tolerate=tolerated), sites=(site,))
    actions = register(to, secret=SECRETS["a"])
    if tolerated:
        assert accepted(to) == ["192.168.0.10/32"]
        assert counters(to) == {"tolerated: wide-key-id": 1}
        assert SECRETS["a"].vouches_for(sends(actions)[0].payload)
    else:
        assert accepted(to) == []
        assert counters(to) == {"registrations_refused: not tolerated: wide-key-id": 1}
        assert events(actions, "registration_refused")


def network_with(options: XtrOptions) -> Network:
    return settled(Network("smr-old-xtr", xtr_options=options))


def test_a_map_notify_under_a_wide_key_id() -> None:
    for tolerated in (frozenset[Tolerance](), frozenset({Tolerance.SHA_1})):
        network = network_with(XtrOptions(tolerate=tolerated))
        locators = (RlocRecord(RLOCS["xtr-b"], flags=LocatorFlag.REACHABLE),)
        notify = MapNotify(1 << 40, (EidRecord(host_eid(EID), 60, locators),))
        old = replace(site_secret("xtr-a"), algorithm=AlgorithmId.HMAC_SHA_1_96)
        network.give("xtr-a", ControlReceived(old.seal(notify), MAP_SERVER, 4342))
        dropped = [each.fields["reason"] for each in network.saw("control_dropped", "xtr-a")]
        if tolerated:
            assert dropped == []
            assert network.host_state("xtr-a") == "away"
            assert network.saw("tolerated", "xtr-a")
        else:
            assert dropped == ["not tolerated: sha-1"]
            assert network.host_state("xtr-a") == "local"
            assert network.nodes["xtr-a"].machine.inspect(network.now)["counters"]["map-notify_dropped"] == 1


def test_register_nonces_that_are_always_zero() -> None:
    strict = server()
    register(strict, nonce=0)
    (refused,) = events(register(strict, nonce=0), "registration_refused")
    assert refused["reason"] == "not tolerated: zero-register-nonce"

    tolerant = server(Tolerance.ZERO_REGISTER_NONCE)
    register(tolerant, nonce=0)
    actions = register(tolerant, nonce=0)
    assert events(actions, "tolerated")
    assert len(sends(actions)) == 1


def test_a_nonce_of_zero_from_one_that_counts_is_a_replay() -> None:
    tolerant = server(Tolerance.ZERO_REGISTER_NONCE)
    register(tolerant, nonce=7)
    (refused,) = events(register(tolerant, nonce=0), "registration_refused")
    assert refused["reason"] == "replay"


def test_an_xtr_without_nonces_takes_an_eid_back_only_after_it_heard_of_its_loss() -> None:
    tolerant = server(Tolerance.ZERO_REGISTER_NONCE)
    register(tolerant, nonce=0)
    told = [
        sent
        for sent in sends(register(tolerant, nonce=1, secret=SECRETS["b"], source=RLOC_B))
        if sent.destination == RLOC_A
    ]
    (refused,) = events(register(tolerant, nonce=0), "registration_refused")
    assert refused["reason"] == "registered elsewhere since"
    departure = decode_control(told[0].payload)
    assert isinstance(departure, MapNotify)
    tolerant.receive(SECRETS["a"].seal(MapNotifyAck(departure.nonce, departure.records)), RLOC_A)
    (changed,) = events(register(tolerant, nonce=0), "mapping_changed")
    assert changed["rloc"] == str(RLOC_A)


def test_rfc9301_5_a_map_notify_to_the_source_port() -> None:
    strict = server()
    assert [sent.port for sent in sends(register(strict, port=40000))] == [4342]  # RFC 9301 §8.2

    tolerant = server(Tolerance.NOTIFY_TO_SOURCE_PORT)
    actions = register(tolerant, port=40000)
    assert [sent.port for sent in sends(actions)] == [40000]
    assert events(actions, "tolerated") == [{"tolerance": "notify-to-source-port", "peer": str(RLOC_A)}]
    lost = sends(register(tolerant, nonce=1, secret=SECRETS["b"], source=RLOC_B))
    assert {(sent.destination, sent.port) for sent in lost} == {(RLOC_A, 40000), (RLOC_B, 4342)}


def test_a_map_request_without_ecm() -> None:
    request = MapRequest(99, (RLOC_C,), (RequestedEid(host_eid(EID)),)).encode()

    def ask(of: Server) -> list[Action]:
        return of.machine.handle(ControlReceived(request, RLOC_C, PORT), of.now)

    strict = server()
    register(strict)
    (dropped,) = events(ask(strict), "control_dropped")
    assert dropped["reason"] == "not tolerated: plain-map-request"
    assert counters(strict) == {"map-request_dropped": 1}

    tolerant = server(Tolerance.PLAIN_MAP_REQUEST)
    register(tolerant)
    actions = ask(tolerant)
    (sent,) = sends(actions)
    reply = decode_control(sent.payload)
    assert isinstance(reply, MapReply)
    assert (reply.nonce, sent.destination, sent.port) == (99, RLOC_C, PORT)
    assert events(actions, "tolerated")


@pytest.mark.parametrize("tolerated", [frozenset(), frozenset({Tolerance.SMR_WITHOUT_D_BIT})])
def test_an_smr_without_d_bit(tolerated: frozenset[Tolerance]) -> None:
    network = network_with(XtrOptions(tolerate=tolerated))
    since = network.now
    smr = MapRequest(5, (RLOCS["xtr-a"],), (RequestedEid(host_eid(EID)),), source_eid=EID, flags=MapRequestFlag.SMR)
    network.give("xtr-c", ControlReceived(smr.encode(), RLOCS["xtr-a"], 4342))
    network.run_for(SECOND_NS)
    dropped = [each.fields["reason"] for each in network.saw("control_dropped", "xtr-c")]
    assert dropped == ([] if tolerated else ["not tolerated: smr-without-d-bit"])
    assert len(network.saw("map_request_sent", "xtr-c", since_ns=since)) == len(tolerated)
    assert len(network.saw("tolerated", "xtr-c")) == len(tolerated)


def test_rfc9301_5_2_several_records_in_a_message_need_no_option() -> None:
    strict = server()
    register(strict, eids=("192.168.0.10", "192.168.0.11"))
    assert accepted(strict) == ["192.168.0.10/32", "192.168.0.11/32"]
    asked = tuple(RequestedEid(host_eid(EID + offset)) for offset in (0, 1))
    request = MapRequest(99, (RLOC_C,), asked)
    actions = strict.receive(EncapsulatedControl(RLOC_C, EID, PORT, request.encode()).encode(), RLOC_C)
    answered = [decode_control(each.payload) for each in actions if isinstance(each, SendControl)]
    assert [[str(record.eid) for record in each.records] for each in answered if isinstance(each, MapReply)] == [
        ["192.168.0.10/32", "192.168.0.11/32"]
    ]


def test_the_option_is_a_list_of_words() -> None:
    options = options_from(MapServerOptions, {"tolerate": ["sha-1", "wide-key-id"]})
    assert options.tolerate == {Tolerance.SHA_1, Tolerance.WIDE_KEY_ID}
    assert options_from(XtrOptions, {}).tolerate == frozenset()
    for wrong in ("sha-1", ["md5"], 7):
        with pytest.raises(TestbedError, match="tolerate"):
            options_from(XtrOptions, {"tolerate": wrong})


@pytest.mark.parametrize("octets", [b"", bytes(16)])
@pytest.mark.parametrize("tolerated", [frozenset(), frozenset({Tolerance.ZERO_NOTIFY_AUTHENTICATION})])
def test_a_publication_without_authentication(tolerated: frozenset[Tolerance], octets: bytes) -> None:
    network = settled(Network("pubsub", xtr_options=XtrOptions(tolerate=tolerated)))
    nonce = int(network.saw("subscription_acknowledged", "xtr-c")[0].fields["nonce"], 16) + 1
    locators = (RlocRecord(RLOCS["xtr-b"], flags=LocatorFlag.REACHABLE),)
    notify = MapNotify(nonce, (EidRecord(host_eid(EID), 60, locators),), Authentication(data=octets))
    network.give("xtr-c", ControlReceived(notify.encode(), MAP_SERVER, 4342))
    published = [each.fields["rloc"] for each in network.saw("publication_received", "xtr-c")]
    reasons = [each.fields["reason"] for each in network.saw("control_dropped", "xtr-c")]
    assert published == ([str(RLOCS["xtr-b"])] if tolerated else [])
    assert reasons == ([] if tolerated else ["not tolerated: zero-notify-authentication"])
    assert len(network.saw("tolerated", "xtr-c")) == len(tolerated)


def test_nobody_takes_an_eid_away_without_authentication() -> None:
    network = network_with(XtrOptions(tolerate=frozenset({Tolerance.ZERO_NOTIFY_AUTHENTICATION})))
    locators = (RlocRecord(RLOCS["xtr-b"], flags=LocatorFlag.REACHABLE),)
    notify = MapNotify(1 << 40, (EidRecord(host_eid(EID), 60, locators),))
    network.give("xtr-a", ControlReceived(notify.encode(), MAP_SERVER, 4342))
    assert [each.fields["reason"] for each in network.saw("control_dropped", "xtr-a")] == ["authentication"]
    assert network.host_state("xtr-a") == "local"
