"""Would a score on this data set mean anything? Conflicts, leaks, and near-copies across the split."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, NamedTuple

from featstore.errors import AuditError
from featstore.findings import EXAMPLES, Finding
from featstore.images.losses import losses, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from featstore.images.manifest import Manifest
    from featstore.types import ImageRecord

NEAR = 4
"""Largest Hamming distance of two 64-bit difference hashes that counts as the same picture."""
_HASH_BITS = 64


class NearPair(NamedTuple):
    """Two image ids, the smaller first, and the Hamming distance of their hashes."""

    first: str
    second: str
    distance: int


def audit(
    manifest: Manifest,
    hashes: Mapping[str, int] | None = None,
    alike: Callable[[str, str], bool] | None = None,
) -> tuple[Finding, ...]:
    """Look for everything that makes scores on a data set wrong.

    Parameters
    ----------
    manifest
        The scanned data set.
    hashes
        Image id -> difference hash (`featstore.images.dhash.dhash`); without, near-copies are not looked for.
    alike
        A closer look at two image ids whose hashes agree. Slices of different chests have equal hashes: on
        746 CT slices 1,887 pairs, most of them different patients.

    Returns
    -------
    tuple of Finding
        Errors first.
    """
    found = [*_errors(manifest), *_warnings(manifest, hashes or {}, alike)]
    return tuple(found)


def require_sound(manifest: Manifest, *, fitting: bool = True) -> None:
    """Refuse a data set on which nothing should be fitted.

    Parameters
    ----------
    manifest
        The scanned data set.
    fitting
        Whether a classifier is to be fitted; without, one class is enough.

    Raises
    ------
    AuditError
        With the first error, its count, and the codes of the others.
    """
    errors = [finding for finding in _errors(manifest) if fitting or finding.name != "one_class"]
    if not errors:
        return
    first, *others = errors
    also = f" Also found: {', '.join(finding.title for finding in others)}." if others else ""
    example = f" First: {first.examples[0]}." if first.examples else ""
    raise AuditError(f"{first.title}: {first.message}{example}{also}", first.remedy)


def near_duplicates(manifest: Manifest, hashes: Mapping[str, int], limit: int = NEAR) -> tuple[NearPair, ...]:
    """List pairs of images that look the same and stand on different sides.

    The sides are the splits; where there are none, the groups. Exact: hashes at most `limit` bits apart agree
    in at least one of ``limit + 1`` bands of bits, so only images that share a band are compared.

    Parameters
    ----------
    manifest
        The scanned data set.
    hashes
        Image id -> 64-bit difference hash. Images without one are left out.
    limit
        Largest Hamming distance.

    Returns
    -------
    tuple of NearPair
        Nearest first, then by id.
    """
    by_split = bool(manifest.splits)
    sides = {r.id: r.split if by_split else r.group for r in manifest.records if r.id in hashes}
    pairs = {
        NearPair(min(one, two), max(one, two), distance)
        for one, two in _candidates({i: hashes[i] for i in sides}, limit + 1)
        if sides[one] != sides[two] and None not in (sides[one], sides[two])
        and (distance := (hashes[one] ^ hashes[two]).bit_count()) <= limit
    }  # fmt: skip
    return tuple(sorted(pairs, key=lambda pair: (pair.distance, pair.first, pair.second)))


def _candidates(hashes: Mapping[str, int], bands: int) -> Iterator[tuple[str, str]]:
    edges = [_HASH_BITS * band // bands for band in range(bands + 1)]
    for low, high in pairwise(edges):
        buckets: defaultdict[int, list[str]] = defaultdict(list)
        for image_id, value in hashes.items():
            buckets[value >> low & (1 << high - low) - 1].append(image_id)
        for bucket in buckets.values():
            yield from combinations(bucket, 2)


def _errors(manifest: Manifest) -> Iterator[Finding]:
    if conflicts := _mixed(manifest.files, lambda r: r.id, lambda r: r.label):
        message = f"{len(conflicts)} images are in two classes."
        yield Finding("FS106", message, len(conflicts), _few(map(_places, conflicts)))
    if leaks := _mixed(manifest.files, lambda r: r.id, lambda r: r.split):
        message = f"{len(leaks)} images are in two splits."
        yield Finding("FS107", message, len(leaks), _few(map(_places, leaks)))
    if manifest.has_groups and (leaks := _mixed(manifest.files, lambda r: r.group, lambda r: r.split)):
        message = f"{len(leaks)} groups are in two splits."
        yield Finding("FS108", message, len(leaks), _few(map(_group_and_splits, leaks)))
    if len(manifest.classes) == 1:
        lost = told(losses(manifest, {}))
        also = f": {lost}" if lost else ""
        remedy = "Mend or replace the files in quarantine, or add images of a second class." if lost else ""
        yield Finding("FS109", f"All images are of the class {manifest.classes[0]!r}{also}.", remedy=remedy)


def _warnings(
    manifest: Manifest, hashes: Mapping[str, int], alike: Callable[[str, str], bool] | None
) -> Iterator[Finding]:
    if not manifest.has_groups:
        yield Finding(
            "FS104", "No groups are given: images of one patient may stand on both sides of a split."
        )
    elif mixed := _mixed(manifest.files, lambda r: r.id, lambda r: r.group):
        message = f"{len(mixed)} images are in two groups; the first group counts."
        yield Finding("FS103", message, len(mixed), _few(map(_places, mixed)))
    near = near_duplicates(manifest, hashes)
    if pairs := [p for p in near if alike is None or alike(p.first, p.second)]:
        path = {record.id: record.path for record in manifest.records}
        lines = (f"{str(path[p.first])!r}, {str(path[p.second])!r} ({p.distance} bits)" for p in pairs)
        sides = "splits" if manifest.splits else "groups"
        message = f"{len(pairs)} pairs of images in different {sides} look the same."
        yield Finding("FS102", message, len(pairs), _few(lines))


def _mixed(
    records: Iterable[ImageRecord],
    key: Callable[[ImageRecord], str],
    side: Callable[[ImageRecord], str | None],
) -> list[list[ImageRecord]]:
    """Collect records that share a key and yet differ in their side; a side of None is none."""
    together: defaultdict[str, list[ImageRecord]] = defaultdict(list)
    for record in records:
        if side(record) is not None:
            together[key(record)].append(record)
    return [same for same in together.values() if len({side(record) for record in same}) > 1]


def _few(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(line for line, _ in zip(lines, range(EXAMPLES), strict=False))


def _places(records: list[ImageRecord]) -> str:
    return ", ".join(repr(str(record.path)) for record in records)


def _group_and_splits(records: list[ImageRecord]) -> str:
    return f"{records[0].group!r} in {', '.join(sorted({str(record.split) for record in records}))}"
