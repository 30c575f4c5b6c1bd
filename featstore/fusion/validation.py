"""Rows that a caller wants a network to be validated on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import validate_data

from featstore.errors import UsageError
from featstore.fusion.strategy import FLOATS

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from featstore.fusion.strategy import FusionStrategy


def read_validation(
    strategy: FusionStrategy, validation: tuple[ArrayLike, ArrayLike] | None
) -> tuple[NDArray[Any], NDArray[np.intp]] | None:
    """Check rows to validate on, and number their classes as the training rows of `strategy` are numbered.

    Parameters
    ----------
    strategy
        It has seen its training rows, but has not been trained.
    validation
        Features ``(m, d)`` and labels ``(m,)``; None stays None.

    Raises
    ------
    UsageError
        If they hold a class without a training row.
    """
    if validation is None:
        return None
    labels = np.asarray(validation[1])
    unknown = sorted(set(labels.tolist()) - set(strategy.classes_.tolist()))
    if unknown:
        raise UsageError(
            f"There are validation rows of {unknown[0]!r}, and no training row.",
            "Train on images of every class.",
        )
    X: NDArray[Any] = validate_data(strategy, validation[0], dtype=FLOATS, reset=False)
    return X, np.searchsorted(strategy.classes_, labels)
