"""What a lab asks of whatever holds its guests, real or emulated."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from testbed.lab.captures import CapturePoint


@dataclass(frozen=True, slots=True)
class Moved:
    """How a migration ended.

    Attributes:
        ok: whether the guest runs at the destination.
        error: the hypervisor's words, "" when it went well.
        recovered: what was done to put things right after a failure.
    """

    ok: bool
    error: str = ""
    recovered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Nature:
    """What a substrate says of itself, on every result.

    Attributes:
        substrate: "xen" or "netns".
        accelerator: "kvm" or "tcg"; None where nothing is accelerated.
        accelerator_reason: why that one.
        hypervisor: as the hypervisor itself reports it.
        emulated: a sentence for each part that is emulated.
        versions: of what it is made of.
    """

    substrate: str
    accelerator: str | None = None
    accelerator_reason: str = ""
    hypervisor: str | None = None
    emulated: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)


class Substrate(Protocol):
    """Holds the guests of a lab. Every method blocks."""

    def capture_points(self) -> list[CapturePoint]:
        """Where the guest's own frames are to be captured, each with its site; known before `up`."""

    def up(self) -> None:
        """Bring the hosts up; TestbedError if one does not come."""

    def abandon(self) -> None:
        """Nobody needs the hosts any more: end an `up` in another thread. What is up stays, for `collect`."""

    def start_guest(self) -> None:
        """Start the guest at the site where the plan puts it; returns when it was started, not when it answers."""

    def guest_answers(self) -> None:
        """The guest answers: finish what was done beside its start."""

    def migrate(self, source_site: str, destination_site: str) -> Moved:
        """Move the guest; after a failure it is put right, and the guest runs at the source."""

    def placement(self) -> dict[str, Any]:
        """Host → what runs there, as evidence."""

    def runs_only_at(self, site: str, placement: dict[str, Any]) -> bool:
        """Whether a placement says that the guest runs at this site and nowhere else."""

    def nature(self) -> Nature:
        """What it is; complete once it is up."""

    def collect(self, run_dir: Path) -> list[str]:
        """Put logs and consoles into the run's folder; returns what is missing, in words."""

    def close(self) -> None:
        """End everything; idempotent."""
