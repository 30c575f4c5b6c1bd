"""import: vectors that another program computed, as a backbone of their own."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.backbones import catalog
from featstore.errors import NonFiniteFeaturesError, UsageError
from featstore.exchange.reading import read_table
from featstore.fingerprint import digest_file
from featstore.images.decode import decoder_version
from featstore.images.scan import scan
from featstore.signatures import public
from featstore.store.ids import IdSet
from featstore.store.lease import Leases
from featstore.store.store import Store, default_cache
from featstore.types import FOREIGN, IDENTITY, BackboneSpec, Decoding, FeatureKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featstore.images.manifest import Manifest
    from featstore.types import Features

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
ID = re.compile(r"[0-9a-f]{64}")
LISTED = 5
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
    """

    name: str
    weights: str
    images: int
    dimension: int
    without: int

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
    rows: str | None = None,
    value_range: tuple[float, float] | None = None,
    cache: str | Path | None = None,
    follow_links: bool = False,
) -> Imported:
    """Store the vectors of a foreign file as the identity view of a backbone of its own.

    Rows are matched to images by image id or by path relative to the data set, never by position. All of them are
    taken, or none.

    Parameters
    ----------
    data
        A folder or a CSV manifest: the images that the vectors belong to.
    file
        ``.npz``, ``.h5``, ``.parquet`` or ``.csv``; see `featstore.exchange.reading.read_table`.
    name
        What the backbone shall be called; no name of the catalogue.
    features, rows
        Names of the block of numbers and of the column of ids or paths in the file, where it has several.
    value_range, cache, follow_links
        As for `featstore.extract`.

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
    values = _finite(table.names, table.features)
    manifest = scan(Path(data), follow_links=follow_links)
    ids, values = _distinct(_matched(table.names, manifest), values, table.names)
    spec = BackboneSpec(name, weights, 0, "foreign", values.shape[1])
    key = FeatureKey(spec, IDENTITY, Decoding(decoder_version(), value_range=value_range))
    with Leases(store.root) as leases, leases.claim({key: IdSet.of(ids)}):
        for start in range(0, len(ids), BLOCK_ROWS):
            store.write(key, ids[start : start + BLOCK_ROWS], values[start : start + BLOCK_ROWS])
        store.flush()
    without = len({record.id for record in manifest.records} - {*ids})
    return Imported(name, weights, len(ids), values.shape[1], without)


def _require_free(name: str, weights: str, store: Store) -> None:
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a backbone.", "Use letters, digits, - and _, a letter first.")
    taken = {key.backbone.weights for key in store.feature_keys() if key.backbone.name == name} - {weights}
    if name in catalog.names() or taken:
        where = "in the catalogue" if name in catalog.names() else f"in {store.root}, with other vectors"
        raise UsageError(f"There is a {name} {where} already.", "Give these vectors another --name.")


def _finite(names: Sequence[str], found: Any) -> Features:  # noqa: ANN401
    if found.ndim != 2 or found.shape[0] != len(names) or not found.size:  # noqa: PLR2004
        raise UsageError(
            f"The file has {len(names)} row names and features of shape {found.shape}.",
            "There must be one row of features, of one length, for each name.",
        )
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(found, np.float32)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist()
    if bad:
        raise NonFiniteFeaturesError(
            f"{len(bad)} rows hold NaN, infinity or more than float32 can: {_some([names[at] for at in bad])}.",
            "Compute them again; nothing was stored.",
        )
    return values


def _matched(names: Sequence[str], manifest: Manifest) -> list[str]:
    """Image id of each row."""
    if all(ID.fullmatch(name) for name in names):
        known = {record.id: {record.id} for record in manifest.records}
    else:
        known = {}
        for record in manifest.files:
            path = record.path
            relative = path.relative_to(manifest.root) if path.is_relative_to(manifest.root) else path
            known.setdefault(relative.as_posix(), set()).add(record.id)
        names = [PurePosixPath(name.replace("\\", "/")).as_posix() for name in names]
    unknown = [name for name in names if len(known.get(name, ())) != 1]
    if unknown:
        raise UsageError(
            f"{len(unknown)} of {len(names)} rows belong to no single image of {manifest.root}: {_some(unknown)}.",
            "Name rows by image id or by path relative to the data set, and leave out those of other images.",
        )
    return [next(iter(known[name])) for name in names]


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
            f"{len(unequal)} rows are a second, unequal vector of an image: {_some(unequal)}.",
            "Leave one row for each image.",
        )
    return list(first), values[list(first.values())]


def _some(names: Sequence[str]) -> str:
    more = ", …" if len(names) > LISTED else ""
    return ", ".join(repr(name) for name in names[:LISTED]) + more
