"""Images that no backbone knows: only on these may features of tuned weights be scored (law 6)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from featstore.errors import AuditError
from featstore.folds import acquainted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from featstore.matrix import FeatureMatrix

SAME_SPLIT = (
    "Give the --test-size and --split-seed of `featstore finetune`, or the --weights from before; where other"
    " patients only bear the same names, give them other ones."
)


def require_unknown(
    matrix: FeatureMatrix, splits: Mapping[str, NDArray[np.intp]], *, choosing: bool = False
) -> None:
    """Refuse to score a backbone on images that it has learned from, or on other images of their patients.

    Parameters
    ----------
    matrix
        The features, with what their weights have learned from.
    splits
        Row numbers by split; all but ``train`` are to be scored.
    choosing
        Whether something, such as a threshold, is to be chosen on training images as if they were new.

    Raises
    ------
    AuditError
        With the number of images.
    """
    for name, ids in matrix.learned.items():
        known = acquainted(matrix, ids)
        scored = np.concatenate([rows for split, rows in splits.items() if split != "train"])
        if met := int(known[scored].sum()):
            raise AuditError(
                f"{name} was tuned on {met} of the {len(scored)} images to be scored, or on their patients.",
                SAME_SPLIT,
            )
        if choosing and known[splits["train"]].any():
            raise AuditError(
                f"{name} was tuned on training images, so nothing can be chosen on them as if they were new.",
                "Leave out --calibrate and --sensitivity, or use the --weights from before.",
            )


def unknown(matrix: FeatureMatrix) -> FeatureMatrix:
    """Leave out the images that a backbone has learned from, and other images of their patients.

    Raises
    ------
    AuditError
        If nothing stays.
    """
    known = np.zeros(len(matrix.records), np.bool_)
    for ids in matrix.learned.values():
        known |= acquainted(matrix, ids)
    if not known.any():
        return matrix
    if known.all():
        raise AuditError(
            f"{', '.join(sorted(matrix.learned))} learned from all these images, or from their patients.",
            "Compare on images held out from `featstore finetune`, or use the --weights from before; where other"
            " patients only bear the same names, give them other ones.",
        )
    return replace(matrix.only(np.flatnonzero(~known)), set_apart=int(known.sum()))
