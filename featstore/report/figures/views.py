"""How many augmented views pay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.report.figures.canvas import below, between, blank, canvas, fitted
from featstore.report.figures.picture import PALETTE, Picture, drawing
from featstore.report.plain import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HEIGHT = 2.6


def views_curve(
    view_curve: Sequence[Mapping[str, Any]],
    *,
    name: str = "views",
    title: str = "How many augmented views pay",
) -> Picture:
    """A contestant's score against the number of augmented views that it was trained on.

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
        return blank(name, title, "No number of views has a score, so there is no curve to draw.")
    return _drawn(known, name, title)


@drawing
def _drawn(points: Sequence[Mapping[str, Any]], name: str, title: str) -> Picture:
    figure, axes = canvas(HEIGHT)
    metric, who = points[0]["metric"].upper(), points[0]["contestant"]
    views = [point["views"] for point in points]
    means = np.array([point["mean"] for point in points], float)
    bounds = np.array([point["interval"] or (point["mean"],) * 2 for point in points], float)
    spread = np.abs(bounds.T - means)
    axes.errorbar(views, means, spread, color=PALETTE[0], marker="o", markersize=5, capsize=3, linewidth=1.4)
    axes.set(xlabel="augmented views beside the image itself", ylabel=f"{metric} of {fitted(who, 1.6)}")
    axes.set_xlim(min(views) - 0.4, max(views) + 0.4)
    axes.locator_params(axis="x", integer=True)
    below(axes, "Bars: 95 % intervals, of one point on its own; the same patients are behind all of them.")
    said = "; ".join(f"{p['views']} views {between(p['mean'], p['interval'])}" for p in _ends(points))
    return Picture(name, title, f"{metric} of {printable(who)} by augmented views: {said}.", figure)


def _ends(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """First, best and last point, each once."""
    best = max(range(len(points)), key=lambda at: points[at]["mean"])
    return [points[at] for at in sorted({0, best, len(points) - 1})]
