"""Figures that compare candidates, backbones and views: differences, forest plot, ranks, lattice, Pareto, views.

Demsar draws the critical-difference diagram along a line with names hung from it. The lines of sixteen long names
cross, and cover names on a phone: here the diagram is turned, a row for each.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from featstore.errors import UnknownNameError, did_you_mean
from featstore.evaluation.backbone_value import pareto as undominated
from featstore.evaluation.metrics import metrics
from featstore.reporting.figures import style
from featstore.tables import interval_text, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Candidates = Sequence[Mapping[str, Any]]
    Vector = NDArray[np.float64]
    Subset = frozenset[str]

# Forest plots of differences and of intervals, critical-difference diagram of ranks

ROWS = 30
"""Candidates that a picture has room for; the critical difference is that of all."""
ROW, NAMES, AXIS = 0.21, 1.5, 2.0
"""Inches from row to row, for the names, and for the axis beside them."""


def differences(
    question: Mapping[str, Any], *, name: str = "differences", title: str | None = None
) -> style.Picture:
    """The primary fusion less every single network, with 95 % intervals and the margin: the primary question.

    Parameters
    ----------
    question
        As ``primary_question`` in metrics.json of a comparison: ``primary``, ``metric``, ``margin``, and ``singles``,
        each with ``name``, ``delta``, ``interval`` and ``p``.
    name, title
        Of the picture.
    """
    metric = _spoken(question["metric"])
    title = title or f"Difference in {metric} to every single network"
    if not question["singles"]:
        return style.blank(name, title, "There is no single network to compare with.")
    return _differences(question, metric, name, title)


def forest(
    candidates: Candidates, *, metric: str = "auc", name: str = "forest", title: str | None = None
) -> style.Picture:
    """Every candidate's metric with its 95 % interval, best first.

    Parameters
    ----------
    candidates
        As in metrics.json of a comparison: ``name``, ``backbones`` and ``metrics[metric]`` with ``mean``,
        ``interval`` and ``folds``.
    metric
        Which one; `featstore.evaluation.metrics.metrics` has the names.
    name, title
        Of the picture.

    Raises
    ------
    UnknownNameError
        If there is no such metric.
    """
    if metric not in metrics():
        raise UnknownNameError(f"There is no metric {metric!r}.", did_you_mean(metric, metrics()))
    spoken = _spoken(metric)
    title = title or f"{spoken[:1].upper()}{spoken[1:]} of every candidate, with 95 % intervals"
    known = [c for c in candidates if c["metrics"].get(metric, {}).get("mean") is not None]
    if not known:
        return style.blank(
            name, title, f"No candidate has a defined {_spoken(metric)}: a fold lacks a class."
        )
    sign = 1 if metrics()[metric].better == "lower" else -1
    ranked = sorted(known, key=lambda c: sign * c["metrics"][metric]["mean"])
    return _forest(ranked, metric, len(candidates) - len(known), name, title)


def critical_difference(
    scores: Mapping[str, Sequence[float | None]],
    *,
    metric: str = "auc",
    name: str = "critical-difference",
    title: str | None = None,
) -> style.Picture:
    """Mean rank of every candidate; a bar joins those whose ranks differ by less than the critical difference.

    Friedman's test, then Nemenyi's. Both were made for independent data sets, and folds of one cross-validation share
    their training images: the picture describes, the paired tests of `compare` decide.

    Parameters
    ----------
    scores
        By candidate, its metric in each fold, in the same order of folds. A fold in which anyone has none is left
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
        why = f"Ranks need two candidates and two folds; here are {len(scores)} and {table.shape[-1]}."
        return style.blank(name, title, why)
    known = metrics()
    ranks = mean_ranks(table if metric in known and known[metric].better == "lower" else -table)
    return _ranks(dict(zip(scores, ranks.tolist(), strict=True)), table, name, title)


def _spoken(metric: str) -> str:
    known = metrics()
    return known[metric].title if metric in known else metric.replace("_", " ")


@style.drawing
def _differences(question: Mapping[str, Any], metric: str, name: str, title: str) -> style.Picture:
    singles, margin, primary = question["singles"][:ROWS], question["margin"], question["primary"]
    figure, axes = style.canvas(ROW * (len(singles) + 1), AXIS)
    axes.axvspan(-margin, margin, color=style.GREY, alpha=0.25, linewidth=0)
    axes.axvline(0.0, color=style.INK, linewidth=1.0, zorder=1)
    for row, one in enumerate(singles):
        if one["interval"]:
            axes.plot(one["interval"], [row, row], color=style.PALETTE[0], linewidth=1.6, zorder=2)
        axes.plot(one["delta"], row, marker="s", color=style.PALETTE[0], markersize=5, zorder=3)
        _beside(axes, row, _difference(one))
    labels, key = style.abbreviated([one["name"] for one in singles], NAMES, 8)
    _rows(axes, labels, -0.8)
    ends = [end for one in singles for end in (one["delta"], *(one["interval"] or ()))]
    reach = 1.08 * max(*map(abs, ends), 2 * margin, 0.01)
    axes.set_xlim(-reach, reach)
    axes.set_xlabel(f"Difference in {metric}\n\N{LEFTWARDS ARROW} network | fusion \N{RIGHTWARDS ARROW}")
    axes.locator_params(axis="x", nbins=4)
    note = (
        f"{style.fitted(primary, 3.0)} less each single network, with 95 % intervals (clustered standard errors, one"
        f" test each, not adjusted: yes only if every interval lies above 0). Grey band: differences within the"
        f" margin of {margin:g}, too small to matter.{_best_of(question['singles'])}"
    )
    style.below(axes, f"{note}\n{key}", drop=0.65, left=NAMES)
    said = "; ".join(f"{printable(one['name'])} {_difference(one)}" for one in singles[:6])
    rest = f"; {len(question['singles']) - 6} more" if len(question["singles"]) > 6 else ""  # noqa: PLR2004
    alt = (
        f"Difference in {metric} of {printable(primary)} to single networks, margin {margin:g}: {said}{rest}."
    )
    return style.Picture(name, title, alt, figure)


def _difference(one: Mapping[str, Any]) -> str:
    """A difference with its interval and its p."""
    interval = one["interval"]
    bounds = f" [{interval_text(interval, signed=True)}]" if interval else " [no interval]"
    p = f"p = {one['p']:.3f}" if one["p"] >= 0.0005 else "p < 0.001"  # noqa: PLR2004
    return f"{one['delta']:+z.3f}{bounds}, {p}".replace("-", "\N{MINUS SIGN}")


@style.drawing
def _forest(ranked: Candidates, metric: str, undefined: int, name: str, title: str) -> style.Picture:
    shown = ranked[:ROWS]
    figure, axes = style.canvas(ROW * (len(shown) + 0.5), AXIS)
    for row, candidate in enumerate(shown):
        _interval(axes, row, candidate["metrics"][metric], fused=len(candidate["backbones"]) > 1)
    labels, key = style.abbreviated([c["name"] for c in shown], NAMES, 8)
    _rows(axes, labels, -0.6)
    axes.set_xlabel(_spoken(metric))
    axes.locator_params(axis="x", nbins=4)
    left_out = f" {undefined} without a value are left out." if undefined else ""
    note = (
        f"Filled: several fused; hollow: one alone. Small dots below: the folds.{_best_of(ranked)}{left_out}"
    )
    style.below(axes, f"{note}\n{key}", left=NAMES)
    return style.Picture(name, title, _forest_alt(ranked, metric, title), figure)


def _interval(axes: Axes, row: int, estimate: Mapping[str, Any], *, fused: bool) -> None:
    colour = style.PALETTE[0] if fused else style.PALETTE[1]
    mean, interval = estimate["mean"], estimate.get("interval")
    folds = [value for value in estimate.get("folds") or () if value is not None]
    axes.scatter(folds, [row + 0.3] * len(folds), s=5, color=style.GREY, alpha=0.6, linewidths=0, zorder=1)
    if interval:
        axes.plot(interval, [row, row], color=colour, linewidth=1.6, zorder=2)
    face = colour if fused else "none"
    axes.plot(
        mean, row, marker="s" if fused else "o", color=colour, markerfacecolor=face, markersize=5, zorder=3
    )
    _beside(axes, row, style.between(mean, interval))


def _forest_alt(ranked: Candidates, metric: str, title: str) -> str:
    said = "; ".join(
        f"{printable(c['name'])} {style.between(c['metrics'][metric]['mean'], c['metrics'][metric].get('interval'))}"
        for c in ranked[:5]
    )
    rest = f"; {len(ranked) - 5} more" if len(ranked) > 5 else ""  # noqa: PLR2004
    return f"{title}, best first: {said}{rest}."


@style.drawing
def _ranks(ranks: Mapping[str, float], table: Vector, name: str, title: str) -> style.Picture:
    difference = nemenyi(*table.shape)
    ordered = sorted(ranks, key=lambda who: ranks[who])
    places = [ranks[who] for who in ordered[:ROWS]]
    bars = indistinguishable(places, difference)
    figure, axes = style.canvas(ROW * (len(places) + 1.5), AXIS)
    labels, key = style.abbreviated(ordered[:ROWS], NAMES, 8)
    _rows(axes, labels, -2.0)
    _scale(axes, places, difference)
    axes.scatter(places, range(len(places)), s=26, color=style.PALETTE[0], linewidths=0, zorder=3)
    for row, place in enumerate(places):
        _beside(axes, row, f"{place:.2f}")
    for at, stretch in enumerate(bars):
        aside = 1 + (0.42 + at * min(0.1, 1.0 / len(bars))) / AXIS
        axes.plot(
            [aside] * 2,
            np.add(stretch, (-0.3, 0.3)),
            color=style.PALETTE[1],
            linewidth=2.6,
            transform=axes.get_yaxis_transform(),
            clip_on=False,
        )
    note = (
        f"{friedman(table)} Upright bars join candidates whose ranks differ by less than {difference:.2f} (Nemenyi,"
        f" 5 %). Ranks over {table.shape[1]} folds of one cross-validation, which are not independent data sets:"
        f" descriptive, no verdict.{_best_of(ordered)}"
    )
    style.below(axes, f"{note}\n{key}", drop=0.1, left=NAMES)
    return style.Picture(
        name, title, _ranks_alt(title, ordered, ranks, difference, table.shape[1], bars), figure
    )


def _scale(axes: Axes, places: Sequence[float], difference: float) -> None:
    """An axis of ranks above, and under it the length of the critical difference."""
    low, high = min(places), max(places)
    room = max(high - low, 0.5)
    axes.set_xlim(low - 0.08 * room, high + 0.08 * room)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("Mean rank (1 is best)")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.spines["top"].set_visible(True)
    axes.plot([low, low + difference], [-1.0, -1.0], color=style.INK, linewidth=1.4, marker="|", markersize=6)
    beyond = " (longer than the axis)" if low + difference > high + 0.08 * room else ""
    axes.text(low, -1.15, f"critical difference {difference:.2f}{beyond}", fontsize=style.SMALL, va="bottom")


def _rows(axes: Axes, labels: Sequence[str], top: float) -> None:
    """A row for each candidate, its name at the left."""
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
        fontsize=style.SMALL,
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


# Ranks of candidates over folds, and the tests that are usual for them (Demsar, JMLR 7, 2006)

ALPHA = 0.05
FRIEDMAN = 3
"""Candidates from which Friedman's test is one."""


def friedman(table: Vector) -> str:
    """Say what Friedman's test finds in scores ``(candidates, folds)``."""
    from scipy.stats import friedmanchisquare

    if len(table) < FRIEDMAN:
        return "Friedman's test needs three candidates."
    if (np.ptp(table, axis=0) == 0).all():
        return "All candidates are equal in every fold."
    p = float(friedmanchisquare(*table).pvalue)
    return f"Friedman p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}."  # noqa: PLR2004


def mean_ranks(losses: Vector) -> Vector:
    """Mean over the folds ``(k,)`` of the rank of each of k candidates; losses ``(k, folds)``, ties share a rank."""
    from scipy.stats import rankdata

    mean: Vector = rankdata(losses, axis=0).mean(axis=1)
    return mean


def nemenyi(candidates: int, folds: int) -> float:
    """Difference between two mean ranks from which they are told apart, at 5 % (Demsar 2006, section 3.2.2)."""
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(1 - ALPHA, candidates, math.inf)) / math.sqrt(2)
    return quantile * math.sqrt(candidates * (candidates + 1) / (6 * folds))


def indistinguishable(ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """Longest stretches (first, last) of sorted ranks within the critical difference, none inside another."""
    stretches: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = max(
            at for at in range(first, len(ranks)) if ranks[at] - ranks[first] < difference or at == first
        )
        if last > first and (not stretches or last > stretches[-1][1]):
            stretches.append((first, last))
    return stretches


# Which backbones, and what they cost: the lattice of subsets, the Pareto front

SUBSETS_HEIGHT = 3.2
SPREAD = 0.33
"""How far subsets of one size stand beside their place."""
ALL_NAMED = 15
"""Subsets up to which each is named."""
EDGES = 700
FRONT_NAMED = 6
"""Points of a Pareto front that are named in the picture."""


def lattice(
    candidates: Sequence[Mapping[str, Any]],
    *,
    metric: str = "auc",
    strategy: str | None = None,
    name: str = "subsets",
    title: str = "Every subset of the backbones",
) -> style.Picture:
    """Score of each subset by its size; a line joins a subset to each that has one backbone more.

    Where a subset was tried with several view policies, its best score is drawn. Greedy candidates are left out.

    Parameters
    ----------
    candidates
        As in metrics.json of a comparison: ``strategy``, ``backbones``, ``chosen`` (null unless greedy), ``views``
        and ``metrics[metric]["mean"]``.
    metric
        Which one; a higher value stands higher.
    strategy
        Which one fuses; default the one that has most subsets.
    name, title
        Of the picture.
    """
    known = [
        c for c in candidates if c["metrics"].get(metric, {}).get("mean") is not None and not c.get("chosen")
    ]
    fused = [c for c in known if len(c["backbones"]) > 1]
    counted = Counter(c["strategy"] for c in fused)
    chosen = strategy or (max(counted, key=lambda s: counted[s]) if counted else "")
    part = [c for c in fused if c["strategy"] == chosen] + [c for c in known if len(c["backbones"]) == 1]
    scores: dict[Subset, float] = {}
    for candidate in part:
        subset = frozenset(candidate["backbones"])
        scores[subset] = max(candidate["metrics"][metric]["mean"], scores.get(subset, float("-inf")))
    if not scores:
        return style.blank(name, title, "No subset has a score, so there is no lattice to draw.")
    return _lattice(scores, metric.upper(), chosen, name, title)


def pareto(
    points: Sequence[Mapping[str, Any]],
    *,
    metric: str = "auc",
    name: str = "pareto",
    title: str = "What a better score costs",
) -> style.Picture:
    """Score against cost; the line joins what nothing cheaper surpasses.

    Parameters
    ----------
    points
        Each with ``backbones``, ``milliseconds`` per image (left out where None or 0) and ``score``.
    metric
        Name of the score.
    name, title
        Of the picture.
    """
    known = [
        p
        for p in points
        if p["milliseconds"] is not None and p["score"] is not None and p["milliseconds"] > 0
    ]
    if not known:
        return style.blank(name, title, "No subset has both a known cost and a score.")
    return _pareto(known, metric.upper(), name, title)


@style.drawing
def _lattice(
    scores: Mapping[Subset, float], metric: str, strategy: str, name: str, title: str
) -> style.Picture:
    backbones = sorted({backbone for subset in scores for backbone in subset})
    code = style.letters(backbones)
    figure, axes = style.canvas(SUBSETS_HEIGHT)
    places = _places(scores)
    edges = list(_edges(scores))
    for small, large in edges[:EDGES]:
        axes.plot(
            *zip(places[small], places[large], strict=True),
            color=style.GREY,
            linewidth=0.4,
            alpha=0.35,
            zorder=1,
        )
    best = {
        size: max((s for s in scores if len(s) == size), key=lambda s: scores[s]) for size in map(len, scores)
    }
    ridge = [places[best[size]] for size in sorted(best)]
    axes.plot(
        *zip(*ridge, strict=True), color=style.PALETTE[1], linewidth=1.6, zorder=2, label="best of each size"
    )
    _dots(axes, places.values(), style.PALETTE[0], "o", 16)
    _dots(axes, ridge, style.PALETTE[1], "D", 34)
    named = scores if len(scores) <= ALL_NAMED else best.values()
    for subset in named:
        _name(axes, places[subset], "".join(code[b] for b in sorted(subset)), above=subset in best.values())
    axes.set(xlabel="Number of networks", ylabel=metric, xlim=(0.5, max(best) + 0.5))
    axes.set_xticks(sorted(best))
    low, high = min(scores.values()), max(scores.values())
    axes.set_ylim(low - 0.06 * (high - low) - 1e-3, high + 0.12 * (high - low) + 1e-3)
    key = "; ".join(f"{code[b]} {style.fitted(b, 1.6, 7.5)}" for b in backbones)
    style.below(
        axes,
        f"{key}. {_fused_by(strategy)} The best of many is partly luck: see the winner's corrected value.",
    )
    top = max(scores, key=lambda s: scores[s])
    single = max((scores[s] for s in scores if len(s) == 1), default=None)
    alone = "" if single is None else f"; the best single one has {single:.3f}"
    of = f"{metric} of {len(scores)} subsets of {len(backbones)} backbones"
    alt = f"{of}: best {_joined(top)} with {scores[top]:.3f}{alone}."
    return style.Picture(name, title, alt, figure)


def _fused_by(strategy: str) -> str:
    return f"Fused by {style.fitted(strategy, 2.0)}." if strategy else ""


def _places(scores: Mapping[Subset, float]) -> dict[Subset, tuple[float, float]]:
    """Size and score; those of one size stand side by side in alphabetical order, so that they do not hide."""
    places = {}
    for size in sorted({len(subset) for subset in scores}):
        level = sorted((s for s in scores if len(s) == size), key=sorted)
        for at, subset in enumerate(level):
            aside = SPREAD * (2 * at / (len(level) - 1) - 1) if len(level) > 1 else 0.0
            places[subset] = (size + aside, scores[subset])
    return places


def _edges(scores: Mapping[Subset, float]) -> Iterable[tuple[Subset, Subset]]:
    """Pairs that differ by one more backbone."""
    return (
        (large - {extra}, large) for large in scores for extra in sorted(large) if large - {extra} in scores
    )


def _dots(axes: Axes, places: Iterable[tuple[float, float]], colour: str, shape: str, size: float) -> None:
    x, y = zip(*places, strict=True)
    axes.scatter(x, y, s=size, color=colour, marker=shape, alpha=0.85, linewidths=0, zorder=3)


def _name(
    axes: Axes,
    place: tuple[float, float],
    text: str,
    *,
    above: bool,
    beside: Literal["center", "right"] = "center",
) -> None:
    axes.annotate(
        text,
        place,
        xytext=(0, (6 if beside == "center" else 2) if above else -6),
        textcoords="offset points",
        ha=beside,
        va="bottom" if above else "top",
        fontsize=7.5,
        zorder=5,
    )


@style.drawing
def _pareto(points: Sequence[Mapping[str, Any]], metric: str, name: str, title: str) -> style.Picture:
    cost, score = [p["milliseconds"] for p in points], [p["score"] for p in points]
    front = undominated(cost, score)
    figure, axes = style.canvas(SUBSETS_HEIGHT)
    _dots(axes, zip(cost, score, strict=True), style.GREY, "o", 14)
    steps = [cost[at] for at in front], [score[at] for at in front]
    axes.step(*steps, where="post", color=style.PALETTE[0], linewidth=1.4, zorder=3)
    _dots(axes, zip(*steps, strict=True), style.PALETTE[0], "D", 30)
    named = front[-FRONT_NAMED:]
    for number, at in enumerate(named, 1):
        _name(axes, (cost[at], score[at]), f"{number} ", above=True, beside="right")
    axes.set(xlabel="Time per image (ms)", ylabel=metric, xlim=(0, 1.08 * max(cost)))
    low, high = min(score), max(score)
    axes.set_ylim(low - 0.06 * (high - low) - 1e-3, high + 0.12 * (high - low) + 1e-3)
    labels, key = style.abbreviated([_joined(points[at]["backbones"]) for at in named], 3.4, 7.5)
    lines = [
        f"{number}  {label}: {score[at]:.3f}, {cost[at]:.0f} ms"
        for number, (label, at) in enumerate(zip(labels, named, strict=True), 1)
    ]
    style.below(axes, "\n".join([*lines, key, "Point estimates, not verdicts."]))
    said = "; ".join(
        f"{_joined(points[at]['backbones'])} {cost[at]:.0f} ms {score[at]:.3f}" for at in front[:8]
    )
    rest = f"; {len(front) - 8} more" if len(front) > 8 else ""  # noqa: PLR2004
    return style.Picture(name, title, f"{metric} by cost, cheapest first: {said}{rest}.", figure)


def _joined(backbones: Iterable[str]) -> str:
    return "+".join(printable(b) for b in sorted(backbones))


# Score by the number of augmented views

VIEWS_HEIGHT = 2.6


def views_curve(
    view_curve: Sequence[Mapping[str, Any]],
    *,
    name: str = "views",
    title: str = "How many augmented views pay",
) -> style.Picture:
    """A candidate's score against the number of augmented views that it was trained on.

    Parameters
    ----------
    view_curve
        As in metrics.json of a comparison: points with ``contestant``, ``metric``, ``views``, ``mean`` and
        ``interval``.
    name, title
        Of the picture.
    """
    known = [point for point in view_curve if point["mean"] is not None]
    if not known:
        return style.blank(name, title, "No number of views has a score, so there is no curve to draw.")
    return _drawn(known, name, title)


@style.drawing
def _drawn(points: Sequence[Mapping[str, Any]], name: str, title: str) -> style.Picture:
    figure, axes = style.canvas(VIEWS_HEIGHT)
    metric, who = points[0]["metric"].upper(), points[0]["contestant"]
    views = [point["views"] for point in points]
    means = np.array([point["mean"] for point in points], float)
    bounds = np.array([point["interval"] or (point["mean"],) * 2 for point in points], float)
    spread = np.abs(bounds.T - means)
    axes.errorbar(
        views, means, spread, color=style.PALETTE[0], marker="o", markersize=5, capsize=3, linewidth=1.4
    )
    axes.set(xlabel="Number of augmented views", ylabel=f"{metric} of {style.fitted(who, 1.6)}")
    axes.set_xlim(min(views) - 0.4, max(views) + 0.4)
    axes.locator_params(axis="x", integer=True)
    style.below(
        axes, "Bars: 95 % intervals, of one point on its own; the same patients are behind all of them."
    )
    said = "; ".join(f"{p['views']} views {style.between(p['mean'], p['interval'])}" for p in _ends(points))
    return style.Picture(name, title, f"{metric} of {printable(who)} by augmented views: {said}.", figure)


def _ends(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """First, best and last point, each once."""
    best = max(range(len(points)), key=lambda at: points[at]["mean"])
    return [points[at] for at in sorted({0, best, len(points) - 1})]
