"""What an extraction did, or would do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from featstore.findings import Finding


@dataclass(frozen=True, slots=True)
class CellSummary:
    """One line of a dry run or of a closing summary: a backbone in one view.

    Attributes
    ----------
    stored, missing
        Vectors that were in the store when the call began, and those that were not.
    bytes_missing, seconds
        What the missing ones would take.
    stored_now, missing_now
        The same when the call ended; an image that is in quarantine is not missing.
    """

    backbone: str
    weights: str
    recipe: str
    seed: int
    stored: int
    missing: int
    bytes_missing: int
    seconds: float
    stored_now: int = 0
    missing_now: int = 0


@dataclass(frozen=True, slots=True)
class PaceSummary:
    """What one backbone did, over all views: vectors, and seconds in its forward pass alone (of all workers)."""

    backbone: str
    vectors: int
    seconds: float
    vectors_per_second: float


@dataclass(frozen=True, slots=True)
class Extraction:
    """What an extraction did, or with ``dry_run`` would do.

    Attributes
    ----------
    images
        Number of images of the data set, bad ones included.
    cells
        Backbone by view: what was stored before, and what was missing.
    computed
        Vectors computed and committed.
    bad
        Quarantined images: ``(path, reason, detail)``.
    findings
        What a user should know about the data.
    idle
        Share of the pass in which no network was at work, 0 to 1.
    passes, announced_bytes
        Passes over the images that the memory budget asks for, and the peak memory to expect, all processes.
    measured_bytes
        Peak memory that it took: of as many processes as work at a time, those with the highest peaks. A process
        that had done other things before counts with these.
    phases
        Seconds spent waiting for pixels, in the forward pass, and waiting for the writer; beside it what the writer
        was busy in the background. Seconds of several workers add up.
    throughput
        Vectors per second by phase; a phase that took no time has none.
    paces
        What each backbone did.
    batch_size, precision
        Images per call, a constant of the engine, and arithmetic.
    workers, workers_from
        Processes at a time, and where that number comes from.
    seconds
        Wall time of the whole call.
    estimated_seconds, estimated_from
        Wall time that was expected for what was missing, and on what grounds.
    """

    dry_run: bool
    cache: str
    images: int
    cells: tuple[CellSummary, ...]
    computed: int = 0
    bad: tuple[tuple[str, str, str], ...] = ()
    findings: tuple[Finding, ...] = ()
    phases: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    estimated_seconds: float = 0.0
    estimated_from: str = ""
    idle: float = 0.0
    passes: int = 1
    announced_bytes: int = 0
    measured_bytes: int = 0
    throughput: Mapping[str, float] = field(default_factory=dict)
    paces: tuple[PaceSummary, ...] = ()
    batch_size: int = 0
    precision: str = ""
    workers: int = 1
    workers_from: str = ""

    @property
    def missing(self) -> int:
        """Vectors that were not in the store when the call began."""
        return sum(cell.missing for cell in self.cells)

    @property
    def stored(self) -> int:
        """Vectors that were in the store when the call began."""
        return sum(cell.stored for cell in self.cells)

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json``."""
        return {
            **asdict(self),
            "findings": [finding.to_json() for finding in self.findings],
            "missing": self.missing,
            "stored": self.stored,
        }
