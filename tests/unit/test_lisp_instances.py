"""Instance-IDs other than 0 (RFC 8060 §4.1): one xTR serves one instance, one Map-Server serves all and mixes none."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address, ip_network
from typing import Any

import pytest

from testbed.lisp.actions import SECOND_NS, Address, ClearForwarding, Emit, SetForwarding, emit
from testbed.lisp.config import MAX_INSTANCE_ID, OptionError, SiteConfig
from testbed.lisp.inputs import HostGone, PacketMissed, Started
from testbed.lisp.sealing import Secret
from testbed.lisp.wire import (
    EidPrefix,
    EidRecord,
    EidRecordFlag,
    EncapsulatedControl,
    InstanceId,
    MapNotify,
    MapRegister,
    MapReply,
    MapReplyFlag,
    MapRequest,
    MapRequestFlag,
    RequestedEid,
    RlocRecord,
    XtrIdentity,
    decode_control,
    host_eid,
)
from tests.unit import lisp_server, test_lisp_xtr
from tests.unit.lisp_network import CORRESPONDENT, EID, MS_NS, OTHER_RLOCS, RLOCS, Network, packet_to
from tests.unit.lisp_server import RLOC_A, RLOC_B, RLOC_C, Server, sends
from tests.unit.test_lisp_xtr import ELSEWHERE, FIXED, PEER, SECRET, Site, events, sent

HOST = IPv4Network("192.168.0.10/32")
#: (its prefix, its instance) of an EID that is not of an xTR in instance 7.
FOREIGN = [EidPrefix(HOST), EidPrefix(HOST, 8), EidPrefix(HOST, 7 << 24)]


# --- values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["192.168.0.0/24", "[7]192.168.0.10/32", "[16777215]fd0e::/64"])
def test_an_eid_prefix_can_be_read_back(text: str) -> None:
    assert str(EidPrefix.parse(text)) == text


@pytest.mark.parametrize(
    ("eid", "fields"),
    [
        (EidPrefix(HOST), {"eid": "192.168.0.10/32"}),
        (EidPrefix(HOST, 7), {"eid": "192.168.0.10/32", "instance_id": 7}),
        (HOST, {"eid": "192.168.0.10/32"}),
    ],
)
def test_events_name_the_prefix_and_beside_it_the_instance(eid: object, fields: dict[str, Any]) -> None:
    assert emit("mapping_changed", eid=eid).fields == fields


@pytest.mark.parametrize("instance_id", [-1, MAX_INSTANCE_ID + 1])
def test_an_instance_that_data_packets_cannot_name_is_refused(instance_id: int) -> None:
    with pytest.raises(OptionError, match=rf"{instance_id}.*\n?.*allowed: 0 to 16777215"):
        Site(instance_id=instance_id)
    with pytest.raises(OptionError):
        SiteConfig("a", (), (), Secret(0, b"k"), instance_id)


# --- the xTR -----------------------------------------------------------------------------------------


def test_the_map_register_has_the_eid_in_an_lcaf_of_type_2() -> None:
    started = Site(instance_id=7).give(Started())
    (register,) = sent(started, MapRegister)
    assert [str(record.eid) for record in register.records] == [f"[7]{FIXED}"]
    # RFC 8060 §4.1: AFI 16387, type 2, no mask, 10 octets: the instance-ID, then the address with its AFI.
    assert (
        bytes.fromhex("4003 0000 02 00 000a 00000007 0001") + FIXED.network_address.packed in sends(started)[0].payload
    )


def test_entries_and_events_are_of_the_instance() -> None:
    site = Site(instance_id=7)
    actions = site.give(Started()) + site.sight()
    site.now = SECOND_NS
    actions += site.give(PacketMissed(PEER, b"packet")) + site.give(HostGone(test_lisp_xtr.EID))
    forwarding = [each for each in actions if isinstance(each, SetForwarding | ClearForwarding)]
    assert {type(each) for each in forwarding} == {SetForwarding, ClearForwarding}
    assert {each.instance_id for each in forwarding} == {7}
    told = [each.fields for each in actions if isinstance(each, Emit) and "eid" in each.fields]
    assert {each["instance_id"] for each in told} == {7}
    assert events(actions, "eid_detected")[0]["eid"] == "192.168.0.10"
    assert site.xtr.inspect(0)["instance_id"] == 7


@pytest.mark.parametrize("eid", FOREIGN, ids=str)
def test_an_smr_for_another_instance_is_dropped_and_logged(eid: EidPrefix) -> None:
    site = Site(instance_id=7)
    flags = MapRequestFlag.SMR | MapRequestFlag.DONT_MAP_REPLY
    (told,) = events(
        site.receive(MapRequest(5, (PEER,), (RequestedEid(eid),), flags=flags).encode(), PEER), "control_dropped"
    )
    assert told["message"] == "smr-record"
    assert told.get("instance_id", 0) == eid.instance_id
    own = RequestedEid(EidPrefix(HOST, 7))
    assert events(site.receive(MapRequest(6, (PEER,), (own,), flags=flags).encode(), PEER), "smr_received")


@pytest.mark.parametrize("probe", [False, True])
def test_an_xtr_answers_for_its_own_instance_only(probe: bool) -> None:
    site = Site(instance_id=7, map_reply_interval_s=0)
    site.give(Started())

    def ask(instance_id: int) -> list[MapReply]:
        flags = MapRequestFlag.PROBE if probe else MapRequestFlag.NONE
        asked = RequestedEid(EidPrefix(FIXED, instance_id))
        return sent(site.receive(MapRequest(5, (PEER,), (asked,), flags=flags).encode(), PEER), MapReply)

    assert [ask(0), ask(8)] == [[], []]
    (reply,) = ask(7)
    assert [str(record.eid) for record in reply.records] == [f"[7]{FIXED}"]
    assert bool(reply.flags & MapReplyFlag.PROBE) == probe


@pytest.mark.parametrize("instance_id", [0, 8])
def test_a_reply_and_a_notice_of_another_instance_change_nothing(instance_id: int) -> None:
    site = Site(instance_id=7)
    site.give(Started())
    site.sight()
    elsewhere = EidRecord(EidPrefix(HOST, instance_id), 1440, (RlocRecord(ELSEWHERE),))
    noticed = site.receive(SECRET.seal(MapNotify(1 << 32, (elsewhere,))))
    assert [told["message"] for told in events(noticed, "control_dropped")] == ["map-notify-record"]
    peer = ip_address("192.168.3.10")
    site.give(PacketMissed(peer, b"packet"))
    wrong = EidRecord(EidPrefix(ip_network("192.168.3.0/24"), instance_id), 1440, (RlocRecord(PEER),))
    replied = site.receive(MapReply(7, (wrong,)).encode())
    assert [told["reason"] for told in events(replied, "control_dropped")] == ["another instance"]
    assert not [each for each in (*noticed, *replied) if isinstance(each, SetForwarding)]
    right = EidRecord(EidPrefix(ip_network("192.168.3.0/24"), 7), 1440, (RlocRecord(PEER),))
    assert [each for each in site.receive(MapReply(7, (right,)).encode()) if isinstance(each, SetForwarding)]
    left = site.receive(
        SECRET.seal(MapNotify(2 << 32, (EidRecord(EidPrefix(HOST, 7), 1440, (RlocRecord(ELSEWHERE),)),)))
    )
    assert [told["eid"] for told in events(left, "eid_departed")] == ["192.168.0.10"]


@pytest.mark.parametrize("instance_id", [0, 8])
def test_a_publication_of_another_instance_is_none(instance_id: int) -> None:
    site = Site("pubsub", instance_id=7)
    site.give(Started())
    (asked, *_) = [decode(each) for each in sends(site.give(PacketMissed(ip_address("192.168.3.10"), b"packet")))]
    assert isinstance(asked, EncapsulatedControl)
    assert isinstance(asked.message, MapRequest)
    nonce = asked.message.nonce

    def publish(number: int, of: int) -> list[Any]:
        record = EidRecord(host_eid(ip_address("192.168.3.10"), of), 1440, (RlocRecord(PEER),))
        return site.receive(SECRET.seal(MapNotify(nonce + number, (record,))))

    assert events(publish(0, 7), "subscription_acknowledged")
    assert not events(publish(1, instance_id), "publication_received")
    (published,) = events(publish(1, 7), "publication_received")  # under the nonce that the other has not used up
    assert (published["eid"], published["instance_id"]) == ("192.168.3.10/32", 7)


# --- the Map-Server ----------------------------------------------------------------------------------

MOBILE, FIXED_C = lisp_server.MOBILE, lisp_server.FIXED
#: Three sites with one dynamic prefix; A and B of instance 7, C of 8, which has the fixed prefix too.
SITES = (
    SiteConfig("a", (), (MOBILE,), lisp_server.SECRETS["a"], 7),
    SiteConfig("b", (), (MOBILE,), lisp_server.SECRETS["b"], 7),
    SiteConfig("c", (FIXED_C,), (MOBILE,), lisp_server.SECRETS["c"], 8),
)
SOURCES = {"a": RLOC_A, "b": RLOC_B, "c": RLOC_C}


def server(mechanism: str = "ttl") -> Server:
    return Server(sites=SITES, mechanism=mechanism)


def register(at: Server, site: str, nonce: int = 1, *, instance_id: int | None = None, **more: Any) -> list[Any]:
    own = {"a": 7, "b": 7, "c": 8}[site]
    given = own if instance_id is None else instance_id
    return at.register(site=site, source=SOURCES[site], nonce=nonce, instance_id=given, **more)


def locators(at: Server, instance_id: int) -> list[Address]:
    (record,) = at.records(str(HOST), instance_id)
    return [locator.rloc for locator in record.locators if isinstance(locator.rloc, Address)]


def test_one_eid_in_two_instances_is_two_registrations() -> None:
    at = server()
    notified = register(at, "a")
    (notify,) = [decode_control(each.payload) for each in sends(notified)]
    assert isinstance(notify, MapNotify)
    assert [str(record.eid) for record in notify.records] == [f"[7]{HOST}"]
    register(at, "c")
    assert (locators(at, 7), locators(at, 8)) == ([RLOC_A], [RLOC_C])
    moved = register(at, "b")
    assert [told.get("instance_id") for told in events(moved, "mapping_changed")] == [7]
    assert {each.destination for each in sends(moved)} == {RLOC_A, RLOC_B}
    assert (locators(at, 7), locators(at, 8)) == ([RLOC_B], [RLOC_C])
    rows = at.machine.inspect(0)["registrations"]
    assert [(row["eid"], row["instance_id"], row["site"]) for row in rows] == [(str(HOST), 7, "b"), (str(HOST), 8, "c")]
    register(at, "c", 2, ttl_minutes=0)
    assert (locators(at, 7), locators(at, 8)) == ([RLOC_B], [])


@pytest.mark.parametrize("instance_id", [0, 8, 7 << 24])
def test_a_site_registers_in_its_own_instance_only(instance_id: int) -> None:
    at = server()
    refused = register(at, "a", instance_id=instance_id)
    (told,) = events(refused, "registration_refused")
    assert (told["reason"], told["site"], told["eid"]) == ("another instance", "a", str(HOST))
    assert told.get("instance_id", 0) == instance_id
    assert at.machine.inspect(0)["registrations"] == []
    assert at.machine.inspect(0)["counters"] == {"registrations_refused: another instance": 1}
    assert not sends(refused)


#: (asked, instance, EID-prefix of the negative reply, its TTL in minutes): RFC 9301 §8.3 in each instance by itself.
NEGATIVE = [
    ("192.168.0.11/32", 7, "[7]192.168.0.11/32", 1),
    ("192.168.3.7/32", 8, "[8]192.168.3.0/24", 1),
    ("192.168.3.7/32", 7, "[7]192.168.2.0/23", 15),  # delegated to nobody in 7
    ("192.168.3.7/32", 9, "[9]0.0.0.0/0", 15),  # nobody is in 9
    ("192.168.0.10/32", 0, "0.0.0.0/0", 15),
]


@pytest.mark.parametrize(("asked", "instance_id", "returned", "minutes"), NEGATIVE)
def test_rfc9301_8_3_a_negative_reply_is_of_the_instance_that_was_asked_for(
    asked: str, instance_id: int, returned: str, minutes: int
) -> None:
    at = server()
    register(at, "a")
    (record,) = at.records(asked, instance_id)
    assert (str(record.eid), record.ttl_minutes, record.locators) == (returned, minutes, ())


def test_map_versions_are_counted_for_each_instance() -> None:
    at = server("map-version")
    versions: dict[str, list[int]] = {"a": [], "c": []}
    for nonce, rlocs in enumerate((("10.0.1.2",), ("10.0.1.9",)), start=1):
        register(at, "a", nonce, rlocs=rlocs)
        register(at, "c", nonce, rlocs=("10.0.3.2",))
        for site, instance_id in (("a", 7), ("c", 8)):
            versions[site].append(at.records(str(HOST), instance_id)[0].map_version)
    assert versions["a"][1] == versions["a"][0] + 1
    assert versions["c"][1] == versions["c"][0]


def test_a_subscription_and_its_publications_are_of_one_instance() -> None:
    at = server("pubsub")
    register(at, "a")
    register(at, "c")
    asker = {"itr_rlocs": (RLOC_C,), "xtr": XtrIdentity(int(RLOC_C)), "subscribe": True}
    subscribed = at.request(str(HOST), nonce=1 << 60, instance_id=7, **asker)
    (notify,) = [decode_control(each.payload) for each in sends(subscribed)]
    assert isinstance(notify, MapNotify)
    assert [(str(each.eid), each.locators[0].rloc) for each in notify.records] == [(f"[7]{HOST}", RLOC_A)]
    assert at.machine.inspect(0)["subscriptions"][0]["instance_id"] == 7
    other = register(at, "c", 2, rlocs=("10.0.3.9",))
    assert events(other, "mapping_changed")
    assert not [told for told in events(other, "map_notify_sent") if told["reason"] == "publication"]
    published = [told for told in events(register(at, "b"), "map_notify_sent") if told["reason"] == "publication"]
    assert [(told["eid"], told["instance_id"]) for told in published] == [(str(HOST), 7)]


def test_map_server_solicits_only_who_asked_in_the_instance() -> None:
    at = server("smr-map-server")
    register(at, "a")
    register(at, "c")
    at.request(str(HOST), instance_id=8)
    assert not events(register(at, "b"), "smr_sent")
    at.request(str(HOST), instance_id=7)
    moved = register(at, "a", 1 << 33)
    (told,) = events(moved, "smr_sent")
    assert (told["eid"], told["instance_id"]) == ("192.168.0.10", 7)
    (smr,) = [each for each in map(decode, sends(moved)) if isinstance(each, MapRequest)]
    assert [each.eid for each in smr.requests] == [host_eid(EID, 7)]
    assert smr.source_eid == InstanceId(7, EID)


def decode(action: Any) -> object:
    return decode_control(action.payload)


# --- together ----------------------------------------------------------------------------------------

MECHANISMS = ["ttl", "smr-old-xtr", "smr-map-server", "smr-new-xtr", "pubsub", "map-version", "rloc-probe"]


@pytest.mark.parametrize("instances", [(7, 8), (MAX_INSTANCE_ID, 0), (0, MAX_INSTANCE_ID)], ids=str)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_guest_moves_in_one_instance_and_nothing_of_it_is_said_in_the_other(
    mechanism: str, instances: tuple[int, int]
) -> None:
    network = Network(mechanism, instances=instances)
    said: dict[int, set[int]] = {number: set() for number in (0, 1)}

    def faults(source: Address, destination: Address, payload: bytes, count: int) -> list[int]:
        message: Any = decode_control(payload)
        message = message.message if isinstance(message, EncapsulatedControl) else message
        carried = message.requests if isinstance(message, MapRequest) else message.records
        ends = {source, destination}
        number = 1 if ends & set(OTHER_RLOCS.values()) else 0
        said[number] |= {each.eid.instance_id for each in carried}
        if isinstance(message, MapRequest) and isinstance(message.source_eid, InstanceId):
            said[number].add(message.source_eid.instance_id)
        return [10 * MS_NS]

    network.faults = faults
    for prefix in ("", "other-"):
        network.sight(f"{prefix}xtr-a")
        network.run_for(1 * SECOND_NS)
        network.send(f"{prefix}xtr-c", packet_to(EID))
        network.run_for(5 * SECOND_NS)
        assert len(network.nodes[f"{prefix}xtr-a"].delivered) == 1
    moved_ns = network.now
    network.sight("xtr-b")
    for _ in range(40):
        network.send("xtr-c", packet_to(EID), source=CORRESPONDENT)
        network.send("xtr-b", packet_to(CORRESPONDENT), eid=CORRESPONDENT, source=EID)
        network.send("other-xtr-c", packet_to(EID), source=CORRESPONDENT)
        network.run_for(1 * SECOND_NS)
    assert (network.owner(), network.owner(instance_id=instances[1])) == ("xtr-b", "other-xtr-a")
    assert len(network.nodes["other-xtr-a"].delivered) == 41
    assert not network.nodes["other-xtr-b"].delivered
    if mechanism != "ttl":  # which waits for a day
        (changed, *_) = network.saw("map_cache_changed", "xtr-c", moved_ns)
        assert changed.fields["rloc"] == str(RLOCS["xtr-b"])
        assert changed.fields.get("instance_id", 0) == instances[0]
        assert len(network.nodes["xtr-b"].delivered) > 30
    assert not [each for name in OTHER_RLOCS for each in network.saw("map_cache_changed", name, moved_ns)]
    assert said == {0: {instances[0]}, 1: {instances[1]}}


def test_an_authoritative_answer_to_a_probe_is_taken_in_its_instance() -> None:
    site = Site("rloc-probe", instance_id=7)
    site.give(Started())
    peer = ip_network("192.168.3.0/24")
    record = EidRecord(EidPrefix(peer, 7), 1440, (RlocRecord(PEER),), flags=EidRecordFlag.AUTHORITATIVE)
    site.give(PacketMissed(ip_address("192.168.3.10"), b"packet"))
    site.receive(MapReply(7, (record,)).encode())
    asked = [each for _, action in site.run(60 * SECOND_NS) for each in sent([action], MapRequest)]
    probes = [each for each in asked if each.flags & MapRequestFlag.PROBE]
    assert {str(each.requests[0].eid) for each in probes} == {f"[7]{peer}"}
