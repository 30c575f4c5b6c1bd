"""What a contestant makes of the view axis: which rows it is trained on, and which it answers for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.errors import UnknownNameError, UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from featstore.matrix import FeatureMatrix

    Rows = NDArray[np.intp]

IDENTITY, EXPAND, AVERAGE, SAMPLE = POLICIES = ("identity", "expand", "average", "sample")
TEST_POLICIES = (IDENTITY, AVERAGE)


def read_policies(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct policies for training, in the order named.

    Raises
    ------
    UsageError
        If one does not exist, or there is none.
    """
    wanted = tuple(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in POLICIES]
    if unknown or not wanted:
        raise UnknownNameError(
            f"There is no view policy {', '.join(map(repr, unknown)) or 'named'}.",
            did_you_mean(unknown[0] if unknown else "", POLICIES),
        )
    return wanted


def require_test_policy(name: str) -> None:
    """Make sure that views can be treated so in testing.

    Raises
    ------
    UsageError
        If they cannot.
    """
    if name not in TEST_POLICIES:
        raise UsageError(f"Test views cannot be treated by {name!r}.", did_you_mean(name, TEST_POLICIES))


def training_rows(
    matrix: FeatureMatrix, images: Rows, backbones: Sequence[str], policy: str = EXPAND, seed: int = 0
) -> tuple[NDArray[np.float32], Rows, NDArray[np.str_]]:
    """Rows to train on: features, classes, groups.

    Parameters
    ----------
    matrix, images, backbones
        Which features.
    policy
        ``identity``: the unaugmented view; ``expand``: every view is a row; ``average``: the mean vector of all
        views; ``sample``: one view for each image, drawn from `seed` and the image id, the same for all backbones.
        That is for strategies that see their rows once; a `ViewStrategy` is given all and draws anew in each epoch.
    seed
        Of ``sample``.
    """
    n_views = len(matrix.views)
    match policy:
        case "expand":
            rows = matrix.rows(images, backbones, range(n_views))
            return rows, np.tile(matrix.y[images], n_views), np.tile(matrix.groups[images], n_views)
        case "average":
            rows = mean_rows(matrix, images, backbones)
        case "sample":
            drawn = np.array([_draw(matrix.records[i].id, seed, n_views) for i in images])
            every = matrix.rows(images, backbones, range(n_views)).reshape(n_views, len(images), -1)
            rows = every[drawn, np.arange(len(images))]
        case _:
            rows = matrix.rows(images, backbones, [0])
    return rows, matrix.y[images], matrix.groups[images]


def answers(
    predict: Callable[[NDArray[np.float32]], NDArray[Any]],
    matrix: FeatureMatrix,
    images: Rows,
    backbones: Sequence[str],
    policy: str = EXPAND,
    test_policy: str = IDENTITY,
) -> NDArray[np.float64]:
    """Probabilities ``(..., len(images), classes)`` float64 of test images.

    Parameters
    ----------
    predict
        From rows to probabilities ``(..., rows, classes)``.
    matrix, images, backbones
        Which features.
    policy
        How it was trained.
    test_policy
        ``identity``: the unaugmented view alone; ``average``: the mean of the answers to every view, or the answer to
        the mean vector where mean vectors were trained on.
    """
    if test_policy == IDENTITY:
        return np.asarray(predict(matrix.rows(images, backbones, [0])), np.float64)
    if policy == AVERAGE:
        return np.asarray(predict(mean_rows(matrix, images, backbones)), np.float64)
    each = [predict(matrix.rows(images, backbones, [view])) for view in range(len(matrix.views))]
    return np.asarray(np.mean(each, axis=0, dtype=np.float64))


def mean_rows(matrix: FeatureMatrix, images: Rows, backbones: Sequence[str]) -> NDArray[np.float32]:
    """Mean vector of all views of each image: ``(len(images), columns)`` float32."""
    n_views = len(matrix.views)
    every = matrix.rows(images, backbones, range(n_views)).reshape(n_views, len(images), -1)
    return np.asarray(every.mean(axis=0, dtype=np.float64).astype(np.float32))


def _draw(image_id: str, seed: int, n_views: int) -> int:
    """A view from the seed and the image alone, so that neither fold nor order moves it."""
    return int(np.random.default_rng([seed, int(image_id, 16)]).integers(n_views))
