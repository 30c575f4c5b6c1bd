"""Whether it puts the ill above the well: ROC and precision-recall curves with bands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.report.figures.bands import GRID, measured, precisions, sensitivities
from featstore.report.figures.canvas import (
    SHOWN,
    abbreviated,
    below,
    between,
    blank,
    canvas,
    entry,
    grey_lines,
    stroke,
)
from featstore.report.figures.picture import GREY, PALETTE, Picture, drawing
from featstore.report.plain import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

    from featstore.report.figures.bands import Curve, Stated

BANDS = 3
"""Bands that can lie over each other and still be seen."""
SIDE = 3.6


def roc(
    y: ArrayLike,
    scores: Mapping[str, ArrayLike],
    groups: ArrayLike | None = None,
    *,
    positive: int = 1,
    seed: int = 0,
    stated: Mapping[str, Stated] | None = None,
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
    stated
        By contestant, the area and its interval where a table has them: a number has one interval, whatever it is
        drawn from. Otherwise both are those of all images together.
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
    curves = measured(y, scores, groups, positive, seed, "auc", sensitivities, SHOWN, stated)
    why = "No ROC curve can be drawn: it needs images of the positive class and others."
    return (
        _plane(curves, "AUC", _told(scores, groups, stated), name, title)
        if curves
        else blank(name, title, why)
    )


def precision_recall(
    y: ArrayLike,
    scores: Mapping[str, ArrayLike],
    groups: ArrayLike | None = None,
    *,
    positive: int = 1,
    seed: int = 0,
    stated: Mapping[str, Stated] | None = None,
    name: str = "precision-recall",
    title: str = "Precision and recall",
) -> Picture:
    """Share of true alarms against share of the ill found, over all thresholds, with 95 % bands.

    Parameters
    ----------
    y, scores, groups, positive, seed, stated, name, title
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
    curves = measured(y, scores, groups, positive, seed, "average_precision", precisions, SHOWN, stated)
    why = "No precision-recall curve can be drawn: it needs images of the positive class and others."
    if not curves:
        return blank(name, title, why)
    chance = 1 / _classes(scores) if _classes(scores) > 2 else float((np.asarray(y) == positive).mean())  # noqa: PLR2004
    return _plane(curves, "AP", _told(scores, groups, stated), name, title, chance)


def _classes(scores: Mapping[str, ArrayLike]) -> int:
    """Columns of the probabilities; scores of one class stand for two."""
    return max((np.shape(values)[1] for values in scores.values() if np.ndim(values) > 1), default=2)


def _told(
    scores: Mapping[str, ArrayLike], groups: ArrayLike | None, stated: Mapping[str, Stated] | None
) -> str:
    """What bands and areas rest on."""
    unit = "images" if groups is None else "patients (groups)"
    count = _classes(scores)
    macro = f" Mean of {count} classes, each against the rest." if count > 2 else ""  # noqa: PLR2004
    areas = "numbers as in the table of scores" if stated else "intervals likewise"
    return (
        f"Curves: all images together. Bands: 95 %, {unit} drawn with replacement, each point of a curve on its own;"
        f" {areas}.{macro}"
    )


@drawing
def _plane(
    curves: Sequence[Curve], short: str, basis: str, name: str, title: str, chance: float | None = None
) -> Picture:
    figure, axes = canvas(SIDE, SIDE)
    named, others = curves[:SHOWN], curves[SHOWN:]
    grey_lines(axes, ((GRID, curve.seen) for curve in others))
    labels, key = abbreviated([c.name for c in named], 2.2, 8)
    for at, (curve, label) in enumerate(zip(named, labels, strict=True)):
        if at < BANDS and curve.band:
            axes.fill_between(GRID, *curve.band, color=PALETTE[at], alpha=0.16, linewidth=0)
        text = f"{label}: {short} {between(curve.score, curve.interval, 2)}"
        axes.plot(GRID, curve.seen, label=entry(text), **stroke(at))
    _guessing(axes, chance)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
    first = f" Bands of the first {BANDS} only." if len(named) > BANDS else ""
    grey = f" Grey: {len(others)} others with a lower {short}." if others else ""
    below(axes, f"{basis}{first}{grey}\n{key}")
    words = "; ".join(f"{printable(c.name)} {short} {between(c.score, c.interval)}" for c in named)
    also = f"; {len(others)} others lower" if others else ""
    return Picture(name, title, f"{title}, 95 % intervals: {words}{also}.", figure)


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
