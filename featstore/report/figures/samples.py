"""What the networks see: images, and one image under augmentation (Fig. 1, 2, 5, 6 of Ji et al. 2020)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

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
PIXELS = 256
"""Longest side kept: what a phone shows, and small enough for a page with many."""
RGB = 3


def image_grid(images: Sequence[Image], captions: Sequence[str], *, name: str, title: str) -> Picture:
    """Images with a caption under each.

    Parameters
    ----------
    images
        uint8, each ``(h, w)``, ``(h, w, 1)`` or ``(h, w, 3)``; large ones are shrunk to 256 pixels.
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
    if not images:
        return blank(name, title, "There are no images to show.")
    return _drawn([_small(image) for image in images], captions, name, title)


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


def _small(image: Image) -> Image:
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
    small.thumbnail((PIXELS, PIXELS), Pillow.Resampling.LANCZOS)
    return np.array(small)


@drawing
def _drawn(images: Sequence[Image], captions: Sequence[str], name: str, title: str) -> Picture:
    from matplotlib.figure import Figure

    columns = min(ACROSS, len(images), max(2, math.ceil(math.sqrt(len(images)))))
    rows = math.ceil(len(images) / columns)
    side = (WIDTH - GAP * (columns - 1)) / max(columns, 2)
    width, height = side * columns + GAP * (columns - 1), rows * (side + CAPTION)
    figure = Figure(figsize=(width, height))
    for at, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(at, columns)
        left, bottom = column * (side + GAP), height - row * (side + CAPTION) - side
        axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
        grey: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255} if image.ndim < RGB else {}
        axes.imshow(image, interpolation="none", **grey)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=GREY, linewidth=0.5)
        axes.set_xlabel(fitted(caption, side, 7.5), fontsize=7.5, labelpad=2)
    return Picture(name, title, f"{title}, {len(images)} images: {told(captions, 12)}.", figure)
