"""Features as stage two sees them: aligned images, named column blocks, and a view axis."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np

from featstore.backbones import catalog
from featstore.backbones.weights import resolve_weights
from featstore.errors import MissingFeaturesError, UsageError
from featstore.fusion.blocks import Block, lay_out
from featstore.images.audit import require_sound
from featstore.images.decode import decoder_version
from featstore.images.recipe import parse_recipe
from featstore.images.scan import scan
from featstore.store.store import Store, default_cache
from featstore.types import IDENTITY, BackboneSpec, Decoding, FeatureKey, View

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.images.manifest import Manifest
    from featstore.types import Features, ImageRecord


class Source(TypedDict, total=False):
    """Which stored features of a data set to load; every entry may be left out.

    Attributes
    ----------
    backbones
        Names, in column order; None for all in the store.
    weights
        As for `featstore.extract`; needed only where the store holds a backbone with several.
    preprocess
        ``official`` (default) or ``rescale``.
    recipe, seeds
        Augmented views beside the identity view; None for all in the store, ``seeds=()`` for none.
    value_range, cache, group_pattern, follow_links
        As for `featstore.extract`.
    """

    backbones: Sequence[str] | None
    weights: Mapping[str, str] | None
    preprocess: str
    recipe: str | None
    seeds: Collection[int] | None
    value_range: tuple[float, float] | None
    cache: str | Path | None
    group_pattern: str | None
    follow_links: bool


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMatrix:
    """Every image of a data set, in every view, through every backbone.

    Attributes
    ----------
    records
        The images, in manifest order; row ``i`` of everything below is ``records[i]``.
    classes
        Sorted names of the classes.
    y
        ``(n,)`` index into `classes`.
    groups
        ``(n,)`` patient or other unit that must stay together.
    views
        The view axis; the identity view comes first.
    specs
        The backbones, in column order.
    decoding
        How the pixels were made.
    features
        ``(views, n, columns)`` float32.
    has_groups
        Whether groups were given; if not, each image is its own.
    excluded
        Number of images left out because they are in quarantine.
    """

    records: tuple[ImageRecord, ...]
    classes: tuple[str, ...]
    y: NDArray[np.intp]
    groups: NDArray[np.str_]
    views: tuple[View, ...]
    specs: tuple[BackboneSpec, ...]
    decoding: Decoding
    features: Features
    has_groups: bool
    excluded: int

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Column block of each backbone, in order."""
        return lay_out({spec.name: spec.dimension for spec in self.specs})

    @property
    def backbones(self) -> tuple[str, ...]:
        """Names of the backbones, in column order."""
        return tuple(spec.name for spec in self.specs)

    def columns(self, backbones: Sequence[str]) -> tuple[Block, ...]:
        """Blocks of the named backbones, renumbered to lie side by side."""
        widths = {block.name: block.width for block in self.blocks}
        return lay_out({name: widths[name] for name in backbones})

    def rows(self, images: NDArray[np.intp], backbones: Sequence[str], views: Sequence[int]) -> Features:
        """One row per view and image: ``(len(views) * len(images), columns)`` float32, view by view."""
        where = {block.name: block for block in self.blocks}
        parts = [where[name] for name in backbones]
        targets = self.columns(backbones)
        width = targets[-1].stop
        out = np.empty((len(views), len(images), width), np.float32)
        for at, view in enumerate(views):
            for part, target in zip(parts, targets, strict=True):
                out[at, :, target.start : target.stop] = self.features[view, images, part.start : part.stop]
        return out.reshape(-1, width)


def load_matrix(data: str | Path, **source: Unpack[Source]) -> FeatureMatrix:
    """Assemble the stored features of a data set.

    What is left open is read off the store: all its backbones, and all augmented views that these share. Where
    that is ambiguous (two sets of weights, two recipes) the caller must choose.

    Parameters
    ----------
    data
        A folder or a CSV manifest, as for `featstore.extract`.
    **source
        Which of its features, and where they lie: see `Source`.

    Raises
    ------
    AuditError
        If the data set would give a false answer (conflicting labels, a leak between splits).
    MissingFeaturesError
        If an image lacks a vector.
    """
    manifest = scan(
        Path(data),
        group_pattern=source.get("group_pattern"),
        follow_links=source.get("follow_links", False),
    )
    require_sound(manifest)
    cache = source.get("cache")
    store = Store(Path(cache) if cache is not None else default_cache())
    decoding = Decoding(decoder_version(), value_range=source.get("value_range"))
    preprocess = source.get("preprocess", "official")
    held = (key for key in store.feature_keys() if key.decoding == decoding)
    found = [key for key in held if key.backbone.preprocess == preprocess]
    specs = _choose_specs(found, source.get("backbones"), _digests(source.get("weights") or {}), store)
    views = _choose_views(found, specs, source.get("recipe"), source.get("seeds"))
    return assemble(manifest, store, specs, views, decoding)


def assemble(
    manifest: Manifest,
    store: Store,
    specs: Sequence[BackboneSpec],
    views: Sequence[View],
    decoding: Decoding,
) -> FeatureMatrix:
    """Read the named features of all good images of a manifest into one array."""
    bad = store.bad_images(decoding)
    records = tuple(r for r in manifest.records if r.id not in bad)
    ids = [record.id for record in records]
    blocks = lay_out({spec.name: spec.dimension for spec in specs})
    features = np.empty((len(views), len(ids), blocks[-1].stop), np.float32)
    for at, view in enumerate(views):
        for spec, block in zip(specs, blocks, strict=True):
            columns = features[at, :, block.start : block.stop]
            store.read_into(FeatureKey(spec, view, decoding), ids, columns)
    classes, y = np.unique([record.label for record in records], return_inverse=True)
    return FeatureMatrix(
        records,
        tuple(classes.tolist()),
        y,
        np.array([record.group for record in records]),
        tuple(views),
        tuple(specs),
        decoding,
        features,
        manifest.has_groups,
        len(manifest.records) - len(records) + len(manifest.unreadable),
    )


def _digests(weights: Mapping[str, str]) -> dict[str, str | None]:
    return {name: resolve_weights(catalog.row(name), choice).digest for name, choice in weights.items()}


def _choose_specs(
    found: Sequence[FeatureKey],
    backbones: Sequence[str] | None,
    digests: Mapping[str, str | None],
    store: Store,
) -> list[BackboneSpec]:
    by_name: defaultdict[str, set[BackboneSpec]] = defaultdict(set)
    for key in found:
        spec = key.backbone
        if digests.get(spec.name, spec.weights) == spec.weights:
            by_name[spec.name].add(spec)
    names = list(dict.fromkeys(backbones)) if backbones is not None else sorted(by_name)
    if not names:
        raise MissingFeaturesError(
            f"There are no features in {store.root}.", "Run `featstore extract` on the data first."
        )
    return [_only_spec(name, by_name.get(name, set()), store) for name in names]


def _only_spec(name: str, specs: Collection[BackboneSpec], store: Store) -> BackboneSpec:
    if not specs:
        raise MissingFeaturesError(
            f"There are no {name} features in {store.root} that fit (weights, preprocessing, decoder).",
            f"Run `featstore extract DATA --backbones {name}`, or list what is there: `featstore cache ls`.",
        )
    if len(specs) > 1:
        have = ", ".join(sorted(spec.weights for spec in specs))
        raise UsageError(
            f"The store holds {name} with several weights: {have}.",
            f"Say which: --weights {name}=CHOICE, as given to `featstore extract`.",
        )
    return next(iter(specs))


def _choose_views(
    found: Sequence[FeatureKey],
    specs: Sequence[BackboneSpec],
    recipe: str | None,
    seeds: Collection[int] | None,
) -> list[View]:
    held = [{k.view for k in found if k.backbone == spec and not k.view.is_identity} for spec in specs]
    text = str(parse_recipe(recipe)) if recipe is not None else None
    if seeds is not None:
        return [IDENTITY, *(View(_recipe_of(text, held), seed) for seed in sorted(set(seeds)))]
    common = {v for v in set.intersection(*held) if text in {None, v.recipe}}
    if len({view.recipe for view in common}) > 1:
        have = ", ".join(sorted({view.recipe for view in common}))
        raise UsageError(
            f"The store holds augmented views by several recipes: {have}.",
            "Say which: --recipe TEXT, or --seeds none for the identity view alone.",
        )
    return [IDENTITY, *sorted(common)]


def _recipe_of(text: str | None, held: Sequence[set[View]]) -> str:
    if text is not None:
        return text
    recipes = {view.recipe for views in held for view in views}
    if len(recipes) != 1:
        have = ", ".join(sorted(recipes)) or "none"
        raise UsageError(
            f"Seeds were given without a recipe, and the store holds these: {have}.",
            "Say which: --recipe TEXT.",
        )
    return recipes.pop()
