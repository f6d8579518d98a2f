"""An experiment as a person writes it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from testbed.spec.scalars import Name, Title
from testbed.spec.sweep import SweepSpec
from testbed.spec.validate import Model

Substrate = Literal["xen", "netns"]
Accelerator = Literal["auto", "kvm", "tcg"]
Mechanism = Literal["ttl", "smr-old-xtr", "smr-map-server", "smr-new-xtr", "pubsub", "map-version", "rloc-probe"]

#: Deviations of peers that can be accepted; what each is stands in docs/reference/interfaces.md.
Tolerance = Literal[
    "mac-over-trailer",
    "notify-to-source-port",
    "plain-map-request",
    "sha-1",
    "smr-without-d-bit",
    "wide-key-id",
    "zero-notify-authentication",
    "zero-register-nonce",
]

Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
Timeout = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class LimiterSpec(Model):
    """RFC 9301's rate limits; each off is a deviation that the report says.

    Attributes:
        map_request: 1 a second for each EID (§5.3).
        map_reply: 1 in 3 s for each RLOC that asks (§5.4).
        smr: 1 in 3 s for each RLOC that is solicited (§6.1).
        smr_invoked: 1 Map-Request in 3 s for each EID because of SMRs (§6.1).
    """

    map_request: bool = True
    map_reply: bool = True
    smr: bool = True
    smr_invoked: bool = True


class LispSpec(Model):
    """Knobs of the LISP control plane.

    Attributes:
        registration_ttl_minutes: TTL of registered mappings, hence of map-cache entries; the wire's unit.
        refresh_s: period of Map-Register refreshes (RFC 9301 §8.2: 60).
        proxy_reply: the Map-Server answers for the ETRs; false: it forwards requests to them.
        hold: an ITR holds packets while it resolves; false: it drops them.
        rloc_probe_interval_s: period of RLOC-probes (RFC 9301 §7.1), for the mechanism `rloc-probe` and `rloc_probing`.
        rloc_probing: locators are probed beside any mechanism, and not used while they do not answer.
        locator_status_bits: data packets say which locators of a site are up; what others say is verified by a
            probe, or trusted (RFC 9300 §10).
        echo_nonce: locators are asked to send a nonce back in data packets, and not used while they do not
            (RFC 9300 §10.1); not under `map-version`.
        gleaning: where a packet came from is its source's mapping for three seconds, while the mapping system is
            asked (RFC 9300 §9).
        rehearse_every_ms: so often agents go through an imaginary migration, which keeps their code in the
            processor's caches and processors awake (docs/explanation/agents-own-time.md); null: they do not.
        authentication: of Map-Registers and Map-Notifies. RFC 9301 §1.1 has the one with a key for each message (HKDF)
            as what SHOULD be used, §5.6 the other as what everybody MUST have.
        tolerate: deviations of peers that the agents accept; each is logged when it is used.
        limiters: the rate limits.
    """

    registration_ttl_minutes: Annotated[int, Field(ge=1, le=0x7FFFFFFF)] = 1440
    refresh_s: Timeout = 60.0
    proxy_reply: bool = True
    hold: bool = True
    rloc_probe_interval_s: Timeout = 60.0
    rloc_probing: bool = False
    echo_nonce: bool = False
    gleaning: bool = False
    locator_status_bits: Literal["none", "verify", "trust"] = "none"
    rehearse_every_ms: Annotated[float, Field(ge=0.2, le=1000, allow_inf_nan=False)] | None = None
    authentication: Literal["hmac-sha-256-128", "hmac-sha-256-128+hkdf"] = "hmac-sha-256-128+hkdf"
    tolerate: tuple[Tolerance, ...] = ()
    limiters: LimiterSpec = LimiterSpec()


class GuestChoice(Model):
    """Which guest of the topology migrates, and what of it differs from the topology.

    Attributes:
        name: the first of the topology's guests if left out.
    """

    name: Name | None = None
    memory_mib: Annotated[int, Field(ge=32, le=1_048_576)] | None = None
    vcpus: Annotated[int, Field(ge=1, le=64)] | None = None


class MigrationSpec(Model):
    """One migration (`to`), or a path of several that may be walked several times (`path`, `repeat`)."""

    to: Name | None = None
    path: tuple[Name, ...] = ()
    repeat: Annotated[int, Field(ge=1, le=10_000)] = 1


class ProbeSpec(Model):
    """What the probers send: every flow in every direction, one probe an interval.

    Attributes:
        interval_ms: between two probes of a flow.
        flows: `tcp` is one connection: whether it lives and how long it stalls, beside `icmp` or `udp`.
        directions: who asks; an outage is measured towards the guest where both are probed.
    """

    interval_ms: Annotated[float, Field(ge=0.2, le=1000, allow_inf_nan=False)] = 10.0
    flows: Annotated[tuple[Literal["icmp", "udp", "tcp"], ...], Field(min_length=1)] = ("icmp",)
    directions: Annotated[tuple[Literal["to-guest", "from-guest"], ...], Field(min_length=1)] = ("to-guest",)

    def captured(self, substrate: Substrate) -> tuple[str, ...]:
        """The directions whose probes are told by captures: a Xen guest's clock stops with it, and it keeps no log."""
        return tuple(way for way in self.directions if substrate == "xen" and way == "from-guest")


Downtime = Annotated[float, Field(ge=0, le=600_000, allow_inf_nan=False)]


class DowntimeSpec(Model):
    """How long the emulated guest is away, milliseconds: drawn evenly from min … max for each migration."""

    min: Downtime
    max: Downtime


def _downtime(given: Any) -> Any:
    """A plain number is a range of one value."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        return {"min": float(given), "max": float(given)}
    if isinstance(given, dict | DowntimeSpec):
        return given
    raise ValueError(f"{given!r} is no downtime; allowed: milliseconds, or {{min: 50, max: 200}}")


class CalibrationSpec(Model):
    """Outages of known length before the first migration, by which the measurement is checked.

    Attributes:
        outages_ms: the lengths, in order.
        repeat: how often the whole list is gone through.
    """

    outages_ms: tuple[Annotated[float, Field(gt=0, le=60_000, allow_inf_nan=False)], ...] = ()
    repeat: Annotated[int, Field(ge=1, le=1000)] = 1


class EmulatedGuestSpec(Model):
    """How the emulated guest of substrate `netns` behaves while it moves.

    Attributes:
        downtime_ms: from its suspension at the source to its resumption at the destination.
        announce: the frame that it says its arrival with; `none`: it says nothing until it speaks.
        speaks_after_ms: with `none`, from its resumption to the first packet of its own.
    """

    downtime_ms: Annotated[DowntimeSpec, BeforeValidator(_downtime)] = DowntimeSpec(min=100.0, max=100.0)
    announce: Literal["garp", "arp-request", "rarp", "na", "none"] = "garp"
    speaks_after_ms: Downtime = 500.0


class TimeoutSpec(Model):
    """How long each step may take before the run is given up, seconds."""

    host_boot: Timeout = 900.0
    guest_boot: Timeout = 300.0
    agents: Timeout = 30.0
    migration: Timeout = 600.0


class Experiment(Model):
    """A whole experiment file.

    Attributes:
        topology: path of the topology's file, relative to this one.
        substrate: `xen` migrates a real guest, `netns` an emulated one.
        accelerator: of the emulated hosts; `auto` takes KVM where a guest really boots under it.
        mechanism: what tells the ITRs that the guest has moved.
        baseline_s: clean probing before the first migration.
        settle_s: probing after each migration.
        calibration: known outages that the measurement is held against.
        warm_up: so many migrations of a run are shown and not counted.
        seed: of everything random in the run.
        sweep: what `testbed sweep` makes of it; `testbed run` performs the experiment as it stands.
    """

    schema_version: Literal[1]
    name: Title
    description: str = ""
    topology: str
    substrate: Substrate
    accelerator: Accelerator = "auto"
    mechanism: Mechanism
    lisp: LispSpec = LispSpec()
    guest: GuestChoice = GuestChoice()
    migrations: Annotated[tuple[MigrationSpec, ...], Field(min_length=1)]
    probes: ProbeSpec = ProbeSpec()
    calibration: CalibrationSpec = CalibrationSpec()
    emulated_guest: EmulatedGuestSpec = EmulatedGuestSpec()
    baseline_s: Seconds = 3.0
    settle_s: Seconds = 5.0
    warm_up: Annotated[int, Field(ge=0, le=10_000)] = 0
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 1
    timeouts_s: TimeoutSpec = TimeoutSpec()
    sweep: SweepSpec | None = None

    def destinations(self) -> Iterator[str]:
        """Yield the destination site of every migration, in order."""
        for migration in self.migrations:
            steps = (migration.to,) if migration.to is not None else migration.path
            for _ in range(migration.repeat):
                yield from steps
