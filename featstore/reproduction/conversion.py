"""Which formats the data set comes in, and what the decoder makes of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from featstore.errors import BadImageError
from featstore.files import read_regular
from featstore.images.decode import decode
from featstore.images.losses import require_two_classes
from featstore.images.signature import HEAD, identify
from featstore.images.structure import MAX_BYTES
from featstore.reproduction.outcome import Conversion

if TYPE_CHECKING:
    from featstore.images.manifest import Manifest

NEEDS_RANGE = "needs_range"


def convert(manifest: Manifest, value_range: tuple[float, float] | None) -> tuple[Conversion, Manifest]:
    """Decode every image once and count; nothing is written, since features are made from the files as they are.

    Returns
    -------
    What was met, and the data set without what does not decode: so the sides of a split are drawn, and a leak is
    counted, among images that take part. Deep images without a declared range stay, for `extract` to refuse.

    Raises
    ------
    AuditError
        If one class is left, or none.
    """
    formats: Counter[str] = Counter()
    channels: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    unread = Counter(row.reason for row in manifest.unreadable)
    lost: dict[str, str] = {}
    sides: list[int] = []
    taken = set()
    for record in manifest.records:
        try:
            data = read_regular(record.path, MAX_BYTES)
            pixels, said = decode(data, record.frame, value_range)
        except OSError:
            unread["missing"] += 1
            lost[record.id] = "missing"
        except BadImageError as error:
            unread[error.reason] += 1
            if error.reason == NEEDS_RANGE:
                taken.add(record.id)
            else:
                lost[record.id] = error.reason
        else:
            formats[identify(data[:HEAD])] += 1
            channels["grey" if pixels.shape[2] == 1 else "colour"] += 1
            notes.update(said)
            sides += pixels.shape[:2]
            taken.add(record.id)
    require_two_classes(manifest, lost)
    found = Conversion(
        _sorted(formats),
        _sorted(channels),
        _sorted(notes),
        _sorted(unread),
        min(sides, default=0),
        max(sides, default=0),
    )
    return found, manifest.only(taken)


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))
