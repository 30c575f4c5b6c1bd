"""Which backbones and views are meant, where the caller leaves it to the store.

Where nothing is said, they are those that the last extraction of these images asked for; where that is not known,
those that are complete. Vectors that were imported for these images are always among them. What is left out is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from featstore.backbones import catalog
from featstore.errors import MissingFeaturesError, UnknownNameError, UsageError, nearest
from featstore.images.recipe import parse_recipe
from featstore.matrix.absence import incomplete, nothing, unfinished
from featstore.matrix.holdings import extract_command
from featstore.matrix.notes import imported, left_out
from featstore.types import IDENTITY, View

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from featstore.findings import Finding
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
    found = [imported(specs), left_out(held, specs, views, asked, last)]
    return Choice(tuple(specs), tuple(views), tuple(finding for finding in found if finding is not None))


def _named(held: Holdings, asked: Asked, last: Request | None) -> list[BackboneSpec]:
    """Specs of the names that the caller gave, in that order."""
    names = list(dict.fromkeys(asked.backbones or ()))
    if not names:
        raise UsageError("No backbone is named.", "Give --backbones A,B, or leave it out.")
    known = {key.backbone.name for key in held.keys}
    for name in names:
        _require_known(name, known)
    specs = {name: _of_name(name, held, asked, last) for name in names}
    absent = [name for name, spec in specs.items() if spec is None or not held.specs[spec]]
    if absent:
        raise nothing(held, asked, absent)
    return [spec for spec in specs.values() if spec is not None]


def _unnamed(held: Holdings, asked: Asked, last: Request | None) -> list[BackboneSpec]:
    """Specs by name: those of the last extraction as far as they are complete, else all that are."""
    remembered = {spec.name for spec in last.backbones} | {*asked.named} if last is not None else set()
    for names in (remembered, {spec.name for spec in held.specs}):
        ready = {spec.name for spec in held.specs if held.has_all(spec) and asked.admits(spec)}
        there = (_of_name(name, held, asked, last) for name in sorted(ready.intersection(names)))
        chosen = [spec for spec in there if spec is not None and held.has_all(spec)]
        if chosen:
            foreign = [s for s in held.specs if s.is_foreign and held.has_all(s) and s.name not in names]
            return sorted([*chosen, *foreign], key=lambda spec: spec.name)
    partly = [spec for spec in held.best(asked) if held.specs[spec] and asked.expects(spec)]
    if not partly:
        raise nothing(held, asked, None)
    wanted = [spec for spec in partly if spec.name in remembered]
    most = max(held.specs[spec] for spec in partly)
    wanted = wanted or [spec for spec in partly if held.specs[spec] == most]
    raise unfinished(held, wanted, len(partly) - len(wanted), [IDENTITY, *_usual(held, wanted)], asked)


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
