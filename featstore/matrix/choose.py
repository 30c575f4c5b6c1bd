"""Which backbones and views are meant, where the caller leaves it to the store."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from featstore.errors import MissingFeaturesError, UnknownNameError, UsageError, did_you_mean
from featstore.images.recipe import parse_recipe
from featstore.types import IDENTITY, BackboneSpec, View

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from featstore.types import FeatureKey


def choose_specs(
    found: Sequence[FeatureKey],
    backbones: Sequence[str] | None,
    digests: Mapping[str, str | None],
    cache: Path,
    known: Collection[str] = (),
) -> list[BackboneSpec]:
    """Spec of each wanted backbone, in order; all that were found where none are named.

    Parameters
    ----------
    found
        Feature keys in the store.
    backbones
        Names, or None.
    digests
        Digest of the weights by name, where the caller has chosen.
    cache
        The store's folder, for messages.
    known
        Names of all networks, here or in the store; of others there cannot be any features.

    Raises
    ------
    MissingFeaturesError
        If a backbone has no features.
    UnknownNameError
        If there is no such backbone.
    UsageError
        If it has features by several weights and the caller has not chosen.
    """
    by_name: defaultdict[str, set[BackboneSpec]] = defaultdict(set)
    for key in found:
        spec = key.backbone
        if digests.get(spec.name, spec.weights) == spec.weights:
            by_name[spec.name].add(spec)
    names = list(dict.fromkeys(backbones)) if backbones is not None else sorted(by_name)
    if not names:
        raise MissingFeaturesError(
            f"There are no features in {cache}.", "Run `featstore extract` on the data first."
        )
    for name in names:
        if known and name not in known:
            raise UnknownNameError(
                f"There is no backbone {name!r}.", did_you_mean(name, by_name or known, "featstore cache ls")
            )
    return [_only_spec(name, by_name.get(name, set()), cache) for name in names]


def _only_spec(name: str, specs: Collection[BackboneSpec], cache: Path) -> BackboneSpec:
    if not specs:
        raise MissingFeaturesError(
            f"There are no {name} features in {cache} that fit (weights, preprocessing, decoder).",
            f"Run `featstore extract DATA --backbones {name}`, or list what is there: `featstore cache ls`.",
        )
    if len(specs) > 1:
        have = ", ".join(sorted(spec.weights for spec in specs))
        raise UsageError(
            f"The store holds {name} with several weights: {have}.",
            f"Say which: --weights {name}=CHOICE, as given to `featstore extract`.",
        )
    return next(iter(specs))


def choose_views(
    found: Sequence[FeatureKey],
    specs: Sequence[BackboneSpec],
    recipe: str | None,
    seeds: Collection[int] | None,
) -> list[View]:
    """Identity first, then the augmented views: those asked for, else all that the backbones share.

    Raises
    ------
    UsageError
        If the store holds several recipes and the caller has not chosen.
    """
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
