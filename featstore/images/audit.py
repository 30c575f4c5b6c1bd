"""Would a score on this data set mean anything? Conflicts and leaks that its table tells."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from featstore.errors import AuditError
from featstore.findings import EXAMPLES, Finding, counted, ordered
from featstore.images.losses import losses, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from featstore.images.manifest import Manifest
    from featstore.types import ImageRecord


def audit(manifest: Manifest) -> tuple[Finding, ...]:
    """Look for what the table of a data set alone says against scores on it.

    Copies that only the pictures tell are `featstore.images.near_copies`' business.

    Parameters
    ----------
    manifest
        The scanned data set.

    Returns
    -------
    tuple of Finding
        Errors first.
    """
    return ordered([*_errors(manifest), *_warnings(manifest), *manifest.findings])


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


def _errors(manifest: Manifest) -> Iterator[Finding]:
    if conflicts := _mixed(manifest.files, lambda r: r.id, lambda r: r.label):
        message = f"{counted(len(conflicts), 'image is', 'images are')} in two classes."
        yield Finding("FS106", message, len(conflicts), _few(map(_places, conflicts)))
    if leaks := _mixed(manifest.files, lambda r: r.id, lambda r: r.split):
        message = f"{counted(len(leaks), 'image is', 'images are')} in two splits."
        yield Finding("FS107", message, len(leaks), _few(map(_places, leaks)))
    if manifest.has_groups and (leaks := _mixed(manifest.files, lambda r: r.group, lambda r: r.split)):
        message = f"{counted(len(leaks), 'group is', 'groups are')} in two splits."
        yield Finding("FS108", message, len(leaks), _few(map(_group_and_splits, leaks)))
    if len(manifest.classes) == 1:
        lost = told(losses(manifest, {}))
        also = f": {lost}" if lost else ""
        remedy = "Mend or replace the files in quarantine, or add images of a second class." if lost else ""
        yield Finding("FS109", f"All images are of the class {manifest.classes[0]!r}{also}.", remedy=remedy)


def _warnings(manifest: Manifest) -> Iterator[Finding]:
    if not manifest.has_groups:
        yield Finding(
            "FS104", "No groups are given: images of one patient may stand on both sides of a split."
        )


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
