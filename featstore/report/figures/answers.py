"""What was answered for which class: the confusion matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.errors import UsageError
from featstore.report.figures.canvas import POINTS, SHOWN, below, blank, canvas, distinct, fitted, wide
from featstore.report.figures.picture import INK, PALETTE, Picture, drawing
from featstore.report.plain import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

SIDE = 3.6
FEW = 6
"""Classes whose cells have room for a share beside the count."""
DIGIT = 0.64
"""Width of a figure, in font sizes."""


def confusion(
    counts: ArrayLike,
    classes: Sequence[str],
    *,
    name: str = "confusion",
    title: str = "Answers by true class",
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


@drawing
def _confusion(table: NDArray[Any], classes: Sequence[str], name: str, title: str) -> Picture:
    count = len(classes)
    figure, axes = canvas(SIDE * min(1.0, 0.55 + count / 10), SIDE)
    rows = table.sum(axis=1, keepdims=True)
    share = np.divide(table, rows, out=np.zeros(table.shape), where=rows > 0)
    axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5))
    axes.grid(visible=False)
    cell = SIDE / count
    longest = max(4 if count <= FEW else 0, len(str(table.max())))
    size = min(10.0, POINTS * 0.8 * cell / (DIGIT * longest))
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
    left = _class_ticks(axes, classes, cell)
    below(axes, "Shares are of the true class, row by row; blue is right, orange wrong.", drop=0.1, left=left)
    right = ", ".join(
        f"{int(table[c, c])} of {int(rows[c, 0])} {printable(label)}"
        for c, label in enumerate(classes[:SHOWN])
    )
    more = f", and {count - SHOWN} more classes" if count > SHOWN else ""
    total = f"{int(np.trace(table))} of {int(table.sum())} images"
    return Picture(name, title, f"Confusion matrix: {total} answered right ({right}{more}).", figure)


def _class_ticks(axes: Axes, classes: Sequence[str], cell: float) -> float:
    """Class names beside the rows and above the columns, slanted where they would touch; inches that they take."""
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
    return max(map(wide, beside)) + 0.3
