"""The images that sit for the figures, as the paper's steps see them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from featstore.errors import BadImageError
from featstore.evaluation.positive import positive_class
from featstore.extraction.batches import view_pixels
from featstore.images.decode import decoder_version
from featstore.images.reading import read_pixels
from featstore.images.recipe import parse_recipe
from featstore.images.resize import resize
from featstore.types import Decoding, View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featstore.images.manifest import Manifest
    from featstore.reproduction.protocol import Settings
    from featstore.types import ImageRecord, Pixels

EACH = 4
"""Images of a class in a grid."""
SMALL, LARGE = 160, 299
"""Side in a grid and on its own, pixels; 299 is what most of the seven networks take."""


@dataclass(frozen=True, slots=True, eq=False)
class Sitter:
    """One image of the data set.

    Attributes
    ----------
    label
        Its class.
    original
        ``(h, w)`` or ``(h, w, 3)`` uint8, as decoded.
    plain, augmented
        Of side `SMALL`, without and with the first augmented view.
    """

    label: str
    original: Pixels
    plain: Pixels
    augmented: Pixels

    @property
    def processed(self) -> Pixels:
        """What a network of side `LARGE` is given, before it is divided by 255."""
        return _flat(resize(np.atleast_3d(self.original), LARGE))


@dataclass(frozen=True, slots=True, eq=False)
class Sitters:
    """A few images of each class.

    Attributes
    ----------
    manifest
        The split by image.
    by_class
        The images, up to `EACH` of a class, first those that are trained on.
    normal, infected
        The class that is taken to be well, and the one that sensitivity is about.
    """

    manifest: Manifest
    by_class: dict[str, list[Sitter]]
    normal: str
    infected: str

    @classmethod
    def of(cls, manifest: Manifest, settings: Settings) -> Self:
        """Pick the images whose ids come first, so that the same data set always shows the same ones."""
        view = View(str(parse_recipe(settings.views["recipe"])), min(settings.views["seeds"], default=0))
        decoding = Decoding(decoder_version(), value_range=settings.source["value_range"])
        ordered = sorted(manifest.records, key=lambda record: (record.split != "train", record.id))
        by_class = {
            label: _first([record for record in ordered if record.label == label], decoding, view)
            for label in manifest.classes
        }
        place = positive_class(manifest.classes, settings.positive).index
        infected = manifest.classes[-1 if place is None else place]
        normal = next(label for label in manifest.classes if label != infected)
        return cls(manifest, by_class, normal, infected)


def _first(records: Sequence[ImageRecord], decoding: Decoding, view: View) -> list[Sitter]:
    found: list[Sitter] = []
    for record in records:
        if len(found) == EACH:
            break
        try:
            pixels = read_pixels(record, decoding)
        except BadImageError:
            continue
        small = resize(pixels, SMALL)
        seen = np.rint(view_pixels(small, view, record.id)).astype(np.uint8)
        found.append(Sitter(record.label, _flat(pixels), _flat(small), _flat(seen)))
    return found


def _flat(pixels: Pixels) -> Pixels:
    """``(h, w)`` for grey."""
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels
