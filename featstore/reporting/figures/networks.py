"""Figures of the networks: the fusion diagram, and the learning curves."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from featstore.reporting.figures import style
from featstore.tables import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from matplotlib.axes import Axes


# Fusion diagram: how the vectors become an answer (Fig. 3 and 7 of Ji et al. 2020)

ROW = 0.46
"""Inches from box to box."""
SMALL = 7.5
COLUMNS = {
    "image": (0.0, 0.46),
    "backbone": (0.68, 1.6),
    "joint": (2.52, 0.66),
    "head": (3.4, 1.0),
    "class": (4.62, 0.8),
}
"""Left edge and width in inches."""
OUTPUTS = 8
"""Classes that get a box of their own."""


def fusion_diagram(
    dimensions: Mapping[str, int],
    head: str,
    classes: Sequence[str],
    *,
    inputs: Mapping[str, int] | None = None,
    tables: Collection[str] = (),
    level: Literal["feature", "decision"] = "feature",
    name: str = "fusion",
    title: str = "From image to answer",
) -> style.Picture:
    """One image through every backbone, their vectors (or answers) side by side, the head, the classes.

    Parameters
    ----------
    dimensions
        By backbone: numbers in its vector (global average pooling).
    head
        What stands on the joined vector, or joins the answers, in a few words: ``dropout 0.5, dense, sigmoid``.
    classes
        Names of the answers.
    inputs
        By backbone: side of its input in pixels, where known.
    tables
        Of the blocks, those that no network computes from the image: covariates, and vectors of another program.
    level
        Whether vectors are joined (``feature``), or each backbone answers and answers are joined (``decision``); a
        strategy has it as its attribute `level`.
    name, title
        Of the picture.
    """
    if not dimensions:
        return style.blank(name, title, "There is no backbone, so there is nothing to fuse.")
    return _drawn(dimensions, head, classes, inputs or {}, tables, level, name, title)


@style.drawing
def _drawn(
    dimensions: Mapping[str, int],
    head: str,
    classes: Sequence[str],
    inputs: Mapping[str, int],
    tables: Collection[str],
    level: str,
    name: str,
    title: str,
) -> style.Picture:
    outputs = [*classes[:OUTPUTS], *([f"{len(classes) - OUTPUTS} more"] if len(classes) > OUTPUTS else [])]
    rows = max(len(dimensions), len(outputs), 2)
    height = ROW * rows
    width = sum(COLUMNS["class"])
    figure, axes = style.canvas(height, width)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    middle = height / 2
    _box(axes, "image", middle, ["image"], style.GREY)
    _backbones(axes, dimensions, inputs, tables, height)
    joint, alt = _joint(dimensions, tables, level)
    _box(axes, "joint", middle, joint, style.PALETTE[1])
    _arrow(axes, (sum(COLUMNS["joint"]), middle), (COLUMNS["head"][0], middle))
    _box(axes, "head", middle, _lines(head, 0.94, 4), style.PALETTE[2])
    for at, label in enumerate(outputs):
        place = _place(at, len(outputs), height)
        _box(axes, "class", place, _lines(label, 0.74, 2), style.PALETTE[3])
        _arrow(axes, (sum(COLUMNS["head"]), middle), (COLUMNS["class"][0], place))
    return style.Picture(
        name, title, f"{alt}; then {printable(head)}; answers: {style.joined_names(classes)}.", figure
    )


def _backbones(
    axes: Axes,
    dimensions: Mapping[str, int],
    inputs: Mapping[str, int],
    tables: Collection[str],
    height: float,
) -> None:
    """A box for each backbone, between the image and the place where all are joined; no image leads to a table."""
    left, right = COLUMNS["backbone"][0], sum(COLUMNS["backbone"])
    for at, (backbone, dimension) in enumerate(dimensions.items()):
        place, side = _place(at, len(dimensions), height), inputs.get(backbone)
        seen = f"{side} px → " if side else ""
        lines = [style.fitted(backbone, 1.5, SMALL), f"{seen}{dimension:,} numbers"]
        _box(axes, "backbone", place, lines, style.GREY if backbone in tables else style.PALETTE[0])
        if backbone not in tables:
            _arrow(axes, (sum(COLUMNS["image"]), height / 2), (left, place))
        _arrow(axes, (right, place), (COLUMNS["joint"][0], height / 2))


def _joint(dimensions: Mapping[str, int], tables: Collection[str], level: str) -> tuple[list[str], str]:
    """What is joined, for the box and in a sentence."""
    count, total = len(dimensions), sum(dimensions.values())
    parts, beside = (
        " + ".join(
            f"{printable(name)} {dimensions[name]:,}" for name in dimensions if (name in tables) is apart
        )
        for apart in (False, True)
    )
    networks = sum(name not in tables for name in dimensions)
    through = f"Each image goes through {networks} frozen {'network' if networks == 1 else 'networks'}"
    if not networks:
        through, parts = "No network is asked", "none"
    also = f", beside what no network computed here ({beside})" if beside else ""
    if level == "decision":
        return [
            "answers",
            f"of {count}",
        ], f"{through}, each of which answers from its pooled vector ({parts}){also}"
    said = f"{through}, whose pooled vectors ({parts}){also} join to {total:,} numbers"
    return ["joined", f"{total:,}", "numbers"], said


def _place(at: int, count: int, height: float) -> float:
    """Height of box `at` of `count` that are spread evenly, with no more than a row between them."""
    step = min(height / count, ROW)
    return height / 2 + (at - (count - 1) / 2) * step


def _lines(text: str, inches: float, most: int) -> list[str]:
    """At most so many lines, each no wider than so many inches."""
    words = wrap(
        printable(text),
        round(inches * 17),
        max_lines=most,
        placeholder=style.ELLIPSIS,
        break_long_words=False,
    ) or [""]
    return [style.fitted(line, inches, SMALL) for line in words]


def _box(axes: Axes, column: str, level: float, lines: Sequence[str], colour: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    left, width = COLUMNS[column]
    height = 0.16 * len(lines) + 0.06
    patch = FancyBboxPatch(
        (left, level - height / 2),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.05",
        facecolor=(colour, 0.16),
        edgecolor=colour,
        linewidth=1.0,
    )
    axes.add_patch(patch)
    axes.text(
        left + width / 2, level, "\n".join(lines), ha="center", va="center", fontsize=SMALL, color=style.INK
    )


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate(
        "",
        end,
        start,
        annotation_clip=False,
        arrowprops={"arrowstyle": "-|>", "color": style.GREY, "linewidth": 0.8, "shrinkA": 1, "shrinkB": 1},
    )


# Learning curves: accuracy and loss by epoch (Fig. 8 to 23 of Ji et al. 2020)

HEIGHT = 2.6
ON_THE_WAY = (
    "The training curve is taken on the way, with dropout and changing weights, as Keras does; the validation"
    " curve after each epoch."
)


def accuracy_curves(history: Mapping[str, Sequence[float]], *, name: str, title: str) -> style.Picture:
    """Training and validation accuracy by epoch.

    Parameters
    ----------
    history
        ``accuracy`` and ``val_accuracy``, shares from 0 to 1, one number per epoch, as in metrics.json of a fit;
        either may be empty.
    name, title
        Of the picture.
    """
    return _curves(history, "accuracy", max, name, title)


def loss_curves(history: Mapping[str, Sequence[float]], *, name: str, title: str) -> style.Picture:
    """Training and validation cross-entropy by epoch.

    Parameters
    ----------
    history
        ``loss`` and ``val_loss`` in nats, one number per epoch, as in metrics.json of a fit; either may be empty.
    name, title
        Of the picture.
    """
    return _curves(history, "loss", min, name, title)


def _curves(
    history: Mapping[str, Sequence[float]],
    what: str,
    best: Callable[[Sequence[float]], float],
    name: str,
    title: str,
) -> style.Picture:
    kept = {"training": history.get(what) or (), "validation": history.get(f"val_{what}") or ()}
    curves = {label: np.asarray(values, float) for label, values in kept.items() if len(values)}
    if not curves:
        return style.blank(name, title, f"No epoch was trained, so there is no {what} to draw.")
    return _drawn_curves(curves, what, best, name, title)


@style.drawing
def _drawn_curves(
    curves: Mapping[str, np.ndarray],
    what: str,
    best: Callable[[Sequence[float]], float],
    name: str,
    title: str,
) -> style.Picture:
    figure, axes = style.canvas(HEIGHT)
    words = []
    for at, (label, values) in enumerate(curves.items()):
        few: dict[str, Any] = {"marker": "o", "markersize": 3} if len(values) < 15 else {}  # noqa: PLR2004
        axes.plot(np.arange(1, len(values) + 1), values, label=label, **style.stroke(at), **few)
        finite = values[np.isfinite(values)].tolist() or [float("nan")]
        top = best(finite)
        epoch = int(np.flatnonzero(values == top)[0]) + 1 if np.isfinite(top) else 0
        words.append(f"{label} {what} {values[-1]:.3f} at the last epoch, best {top:.3f} at epoch {epoch}")
    axes.set_xlabel("Epoch")
    axes.set_ylabel("Accuracy" if what == "accuracy" else "Loss (cross-entropy, nats)")
    axes.locator_params(axis="x", integer=True)
    if what == "loss":
        axes.set_ylim(bottom=0.0)
    style.below(axes, ON_THE_WAY)
    epochs = max(map(len, curves.values()))
    return style.Picture(name, title, f"{title} over {epochs} epochs: {'; '.join(words)}.", figure)
