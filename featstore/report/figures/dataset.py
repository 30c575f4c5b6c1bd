"""What there is to learn from: images by split and class (Fig. 4 of Ji et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featstore.report.figures.canvas import blank, canvas, distinct, fitted
from featstore.report.figures.picture import PALETTE, Picture, drawing
from featstore.report.plain import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

ROW = 0.22
"""Inches from bar to bar; a split begins one bar further down."""


def distribution(
    counts: Mapping[str, Mapping[str, int]],
    *,
    name: str = "distribution",
    title: str = "Images by split and class",
) -> Picture:
    """A bar for each class in each split.

    Parameters
    ----------
    counts
        By split, by class: number of images.
    name, title
        Of the picture.
    """
    if not any(sum(classes.values()) for classes in counts.values()):
        return blank(name, title, "The data set has no images.")
    return _drawn(counts, name, title)


@drawing
def _drawn(counts: Mapping[str, Mapping[str, int]], name: str, title: str) -> Picture:
    every = list(dict.fromkeys(label for classes in counts.values() for label in classes))
    colours = {label: PALETTE[at % len(PALETTE)] for at, label in enumerate(every)}
    shown = dict(zip(every, distinct(every, 1.2, 8), strict=True))
    rows = sum(len(classes) + 1 for classes in counts.values())
    figure, axes = canvas(ROW * rows, 2.9)
    row, ticks, names = 0.0, [], []
    for split, classes in counts.items():
        head = f"{fitted(split, 2.0)}: {sum(classes.values())}"
        axes.annotate(
            head, (0, row + 0.1), xytext=(4, 0), textcoords="offset points", weight="bold", va="center"
        )
        for label, count in classes.items():
            row += 1
            axes.barh(row, count, height=0.78, color=colours[label])
            axes.annotate(
                str(count), (count, row), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8
            )
            ticks.append(row)
            names.append(shown[label])
        row += 1
    axes.set_yticks(ticks, names, fontsize=8)
    axes.set_ylim(row - 0.4, -0.6)
    axes.set_xlim(0, 1.12 * max(max(classes.values(), default=0) for classes in counts.values()))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=5, integer=True)
    axes.set_xlabel("images")
    said = "; ".join(
        f"{printable(split)} {', '.join(f'{printable(c)} {n}' for c, n in classes.items())}"
        for split, classes in counts.items()
    )
    return Picture(name, title, f"{title}: {said}.", figure)
