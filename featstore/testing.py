"""Contracts of the extension points, as assertions: what our own tests put to each strategy, executor and metric.

Each function takes a plug-in of yours and raises `AssertionError` with one sentence about what it breaks.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.metrics import Metric
    from featstore.types import Executor

    Check = Any


def _require(right: object, otherwise: str) -> None:
    if not right:
        raise AssertionError(otherwise)


# Strategies

WIDTHS = {"wide": 30, "narrow": 6, "noise": 12}
"""Columns of the blocks that strategies are tried with."""
LEVELS = ("feature", "decision", "floor")


def blocky(
    n: int = 90, n_classes: int = 2, seed: int = 0, widths: dict[str, int] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Skewed, non-negative features like pooled ReLUs: every block but "noise" knows something about the class.

    Returns
    -------
    Features ``(n, columns)`` and class indices ``(n,)``.
    """
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    parts = []
    for name, width in (widths or WIDTHS).items():
        signal = 0 if name == "noise" else 1.2
        centres = rng.normal(size=(n_classes, width)) * signal
        parts.append(np.maximum(centres[y] + rng.normal(size=(n, width)), 0) * rng.lognormal(size=width))
    return np.concatenate(parts, axis=1).astype(np.float32), y


def make_strategy(kind: type, **parameters: Any) -> Any:  # noqa: ANN401
    """Unfitted strategy over the blocks of `WIDTHS`, with a fixed seed if it takes one."""
    from featstore.fusion.blocks import make_blocks

    seeded = {"random_state": 0} if "random_state" in inspect.signature(kind).parameters else {}
    return kind(**{"blocks": make_blocks(WIDTHS), **seeded, **parameters})


def check_strategy(cls: type) -> None:
    """Check that a class is a fusion strategy that can be compared, saved and read back.

    Parameters
    ----------
    cls
        Subclass of `featstore.fusion.strategy.FusionStrategy`, unfitted. Its parameters need defaults.

    Raises
    ------
    AssertionError
        If it breaks a promise; the text says which.

    Examples
    --------
    >>> from featstore.fusion.strategies.soft_vote import SoftVote
    >>> from featstore.testing import check_strategy
    >>> check_strategy(SoftVote)
    """
    for check in STRATEGY_CHECKS:
        check(cls)


def check_strategy_facts(cls: type) -> None:
    """`level` and `min_blocks` are told, a docstring begins with a line of its own."""
    from featstore.fusion.strategy import FusionStrategy

    _require(issubclass(cls, FusionStrategy), f"{cls.__name__} is no subclass of FusionStrategy.")
    level = getattr(cls, "level", None)
    _require(level in LEVELS, f"{cls.__name__}.level is {level!r}, not one of {', '.join(LEVELS)}.")
    _require(getattr(cls, "min_blocks", 0) >= 1, f"{cls.__name__}.min_blocks is below 1.")
    _require(
        (cls.__doc__ or "").strip(),
        f"{cls.__name__} has no docstring, whose first line would be its summary.",
    )


def check_strategy_constructor(cls: type) -> None:
    """The constructor stores its parameters and does nothing else, as scikit-learn's ``clone`` needs it."""
    from sklearn.base import clone

    strategy = make_strategy(cls)
    given = strategy.get_params(deep=False)
    _require(vars(strategy) == given, f"{cls.__name__}.__init__ does more than store its parameters.")
    again = clone(strategy).get_params(deep=False)
    _require(
        all(again[name] == value for name, value in given.items()), f"A clone of {cls.__name__} is another."
    )


def check_strategy_probabilities(cls: type) -> None:
    """Probabilities are float64, not negative, and sum to one; their peak is the prediction."""
    for n_classes in (2, 3):
        X, y = blocky(n_classes=n_classes)
        strategy = make_strategy(cls).fit(X, y)
        far = np.concatenate([X, 1e6 * X, -1e6 * X])
        proba = strategy.predict_proba(far)
        what = f"predict_proba of {cls.__name__}"
        _require(proba.shape == (len(far), n_classes), f"{what} has the shape {proba.shape}.")
        _require(proba.dtype == np.float64, f"{what} is {proba.dtype}, not float64.")
        _require((proba >= 0).all(), f"{what} goes below 0.")
        _require(np.abs(proba.sum(axis=1) - 1).max() <= 1e-12, f"{what} does not sum to 1.")  # noqa: PLR2004
        peak = strategy.classes_[proba.argmax(axis=1)]
        _require(
            (strategy.predict(far) == peak).all(),
            f"predict of {cls.__name__} is not the most probable class.",
        )


def check_strategy_refit(cls: type) -> None:
    """Fitting again gives the same bytes."""
    X, y = blocky()
    first, second = make_strategy(cls).fit(X, y), make_strategy(cls).fit(X, y)
    expected = first.predict_proba(X).tobytes()
    _require(
        second.predict_proba(X).tobytes() == expected, f"Two fits of {cls.__name__} on the same data differ."
    )
    _require(
        second.fit(X, y).predict_proba(X).tobytes() == expected, f"{cls.__name__} remembers its last fit."
    )


def check_strategy_notation(cls: type) -> None:
    """What it has learned can be saved without a pickle, and predicts the same bytes when it is read back.

    The class has to be one that `featstore.registry` finds; one that is not named yet is left out.
    """
    from featstore import registry
    from featstore.fusion.model_io import export_model, restore_model
    from featstore.fusion.strategy import FOLDER

    if registry.name_of(FOLDER, cls) is None:
        return
    X, y = blocky()
    strategy = make_strategy(cls).fit(X, y)
    restored = restore_model(*export_model(strategy))
    _require(type(restored) is cls, f"{cls.__name__} is read back as {type(restored).__name__}.")
    same = restored.predict_proba(X).tobytes() == strategy.predict_proba(X).tobytes()
    _require(same, f"{cls.__name__} predicts something else when it is read back.")


STRATEGY_CHECKS: tuple[Check, ...] = (
    check_strategy_facts,
    check_strategy_constructor,
    check_strategy_probabilities,
    check_strategy_refit,
    check_strategy_notation,
)
"""What `check_strategy` checks, one after the other."""


# Executors


def double(number: int) -> int:
    """Work that succeeds."""
    return 2 * number


def fail(text: str) -> None:
    """Work that fails as an image does."""
    from featstore.errors import BadImageError

    raise BadImageError("truncated", text)


def check_executor(executor: Executor) -> None:
    """Check that an executor does every item once and hands an error on as it is.

    Parameters
    ----------
    executor
        One that is set up; see `featstore.types.Executor`.

    Raises
    ------
    AssertionError
        If it breaks a promise; the text says which.

    Examples
    --------
    >>> from featstore.executors.serial import Serial
    >>> from featstore.testing import check_executor
    >>> check_executor(Serial())
    """
    name = type(executor).__name__
    for fact, kind in (("in_process", bool), ("workers", int)):
        _require(isinstance(getattr(executor, fact, None), kind), f"{name}.{fact} is no {kind.__name__}.")
    for count in (0, 1, 7):
        check_every_item_once(executor, range(count))
    check_error_arrives(executor)


def check_every_item_once(executor: Executor, items: Sequence[int]) -> None:
    """Every item is done once, in whatever order."""
    done = sorted(executor.run(double, items))
    expected = [double(item) for item in items]
    _require(
        done == expected,
        f"{type(executor).__name__} made {done[:20]} of {len(items)} items, not {expected[:20]}.",
    )


def check_error_arrives(executor: Executor) -> None:
    """An error of the work arrives as it is, with its fields."""
    from featstore.errors import BadImageError

    name = type(executor).__name__
    try:
        list(executor.run(fail, ["8 bytes are missing"]))
    except BadImageError as error:
        told = error.reason, error.detail
        _require(told == ("truncated", "8 bytes are missing"), f"{name} hands on an error as {told}.")
    except Exception as error:
        raise AssertionError(f"{name} hands a BadImageError on as {type(error).__name__}.") from error
    else:
        raise AssertionError(f"{name} swallows an error of the work.")


# Metrics


def check_metric(metric: Metric) -> None:
    """Check that a row of the table of metrics can be computed, resampled and read back.

    Parameters
    ----------
    metric
        A `featstore.evaluation.metrics.Metric`.

    Raises
    ------
    AssertionError
        If it breaks a promise; the text says which.

    Examples
    --------
    >>> from featstore.evaluation.metrics import METRICS
    >>> from featstore.testing import check_metric
    >>> check_metric(METRICS["f1"])
    """
    from featstore.evaluation.metrics import what_is_wrong

    why = what_is_wrong(metric)
    _require(not why, f"{why}.")
    _require(metric.label and metric.meaning, f"{metric.name} has no label or no meaning.")
    rng = np.random.default_rng(0)
    y, proba = np.arange(120) % 2, rng.dirichlet([1, 1], 120)
    weights = np.vstack([np.ones(120), rng.integers(0, 3, (4, 120))])
    seen = _metric_values(metric, y, proba, weights)
    _require(
        np.shape(seen) == (5,), f"{metric.name} gives the shape {np.shape(seen)} for 5 resamples, not (5,)."
    )
    _require(np.isfinite(seen).all(), f"{metric.name} is not finite where both classes are there.")
    _require(not metric.bounded or ((seen >= 0) & (seen <= 1)).all(), f"{metric.name} leaves 0 to 1.")
    _require(not metric.rests_on or (seen >= 0).all(), f"{metric.name} is below 0: leave rests_on empty.")
    check_weights_are_repeats(metric, y, proba)


def check_weights_are_repeats(metric: Metric, y: NDArray[np.intp], proba: NDArray[np.float64]) -> None:
    """An image of weight 2 counts as two images, and one of weight 0 as none; bins of calibration errors aside."""
    keep = np.arange(len(y)) < len(y) // 2
    weights = np.where(keep, 2.0, 0.0)[None]
    rows = np.flatnonzero(keep).repeat(2)
    weighted = _metric_values(metric, y, proba, weights)[0]
    repeated = _metric_values(metric, y[rows], proba[rows], np.ones((1, len(rows))))[0]
    same = metric.name == "ece" or np.isclose(weighted, repeated, rtol=1e-9, atol=1e-12)
    _require(same, f"{metric.name} is {weighted} with weights and {repeated} with images repeated as often.")


def _metric_values(
    metric: Metric, y: NDArray[np.intp], proba: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    from featstore.evaluation.metrics import Answers, OneAgainstRest, decide

    predicted = decide(proba)
    if metric.of_all_classes:
        return metric.function(Answers(y, predicted, proba, weights))
    return metric.function(OneAgainstRest(y == 1, predicted == 1, proba[:, 1], weights))
