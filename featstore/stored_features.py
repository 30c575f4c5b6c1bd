"""Features that a store holds of the images of one data set, and what to do about those that are missing."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from featstore.backbones import catalog
from featstore.backbones.weights import resolve_weights
from featstore.errors import FeatstoreError, MissingFeaturesError
from featstore.findings import Finding
from featstore.images.reading import decoder_version
from featstore.images.recipe import range_option
from featstore.store.shard import IdSet
from featstore.types import IDENTITY, PLUG_IN, BackboneSpec, Computation, Decoding, FeatureKey, View

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from featstore.store.notes import ExtractionRequest
    from featstore.store.store import Store


# What is stored, and how to ask for it on the command line

PREPROCESS, PRECISION = "official", "float32"
"""What is meant where neither the caller nor the last extraction says."""
SEEDED = re.compile(r"random:(\d+) ")


@dataclass(frozen=True)
class FeatureQuery:
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
        return spec.is_imported or (
            self.preprocess in {None, spec.preprocess} and self.precision in {None, spec.precision}
        )

    def expects(self, spec: BackboneSpec) -> bool:
        """Whether it is what is meant where nothing more is known."""
        usual = (self.preprocess or PREPROCESS, self.precision or PRECISION)
        return self.admits(spec) and (spec.is_imported or (spec.preprocess, spec.precision) == usual)


class StoredFeatures:
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

    def best(self, asked: FeatureQuery) -> list[BackboneSpec]:
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
    """``--range=LOW,HIGH`` or ``--window=file`` of a decoding that has one, else nothing."""
    return "" if decoding.value_range is None else range_option(decoding.value_range)


def _runs(seeds: Iterable[int]) -> str:
    """``1-4,7``."""
    runs: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


# Features that were asked for and are not there: what is there instead, and how to compute or import it

GROUPS = 3
NAMES = 10


@dataclass(frozen=True, slots=True, order=True)
class Alternative:
    """How features of these images can be had that were asked for otherwise.

    Attributes
    ----------
    lost
        Why they cannot: computed by an earlier featstore or another decoder; empty if they can.
    flags
        What to add to the command.
    dropped
        What to leave out of it.
    """

    lost: str = ""
    flags: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    def __str__(self) -> str:
        """``with --range=0,4080``; empty where nothing has to be said."""
        parts = [f"with {' '.join(self.flags)}"] if self.flags else []
        parts += [f"without {' '.join(self.dropped)}"] if self.dropped else []
        return " and ".join([*parts, *([self.lost] if self.lost else [])])

    @property
    def remedy(self) -> str:
        """What to do about it in the command that failed."""
        parts = [f"Give {' '.join(self.flags)}"] if self.flags else []
        parts += [f"{'leave' if parts else 'Leave'} out {' '.join(self.dropped)}"] if self.dropped else []
        return f"{' and '.join(parts)}."


def nothing_stored_error(
    held: StoredFeatures, asked: FeatureQuery, names: Collection[str] | None
) -> MissingFeaturesError:
    """Error for networks (all, where `names` is None) of which the store has nothing that was asked for."""
    found = _there(held, asked, names)
    there = {way: counts for way, counts in found.items() if way.lost or way.flags or way.dropped} or found
    what = "features" if names is None else f"{', '.join(names)} features"
    if not there:
        return _never_stored_error(held, asked, names, what)
    ways = sorted(
        there,
        key=lambda way: (way.lost, -max(there[way].values()), len(way.flags + way.dropped), str(way)),
    )
    listed = "; ".join(f"{_listed(held, there[way])} {way}" for way in ways[:GROUPS])
    cause = f"There are no {what} of these images in {held.store.root} as asked for. There are: {listed}."
    best = ways[0]
    if best.lost:
        return MissingFeaturesError(cause, f"Compute them again: {_again(held, there[best])}.")
    return MissingFeaturesError(cause, best.remedy)


def incomplete_error(
    held: StoredFeatures, specs: Sequence[BackboneSpec], views: Sequence[View], asked: FeatureQuery
) -> MissingFeaturesError:
    """Error for networks of which some images lack a vector in some view."""
    augmented = [view for view in views if not view.is_identity]
    lines = [_count_line(held, spec, augmented) for spec in specs]
    cause = f"Not all images have the features that were asked for: {'; '.join(filter(None, lines))}."
    return MissingFeaturesError(cause, _complete(held, specs, views, asked))


def unfinished_error(
    held: StoredFeatures,
    specs: Sequence[BackboneSpec],
    others: int,
    views: Sequence[View],
    asked: FeatureQuery,
) -> MissingFeaturesError:
    """Error where nothing was asked for, and no network has all images.

    Parameters
    ----------
    held, views, asked
        As for `incomplete_error`.
    specs
        Those of the last extraction, or those that have the most.
    others
        How many more have some.
    """
    more = f", and {others} more {'has' if others == 1 else 'have'} some" if others else ""
    augmented = [view for view in views if not view.is_identity]
    lines = [_count_line(held, spec, augmented) for spec in specs]
    beyond = [f"{len(lines) - NAMES} more"] if len(lines) > NAMES else []
    listed = "; ".join([*lines[:NAMES], *beyond])
    cause = f"No network in {held.store.root} has features of all {held.images} images: {listed}{more}."
    return MissingFeaturesError(cause, _complete(held, specs, views, asked))


def _complete(
    held: StoredFeatures, specs: Sequence[BackboneSpec], views: Sequence[View], asked: FeatureQuery
) -> str:
    """Remedy: compute, import, or go on with what is there."""
    lacking = [spec for spec in specs if not _has(held, spec, views)]
    foreign = [spec.name for spec in lacking if spec.is_imported]
    own = [spec for spec in specs if not spec.is_imported]
    ready = sorted({s.name for s in held.specs if asked.expects(s) and _has(held, s, views)})
    parts = []
    if len(foreign) < len(lacking):
        parts.append(f"Compute what is missing: {extract_command(own, views, held.decoding)}")
    if foreign:
        verb = "import" if parts else "Import"
        parts.append(f"{verb} a file that has them: featstore cache import DATA FILE --name {foreign[0]}")
    if ready:
        parts.append(f"or go on with --backbones {','.join(ready[:NAMES])}")
    return f"{', '.join(parts)}."


def _has(held: StoredFeatures, spec: BackboneSpec, views: Sequence[View]) -> bool:
    return held.has_all(spec) and all(n == held.images for n in held.shared([spec], views).values())


def _count_line(held: StoredFeatures, spec: BackboneSpec, augmented: Sequence[View]) -> str:
    parts = [] if held.has_all(spec) else [held.phrase(held.specs.get(spec, 0))]
    lacking = [n for n in held.shared([spec], augmented).values() if n < held.images]
    if lacking:
        parts.append(f"{held.phrase(min(lacking))} in {len(lacking)} of {len(augmented)} augmented views")
    return f"{spec.name} {' and '.join(parts)}" if parts else ""


def _never_stored_error(
    held: StoredFeatures, asked: FeatureQuery, names: Collection[str] | None, what: str
) -> MissingFeaturesError:
    """None of these images has any such vector, in whatever way."""
    needs = held.decoding.value_range is None and held.deep()
    flag = "--range=LOW,HIGH" if needs else range_flag(held.decoding)
    span = f" {flag}" if flag else ""
    why = " LOW is black and HIGH is white in these 16-bit or float images." if needs else ""
    if not held.keys:
        return MissingFeaturesError(
            f"There are no features in {held.store.root}.",
            f"Run `featstore extract DATA{span}` first, or say where the store is: --cache FOLDER.{why}",
        )
    others = {spec.name: n for spec, n in held.specs.items() if n and asked.expects(spec)}
    also = f" There are: {_listed(held, others)}." if others else ""
    first = f"featstore extract DATA{' --backbones ' + ','.join(names) if names else ''}{span}"
    cause = f"There are no {what} of these {held.images} images in {held.store.root}.{also}"
    ready = [name for name, n in sorted(others.items()) if n == held.images]
    rest = f" Or go on with --backbones {','.join(ready)}." if ready else ""
    return MissingFeaturesError(cause, f"Run `{first}` first.{why}{rest}")


def _there(
    held: StoredFeatures, asked: FeatureQuery, names: Collection[str] | None
) -> dict[Alternative, dict[str, int]]:
    """Images by network, and by the way in which they can be had."""
    wanted = [
        key for key in held.keys if key.view.is_identity and (names is None or key.backbone.name in names)
    ]
    found: defaultdict[Alternative, dict[str, int]] = defaultdict(dict)
    for key, count in held.counts(wanted).items():
        if count:
            mine = found[_alternative(key, held, asked)]
            mine[key.backbone.name] = max(count, mine.get(key.backbone.name, 0))
    return dict(found)


def _alternative(key: FeatureKey, held: StoredFeatures, asked: FeatureQuery) -> Alternative:
    flags: list[str] = []
    dropped: list[str] = []
    spec, span = key.backbone, key.decoding.value_range
    if span != held.decoding.value_range:
        (dropped if span is None else flags).append("--range" if span is None else range_flag(key.decoding))
    if not spec.is_imported and spec.preprocess != (asked.preprocess or PREPROCESS):
        flags.append(f"--preprocess {spec.preprocess}")
    if not spec.is_imported and spec.precision != (asked.precision or PRECISION):
        flags.append(f"--precision {spec.precision}")
    if asked.digests.get(spec.name, spec.weights) != spec.weights:
        choice = weights_choice(spec)
        (flags if choice else dropped).append(f"--weights {spec.name}={choice}" if choice else "--weights")
    return Alternative(_lost(key, held), tuple(flags), tuple(dropped))


def _lost(key: FeatureKey, held: StoredFeatures) -> str:
    if replace(key.decoding, value_range=held.decoding.value_range) != held.decoding:
        return f"decoded by {key.decoding.decoder}, and this machine has {decoder_version()}"
    return "" if key.backbone.is_current else "computed by an earlier featstore"


def _again(held: StoredFeatures, names: Collection[str]) -> str:
    specs = {key.backbone.name: key.backbone for key in held.keys if key.backbone.name in names}
    return extract_command(list(specs.values()), [IDENTITY], held.decoding)


def _listed(held: StoredFeatures, counts: dict[str, int]) -> str:
    shown = [f"{name} ({held.phrase(n)})" for name, n in sorted(counts.items())]
    more = [f"{len(shown) - NAMES} more"] if len(shown) > NAMES else []
    return ", ".join([*shown[:NAMES], *more])


# What a reader must know of the features that were chosen: what was imported, and what was left out


def engines_finding(computations: Mapping[FeatureKey, Collection[Computation]]) -> Finding | None:
    """FS412 where vectors of several engines meet, or those of one network were computed by several."""
    engines: dict[str, set[str]] = {}
    for key, found in computations.items():
        names = {one.engine for one in found if one.engine is not None}
        engines.setdefault(key.backbone.name, set()).update(names)
    everywhere = {engine for names in engines.values() for engine in names} - {PLUG_IN}
    if len(everywhere) < 2 and all(len(names) < 2 for names in engines.values()):  # noqa: PLR2004
        return None
    listed = [f"{name} by {' and '.join(sorted(names))}" for name, names in sorted(engines.items()) if names]
    return Finding(
        "FS412", f"Vectors of several engines are in one matrix: {'; '.join(listed)}.", len(listed)
    )


def imported_finding(specs: Collection[BackboneSpec]) -> Finding | None:
    """FS404 where vectors take part that another program computed."""
    names = [spec.name for spec in specs if spec.is_imported]
    own = [spec.name for spec in specs if not spec.is_imported]
    if not names:
        return None
    cure = (
        f": --backbones {','.join(own)}"
        if own
        else " with networks that featstore computes: featstore extract DATA"
    )
    return Finding(
        "FS404",
        f"{_some(names)}: not computed here, but imported. Nobody can tell whether such vectors contain the label.",
        len(names),
        remedy=f"Say in the paper where they come from, and compare without them{cure}",
    )


def left_out_findings(
    held: StoredFeatures,
    specs: list[BackboneSpec],
    views: list[View],
    asked: FeatureQuery,
    last: ExtractionRequest | None,
) -> Finding | None:
    """What the store has and what does not take part, unless the caller chose it himself."""
    taken = {spec.name for spec in specs}
    others = [s for s in held.best(asked) if s.name not in taken] if asked.backbones is None else []
    unused, partial = _other_views(held, specs, views, asked, last)
    if not others and not unused and not partial:
        return None
    parts = [f"Taken are {_some([spec.name for spec in specs])} ({_why(held, specs, asked, last)})."]
    if others:
        parts.append(f"Left out: {_some([_state(held, spec, asked) for spec in others])}.")
    if unused:
        parts.append(f"Complete and not asked for: {_views(unused)}.")
    if partial:
        parts.append(f"Not complete for all of these, and left out: {_views(partial)}.")
    return Finding("FS405", " ".join(parts), len(others), remedy=_remedy(held, specs, views, others, asked))


def _other_views(
    held: StoredFeatures,
    specs: list[BackboneSpec],
    views: list[View],
    asked: FeatureQuery,
    last: ExtractionRequest | None,
) -> tuple[int, int]:
    """Number of augmented views that are complete and not taken, and that are not complete."""
    if asked.seeds is not None or asked.recipe is not None:
        return 0, 0
    shared = held.views(specs)
    wanted = last.views if last is not None and last.covers(specs) else ()
    partial = {v for v, count in shared.items() if count < held.images} | ({*wanted} - {*views})
    return len({*shared} - partial - {*views}), len(partial)


def _why(
    held: StoredFeatures, specs: list[BackboneSpec], asked: FeatureQuery, last: ExtractionRequest | None
) -> str:
    if asked.backbones is not None:
        return "named"
    if last is not None and last.covers(specs):
        return "asked for by the last extract of these images"
    return f"complete for all {held.images} images"


def _views(number: int) -> str:
    return f"{number} augmented view{'s' if number > 1 else ''}"


def _state(held: StoredFeatures, spec: BackboneSpec, asked: FeatureQuery) -> str:
    count = held.specs[spec]
    extent = f"all {count} images" if count == held.images else held.phrase(count)
    return f"{spec.name} ({extent})" if asked.expects(spec) else f"{spec.name} ({extent}, {spec.precision})"


def _remedy(
    held: StoredFeatures,
    specs: list[BackboneSpec],
    views: list[View],
    others: list[BackboneSpec],
    asked: FeatureQuery,
) -> str:
    """What to do to have others; every command line does it when typed."""
    done = "Nothing needs to be done"
    taken = [spec.name for spec in specs]
    ready = [spec.name for spec in others if held.has_all(spec) and asked.expects(spec)]
    partly = [spec for spec in others if asked.expects(spec) and not spec.is_imported]
    if not others:
        return f"{done}; to choose views: --recipe and --seeds."
    if ready:
        return f"{done}; to take more in, name all that are wanted: --backbones {','.join([*taken, *ready])}"
    if partly:
        own = [spec for spec in [*specs, *partly] if not spec.is_imported]
        return f"{done}; to take more in: {extract_command(own, views, held.decoding)}"
    return f"{done}."


def _some(names: list[str]) -> str:
    more = [f"{len(names) - NAMES} more"] if len(names) > NAMES else []
    return ", ".join([*names[:NAMES], *more])
