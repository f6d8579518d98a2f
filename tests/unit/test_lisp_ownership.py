"""The rules of docs/adr/0003-who-owns-a-moving-eid.md, one by one."""

from __future__ import annotations

from ipaddress import IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from testbed.lisp.ownership import FENCE_STEP, Claimant, Ownership
from testbed.lisp.wire import EidPrefix, EidRecord, XtrIdentity

A, B = (Claimant(name, XtrIdentity(number)) for number, name in enumerate("ab"))
EID, OTHER = IPv4Network("192.168.0.10/32"), IPv4Network("192.168.0.11/32")


def record(eid: IPv4Network) -> EidRecord:
    return EidRecord(EidPrefix(eid), 1440)


def test_rule_1_a_first_claim_is_believed_whatever_its_nonce() -> None:
    ownership = Ownership({})
    assert ownership.admits(A, EID, 0)
    assert not ownership.is_replay(A, 0)


def test_rfc9301_5_6_a_nonce_that_is_not_greater_is_a_replay() -> None:
    ownership = Ownership({})
    ownership.register(A, 100)
    assert [ownership.is_replay(A, nonce) for nonce in (99, 100, 101)] == [True, True, False]
    assert not ownership.is_replay(B, 1)


def test_rule_2_the_fence_is_above_every_nonce_of_both() -> None:
    ownership = Ownership({})
    ownership.register(A, 100)
    first, _ = ownership.depart(A, record(EID), EID)
    assert first == 100 + FENCE_STEP
    second, _ = ownership.depart(A, record(OTHER), OTHER)
    assert second == first + FENCE_STEP


def test_rule_4_up_to_the_fence_is_ignorance_above_it_is_news() -> None:
    ownership = Ownership({})
    ownership.register(A, 100)
    fence, _ = ownership.depart(A, record(EID), EID)
    assert [ownership.admits(A, EID, nonce) for nonce in (101, fence, fence + 1)] == [False, False, True]
    assert ownership.admits(B, EID, 5)
    assert ownership.admits(A, OTHER, 101)


def test_rule_5_a_notification_carries_every_loss_that_was_not_acknowledged() -> None:
    ownership = Ownership({})
    ownership.register(A, 100)
    first, _ = ownership.depart(A, record(EID), EID)
    second, _ = ownership.depart(A, record(OTHER), OTHER)
    assert ownership.untold(A) == (record(EID), record(OTHER))
    assert ownership.latest_fence(A) == second
    assert ownership.acknowledge(A, first) == [EID]
    assert ownership.untold(A) == (record(OTHER),)
    assert ownership.ignorant_of(OTHER) == [A]
    assert ownership.acknowledge(A, second) == [OTHER]
    assert ownership.untold(A) == ()


def test_a_claim_ends_what_there_was_to_tell() -> None:
    ownership = Ownership({})
    fence, _ = ownership.depart(A, record(EID), EID)
    ownership.register(A, fence + 1)
    ownership.claim(A, EID)
    assert ownership.untold(A) == ()
    assert not ownership.admits(A, EID, fence)


def test_nonces_and_fences_outlive_the_process() -> None:
    ownership = Ownership({})
    saved: dict[str, int] = {}
    fence, actions = ownership.depart(A, record(EID), EID)
    for action in [*ownership.register(A, 100), *actions]:
        saved[action.owner] = action.nonce  # type: ignore[union-attr]
    restarted = Ownership(saved)
    assert restarted.is_replay(A, 100)
    assert not restarted.admits(A, EID, fence)


@given(st.lists(st.sampled_from(["register", "lose", "hear", "deliver"]), max_size=40), st.randoms())
def test_no_message_sent_in_ignorance_is_ever_admitted(steps: list[str], random: object) -> None:
    """One xTR, one EID; messages of both directions are delivered in any order, or never."""
    ownership = Ownership({})
    clock = 1
    knows_of = 0  # losses that the xTR has heard of
    losses = 0
    to_server: list[tuple[int, int]] = []  # (nonce, losses known when sent)
    to_xtr: list[tuple[int, int]] = []  # (fence, losses it tells of)
    for step in steps:
        if step == "register":
            clock += 1
            to_server.append((clock, knows_of))
        elif step == "lose":
            losses += 1
            fence, _ = ownership.depart(A, record(EID), EID)
            to_xtr.append((fence, losses))
        elif step == "hear" and to_xtr:
            fence, told = to_xtr.pop(random.randrange(len(to_xtr)))  # type: ignore[attr-defined]
            clock, knows_of = max(clock, fence), max(knows_of, told)
        elif step == "deliver" and to_server:
            nonce, knew = to_server.pop(random.randrange(len(to_server)))  # type: ignore[attr-defined]
            if not ownership.is_replay(A, nonce):
                ownership.register(A, nonce)
                assert ownership.admits(A, EID, nonce) == (knew == losses)
