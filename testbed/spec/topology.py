"""A topology as a person writes it. What is left out is derived by `testbed.plan.build`. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from testbed.spec.scalars import Address, Mac, Name, Prefix, Title, short_name
from testbed.spec.validate import Model

#: RFC 5798 §7.3's virtual router MAC for VRID 1: what an anycast gateway wears everywhere.
GATEWAY_MAC = "00:00:5e:00:01:01"
#: The host number of a correspondent whose EID is left out.
CORRESPONDENT_HOST = 10

Milliseconds = Annotated[float, Field(ge=0, le=60_000, allow_inf_nan=False)]
Priority = Annotated[int, Field(ge=0, le=254)]
Weight = Annotated[int, Field(ge=0, le=255)]
Mtu = Annotated[int, Field(ge=1280, le=9000)]
#: 24 bits: what the header of data packets has room for (RFC 9300 §5.3).
InstanceId = Annotated[int, Field(ge=0, le=(1 << 24) - 1)]


class LinkSpec(Model):
    """A link to the core, impaired alike in both directions.

    Attributes:
        delay_ms: one-way delay added.
        jitter_ms: standard deviation of the delay; packets may overtake each other.
        loss_percent: independent loss probability, per cent.
        rate_mbit: rate limit; none if left out.
        queue_ms: length of the queue in front of the rate limit; what does not fit is dropped.
        mtu: bytes, 1280 or more so that IPv6 works; 1316 with IPv6 EIDs, 1336 if the RLOCs are IPv6 too.
    """

    delay_ms: Milliseconds = 0.0
    jitter_ms: Milliseconds = 0.0
    loss_percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.0
    rate_mbit: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] | None = None
    queue_ms: Annotated[float, Field(ge=1, le=10_000, allow_inf_nan=False)] = 20.0
    mtu: Mtu = 1500


class CoreSpec(Model):
    """The router in the middle."""

    name: Name = "core"


class MappingSystemSpec(Model):
    """The Map-Server and Map-Resolver (RFC 9301), one node."""

    name: Name = "ms"
    rloc: Address | None = None
    link: LinkSpec = LinkSpec()


class GatewaySpec(Model):
    """A site's default gateway on its EID LAN: the same addresses and MAC at every site of a dynamic prefix.

    Attributes:
        addresses: one a prefix; the first address of each prefix if left out.
        mac: of the xTR's interface on the LAN.
    """

    addresses: tuple[Address, ...] = ()
    mac: Mac = GATEWAY_MAC


class XenHostSpec(Model):
    """A Xen host, emulated by QEMU; memory in MiB."""

    name: Name | None = None
    memory_mib: Annotated[int, Field(ge=512, le=1_048_576)] = 1024
    dom0_memory_mib: Annotated[int, Field(ge=256, le=1_048_576)] = 512


class FurtherXtrSpec(Model):
    """Another xTR of a site, with its own locator and its own link to the core.

    Packets come in through it; what the site's hosts send leaves by the first xTR, whose gateway is theirs.

    Attributes:
        name: of the node; the second xTR of `site-a` is `xtr-a2`.
        rloc: its locator, in the RLOC space.
        rloc_priority, rloc_weight: of the locator, as at the site.
        link: between it and the core.
    """

    name: Name | None = None
    rloc: Address | None = None
    rloc_priority: Priority = 1
    rloc_weight: Weight = 100
    link: LinkSpec = LinkSpec()


class SiteSpec(Model):
    """A LISP site: an xTR, its link to the core, its EID LAN, maybe a Xen host.

    Attributes:
        name: of the site; `site-a` gets `xtr-a`, `xen-a` and so on.
        xtr: name of the node that is its ITR and ETR.
        rloc: the xTR's locator, in the RLOC space.
        rloc_priority: of the locator in the site's mappings; the lowest is used (RFC 9300 §9).
        rloc_weight: of the locator: its share among those of one priority.
        key_id: of the site's authentication key (RFC 9301 §5.6).
        instance_id: of its EID prefixes (RFC 8060 §4.1). Sites of different instances may have the same prefixes,
            and never reach one another.
        link: between the xTR and the core.
        eid_prefixes: live here whole.
        dynamic_eid_prefixes: single EIDs of them may appear here; several sites may share one.
        further_xtrs: beside the first; the Map-Server merges what they register (RFC 9301 §5.6).
        eid_mtu: of the EID LAN, bytes.
    """

    name: Name
    xtr: Name | None = None
    rloc: Address | None = None
    rloc_priority: Priority = 1
    rloc_weight: Weight = 100
    key_id: Annotated[int, Field(ge=0, le=255)] = 0
    instance_id: InstanceId = 0
    link: LinkSpec = LinkSpec()
    eid_prefixes: tuple[Prefix, ...] = ()
    dynamic_eid_prefixes: tuple[Prefix, ...] = ()
    gateway: GatewaySpec = GatewaySpec()
    further_xtrs: tuple[FurtherXtrSpec, ...] = ()
    eid_mtu: Mtu = 1500
    xen_host: XenHostSpec | None = None


class CorrespondentSpec(Model):
    """The host that talks to the VM, in its instance; its EID is its site's first prefix's tenth address by default."""

    name: Name = "correspondent"
    site: Name
    eid: Address | None = None


class GuestSpec(Model):
    """A VM that is a LISP endpoint; it starts at `site` and keeps `eid` wherever it goes."""

    name: Name
    site: Name
    eid: Address
    mac: Mac | None = None
    memory_mib: Annotated[int, Field(ge=32, le=1_048_576)] = 96
    vcpus: Annotated[int, Field(ge=1, le=64)] = 1


class Topology(Model):
    """A whole topology file.

    Attributes:
        rloc_space: every locator is in it, and the core routes it; IPv4 /15 or shorter, or IPv6 /56 or
            shorter. Infrastructure LANs are in it too, or in 10.0.0.0/8 if it is IPv6.
    """

    schema_version: Literal[1]
    name: Title
    description: str = ""
    rloc_space: Prefix = "10.0.0.0/8"
    core: CoreSpec = CoreSpec()
    mapping_system: MappingSystemSpec = MappingSystemSpec()
    sites: Annotated[tuple[SiteSpec, ...], Field(min_length=1, max_length=200)]
    correspondent: CorrespondentSpec
    guests: tuple[GuestSpec, ...] = ()


def xtr_name(site: SiteSpec) -> str:
    """Return the name of a site's xTR: given, or `xtr-a` for `site-a`."""
    return site.xtr or f"xtr-{short_name(site.name)}"


def short_names(site: SiteSpec) -> list[str]:
    """Return what a site's links to the core are called by, one an xTR: `a`, `a2`, `a3` of `site-a`."""
    short = short_name(site.name)
    return [short, *(f"{short}{number}" for number in range(2, 2 + len(site.further_xtrs)))]


def further_xtr_names(site: SiteSpec) -> list[str]:
    """Return the names of a site's further xTRs: given, or `xtr-a2`, `xtr-a3`, … for `site-a`."""
    shorts = short_names(site)[1:]
    return [each.name or f"xtr-{short}" for each, short in zip(site.further_xtrs, shorts, strict=True)]


def xen_host_name(site: SiteSpec, host: XenHostSpec) -> str:
    """Return the name of a site's Xen host: given, or `xen-a` for `site-a`."""
    return host.name or f"xen-{short_name(site.name)}"
