"""From a block of files to batches at a network's door: read, decode, resize, warp, stack."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from featstore.errors import BadImageError
from featstore.files import read_regular
from featstore.fingerprint import digest_bytes
from featstore.images.contents import page_id
from featstore.images.decode import decode
from featstore.images.recipe import parse_recipe
from featstore.images.resize import resize
from featstore.images.structure import MAX_BYTES
from featstore.images.transform import draw
from featstore.images.warp import warp
from featstore.store.quarantine import BadImage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.extraction.plan import Block, Step
    from featstore.types import Decoding, FeatureKey, ImageRecord, Pixels, View

CHANNELS = 3
CHANGED = "changed"
MISSING = "missing"
PERMISSION = "permission"


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


def read_pixels(record: ImageRecord, decoding: Decoding) -> Pixels:
    """Read and decode one file, and insist that its bytes are still those of its id.

    Returns
    -------
    ``(height, width, 1 or 3)`` uint8.

    Raises
    ------
    BadImageError
        If the file is gone, unreadable, changed since the scan, or does not decode.
    """
    try:
        data = read_regular(record.path, MAX_BYTES)
    except PermissionError as error:
        raise BadImageError(PERMISSION, "the file may not be read") from error
    except OSError as error:
        raise BadImageError(MISSING, f"the file cannot be read any more: {error.strerror}") from error
    digest = digest_bytes(data)
    if record.id not in {digest, page_id(digest, record.frame)}:
        raise BadImageError(CHANGED, "the file changed after it was scanned")
    pixels, _ = decode(data, record.frame, decoding.value_range)
    return pixels


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
