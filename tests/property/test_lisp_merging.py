"""Merged registrations under any operations against a model that is a plain dict, and under faults of the network."""

from __future__ import annotations

from ipaddress import ip_address
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from testbed.lisp.actions import SECOND_NS, Address
from testbed.lisp.config import XtrOptions
from testbed.lisp.ownership import Claimant
from testbed.lisp.wire import LocatorFlag, MapRegisterFlag, RlocRecord, XtrIdentity
from tests.effort import examples
from tests.unit.lisp_network import CORRESPONDENT, EID, MS_NS, SECOND_AT_A, Network, packet_to
from tests.unit.lisp_server import Server, events

PREFIX = "192.168.3.0/24"
XTRS = [ip_address(f"10.0.{number}.2") for number in (3, 4, 5)]
LIFETIME_NS = 180 * SECOND_NS
OWN = LocatorFlag.REACHABLE | LocatorFlag.LOCAL


class MergeMachine(RuleBasedStateMachine):
    """The model: xTR → (priority, TTL, end) of its part, and whether the parts are merged at all."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.nonces = dict.fromkeys(XTRS, 0)
        self.parts: dict[Address, tuple[int, int, int]] = {}
        self.merged = False

    def _register(self, xtr: Address, nonce: int, *, priority: int = 1, ttl: int = 60, merge: bool = True) -> list[str]:
        flags = MapRegisterFlag.WANT_MAP_NOTIFY | (MapRegisterFlag.MERGE if merge else MapRegisterFlag.NONE)
        own = (RlocRecord(xtr, priority, flags=OWN),)
        actions = self.server.register(
            PREFIX, nonce=nonce, site="c", source=xtr, flags=flags, given=own, ttl_minutes=ttl
        )
        return [event["reason"] for event in events(actions, "registration_refused")]

    @rule(
        xtr=st.sampled_from(XTRS), step=st.integers(1, 3), priority=st.integers(1, 3), ttl=st.sampled_from([1, 60]),
        merge=st.sampled_from([True, True, True, False]),
    )  # fmt: skip
    def register(self, xtr: Address, step: int, priority: int, ttl: int, merge: bool) -> None:
        self.nonces[xtr] += step
        assert self._register(xtr, self.nonces[xtr], priority=priority, ttl=ttl, merge=merge) == []
        if not (merge and self.merged):
            self.parts = {}
        self.parts[xtr] = (priority, ttl, self.server.now + LIFETIME_NS)
        self.merged = merge

    @rule(xtr=st.sampled_from(XTRS), back=st.integers(0, 3), ttl=st.sampled_from([0, 60]), merge=st.booleans())
    def replay(self, xtr: Address, back: int, ttl: int, merge: bool) -> None:
        if self.nonces[xtr]:
            assert self._register(xtr, max(0, self.nonces[xtr] - back), ttl=ttl, merge=merge) == ["replay"]

    @rule(xtr=st.sampled_from(XTRS), merge=st.booleans())
    def withdraw(self, xtr: Address, merge: bool) -> None:
        self.nonces[xtr] += 1
        assert self._register(xtr, self.nonces[xtr], ttl=0, merge=merge) == []
        self.parts.pop(xtr, None)

    @rule(wait_ns=st.sampled_from([1, SECOND_NS, 60 * SECOND_NS, 180 * SECOND_NS]))
    def time_passes(self, wait_ns: int) -> None:
        self.server.now += wait_ns
        self.server.machine.handle_timer(self.server.now)
        self.parts = {xtr: part for xtr, part in self.parts.items() if part[2] > self.server.now}

    @invariant()
    def the_answer_is_the_union_of_what_lives(self) -> None:
        (record,) = self.server.records(PREFIX)
        found = [(each.rloc, each.priority) for each in record.locators]
        assert found == [(xtr, self.parts[xtr][0]) for xtr in XTRS if xtr in self.parts]
        if self.parts:
            assert record.ttl_minutes == min(ttl for _, ttl, _ in self.parts.values())

    @invariant()
    def the_next_end_is_the_models(self) -> None:
        deadlines = [end for _, _, end in self.parts.values()]
        found = self.server.machine.next_deadline()
        assert found is None or not deadlines or found <= min(deadlines)
        assert not deadlines or found is not None


MergeMachine.TestCase.settings = settings(max_examples=examples(80), stateful_step_count=30)
TestMerging = MergeMachine.TestCase

MOVES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.sampled_from([1, 15, 40, 900, 3000, 59_995]),  # ms until the next move
        st.booleans(),  # whether the second xTR sees it before the first
        st.sampled_from([False, False, False, True]),  # whether the Map-Server restarts then
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=examples(200), suppress_health_check=[HealthCheck.too_slow])
@given(moves=MOVES, seed=st.integers(0, 2**32), loss=st.sampled_from([0.0, 0.2, 0.5]))
def test_a_moving_eid_ends_at_one_site_with_all_of_its_xtrs(
    moves: list[tuple[str, int, bool, bool]], seed: int, loss: float
) -> None:
    random = Random(seed)
    network = Network("smr-old-xtr", xtr_options=XtrOptions(merge_registrations=True), second_at_a=True)
    at = {"a": ["xtr-a", SECOND_AT_A], "b": ["xtr-b"]}

    def faults(source: Address, destination: Address, payload: bytes, count: int) -> list[int]:
        copies = 0 if random.random() < loss else random.choice([1, 1, 1, 2])
        return [random.choice([1, 10, 30, 200, 2500]) * MS_NS for _ in range(copies)]

    for xtr in at["a"]:
        network.sight(xtr)
    network.run_for(1 * SECOND_NS)
    network.faults = faults
    for site, wait_ms, second_first, restarts in moves:
        network.really_at = f"xtr-{site}"
        if restarts:
            network.restart_map_server()
        for xtr in at[site][::-1] if second_first else at[site]:
            network.sight(xtr)
        network.run_for(wait_ms * MS_NS)
    network.faults = lambda source, destination, payload, count: [10 * MS_NS]
    last = moves[-1][0]
    for _ in range(300):
        for xtr in at[last]:
            network.sight(xtr)
        network.send("xtr-c", packet_to(EID), source=CORRESPONDENT)
        network.run_for(500 * MS_NS)
    if not any(restarts for _, _, _, restarts in moves):
        assert_whoever_registers_has_seen_it(network)
    assert network.locators() == at[last]
    for xtr in (*at["a"], *at["b"]):
        assert (network.host_state(xtr) == "local") == (xtr in at[last])
    rows = network.nodes["xtr-c"].machine.inspect(network.now)["map_cache"]
    (cached,) = [row["locators"] for row in rows if row["eid"] == f"{EID}/32"]
    assert {network.by_rloc[ip_address(each["rloc"])].name for each in cached} <= {*at[last]}


def assert_whoever_registers_has_seen_it(network: Network) -> None:
    """Safety: an xTR gets into the mapping only if it has seen the guest since its site lost it."""
    names = list(network.nodes)
    lost_ns: dict[str, int] = {}
    of_guest = [each for each in network.saw("mapping_changed", "ms") if each.fields["eid"] == f"{EID}/32"]
    assert of_guest
    for change in of_guest:
        if change.fields["reason"] not in ("moved", "changed"):
            continue
        owner, before = (Claimant.parse(str(change.fields[key])) for key in ("owner", "old_owner"))
        assert isinstance(owner.identity, XtrIdentity)
        node = names[owner.identity.xtr_id - 1]
        since_ns = lost_ns.get(owner.site, 0)
        assert any(since_ns < seen.at_ns < change.at_ns for seen in network.saw("eid_detected", node))
        if before.site != owner.site:
            lost_ns[before.site] = change.at_ns
