"""Vectors of a few images for a finished model, without a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featstore.extraction import engine
from featstore.extraction.networks import Networks
from featstore.extraction.plan import blocks, plan
from featstore.fingerprint import digest_file
from featstore.types import ImageRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from featstore.store.quarantine import BadImage
    from featstore.types import Decoding, FeatureKey, Features


def embed_images(
    paths: Sequence[Path], keys: Sequence[FeatureKey], weights: Mapping[str, str] | None = None
) -> tuple[list[Path], Features, list[tuple[Path, str, str]]]:
    """Compute the vectors of image files under `keys`, backbones side by side.

    Parameters
    ----------
    paths
        Image files.
    keys
        One key per backbone, all of one view and one decoding.
    weights
        Where the weights are now, as for `featstore.extract`; they must be those of the keys.

    Returns
    -------
    paths, features, bad
        The files that decoded; ``(len(paths), columns)`` float32; the others as (path, reason, detail).
    """
    networks = Networks(weights or {}, keys[0].backbone.preprocess)
    backbones = {key.backbone: networks.load(key.backbone) for key in keys}
    unread, by_path = [], {}
    for path in dict.fromkeys(paths):
        try:
            by_path[path] = ImageRecord(digest_file(path), path, label="", group="")
        except OSError as error:
            unread.append((path, "missing", error.strerror or str(error)))
    records = {record.id: record for record in by_path.values()}
    memory = Memory()
    todo = plan(keys, list(records), {})
    engine.run(blocks(todo), records, keys[0].decoding, backbones, memory, engine.Silence())
    good = [path for path, record in by_path.items() if record.id not in memory.bad]
    ids = [by_path[path].id for path in good]
    columns = [np.array([memory.rows[key][i] for i in ids]) for key in keys] if ids else []
    features = np.hstack(columns) if columns else np.empty((0, 0), np.float32)
    decoded = [
        (p, memory.bad[r.id].reason, memory.bad[r.id].detail) for p, r in by_path.items() if p not in good
    ]
    return good, features, unread + decoded


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
