"""Features that were asked for and are not there: what is there instead, and how to ask for it or compute it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from featstore.errors import MissingFeaturesError
from featstore.images.decode import decoder_version
from featstore.matrix.holdings import PRECISION, PREPROCESS, extract_command, range_flag, weights_choice
from featstore.types import IDENTITY

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from featstore.matrix.holdings import Asked, Holdings
    from featstore.types import BackboneSpec, FeatureKey, View

GROUPS = 3
NAMES = 10


@dataclass(frozen=True, slots=True, order=True)
class Way:
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


def nothing(held: Holdings, asked: Asked, names: Collection[str] | None) -> MissingFeaturesError:
    """Error for networks (all, where `names` is None) of which the store has nothing that was asked for."""
    there = _there(held, asked, names)
    what = "features" if names is None else f"{', '.join(names)} features"
    if not there:
        return _never(held, asked, names, what)
    ways = sorted(there, key=lambda way: (way.lost, -max(there[way].values()), str(way)))
    listed = "; ".join(f"{_listed(held, there[way])} {way}" for way in ways[:GROUPS])
    cause = f"There are no {what} of these images in {held.store.root} as asked for. There are: {listed}."
    best = ways[0]
    if best.lost:
        return MissingFeaturesError(cause, f"Compute them again: {_again(held, there[best])}.")
    return MissingFeaturesError(cause, best.remedy)


def incomplete(
    held: Holdings, specs: Sequence[BackboneSpec], views: Sequence[View], asked: Asked
) -> MissingFeaturesError:
    """Error for networks of which some images lack a vector in some view."""
    augmented = [view for view in views if not view.is_identity]
    lines = [_count_line(held, spec, augmented) for spec in specs]
    cause = f"Not all images have the features that were asked for: {'; '.join(filter(None, lines))}."
    return MissingFeaturesError(cause, _complete(held, specs, views, asked))


def unfinished(
    held: Holdings, specs: Sequence[BackboneSpec], others: int, views: Sequence[View], asked: Asked
) -> MissingFeaturesError:
    """Error where nothing was asked for, and no network has all images.

    Parameters
    ----------
    held, views, asked
        As for `incomplete`.
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


def _complete(held: Holdings, specs: Sequence[BackboneSpec], views: Sequence[View], asked: Asked) -> str:
    """Remedy: compute, import, or go on with what is there."""
    lacking = [spec for spec in specs if not _has(held, spec, views)]
    foreign = [spec.name for spec in lacking if spec.is_foreign]
    own = [spec for spec in specs if not spec.is_foreign]
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


def _has(held: Holdings, spec: BackboneSpec, views: Sequence[View]) -> bool:
    return held.has_all(spec) and all(n == held.images for n in held.shared([spec], views).values())


def _count_line(held: Holdings, spec: BackboneSpec, augmented: Sequence[View]) -> str:
    parts = [] if held.has_all(spec) else [held.phrase(held.specs.get(spec, 0))]
    lacking = [n for n in held.shared([spec], augmented).values() if n < held.images]
    if lacking:
        parts.append(f"{held.phrase(min(lacking))} in {len(lacking)} of {len(augmented)} augmented views")
    return f"{spec.name} {' and '.join(parts)}" if parts else ""


def _never(held: Holdings, asked: Asked, names: Collection[str] | None, what: str) -> MissingFeaturesError:
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


def _there(held: Holdings, asked: Asked, names: Collection[str] | None) -> dict[Way, dict[str, int]]:
    """Images by network, and by the way in which they can be had."""
    wanted = [
        key for key in held.keys if key.view.is_identity and (names is None or key.backbone.name in names)
    ]
    found: defaultdict[Way, dict[str, int]] = defaultdict(dict)
    for key, count in held.counts(wanted).items():
        if count:
            mine = found[_way(key, held, asked)]
            mine[key.backbone.name] = max(count, mine.get(key.backbone.name, 0))
    return dict(found)


def _way(key: FeatureKey, held: Holdings, asked: Asked) -> Way:
    flags: list[str] = []
    dropped: list[str] = []
    spec, span = key.backbone, key.decoding.value_range
    if span != held.decoding.value_range:
        (dropped if span is None else flags).append("--range" if span is None else range_flag(key.decoding))
    if not spec.is_foreign and spec.preprocess != (asked.preprocess or PREPROCESS):
        flags.append(f"--preprocess {spec.preprocess}")
    if not spec.is_foreign and spec.precision != (asked.precision or PRECISION):
        flags.append(f"--precision {spec.precision}")
    if asked.digests.get(spec.name, spec.weights) != spec.weights:
        choice = weights_choice(spec)
        (flags if choice else dropped).append(f"--weights {spec.name}={choice}" if choice else "--weights")
    return Way(_lost(key, held), tuple(flags), tuple(dropped))


def _lost(key: FeatureKey, held: Holdings) -> str:
    if replace(key.decoding, value_range=held.decoding.value_range) != held.decoding:
        return f"decoded by {key.decoding.decoder}, and this machine has {decoder_version()}"
    return "" if key.backbone.is_current else "computed by an earlier featstore"


def _again(held: Holdings, names: Collection[str]) -> str:
    specs = {key.backbone.name: key.backbone for key in held.keys if key.backbone.name in names}
    return extract_command(list(specs.values()), [IDENTITY], held.decoding)


def _listed(held: Holdings, counts: dict[str, int]) -> str:
    shown = [f"{name} ({held.phrase(n)})" for name, n in sorted(counts.items())]
    more = [f"{len(shown) - NAMES} more"] if len(shown) > NAMES else []
    return ", ".join([*shown[:NAMES], *more])
