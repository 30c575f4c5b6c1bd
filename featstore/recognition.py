"""Which images of a table were learned from already, seen by their bytes, their pixels or their patient's name."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

from featstore.findings import Finding
from featstore.images.facts import FACT, FACTS_REVISION
from featstore.images.pixel_digest import pixel_digest_of
from featstore.store.facts import recorded_facts
from featstore.store.known_images import KnownImages, salt_of, salted_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from featstore.types import Decoding, ImageRecord

    Way = Literal["file", "pixels", "group"]

WIDTH = 32
WAYS: dict[Way, str] = {
    "file": "the same file",
    "pixels": "the same pixels",
    "group": "the same patient name",
}
"""How an image is recognised, the surest first."""


def pixel_digests(
    records: Iterable[ImageRecord], decoding: Decoding, cache: Path | None = None
) -> dict[str, str]:
    """Digests of pixels by image id, of the images that decode; from the cache where it has them."""
    rows = list(records)
    kept = {} if cache is None or not rows else _kept(cache, decoding)
    missing = [row for row in rows if row.id not in kept]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        fresh = list(pool.map(lambda row: pixel_digest_of(row, decoding), missing))
    found = kept | {row.id: value for row, value in zip(missing, fresh, strict=True) if value is not None}
    return {row.id: found[row.id] for row in rows if row.id in found}


def _kept(cache: Path, decoding: Decoding) -> dict[str, str]:
    """Digests that an earlier command kept; NumPy drops the zeros at the end of bytes, which belong to them."""
    facts = recorded_facts(cache, decoding, FACTS_REVISION, FACT)
    ids, pixels = (
        [bytes(value).ljust(WIDTH, b"\0").hex() for value in facts[name]] for name in ("id", "pixels")
    )
    return dict(zip(ids, pixels, strict=True))


def known_images(
    records: Sequence[ImageRecord],
    decoding: Decoding,
    *,
    has_groups: bool,
    salt: str = "",
    cache: Path | None = None,
) -> KnownImages:
    """Digests of images that are learned from, to be kept beside what learns.

    Parameters
    ----------
    records
        The images.
    decoding
        How their pixels are made.
    has_groups
        Whether their groups are names, and not made up.
    salt
        That of an earlier record that this one is joined to; a new one if empty.
    cache
        Where facts of images are kept, so that files need not be read again.
    """
    ids = frozenset(record.id for record in records)
    salt = salt or salt_of(ids)
    groups = salted_names(salt, (record.group for record in records)) if has_groups else frozenset()
    return KnownImages(ids, frozenset(pixel_digests(records, decoding, cache).values()), groups, salt)


def recognise(
    records: Sequence[ImageRecord],
    known: Mapping[str, KnownImages],
    decoding: Decoding,
    *,
    has_groups: bool = True,
    cache: Path | None = None,
) -> dict[str, dict[str, Way]]:
    """Say which images are known, and how.

    Files are decoded only where there are digests of pixels to compare with, and only those that are not known by
    their bytes.

    Parameters
    ----------
    records
        The images asked about.
    known
        What each of those asked has learned from, by name.
    decoding
        How the pixels are made.
    has_groups
        Whether the groups of `records` are names, and not made up.
    cache
        As for `known_images`.

    Returns
    -------
    By name of `known`, the known image ids with the surest of `WAYS`.
    """
    unread = [r for r in records if any(k.pixels and r.id not in k.ids for k in known.values())]
    pixels = pixel_digests(unread, decoding, cache)

    def way(record: ImageRecord, images: KnownImages) -> Way | None:
        if record.id in images.ids:
            return "file"
        if pixels.get(record.id) in images.pixels:
            return "pixels"
        return "group" if has_groups and images.has_group(record.group) else None

    return {
        name: {record.id: how for record in records if (how := way(record, images)) is not None}
        for name, images in known.items()
    }


def seen_finding(who: str, records: Iterable[ImageRecord], found: Mapping[str, Way]) -> Finding | None:
    """Finding about images that `who` (a network, a model) has learned from; None if there is none."""
    seen = [record for record in records if record.id in found]
    if not seen:
        return None
    counts = Counter(found[record.id] for record in seen)
    how = ", ".join(f"{counts[way]} by {text}" for way, text in WAYS.items() if counts[way])
    examples = tuple(f"{record.path}: {WAYS[found[record.id]]}" for record in seen)
    return Finding("FS407", f"{who} learned from {len(seen)} of these images ({how}).", len(seen), examples)
