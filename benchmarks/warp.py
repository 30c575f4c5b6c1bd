"""How much faster our warp is than Keras' way, scipy channel by channel: ratios of medians in one run."""

from __future__ import annotations

from functools import partial
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import affine_transform

from featstore.images.augment import Transform, affine, draw, warp
from featstore.images.recipe import FILLS, parse_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SIDE = 299
VIEWS = 25


def main() -> None:
    rng = np.random.default_rng(0)
    recipe = parse_recipe("paper")
    transforms = [draw(recipe, seed, "benchmark", SIDE, SIDE) for seed in range(VIEWS)]
    print(
        f"{'fill':<10}{'channels':>9}{'scipy ms':>10}{'warp ms':>10}{'ratio':>8}{'greatest difference':>22}"
    )
    for channels in (3, 1):
        image = rng.integers(0, 256, (SIDE, SIDE, channels)).astype(np.float32)
        for fill in FILLS:
            compare(image, transforms, fill)


def compare(image: NDArray[np.float32], transforms: list[Transform], fill: str) -> None:
    theirs, ours, worst = [], [], 0.0
    for transform in transforms:
        # Taking turns, so that a busy machine slows both.
        expected, seconds = timed(partial(scipy_warp, image, transform, fill))
        theirs.append(seconds)
        got, seconds = timed(partial(warp, image, transform, fill))
        ours.append(seconds)
        worst = max(worst, float(np.abs(got - expected).max()))
    slow, fast = 1e3 * median(theirs), 1e3 * median(ours)
    print(f"{fill:<10}{image.shape[2]:>9}{slow:>10.2f}{fast:>10.2f}{slow / fast:>8.1f}{worst:>22.1e}")


def scipy_warp(image: NDArray[np.float32], transform: Transform, fill: str) -> NDArray[np.float32]:
    """Keras' ``apply_affine_transform``, the flips already in the matrix."""
    matrix = affine(transform, *image.shape[:2])
    planes = [
        affine_transform(plane, matrix[:, :2], matrix[:, 2], order=1, mode=fill)
        for plane in np.rollaxis(image, 2)
    ]
    return np.stack(planes, axis=-1)


def timed(function: Callable[[], NDArray[np.float32]]) -> tuple[NDArray[np.float32], float]:
    start = perf_counter()
    result = function()
    return result, perf_counter() - start


if __name__ == "__main__":
    main()
