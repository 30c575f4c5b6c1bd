"""From a data set and a store to a matrix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np

from featstore.backbones import catalog
from featstore.backbones.network import require_preprocess
from featstore.backbones.precision import require_precision
from featstore.backbones.weights import EVERY_BACKBONE, choice_for, resolve_weights
from featstore.findings import ordered
from featstore.fusion.blocks import lay_out
from featstore.images.audit import require_sound
from featstore.images.decode import decoder_version
from featstore.images.scan import scan
from featstore.matrix.choose import choose_specs, choose_views
from featstore.matrix.features import FeatureMatrix
from featstore.signatures import public
from featstore.store.learned import recall
from featstore.store.store import Store, default_cache
from featstore.types import BACKBONE_REVISION, BackboneSpec, Decoding, FeatureKey, View

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from featstore.images.manifest import Manifest


class Source(TypedDict, total=False):
    """Which stored features of a data set to load; every entry may be left out.

    Attributes
    ----------
    backbones
        Names, in column order; None for all in the store.
    weights
        As for `featstore.extract`, by backbone or ``*`` for all; needed only where the store holds one with several.
    preprocess
        ``official`` (default) or ``rescale``.
    precision
        ``float32`` (default), ``bfloat16`` or ``float16``.
    recipe, seeds
        Augmented views beside the identity view; None for all in the store, ``seeds=()`` for none.
    value_range, cache, group_pattern, follow_links
        As for `featstore.extract`.
    """

    backbones: Sequence[str] | None
    weights: Mapping[str, str] | None
    preprocess: str
    precision: str
    recipe: str | None
    seeds: Collection[int] | None
    value_range: tuple[float, float] | None
    cache: str | Path | None
    group_pattern: str | None
    follow_links: bool


@public
def load_matrix(data: str | Path | Manifest, **source: Unpack[Source]) -> FeatureMatrix:
    """Assemble the stored features of a data set.

    What is left open is read off the store: all its backbones, and all augmented views that these share. Where
    that is ambiguous (two sets of weights, two recipes) the caller must choose.

    Parameters
    ----------
    data
        A folder, a CSV file or a scanned `Manifest`, as for `featstore.extract`.
    **source
        Which of its features, and where they lie: see `Source`.

    Raises
    ------
    AuditError
        If the data set would give a false answer (conflicting labels, a leak between splits).
    MissingFeaturesError
        If an image lacks a vector.
    UnknownNameError
        If there is no such backbone, preprocessing or precision.
    StoreError
        If what tuned weights have learned from cannot be read.
    """
    require_preprocess(source.get("preprocess", "official"))
    require_precision(source.get("precision", "float32"))
    manifest = scan(
        data,
        group_pattern=source.get("group_pattern"),
        follow_links=source.get("follow_links", False),
    )
    require_sound(manifest)
    cache = source.get("cache")
    store = Store(Path(cache) if cache is not None else default_cache())
    decoding = Decoding(decoder_version(), value_range=source.get("value_range"))
    stored = list(store.feature_keys())
    found = [key for key in stored if key.decoding == decoding and _is_meant(key.backbone, source)]
    digests = _digests(source.get("weights") or {}, [key.backbone for key in found])
    known = {*catalog.names(), *(key.backbone.name for key in stored)}
    specs = choose_specs(found, source.get("backbones"), digests, store.root, known)
    views = choose_views(found, specs, source.get("recipe"), source.get("seeds"))
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
        manifest.groups_set_aside,
        learned=_learned(store, specs),
        findings=ordered(manifest.findings),
    )


def _learned(store: Store, specs: Sequence[BackboneSpec]) -> dict[str, frozenset[str]]:
    found = {spec.name: recall(store.root, spec) for spec in specs}
    return {name: record.images for name, record in found.items() if record is not None}


def _is_meant(spec: BackboneSpec, source: Source) -> bool:
    wanted = source.get("preprocess", "official"), source.get("precision", "float32"), BACKBONE_REVISION
    return spec.is_foreign or (spec.preprocess, spec.precision, spec.revision) == wanted


def _digests(weights: Mapping[str, str], found: Iterable[BackboneSpec]) -> dict[str, str | None]:
    """Digests of the weights that were chosen by name, or by a choice for every backbone that the store holds."""
    names = set(weights) - {EVERY_BACKBONE}
    if EVERY_BACKBONE in weights:
        names |= {spec.name for spec in found if not spec.is_foreign}
    return {name: resolve_weights(catalog.row(name), choice_for(name, weights)).digest for name in names}
