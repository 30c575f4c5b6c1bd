"""Images of more than 8 bits need a declared range."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featstore.errors import UsageError
from featstore.images.reading import needs_range
from featstore.store.ids import NO_IDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from featstore.extraction.plan import Plan
    from featstore.images.manifest import Manifest
    from featstore.types import Decoding, ImageRecord


def lacking(manifest: Manifest, todo: Plan) -> list[ImageRecord]:
    """Images that lack a vector."""
    ids = frozenset(NO_IDS.union(*(cell.missing for cell in todo.cells)))
    return [record for record in manifest.records if record.id in ids]


def refuse_undeclared_range(records: Iterable[ImageRecord], decoding: Decoding) -> None:
    """Refuse 16-bit and float images before any work: without a range they would be silently wrong.

    Raises
    ------
    UsageError
        If an image is deep, and no range is declared.
    """
    if decoding.value_range is not None:
        return
    deep = [record.path for record in records if needs_range(record)]
    if deep:
        raise UsageError(
            f"{len(deep)} images hold 16-bit or float values and no range is declared; the first is {deep[0]}.",
            "Declare what is black and what is white: --range LOW,HIGH (lung CT in HU: --range=-1350,150).",
        )
