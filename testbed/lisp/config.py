"""What an xTR and a Map-Server are told: identities, prefixes, secrets, and every limit as an option."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from testbed.errors import TestbedError
from testbed.lisp.actions import SECOND_NS, Address, Prefix
from testbed.lisp.mechanisms import Mechanism
from testbed.lisp.sealing import Secret
from testbed.lisp.tolerances import Tolerance, Tolerances
from testbed.lisp.wire import Eid, EidPrefix, XtrIdentity

#: The header of data packets has 24 bits for it (RFC 9300 §5.3).
MAX_INSTANCE_ID = (1 << 24) - 1

O = TypeVar("O")  # noqa: E741 - a class of options


class OptionError(TestbedError):
    """An option that does not exist or has a value of the wrong type."""


@dataclass(frozen=True, slots=True)
class XtrOptions:
    """An xTR's knobs; a limit of 0 seconds is no limit.

    Attributes:
        registration_ttl_minutes: Record TTL of what it registers: how long ITRs may keep it.
        refresh_s: between registrations of what stays (RFC 9301 §8.2).
        proxy_reply: ask the Map-Server to answer for it (P-bit, RFC 9301 §5.6).
        map_request_interval_s: shortest time between Map-Requests for one EID (RFC 9301 §5.3).
        map_reply_interval_s: shortest time between Map-Replies to one ITR-RLOC (RFC 9301 §5.4); answers to probes
            count apart and for each EID.
        smr_interval_s: shortest time between SMRs to one RLOC (RFC 9301 §6.1).
        smr_invoked_interval_s: shortest time between SMR-invoked Map-Requests for one EID (RFC 9301 §6.1).
        on_miss: what becomes of packets while their mapping is being resolved.
        held_packets: at most, for each EID, with `hold`; the oldest go first.
        held_packets_total: at most, for all EIDs; more are dropped and counted.
        open_questions: EIDs that are being resolved at most; packets for more are dropped and counted.
        map_cache_entries: mappings that are kept at most; more are refused, counted and logged. The data plane has
            65,536 entries for each IP version, some of them for what is local.
        local_eids: dynamic EIDs that are or were here at most; sightings of more are refused and logged.
        resubscribe_s: between two requests for a subscription that is to go on; 0 = never. RFC 9437 has no
            lifetime of one; a Map-Server that restarts has lost it.
        local_cache_ttl_s: of a mapping whose TTL leaves it to us (0xffffffff, RFC 9301 §5.4).
        departure_probe_interval_s: shortest time between two questions to one EID on the LAN whether it
            has really left, when the Map-Server says so.
        neighbour_wait_s: how long a host that is asked for on the LAN has to answer by itself, before the
            gateway answers for one that is elsewhere.
        rloc_probe_interval_s: between two RLOC-probes of a locator beside a mechanism that does not probe by
            itself (RFC 9301 §7.1); 0 = it is not probed. The answers are no news of mappings then.
        rloc_probe_timeout_s: a probe without an answer after this is lost, and the next one goes at once.
        rloc_probe_losses: so many lost probes in a row take a locator down; 0 = none do.
        rloc_recheck_s: between two probes of a locator that is down.
        locator_status_bits: say in data packets which of the site's locators are up, and listen to what others
            say (RFC 9300 §10): with `verify` a locator that is said to be down is probed, with `trust` it is
            not used until it is said to be up. Only where all xTRs are trusted (§4.1).
        echo_nonce: echo nonces, say so in Map-Replies, and ask locators that say so for an echo (RFC 9300
            §10.1); one that sends without it is down. Only where all xTRs are trusted (§4.1).
        echo_nonce_interval_s: between two requests to a locator.
        echo_nonce_timeout_s: after three packets that asked; a longer round trip looks like a failure.
        gleaning: use where a packet came from as the mapping of its source for three seconds, while the
            mapping system is asked (RFC 9300 §9). Only where all xTRs are trusted (§4.1).
        ordered_notifies: the Map-Server's unsolicited nonces are ordered with our own, as ours are
            (docs/adr/0003-who-owns-a-moving-eid.md); off for a Map-Server that draws them at random.
        merge_registrations: register our own locator only, and ask for it to be merged with those of the site's other
            xTRs (RFC 9301 §5.6, merge-request bit).
        tolerate: deviations of peers that are accepted (`testbed.lisp.tolerances`); none by default, each logged.
    """

    registration_ttl_minutes: int = 1440
    refresh_s: float = 60.0
    proxy_reply: bool = True
    map_request_interval_s: float = 1.0
    map_reply_interval_s: float = 3.0
    smr_interval_s: float = 3.0
    smr_invoked_interval_s: float = 3.0
    on_miss: Literal["hold", "drop"] = "hold"
    held_packets: int = 32
    held_packets_total: int = 4096
    open_questions: int = 1024
    map_cache_entries: int = 60_000
    local_eids: int = 4096
    resubscribe_s: float = 60.0
    local_cache_ttl_s: float = 86400.0
    departure_probe_interval_s: float = 3.0
    neighbour_wait_s: float = 0.2
    rloc_probe_interval_s: float = 0.0
    rloc_probe_timeout_s: float = 1.0
    rloc_probe_losses: int = 3
    rloc_recheck_s: float = 10.0
    echo_nonce: bool = False
    echo_nonce_interval_s: float = 10.0
    echo_nonce_timeout_s: float = 1.0
    gleaning: bool = False
    locator_status_bits: Literal["none", "verify", "trust"] = "none"
    ordered_notifies: bool = True
    merge_registrations: bool = False
    tolerate: Tolerances = frozenset()


@dataclass(frozen=True, slots=True)
class MapServerOptions:
    """A Map-Server's knobs.

    Attributes:
        proxy_reply: answer for the ETRs that ask for it (P-bit, §8.3); otherwise forward requests to them.
        registration_ttl_minutes: Record TTL in its answers; 0 = what the ETR registered.
        registration_lifetime_s: without a refresh, a registration ends after this (RFC 9301 §8.2).
        unregistered_ttl_minutes: of the negative reply for a delegated prefix that nobody registered (§8.3).
        hole_ttl_minutes: of the negative reply for what is no LISP EID (§8.3).
        map_reply_interval_s: as in `XtrOptions`.
        smr_interval_s: as in `XtrOptions`.
        subscriptions: kept at most, with the nonces of ended ones (RFC 9437 §5); who asks for more gets a Map-Reply.
        askers: of mappings, which the mechanism solicits when these change: noted at most, one for each prefix and
            ITR-RLOC until its answer's TTL is over; more are counted, and hear of no change.
        tolerate: as in `XtrOptions`.
    """

    proxy_reply: bool = True
    registration_ttl_minutes: int = 0
    registration_lifetime_s: float = 180.0
    unregistered_ttl_minutes: int = 1
    hole_ttl_minutes: int = 15
    map_reply_interval_s: float = 3.0
    smr_interval_s: float = 3.0
    subscriptions: int = 65_536
    askers: int = 65_536
    tolerate: Tolerances = frozenset()


@dataclass(frozen=True, slots=True)
class SiteLocator:
    """A locator of a site, as its mappings give it.

    Attributes:
        rloc: the address of one of its xTRs.
        priority: lower is better; 255 is not to be used (RFC 9300 §9).
        weight: share of the traffic among those of one priority.
    """

    rloc: Address
    priority: int = 1
    weight: int = 100


@dataclass(frozen=True, slots=True)
class XtrConfig:
    """One xTR.

    Attributes:
        rloc: its locator.
        identity: xTR-ID and Site-ID, which go into every registration.
        eid_prefixes: registered whole from the start.
        dynamic_eid_prefixes: whose single EIDs are registered when they are seen here.
        eid_space: what is resolved through LISP.
        gateways: its own addresses on the EID LAN; never a sighting.
        map_servers: where it registers.
        map_resolvers: where it asks; the first is used until it fails to answer, then the next.
        secret: shared with the Map-Servers.
        mechanism: of the experiment.
        options: the knobs.
        locators: of every mapping that it registers: all of the site's, its own among them; none given is
            its own alone. With `merge_registrations` it registers its own of them only, the Map-Server says which
            the mapping has, and the others are those that it probes for its locator-status-bits.
        instance_id: of every EID that it has to do with (RFC 8060 §4.1), 24 bits. It serves one instance.
    """

    rloc: Address
    identity: XtrIdentity
    eid_prefixes: tuple[Prefix, ...]
    dynamic_eid_prefixes: tuple[Prefix, ...]
    eid_space: tuple[Prefix, ...]
    gateways: tuple[Address, ...]
    map_servers: tuple[Address, ...]
    map_resolvers: tuple[Address, ...]
    secret: Secret
    mechanism: Mechanism
    options: XtrOptions = XtrOptions()
    locators: tuple[SiteLocator, ...] = ()
    instance_id: int = 0

    def __post_init__(self) -> None:
        """Raise OptionError for locators that cannot be the site's, and for options that exclude each other."""
        check_instance_id(self.instance_id)
        if self.options.echo_nonce and self.mechanism.map_versions:
            raise OptionError(
                "echo-nonce-and-map-versions",
                "Nonces cannot be echoed under the mechanism map-version",
                why="map-versions take the nonce's place in the header (RFC 9300 §5.3)",
            )
        bits = self.options.locator_status_bits != "none"
        if self.options.merge_registrations and bits and self.dynamic_eid_prefixes:
            raise OptionError(
                "merged-registrations-and-locator-status-bits",
                "No locator-status-bits from a site that merges registrations of dynamic EIDs",
                why="a packet's bits count the locators of one set, and each EID has the set of who has seen it",
            )
        rlocs = [each.rloc for each in self.locators]
        if rlocs and (self.rloc not in rlocs or len(set(rlocs)) < len(rlocs)):
            raise OptionError(
                "site-locators",
                f"The site's locators are {', '.join(map(str, rlocs))}",
                why=f"allowed: each once, and the xTR's own, {self.rloc}, among them",
            )

    def in_instance(self, prefix: Prefix) -> EidPrefix:
        """A prefix as messages have it."""
        return EidPrefix(prefix, self.instance_id)

    def prefix_of(self, eid: Eid) -> Prefix | None:
        """The prefix of an EID in a message; None if it is of another instance, or no IP prefix at all."""
        if isinstance(eid, EidPrefix) and eid.instance_id == self.instance_id:
            return eid.prefix
        return None

    @property
    def fellows(self) -> tuple[Address, ...]:
        """The other locators of its site."""
        return tuple(each.rloc for each in self.locators if each.rloc != self.rloc)

    def is_own_address(self, prefix: Prefix) -> bool:
        """Whether a prefix is one of the xTR's addresses, which no mapping may take from it."""
        single = prefix.prefixlen == prefix.max_prefixlen
        return single and prefix.network_address in (self.rloc, *self.gateways)

    def is_dynamic(self, eid: Address) -> bool:
        """Whether an EID may come and go here."""
        return eid not in self.gateways and any(eid in prefix for prefix in self.dynamic_eid_prefixes)


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """What a Map-Server knows of a site.

    Attributes:
        name: in logs.
        eid_prefixes: that it may register, whole or in parts.
        dynamic_eid_prefixes: of which it may register single EIDs that live there at the time.
        secret: the site's; unique to it (RFC 9301 §5.6), it is what tells sites apart.
        instance_id: of its prefixes (RFC 8060 §4.1); those of another site in another instance may be the same.
    """

    name: str
    eid_prefixes: tuple[Prefix, ...]
    dynamic_eid_prefixes: tuple[Prefix, ...]
    secret: Secret
    instance_id: int = 0

    def __post_init__(self) -> None:
        """Raise OptionError for an instance-ID that data packets cannot say."""
        check_instance_id(self.instance_id)

    def may_register(self, eid: EidPrefix) -> bool:
        """Whether an EID-prefix is within what the site is authoritative for (RFC 9301 §8.2)."""
        if eid.instance_id != self.instance_id:
            return False
        return self.is_dynamic(eid) or any(_within(eid.prefix, each) for each in self.eid_prefixes)

    def is_dynamic(self, eid: EidPrefix) -> bool:
        """Whether a prefix in the site's instance is a single EID that may come to the site and go from it."""
        single = eid.prefix.prefixlen == eid.prefix.max_prefixlen
        return single and any(eid.prefix.network_address in each for each in self.dynamic_eid_prefixes)


def check_instance_id(instance_id: int) -> None:
    """Raise OptionError unless it is one that data packets can say."""
    if not 0 <= instance_id <= MAX_INSTANCE_ID:
        raise OptionError(
            "instance-id", f"No instance-ID: {instance_id}", why=f"allowed: 0 to {MAX_INSTANCE_ID} (RFC 9300 §5.3)"
        )


def _within(inner: Prefix, outer: Prefix) -> bool:
    return inner.version == outer.version and inner.prefixlen >= outer.prefixlen and inner.network_address in outer


@dataclass(frozen=True, slots=True)
class MapServerConfig:
    """One Map-Server, which is a Map-Resolver too.

    Attributes:
        rloc: its address.
        sites: who may register what.
        mechanism: of the experiment.
        options: the knobs.
    """

    rloc: Address
    sites: tuple[SiteConfig, ...]
    mechanism: Mechanism
    options: MapServerOptions = MapServerOptions()


def options_from(kind: type[O], given: Mapping[str, Any]) -> O:
    """Options from a configuration file.

    Raises OptionError for a name that does not exist, listing those that do, and for a value of
    another type than the default's. Strings must be one of the Literal's words; `tolerate` is a list of words.
    """
    given = dict(given)
    if "tolerate" in given:
        given["tolerate"] = _tolerances(given["tolerate"])
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    for name, value in given.items():
        if name not in known:
            raise OptionError("unknown-option", f"No option {name!r}", why=f"known: {', '.join(sorted(known))}")
        default = known[name].default
        fits = (
            isinstance(value, bool)
            if isinstance(default, bool)
            else isinstance(value, (int, float)) and not isinstance(value, bool)
            if isinstance(default, float)
            else isinstance(value, type(default)) and not isinstance(value, bool)
        )
        if isinstance(default, str) and fits and f"'{value}'" not in str(known[name].type).replace('"', "'"):
            fits = False
        if not fits:
            raise OptionError("option-value", f"Option {name} = {value!r} does not fit {known[name].type}")
    return kind(**given)


def _tolerances(words: Any) -> Tolerances:
    try:
        if isinstance(words, str):
            raise ValueError
        return frozenset(Tolerance(word) for word in words)
    except (TypeError, ValueError):
        known = ", ".join(sorted(each.value for each in Tolerance))
        raise OptionError(
            "option-value", f"Option tolerate = {words!r} is no list of tolerances", why=f"known: {known}"
        ) from None


def ns(seconds: float) -> int:
    """Seconds as nanoseconds."""
    return round(seconds * SECOND_NS)
