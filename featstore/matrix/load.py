"""From a data set and a store to a matrix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from featstore.backbones import catalog
from featstore.backbones.network import require_preprocess
from featstore.backbones.precision import require_precision
from featstore.backbones.weights import EVERY_BACKBONE, choice_for, resolve_weights
from featstore.findings import Finding, ordered
from featstore.fusion.blocks import lay_out
from featstore.images.audit import require_sound
from featstore.images.decode import decoder_version
from featstore.images.losses import Loss, losses, require_two_classes, told
from featstore.images.reading import needs_range
from featstore.images.scan import ScanOptions, scan, scan_options
from featstore.matrix.choose import choose
from featstore.matrix.features import FeatureMatrix
from featstore.matrix.holdings import Asked, Holdings
from featstore.recognition import recognise, seen_finding
from featstore.signatures import public
from featstore.store.learned import recall
from featstore.store.request import recorded_request
from featstore.store.store import Store, default_cache
from featstore.types import BackboneSpec, Decoding, FeatureKey, View

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from featstore.images.manifest import Manifest
    from featstore.types import ImageRecord


class Source(ScanOptions, total=False):
    """Which stored features of a data set to load; every entry may be left out.

    Attributes
    ----------
    backbones
        Names, in column order; None for those of the last extraction of these images, else for all that are complete.
    weights
        As for `featstore.extract`, by backbone or ``*`` for all; needed only where the store holds one with several.
    preprocess
        ``official`` or ``rescale``; None for that of the last extraction of these images, else ``official``.
    precision
        ``float32``, ``bfloat16`` or ``float16``; None as for `preprocess`, else ``float32``.
    recipe, seeds
        Augmented views beside the identity view; None for those of the last extraction of these images, else for all
        that are complete; ``seeds=()`` for none.
    value_range, cache
        As for `featstore.extract`.
    group_pattern, follow_links, columns, root, suffix
        How the data set is read: see `featstore.images.scan.ScanOptions`.
    """

    backbones: Sequence[str] | None
    weights: Mapping[str, str] | None
    preprocess: str | None
    precision: str | None
    recipe: str | None
    seeds: Collection[int] | None
    value_range: tuple[float, float] | None
    cache: str | Path | None


@public
def load_matrix(data: str | Path | Manifest, **source: Unpack[Source]) -> FeatureMatrix:
    """Assemble the stored features of a data set.

    What is left open is what the last `featstore.extract` of these very images asked for, as far as it is complete;
    where that is not known, all backbones that are complete for them, and all augmented views that these share.
    Imported vectors of these images are always among them. Where that is ambiguous (two sets of weights, two
    recipes) the caller must choose. What the store holds beside is named in `FeatureMatrix.findings`.

    Parameters
    ----------
    data
        A folder, a CSV file or a scanned `Manifest`, as for `featstore.extract`.
    **source
        Which of its features, and where they lie: see `Source`.

    Raises
    ------
    AuditError
        If the data set would give a false answer (conflicting labels, a leak between splits), or the quarantine
        leaves one class of it.
    MissingFeaturesError
        If no network is complete, or one that was named is not: what is there, and how to get at it.
    UnknownNameError
        If there is no such backbone, preprocessing or precision.
    StoreError
        If what tuned weights have learned from cannot be read.
    """
    if (preprocess := source.get("preprocess")) is not None:
        require_preprocess(preprocess)
    if (precision := source.get("precision")) is not None:
        require_precision(precision)
    manifest = scan(data, **scan_options(source))
    require_sound(manifest)
    cache = source.get("cache")
    store = Store(Path(cache) if cache is not None else default_cache())
    keys = store.feature_keys()
    decoding = _as_stored(Decoding(decoder_version(), value_range=source.get("value_range")), keys)
    reasons = {image: bad.reason for image, bad in store.bad_images(decoding).items()}
    require_two_classes(manifest, reasons)
    ids = [record.id for record in manifest.records]
    good = [record for record in manifest.records if record.id not in reasons]
    held = Holdings(store, keys, [r.id for r in good], decoding, lambda: any(map(needs_range, good)))
    choice = choose(held, _asked(source, held), recorded_request(store.root, ids, decoding))
    matrix = assemble(manifest, store, choice.specs, choice.views, decoding)
    return replace(
        matrix,
        findings=ordered((*matrix.findings, *choice.findings, *_quarantined(losses(manifest, reasons)))),
    )


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
    learned, met = _learned(store, specs, records, decoding, has_groups=manifest.has_groups)
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
        learned=learned,
        findings=ordered([*manifest.findings, *met]),
    )


def _learned(
    store: Store,
    specs: Sequence[BackboneSpec],
    records: Sequence[ImageRecord],
    decoding: Decoding,
    *,
    has_groups: bool,
) -> tuple[dict[str, frozenset[str]], list[Finding]]:
    """Ids by backbone that its weights have learned from, in other files or under the same patient, too."""
    pages = {spec.name: page for spec in specs if (page := recall(store.root, spec)) is not None}
    known = {name: page.known for name, page in pages.items()}
    found = recognise(records, known, decoding, has_groups=has_groups, cache=store.root)
    ids = {name: images.ids | frozenset(found[name]) for name, images in known.items()}
    met = []
    for name, ways in found.items():
        elsewhere = {image: way for image, way in ways.items() if way != "file"}
        met.append(seen_finding(name, records, elsewhere))
    return ids, [finding for finding in met if finding is not None]


def _as_stored(decoding: Decoding, keys: Iterable[FeatureKey]) -> Decoding:
    """The decoding as the store spells it: a range may be of integers here and of fractions there."""
    return next((key.decoding for key in keys if key.decoding == decoding), decoding)


def _quarantined(lost: list[Loss]) -> list[Finding]:
    text, count = told(lost), sum(loss.bad for loss in lost)
    return [Finding("FS301", f"{text[0].upper()}{text[1:]}.", count)] if lost else []


def _asked(source: Source, held: Holdings) -> Asked:
    weights = source.get("weights") or {}
    return Asked(
        source.get("backbones"),
        _digests(weights, held.specs),
        {*weights} - {EVERY_BACKBONE},
        source.get("preprocess"),
        source.get("precision"),
        source.get("recipe"),
        source.get("seeds"),
    )


def _digests(weights: Mapping[str, str], found: Iterable[BackboneSpec]) -> dict[str, str | None]:
    """Digests of the weights that were chosen by name, or by a choice for every backbone that the store holds."""
    names = set(weights) - {EVERY_BACKBONE}
    if EVERY_BACKBONE in weights:
        names |= {spec.name for spec in found if not spec.is_foreign}
    return {name: resolve_weights(catalog.row(name), choice_for(name, weights)).digest for name in names}
