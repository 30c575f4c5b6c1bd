"""import: vectors that another program computed, as a backbone of their own."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from featstore.backbones import catalog
from featstore.errors import NonFiniteFeaturesError, UsageError
from featstore.exchange.columns import select, spanned
from featstore.exchange.reading import read_table
from featstore.exchange.rows import match, some
from featstore.fingerprint import digest_file
from featstore.images.decode import decoder_version
from featstore.images.scan import ScanOptions, scan
from featstore.signatures import public
from featstore.store.ids import IdSet
from featstore.store.lease import Leases
from featstore.store.store import Store, default_cache
from featstore.types import FOREIGN, IDENTITY, BackboneSpec, Decoding, FeatureKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featstore.types import Features

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
BLOCK_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Imported:
    """What was taken in.

    Attributes
    ----------
    name
        The backbone that `featstore.fuse` now knows.
    weights
        ``foreign:<SHA-256 of the file>``.
    images
        Number of vectors.
    dimension
        Length of each.
    without
        Images of the data set that the file has no vector of; nothing can be fused until they are there, too.
    columns
        What was taken for features, such as ``5 columns: f0 … f4``.
    unused
        Name and reason of all else that the file holds.
    doubtful
        Name and reason of columns that were taken because they were named, and are hardly features.
    matched
        How rows were matched: ``image id``, ``path relative to the data set``, or another of `rows.WAYS`.
    example
        One row's name and the file that it was taken for, where that is not the same.
    """

    name: str
    weights: str
    images: int
    dimension: int
    without: int
    columns: str
    unused: dict[str, str]
    doubtful: dict[str, str]
    matched: str
    example: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json``."""
        return asdict(self)


@public
def import_features(
    data: str | Path,
    file: str | Path,
    name: str,
    *,
    features: str | None = None,
    ignore: str | Sequence[str] = (),
    rows: str | None = None,
    value_range: tuple[float, float] | None = None,
    cache: str | Path | None = None,
    **reading: Unpack[ScanOptions],
) -> Imported:
    """Store the vectors of a foreign file as the identity view of a backbone of its own.

    Rows are matched to images by image id, by path relative to the data set or, where that fits one image alone, by a
    part of the path; never by position. All of them are taken, or none. Columns that have no name, count the rows or
    tell the class are no features and are left out, unless they are named.

    Parameters
    ----------
    data
        A folder or a CSV manifest: the images that the vectors belong to.
    file
        ``.npz``, ``.h5``, ``.parquet`` or ``.csv``; see `featstore.exchange.reading.read_table`.
    name
        What the backbone shall be called; no name of the catalogue.
    features
        Name of the block of numbers, where the file has several; or names of the columns that are features, with
        commas, ``*`` for any part of a name. The columns of a block are called ``block.0``, ``block.1`` ...
    ignore
        Names of columns to leave out, ``*`` as well; one text may hold several with commas.
    rows
        Name of the column of ids or paths in the file, where it has several.
    value_range, cache
        As for `featstore.extract`.
    **reading
        How the data set is read: see `featstore.images.scan.ScanOptions`.

    Raises
    ------
    UsageError
        If the name is taken, a row belongs to no image, or two unequal rows to the same.
    NonFiniteFeaturesError
        If a value is not finite in float32.
    RefusedFileError
        If the file is damaged or hostile.
    """
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", "Check the path.")
    store = Store(Path(cache) if cache is not None else default_cache())
    weights = f"{FOREIGN}{digest_file(path)}"
    _require_free(name, weights, store)
    table = read_table(path, features, rows)
    _require_rows(table.names, table.features)
    manifest = scan(Path(data), **reading)
    matching = match(table.names, manifest)
    label = {record.id: record.label for record in manifest.records}
    labels = [label[image] for image in matching.ids]
    unwanted = [part.strip() for part in ignore.split(",")] if isinstance(ignore, str) else ignore
    chosen = select(table.features, table.columns, labels, named=table.named, ignore=unwanted)
    ids, values = _distinct(matching.ids, _finite(table.names, chosen.values), table.names)
    spec = BackboneSpec(name, weights, 0, "foreign", values.shape[1])
    key = FeatureKey(spec, IDENTITY, Decoding(decoder_version(), value_range=value_range))
    with Leases(store.root) as leases, leases.claim({key: IdSet.of(ids)}):
        for start in range(0, len(ids), BLOCK_ROWS):
            store.write(key, ids[start : start + BLOCK_ROWS], values[start : start + BLOCK_ROWS])
        store.flush()
    without = len({record.id for record in manifest.records} - {*ids})
    return Imported(
        name,
        weights,
        len(ids),
        values.shape[1],
        without,
        spanned(chosen.names),
        {**table.unused, **chosen.unused},
        chosen.doubtful,
        matching.way,
        matching.example,
    )


def _require_free(name: str, weights: str, store: Store) -> None:
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a backbone.", "Use letters, digits, - and _, a letter first.")
    taken = {key.backbone.weights for key in store.feature_keys() if key.backbone.name == name} - {weights}
    if name in catalog.names() or taken:
        where = "in the catalogue" if name in catalog.names() else f"in {store.root}, with other vectors"
        raise UsageError(f"There is a {name} {where} already.", "Give these vectors another --name.")


def _require_rows(names: Sequence[str], found: NDArray[Any]) -> None:
    if found.ndim != 2 or found.shape[0] != len(names) or not found.size:  # noqa: PLR2004
        raise UsageError(
            f"The file has {len(names)} row names and features of shape {found.shape}.",
            "There must be one row of features, of one length, for each name.",
        )


def _finite(names: Sequence[str], found: NDArray[Any]) -> Features:
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(found, np.float32)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist()
    if bad:
        raise NonFiniteFeaturesError(
            f"{len(bad)} rows hold NaN, infinity or more than float32 can: {some([names[at] for at in bad])}.",
            "Compute them again; nothing was stored.",
        )
    return values


def _distinct(ids: Sequence[str], values: Features, names: Sequence[str]) -> tuple[list[str], Features]:
    """One row per image; copies of a file may be there twice if their vectors are the same."""
    first: dict[str, int] = {}
    unequal = [
        names[at]
        for at, image in enumerate(ids)
        if not np.array_equal(values[first.setdefault(image, at)], values[at])
    ]
    if unequal:
        raise UsageError(
            f"{len(unequal)} rows are a second, unequal vector of an image: {some(unequal)}.",
            "Leave one row for each image.",
        )
    return list(first), values[list(first.values())]
