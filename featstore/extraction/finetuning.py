"""What a fine-tuning did."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from featstore.extraction.course import Measure


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
    warnings
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
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json``."""
        return asdict(self)
