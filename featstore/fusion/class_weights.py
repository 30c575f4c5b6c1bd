"""Factors on the loss of each row, by its class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.class_weight import compute_class_weight

from featstore.errors import UsageError, did_you_mean, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray


def row_weights(
    class_weight: str | Mapping[Any, float] | None, classes: NDArray[Any], y: NDArray[np.intp]
) -> NDArray[np.float32] | None:
    """Factors ``(n,)`` of rows with class numbers ``y (n,)``; None where every row counts alike.

    Parameters
    ----------
    class_weight
        ``balanced`` (n / (number of classes * rows of the class), as in scikit-learn), or a factor by label or by its
        text, 1 for a label that is not there.
    classes
        ``(n_classes,)`` labels.

    Raises
    ------
    UsageError
        If it is another word, a label does not exist, or a factor is negative.
    """
    if class_weight is None:
        return None
    if isinstance(class_weight, Mapping):
        factors = _by_label(class_weight, [str(label) for label in classes.tolist()])
    elif class_weight == "balanced":
        factors = compute_class_weight("balanced", classes=np.arange(len(classes)), y=y)
    else:
        raise UsageError(
            f"class_weight={class_weight} is out of range.", did_you_mean(str(class_weight), ["balanced"])
        )
    weights: NDArray[np.float32] = factors[y].astype(np.float32)
    return weights


def _by_label(given: Mapping[Any, float], labels: list[str]) -> NDArray[np.float64]:
    factors = {str(label): float(factor) for label, factor in given.items()}
    strange = sorted(set(factors) - set(labels))
    close = nearest(strange[0], labels) if strange else []
    question = f"Did you mean {close[0]}? " if close else ""
    if strange or min(factors.values(), default=0.0) < 0:
        raise UsageError(
            f"class_weight={dict(given)} is out of range.",
            f"{question}Name labels ({', '.join(labels)}), none below 0.",
        )
    return np.array([factors.get(label, 1.0) for label in labels])
