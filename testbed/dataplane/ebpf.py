"""The eBPF data plane: loads the programs, keeps their maps, and speaks the protocol of the model."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any

from testbed.dataplane import interface, layout
from testbed.dataplane.compiler import compiled_object
from testbed.dataplane.generations import Generations, rlocs_of
from testbed.dataplane.kerneldrops import KernelDrops, sum_of
from testbed.dataplane.libbpf import BpfObject, RingBuffer
from testbed.dataplane.model import (
    Address,
    DataPlaneEvent,
    DataPlaneEventKind,
    Entry,
    Locator,
    Prefix,
)
from testbed.dataplane.pathmtu import PathMtus, TooBig
from testbed.dataplane.slowpath import SlowPath, Tap
from testbed.errors import TestbedError

MAX_INSTANCE_ID = (1 << 24) - 1
#: Of no packet, whose instance-ID has 24 bits: what is stored there is harmless (`rehearse`).
NO_INSTANCE = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class _Installed:
    """An entry as it was given, its key in the kernel, its locators that are used, and their generation."""

    entry: Entry
    key: bytes
    locators: tuple[Locator, ...]
    generation: int


class EbpfDataPlane:
    """`testbed.dataplane.model.DataPlane` in the kernel. Made by `open_ebpf`."""

    def __init__(
        self,
        program: BpfObject,
        reports: RingBuffer,
        slow_path: SlowPath,
        path_mtus: PathMtus,
        refused: interface.RefusedFrames,
        kernel_drops: KernelDrops,
        config: layout.KernelConfig,
        on_path_mtu: Callable[[Address, int], object],
    ) -> None:
        self._reports, self._slow_path, self._path_mtus = reports, slow_path, path_mtus
        self._refused, self._kernel_drops, self._on_path_mtu = refused, kernel_drops, on_path_mtu
        slow_path.on_too_big, slow_path.on_too_long = self._learn_path_mtu, self._age_out_path_mtus
        self._families = frozenset(rloc.version for rloc in config.rlocs)
        self._echo_requests = program.map("echo_requests", layout.ECHO_REQUEST_SIZE)
        self._configuration = program.map("configuration", layout.CONFIG_SIZE)
        self._configure(config)
        self._entries = {
            4: program.map("entries_v4", layout.ENTRY_SIZE),
            6: program.map("entries_v6", layout.ENTRY_SIZE),
        }
        self._drops = program.per_cpu_map("drop_counters", 8)
        self._reports_lost = program.per_cpu_map("reports_lost", 8)
        #: What is installed, by the kernel's key: its hash is that of octets, and takes no calls.
        self._installed: dict[bytes, _Installed] = {}
        self._generations = Generations()
        self._own: set[bytes] = set()
        self._resources = ExitStack()

    def take_over(self, resources: ExitStack) -> None:
        """Make `close` release these."""
        self._resources.push(resources)

    def set_own_addresses(self, addresses: Iterable[Address], instance_id: int) -> None:
        """Leave these addresses to the kernel, whatever else is installed."""
        for address in addresses:
            key = layout.encode_key(ip_network(address), instance_id)
            self._own.add(key)
            self._entries[address.version][key] = layout.encode_entry(layout.KernelKind.OWN)

    def set_entry(self, entry: Entry) -> None:
        """Install or replace the entry of exactly this prefix; one that is replaced leaves its counters.

        A packet that passes just while it is replaced may go uncounted.

        Raises TestbedError if the prefix is one of the xTR's own addresses.
        """
        key, table = layout.encode_key(entry.eid, entry.instance_id), self._entries[entry.eid.version]
        if key in self._own:
            raise TestbedError(
                "eid-is-own-address",
                f"{entry.eid} is an address of this xTR and cannot be a mapping.",
                next_command="testbed validate TOPOLOGY",
            )
        locators = layout.usable_locators(entry, self._families)
        replaced = self._installed.get(key)
        installed = _Installed(entry, key, locators, self._generation_after(replaced, locators))
        value = self._encoded(installed)
        # What its packets said of the locators counted for the mapping that is replaced.
        table[key] = layout.counting_on(value, table[key]) if replaced is not None else value
        self._installed[key] = installed

    def _encoded(self, installed: _Installed, locator_status: int = 0) -> bytes:
        """An entry as the kernel's table has it, which has counted nothing yet."""
        entry, generation = installed.entry, installed.generation
        return layout.encode_entry(
            layout.kernel_kind(entry.kind),
            installed.locators,
            mtu_of=self._path_mtus.of,
            locator_status=locator_status,
            expires_ns=entry.expires_ns,
            generation=generation,
            # Announced by an earlier value of the entry, or nothing to announce: keep the kernel quiet.
            announced=generation if self._generations.has_nothing_to_announce(generation) else 0,
            map_version=entry.map_version,
        )

    def rehearse(self, entry: Entry) -> None:
        """Do what `set_entry` and `read_events` do without changing anything: it is then in the processor's caches."""
        layout.decode_report(self._reports.rehearse(layout.example_report(entry.eid.network_address)))
        key, table = layout.encode_key(entry.eid, NO_INSTANCE), self._entries[entry.eid.version]
        installed = _Installed(entry, key, layout.usable_locators(entry, self._families), 0)
        value = self._encoded(installed)
        with contextlib.suppress(KeyError):
            table[key]
        # A trie of an older kernel may take no notice of BPF_EXIST, hence the instance that no packet has.
        table.rehearse(key, layout.counting_on(value, value))

    def delete_entry(self, eid: Prefix, instance_id: int = 0) -> None:
        """Remove the entry of exactly this prefix; nothing happens if there is none."""
        key = layout.encode_key(eid, instance_id)
        if self._installed.pop(key, None) is not None:
            del self._entries[eid.version][key]

    def usage(self, eid: Prefix, instance_id: int = 0) -> tuple[int, int, int | None]:
        """(packets, bytes, last_used_ns or None) of an entry since there is one for this prefix.

        The time is of CLOCK_MONOTONIC_COARSE, up to a timer tick (1 to 10 ms) behind CLOCK_MONOTONIC.
        """
        key = layout.encode_key(eid, instance_id)
        if key not in self._installed:
            return 0, 0, None
        counters = layout.decode_counters(self._entries[eid.version][key])
        return counters.packets, counters.bytes, counters.last_used_ns

    def mtus(self) -> dict[str, Any]:
        """MTUs in octets of IP: the core link's, and of the paths that are known to be narrower."""
        paths = [
            {"rloc": str(rloc), "mtu": mtu, "age_s": round(age_s, 3)}
            for rloc, (mtu, age_s) in self._path_mtus.narrow().items()
        ]
        return {"link": self._path_mtus.link_mtu, "paths": paths}

    def _learn_path_mtu(self, said: TooBig) -> bool:
        """What a core router says of a packet of ours; whether it can be true."""
        if not self._path_mtus.is_plausible(said) or not any(self._using({said.rloc})):
            return False
        if self._path_mtus.learn(said):
            self._rewrite({said.rloc})
        return True

    def _age_out_path_mtus(self) -> bool:
        """Try the link's MTU again where a narrower one was learnt long ago; whether there was such a path."""
        old = self._path_mtus.age_out()
        if old:
            self._rewrite(old)
        return bool(old)

    def _using(self, rlocs: AbstractSet[Address]) -> Iterator[_Installed]:
        """The entries that go to one of these locators."""
        return (each for each in self._installed.values() if not rlocs.isdisjoint(rlocs_of(each.locators)))

    def _rewrite(self, rlocs: AbstractSet[Address]) -> None:
        """Write the entries anew that go to one of these locators, whose MTU has changed."""
        for rloc in rlocs:
            self._on_path_mtu(rloc, self._path_mtus.of(rloc))
        for each in self._using(rlocs):
            table = self._entries[each.entry.eid.version]
            present = table[each.key]
            value = self._encoded(each, layout.decode_counters(present).locator_status)
            table[each.key] = layout.counting_on(value, present)

    def drops(self) -> dict[str, int]:
        """Packets dropped since start, by reason; reasons that never came about are 0."""
        counted = {}
        for number, reason in enumerate(layout.DROP_REASONS):
            counted[reason] = sum_of(self._drops[struct.pack("=I", number)])
        kernels = self._refused.by_reason() | self._kernel_drops.by_reason()
        return counted | self._slow_path.drops() | kernels

    def drops_not_counted(self) -> str | None:
        """Why what the kernel drops of what it was handed is not in `drops`; None: it is."""
        return self._kernel_drops.why_not

    def reports_lost(self) -> int:
        """Reports that the kernel had no room for, because `read_events` was not called for so long."""
        return sum_of(self._reports_lost[bytes(4)])

    def icmp_errors_withheld(self) -> int:
        """ICMP errors that were due and not sent, because of their rate (RFC 1812 §4.3.2.8)."""
        return self._slow_path.errors_withheld

    def set_locator_status(self, bits: int) -> None:
        """Say from now on which of the site's locators are up: bit n is the n-th of its mappings (RFC 9300 §5.3)."""
        self._configure(replace(self._config, locator_status_bits=bits))

    def request_echo(self, rloc: Address, nonce: int | None) -> None:
        """Ask a locator in each packet there to echo a nonce (RFC 9300 §10.1); None: ask no more.

        It ends with NONCE_ECHOED, or with NONCE_NOT_ECHOED: a packet that came from there without it, a timeout
        after three had asked. While nothing comes from there it goes on: that says nothing.
        """
        key = layout.encode_address(rloc)
        if nonce is not None:
            self._echo_requests[key] = layout.encode_echo_request(nonce)
        else:
            with contextlib.suppress(KeyError):
                del self._echo_requests[key]

    def event_fd(self) -> int:
        """A descriptor that is readable when `read_events` has something."""
        return self._reports.fd

    def read_events(self) -> list[DataPlaneEvent]:
        """All reports since the last call, oldest first; never blocks."""
        events = []
        for sample in self._reports.read():
            event, number = layout.decode_report(sample)
            if event.kind is DataPlaneEventKind.FIRST_PACKET_NEW_RLOC:
                # A refresh of the entry can race with its announcement; one is enough.
                generation = self._generations.announce(number)
                if generation is None:
                    continue
                event = replace(event, old_rloc=generation.old_rloc)
            events.append(event)
        return events

    def miss_fd(self) -> int:
        """A descriptor that is readable when a packet without a mapping waits."""
        return self._slow_path.fd

    def read_missed(self) -> bytes | None:
        """The next inner IP packet that met RESOLVE, or None; never blocks.

        Packets that were held for another reason (beyond the MTU, TTL run out) are answered or
        fragmented on the way, and path MTUs learnt, so call it whenever `miss_fd` is readable.
        """
        return self._slow_path.next_missed()

    def inject(self, packet: bytes) -> None:
        """Send an inner IP packet through the entries again, as if it came from the EID LAN."""
        self._slow_path.inject(packet)

    def close(self) -> None:
        """Detach and free; idempotent. Call it in the namespace where it was opened."""
        self._resources.close()

    def _configure(self, config: layout.KernelConfig) -> None:
        self._config = config
        self._configuration[bytes(4)] = config.encode()

    def _generation_after(self, replaced: _Installed | None, locators: tuple[Locator, ...]) -> int:
        """The generation of locators in the place of those of another entry: the same if they are the same."""
        number = self._generations.after(replaced.generation if replaced is not None else 0, locators)
        if self._generations.are_many(len(self._installed)):
            self._generations.forget({number, *(each.generation for each in self._installed.values())})
        return number


def open_ebpf(
    *,
    rloc: Address,
    core_interface: str,
    eid_interface: str,
    dynamic_eid_prefixes: Iterable[Prefix] = (),
    instance_id: int = 0,
    mtu: int | None = None,
    other_rlocs: Iterable[Address] = (),
    locator_status_bits: int | None = None,
    map_versioning: bool = False,
    on_path_mtu: Callable[[Address, int], object] = lambda rloc, mtu: None,
    hear_locator_status: bool = False,
    echo_timeout_ms: float | None = None,
    hear_sources: bool = False,
) -> EbpfDataPlane:
    """Load the data plane and attach it, in the caller's network namespace.

    The interfaces must be up and have their addresses: those are left to the kernel, and the EID
    interface's are the gateway that ICMP errors come from.

    Args:
        rloc: our locator; the source of what we encapsulate, and what we decapsulate for.
        core_interface: towards the other RLOCs.
        eid_interface: on the site's LAN.
        dynamic_eid_prefixes: under these a source without a LOCAL entry is reported as EID_SEEN.
        instance_id: of what comes from the EID interface (24 bits).
        mtu: of the core in octets of IP; None takes the core interface's.
        other_rlocs: a locator of the other address family, if the core has both.
        locator_status_bits: sent with the L-bit if given; off by default (RFC 9300 §4.1: only where
            all xTRs are trusted).
        map_versioning: compare the map-versions of what arrives with ours (RFC 9302 §7; §8: only in
            closed networks). Off, they are ignored.
        on_path_mtu: told a locator and its MTU whenever that changes.
        hear_locator_status: report the locator-status-bits of what arrives when they change.
        echo_timeout_ms: echo nonces that are asked for; `request_echo` waits so long (RFC 9300 §10.1, §4.1: only
            where all xTRs are trusted). None: neither.
        hear_sources: report the outer source of packets whose inner one has no mapping.

    Raises:
        TestbedError: what is missing or was refused, and the next command.
    """
    if not 0 <= instance_id <= MAX_INSTANCE_ID:
        raise ValueError(f"instance-ID {instance_id} does not fit into 24 bits")
    rlocs = (rloc, *other_rlocs)
    if len({address.version for address in rlocs}) != len(rlocs):
        raise ValueError("one RLOC of each address family")
    core_ifindex, eid_ifindex = interface.index_of(core_interface), interface.index_of(eid_interface)
    mtu = interface.mtu_of(core_interface) if mtu is None else mtu
    own = interface.addresses()
    gateways = tuple(address for name, address in own if name == eid_interface)
    with ExitStack() as stack:
        program = BpfObject(compiled_object())
        stack.callback(program.close)
        tap = Tap()
        slow_path = SlowPath(tap, gateways)
        stack.callback(slow_path.close)
        slow_path.open_sockets()
        hints = layout.NO_HINTS
        if hear_locator_status:
            hints |= layout.Hint.LOCATOR_STATUS
        if echo_timeout_ms is not None:
            hints |= layout.Hint.ECHO_NONCE
        if hear_sources:
            hints |= layout.Hint.SOURCE
        kernel_drops = KernelDrops()
        stack.callback(kernel_drops.close)
        config = layout.KernelConfig(
            core_ifindex, eid_ifindex, tap.ifindex, instance_id, rlocs, locator_status_bits, map_versioning,
            hints, round((echo_timeout_ms or 0) * 1000), kernel_drops.mark, interface.mtu_of(eid_interface),
        )  # fmt: skip
        program.map("cable", 4)[bytes(4)] = struct.pack("=I", interface.is_cable_to_elsewhere(eid_interface))
        for prefix in dynamic_eid_prefixes:
            program.map(f"dynamic_v{prefix.version}", 4)[layout.encode_key(prefix, instance_id)] = bytes(4)
        reports = program.ring_buffer("reports")
        stack.callback(reports.close)
        path_mtus = PathMtus(mtu, time.monotonic)
        refused = interface.RefusedFrames(
            {tap.name: "slow-path-full", core_interface: "core-refused", eid_interface: "eid-refused"}
        )
        stack.callback(refused.close)
        plane = EbpfDataPlane(program, reports, slow_path, path_mtus, refused, kernel_drops, config, on_path_mtu)
        plane.set_own_addresses((address for _, address in own), instance_id)
        for name, ifindex in (
            ("encapsulate_injected", tap.ifindex),
            ("encapsulate", eid_ifindex),
            ("decapsulate", core_ifindex),
        ):
            stack.callback(program.attach_ingress(name, ifindex))
        plane.take_over(stack.pop_all())
        return plane
