"""Vectors of a few images for a finished model, without a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featstore.extraction import engine
from featstore.extraction.networks import Networks
from featstore.extraction.plan import blocks, plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featstore.store.quarantine import BadImage
    from featstore.types import Decoding, FeatureKey, Features, ImageRecord


def embed_images(
    records: Sequence[ImageRecord], keys: Sequence[FeatureKey], weights: Mapping[str, str]
) -> tuple[dict[str, Features], dict[str, BadImage]]:
    """Compute the vectors of images under `keys`, backbones side by side.

    Parameters
    ----------
    records
        The images; those of one id are computed once.
    keys
        One key per backbone, all of one view and one decoding.
    weights
        Where the weights are now, as for `featstore.extract`; they must be those of the keys.

    Returns
    -------
    features, bad
        By image id: ``(columns,)`` float32; and why the others do not decode.
    """
    networks = Networks(weights, keys[0].backbone.preprocess)
    backbones = {key.backbone: networks.load(key.backbone) for key in keys}
    images = {record.id: record for record in records}
    memory = Memory()
    todo = plan(keys, list(images), {})
    tally = engine.run(blocks(todo), images, keys[0].decoding, backbones, memory, engine.Silence())
    bad = {found.id: found for found in tally.bad}
    good = [image for image in images if image not in bad]
    return {image: np.concatenate([memory.rows[key][image] for key in keys]) for image in good}, bad


class Memory:
    """A sink that keeps rows by key and image id."""

    def __init__(self) -> None:
        self.rows: dict[FeatureKey, dict[str, Features]] = {}
        self.bad: dict[str, BadImage] = {}

    def write(self, key: FeatureKey, ids: Sequence[str], features: Features, batch_size: int) -> None:  # noqa: ARG002
        """Keep rows."""
        self.rows.setdefault(key, {}).update(zip(ids, features, strict=True))

    def record_bad_image(self, decoding: Decoding, bad: BadImage) -> None:  # noqa: ARG002
        """Keep a note of an image that does not decode."""
        self.bad[bad.id] = bad
