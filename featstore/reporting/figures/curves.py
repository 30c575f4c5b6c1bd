"""Figures of probabilities: ROC and precision-recall curves, reliability, decision and risk-coverage curves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.errors import UsageError
from featstore.evaluation import intervals
from featstore.evaluation.metrics import ENOUGH_IMAGES, cumulative_counts, rank_scores, ratio
from featstore.reporting.figures import style
from featstore.reporting.verdict import calibration_error
from featstore.tables import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    Vector = NDArray[np.float64]
    Stated = tuple[float, tuple[float, float] | None]
    Curves = Mapping[str, Mapping[str, Any]]

# ROC and precision-recall curves with bands

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
) -> style.Picture:
    """Sensitivity against one minus specificity, over all thresholds, with 95 % bands.

    Parameters
    ----------
    y
        ``(n,)`` true class index, or whether an image is positive.
    scores
        By candidate: ``(n,)`` probability of the positive class, or ``(n, classes)`` probabilities. With more than
        two classes, each is taken against the rest and the curves are averaged at equal specificity (macro).
    groups
        ``(n,)`` patient of each image; None takes every image for a patient of its own.
    positive
        Which class index is the positive one, where `scores` have two columns or `y` is compared with one.
    seed
        Of the 500 resamples.
    stated
        By candidate, the area and its interval where a table has them: a number has one interval, whatever it is
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
    curves = measured(y, scores, groups, positive, seed, "auc", sensitivity_at_fpr, style.SHOWN, stated)
    why = "No ROC curve can be drawn: it needs images of the positive class and others."
    return (
        _plane(_as_given(curves, scores), "AUC", _told(scores, groups, stated), name, title)
        if curves
        else style.blank(name, title, why)
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
) -> style.Picture:
    """Precision against recall, over all thresholds, with 95 % bands.

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
    curves = measured(
        y, scores, groups, positive, seed, "average_precision", precision_at_recall, style.SHOWN, stated
    )
    why = "No precision-recall curve can be drawn: it needs images of the positive class and others."
    if not curves:
        return style.blank(name, title, why)
    chance = 1 / _classes(scores) if _classes(scores) > 2 else float((np.asarray(y) == positive).mean())  # noqa: PLR2004
    return _plane(_as_given(curves, scores), "AP", _told(scores, groups, stated), name, title, chance)


def _as_given(curves: list[Curve], scores: Mapping[str, ArrayLike]) -> list[Curve]:
    """Few curves in the order in which they were given: a candidate has one colour in all figures."""
    order = list(scores)
    return curves if len(curves) > style.SHOWN else sorted(curves, key=lambda curve: order.index(curve.name))


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
    alone = groups is not None and len(set(np.asarray(groups).tolist())) == np.size(groups)
    return (
        f"Curves: all {'patients' if alone else 'images'} together. Bands: 95 %, {unit} drawn with replacement, each"
        " point of a curve on its own;"
        f" {areas}.{macro}"
    )


@style.drawing
def _plane(
    curves: Sequence[Curve], short: str, sample_size: str, name: str, title: str, chance: float | None = None
) -> style.Picture:
    figure, axes = style.canvas(SIDE, SIDE)
    named, others = curves[: style.SHOWN], curves[style.SHOWN :]
    style.grey_lines(axes, ((GRID, curve.seen) for curve in others))
    labels, key = style.abbreviated([c.name for c in named], 2.2, 8)
    for at, (curve, label) in enumerate(zip(named, labels, strict=True)):
        if at < BANDS and curve.band:
            axes.fill_between(GRID, *curve.band, color=style.PALETTE[at], alpha=0.16, linewidth=0)
        text = f"{label}: {short} {style.between(curve.score, curve.interval)}"
        axes.plot(GRID, curve.seen, label=style.entry(text), **style.stroke(at))
    _guessing(axes, chance)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
    first = f" Bands of the first {BANDS} only." if len(named) > BANDS else ""
    grey = f" Grey: {len(others)} others with a lower {short}." if others else ""
    style.below(axes, f"{sample_size}{first}{grey}\n{key}")
    words = "; ".join(f"{printable(c.name)} {short} {style.between(c.score, c.interval)}" for c in named)
    also = f"; {len(others)} others lower" if others else ""
    return style.Picture(name, title, f"{title}, 95 % intervals: {words}{also}.", figure)


def _guessing(axes: Axes, chance: float | None) -> None:
    dashes: dict[str, Any] = {
        "color": style.GREY,
        "linestyle": (0, (2, 2)),
        "linewidth": 1.0,
        "label": "random guessing",
    }
    if chance is None:
        axes.plot([0, 1], [0, 1], **dashes)
        axes.set(xlabel="1 \N{MINUS SIGN} specificity", ylabel="Sensitivity")
    else:
        axes.plot([0, 1], [chance, chance], **dashes)
        axes.set(xlabel="Recall (sensitivity)", ylabel="Precision (positive predictive value)")


# Curves over all thresholds, and how far they would move with other patients

GRID = np.linspace(0.0, 1.0, 201)
RESAMPLES = 500


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One candidate's curve on `GRID`, its band, and the score that sums it up."""

    name: str
    seen: Vector
    band: tuple[Vector, Vector] | None
    score: float
    interval: tuple[float, float] | None


def measured(
    y: ArrayLike,
    scores: Mapping[str, ArrayLike],
    groups: ArrayLike | None,
    positive: int,
    seed: int,
    score: str,
    trace: Callable[[Vector, Vector], Vector],
    most: int,
    stated: Mapping[str, Stated] | None = None,
) -> list[Curve]:
    """Curves of all candidates that have one, best first; only the first `most` are resampled.

    Parameters
    ----------
    y, scores, groups, positive, seed
        As for `featstore.reporting.figures.roc`.
    score
        Name in `featstore.evaluation.metrics.RANKING` that sums a curve up.
    trace
        `sensitivity_at_fpr` or `precision_at_recall`.
    most
        Curves that get a band.
    stated
        By candidate, the score and its interval as a table has them, which then stand at the curve too.

    Raises
    ------
    UsageError
        If the lengths differ.
    """
    truth = np.asarray(y)
    names = np.arange(len(truth)).astype(str) if groups is None else np.asarray(groups).astype(str)
    tasks = {
        who: one_against_rest(truth, np.asarray(values, float), positive) for who, values in scores.items()
    }
    if any(len(names) != len(part) for pairs in tasks.values() for pair in pairs for part in pair):
        raise UsageError("Labels, scores and groups differ in length.", "Give one of each for every image.")
    once = np.ones((1, len(truth)))
    plain = {who: _scored(pairs, once, score, trace) for who, pairs in tasks.items()}
    known = {who: float(values[0]) for who, (_, values) in plain.items() if np.isfinite(values[0])}
    told = {who: (stated or {}).get(who, (value, None)) for who, value in known.items()}
    best = sorted(known, key=lambda who: -told[who][0])
    weights = intervals.group_weights(names, RESAMPLES, seed) if best else once
    return [
        _banded(
            Curve(who, plain[who][0][0], None, *told[who]),
            score,
            known[who],
            _scored(tasks[who], weights, score, trace),
            intervals.ranking_sample_sizes(tasks[who], names),
            stated=who in (stated or {}),
        )
        if rank < most
        else Curve(who, plain[who][0][0], None, told[who][0], None)
        for rank, who in enumerate(best)
    ]


def one_against_rest(truth: Vector, values: Vector, positive: int) -> list[tuple[NDArray[np.bool_], Vector]]:
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
            _, tp, fp = cumulative_counts(truth, values, weights)
            lines.append(trace(tp, fp))
            sums.append(rank_scores(truth, values, weights)[score])
    if not lines:
        return np.full((len(weights), len(GRID)), np.nan), np.full(len(weights), np.nan)
    return np.mean(lines, axis=0), np.mean(sums, axis=0)


def _banded(
    curve: Curve,
    score: str,
    value: float,
    drawn: tuple[Vector, Vector],
    known: Mapping[str, intervals.SampleSize | None],
    *,
    stated: bool,
) -> Curve:
    """Add the band, nowhere narrower than so many patients allow, and the interval where no table has one."""
    sample_size = known[score]
    if sample_size is None:
        return curve
    lines, values = drawn
    whole = lines[np.isfinite(values)]
    low, high = np.percentile(whole, [2.5, 97.5], axis=0) if len(whole) else (curve.seen, curve.seen)
    least = intervals.wilson(
        curve.seen,
        intervals.effective_patients(sample_size) * intervals.sample_size_ratio(value, values, sample_size),
    )
    band = np.minimum(low, least[0]), np.maximum(high, least[1])
    if score == "auc":
        band[0][-1] = 1.0  # whoever calls everyone positive finds all
    interval = curve.interval if stated else intervals.score_interval(score, value, values, sample_size)
    return replace(curve, band=band, interval=interval)


def sensitivity_at_fpr(tp: Vector, fp: Vector) -> Vector:
    """Sensitivity at each false-positive rate of `GRID`, straight between two thresholds; ``(resamples, grid)``."""
    start = np.zeros((len(tp), 1))
    found = np.hstack([start, ratio(tp, tp[:, -1:])])
    false = np.hstack([start, ratio(fp, fp[:, -1:])])
    return np.array([np.interp(GRID, x, line) for x, line in zip(false, found, strict=True)])


def precision_at_recall(tp: Vector, fp: Vector) -> Vector:
    """Precision of the highest threshold that reaches each recall of `GRID`; ``(resamples, grid)``."""
    found = ratio(tp, tp[:, -1:])
    precise = ratio(tp, tp + fp)
    first = [np.searchsorted(line, np.maximum(GRID, 1e-9) - 1e-9) for line in found]
    return np.array([line[at.clip(max=len(line) - 1)] for line, at in zip(precise, first, strict=True)])


# Whether probabilities can be taken at their word, acted upon, and left out where unsure

HEIGHT = 2.8
TOO_FEW = f"no ECE: fewer than {ENOUGH_IMAGES}"
TREAT = 0.5
"""Threshold at which the alt text of decision curves reads off the net benefit."""


def reliability(
    curves: Curves,
    *,
    name: str = "reliability",
    title: str = "Reliability of the probabilities",
    unit: str = "images",
) -> style.Picture:
    """Share of images that were positive against the probability that was given, bin by bin.

    Parameters
    ----------
    curves
        By candidate, as in metrics.json: the key ``calibration`` has ``predicted``, ``observed`` (shares) and
        ``images`` of each bin. Candidates without it are left out. The key ``calibration_error`` has the ECE that a
        perfectly calibrated model would show, ``expected``.
    name, title
        Of the picture.
    unit
        What was answered: images or patients.

    References
    ----------
    Niculescu-Mizil & Caruana, Predicting good probabilities with supervised learning, ICML 2005.
    """
    parts = _of(curves, "calibration", "predicted")
    if not parts:
        why = "No reliability diagram can be drawn: it is about one positive class, and none was named."
        return style.blank(name, title, why)
    chance = {who: (part.get("calibration_error") or {}).get("expected") for who, part in curves.items()}
    return _reliability(_best_first(parts, calibration_error), chance, name, title, unit)


def decision_curves(
    curves: Curves,
    *,
    name: str = "decision-curves",
    title: str = "Net benefit of acting on the probability",
    unit: str = "images",
) -> style.Picture:
    """Net benefit against the probability from which one would act, beside treating everyone and no one.

    Parameters
    ----------
    curves
        By candidate, as in metrics.json: the key ``decision`` has ``threshold``, ``net_benefit`` and ``treat_all``,
        per image or patient. Candidates without it are left out.
    name, title
        Of the picture.
    unit
        What was answered: images or patients.

    References
    ----------
    Vickers & Elkin, Decision curve analysis, Medical Decision Making 26, 2006.
    """
    parts = _of(curves, "decision", "threshold")
    if not parts:
        why = "No decision curve can be drawn: it is about one positive class, and none was named."
        return style.blank(name, title, why)
    return _decisions(
        _best_first(parts, lambda part: -float(np.mean(part["net_benefit"]))), name, title, unit
    )


def risk_coverage(
    curves: Curves,
    *,
    name: str = "risk-coverage",
    title: str = "Errors among the images answered",
    unit: str = "images",
) -> style.Picture:
    """Share of wrong answers when only the surest share of the images is answered.

    Parameters
    ----------
    curves
        By candidate, as in metrics.json: the key ``risk_coverage`` has ``coverage``, ``risk`` (shares) and ``aurc``.
    name, title
        Of the picture.
    unit
        What was answered: images or patients.

    References
    ----------
    Geifman & El-Yaniv, Selective classification for deep neural networks, NeurIPS 2017.
    """
    parts = _of(curves, "risk_coverage", "coverage")
    if not parts:
        return style.blank(name, title, "No image was answered, so there is no risk to draw.")
    return _risks(_best_first(parts, lambda part: float(part["aurc"])), name, title, unit)


def error_text(part: Mapping[str, Any], expected: float | None = None, unit: str = "images") -> str:
    """ECE in words, with that of a perfectly calibrated model; or why there is none."""
    if sum(part["images"]) < ENOUGH_IMAGES:
        return f"{TOO_FEW} {unit}"
    beside = "" if expected is None else f" (by chance {expected:.3f})"
    return f"ECE {calibration_error(part):.3f}{beside}"


def _of(curves: Curves, kind: str, key: str) -> dict[str, Mapping[str, Any]]:
    found = {who: parts.get(kind) or {} for who, parts in curves.items()}
    return {who: part for who, part in found.items() if part.get(key)}


def _best_first(
    parts: Mapping[str, Mapping[str, Any]], loss: Callable[[Mapping[str, Any]], float]
) -> dict[str, Mapping[str, Any]]:
    """As they were given, so that a candidate has one colour in all figures; of many the best come first."""
    if len(parts) <= style.SHOWN:
        return dict(parts)
    return dict(sorted(parts.items(), key=lambda item: loss(item[1])))


def _labels(parts: Mapping[str, Any]) -> tuple[list[str], str]:
    return style.abbreviated(list(parts)[: style.SHOWN], 2.4, 8)


def _others(parts: Mapping[str, Any], order: str) -> str:
    return (
        f" Grey: {len(parts) - style.SHOWN} others with a higher {order}." if len(parts) > style.SHOWN else ""
    )


@style.drawing
def _reliability(
    parts: Mapping[str, Mapping[str, Any]],
    chance: Mapping[str, float | None],
    name: str,
    title: str,
    unit: str,
) -> style.Picture:
    figure, axes = style.canvas(SIDE, SIDE)
    values = list(parts.values())
    style.grey_lines(axes, ((part["predicted"], part["observed"]) for part in values[style.SHOWN :]))
    axes.plot(
        [0, 1], [0, 1], color=style.GREY, linestyle=(0, (2, 2)), linewidth=1.0, label="perfect calibration"
    )
    labels, key = _labels(parts)
    for at, ((who, part), label) in enumerate(zip(parts.items(), labels, strict=False)):
        axes.plot(
            part["predicted"],
            part["observed"],
            label=style.entry(f"{label}: {error_text(part, chance[who], unit)}"),
            markersize=4,
            **style.stroke(at) | style.mark(at),
        )
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set(xlabel="Predicted probability", ylabel="Observed proportion")
    images = sum(values[0]["images"])
    told = "; ".join(f"{printable(who)} {error_text(part, chance[who], unit)}" for who, part in _named(parts))
    by_chance = (
        f" ECE: expected calibration error; by chance: that of a perfectly calibrated model on as many {unit}."
        if any(chance.values())
        else ""
    )
    style.below(
        axes,
        f"{_bins_text(values[0]['images'], unit)} Above the line: too cautious; below: too sure.{by_chance}"
        f"{_others(parts, 'ECE')}\n{key}",
    )
    return style.Picture(name, title, f"{title} on {images:.0f} {unit}, 0 is best: {told}.", figure)


def _bins_text(counts: Sequence[float], unit: str) -> str:
    """How many images a point stands for."""
    images, least, most = sum(counts), min(counts), max(counts)
    if len(counts) == 1:
        return f"{images:.0f} {unit}, too few for more than one point."
    each = f"{least:.0f}" if least == most else f"{least:.0f} to {most:.0f}"
    return f"{images:.0f} {unit} in {len(counts)} bins of {each} (first curve)."


@style.drawing
def _decisions(parts: Mapping[str, Mapping[str, Any]], name: str, title: str, unit: str) -> style.Picture:
    figure, axes = style.canvas(HEIGHT)
    values = list(parts.values())
    style.grey_lines(axes, ((part["threshold"], part["net_benefit"]) for part in values[style.SHOWN :]))
    first = values[0]
    axes.plot(
        first["threshold"],
        first["treat_all"],
        color=style.GREY,
        linestyle=(0, (2, 2)),
        label="treat everyone",
    )
    axes.axhline(0.0, color=style.GREY, linewidth=1.2, label="treat no one")
    labels, key = _labels(parts)
    for at, (part, label) in enumerate(zip(values, labels, strict=False)):
        axes.plot(part["threshold"], part["net_benefit"], label=style.entry(label), **style.stroke(at))
    top = max(max(part["net_benefit"]) for part in values)
    top = max(top, *first["treat_all"], 0.05)
    axes.set(xlim=(0, 1), ylim=(-0.25 * top, 1.08 * top))
    axes.set(xlabel="Threshold probability", ylabel="Net benefit")
    style.below(
        axes,
        "Worth using only where above both grey lines; needs calibrated probabilities. Curves below the frame are"
        f" cut off.{_others_by_mean(parts)}\n{key}",
    )
    told = "; ".join(f"{printable(who)} {_at(part, 'net_benefit'):+z.3f}" for who, part in _named(parts))
    everyone = _at(first, "treat_all")
    return style.Picture(
        name,
        title,
        f"Net benefit per {unit.removesuffix('s')} at a threshold of {TREAT:g}: {told}; treating everyone"
        f" {everyone:+z.3f}, no one 0.",
        figure,
    )


@style.drawing
def _risks(parts: Mapping[str, Mapping[str, Any]], name: str, title: str, unit: str) -> style.Picture:
    figure, axes = style.canvas(HEIGHT)
    values = list(parts.values())
    style.grey_lines(axes, ((part["coverage"], part["risk"]) for part in values[style.SHOWN :]))
    labels, key = _labels(parts)
    for at, (part, label) in enumerate(zip(values, labels, strict=False)):
        axes.plot(
            part["coverage"],
            part["risk"],
            label=style.entry(f"{label}: AURC {part['aurc']:.3f}"),
            **style.stroke(at),
        )
    axes.set(xlim=(0, 1.01), ylim=(0, None))
    axes.set(
        xlabel=f"Coverage (share of {unit} answered, surest first)", ylabel="Error rate among the answered"
    )
    style.below(
        axes,
        "AURC: area under this curve; 0 is best. What is left of the curve would be left to a physician."
        f"{_others(parts, 'AURC')}\n{key}",
    )
    told = "; ".join(
        f"{printable(who)} AURC {part['aurc']:.3f}, {100 * part['risk'][-1]:.1f} % wrong when all are answered"
        for who, part in _named(parts)
    )
    return style.Picture(name, title, f"{title}: {told}.", figure)


def _named(parts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return list(parts.items())[: style.SHOWN]


def _others_by_mean(parts: Mapping[str, Any]) -> str:
    return f" Grey: {len(parts) - style.SHOWN} others with a lower mean." if len(parts) > style.SHOWN else ""


def _at(part: Mapping[str, Any], key: str) -> float:
    return float(np.interp(TREAT, part["threshold"], part[key]))
