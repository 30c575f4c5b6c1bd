"""From a block of files to batches at a network's door: read, decode, resize, warp, stack."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from featstore.errors import BadImageError
from featstore.images.reading import read_pixels
from featstore.images.recipe import parse_recipe
from featstore.images.resize import resize
from featstore.images.room import room_for
from featstore.images.transform import draw
from featstore.images.warp import warp
from featstore.store.quarantine import BadImage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.extraction.plan import Block, Step
    from featstore.types import Decoding, FeatureKey, ImageRecord, Pixels, View

CHANNELS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Images at the door of the backbones of one step.

    Attributes
    ----------
    keys
        Feature keys to compute from these pixels.
    ids
        Image ids of the real rows; the rest of `pixels` is padding.
    pixels
        ``(batch_size, side, side, 3)`` float32, RGB, 0..255.
    is_last
        Whether the step ends with this batch.
    """

    keys: tuple[FeatureKey, ...]
    ids: tuple[str, ...]
    pixels: NDArray[np.float32]
    is_last: bool


def batches(
    blocks: Iterable[Block],
    records: Mapping[str, ImageRecord],
    decoding: Decoding,
    batch_size: int,
    threads: int,
) -> Iterator[Batch | BadImage]:
    """Stream batches, and each image that does not decode as a `BadImage` in its place.

    A file is read and decoded once for all views, resized once per input size, warped once per view and size.
    Grey images keep one channel until the door.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="pixels") as pool:
        for block in blocks:
            sizes = sorted({step.input_size for step in block.steps})
            load = partial(_load, decoding=decoding, sizes=sizes)
            loaded = pool.map(load, (records[i] for i in block.ids))
            images: dict[str, dict[int, Pixels]] = {}
            for image, result in zip(block.ids, loaded, strict=True):
                if isinstance(result, BadImage):
                    yield result
                else:
                    images[image] = result
            for step in block.steps:
                yield from _step_batches(step, images, batch_size, pool)


def view_pixels(pixels: Pixels, view: View, image: str) -> NDArray[np.float32]:
    """Show `pixels` in one view: the same numbers for every backbone, batch, worker and order (law 1).

    Parameters
    ----------
    pixels
        ``(side, side, 1 or 3)`` uint8, already of the input size.
    view
        Recipe and seed.
    image
        Image id; with the seed it fixes the transform.

    Returns
    -------
    ``(side, side, 1 or 3)`` float32, 0..255.
    """
    if view.is_identity:
        return pixels.astype(np.float32)
    recipe = _parsed(view.recipe)
    height, width, _ = pixels.shape
    return warp(pixels, draw(recipe, view.seed, image, height, width), recipe.fill, recipe.cval)


_parsed = cache(parse_recipe)


def _load(record: ImageRecord, decoding: Decoding, sizes: Sequence[int]) -> dict[int, Pixels] | BadImage:
    with room_for(record.path):
        try:
            pixels = read_pixels(record, decoding)
        except BadImageError as error:
            return BadImage(record.id, error.reason, error.detail)
        return {size: resize(pixels, size) for size in sizes}


def _step_batches(
    step: Step, images: Mapping[str, Mapping[int, Pixels]], batch_size: int, pool: ThreadPoolExecutor
) -> Iterator[Batch]:
    ids = tuple(i for i in step.ids if i in images)
    for start in range(0, len(ids), batch_size):
        part = ids[start : start + batch_size]
        pixels = np.zeros((batch_size, step.input_size, step.input_size, CHANNELS), np.float32)
        views = pool.map(lambda i: view_pixels(images[i][step.input_size], step.view, i), part)
        for row, seen in enumerate(views):
            pixels[row] = seen
        yield Batch(step.keys, part, pixels, is_last=start + batch_size >= len(ids))
