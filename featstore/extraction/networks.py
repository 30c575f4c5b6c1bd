"""The networks of one extraction: known by spec at once, built only when something has to pass through them."""

from __future__ import annotations

import gc
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from featstore.backbones import catalog
from featstore.backbones.keras_backbone import load_backbone, spec
from featstore.backbones.presence import unfetched, unreachable
from featstore.backbones.weights import IMAGENET, choice_for, resolve_weights
from featstore.errors import AbsentWeightsError, WeightsError
from featstore.extraction.halving import HalvingBackbone
from featstore.types import BACKBONE_REVISION

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from featstore.types import Backbone, BackboneSpec

BATCH_SIZE = 16
"""The engine's constant: only the size of a batch can move the last bits of a row (law 2)."""


class Networks:
    """Backbones by spec.

    Parameters
    ----------
    weights
        Choice by backbone name, ``*`` for all others; ``imagenet`` where nothing is said.
    preprocess
        ``official`` or ``rescale``.
    precision
        Arithmetic of the specs; `load` takes that of the spec.
    """

    def __init__(self, weights: Mapping[str, str], preprocess: str, precision: str = "float32") -> None:
        self._weights = weights
        self._preprocess = preprocess
        self._precision = precision
        self._loaded: dict[BackboneSpec, Backbone] = {}

    def __reduce__(self) -> tuple[object, tuple[tuple[tuple[str, str], ...], str]]:
        """Travel as choices, and arrive as the one object that a process keeps for them, networks and all."""
        choices = {name: _absolute(choice) for name, choice in self._weights.items()}
        return _of_this_process, (tuple(sorted(choices.items())), self._preprocess)

    def spec(self, name: str, *, fetch: bool) -> BackboneSpec:
        """Spec of a backbone; with `fetch`, weights that are not here yet are downloaded to know their digest.

        Raises
        ------
        WeightsError
            If the weights are absent and cannot or may not be fetched.
        """
        row = catalog.row(name)
        found = resolve_weights(row, choice_for(name, self._weights))
        if found.digest is not None:
            return spec(row, found, self._preprocess, self._precision)
        if not fetch:
            raise unfetched([name])
        return self._load(name, self._precision).spec

    def load(self, wanted: BackboneSpec) -> Backbone:
        """Build the backbone of a spec.

        Raises
        ------
        WeightsError
            If the weights chosen here are not those of the spec.
        """
        require_computable(wanted)
        if wanted not in self._loaded and self._load(wanted.name, wanted.precision).spec != wanted:
            raise WeightsError(
                f"{wanted.name} is wanted with the weights {wanted.weights}, and these are others.",
                f"Pass the same file or seed as before: --weights {wanted.name}=CHOICE.",
            )
        return self._loaded[wanted]

    def keep(self, wanted: Collection[BackboneSpec]) -> None:
        """Let go of all other networks and their memory."""
        kept = {identity: backbone for identity, backbone in self._loaded.items() if identity in wanted}
        if len(kept) < len(self._loaded):
            self._loaded = kept
            gc.collect()

    def _load(self, name: str, precision: str) -> Backbone:
        choice = choice_for(name, self._weights)
        backbone = HalvingBackbone(load_backbone(name, choice, self._preprocess, BATCH_SIZE, precision))
        self._loaded[backbone.spec] = backbone
        return backbone


def specs(networks: Networks, names: Iterable[str], *, fetch: bool) -> list[BackboneSpec]:
    """`Networks.spec` of many networks, each once.

    Raises
    ------
    AbsentWeightsError
        If weights are absent: with the names of all networks whose weights are.
    """
    found: list[BackboneSpec] = []
    missing: list[str] = []
    for name in dict.fromkeys(names):
        try:
            found.append(networks.spec(name, fetch=fetch))
        except AbsentWeightsError as error:
            missing += error.names
    if missing:
        raise unreachable(missing) if fetch else unfetched(missing)
    return found


def require_computable(wanted: BackboneSpec) -> None:
    """Make sure, without loading anything, that this featstore has a network that computes a spec.

    Raises
    ------
    WeightsError
        If its vectors were imported, or come from an earlier featstore.
    """
    if wanted.is_foreign:
        raise WeightsError(
            f"{wanted.name} was imported: there is no network here that computes its vectors.",
            "Fit again without it, or import vectors of these images, too, and use `featstore compare`.",
        )
    if wanted.revision != BACKBONE_REVISION:
        raise WeightsError(
            f"{wanted.name} is wanted as an earlier featstore computed it (revision {wanted.revision}).",
            "Run `featstore extract` and `featstore fuse` again.",
        )


@lru_cache(maxsize=1)
def _of_this_process(weights: tuple[tuple[str, str], ...], preprocess: str) -> Networks:
    return Networks(dict(weights), preprocess)


def _absolute(choice: str) -> str:
    if choice == IMAGENET or choice.startswith("random:"):
        return choice
    return str(Path(choice).expanduser().absolute())
