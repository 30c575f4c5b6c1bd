"""Does it put the ill above the well? Confusion matrix, ROC and precision-recall curves with bands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.errors import UsageError
from featstore.evaluation.bootstrap import group_weights, percentile_interval, widen
from featstore.evaluation.ranking import cumulate, rank_scores, ratio
from featstore.report.figures.canvas import (
    SHOWN,
    below,
    between,
    blank,
    canvas,
    distinct,
    fitted,
    grey_lines,
    stroke,
)
from featstore.report.figures.picture import GREY, INK, PALETTE, Picture, drawing
from featstore.report.plain import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    Vector = NDArray[np.float64]

GRID = np.linspace(0.0, 1.0, 201)
RESAMPLES = 500
BANDS = 3
"""Bands that can lie over each other and still be seen."""
SIDE = 3.6
FEW = 6
"""Classes whose cells have room for a share beside the count."""
BAND_NOTE = (
    "Bands and intervals: 95 %, patients (groups) drawn with replacement, each point of a curve on its own."
)


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One contestant's curve on `GRID`, its band, and the score that sums it up."""

    name: str
    seen: Vector
    band: tuple[Vector, Vector] | None
    score: float
    interval: tuple[float, float] | None


def confusion(
    counts: ArrayLike,
    classes: Sequence[str],
    *,
    name: str = "confusion",
    title: str = "What was answered for which class",
) -> Picture:
    """Confusion matrix: a row per true class, a column per answer.

    Parameters
    ----------
    counts
        ``(c, c)`` whole numbers, ``counts[true, answered]`` images.
    classes
        The ``c`` names.
    name, title
        Of the picture.

    Raises
    ------
    UsageError
        If the table is not square, or has not a row per class.
    """
    table = np.asarray(counts)
    if table.shape != (len(classes), len(classes)):
        raise UsageError(
            f"A table of shape {table.shape} does not fit {len(classes)} classes.",
            "Give a row and a column per class.",
        )
    if not table.sum():
        return blank(name, title, "No image was answered, so there is nothing to count.")
    return _confusion(table, classes, name, title)


def roc(
    y: ArrayLike,
    scores: Mapping[str, ArrayLike],
    groups: ArrayLike | None = None,
    *,
    positive: int = 1,
    seed: int = 0,
    name: str = "roc",
    title: str = "Receiver operating characteristic",
) -> Picture:
    """Sensitivity against one minus specificity, over all thresholds, with 95 % bands.

    Parameters
    ----------
    y
        ``(n,)`` true class index, or whether an image is positive.
    scores
        By contestant: ``(n,)`` probability of the positive class, or ``(n, classes)`` probabilities. With more than
        two classes, each is taken against the rest and the curves are averaged at equal specificity (macro).
    groups
        ``(n,)`` patient of each image; None takes every image for a patient of its own.
    positive
        Which class index is the positive one, where `scores` have two columns or `y` is compared with one.
    seed
        Of the 500 resamples.
    name, title
        Of the picture.

    Raises
    ------
    UsageError
        If the lengths differ.

    References
    ----------
    Fawcett, An introduction to ROC analysis, Pattern Recognition Letters 27, 2006 (vertical averaging).
    """
    curves = _measured(y, scores, groups, positive, seed, "auc", _sensitivities)
    why = "No ROC curve can be drawn: it needs images of the positive class and others."
    return _plane(curves, "AUC", name, title) if curves else blank(name, title, why)


def precision_recall(
    y: ArrayLike,
    scores: Mapping[str, ArrayLike],
    groups: ArrayLike | None = None,
    *,
    positive: int = 1,
    seed: int = 0,
    name: str = "precision-recall",
    title: str = "Precision and recall",
) -> Picture:
    """Share of true alarms against share of the ill found, over all thresholds, with 95 % bands.

    Parameters
    ----------
    y, scores, groups, positive, seed, name, title
        As for `roc`.

    Raises
    ------
    UsageError
        If the lengths differ.

    References
    ----------
    Davis & Goadrich, The relationship between precision-recall and ROC curves, ICML 2006: between two thresholds
    precision is not a straight line, hence steps.
    """
    curves = _measured(y, scores, groups, positive, seed, "average_precision", _precisions)
    why = "No precision-recall curve can be drawn: it needs images of the positive class and others."
    if not curves:
        return blank(name, title, why)
    return _plane(curves, "AP", name, title, chance=_prevalence(np.asarray(y), scores, positive))


def _measured(
    y: ArrayLike,
    scores: Mapping[str, ArrayLike],
    groups: ArrayLike | None,
    positive: int,
    seed: int,
    score: str,
    trace: Callable[[Vector, Vector], Vector],
) -> list[Curve]:
    """Curves of all, best first; only those that will be named are resampled."""
    truth = np.asarray(y)
    names = np.arange(len(truth)).astype(str) if groups is None else np.asarray(groups).astype(str)
    tasks = {who: _tasks(truth, np.asarray(values, float), positive) for who, values in scores.items()}
    if any(len(names) != len(part) for pairs in tasks.values() for pair in pairs for part in pair):
        raise UsageError("Labels, scores and groups differ in length.", "Give one of each for every image.")
    once = np.ones((1, len(truth)))
    plain = {who: _scored(pairs, once, score, trace) for who, pairs in tasks.items()}
    best = sorted((who for who in plain if np.isfinite(plain[who][1][0])), key=lambda who: -plain[who][1][0])
    weights = group_weights(names, RESAMPLES, seed) if best else once
    return [
        _curve(who, plain[who], _scored(tasks[who], weights, score, trace) if rank < SHOWN else None)
        for rank, who in enumerate(best)
    ]


def _tasks(truth: Vector, values: Vector, positive: int) -> list[tuple[NDArray[np.bool_], Vector]]:
    """One-against-rest problems whose curves are averaged; a single one for two classes."""
    one = truth == positive
    if values.ndim == 1:
        return [(one, values)]
    if values.shape[1] == 2:  # noqa: PLR2004
        return [(one, values[:, positive])]
    return [(truth == c, values[:, c]) for c in range(values.shape[1])]


def _scored(
    tasks: Sequence[tuple[NDArray[np.bool_], Vector]],
    weights: Vector,
    score: str,
    trace: Callable[[Vector, Vector], Vector],
) -> tuple[Vector, Vector]:
    """Curves ``(resamples, grid)`` and scores ``(resamples,)``, averaged over the tasks; NaN without a class."""
    lines, sums = [], []
    for truth, values in tasks:
        if len(truth):
            _, hits, alarms = cumulate(truth, values, weights)
            lines.append(trace(hits, alarms))
            sums.append(rank_scores(truth, values, weights)[score])
    if not lines:
        return np.full((len(weights), len(GRID)), np.nan), np.full(len(weights), np.nan)
    return np.mean(lines, axis=0), np.mean(sums, axis=0)


def _curve(who: str, plain: tuple[Vector, Vector], drawn: tuple[Vector, Vector] | None) -> Curve:
    seen, score = plain[0][0], float(plain[1][0])
    if drawn is None:
        return Curve(who, seen, None, score, None)
    lines, values = drawn
    whole = lines[np.isfinite(values)]
    low, high = np.percentile(whole, [2.5, 97.5], axis=0) if len(whole) else (seen, seen)
    interval = percentile_interval(widen(values, score, 1.0).clip(0.0, 1.0))
    return Curve(who, seen, (low, high), score, interval)


def _sensitivities(hits: Vector, alarms: Vector) -> Vector:
    """Sensitivity at each share of false alarms of `GRID`, straight between two thresholds; ``(resamples, grid)``."""
    start = np.zeros((len(hits), 1))
    found = np.hstack([start, ratio(hits, hits[:, -1:])])
    false = np.hstack([start, ratio(alarms, alarms[:, -1:])])
    return np.array([np.interp(GRID, x, line) for x, line in zip(false, found, strict=True)])


def _precisions(hits: Vector, alarms: Vector) -> Vector:
    """Precision of the highest threshold that reaches each recall of `GRID`; ``(resamples, grid)``."""
    found = ratio(hits, hits[:, -1:])
    precise = ratio(hits, hits + alarms)
    first = [np.searchsorted(line, np.maximum(GRID, 1e-9) - 1e-9) for line in found]
    return np.array([line[at.clip(max=len(line) - 1)] for line, at in zip(precise, first, strict=True)])


def _prevalence(truth: Vector, scores: Mapping[str, ArrayLike], positive: int) -> float:
    """Precision of guessing: the share of the positive class, or its mean over all classes."""
    widths = {np.shape(values)[1] for values in scores.values() if np.ndim(values) > 1}
    many = max(widths, default=2)
    return float((truth == positive).mean()) if many <= 2 else 1 / many  # noqa: PLR2004


@drawing
def _plane(
    curves: Sequence[Curve], short: str, name: str, title: str, chance: float | None = None
) -> Picture:
    figure, axes = canvas(SIDE, SIDE)
    named, others = curves[:SHOWN], curves[SHOWN:]
    grey_lines(axes, ((GRID, curve.seen) for curve in others))
    for at, (curve, label) in enumerate(zip(named, distinct([c.name for c in named], 2.0, 8), strict=True)):
        if at < BANDS and curve.band:
            axes.fill_between(GRID, *curve.band, color=PALETTE[at], alpha=0.16, linewidth=0)
        text = f"{label}  {short} {between(curve.score, curve.interval, 2)}"
        axes.plot(GRID, curve.seen, label=text, **stroke(at))
    _guessing(axes, chance)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
    note = BAND_NOTE + (f" Bands of the first {BANDS} only." if len(named) > BANDS else "")
    below(axes, note + (f" Grey: {len(others)} others with a lower {short}." if others else ""))
    words = "; ".join(f"{printable(c.name)} {short} {between(c.score, c.interval)}" for c in named)
    also = f"; {len(others)} others lower" if others else ""
    return Picture(name, title, f"{title}, 95 % intervals from resampled patients: {words}{also}.", figure)


def _guessing(axes: Axes, chance: float | None) -> None:
    style: dict[str, Any] = {"color": GREY, "linestyle": (0, (2, 2)), "linewidth": 1.0, "label": "guessing"}
    if chance is None:
        axes.plot([0, 1], [0, 1], **style)
        axes.set(
            xlabel="false alarms among the well (1 - specificity)", ylabel="found among the ill (sensitivity)"
        )
    else:
        axes.plot([0, 1], [chance, chance], **style)
        axes.set(xlabel="found among the ill (recall)", ylabel="ill among the alarms (precision)")


@drawing
def _confusion(table: NDArray[Any], classes: Sequence[str], name: str, title: str) -> Picture:
    count = len(classes)
    figure, axes = canvas(SIDE * min(1.0, 0.55 + count / 10), SIDE)
    rows = table.sum(axis=1, keepdims=True)
    share = np.divide(table, rows, out=np.zeros(table.shape), where=rows > 0)
    axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5))
    axes.grid(visible=False)
    cell = SIDE / count
    size = min(10.0, 72 * cell / 4.2)
    for true, answered in np.ndindex(count, count):
        part = float(share[true, answered])
        colour = PALETTE[0] if true == answered else PALETTE[1]
        axes.fill_between(
            [answered - 0.48, answered + 0.48],
            true - 0.48,
            true + 0.48,
            color=colour,
            alpha=0.04 + 0.66 * part,
            lw=0,
        )
        percent = f"\n{100 * part:.0f} %" if count <= FEW else ""
        axes.text(
            answered,
            true,
            f"{table[true, answered]}{percent}",
            ha="center",
            va="center",
            fontsize=size,
            color=INK,
        )
    _class_ticks(axes, classes, cell)
    below(
        axes, "Shares are of the true class, row by row; blue is right, orange wrong.", legend=False, drop=0.1
    )
    right = ", ".join(
        f"{int(table[c, c])} of {int(rows[c, 0])} {printable(label)}"
        for c, label in enumerate(classes[:SHOWN])
    )
    more = f", and {count - SHOWN} more classes" if count > SHOWN else ""
    total = f"{int(np.trace(table))} of {int(table.sum())} images"
    return Picture(name, title, f"Confusion matrix: {total} answered right ({right}{more}).", figure)


def _class_ticks(axes: Axes, classes: Sequence[str], cell: float) -> None:
    """Class names beside the rows and above the columns, slanted where they would touch."""
    beside = distinct(classes, 1.1)
    level = all(fitted(label, cell - 0.1) == label for label in beside)
    slant: dict[str, Any] = {} if level else {"rotation": 45, "ha": "left", "rotation_mode": "anchor"}
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xticks(range(len(classes)), beside, **slant)
    axes.set_yticks(range(len(classes)), beside)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="answered", ylabel="true class")
