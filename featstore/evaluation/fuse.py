"""`fuse`: train one strategy, score it on images it has not seen, and keep the model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from featstore import registry
from featstore.errors import UnknownNameError
from featstore.evaluation import run
from featstore.evaluation.bootstrap import group_weights, percentile_interval
from featstore.evaluation.compare import image_cells, image_header, positive_index
from featstore.evaluation.contestants import STRATEGIES, Contestant, build, fit, predict_proba
from featstore.evaluation.folds import hold_out
from featstore.evaluation.metrics import METRICS, score
from featstore.fusion.bundle import write_bundle
from featstore.matrix import Source, load_matrix

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.matrix import FeatureMatrix


@dataclass(frozen=True, slots=True)
class Score:
    """A metric on held-out images and its 95 % interval (bootstrap over groups); None where undefined."""

    value: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Fusion:
    """Outcome of a fit.

    Attributes
    ----------
    run
        Folder that holds the model, predictions and metrics.
    strategy, options
        What was fitted.
    matrix
        What it was fitted on, as a plain dict.
    sizes
        Images by split; the model is fitted on ``train`` only.
    scores
        By evaluated split and metric, on the identity view.
    history
        Learning curves by epoch, for strategies that have them.
    """

    run: str
    strategy: str
    options: Mapping[str, Any]
    matrix: Mapping[str, Any]
    sizes: Mapping[str, int]
    scores: Mapping[str, Mapping[str, Score]]
    history: Mapping[str, Sequence[float]] | None

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json`` and ``metrics.json``."""
        return asdict(self)


def fuse(
    data: str | Path,
    *,
    strategy: str = "concat_logreg",
    preset: str | None = None,
    options: Mapping[str, Any] | None = None,
    test_size: float = 0.25,
    split_seed: int = 0,
    positive: str | None = None,
    out: str | Path,
    overwrite: bool = False,
    **source: Unpack[Source],
) -> Fusion:
    """Train a fusion strategy on stored features and score it on held-out images.

    The data set's own splits are used where it has them; else whole groups are held out, stratified by class.
    Training sees all views of the training images; scores are those of the identity view.

    Parameters
    ----------
    data
        A folder or a CSV manifest whose features are in the store.
    strategy
        Name; `featstore strategies` lists them.
    preset
        Named settings of the strategy, such as ``paper`` of ``concat_head``.
    options
        Constructor parameters that override strategy and preset.
    test_size, split_seed
        Share of the groups to hold out where the data set has no splits, and its seed.
    positive
        As for `featstore.compare`.
    out, overwrite
        Folder of the run.
    **source
        Which features: see `featstore.matrix.Source`.

    Raises
    ------
    AuditError
        If the split leaks, or a side lacks a class.
    """
    run.prepare(Path(out), overwrite=overwrite)
    settings = {**_preset(strategy, preset), **(options or {})}
    matrix = load_matrix(data, **source)
    index = positive_index(matrix.classes, positive)
    splits = hold_out(matrix, test_size, split_seed)
    contestant = Contestant(strategy, matrix.backbones, strategy)
    model = fit(build(contestant, matrix, settings), matrix, splits["train"], matrix.backbones)
    proba = {
        name: predict_proba(model, matrix, rows, matrix.backbones)
        for name, rows in splits.items()
        if name != "train"
    }
    result = Fusion(
        run=str(out),
        strategy=strategy,
        options=settings,
        matrix=run.describe(matrix, index),
        sizes={name: len(rows) for name, rows in splits.items()},
        scores={name: held_out_scores(matrix, splits[name], p, index) for name, p in proba.items()},
        history=getattr(model, "history_", None),
    )
    document = result.to_json()
    run.clear(Path(out))
    write_bundle(Path(out) / run.MODEL, model, {"classes": list(matrix.classes)})
    run.write_run(
        Path(out),
        {"kind": "fuse", **{k: document[k] for k in ("strategy", "options", "matrix", "sizes")}},
        document,
        _predictions(matrix, splits, proba, Path(data)),
    )
    return result


def held_out_scores(
    matrix: FeatureMatrix, rows: NDArray[np.intp], proba: NDArray[np.float64], positive: int | None
) -> dict[str, Score]:
    """Every metric with its interval over resamples of the held-out groups."""
    y = matrix.y[rows]
    value = score(y, proba, np.ones((1, len(rows))), positive)
    drawn = score(y, proba, group_weights(matrix.groups[rows]), positive)
    return {
        name: Score(
            float(value[name][0]) if np.isfinite(value[name][0]) else None, percentile_interval(drawn[name])
        )
        for name in METRICS
    }


def _preset(strategy: str, preset: str | None) -> dict[str, Any]:
    presets: dict[str, dict[str, Any]] = getattr(registry.load(STRATEGIES, strategy), "PRESETS", {})
    if preset is None:
        return {}
    if preset not in presets:
        raise UnknownNameError(
            f"{strategy} has no preset {preset!r}.", f"It has: {', '.join(presets) or 'none'}."
        )
    return presets[preset]


def _predictions(
    matrix: FeatureMatrix,
    splits: Mapping[str, NDArray[np.intp]],
    proba: Mapping[str, NDArray[np.float64]],
    data: Path,
) -> Iterator[list[Any]]:
    yield ["split", *image_header(), "predicted", *(f"p({name})" for name in matrix.classes)]
    for name, values in proba.items():
        for i, p in zip(splits[name], values, strict=True):
            predicted = matrix.classes[int(p.argmax())]
            yield [name, *image_cells(matrix, int(i), data), predicted, *map(float, p)]
