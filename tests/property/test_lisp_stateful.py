"""Map-cache and registrations under any operations and a fake clock, against models that are plain dicts."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from testbed.lisp.actions import MINUTE_NS, SECOND_NS, Forwarding, ForwardingLocator
from testbed.lisp.config import SiteConfig
from testbed.lisp.map_cache import CacheEntry, MapCache
from testbed.lisp.sealing import Secret
from tests.effort import examples
from tests.unit.lisp_server import MOBILE, RLOC_A, RLOC_B, RLOC_C, Server, events

RLOC_D = IPv4Address("10.0.4.2")

#: A few prefixes that overlap in every way.
PREFIXES = [
    IPv4Network(text)
    for text in (
        "192.168.0.0/16",
        "192.168.0.0/24",
        "192.168.0.0/25",
        "192.168.0.10/32",
        "192.168.0.200/32",
        "192.168.1.0/24",
    )
]
ADDRESSES = [
    IPv4Address(text) for text in ("192.168.0.10", "192.168.0.11", "192.168.0.200", "192.168.1.1", "192.168.9.9")
]
LOCATORS = [(ForwardingLocator(IPv4Address(f"10.0.{number}.2"), 1, 100),) for number in (1, 2)]
WAITS_NS = st.sampled_from([1, SECOND_NS, 20 * SECOND_NS, MINUTE_NS, 3 * MINUTE_NS])


class CacheMachine(RuleBasedStateMachine):
    """The model: prefix → (locators, end); the longest prefix with an end to come holds an address."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.cache = MapCache()
        self.model: dict[IPv4Network, tuple[tuple[ForwardingLocator, ...], int]] = {}

    @rule(eid=st.sampled_from(PREFIXES), locators=st.sampled_from(LOCATORS), ttl_minutes=st.integers(1, 3))
    def insert(self, eid: IPv4Network, locators: tuple[ForwardingLocator, ...], ttl_minutes: int) -> None:
        end = self.now + ttl_minutes * MINUTE_NS
        # RFC 9301 §5.5: no longer than the more-specifics that are there
        end = min([end, *(each for prefix, (_, each) in self.model.items() if prefix != eid and prefix.subnet_of(eid))])
        stored = self.cache.insert(
            CacheEntry(eid, Forwarding.REMOTE, locators, self.now + ttl_minutes * MINUTE_NS, installed_ns=self.now)
        )
        self.model[eid] = (locators, end)
        assert stored.expires_ns == end

    @rule(eid=st.sampled_from(PREFIXES))
    def remove(self, eid: IPv4Network) -> None:
        removed = self.cache.remove(eid)
        assert (removed is not None) == (self.model.pop(eid, None) is not None)

    @rule(wait_ns=WAITS_NS)
    def time_passes(self, wait_ns: int) -> None:
        self.now += wait_ns

    @rule()
    def expire(self) -> None:
        ended = {entry.eid for entry in self.cache.expire(self.now)}
        assert ended == {eid for eid, (_, end) in self.model.items() if end <= self.now}
        for eid in ended:
            del self.model[eid]  # type: ignore[arg-type]

    @rule(address=st.sampled_from(ADDRESSES))
    def use(self, address: IPv4Address) -> None:
        """A packet passes, which extends nothing: the other checks would see it."""
        self.cache.lookup(address, self.now)

    @invariant()
    def every_address_has_the_longest_live_mapping(self) -> None:
        for address in ADDRESSES:
            live = [prefix for prefix, (_, end) in self.model.items() if end > self.now and address in prefix]
            expected = max(live, key=lambda prefix: prefix.prefixlen, default=None)
            found = self.cache.lookup(address, self.now)
            assert (found and found.eid) == expected
            if found is not None and expected is not None:
                assert (found.locators, found.expires_ns) == self.model[expected]

    @invariant()
    def the_next_end_is_the_models(self) -> None:
        assert self.cache.next_deadline() == min((end for _, end in self.model.values()), default=None)
        assert len(self.cache) == len(self.model)


EIDS = ["192.168.0.10/32", "192.168.0.11/32", "192.168.0.12/32"]
RLOCS = {"a": RLOC_A, "b": RLOC_B, "c": RLOC_C, "d": RLOC_D}
#: Sites A and B are in one instance, C and D in another; all have the same dynamic prefix.
INSTANCES = {"a": 0, "b": 0, "c": 7, "d": 7}
SITES = tuple(
    SiteConfig(name, (), (MOBILE,), Secret(0, f"secret of {name}".encode()), instance_id)
    for name, instance_id in INSTANCES.items()
)
LIFETIME_NS = 180 * SECOND_NS  # RFC 9301 §8.2
#: An EID and its instance.
Place = tuple[str, int]


class RegistrationMachine(RuleBasedStateMachine):
    """The model: EID in an instance → (site, end), and for each site the nonces that it still may use for an EID.

    The xTRs never hear of their losses, so whoever has lost an EID must not get it back below its fence.
    """

    def __init__(self) -> None:
        super().__init__()
        self.server = Server(sites=SITES)
        self.nonces = dict.fromkeys(INSTANCES, 0)
        self.model: dict[Place, tuple[str, int]] = {}
        self.lost: set[tuple[str, Place]] = set()
        #: Whose last claim was believed, whatever has become of the registration since.
        self.claimed: dict[Place, str] = {}

    def _register(self, place: Place, site: str, nonce: int, *, ttl_minutes: int = 1440) -> list[str]:
        actions = self.server.register(
            place[0], nonce=nonce, site=site, source=RLOCS[site], ttl_minutes=ttl_minutes, instance_id=place[1],
            secret=next(each.secret for each in SITES if each.name == site),
        )  # fmt: skip
        return [event["reason"] for event in events(actions, "registration_refused")]

    @rule(eid=st.sampled_from(EIDS), site=st.sampled_from(sorted(INSTANCES)))
    def register(self, eid: str, site: str) -> None:
        self.nonces[site] += 1
        place = (eid, INSTANCES[site])
        refused = self._register(place, site, self.nonces[site])
        if (site, place) in self.lost:
            assert refused == ["registered elsewhere since"]
            return
        assert refused == []
        if self.claimed.get(place, site) != site:
            self.lost.add((self.claimed[place], place))
        self.claimed[place] = site
        self.model[place] = (site, self.server.now + LIFETIME_NS)

    @rule(eid=st.sampled_from(EIDS), site=st.sampled_from(sorted(INSTANCES)), ttl_minutes=st.sampled_from([0, 1440]))
    def register_in_another_instance(self, eid: str, site: str, ttl_minutes: int) -> None:
        self.nonces[site] += 1
        place = (eid, 7 - INSTANCES[site])
        assert self._register(place, site, self.nonces[site], ttl_minutes=ttl_minutes) == ["another instance"]

    @rule(eid=st.sampled_from(EIDS), site=st.sampled_from(sorted(INSTANCES)), back=st.integers(0, 3))
    @precondition(lambda self: max(self.nonces.values()) > 0)
    def replay(self, eid: str, site: str, back: int) -> None:
        if self.nonces[site]:
            place = (eid, INSTANCES[site])
            assert self._register(place, site, max(0, self.nonces[site] - back)) == ["replay"]

    @rule(eid=st.sampled_from(EIDS), site=st.sampled_from(sorted(INSTANCES)))
    def withdraw(self, eid: str, site: str) -> None:
        self.nonces[site] += 1
        place = (eid, INSTANCES[site])
        refused = self._register(place, site, self.nonces[site], ttl_minutes=0)
        assert bool(refused) == ((site, place) in self.lost)
        if self.model.get(place, ("", 0))[0] == site:
            del self.model[place]

    @rule(wait_ns=WAITS_NS)
    def time_passes(self, wait_ns: int) -> None:
        self.server.now += wait_ns
        actions = self.server.machine.handle_timer(self.server.now)
        ended = {
            (event["eid"], event.get("instance_id", 0))
            for event in events(actions, "mapping_changed")
            if event["reason"] == "registration expired"
        }
        assert ended == {place for place, (_, end) in self.model.items() if end <= self.server.now}
        self.model = {place: held for place, held in self.model.items() if place not in ended}

    @invariant()
    def the_map_server_answers_what_the_model_says(self) -> None:
        rows = self.server.machine.inspect(self.server.now)["registrations"]
        registered = {(row["eid"], row.get("instance_id", 0)): row["site"] for row in rows}
        assert registered == {place: site for place, (site, _) in self.model.items()}
        for eid in EIDS:
            for instance_id in sorted(set(INSTANCES.values())):
                (record,) = self.server.records(eid, instance_id)
                held = self.model.get((eid, instance_id))
                assert [locator.rloc for locator in record.locators] == ([RLOCS[held[0]]] if held else [])


CacheMachine.TestCase.settings = settings(max_examples=examples(150), stateful_step_count=40)
RegistrationMachine.TestCase.settings = settings(max_examples=examples(80), stateful_step_count=40)
TestMapCache = CacheMachine.TestCase
TestRegistrations = RegistrationMachine.TestCase
