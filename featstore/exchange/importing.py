"""Import: vectors that another program computed, as a backbone of their own."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.backbones import catalog
from featstore.errors import NonFiniteFeaturesError, UsageError
from featstore.exchange.reading import FeatureTable, select_features, spanned
from featstore.store.leases import Leases
from featstore.store.shard import IdSet
from featstore.types import IDENTITY, BackboneSpec, Decoding, FeatureKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from featstore.images.manifest import Manifest
    from featstore.store.store import Store
    from featstore.types import Features


# Import

BACKBONE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
BLOCK_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Imported:
    """Outcome of `featstore.import_features`.

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
        How rows were matched: ``image id``, ``path relative to the data set``, or another of `rows.MATCH_RULES`.
    example
        One row's name and the file that it was taken for, where that is not the same.
    telling
        Columns that were taken and tell a class from all others without an error, each on its own, if they are few.
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
    telling: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json``."""
        return asdict(self)


def import_table(
    table: FeatureTable,
    manifest: Manifest,
    store: Store,
    *,
    name: str,
    weights: str,
    decoding: Decoding,
    ignore: Sequence[str],
) -> Imported:
    """Store the rows of a table as the identity view of a backbone; `featstore.import_features` says how.

    Raises
    ------
    UsageError
        If a row belongs to no image, or two unequal rows to the same.
    NonFiniteFeaturesError
        If a value is not finite in float32.
    """
    matching = match_rows(table.names, manifest)
    label = {record.id: record.label for record in manifest.records}
    labels = [label[image] for image in matching.ids]
    chosen = select_features(table.features, table.columns, labels, named=table.named, ignore=ignore)
    ids, values = _distinct(matching.ids, _finite(table.names, chosen.values), table.names)
    spec = BackboneSpec(name, weights, 0, "foreign", values.shape[1])
    key = FeatureKey(spec, IDENTITY, decoding)
    with Leases(store.root) as leases, leases.acquire({key: IdSet.of(ids)}):
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
        chosen.telling,
    )


def require_free_name(name: str, weights: str, store: Store) -> None:
    """Refuse a name of the catalogue, and one that other vectors of a cache have.

    Raises
    ------
    UsageError
        If it is taken, or cannot be a name.
    """
    if not BACKBONE_NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a backbone.", "Use letters, digits, - and _, a letter first.")
    taken = {key.backbone.weights for key in store.feature_keys() if key.backbone.name == name} - {weights}
    if name in catalog.names() or taken:
        where = "in the catalogue" if name in catalog.names() else f"in {store.root}, with other vectors"
        raise UsageError(f"There is a {name} {where} already.", "Give these vectors another --name.")


def require_rows(names: Sequence[str], found: NDArray[Any]) -> None:
    """Refuse features that are not one row for each name.

    Raises
    ------
    UsageError
        If they are not.
    """
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
        named = [names[at] for at in bad]
        raise NonFiniteFeaturesError(
            f"{len(bad)} rows hold NaN, infinity or more than float32 can: {quoted_names(named)}.",
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
            f"{len(unequal)} rows are a second, unequal vector of an image: {quoted_names(unequal)}.",
            "Leave one row for each image.",
        )
    return list(first), values[list(first.values())]


# Which image each row belongs to: by image id, path, or a name that fits one image alone

IMAGE_ID = re.compile(r"[0-9a-f]{64}")
LISTED = 5
SEARCHED = 5000
"""Files among which the nearest name is looked for."""


@dataclass(frozen=True, slots=True)
class Matching:
    """Image id of each row, and in which way the rows were matched, with one example."""

    ids: tuple[str, ...]
    way: str
    example: str = ""


@dataclass(frozen=True, slots=True)
class MatchRule:
    """One way of naming files: what it is called, keys of a file, and keys that a row may mean, best first."""

    name: str
    of_file: Callable[[str, str], Iterable[str]]
    of_row: Callable[[str], Iterable[str]]


def _without_suffix(name: str) -> str:
    return str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).name else name


def _path_suffixes(name: str) -> Iterator[str]:
    parts = name.split("/")
    return ("/".join(parts[at:]) for at in range(1, len(parts)))


EXACT = "path relative to the data set"
MATCH_RULES = (
    MatchRule(EXACT, lambda relative, _path: [relative], lambda name: [name]),
    MatchRule(
        "absolute path",
        lambda _relative, path: {path, os.path.realpath(path)},
        lambda name: [name] if name.startswith("/") else [],
    ),
    MatchRule("end of the path", lambda relative, _path: [relative], _path_suffixes),
    MatchRule(
        "end of the path",
        lambda relative, _path: _path_suffixes(relative),
        lambda name: [name] if "/" in name else [],
    ),
    MatchRule(
        "path without suffix",
        lambda relative, _path: [_without_suffix(relative)],
        lambda name: [
            name,
            _without_suffix(name),
            *_path_suffixes(name),
            *_path_suffixes(_without_suffix(name)),
        ],
    ),
    MatchRule(
        "file name alone",
        lambda relative, _path: [PurePosixPath(relative).name],
        lambda name: [] if "/" in name else [name],
    ),
    MatchRule(
        "file name without suffix",
        lambda relative, _path: [PurePosixPath(_without_suffix(relative)).name],
        lambda name: [] if "/" in name else [name, _without_suffix(name)],
    ),
)
"""Tried one after the other; the first in which every row means a single image counts."""


def match_rows(names: Sequence[str], manifest: Manifest) -> Matching:
    """Find the image of each row.

    Parameters
    ----------
    names
        Image ids, or names of files in one of `MATCH_RULES`.
    manifest
        The scanned data set.

    Raises
    ------
    UsageError
        If a row means no image, or several.
    """
    if all(IMAGE_ID.fullmatch(name) for name in names):
        known = {record.id: {record.id} for record in manifest.records}
        return _by_key(names, known, manifest, lambda name: [name], "image id") or _fail(
            names, manifest, known
        )
    names = [PurePosixPath(name.strip().replace("\\", "/")).as_posix() for name in names]
    climbs = any(".." in name.split("/") for name in names)
    for way in MATCH_RULES[:1] if climbs else MATCH_RULES:
        found = _by_key(names, _table(manifest, way), manifest, way.of_row, way.name)
        if found is not None:
            return found
    return _fail(names, manifest, _table(manifest, MATCH_RULES[0]))


def relative_path(path: os.PathLike[str], manifest: Manifest) -> str:
    """Path of a file relative to the data set, with ``/``; the whole path of one that lies elsewhere."""
    whole = PurePosixPath(os.fspath(path))
    root = PurePosixPath(os.fspath(manifest.root))
    return (whole.relative_to(root) if whole.is_relative_to(root) else whole).as_posix()


def _table(manifest: Manifest, way: MatchRule) -> dict[str, set[str]]:
    table: defaultdict[str, set[str]] = defaultdict(set)
    for record in manifest.files:
        for key in way.of_file(relative_path(record.path, manifest), os.path.abspath(record.path)):  # noqa: PTH100
            table[key].add(record.id)
    return dict(table)


def _by_key(
    names: Sequence[str],
    table: dict[str, set[str]],
    manifest: Manifest,
    keys: Callable[[str], Iterable[str]],
    way: str,
) -> Matching | None:
    ids: list[str] = []
    for name in names:
        found = next((table[key] for key in keys(name) if key in table), set())
        if len(found) != 1:
            return None
        ids.extend(found)
    if way in {EXACT, "image id"}:
        return Matching(tuple(ids), way)
    first = next(relative_path(r.path, manifest) for r in manifest.records if r.id == ids[0])
    return Matching(tuple(ids), way, f"{names[0]!r} for {first!r}")


def _fail(names: Sequence[str], manifest: Manifest, table: dict[str, set[str]]) -> Matching:
    """Name the rows that mean no single image, with the files that come nearest.

    Raises
    ------
    UsageError
        Always.
    """
    files = [relative_path(record.path, manifest) for record in manifest.files]
    by_name: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        by_name[PurePosixPath(_without_suffix(file)).name.casefold()].append(file)
    unknown = [name for name in names if len(table.get(name, ())) != 1]
    missing = [
        name for name in unknown if len(by_name[PurePosixPath(_without_suffix(name)).name.casefold()]) != 1
    ]
    culprits = missing or unknown
    raise UsageError(
        f"{len(culprits)} of {len(names)} rows belong to no single image of {manifest.root}:"
        f" {quoted_names(culprits)}{_nearest(culprits[0], files, by_name)}.",
        "Name rows by image id or by path relative to the data set, and leave out those of other images.",
    )


def _nearest(name: str, files: Sequence[str], by_name: dict[str, list[str]]) -> str:
    same = by_name.get(PurePosixPath(_without_suffix(name)).name.casefold(), [])
    if len(set(same)) > 1:
        return f"; the first could be {same[0]!r} or {same[1]!r}"
    near = same or get_close_matches(name, files[:SEARCHED], n=1)
    return f"; nearest to the first is {near[0]!r}" if near else ""


def quoted_names(names: Sequence[str]) -> str:
    """The first few names, quoted."""
    more = ", …" if len(names) > LISTED else ""
    return ", ".join(repr(name) for name in names[:LISTED]) + more
