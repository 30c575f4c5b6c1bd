"""What a store holds of the images of one data set, and how to ask for it on the command line."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from featstore.backbones import catalog
from featstore.backbones.weights import resolve_weights
from featstore.errors import FeatstoreError
from featstore.store.ids import IdSet
from featstore.types import IDENTITY, Decoding, FeatureKey

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from featstore.store.store import Store
    from featstore.types import BackboneSpec, View

PREPROCESS, PRECISION = "official", "float32"
"""What is meant where neither the caller nor the last extraction says."""
SEEDED = re.compile(r"random:(\d+) ")


@dataclass(frozen=True)
class Asked:
    """What a caller wants of the store; None or empty where it is left open.

    Attributes
    ----------
    backbones
        Names.
    digests
        Digest of the weights by name, where the caller has chosen.
    named
        Names that a choice of weights was made for, one by one.
    preprocess, precision, recipe, seeds
        As `featstore.matrix.Source`.
    """

    backbones: Sequence[str] | None = None
    digests: Mapping[str, str | None] = field(default_factory=dict)
    named: Collection[str] = ()
    preprocess: str | None = None
    precision: str | None = None
    recipe: str | None = None
    seeds: Collection[int] | None = None

    def admits(self, spec: BackboneSpec) -> bool:
        """Whether nothing that was said speaks against this network."""
        if self.digests.get(spec.name, spec.weights) != spec.weights:
            return False
        return spec.is_foreign or (
            self.preprocess in {None, spec.preprocess} and self.precision in {None, spec.precision}
        )

    def expects(self, spec: BackboneSpec) -> bool:
        """Whether it is what is meant where nothing more is known."""
        usual = (self.preprocess or PREPROCESS, self.precision or PRECISION)
        return self.admits(spec) and (spec.is_foreign or (spec.preprocess, spec.precision) == usual)


class Holdings:
    """How many of the images of a data set have a vector under each feature key.

    Parameters
    ----------
    store, keys
        The store, and all feature keys in it.
    ids
        Ids of the images that are wanted.
    decoding
        How their pixels are made.
    deep
        Whether one of the images has more than 8 bits and needs a range; asked only where there are no features.
    """

    def __init__(
        self,
        store: Store,
        keys: Sequence[FeatureKey],
        ids: Collection[str],
        decoding: Decoding,
        deep: Callable[[], bool] = lambda: False,
    ) -> None:
        self.deep = deep
        self.store = store
        self.decoding = decoding
        self.images = len(ids)
        self.keys = keys
        self._wanted = IdSet.of(ids)
        self._counts: dict[FeatureKey, int] = {}

    @cached_property
    def specs(self) -> dict[BackboneSpec, int]:
        """Networks under this decoding that featstore still computes alike, and their images in the identity view."""
        keys = [FeatureKey(spec, IDENTITY, self.decoding) for spec in dict.fromkeys(self._current())]
        return {key.backbone: count for key, count in self.counts(keys).items()}

    def counts(self, keys: Iterable[FeatureKey]) -> dict[FeatureKey, int]:
        """Images that each key has a vector of."""
        keys = list(keys)
        stored = self.store.stored(key for key in keys if key not in self._counts)
        once = {id(ids): ids for ids in stored.values()}  # views of the same images share one set
        held = {at: self.images - len(self._wanted.difference(ids)) for at, ids in once.items()}
        self._counts.update({key: held[id(ids)] for key, ids in stored.items()})
        return {key: self._counts[key] for key in keys}

    def views(self, specs: Collection[BackboneSpec]) -> dict[View, int]:
        """Augmented views that any of these networks has, with the images that all of them have it of."""
        there = {key.view for key in self._under() if key.backbone in specs and not key.view.is_identity}
        return self.shared(specs, there)

    def shared(self, specs: Collection[BackboneSpec], views: Collection[View]) -> dict[View, int]:
        """The fewest images that one of the networks has each view of."""
        counts = self.counts(FeatureKey(spec, view, self.decoding) for spec in specs for view in views)
        return {view: min(counts[FeatureKey(spec, view, self.decoding)] for spec in specs) for view in views}

    def has_all(self, spec: BackboneSpec) -> bool:
        """Whether a network has the identity view of every image."""
        return self.specs.get(spec, 0) == self.images

    def best(self, asked: Asked) -> list[BackboneSpec]:
        """By name, the spec that comes nearest to what is asked: complete and as expected, else with most images."""

        def rank(spec: BackboneSpec) -> tuple[bool, int, bool]:
            expected = asked.expects(spec)
            return self.has_all(spec) and expected, self.specs[spec], expected

        found = {spec.name: spec for spec in sorted(self.specs, key=rank)}
        return [found[name] for name in sorted(found)]

    def phrase(self, count: int) -> str:
        """``82 of 120 images``."""
        return f"{count} of {self.images} images"

    def _under(self) -> list[FeatureKey]:
        return [key for key in self.keys if key.decoding == self.decoding and key.backbone.is_current]

    def _current(self) -> Iterable[BackboneSpec]:
        return (key.backbone for key in self._under())


def extract_command(specs: Sequence[BackboneSpec], views: Sequence[View], decoding: Decoding) -> str:
    """Command line that computes what is missing of these networks in these views."""
    first = specs[0]
    parts = ["featstore extract DATA --backbones", ",".join(dict.fromkeys(spec.name for spec in specs))]
    parts += [f"--weights {spec.name}={choice}" for spec in specs if (choice := weights_choice(spec))]
    parts += [f"--preprocess {first.preprocess}"] if first.preprocess != PREPROCESS else []
    parts += [f"--precision {first.precision}"] if first.precision != PRECISION else []
    augmented = [view for view in views if not view.is_identity]
    if augmented:
        parts += [
            f"--recipe {shlex.quote(augmented[0].recipe)}",
            f"--seeds {_runs(v.seed for v in augmented)}",
        ]
    return " ".join(filter(None, [*parts, range_flag(decoding)]))


def weights_choice(spec: BackboneSpec) -> str:
    """What to give to ``--weights NAME=``; empty where that is the default."""
    if seeded := SEEDED.match(spec.weights):
        return f"random:{seeded[1]}"
    try:
        usual = resolve_weights(catalog.row(spec.name)).digest
    except FeatstoreError:
        usual = None
    return "" if spec.weights == usual else "FILE"


def range_flag(decoding: Decoding) -> str:
    """``--range=LOW,HIGH`` of a decoding that has one, else nothing."""
    return (
        f"--range={','.join(map(_number, decoding.value_range))}" if decoding.value_range is not None else ""
    )


def _number(value: float) -> str:
    short = format(value, "g")
    return short if float(short) == value else repr(value)


def _runs(seeds: Iterable[int]) -> str:
    """``1-4,7``."""
    runs: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
