"""A rehearsal is a migration of a twin: with every mechanism, in every part, again and again the same."""

from __future__ import annotations

import pytest

from testbed.lisp.actions import Action, Emit, SendControl
from testbed.lisp.config import MapServerOptions, XtrOptions
from testbed.lisp.mechanisms import MECHANISMS, mechanism_named
from testbed.lisp.rehearsal import SCENES, Part, Rehearsal

UNLIMITED = XtrOptions(
    map_request_interval_s=0.0, map_reply_interval_s=0.0, smr_interval_s=0.0, smr_invoked_interval_s=0.0
)


def kinds(actions: list[Action]) -> set[str]:
    return {action.kind for action in actions if isinstance(action, Emit)}


@pytest.mark.parametrize("part", Part)
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("proxy_reply", [True, False])
def test_it_goes_on_for_ever_and_repeats_itself(mechanism: str, part: Part, proxy_reply: bool) -> None:
    rehearsal = Rehearsal(
        part,
        mechanism_named(mechanism),
        xtr_options=XtrOptions(proxy_reply=proxy_reply),
        map_server_options=MapServerOptions(proxy_reply=proxy_reply),
    )
    first = [rehearsal.step() for _ in range(SCENES)]
    assert [rehearsal.step() for _ in range(SCENES)] == first


@pytest.mark.parametrize(
    ("mechanism", "part", "lived"),
    [
        ("smr-old-xtr", Part.MAP_SERVER, {"mapping_changed", "departure_acknowledged", "map_reply_sent"}),
        ("smr-old-xtr", Part.CORRESPONDENT, {"smr_received", "map_request_sent", "map_cache_changed"}),
        ("smr-map-server", Part.MAP_SERVER, {"smr_sent", "map_reply_sent"}),
        ("smr-new-xtr", Part.CORRESPONDENT, {"smr_received", "map_cache_changed"}),
        ("pubsub", Part.CORRESPONDENT, {"publication_received", "map_cache_changed"}),
        ("map-version", Part.CORRESPONDENT, {"map_version_newer"}),
    ],
)
def test_every_scene_is_the_whole_migration(mechanism: str, part: Part, lived: set[str]) -> None:
    rehearsal = Rehearsal(part, mechanism_named(mechanism), xtr_options=UNLIMITED)
    scenes = [rehearsal.step() for _ in range(SCENES)]
    assert all(lived <= kinds(scene) for scene in scenes[3:])  # first it has to get to know its peers


def test_a_mobile_site_wins_and_loses_the_guest_by_turns() -> None:
    rehearsal = Rehearsal(Part.MOBILE_SITE, mechanism_named("smr-old-xtr"), xtr_options=UNLIMITED)
    scenes = [kinds(rehearsal.step()) for _ in range(SCENES)]
    assert all({"eid_departed", "away_installed", "smr_sent"} <= scene for scene in scenes[1::2])
    assert all({"eid_detected", "map_register_sent"} <= scene for scene in scenes[2::2])


@pytest.mark.parametrize("part", Part)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_it_is_played_with_the_options_of_the_agent(mechanism: str, part: Part) -> None:
    options = XtrOptions(
        rloc_probe_interval_s=5.0,
        locator_status_bits="verify",
        echo_nonce=mechanism != "map-version",
        gleaning=True,
        resubscribe_s=10.0,
    )
    rehearsal = Rehearsal(part, mechanism_named(mechanism), xtr_options=options, authentication="hmac-sha-256-128")
    first = [rehearsal.step() for _ in range(SCENES)]
    assert [rehearsal.step() for _ in range(SCENES)] == first


def test_nothing_in_it_is_anybodys() -> None:
    rehearsal = Rehearsal(Part.MAP_SERVER, mechanism_named("pubsub"))
    sent = [action for _ in range(4) for action in rehearsal.step() if isinstance(action, SendControl)]
    assert sent
    assert all(str(action.destination).startswith("192.0.2.") for action in sent)  # RFC 5737
