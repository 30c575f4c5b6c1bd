"""Contracts of the extension points, as assertions: put by our own tests to all that featstore has.

Each function takes a plug-in of yours and raises `AssertionError` with one sentence about what it breaks.
"""

from __future__ import annotations

import inspect
import io
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.errors import BadImageError, FeatstoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.metrics import Metric
    from featstore.images.formats.container import Format
    from featstore.types import Backbone, Executor

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
    from featstore.types import make_blocks

    seeded = {"random_state": 0} if "random_state" in inspect.signature(kind).parameters else {}
    return kind(**{"blocks": make_blocks(WIDTHS), **seeded, **parameters})


@lru_cache(maxsize=64)
def _fitted(cls: type, n_classes: int = 2) -> Any:  # noqa: ANN401
    """One fit for the checks that only ask."""
    return make_strategy(cls).fit(*blocky(n_classes=n_classes))


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
        X, _ = blocky(n_classes=n_classes)
        strategy = _fitted(cls, n_classes)
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
    X, _ = blocky()
    strategy = _fitted(cls)
    restored = restore_model(*export_model(strategy))
    _require(type(restored) is cls, f"{cls.__name__} is read back as {type(restored).__name__}.")
    same = restored.predict_proba(X).tobytes() == strategy.predict_proba(X).tobytes()
    _require(same, f"{cls.__name__} predicts something else when it is read back.")


def check_strategy_linear_logits(cls: type) -> None:
    """A linear model that it says it is predicts as it does: from it come evidence maps that are exact."""
    from featstore.fusion.linear import LinearModel

    for n_classes in (2, 3):
        X, _ = blocky(n_classes=n_classes)
        strategy = _fitted(cls, n_classes)
        model = strategy.linear_logits()
        if model is None:
            continue
        _require(
            isinstance(model, LinearModel) and model.coef.shape[1] == X.shape[1],
            f"{cls.__name__}.linear_logits() is no LinearModel of all columns, and not None.",
        )
        same = np.allclose(model.proba(X), strategy.predict_proba(X), rtol=0, atol=1e-9)
        _require(same, f"{cls.__name__}.linear_logits() predicts something else than it does.")


def check_strategy_patients(cls: type) -> None:
    """One that answers for patients gives all images of one the same answer, whatever their order and company."""
    from featstore.fusion.strategy import PatientStrategy
    from featstore.types import GROUP

    offers = issubclass(cls, PatientStrategy)
    told = getattr(cls, "unit", "image") == GROUP
    _require(offers == told, f"{cls.__name__}.unit is not what its methods offer.")
    if not offers:
        return
    for n_classes in (2, 3):
        X, y = blocky(n_classes=n_classes)
        groups = np.array([f"{label}-{at // (2 * n_classes)}" for at, label in enumerate(y)])
        strategy = make_strategy(cls).fit(X, y, groups=groups)
        proba, shares = strategy.predict_patients(X, groups), strategy.image_weights(X, groups)
        what = f"predict_patients of {cls.__name__}"
        _require(proba.shape == (len(X), n_classes), f"{what} has the shape {proba.shape}.")
        _require(np.abs(proba.sum(axis=1) - 1).max() <= 1e-12, f"{what} does not sum to 1.")  # noqa: PLR2004
        for group in np.unique(groups):
            mine = groups == group
            _require((proba[mine] == proba[mine][0]).all(), f"{what} differs within a patient.")
            summed = abs(shares[mine].sum() - 1) <= 1e-12 and (shares[mine] >= 0).all()  # noqa: PLR2004
            _require(summed, f"image_weights of {cls.__name__} are no shares of one.")
        turned = np.random.default_rng(0).permutation(len(X))
        again = strategy.predict_patients(X[turned], groups[turned])
        _require(
            np.allclose(again, proba[turned], rtol=0, atol=1e-9), f"{what} depends on the order of rows."
        )
        some = np.isin(groups, np.unique(groups)[:3])
        few = strategy.predict_patients(X[some], groups[some])
        _require(np.allclose(few, proba[some], rtol=0, atol=1e-9), f"{what} depends on other patients.")
        alone = strategy.predict_patients(X, np.arange(len(X)))
        same = np.allclose(alone, strategy.predict_proba(X), rtol=0, atol=1e-9)
        _require(same, f"{what} of single images is not its predict_proba.")


STRATEGY_CHECKS: tuple[Check, ...] = (
    check_strategy_facts,
    check_strategy_constructor,
    check_strategy_probabilities,
    check_strategy_refit,
    check_strategy_notation,
    check_strategy_linear_logits,
    check_strategy_patients,
)
"""What `check_strategy` checks, one after the other."""


# Executors


def double(number: int) -> int:
    """Work that succeeds."""
    return 2 * number


def fail(text: str) -> None:
    """Work that fails as an image does."""
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


# Image formats

CUTS = 40
"""Places at which a sample is cut short, and at which a byte of it is changed."""


def check_format(format: Format, samples: Sequence[bytes] = ()) -> None:  # noqa: A002
    """Check that an image format can be told from others, and is decoded or refused, never anything else.

    Parameters
    ----------
    format
        Instance of a subclass of `featstore.images.formats.container.Format`.
    samples
        Sound files of it, as bytes; without one only its facts are checked.

    Raises
    ------
    AssertionError
        If it breaks a promise; the text says which.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> from featstore.images.formats.png import Png
    >>> from featstore.testing import check_format
    >>> file = io.BytesIO()
    >>> Image.new("L", (32, 32)).save(file, "PNG")
    >>> check_format(Png(), [file.getvalue()])
    """
    check_format_facts(format)
    check_format_is_told(format)
    for sample in samples:
        check_sample_is_known(format, sample)
        check_sample_decodes(format, sample)
        check_damage_is_refused(format, sample)


def check_format_facts(format: Format) -> None:  # noqa: A002
    """Name, suffixes, version and a docstring are there."""
    from featstore.images.formats.container import FOLDER, Format

    _require(isinstance(format, Format), f"{type(format).__name__} is no subclass of Format.")
    what = f"The format {type(format).__name__}"
    name, suffixes = getattr(format, "name", ""), getattr(format, "suffixes", ())
    _require(
        isinstance(name, str) and name and name == name.upper(),
        f"{what} has the name {name!r}, not capitals.",
    )
    _require(isinstance(suffixes, tuple) and suffixes, f"{what} has no tuple of suffixes.")
    for suffix in suffixes:
        _require(
            re.fullmatch(r"\.[a-z0-9]+", suffix),
            f"{what} has the suffix {suffix!r}, not a dot and small letters.",
        )
    is_own = type(format).__module__.startswith(f"{FOLDER}.")
    _require(is_own or format.version, f"{what} has no version, which must enter the ids of its images.")
    _require((type(format).__doc__ or "").strip(), f"{what} has no docstring.")


def check_format_is_told(format: Format) -> None:  # noqa: A002
    """`sniff` answers for any bytes, and takes no file of another format."""
    rng = np.random.default_rng(0)
    heads = [b"", b"\0", b"\xff" * 1024, b"P", *(rng.bytes(int(size)) for size in rng.integers(1, 1024, 20))]
    for head in heads:
        try:
            answer = format.sniff(head)
        except Exception as error:
            raise AssertionError(f"sniff of {format.name} fails on {head[:20]!r}: {error!r}.") from error
        _require(not answer, f"sniff of {format.name} takes {head[:20]!r} for one of its files.")


def check_sample_is_known(format: Format, sample: bytes) -> None:  # noqa: A002
    """A sound file is of this format and of no other."""
    from featstore.images.formats.container import HEAD, formats

    head = sample[:HEAD]
    _require(
        format.sniff(head), f"sniff of {format.name} does not know a sample that begins with {head[:20]!r}."
    )
    for other in formats().values():
        if other.name != format.name:
            _require(not other.sniff(head), f"A sample of {format.name} is taken for {other.name}.")


def check_sample_decodes(format: Format, sample: bytes) -> None:  # noqa: A002
    """Every page of a sound file becomes 8-bit grey or RGB, the same twice, and what is deep asks for a range."""
    pages = format.list_pages(io.BytesIO(sample))
    _require(pages.frames and max(pages.frames) < pages.total, f"list_pages of {format.name} names no pages.")
    index = format.index(sample)
    _require(index.last + 1 >= pages.total, f"index of {format.name} knows fewer pages than list_pages.")
    for frame in pages.frames:
        value_range = (0.0, 255.0) if format.needs_range(format.strip(sample), frame) else None
        first, second = (
            _decoded(format, sample, frame, value_range),
            _decoded(format, sample, frame, value_range),
        )
        _require(first == second, f"{format.name} decodes the same bytes to other pixels.")
        if value_range is not None:
            try:
                _decoded(format, sample, frame, None)
            except BadImageError as error:
                _require(
                    error.reason == "needs_range",
                    f"{format.name} without a range is {error.reason!r}, not needs_range.",
                )
            else:
                raise AssertionError(f"{format.name} says that it needs a range, and decodes without one.")
        with io.BytesIO(sample) as file:
            width, height = format.size(file)
            _require(
                (height, width) in {(0, 0), first[0][:2], first[0][1::-1]},
                f"size of {format.name} says {width} x {height}, and the pixels are {first[0]}.",
            )
        with io.BytesIO(sample) as file:
            _require(format.bytes_per_pixel(file) > 0, f"bytes_per_pixel of {format.name} is not above 0.")


def check_damage_is_refused(format: Format, sample: bytes) -> None:  # noqa: A002
    """A file that is cut short or damaged gives pixels or a reason, and nothing else."""
    rng = np.random.default_rng(0)
    cuts = [sample[: int(at)] for at in np.linspace(0, len(sample) - 1, CUTS)]
    places, values = rng.integers(0, len(sample), CUTS), rng.integers(0, 256, CUTS)
    changed = [
        sample[:at] + bytes([value]) + sample[at + 1 :] for at, value in zip(places, values, strict=True)
    ]
    for data in (*cuts, *changed):
        _refused_or_decoded(format, data)
    _require(
        not all(_refused_or_decoded(format, cut) for cut in cuts[: CUTS // 2]),
        f"{format.name} decodes files of which half is missing.",
    )


def _refused_or_decoded(format: Format, data: bytes) -> bool:  # noqa: A002
    try:
        _decoded(format, data, 0, (0.0, 255.0))
    except BadImageError as error:
        _require(error.reason and error.detail, f"{format.name} refuses damage without a reason.")
        return False
    return True


def _decoded(
    format: Format,  # noqa: A002
    data: bytes,
    frame: int,
    value_range: tuple[float, ...] | None,
) -> tuple[tuple[int, ...], bytes]:
    """Shape and bytes of what featstore makes of a file with this format."""
    from featstore.images.reading import decode_as

    try:
        pixels, _ = decode_as(format, data, frame, value_range)
    except BadImageError:
        raise
    except UsageError as error:
        raise AssertionError(error.cause) from error
    _require(pixels.dtype == np.uint8, f"{format.name} gives {pixels.dtype}, not uint8.")
    _require(
        pixels.ndim == 3 and pixels.shape[2] in {1, 3},  # noqa: PLR2004
        f"{format.name} gives pixels of shape {pixels.shape}, not grey or RGB.",
    )
    return pixels.shape, pixels.tobytes()


# Networks


def check_backbone(
    backbone: str | Backbone, weights: str = "imagenet", *, engine: str = "tensorflow"
) -> None:
    """Check that a network maps a batch to vectors, always the same way and each image on its own.

    Parameters
    ----------
    backbone
        Name of a row of the catalogue, which is loaded with `weights`; or a loaded network.
    weights, engine
        As for `featstore.extract`.

    Raises
    ------
    AssertionError
        If it breaks a promise; the text says which.

    Examples
    --------
    >>> from featstore.testing import check_backbone
    >>> check_backbone("MobileNet025", "random:1")  # doctest: +SKIP
    """
    loaded = load_for_check(backbone, weights, engine) if isinstance(backbone, str) else backbone
    check_backbone_identity(loaded)
    check_vectors(loaded)
    check_rows_stand_alone(loaded)


def load_for_check(name: str, weights: str = "imagenet", engine: str = "tensorflow") -> Backbone:
    """Load a network as an extraction does, so that what its row promises is checked as well."""
    from featstore.backbones import catalog
    from featstore.backbones.loading import load_backbone, spec
    from featstore.backbones.weights import resolve_weights

    try:
        row = catalog.row(name)
        expected = spec(row, resolve_weights(row, weights))
        loaded = load_backbone(name, weights, batch_size=4, engine=engine)
    except FeatstoreError as error:
        raise AssertionError(f"{name} cannot be loaded: {error.cause}") from error
    _require(loaded.spec == expected, f"{name} is loaded with another spec than its row has.")
    return loaded


def check_backbone_identity(backbone: Backbone) -> None:
    """The spec is one that a feature key can hold, and the batch is one or more."""
    from dataclasses import asdict

    from featstore.types import BackboneSpec

    spec = getattr(backbone, "spec", None)
    _require(isinstance(spec, BackboneSpec), f"The spec of {type(backbone).__name__} is no BackboneSpec.")
    try:
        same = BackboneSpec.from_json(asdict(backbone.spec)) == spec
    except ValueError as error:
        raise AssertionError(f"The spec of {type(backbone).__name__} cannot be in a key: {error}.") from error
    name = backbone.spec.name
    _require(same, f"The spec of {name} is another when read back.")
    _require(backbone.spec.weights, f"The spec of {name} does not say which weights it has.")
    _require(backbone.batch_size >= 1, f"The batch size of {name} is {backbone.batch_size}.")
    _require(
        1 <= backbone.effective_batch_size <= backbone.batch_size,
        f"{name} computes {backbone.effective_batch_size} images at a time in batches of {backbone.batch_size}.",
    )


def check_vectors(backbone: Backbone) -> None:
    """A batch becomes finite float32 vectors, the same bytes twice, and the images are left alone."""
    name, images = backbone.spec.name, _noise(backbone)
    before = images.copy()
    features, again = _embedded(backbone, images), _embedded(backbone, images)
    _require(np.array_equal(images, before), f"{name} changes the images that it is given.")
    _require(getattr(features, "dtype", None) == np.float32, f"{name} does not give float32.")
    shape = backbone.batch_size, backbone.spec.dimension
    _require(features.shape == shape, f"{name} gives the shape {features.shape}, and its spec says {shape}.")
    _require(np.isfinite(features).all(), f"{name} gives NaN or infinity.")
    _require(features.tobytes() == again.tobytes(), f"{name} gives other vectors for the same images.")
    dark = _embedded(backbone, np.zeros_like(images))
    _require(not np.array_equal(dark, features), f"{name} gives the same vectors for all images.")


def check_rows_stand_alone(backbone: Backbone) -> None:
    """A vector does not depend on the other images of its batch, nor on its place among them."""
    name, images = backbone.spec.name, _noise(backbone)
    features = _embedded(backbone, images)
    turned = _embedded(backbone, np.ascontiguousarray(images[::-1]))[::-1]
    _require(
        features.tobytes() == turned.tobytes(), f"The vectors of {name} depend on their place in the batch."
    )
    for row in {0, backbone.batch_size - 1}:
        alone = np.zeros_like(images)
        alone[row] = images[row]
        vector = _embedded(backbone, alone)[row]
        _require(
            vector.tobytes() == features[row].tobytes(),
            f"A vector of {name} depends on the other images of its batch.",
        )


def _noise(backbone: Backbone) -> NDArray[np.float32]:
    side = backbone.spec.input_size
    shape = backbone.batch_size, side, side, 3
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)


def _embedded(backbone: Backbone, images: NDArray[np.float32]) -> NDArray[np.float32]:
    try:
        return backbone.embed(images)
    except FeatstoreError as error:
        raise AssertionError(error.cause) from error
