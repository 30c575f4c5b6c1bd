"""What the data set itself adds to a report, where it is at hand: audit, counts, thumbnails, vectors."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

from featstore.errors import FeatstoreError, UsageError
from featstore.evaluation.check import check
from featstore.evaluation.fuse import Fusion
from featstore.images.decode import decoder_version
from featstore.images.reading import read_pixels
from featstore.images.scan import ScanOptions, scan
from featstore.images.thumbnail import thumbnail
from featstore.matrix.load import assemble
from featstore.run import data_digest, keys_of
from featstore.store.store import Store, default_cache
from featstore.types import IDENTITY, Decoding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from featstore.evaluation.check import Check
    from featstore.images.manifest import Manifest
    from featstore.matrix import FeatureMatrix
    from featstore.report.records.record import Record
    from featstore.types import ImageRecord

URI = "data:image/png;base64,"
WHOLE = "all"
"""Split of a data set that has none."""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A data set, looked at.

    Attributes
    ----------
    manifest
        Its table.
    audit
        What `featstore.check` found.
    images
        By image id, those that decode.
    decoding
        How they are decoded.
    """

    manifest: Manifest
    audit: Check
    images: Mapping[str, ImageRecord]
    decoding: Decoding

    def is_of(self, record: Record) -> bool:
        """Whether the run saw this table: with the images that do not decode, or without them."""
        tables = (self.manifest.records, self.images.values())
        return record.data_sha256 in {data_digest(table) for table in tables}

    def thumbnails(self, ids: Iterable[str]) -> dict[str, str]:
        """Small picture of each image as a data URI; a file that has changed or gone since has none."""
        found = {}
        for image in ids:
            try:
                pixels = read_pixels(self.images[image], self.decoding)
            except (FeatstoreError, LookupError):
                continue
            found[image] = URI + base64.b64encode(thumbnail(pixels)).decode()
        return found

    def counts(self, record: Record) -> dict[str, dict[str, int]]:
        """Images by split and class: the run's hold-out, else the data set's own splits, else all together."""
        held = {}
        if isinstance(record.outcome, Fusion):
            held = {image: split for split, part in record.answers.items() for image in part.ids}
        rest = "train" if held else WHOLE
        found = Counter((held.get(r.id, r.split or rest), r.label) for r in self.images.values())
        classes = sorted({label for _, label in found})
        splits = sorted({split for split, _ in found}, key=["train", "val", "test", WHOLE].index)
        return {split: {label: found[split, label] for label in classes} for split in splits}

    def matrix(self, record: Record, cache: Path | None) -> FeatureMatrix:
        """Vectors of the identity view that the run was about.

        Raises
        ------
        FeatstoreError
            If they are not in the cache.
        """
        specs = [key.backbone for key in keys_of({"matrix": record.matrix})]
        return assemble(self.manifest, Store(cache or default_cache()), specs, [IDENTITY], self.decoding)


def read_dataset(data: Path, records: Sequence[Record], **reading: Unpack[ScanOptions]) -> Dataset:
    """Look at a data set that runs were made from.

    Raises
    ------
    UsageError
        If none of the runs saw this table.
    """
    ranges = [(record.matrix.get("decoding") or {}).get("value_range") for record in records]
    window = next((tuple(found) for found in ranges if found), None)
    manifest = scan(data, **reading)
    audit = check(data, value_range=window, **reading)
    bad = {path for path, _, _ in audit.bad}
    images = {record.id: record for record in manifest.records if str(record.path) not in bad}
    found = Dataset(manifest, audit, images, Decoding(decoder_version(), value_range=window))
    if not any(found.is_of(record) for record in records):
        raise UsageError(
            f"None of the runs was made from {data} as it is now (other images, labels, groups or splits).",
            "Give the DATA of the run, with its --group-pattern and --columns, or leave out --data.",
        )
    return found
