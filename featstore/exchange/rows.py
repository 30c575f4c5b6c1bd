"""Which image each row of a foreign table belongs to: by image id, path, or a name that fits one image alone."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from featstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from featstore.images.manifest import Manifest

ID = re.compile(r"[0-9a-f]{64}")
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
class Way:
    """One way of naming files: what it is called, keys of a file, and keys that a row may mean, best first."""

    name: str
    of_file: Callable[[str, str], Iterable[str]]
    of_row: Callable[[str], Iterable[str]]


def _bare(name: str) -> str:
    return str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).name else name


def _tails(name: str) -> Iterator[str]:
    parts = name.split("/")
    return ("/".join(parts[at:]) for at in range(1, len(parts)))


EXACT = "path relative to the data set"
WAYS = (
    Way(EXACT, lambda relative, _path: [relative], lambda name: [name]),
    Way(
        "absolute path",
        lambda _relative, path: {path, os.path.realpath(path)},
        lambda name: [name] if name.startswith("/") else [],
    ),
    Way("end of the path", lambda relative, _path: [relative], _tails),
    Way(
        "end of the path",
        lambda relative, _path: _tails(relative),
        lambda name: [name] if "/" in name else [],
    ),
    Way(
        "path without suffix",
        lambda relative, _path: [_bare(relative)],
        lambda name: [name, _bare(name), *_tails(name), *_tails(_bare(name))],
    ),
    Way(
        "file name alone",
        lambda relative, _path: [PurePosixPath(relative).name],
        lambda name: [] if "/" in name else [name],
    ),
    Way(
        "file name without suffix",
        lambda relative, _path: [PurePosixPath(_bare(relative)).name],
        lambda name: [] if "/" in name else [name, _bare(name)],
    ),
)
"""Tried one after the other; the first in which every row means a single image counts."""


def match(names: Sequence[str], manifest: Manifest) -> Matching:
    """Find the image of each row.

    Parameters
    ----------
    names
        Image ids, or names of files in one of `WAYS`.
    manifest
        The scanned data set.

    Raises
    ------
    UsageError
        If a row means no image, or several.
    """
    if all(ID.fullmatch(name) for name in names):
        known = {record.id: {record.id} for record in manifest.records}
        return _by_key(names, known, manifest, lambda name: [name], "image id") or _fail(
            names, manifest, known
        )
    names = [PurePosixPath(name.strip().replace("\\", "/")).as_posix() for name in names]
    climbs = any(".." in name.split("/") for name in names)
    for way in WAYS[:1] if climbs else WAYS:
        found = _by_key(names, _table(manifest, way), manifest, way.of_row, way.name)
        if found is not None:
            return found
    return _fail(names, manifest, _table(manifest, WAYS[0]))


def relative_path(path: os.PathLike[str], manifest: Manifest) -> str:
    """Path of a file relative to the data set, with ``/``; the whole path of one that lies elsewhere."""
    whole = PurePosixPath(os.fspath(path))
    root = PurePosixPath(os.fspath(manifest.root))
    return (whole.relative_to(root) if whole.is_relative_to(root) else whole).as_posix()


def _table(manifest: Manifest, way: Way) -> dict[str, set[str]]:
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
        by_name[PurePosixPath(_bare(file)).name.casefold()].append(file)
    unknown = [name for name in names if len(table.get(name, ())) != 1]
    missing = [name for name in unknown if len(by_name[PurePosixPath(_bare(name)).name.casefold()]) != 1]
    culprits = missing or unknown
    raise UsageError(
        f"{len(culprits)} of {len(names)} rows belong to no single image of {manifest.root}:"
        f" {some(culprits)}{_nearest(culprits[0], files, by_name)}.",
        "Name rows by image id or by path relative to the data set, and leave out those of other images.",
    )


def _nearest(name: str, files: Sequence[str], by_name: dict[str, list[str]]) -> str:
    same = by_name.get(PurePosixPath(_bare(name)).name.casefold(), [])
    if len(set(same)) > 1:
        return f"; the first could be {same[0]!r} or {same[1]!r}"
    near = same or get_close_matches(name, files[:SEARCHED], n=1)
    return f"; nearest to the first is {near[0]!r}" if near else ""


def some(names: Sequence[str]) -> str:
    """The first few names, quoted."""
    more = ", …" if len(names) > LISTED else ""
    return ", ".join(repr(name) for name in names[:LISTED]) + more
