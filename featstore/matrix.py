"""The feature matrix: stored features of a data set, assembled for stage two.

Where the caller names no backbones and views, they are those that the last extraction of these images asked for;
where that is not known, those that are complete. Vectors that were imported for these images are always among them.
What is left out is named.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from featstore import stored_features
from featstore.arguments import public
from featstore.backbones import catalog
from featstore.backbones.keras_backbone import require_preprocess
from featstore.backbones.precision import require_precision
from featstore.backbones.weights import EVERY_BACKBONE, choice_for, resolve_weights
from featstore.covariates import CovariateEncoding, covariate_encoding
from featstore.errors import MissingFeaturesError, UnknownNameError, UsageError, nearest
from featstore.findings import Finding, ordered
from featstore.image_facts import recognise, seen_finding
from featstore.images.manifest import (
    quarantine_text,
    quarantined_by_class,
    require_no_errors,
    require_two_classes,
)
from featstore.images.reading import decoder_version, needs_range
from featstore.images.recipe import parse_recipe, view_name
from featstore.images.scan import ScanOptions, scan, scan_options
from featstore.processes import as_shared, share_rows, shared_array
from featstore.store.notes import ExtractionRequest, recorded_request
from featstore.store.store import Store, default_cache
from featstore.store.training_record import load_training_record
from featstore.stored_features import FeatureQuery, StoredFeatures, engines_finding
from featstore.tables import printable
from featstore.types import (
    COVARIATES,
    IDENTITY,
    BackboneSpec,
    Block,
    Decoding,
    FeatureKey,
    ImageRecord,
    View,
    make_blocks,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.images.manifest import ClassQuarantine, Manifest
    from featstore.types import Features


# From a data set and a store to a matrix


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
    group_pattern, follow_links, columns, root, suffix, covariates
        How the data set is read: see `featstore.images.scan.ScanOptions`.
    """

    backbones: Sequence[str] | None
    weights: Mapping[str, str] | None
    preprocess: str | None
    precision: str | None
    recipe: str | None
    seeds: Collection[int] | None
    value_range: tuple[float, ...] | None
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

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity")
    >>> matrix = featstore.load_matrix(data, backbones=["EfficientNetLite0"])
    >>> matrix.features.shape  # views, images, columns
    (1, 16, 1280)
    >>> matrix.classes, matrix.y[:2], matrix.backbones
    (('covid', 'normal'), array([0, 0]), ('EfficientNetLite0',))
    """
    return read_matrix(data, source)


def read_matrix(data: str | Path | Manifest, source: Source, *, shared: bool = False) -> FeatureMatrix:
    """As `load_matrix`, with features that several processes hold once if they are to be `shared`."""
    if (preprocess := source.get("preprocess")) is not None:
        require_preprocess(preprocess)
    if (precision := source.get("precision")) is not None:
        require_precision(precision)
    manifest = scan(data, **scan_options(source))
    require_no_errors(manifest)
    cache = source.get("cache")
    store = Store(Path(cache) if cache is not None else default_cache())
    keys = store.feature_keys()
    decoding = _as_stored(Decoding(decoder_version(), value_range=source.get("value_range")), keys)
    reasons = {image: bad.reason for image, bad in store.bad_images(decoding).items()}
    require_two_classes(manifest, reasons)
    ids = [record.id for record in manifest.records]
    good = [record for record in manifest.records if record.id not in reasons]
    held = StoredFeatures(store, keys, [r.id for r in good], decoding, lambda: any(map(needs_range, good)))
    choice = choose_features(held, _asked(source, held), recorded_request(store.root, ids, decoding))
    matrix = assemble(manifest, store, choice.specs, choice.views, decoding, shared=shared)
    return replace(
        matrix,
        findings=ordered(
            (*matrix.findings, *choice.findings, *_quarantined(quarantined_by_class(manifest, reasons)))
        ),
    )


def assemble(
    manifest: Manifest,
    store: Store,
    specs: Sequence[BackboneSpec],
    views: Sequence[View],
    decoding: Decoding,
    *,
    shared: bool = False,
) -> FeatureMatrix:
    """Read the named features of all good images of a manifest into one array, which processes can share."""
    bad = store.bad_images(decoding)
    records = tuple(r for r in manifest.records if r.id not in bad)
    ids = [record.id for record in records]
    beside = covariate_encoding(manifest.covariates, records)
    stored, specs = specs, [*specs, *([] if beside is None else [beside.spec])]
    blocks = make_blocks({spec.name: spec.dimension for spec in specs})

    def fill(features: Features) -> None:
        for at, view in enumerate(views):
            if beside is not None:
                features[at, :, blocks[-1].start :] = beside.encode([record.covariates for record in records])
            for spec, block in zip(stored, blocks, strict=False):
                columns = features[at, :, block.start : block.stop]
                store.read_into(FeatureKey(spec, view, decoding), ids, columns)

    shape = (len(views), len(ids), blocks[-1].stop)
    if shared:
        features = shared_array(shape, np.float32, fill)
    else:
        fill(features := np.empty(shape, np.float32))
    classes, y = np.unique([record.label for record in records], return_inverse=True)
    noted = (engines_finding(store.computations), None if beside is None else beside.missing(records))
    learned, met = _seen_by_backbone(store, stored, records, decoding, has_groups=manifest.has_groups)
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
        seen_by_backbone=learned,
        findings=ordered([*manifest.findings, *met, *(finding for finding in noted if finding is not None)]),
        covariates=beside,
    )


def _seen_by_backbone(
    store: Store,
    specs: Sequence[BackboneSpec],
    records: Sequence[ImageRecord],
    decoding: Decoding,
    *,
    has_groups: bool,
) -> tuple[dict[str, frozenset[str]], list[Finding]]:
    """Ids by backbone that its weights have learned from, in other files or under the same patient, too."""
    pages = {
        spec.name: page for spec in specs if (page := load_training_record(store.root, spec)) is not None
    }
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


def _quarantined(lost: list[ClassQuarantine]) -> list[Finding]:
    text, count = quarantine_text(lost), sum(loss.bad for loss in lost)
    return [Finding("FS301", f"{text[0].upper()}{text[1:]}.", count)] if lost else []


def _asked(source: Source, held: StoredFeatures) -> FeatureQuery:
    weights, backbones = source.get("weights") or {}, source.get("backbones")
    return FeatureQuery(
        None if backbones is None else catalog.named(backbones),
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
        names |= {spec.name for spec in found if not spec.is_imported}
    return {name: resolve_weights(catalog.row(name), choice_for(name, weights)).digest for name in names}


# Which backbones and views are meant


@dataclass(frozen=True, slots=True)
class FeatureChoice:
    """What is loaded: networks in column order, views with the identity first, and what the reader must know."""

    specs: tuple[BackboneSpec, ...]
    views: tuple[View, ...]
    findings: tuple[Finding, ...] = ()


def choose_features(
    held: StoredFeatures, asked: FeatureQuery, last: ExtractionRequest | None
) -> FeatureChoice:
    """Settle backbones and views.

    Parameters
    ----------
    held
        What the store has of the images.
    asked
        What the caller said; it always counts.
    last
        What the last extraction of just these images asked for, if that is known.

    Raises
    ------
    MissingFeaturesError
        If nothing is complete, or something that was asked for is not.
    UsageError
        If there are several weights or recipes, and nothing says which are meant.
    """
    specs = _named(held, asked, last) if asked.backbones is not None else _unnamed(held, asked, last)
    views = _views(held, specs, asked, last)
    whole = all(held.has_all(spec) for spec in specs)
    if not whole or any(n < held.images for n in held.shared(specs, views).values()):
        raise stored_features.incomplete_error(held, specs, views, asked)
    found = [
        stored_features.imported_finding(specs),
        stored_features.left_out_findings(held, specs, views, asked, last),
    ]
    return FeatureChoice(
        tuple(specs), tuple(views), tuple(finding for finding in found if finding is not None)
    )


def _named(held: StoredFeatures, asked: FeatureQuery, last: ExtractionRequest | None) -> list[BackboneSpec]:
    """Specs of the names that the caller gave, in that order."""
    names = list(dict.fromkeys(asked.backbones or ()))
    if not names:
        raise UsageError("No backbone is named.", "Give --backbones A,B, or leave it out.")
    known = {key.backbone.name for key in held.keys}
    for name in names:
        _require_known(name, known)
    specs = _alike(held, asked, {name: _of_name(name, held, asked, last) for name in names})
    absent = [name for name, spec in specs.items() if spec is None or not held.specs[spec]]
    if absent:
        raise stored_features.nothing_stored_error(held, asked, absent)
    return [spec for spec in specs.values() if spec is not None]


def _alike(
    held: StoredFeatures, asked: FeatureQuery, specs: dict[str, BackboneSpec | None]
) -> dict[str, BackboneSpec | None]:
    """Specs of one preprocessing and precision, where those at hand have several and all have one in common."""
    settings = [(s.preprocess, s.precision) for s in specs.values() if s is not None and not s.is_imported]
    for preprocess, precision in dict.fromkeys(settings) if len({*settings}) > 1 else ():
        query = replace(asked, preprocess=preprocess, precision=precision)
        found = {name: _of_name(name, held, query, None) for name in specs}
        if all(spec is not None and held.has_all(spec) for spec in found.values()):
            return found
    return specs


def _unnamed(held: StoredFeatures, asked: FeatureQuery, last: ExtractionRequest | None) -> list[BackboneSpec]:
    """Specs by name: those of the last extraction as far as they are complete, else all that are."""
    own = [spec for spec in held.specs if not spec.is_imported and held.specs[spec]]
    said = asked.preprocess is not None or asked.precision is not None
    if (
        said and own and not any(asked.admits(spec) for spec in own)
    ):  # imported vectors answer no such question
        raise stored_features.nothing_stored_error(held, asked, None)
    remembered = {spec.name for spec in last.backbones} | {*asked.named} if last is not None else set()
    for names in (remembered, {spec.name for spec in held.specs}):
        ready = {spec.name for spec in held.specs if held.has_all(spec) and asked.admits(spec)}
        there = (_of_name(name, held, asked, last) for name in sorted(ready.intersection(names)))
        chosen = [spec for spec in there if spec is not None and held.has_all(spec)]
        if chosen:
            foreign = [s for s in held.specs if s.is_imported and held.has_all(s) and s.name not in names]
            return sorted([*chosen, *foreign], key=lambda spec: spec.name)
    partly = [spec for spec in held.best(asked) if held.specs[spec] and asked.expects(spec)]
    if not partly:
        raise stored_features.nothing_stored_error(held, asked, None)
    wanted = [spec for spec in partly if spec.name in remembered]
    most = max(held.specs[spec] for spec in partly)
    wanted = wanted or [spec for spec in partly if held.specs[spec] == most]
    raise stored_features.unfinished_error(
        held, wanted, len(partly) - len(wanted), [IDENTITY, *_usual(held, wanted)], asked
    )


def _usual(held: StoredFeatures, specs: Collection[BackboneSpec]) -> list[View]:
    """Augmented views that the networks share for some images, of the recipe that has most of them."""
    own = [spec for spec in specs if not spec.is_imported]
    views = [view for view, count in held.views(own).items() if count] if own else []
    recipes = sorted({v.recipe for v in views}, key=lambda text: -sum(v.recipe == text for v in views))
    return sorted(view for view in views if view.recipe == recipes[0])


def _of_name(
    name: str,
    held: StoredFeatures,
    asked: FeatureQuery,
    last: ExtractionRequest | None,
) -> BackboneSpec | None:
    """Spec of a name; None where there is none that fits what was asked."""
    there = [spec for spec in held.specs if spec.name == name and asked.admits(spec)]
    remembered = [spec for spec in there if last is not None and spec in last.backbones]
    if len(remembered) == 1:
        return remembered[0]
    usual = [spec for spec in there if asked.expects(spec)]
    for fewest in (held.images, 1):
        enough = [spec for spec in usual if held.specs[spec] >= fewest]
        if len(enough) > 1:
            have = ", ".join(sorted(spec.weights for spec in enough))
            raise UsageError(
                f"The store holds {name} with several weights: {have}.",
                f"Say which: --weights {name}=CHOICE, as given to `featstore extract`.",
            )
        if enough:
            return enough[0]
    return None


def _require_known(name: str, known: Collection[str]) -> None:
    there = {*known, *catalog.names()}
    if name in there:
        return
    close = nearest(name, sorted(there))
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    raise UnknownNameError(
        f"There is no backbone {name!r}.",
        f"{hint}`featstore cache ls` lists what is stored, `featstore backbones` what can be.",
    )


def _views(
    held: StoredFeatures,
    specs: Collection[BackboneSpec],
    asked: FeatureQuery,
    last: ExtractionRequest | None,
) -> list[View]:
    """Identity first, then the augmented views: those asked for, those of the last extraction, else all complete."""
    text = str(parse_recipe(asked.recipe)) if asked.recipe is not None else None
    shared = held.views(specs)
    if asked.seeds is not None:
        return [IDENTITY, *(View(_recipe_of(text, shared, last), seed) for seed in sorted(set(asked.seeds)))]
    whole = {view for view, count in shared.items() if count == held.images and text in {None, view.recipe}}
    if text is not None:
        if not whole and text != IDENTITY.recipe:
            raise _no_view(held, specs, text, shared)
        return [IDENTITY, *sorted(whole)]
    if last is not None and last.covers(specs):
        return [IDENTITY, *sorted(whole.intersection(last.views))]
    recipes = {view.recipe for view in whole}
    preferred = recipes & _recipes(last)
    if len(recipes) > 1 and len(preferred) != 1:
        raise UsageError(
            f"The store holds augmented views by several recipes: {', '.join(sorted(recipes))}.",
            "Say which: --recipe TEXT, or --seeds none for the identity view alone.",
        )
    return [IDENTITY, *sorted(v for v in whole if len(recipes) == 1 or v.recipe in preferred)]


def _recipes(last: ExtractionRequest | None) -> set[str]:
    return {view.recipe for view in last.views if not view.is_identity} if last is not None else set()


def _recipe_of(text: str | None, held: Mapping[View, int], last: ExtractionRequest | None) -> str:
    if text is not None:
        return text
    recipes = {view.recipe for view in held}
    chosen = recipes if len(recipes) == 1 else recipes & _recipes(last)
    if len(chosen) != 1:
        have = ", ".join(sorted(recipes)) or "none"
        raise UsageError(
            f"Seeds were given without a recipe, and the store holds these: {have}.",
            "Say which: --recipe TEXT.",
        )
    return next(iter(chosen))


def _no_view(
    held: StoredFeatures,
    specs: Collection[BackboneSpec],
    text: str,
    shared: Mapping[View, int],
) -> MissingFeaturesError:
    others = sorted({view.recipe for view, count in shared.items() if count == held.images})
    there = f"those of {', '.join(others)}" if others else "none"
    own = [spec for spec in specs if not spec.is_imported]
    command = (
        f"{stored_features.extract_command(own, [IDENTITY, View(text, 1)], held.decoding)}, or "
        if own
        else ""
    )
    return MissingFeaturesError(
        f"No view of the recipe {text} is complete for {', '.join(s.name for s in specs)}; complete are: {there}.",
        f"Run {command}leave out --recipe.",
    )


# Features as stage two sees them: aligned images, named column blocks, and a view axis


@dataclass(frozen=True, slots=True, eq=False, repr=False)
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
    groups_set_aside
        Whether groups were given and are not kept together: `featstore.images.manifest.Manifest.by_image`.
    seen_by_backbone
        By backbone whose weights were tuned: ids of the images that they have learned from, in this data set or not,
        and of the images here that show the same pixels or the same patient.
    set_apart
        Number of images left out because of that.
    findings
        What reading the data set and choosing the features met.
    covariates
        How the last block came out of the table, where covariates were named.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity")
    >>> matrix = featstore.load_matrix(data, backbones=["EfficientNetLite0"])
    >>> matrix.blocks
    (Block(name='EfficientNetLite0', start=0, stop=1280),)
    >>> matrix.X.shape, matrix.y.shape, len(set(matrix.groups))  # as scikit-learn takes them
    ((16, 1280), (16,), 16)

    A strategy stands in a pipeline of scikit-learn like any classifier, and folds are drawn over patients:

    >>> from featstore.fusion.strategies.concat_logreg import ConcatLogreg
    >>> from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> pipeline = make_pipeline(StandardScaler(), ConcatLogreg(blocks=matrix.blocks))
    >>> folds = StratifiedGroupKFold(2)
    >>> len(cross_val_score(pipeline, matrix.X, matrix.y, groups=matrix.groups, cv=folds, scoring="roc_auc"))
    2
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
    groups_set_aside: bool = False
    seen_by_backbone: Mapping[str, frozenset[str]] = field(default_factory=dict)
    set_apart: int = 0
    findings: tuple[Finding, ...] = ()
    covariates: CovariateEncoding | None = None

    def __repr__(self) -> str:
        """One line: what it holds."""
        counts = ", ".join(f"{name} {(self.y == at).sum()}" for at, name in enumerate(self.classes))
        views = ", ".join(view_name(view.recipe, view.seed) for view in self.views)
        return printable(
            f"<FeatureMatrix: {len(self.y)} images ({counts}), {len(set(self.groups.tolist()))} groups,"
            f" {self.features.shape[2]} columns of {', '.join(self.backbones)}; views: {views}>"
        )

    @property
    def X(self) -> Features:  # noqa: N802  # scikit-learn's word
        """Features ``(n, columns)`` float32 of the identity view: what scikit-learn takes, with `y` and `groups`."""
        X: Features = self.features[0]
        return X

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Column block of each backbone, in order."""
        return make_blocks({spec.name: spec.dimension for spec in self.specs})

    @property
    def backbones(self) -> tuple[str, ...]:
        """Names of the blocks, in column order: the backbones, and ``covariates`` where some were named."""
        return tuple(spec.name for spec in self.specs)

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the backbones alone, in column order."""
        return tuple(name for name in self.backbones if name != COVARIATES)

    def only(self, images: NDArray[np.intp]) -> FeatureMatrix:
        """Keep some images, by row number; classes stay as they are."""
        return replace(
            self,
            records=tuple(self.records[image] for image in images),
            y=self.y[images],
            groups=self.groups[images],
            features=share_rows(self.features, images),
        )

    def shared(self) -> FeatureMatrix:
        """Return the same with features that several processes hold once; itself, if they are that already."""
        features = as_shared(self.features)
        return self if features is self.features else replace(self, features=features)

    @public
    def columns(self, backbones: Sequence[str]) -> tuple[Block, ...]:
        """Blocks of the named backbones, renumbered to lie side by side."""
        widths = {block.name: block.width for block in self.blocks}
        return make_blocks({name: widths[name] for name in backbones})

    @public
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
