"""Who is ahead, and by how much: forest plot of intervals, critical-difference diagram of ranks.

Demsar draws the ranks along a line with names hung from it. The lines of sixteen long names cross, and cover names
on a phone: here the diagram is turned, a row for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.errors import UnknownNameError, did_you_mean
from featstore.evaluation.metrics import METRICS
from featstore.report.figures.canvas import SMALL, abbreviated, below, between, blank, canvas
from featstore.report.figures.picture import GREY, INK, PALETTE, Picture, drawing
from featstore.report.figures.ranks import alike, friedman, mean_ranks, nemenyi
from featstore.report.plain import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Contestants = Sequence[Mapping[str, Any]]
    Vector = NDArray[np.float64]

ROWS = 30
"""Contestants that a picture has room for; the critical difference is that of all."""
ROW, NAMES, AXIS = 0.21, 1.5, 2.0
"""Inches from row to row, for the names, and for the axis beside them."""
LOWER_IS_BETTER = frozenset({"brier", "ece", "log_loss"})


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

    Raises
    ------
    UnknownNameError
        If there is no such metric.
    """
    if metric not in METRICS:
        raise UnknownNameError(f"There is no metric {metric!r}.", did_you_mean(metric, METRICS))
    spoken = _spoken(metric)
    title = title or f"{spoken[:1].upper()}{spoken[1:]} of every contestant, with 95 % intervals"
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
    title: str | None = None,
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
    title = title or f"Mean ranks over the folds, by {_spoken(metric)}"
    table = np.array([[np.nan if v is None else v for v in values] for values in scores.values()], float)
    table = table[:, np.isfinite(table).all(axis=0)] if table.ndim == 2 else table.reshape(0, 0)  # noqa: PLR2004
    if len(table) < 2 or table.shape[1] < 2:  # noqa: PLR2004
        why = f"Ranks need two contestants and two folds; here are {len(scores)} and {table.shape[-1]}."
        return blank(name, title, why)
    ranks = mean_ranks(table if metric in LOWER_IS_BETTER else -table)
    return _ranks(dict(zip(scores, ranks.tolist(), strict=True)), table, name, title)


def _spoken(metric: str) -> str:
    return {"auc": "AUC", "brier": "Brier score", "ece": "ECE", "f1": "F1"}.get(
        metric, metric.replace("_", " ")
    )


@drawing
def _forest(ranked: Contestants, metric: str, undefined: int, name: str, title: str) -> Picture:
    shown = ranked[:ROWS]
    figure, axes = canvas(ROW * (len(shown) + 0.5), AXIS)
    for row, contestant in enumerate(shown):
        _interval(axes, row, contestant["metrics"][metric], fused=len(contestant["backbones"]) > 1)
    labels, key = abbreviated([c["name"] for c in shown], NAMES, 8)
    _rows(axes, labels, -0.6)
    axes.set_xlabel(_spoken(metric))
    axes.locator_params(axis="x", nbins=4)
    left_out = f" {undefined} without a value are left out." if undefined else ""
    note = f"Filled: several backbones fused; hollow: one alone. Small dots: the folds.{_best_of(ranked)}{left_out}"
    below(axes, f"{note}\n{key}", left=NAMES)
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
    _beside(axes, row, between(mean, interval))


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
    places = [ranks[who] for who in ordered[:ROWS]]
    bars = alike(places, difference)
    figure, axes = canvas(ROW * (len(places) + 1.5), AXIS)
    labels, key = abbreviated(ordered[:ROWS], NAMES, 8)
    _rows(axes, labels, -2.0)
    _scale(axes, places, difference)
    axes.scatter(places, range(len(places)), s=26, color=PALETTE[0], linewidths=0, zorder=3)
    for row, place in enumerate(places):
        _beside(axes, row, f"{place:.2f}")
    for at, stretch in enumerate(bars):
        aside = 1 + (0.42 + at * min(0.1, 1.0 / len(bars))) / AXIS
        axes.plot(
            [aside] * 2,
            np.add(stretch, (-0.3, 0.3)),
            color=PALETTE[1],
            linewidth=2.6,
            transform=axes.get_yaxis_transform(),
            clip_on=False,
        )
    note = (
        f"{friedman(table)} Upright bars join contestants whose ranks differ by less than {difference:.2f} (Nemenyi,"
        f" 5 %). Ranks over {table.shape[1]} folds of one cross-validation, which are not independent data sets:"
        f" descriptive, no verdict.{_best_of(ordered)}"
    )
    below(axes, f"{note}\n{key}", drop=0.1, left=NAMES)
    return Picture(name, title, _ranks_alt(title, ordered, ranks, difference, table.shape[1], bars), figure)


def _scale(axes: Axes, places: Sequence[float], difference: float) -> None:
    """An axis of ranks above, and under it the length of the critical difference."""
    low, high = min(places), max(places)
    room = max(high - low, 0.5)
    axes.set_xlim(low - 0.08 * room, high + 0.08 * room)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("mean rank (1 is best)")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.spines["top"].set_visible(True)
    axes.plot([low, low + difference], [-1.0, -1.0], color=INK, linewidth=1.4, marker="|", markersize=6)
    beyond = " (longer than the axis)" if low + difference > high + 0.08 * room else ""
    axes.text(low, -1.15, f"critical difference {difference:.2f}{beyond}", fontsize=SMALL, va="bottom")


def _rows(axes: Axes, labels: Sequence[str], top: float) -> None:
    """A row for each contestant, its name at the left."""
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_ylim(len(labels) - 0.4, top)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def _beside(axes: Axes, row: int, text: str) -> None:
    """Numbers at the right of a row."""
    axes.annotate(
        text,
        (1.0, row),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=SMALL,
        annotation_clip=False,
    )


def _best_of(ranked: Sequence[Any]) -> str:
    return f" The best {ROWS} of {len(ranked)}." if len(ranked) > ROWS else ""


def _ranks_alt(
    title: str,
    ordered: Sequence[str],
    ranks: Mapping[str, float],
    difference: float,
    folds: int,
    bars: Iterable[Any],
) -> str:
    said = "; ".join(f"{printable(who)} {ranks[who]:.2f}" for who in ordered[:5])
    rest = f"; {len(ordered) - 5} more" if len(ordered) > 5 else ""  # noqa: PLR2004
    bars_text = "no two are alike by it" if not list(bars) else "bars join those that it cannot tell apart"
    beyond = f"Critical difference {difference:.2f}; {bars_text}"
    return f"{title}; {folds} folds, 1 is best: {said}{rest}. {beyond}."
