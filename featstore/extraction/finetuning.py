"""What a fine-tuning did."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from featstore.run import data_digest, write_run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from featstore.extraction.course import Measure
    from featstore.extraction.sides import Sides
    from featstore.findings import Finding

ELSEWHERE = frozenset({"run", "weights", "bad", "findings"})
"""Told in another form, or naming files: the summary names them."""
MEASURED = frozenset({"before", "after", "history"})
"""Kept in ``metrics.json``."""


@dataclass(frozen=True, slots=True)
class Finetuning:
    """Outcome of `featstore.finetune`.

    Attributes
    ----------
    run
        Folder that holds the weights, ``run.json`` and ``metrics.json``.
    backbone
        Its name.
    weights, digest
        The new weights file, and its digest, which is in the key of every feature that it gives.
    started_from
        Digest of the weights before.
    options
        What was asked for, defaults included.
    classes
        Images by class, all sides.
    sizes
        Images by side: ``trained``, ``validated``, and what `featstore.fuse` will score.
    layers, of_layers
        Layers that learned, of those that could.
    epochs, best_epoch
        Epochs trained, and the one whose weights were kept; 0 if none was better than the frozen network.
    before, after
        On the validation images, the frozen network under a linear probe, and the weights that were kept.
    history
        By epoch: ``loss``, ``accuracy``, ``val_loss``, ``val_accuracy``.
    bad
        Images that do not decode: ``(path, reason, detail)``.
    findings
        What a user should know about the data.
    seconds
        Wall time.
    """

    run: str
    backbone: str
    weights: str
    digest: str
    started_from: str
    options: Mapping[str, Any]
    classes: Mapping[str, int]
    sizes: Mapping[str, int]
    layers: int
    of_layers: int
    epochs: int
    best_epoch: int
    before: Measure
    after: Measure
    history: Mapping[str, tuple[float, ...]]
    bad: tuple[tuple[str, str, str], ...] = ()
    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json``."""
        return {**asdict(self), "findings": [finding.to_json() for finding in self.findings]}


def write_account(folder: Path, result: Finetuning, sides: Sides) -> None:
    """Keep in the run folder, as `featstore.run.clear` left it, what was done, without paths."""
    document = {k: v for k, v in result.to_json().items() if k not in ELSEWHERE}
    write_run(
        folder,
        {
            "kind": "finetune",
            "data_sha256": data_digest(sides.records),
            **{k: document.pop(k) for k in list(document) if k not in MEASURED},
            "findings": [finding.to_json(examples=False) for finding in result.findings],
            "quarantined": dict(Counter(reason for _, reason, _ in result.bad)),
            "trained": sides.ids(sides.trained),
            "validated": sides.ids(sides.validated),
        },
        document,
    )
