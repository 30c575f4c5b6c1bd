"""What the networks see: images, and one image under augmentation (Fig. 1, 2, 5, 6 of Ji et al. 2020)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from featstore.errors import UsageError
from featstore.report.figures.canvas import WIDTH, blank, fitted, told
from featstore.report.figures.picture import GREY, Picture, drawing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Image = NDArray[np.uint8]

ACROSS = 4
"""Images side by side, at most."""
GAP, CAPTION = 0.08, 0.2
SHARPNESS = 150
"""Pixels per inch that are kept: what a phone shows, and small enough for a page with many."""
RGB = 3


def image_grid(images: Sequence[Image], captions: Sequence[str], *, name: str, title: str) -> Picture:
    """Images with a caption under each.

    Parameters
    ----------
    images
        uint8, each ``(h, w)``, ``(h, w, 1)`` or ``(h, w, 3)``; large ones are shrunk to what can be seen.
    captions
        One for each.
    name, title
        Of the picture.

    Raises
    ------
    UsageError
        If an image is something else, or captions are missing.
    """
    if len(images) != len(captions):
        raise UsageError(f"{len(images)} images have {len(captions)} captions.", "Give one for each.")
    if not len(images):
        return blank(name, title, "There are no images to show.")
    across = _across(len(images))
    pixels = round(SHARPNESS * _side(across))
    return _drawn([_small(image, pixels) for image in images], captions, across, name, title)


def augmentation_grid(
    original: Image,
    views: Mapping[str, Image],
    *,
    name: str = "augmentation",
    title: str = "Before and after augmentation",
) -> Picture:
    """An image beside its augmented views.

    Parameters
    ----------
    original
        As for `image_grid`.
    views
        By what was done: the same image afterwards.
    name, title
        Of the picture.

    Raises
    ------
    UsageError
        As for `image_grid`.
    """
    return image_grid([original, *views.values()], ["original", *views], name=name, title=title)


def _across(count: int) -> int:
    """Images in a row: as many as leave the fewest holes."""
    if count <= ACROSS:
        return 3 if count == ACROSS - 1 else 2
    return min((4, 3), key=lambda columns: -count % columns)


def _side(across: int) -> float:
    return (WIDTH - GAP * (across - 1)) / across


def _small(image: Image, most: int) -> Image:
    pixels = np.asarray(image)
    if pixels.ndim == RGB and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    grey = pixels.ndim == RGB - 1
    if pixels.dtype != np.uint8 or not pixels.size or not (grey or pixels.shape[2:] == (RGB,)):
        raise UsageError(
            f"A picture of {pixels.dtype} in shape {pixels.shape} cannot be shown.",
            "Give uint8 in shape (h, w) or (h, w, 3).",
        )
    from PIL import Image as Pillow

    small = Pillow.fromarray(pixels)
    small.thumbnail((most, most), Pillow.Resampling.LANCZOS)
    # Three channels: a grey colour map would round.
    return np.array(small.convert("RGB"))


@drawing
def _drawn(images: Sequence[Image], captions: Sequence[str], columns: int, name: str, title: str) -> Picture:
    from matplotlib.figure import Figure

    rows = math.ceil(len(images) / columns)
    side = _side(columns)
    width, height = side * columns + GAP * (columns - 1), rows * (side + CAPTION)
    figure = Figure(figsize=(width, height))
    for at, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(at, columns)
        left, bottom = column * (side + GAP), height - row * (side + CAPTION) - side
        axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
        axes.imshow(image, interpolation="none")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=GREY, linewidth=0.5)
        axes.set_xlabel(fitted(caption, side, 7.5), fontsize=7.5, labelpad=2)
    return Picture(name, title, f"{title}, {len(images)} images: {told(captions, 12)}.", figure)
