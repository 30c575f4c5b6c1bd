"""Contracts of the extension points, as assertions: what our own tests put to each of featstore's own.

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
    from featstore.images.formats.container import Format
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


# Backbones

SAME = 1e-5
"""Share of the largest feature by which a row may move with the place in its batch (law 2)."""


def check_backbone(name: str, weights: str = "imagenet") -> None:
    """Check that a network of the catalogue, or of a plug-in, gives vectors that can be kept.

    Parameters
    ----------
    name
        Of its row.
    weights
        As for ``featstore.extract``; ``imagenet`` stands for what the network brings.

    Raises
    ------
    AssertionError
        If it breaks a promise; the text says which.

    Examples
    --------
    >>> from featstore.testing import check_backbone
    >>> check_backbone("EfficientNetLite0")
    """
    from featstore.backbones.loading import load_backbone

    network = load_backbone(name, weights, batch_size=4)
    side = network.spec.input_size
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, side, side, 3)).astype(np.float32)
    kept = images.copy()
    features = network.embed(images)
    _require((images == kept).all(), f"{name} writes into the images that it is given.")
    _require(features.shape == (4, network.spec.dimension), f"{name} gives the shape {features.shape}.")
    _require(features.dtype == np.float32, f"{name} gives {features.dtype}, not float32.")
    _require(np.isfinite(features).all(), f"{name} gives NaN or infinity.")
    _require((network.embed(images) == features).all(), f"{name} gives other bytes for the same batch.")
    again = load_backbone(name, weights, batch_size=4)
    _require(again.spec == network.spec, f"{name}, loaded again, has another spec.")
    _require((again.embed(images) == features).all(), f"{name}, loaded again, gives other bytes.")
    _require(
        len(np.unique(features, axis=0)) == len(features), f"{name} gives different images the same vector."
    )
    alone = np.zeros_like(images)
    alone[1] = images[2]
    moved = np.abs(network.embed(alone)[1] - features[2]).max()
    _require(
        moved <= SAME * np.abs(features).max(), f"{name}: a vector depends on the other images of its batch."
    )


# Formats


def check_format(format: Format, samples: Sequence[bytes]) -> None:  # noqa: A002 - what it is
    """Check that an image format knows its files, decodes them, and refuses damaged ones.

    Parameters
    ----------
    format
        An object of the format; it need not be registered.
    samples
        Bytes of at least one sound file, of 8 bits or with a range needed.

    Raises
    ------
    AssertionError
        If it breaks a promise; the text says which.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> from featstore.images.formats.bmp import Bmp
    >>> from featstore.testing import check_format
    >>> file = io.BytesIO()
    >>> Image.effect_noise((20, 30), 40).save(file, "BMP")
    >>> check_format(Bmp(), [file.getvalue()])
    """
    from featstore.images.formats.container import HEAD

    _require(samples, "Give the bytes of at least one sound file.")
    _require(format.name and format.suffixes, f"{type(format).__name__} has no name, or no suffix.")
    for suffix in format.suffixes:
        _require(
            suffix.startswith(".") and suffix == suffix.lower(), f"{suffix!r} is no suffix in small letters."
        )
    _require(not format.sniff(b"\0" * HEAD), f"{format.name} takes zeros for a file of its own.")
    for data in samples:
        _require(
            format.sniff(data[:HEAD]), f"{format.name} does not know a file of its own by its first bytes."
        )
        first, again = _decoded(format, data), _decoded(format, data)
        _require(not isinstance(first, str), f"{format.name} refuses a sound file: {first}")
        _require(
            isinstance(again, np.ndarray) and np.array_equal(first, again),
            f"{format.name} gives other pixels for the same bytes.",
        )
        for damaged in _damaged(data):
            _decoded(format, damaged)


def _decoded(format: Format, data: bytes) -> Any:  # noqa: A002, ANN401
    """Pixels, or why the file is refused."""
    import io

    from featstore.errors import BadImageError
    from featstore.images.formats.container import damage_of

    try:
        with damage_of(format):
            pages = format.list_pages(io.BytesIO(data)).frames
            wanted = (0.0, 1000.0) if format.needs_range(data, pages[0]) else None
            pixels, _ = format.decode(data, pages[0], wanted)
    except BadImageError as error:
        return f"{error.reason}: {error.detail}"
    _require(pixels.dtype == np.uint8, f"{format.name} gives {pixels.dtype}, not uint8.")
    channels = pixels.shape[2:] or (1,)
    _require(channels in {(1,), (3,)}, f"{format.name} gives the shape {pixels.shape}.")
    return pixels


def _damaged(data: bytes) -> list[bytes]:
    """A file cut short, and with bytes changed in many places, the same ones every time."""
    rng = np.random.default_rng(0)
    cut = [data[: len(data) * part // 8] for part in range(1, 8)]
    changed = []
    for _ in range(32):
        raw = np.frombuffer(data, np.uint8).copy()
        raw[rng.integers(0, len(raw), max(1, len(raw) // 200))] = rng.integers(0, 256)
        changed.append(raw.tobytes())
    return cut + changed
