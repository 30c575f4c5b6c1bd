"""What weights have learned from, wherever they are about to be used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from featstore.backbones.weights import IMAGENET, choice_for
from featstore.store.learned import HASHED, inscription

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from featstore.store.learned import Learned
    from featstore.types import BackboneSpec


def learned(specs: Iterable[BackboneSpec], weights: Mapping[str, str]) -> dict[str, Learned]:
    """Records inside the weights files of backbones, by name; those of weights that featstore did not tune have none.

    Parameters
    ----------
    specs
        The backbones.
    weights
        The choices that they were resolved from, as for `featstore.extract`.
    """
    found = {}
    for spec in specs:
        choice = choice_for(spec.name, weights)
        if spec.weights.startswith(HASHED) and choice != IMAGENET:
            record = inscription(Path(choice).expanduser(), spec.weights)
            if record is not None:
                found[spec.name] = record
    return found
