"""How a network learnt: accuracy and loss by epoch (Fig. 8 to 23 of Ji et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.report.figures.canvas import below, blank, canvas, stroke
from featstore.report.figures.picture import Picture, drawing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

HEIGHT = 2.6
ON_THE_WAY = (
    "The training curve is taken on the way, with dropout and changing weights, as Keras does; the validation"
    " curve after each epoch."
)


def accuracy_curves(history: Mapping[str, Sequence[float]], *, name: str, title: str) -> Picture:
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


def loss_curves(history: Mapping[str, Sequence[float]], *, name: str, title: str) -> Picture:
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
) -> Picture:
    kept = {"training": history.get(what) or (), "validation": history.get(f"val_{what}") or ()}
    curves = {label: np.asarray(values, float) for label, values in kept.items() if len(values)}
    if not curves:
        return blank(name, title, f"No epoch was trained, so there is no {what} to draw.")
    return _drawn(curves, what, best, name, title)


@drawing
def _drawn(
    curves: Mapping[str, np.ndarray],
    what: str,
    best: Callable[[Sequence[float]], float],
    name: str,
    title: str,
) -> Picture:
    figure, axes = canvas(HEIGHT)
    words = []
    for at, (label, values) in enumerate(curves.items()):
        few: dict[str, Any] = {"marker": "o", "markersize": 3} if len(values) < 15 else {}  # noqa: PLR2004
        axes.plot(np.arange(1, len(values) + 1), values, label=label, **stroke(at), **few)
        finite = values[np.isfinite(values)].tolist() or [float("nan")]
        top = best(finite)
        epoch = int(np.flatnonzero(values == top)[0]) + 1 if np.isfinite(top) else 0
        words.append(f"{label} {what} {values[-1]:.3f} at the last epoch, best {top:.3f} at epoch {epoch}")
    axes.set_xlabel("epoch")
    axes.set_ylabel(what if what == "accuracy" else "loss (cross-entropy, nats)")
    axes.locator_params(axis="x", integer=True)
    if what == "loss":
        axes.set_ylim(bottom=0.0)
    below(axes, ON_THE_WAY)
    epochs = max(map(len, curves.values()))
    return Picture(name, title, f"{title} over {epochs} epochs: {'; '.join(words)}.", figure)
