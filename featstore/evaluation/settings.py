"""The parameters that a user gives a strategy: by preset, by name, or from an earlier run."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from featstore import registry
from featstore.errors import UnknownNameError, UsageError, did_you_mean
from featstore.evaluation.contestants import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def gather(strategy: str, preset: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a preset, overridden by `options`.

    Raises
    ------
    UnknownNameError
        If the strategy has no such preset or parameter.
    """
    known = inspect.signature(registry.load(STRATEGIES, strategy)).parameters
    names = [name for name in known if name != "blocks"]
    unknown = sorted(set(options) - set(names))
    if unknown:
        raise UnknownNameError(
            f"{strategy} has no parameter {', '.join(unknown)}.", did_you_mean(unknown[0], names)
        )
    return {**_preset(strategy, preset), **options}


@contextmanager
def blamed_on(options: Mapping[str, Any]) -> Iterator[None]:
    """Where the user has set parameters, what scikit-learn cannot make sense of is about them."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not options or isinstance(error, UsageError):
            raise
        given = ", ".join(f"{name}={value}" for name, value in options.items())
        raise UsageError(
            f"It cannot be trained with {given}: {error}", "Set the parameters as documented."
        ) from error


def _preset(strategy: str, preset: str | None) -> Mapping[str, Any]:
    presets: dict[str, dict[str, Any]] = getattr(registry.load(STRATEGIES, strategy), "PRESETS", {})
    if preset is None:
        return {}
    if preset not in presets:
        raise UnknownNameError(
            f"{strategy} has no preset {preset!r}.",
            did_you_mean(preset, presets)
            if presets
            else "It has none; its parameters are given by --set NAME=VALUE.",
        )
    return presets[preset]
