"""What cheaper arithmetic costs: its error on the user's own images, against the spread between them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from featstore.errors import UsageError
from featstore.extraction.embed import embed_images
from featstore.extraction.extract import DEFAULT_BACKBONES
from featstore.extraction.networks import Networks
from featstore.images.decode import decoder_version
from featstore.images.scan import ScanOptions, scan
from featstore.types import IDENTITY, Decoding, FeatureKey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featstore.store.quarantine import BadImage
    from featstore.types import Features

FEWEST = 3


@dataclass(frozen=True, slots=True)
class PrecisionCost:
    """What a precision does to the features of one backbone.

    Attributes
    ----------
    error
        Root mean square of the difference from float32, as a share of the standard deviation between images
        (root mean square over features). Our mark is 0.05: what a classifier
        makes of it must be tried (`featstore compare` with both precisions).
    correlation
        Pearson correlation of the Euclidean distances between all pairs of images, before and after.
    """

    backbone: str
    weights: str
    error: float
    correlation: float


@dataclass(frozen=True, slots=True)
class PrecisionCheck:
    """Cost by backbone on `images` images; `bad` ones as (path, reason, detail)."""

    precision: str
    images: int
    costs: tuple[PrecisionCost, ...]
    bad: tuple[tuple[str, str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json``."""
        return asdict(self)


def check_precision(
    data: str | Path,
    *,
    backbones: Sequence[str] = DEFAULT_BACKBONES,
    weights: Mapping[str, str] | None = None,
    preprocess: str = "official",
    precision: str = "bfloat16",
    images: int = 64,
    value_range: tuple[float, float] | None = None,
    **reading: Unpack[ScanOptions],
) -> PrecisionCheck:
    """Embed some images of a data set in float32 and in `precision`, and compare; nothing is stored.

    Parameters
    ----------
    data, backbones, weights, preprocess, value_range
        As for `featstore.extract`.
    precision
        ``bfloat16`` or ``float16``.
    images
        How many to look at, at least 3: those with the smallest ids, which is a random and repeatable choice.
    **reading
        How the data set is read: see `featstore.images.scan.ScanOptions`.

    Raises
    ------
    UsageError
        If fewer than 3 images are wanted or decode.
    FeatstoreError
        As `featstore.extract` does.
    """
    _require_enough(images)
    manifest = scan(Path(data), **reading)
    single = sorted((r for r in manifest.records if r.frame == 0), key=lambda record: record.id)[:images]
    decoding = Decoding(decoder_version(), value_range=value_range)
    costs: list[PrecisionCost] = []
    bad: dict[str, BadImage] = {}
    count = 0
    for name in dict.fromkeys(backbones):
        specs = [
            Networks(weights or {}, preprocess, p).spec(name, fetch=True) for p in ("float32", precision)
        ]
        keys = [FeatureKey(spec, IDENTITY, decoding) for spec in specs]
        features, bad = embed_images(single, keys, weights or {})
        count = len(features)
        _require_enough(count)
        reference, cheap = np.hsplit(np.array(list(features.values())), 2)
        costs.append(
            PrecisionCost(
                name, specs[0].weights, relative_error(reference, cheap), agreement(reference, cheap)
            )
        )
    return PrecisionCheck(
        precision,
        count,
        tuple(costs),
        tuple((str(r.path), bad[r.id].reason, bad[r.id].detail) for r in single if r.id in bad),
    )


def relative_error(reference: Features, other: Features) -> float:
    """Root mean square difference over the root mean square standard deviation between rows.

    Both are ``(n, dimension)``. Infinite where all rows of `reference` are alike and `other` differs.
    """
    spread = float(np.sqrt(np.mean(np.var(reference, axis=0, dtype=np.float64))))
    error = float(np.sqrt(np.mean(np.square(np.subtract(other, reference, dtype=np.float64)))))
    return error / spread if spread else (np.inf if error else 0.0)


def agreement(reference: Features, other: Features) -> float:
    """Pearson correlation of the distances between all pairs of rows in `reference` and in `other`."""
    return float(np.corrcoef(_distances(reference), _distances(other))[0, 1])


def _distances(rows: Features) -> Any:  # noqa: ANN401
    first, second = np.triu_indices(len(rows), 1)
    centred = rows - rows.mean(axis=0, dtype=np.float64)
    gram = centred @ centred.T
    squares = np.diag(gram)
    return np.sqrt(np.maximum(squares[first] + squares[second] - 2 * gram[first, second], 0))


def _require_enough(images: int) -> None:
    if images < FEWEST:
        raise UsageError(
            f"{images} images say nothing about the spread between images.",
            f"Give at least {FEWEST}, better 64.",
        )
