"""Which backbones and views are meant, where the caller leaves it to the store.

Where nothing is said, they are those that the last extraction of these images asked for; where that is not known,
those that are complete. Vectors that were imported for these images are always among them. What is left out is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from featstore.backbones import catalog
from featstore.errors import MissingFeaturesError, UnknownNameError, UsageError
from featstore.findings import Finding
from featstore.images.recipe import parse_recipe
from featstore.matrix.absence import NAMES, incomplete, nothing
from featstore.matrix.holdings import extract_command
from featstore.types import IDENTITY, View

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from featstore.matrix.holdings import Asked, Holdings
    from featstore.store.request import Request
    from featstore.types import BackboneSpec


@dataclass(frozen=True, slots=True)
class Choice:
    """What is loaded: networks in column order, views with the identity first, and what the reader must know."""

    specs: tuple[BackboneSpec, ...]
    views: tuple[View, ...]
    findings: tuple[Finding, ...] = ()


def choose(held: Holdings, asked: Asked, last: Request | None) -> Choice:
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
        raise incomplete(held, specs, views, asked)
    found = [_imported(specs), _left_out(held, specs, views, asked, last)]
    return Choice(tuple(specs), tuple(views), tuple(finding for finding in found if finding is not None))


def _named(held: Holdings, asked: Asked, last: Request | None) -> list[BackboneSpec]:
    """Specs of the names that the caller gave, in that order."""
    names = list(dict.fromkeys(asked.backbones or ()))
    known = {key.backbone.name for key in held.keys}
    for name in names:
        _require_known(name, known)
    specs = {name: _of_name(name, held, asked, last) for name in names}
    absent = [name for name, spec in specs.items() if spec is None or not held.specs[spec]]
    if absent or not names:
        raise nothing(held, asked, absent or None)
    return [spec for spec in specs.values() if spec is not None]


def _unnamed(held: Holdings, asked: Asked, last: Request | None) -> list[BackboneSpec]:
    """Specs by name: those of the last extraction as far as they are complete, else all that are."""
    remembered = {spec.name for spec in last.backbones} | {*asked.named} if last is not None else set()
    for names in (remembered, {spec.name for spec in held.specs}):
        ready = {spec.name for spec in held.specs if held.has_all(spec) and asked.admits(spec)}
        there = (_of_name(name, held, asked, last) for name in sorted(ready.intersection(names)))
        chosen = [spec for spec in there if spec is not None and held.has_all(spec)]
        if chosen:
            imported = [s for s in held.specs if s.is_foreign and held.has_all(s) and s.name not in names]
            return sorted([*chosen, *imported], key=lambda spec: spec.name)
    partly = [spec for spec in _best(held, asked) if held.specs[spec] and asked.expects(spec)]
    if not partly:
        raise nothing(held, asked, None)
    raise incomplete(held, partly, [IDENTITY, *_usual(held, partly)], asked)


def _usual(held: Holdings, specs: Collection[BackboneSpec]) -> list[View]:
    """Augmented views that the networks share for some images, of the recipe that has most of them."""
    own = [spec for spec in specs if not spec.is_foreign]
    views = [view for view, count in held.views(own).items() if count] if own else []
    recipes = sorted({v.recipe for v in views}, key=lambda text: -sum(v.recipe == text for v in views))
    return sorted(view for view in views if view.recipe == recipes[0])


def _of_name(name: str, held: Holdings, asked: Asked, last: Request | None) -> BackboneSpec | None:
    """Spec of a name; None where there is none that fits what was asked."""
    there = [spec for spec in held.specs if spec.name == name and asked.admits(spec)]
    remembered = [spec for spec in there if last is not None and spec in last.backbones]
    if len(remembered) == 1:
        return remembered[0]
    usual = [spec for spec in there if asked.expects(spec)]
    for fewest in (held.images, 1, 0):
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
    spelling = {other.lower(): other for other in sorted(there)}
    close = [spelling[match] for match in get_close_matches(name.lower(), spelling, n=3)]
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    raise UnknownNameError(
        f"There is no backbone {name!r}.",
        f"{hint}`featstore cache ls` lists what is stored, `featstore backbones` what can be.",
    )


def _views(held: Holdings, specs: Collection[BackboneSpec], asked: Asked, last: Request | None) -> list[View]:
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
    if last is not None and _is_of(last, specs):
        return [IDENTITY, *sorted(whole.intersection(last.views))]
    recipes = {view.recipe for view in whole}
    preferred = recipes & _recipes(last)
    if len(recipes) > 1 and len(preferred) != 1:
        raise UsageError(
            f"The store holds augmented views by several recipes: {', '.join(sorted(recipes))}.",
            "Say which: --recipe TEXT, or --seeds none for the identity view alone.",
        )
    return [IDENTITY, *sorted(v for v in whole if len(recipes) == 1 or v.recipe in preferred)]


def _is_of(last: Request, specs: Iterable[BackboneSpec]) -> bool:
    return all(spec.is_foreign or spec in last.backbones for spec in specs)


def _recipes(last: Request | None) -> set[str]:
    return {view.recipe for view in last.views if not view.is_identity} if last is not None else set()


def _recipe_of(text: str | None, held: Mapping[View, int], last: Request | None) -> str:
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
    held: Holdings, specs: Collection[BackboneSpec], text: str, shared: Mapping[View, int]
) -> MissingFeaturesError:
    others = sorted({view.recipe for view, count in shared.items() if count == held.images})
    there = f"those of {', '.join(others)}" if others else "none"
    own = [spec for spec in specs if not spec.is_foreign]
    command = f"{extract_command(own, [IDENTITY, View(text, 1)], held.decoding)}, or " if own else ""
    return MissingFeaturesError(
        f"No view of the recipe {text} is complete for {', '.join(s.name for s in specs)}; complete are: {there}.",
        f"Run {command}leave out --recipe.",
    )


def _imported(specs: Collection[BackboneSpec]) -> Finding | None:
    names = [spec.name for spec in specs if spec.is_foreign]
    own = [spec.name for spec in specs if not spec.is_foreign]
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


def _left_out(
    held: Holdings, specs: list[BackboneSpec], views: list[View], asked: Asked, last: Request | None
) -> Finding | None:
    """What the store has and what does not take part, unless the caller chose it himself."""
    taken = {spec.name for spec in specs}
    others = [s for s in _best(held, asked) if s.name not in taken] if asked.backbones is None else []
    unused, partial = _other_views(held, specs, views, asked, last)
    if not others and not unused and not partial:
        return None
    parts = [f"Taken are {_some([spec.name for spec in specs])} ({_why(held, specs, asked, last)})."]
    if others:
        parts.append(f"Left out: {_some([_state(held, spec, asked) for spec in others])}.")
    if unused:
        parts.append(f"{unused} augmented views are complete and were not asked for.")
    if partial:
        parts.append(f"{partial} augmented views are not complete for all of these, and take no part.")
    return Finding("FS405", " ".join(parts), len(others), remedy=_cure(held, specs, views, others, asked))


def _other_views(
    held: Holdings, specs: list[BackboneSpec], views: list[View], asked: Asked, last: Request | None
) -> tuple[int, int]:
    """Number of augmented views that are complete and not taken, and that are not complete."""
    if asked.seeds is not None or asked.recipe is not None:
        return 0, 0
    shared = held.views(specs)
    wanted = last.views if last is not None and _is_of(last, specs) else ()
    partial = {v for v, count in shared.items() if count < held.images} | ({*wanted} - {*views})
    return len({*shared} - partial - {*views}), len(partial)


def _why(held: Holdings, specs: list[BackboneSpec], asked: Asked, last: Request | None) -> str:
    if asked.backbones is not None:
        return "named"
    if last is not None and _is_of(last, specs):
        return "asked for by the last extract of these images"
    return f"complete for all {held.images} images"


def _best(held: Holdings, asked: Asked) -> list[BackboneSpec]:
    """By name, the spec that comes nearest to what is asked: complete and as expected, else with most images."""
    order = sorted(
        held.specs, key=lambda s: (held.has_all(s) and asked.expects(s), held.specs[s], asked.expects(s))
    )
    best = {spec.name: spec for spec in order}
    return [best[name] for name in sorted(best)]


def _state(held: Holdings, spec: BackboneSpec, asked: Asked) -> str:
    count = held.specs[spec]
    extent = f"all {count} images" if count == held.images else held.phrase(count)
    return f"{spec.name} ({extent})" if asked.expects(spec) else f"{spec.name} ({extent}, {spec.precision})"


def _cure(
    held: Holdings, specs: list[BackboneSpec], views: list[View], others: list[BackboneSpec], asked: Asked
) -> str:
    """What to do to have others; every command line does it when typed."""
    done = "Nothing needs to be done"
    taken = [spec.name for spec in specs]
    ready = [spec.name for spec in others if held.has_all(spec) and asked.expects(spec)]
    partly = [spec for spec in others if asked.expects(spec) and not spec.is_foreign]
    if not others:
        return f"{done}; to choose views: --recipe and --seeds."
    if ready:
        return f"{done}; to take more in, name all that are wanted: --backbones {','.join([*taken, *ready])}"
    if partly:
        own = [spec for spec in [*specs, *partly] if not spec.is_foreign]
        return f"{done}; to take more in: {extract_command(own, views, held.decoding)}"
    return f"{done}."


def _some(names: list[str]) -> str:
    more = [f"{len(names) - NAMES} more"] if len(names) > NAMES else []
    return ", ".join([*names[:NAMES], *more])
