"""Who is ahead, and by how much: forest plot of intervals, critical-difference diagram of ranks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.report.figures.canvas import below, between, blank, canvas, distinct
from featstore.report.figures.picture import GREY, INK, PALETTE, Picture, drawing
from featstore.report.plain import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Contestants = Sequence[Mapping[str, Any]]
    Vector = NDArray[np.float64]

ROWS = 30
"""Contestants that a forest has room for."""
RANKED = 16
"""Contestants that a critical-difference diagram has room for; the difference is that of all."""
LOWER_IS_BETTER = frozenset({"brier", "ece", "log_loss"})
ALPHA = 0.05
FRIEDMAN = 3
"""Contestants from which Friedman's test is one."""


def forest(
    contestants: Contestants, *, metric: str = "auc", name: str = "forest", title: str | None = None
) -> Picture:
    """Every contestant's metric with its 95 % interval, best first.

    Parameters
    ----------
    contestants
        As in metrics.json of a comparison: ``name``, ``backbones`` and ``metrics[metric]`` with ``mean``,
        ``interval`` and ``folds``.
    metric
        Which one; `featstore.evaluation.metrics.METRICS` has the names.
    name, title
        Of the picture.
    """
    title = title or f"{_spoken(metric)} of every contestant, with 95 % intervals"
    known = [c for c in contestants if c["metrics"].get(metric, {}).get("mean") is not None]
    if not known:
        return blank(name, title, f"No contestant has a defined {_spoken(metric)}: a fold lacks a class.")
    sign = 1 if metric in LOWER_IS_BETTER else -1
    ranked = sorted(known, key=lambda c: sign * c["metrics"][metric]["mean"])
    return _forest(ranked, metric, len(contestants) - len(known), name, title)


def critical_difference(
    scores: Mapping[str, Sequence[float | None]],
    *,
    metric: str = "auc",
    name: str = "critical-difference",
    title: str = "Mean ranks over the folds",
) -> Picture:
    """Mean rank of every contestant; a bar joins those whose ranks differ by less than the critical difference.

    Friedman's test, then Nemenyi's. Both were made for independent data sets, and folds of one cross-validation share
    their training images: the picture describes, the paired tests of `compare` decide.

    Parameters
    ----------
    scores
        By contestant, its metric in each fold, in the same order of folds. A fold in which anyone has none is left
        out.
    metric
        Name of the metric; some are better when lower.
    name, title
        Of the picture.

    References
    ----------
    Demsar, Statistical comparisons of classifiers over multiple data sets, JMLR 7, 2006.
    """
    table = np.array([[np.nan if v is None else v for v in values] for values in scores.values()], float)
    table = table[:, np.isfinite(table).all(axis=0)] if table.ndim == 2 else table.reshape(0, 0)  # noqa: PLR2004
    if len(table) < 2 or table.shape[1] < 2:  # noqa: PLR2004
        why = f"Ranks need two contestants and two folds; here are {len(scores)} and {table.shape[-1]}."
        return blank(name, title, why)
    ranks = mean_ranks(table if metric in LOWER_IS_BETTER else -table)
    return _ranks(dict(zip(scores, ranks.tolist(), strict=True)), table, name, title)


def mean_ranks(losses: Vector) -> Vector:
    """Mean over the folds ``(k,)`` of the rank of each of k contestants; losses ``(k, folds)``, ties share a rank."""
    from scipy.stats import rankdata

    mean: Vector = rankdata(losses, axis=0).mean(axis=1)
    return mean


def nemenyi(contestants: int, folds: int) -> float:
    """Difference between two mean ranks from which they are told apart, at 5 % (Demsar 2006, section 3.2.2)."""
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(1 - ALPHA, contestants, math.inf)) / math.sqrt(2)
    return quantile * math.sqrt(contestants * (contestants + 1) / (6 * folds))


def alike(ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """Longest stretches (first, last) of sorted ranks within the critical difference, none inside another."""
    stretches: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = max(
            at for at in range(first, len(ranks)) if ranks[at] - ranks[first] < difference or at == first
        )
        if last > first and (not stretches or last > stretches[-1][1]):
            stretches.append((first, last))
    return stretches


def _spoken(metric: str) -> str:
    return {"auc": "AUC", "ece": "ECE", "f1": "F1"}.get(metric, metric.replace("_", " "))


@drawing
def _forest(ranked: Contestants, metric: str, undefined: int, name: str, title: str) -> Picture:
    shown = ranked[:ROWS]
    figure, axes = canvas(0.21 * len(shown) + 0.25, 2.1)
    for row, contestant in enumerate(shown):
        _interval(axes, row, contestant["metrics"][metric], fused=len(contestant["backbones"]) > 1)
    axes.set_yticks(range(len(shown)), distinct([c["name"] for c in shown], 1.45, 8), fontsize=8)
    axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel=_spoken(metric))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=5)
    notes = ["Filled: several backbones fused; hollow: one alone. Small dots: the folds."]
    if len(ranked) > ROWS:
        notes.append(f"The best {ROWS} of {len(ranked)}.")
    if undefined:
        notes.append(f"{undefined} without a value are left out.")
    _hang(axes, " ".join(notes))
    return Picture(name, title, _forest_alt(ranked, metric, title), figure)


def _interval(axes: Axes, row: int, estimate: Mapping[str, Any], *, fused: bool) -> None:
    colour = PALETTE[0] if fused else PALETTE[1]
    mean, interval = estimate["mean"], estimate.get("interval")
    folds = [value for value in estimate.get("folds") or () if value is not None]
    axes.scatter(folds, [row] * len(folds), s=5, color=GREY, alpha=0.6, linewidths=0, zorder=1)
    if interval:
        axes.plot(interval, [row, row], color=colour, linewidth=1.6, zorder=2)
    face = colour if fused else "none"
    axes.plot(
        mean, row, marker="s" if fused else "o", color=colour, markerfacecolor=face, markersize=5, zorder=3
    )
    axes.annotate(
        between(mean, interval),
        (1.0, row),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
        annotation_clip=False,
    )


def _hang(axes: Axes, note: str) -> None:
    """Notes of axes with long names to the left start under the names."""
    below(axes, note, legend=False)


def _forest_alt(ranked: Contestants, metric: str, title: str) -> str:
    said = "; ".join(
        f"{printable(c['name'])} {between(c['metrics'][metric]['mean'], c['metrics'][metric].get('interval'))}"
        for c in ranked[:5]
    )
    rest = f"; {len(ranked) - 5} more" if len(ranked) > 5 else ""  # noqa: PLR2004
    return f"{title}, best first: {said}{rest}."


@drawing
def _ranks(ranks: Mapping[str, float], table: Vector, name: str, title: str) -> Picture:
    difference = nemenyi(*table.shape)
    ordered = sorted(ranks, key=lambda who: ranks[who])
    shown = ordered[:RANKED]
    places = [ranks[who] for who in shown]
    bars = alike(places, difference)
    figure, axes = canvas(0.24 * len(shown) + 0.16 * len(bars) + 0.5)
    _scale(axes, places, difference, len(ranks))
    floor = -0.6 - 0.16 * len(bars)
    for at, (first, last) in enumerate(bars):
        level = -0.35 - 0.16 * at
        axes.plot(
            [places[first] - 0.03, places[last] + 0.03], [level, level], color=PALETTE[1], linewidth=3.2
        )
    _names(axes, shown, places, floor)
    note = (
        f"{_friedman(table)} A bar joins ranks that differ by less than {difference:.2f} (Nemenyi, 5 %). Ranks over"
        f" {table.shape[1]} folds of one cross-validation, which are not independent data sets: descriptive, no test."
        + (f" The best {RANKED} of {len(ranks)}." if len(ranks) > RANKED else "")
    )
    below(axes, note, legend=False, drop=0.08)
    return Picture(name, title, _ranks_alt(ordered, ranks, difference, table.shape[1], bars), figure)


def _scale(axes: Axes, places: Sequence[float], difference: float, count: int) -> None:
    """An axis of ranks above, and the length of the critical difference."""
    low, high = math.floor(min(places)), math.ceil(max(places))
    right = max(high, low + 1, min(low + difference, count))
    axes.set_xlim(low - 0.02 * (right - low), right + 0.02 * (right - low))
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.locator_params(axis="x", integer=True, nbins=8)
    axes.set_xlabel("mean rank (1 is best)")
    axes.set_yticks([])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["top"].set_visible(True)
    axes.grid(visible=False)
    axes.plot([low, min(low + difference, right)], [-0.12, -0.12], color=INK, linewidth=1.2, marker="|")
    open_ended = " (longer than the axis)" if low + difference > right else ""
    axes.text(low, -0.14, f" critical difference {difference:.2f}{open_ended}", fontsize=7.5, va="top")


def _names(axes: Axes, names: Sequence[str], places: Sequence[float], floor: float) -> None:
    """Names below, one a line: the better half at the left, the others at the right, each led to its rank."""
    half = (len(names) + 1) // 2
    labels = distinct([str(n) for n in names], 1.7, 8)
    depth = floor - 0.24 * half
    axes.set_ylim(depth - 0.1, 0.0)
    left, right = axes.get_xlim()
    for at, (label, place) in enumerate(zip(labels, places, strict=True)):
        better = at < half
        row = at if better else len(names) - 1 - at
        level = floor - 0.24 * row
        edge = left if better else right
        axes.plot([place, place, edge], [0.0, level, level], color=GREY, linewidth=0.7)
        axes.plot(place, 0.0, marker="o", color=PALETTE[0], markersize=4, clip_on=False)
        axes.text(
            edge,
            level + 0.02,
            f"{label} {place:.2f}",
            fontsize=8,
            va="bottom",
            ha="left" if better else "right",
        )


def _friedman(table: Vector) -> str:
    from scipy.stats import friedmanchisquare

    if len(table) < FRIEDMAN:
        return "Friedman's test needs three contestants."
    if (np.ptp(table, axis=0) == 0).all():
        return "All contestants are equal in every fold."
    p = float(friedmanchisquare(*table).pvalue)
    return f"Friedman p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}."  # noqa: PLR2004


def _ranks_alt(
    ordered: Sequence[str], ranks: Mapping[str, float], difference: float, folds: int, bars: Iterable[Any]
) -> str:
    said = "; ".join(f"{printable(who)} {ranks[who]:.2f}" for who in ordered[:5])
    rest = f"; {len(ordered) - 5} more" if len(ordered) > 5 else ""  # noqa: PLR2004
    bars_text = "no two are alike by it" if not list(bars) else "bars join those that it cannot tell apart"
    beyond = f"Critical difference {difference:.2f}; {bars_text}"
    return f"Mean ranks over {folds} folds, 1 is best: {said}{rest}. {beyond}."
