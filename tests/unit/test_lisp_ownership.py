"""The rules of docs/adr/0003-who-owns-a-moving-eid.md, one by one."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from testbed.lisp.actions import Action, SaveNonce
from testbed.lisp.nonces import HIGHEST_NONCE, NONCE_STEP
from testbed.lisp.ownership import Claimant, Ownership
from testbed.lisp.wire import EidPrefix, EidRecord, XtrIdentity, host_eid

A, B = (Claimant(name, XtrIdentity(number)) for number, name in enumerate("ab"))
EID, OTHER = (host_eid(ip_address(text)) for text in ("192.168.0.10", "192.168.0.11"))


def record(eid: EidPrefix) -> EidRecord:
    return EidRecord(eid, 1440)


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
    assert first == 100 + NONCE_STEP
    second, _ = ownership.depart(A, record(OTHER), OTHER)
    assert second == first + NONCE_STEP


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
    assert ownership.notice(A) == (second, (record(EID), record(OTHER)))
    assert ownership.acknowledge(A, first)[0] == [EID]
    assert ownership.notice(A) == (second, (record(OTHER),))
    assert ownership.ignorant_of(OTHER) == [A]
    assert ownership.acknowledge(A, second)[0] == [OTHER]
    assert ownership.notice(A) is None


def test_rule_5_losses_that_a_message_does_not_hold_are_told_in_the_order_of_their_fences() -> None:
    ownership = Ownership({})
    eids = [host_eid(EID.prefix.network_address + number) for number in range(300)]
    fences = [ownership.depart(A, record(eid), eid)[0] for eid in eids]
    notice = ownership.notice(A)
    assert notice == (fences[254], tuple(record(eid) for eid in eids[:255]))
    assert ownership.acknowledge(A, fences[254])[0] == eids[:255]
    assert ownership.notice(A) == (fences[299], tuple(record(eid) for eid in eids[255:]))


def test_fences_end_where_nonces_do_and_what_is_below_them_stays_refused() -> None:
    ownership = Ownership({})
    ownership.register(A, HIGHEST_NONCE)
    assert [ownership.depart(A, record(eid), eid)[0] for eid in (EID, OTHER)] == [HIGHEST_NONCE, HIGHEST_NONCE]
    assert not ownership.admits(A, EID, HIGHEST_NONCE)


def test_a_claim_ends_what_there_was_to_tell() -> None:
    ownership = Ownership({})
    fence, _ = ownership.depart(A, record(EID), EID)
    ownership.register(A, fence + 1)
    ownership.claim(A, EID, 3 * NONCE_STEP)
    assert ownership.notice(A) is None
    assert not ownership.admits(A, EID, fence)


class Persistent:
    """What a Map-Server stores, and the ownership that lives with it."""

    def __init__(self) -> None:
        self.saved: dict[str, int] = {}
        self.ownership = Ownership({})

    def keep(self, actions: list[Action]) -> None:
        for action in actions:
            assert isinstance(action, SaveNonce)
            self.saved[action.owner] = max(action.nonce, self.saved.get(action.owner, 0))

    def depart(self, eid: EidPrefix) -> int:
        fence, actions = self.ownership.depart(A, record(eid), eid)
        self.keep(actions)
        return fence

    def restart(self) -> None:
        self.ownership = Ownership(dict(self.saved))


def test_nonces_and_fences_outlive_the_process() -> None:
    server = Persistent()
    fence = server.depart(EID)
    server.keep(server.ownership.register(A, 100))
    server.restart()
    assert server.ownership.is_replay(A, 100)
    assert not server.ownership.admits(A, EID, fence)


def test_rule_5_after_a_restart_a_fence_that_nobody_acknowledged_is_not_passed_by_way_of_another() -> None:
    server = Persistent()
    server.keep(server.ownership.register(A, 100))
    first = server.depart(EID)  # A never hears of it
    server.restart()
    second = server.depart(OTHER)
    assert second > first
    assert server.ownership.notice(A) == (second, (record(OTHER),))
    assert not server.ownership.admits(A, EID, second + 1)  # A is past its fence, and has heard of OTHER only
    assert server.ownership.admits(A, EID, first + 1)  # from before the restart, when no notice left a loss out
    third = server.depart(EID)  # its new owner has registered it again
    assert server.ownership.notice(A) == (third, (record(OTHER), record(EID)))


def test_rule_5_after_a_restart_what_was_acknowledged_or_claimed_back_is_so_still() -> None:
    server = Persistent()
    for eid in (EID, OTHER):
        server.depart(eid)
    server.keep(server.ownership.claim(A, EID, 3 * NONCE_STEP))
    server.keep(server.ownership.acknowledge(A, 2 * NONCE_STEP)[1])
    server.restart()
    assert not server.ownership.ignorant_of(EID)
    assert not server.ownership.ignorant_of(OTHER)


def test_a_loss_in_one_instance_is_none_in_another_also_after_a_restart() -> None:
    server = Persistent()
    here, there = (host_eid(EID.prefix.network_address, instance_id) for instance_id in (7, 8))
    server.keep(server.ownership.claim(B, there, 5))
    fence = server.depart(here)
    for _ in range(2):
        assert not server.ownership.admits(A, here, fence)
        assert server.ownership.admits(A, there, 1)
        assert server.ownership.admits(A, EID, 1)
        assert (server.ownership.ignorant_of(here), server.ownership.ignorant_of(there)) == ([A], [])
        assert (server.ownership.owners_of(here), server.ownership.owners_of(there)) == ((), (B,))
        server.restart()


def test_who_a_claimant_is_can_be_read_back() -> None:
    for claimant in (A, Claimant("a/b", ip_address("10.0.1.2")), Claimant("c", ip_address("2001:db8::1"))):
        assert Claimant.parse(str(claimant)) == claimant
    assert Claimant.parse(str(Claimant("d", XtrIdentity(0xABC, 7)))) == Claimant("d", XtrIdentity(0xABC, 7))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["register", "lose", "hear", "deliver", "acknowledge", "restart"]),
        st.sampled_from([EID, OTHER]),
    ),
    max_size=60,
)


@given(STEPS, st.randoms())
def test_no_message_sent_in_ignorance_is_ever_admitted(steps: list[tuple[str, EidPrefix]], random: object) -> None:
    """One xTR, two EIDs; messages of both directions are delivered in any order, or never; the Map-Server restarts."""
    server = Persistent()
    clock = 1
    knows_of = {EID: 0, OTHER: 0}  # losses that the xTR has heard of
    losses = {EID: 0, OTHER: 0}
    to_server: list[tuple[int, EidPrefix, int]] = []  # (nonce, EID, losses of it known when sent)
    to_xtr: list[tuple[int, dict[EidPrefix, int]]] = []  # (nonce, losses it tells of)
    heard: list[int] = []  # nonces to be acknowledged
    for step, eid in steps:
        if step == "register":
            clock += 1
            to_server.append((clock, eid, knows_of[eid]))
        elif step == "lose":
            losses[eid] += 1
            server.depart(eid)
            notice = server.ownership.notice(A)
            assert notice is not None
            to_xtr.append((notice[0], {each: losses[each] for each in losses if record(each) in notice[1]}))
        elif step == "hear" and to_xtr:
            nonce, told = to_xtr.pop(random.randrange(len(to_xtr)))  # type: ignore[attr-defined]
            clock = max(clock, nonce)
            knows_of = {each: max(known, told.get(each, 0)) for each, known in knows_of.items()}
            heard.append(nonce)
        elif step == "acknowledge" and heard:
            server.keep(server.ownership.acknowledge(A, heard.pop(0))[1])
        elif step == "restart":
            server.restart()
        elif step == "deliver" and to_server:
            nonce, about, knew = to_server.pop(random.randrange(len(to_server)))  # type: ignore[attr-defined]
            if server.ownership.is_replay(A, nonce):
                continue
            server.keep(server.ownership.register(A, nonce))
            if server.ownership.admits(A, about, nonce):
                assert knew == losses[about]
                server.keep(server.ownership.claim(A, about, nonce))
            else:
                # What an xTR knows is refused only while a restarted Map-Server cannot tell.
                assert knew < losses[about] or server.ownership.is_whereabouts_unknown(A, about)
