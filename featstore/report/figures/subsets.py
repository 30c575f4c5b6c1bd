"""Which backbones, and what they cost: the lattice of subsets, the Pareto front."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from featstore.evaluation.worth import pareto as undominated
from featstore.report.figures.canvas import abbreviated, below, blank, canvas, fitted, letters
from featstore.report.figures.picture import GREY, PALETTE, Picture, drawing
from featstore.report.plain import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.axes import Axes

    Subset = frozenset[str]

HEIGHT = 3.2
SPREAD = 0.33
"""How far subsets of one size stand beside their place."""
ALL_NAMED = 15
"""Subsets up to which each is named."""
EDGES = 700
FRONT_NAMED = 6
"""Points of a Pareto front that are named in the picture."""


def lattice(
    contestants: Sequence[Mapping[str, Any]],
    *,
    metric: str = "auc",
    strategy: str | None = None,
    name: str = "subsets",
    title: str = "Every subset of the backbones",
) -> Picture:
    """Score of each subset by its size; a line joins a subset to each that has one backbone more.

    Where a subset was tried with several view policies, its best score is drawn. Greedy contestants are left out.

    Parameters
    ----------
    contestants
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
        c for c in contestants if c["metrics"].get(metric, {}).get("mean") is not None and not c.get("chosen")
    ]
    fused = [c for c in known if len(c["backbones"]) > 1]
    counted = Counter(c["strategy"] for c in fused)
    chosen = strategy or (max(counted, key=lambda s: counted[s]) if counted else "")
    part = [c for c in fused if c["strategy"] == chosen] + [c for c in known if len(c["backbones"]) == 1]
    scores: dict[Subset, float] = {}
    for contestant in part:
        subset = frozenset(contestant["backbones"])
        scores[subset] = max(contestant["metrics"][metric]["mean"], scores.get(subset, float("-inf")))
    if not scores:
        return blank(name, title, "No subset has a score, so there is no lattice to draw.")
    return _lattice(scores, metric.upper(), chosen, name, title)


def pareto(
    points: Sequence[Mapping[str, Any]],
    *,
    metric: str = "auc",
    name: str = "pareto",
    title: str = "What a better score costs",
) -> Picture:
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
        return blank(name, title, "No subset has both a known cost and a score.")
    return _pareto(known, metric.upper(), name, title)


@drawing
def _lattice(scores: Mapping[Subset, float], metric: str, strategy: str, name: str, title: str) -> Picture:
    backbones = sorted({backbone for subset in scores for backbone in subset})
    code = letters(backbones)
    figure, axes = canvas(HEIGHT)
    places = _places(scores)
    edges = list(_edges(scores))
    for small, large in edges[:EDGES]:
        axes.plot(
            *zip(places[small], places[large], strict=True), color=GREY, linewidth=0.4, alpha=0.35, zorder=1
        )
    best = {
        size: max((s for s in scores if len(s) == size), key=lambda s: scores[s]) for size in map(len, scores)
    }
    ridge = [places[best[size]] for size in sorted(best)]
    axes.plot(*zip(*ridge, strict=True), color=PALETTE[1], linewidth=1.6, zorder=2, label="best of each size")
    _dots(axes, places.values(), PALETTE[0], "o", 16)
    _dots(axes, ridge, PALETTE[1], "D", 34)
    named = scores if len(scores) <= ALL_NAMED else best.values()
    for subset in named:
        _name(axes, places[subset], "".join(code[b] for b in sorted(subset)), above=subset in best.values())
    axes.set(xlabel="backbones in the subset", ylabel=metric, xlim=(0.5, max(best) + 0.5))
    axes.set_xticks(sorted(best))
    low, high = min(scores.values()), max(scores.values())
    axes.set_ylim(low - 0.06 * (high - low) - 1e-3, high + 0.12 * (high - low) + 1e-3)
    key = "; ".join(f"{code[b]} {fitted(b, 1.6, 7.5)}" for b in backbones)
    below(
        axes, f"{key}. {_fused_by(strategy)} The best of many is partly luck: see the winner's guarded value."
    )
    top = max(scores, key=lambda s: scores[s])
    single = max((scores[s] for s in scores if len(s) == 1), default=None)
    alone = "" if single is None else f"; the best single one has {single:.3f}"
    of = f"{metric} of {len(scores)} subsets of {len(backbones)} backbones"
    alt = f"{of}: best {_joined(top)} with {scores[top]:.3f}{alone}."
    return Picture(name, title, alt, figure)


def _fused_by(strategy: str) -> str:
    return f"Fused by {fitted(strategy, 2.0)}." if strategy else ""


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


@drawing
def _pareto(points: Sequence[Mapping[str, Any]], metric: str, name: str, title: str) -> Picture:
    cost, score = [p["milliseconds"] for p in points], [p["score"] for p in points]
    front = undominated(cost, score)
    figure, axes = canvas(HEIGHT)
    _dots(axes, zip(cost, score, strict=True), GREY, "o", 14)
    steps = [cost[at] for at in front], [score[at] for at in front]
    axes.step(*steps, where="post", color=PALETTE[0], linewidth=1.4, zorder=3)
    _dots(axes, zip(*steps, strict=True), PALETTE[0], "D", 30)
    named = front[-FRONT_NAMED:]
    for number, at in enumerate(named, 1):
        _name(axes, (cost[at], score[at]), f"{number} ", above=True, beside="right")
    axes.set(xlabel="milliseconds per image, stage one", ylabel=metric, xlim=(0, 1.08 * max(cost)))
    low, high = min(score), max(score)
    axes.set_ylim(low - 0.06 * (high - low) - 1e-3, high + 0.12 * (high - low) + 1e-3)
    labels, key = abbreviated([_joined(points[at]["backbones"]) for at in named], 3.4, 7.5)
    lines = [
        f"{number}  {label}: {score[at]:.3f}, {cost[at]:.0f} ms"
        for number, (label, at) in enumerate(zip(labels, named, strict=True), 1)
    ]
    below(axes, "\n".join([*lines, key, "Point estimates, not verdicts."]))
    said = "; ".join(
        f"{_joined(points[at]['backbones'])} {cost[at]:.0f} ms {score[at]:.3f}" for at in front[:8]
    )
    rest = f"; {len(front) - 8} more" if len(front) > 8 else ""  # noqa: PLR2004
    return Picture(name, title, f"{metric} by cost, cheapest first: {said}{rest}.", figure)


def _joined(backbones: Iterable[str]) -> str:
    return "+".join(printable(b) for b in sorted(backbones))
