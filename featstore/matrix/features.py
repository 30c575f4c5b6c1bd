"""Features as stage two sees them: aligned images, named column blocks, and a view axis."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from featstore.fusion.blocks import Block, lay_out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.findings import Finding
    from featstore.types import BackboneSpec, Decoding, Features, ImageRecord, View


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMatrix:
    """Every image of a data set, in every view, through every backbone.

    Attributes
    ----------
    records
        The images, in manifest order; row ``i`` of everything below is ``records[i]``.
    classes
        Sorted names of the classes.
    y
        ``(n,)`` index into `classes`.
    groups
        ``(n,)`` patient or other unit that must stay together.
    views
        The view axis; the identity view comes first.
    specs
        The backbones, in column order.
    decoding
        How the pixels were made.
    features
        ``(views, n, columns)`` float32.
    has_groups
        Whether groups were given; if not, each image is its own.
    excluded
        Number of images left out because they are in quarantine.
    groups_set_aside
        Whether groups were given and are not kept together: `featstore.images.manifest.Manifest.by_image`.
    learned
        By backbone whose weights were tuned: ids of the images that they have learned from, in this data set or not,
        and of the images here that show the same pixels or the same patient.
    set_apart
        Number of images left out because of that.
    findings
        What reading the data set and choosing the features met.
    """

    records: tuple[ImageRecord, ...]
    classes: tuple[str, ...]
    y: NDArray[np.intp]
    groups: NDArray[np.str_]
    views: tuple[View, ...]
    specs: tuple[BackboneSpec, ...]
    decoding: Decoding
    features: Features
    has_groups: bool
    excluded: int
    groups_set_aside: bool = False
    learned: Mapping[str, frozenset[str]] = field(default_factory=dict)
    set_apart: int = 0
    findings: tuple[Finding, ...] = ()

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Column block of each backbone, in order."""
        return lay_out({spec.name: spec.dimension for spec in self.specs})

    @property
    def backbones(self) -> tuple[str, ...]:
        """Names of the backbones, in column order."""
        return tuple(spec.name for spec in self.specs)

    def only(self, images: NDArray[np.intp]) -> FeatureMatrix:
        """Keep some images, by row number; classes stay as they are."""
        return replace(
            self,
            records=tuple(self.records[image] for image in images),
            y=self.y[images],
            groups=self.groups[images],
            features=self.features[:, images],
        )

    def columns(self, backbones: Sequence[str]) -> tuple[Block, ...]:
        """Blocks of the named backbones, renumbered to lie side by side."""
        widths = {block.name: block.width for block in self.blocks}
        return lay_out({name: widths[name] for name in backbones})

    def rows(self, images: NDArray[np.intp], backbones: Sequence[str], views: Sequence[int]) -> Features:
        """One row per view and image: ``(len(views) * len(images), columns)`` float32, view by view."""
        where = {block.name: block for block in self.blocks}
        parts = [where[name] for name in backbones]
        targets = self.columns(backbones)
        width = targets[-1].stop
        out = np.empty((len(views), len(images), width), np.float32)
        for at, view in enumerate(views):
            for part, target in zip(parts, targets, strict=True):
                out[at, :, target.start : target.stop] = self.features[view, images, part.start : part.stop]
        return out.reshape(-1, width)
