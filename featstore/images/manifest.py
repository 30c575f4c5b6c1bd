"""The manifest, the table of a data set: how it is listed, and what an audit of it finds."""

from __future__ import annotations

import errno
import hashlib
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from featstore.errors import AuditError, BadImageError, ManifestError
from featstore.findings import EXAMPLES, Finding, counted, ordered
from featstore.images.formats.container import (
    HEAD,
    Format,
    check_length,
    damage_of,
    formats,
    identify_format,
    most_bytes_of,
)
from featstore.images.formats.dicom import spacing_faults
from featstore.images.formats.npz import ARRAYS
from featstore.serialization import digest_bytes, open_regular
from featstore.tables import counts, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from featstore.images.formats.container import Place
    from featstore.images.formats.npz import PageTable
    from featstore.types import ImageRecord


# Which image, which class, which group, which side of the split


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A file that is no image, with the reason; the run goes on without it.

    Attributes
    ----------
    path
        Where the file is, or where it was expected.
    id
        Image id, or None where not even the bytes could be read.
    reason
        One of `featstore.images.reading.REASONS`.
    detail
        What exactly was met.
    label
        Class that the file was listed under; empty where none is known.
    """

    path: Path
    id: str | None
    reason: str
    detail: str
    label: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Manifest:
    """A data set after scanning.

    Attributes
    ----------
    root
        The folder, or the folder of the CSV file.
    records
        One row per different image, in the order of the relative paths (and pages); no id occurs twice.
    unreadable
        Files that could not be read (`missing`, `loop`, `permission`, ...) and those whose first bytes
        already say that no decoder will take them (`empty`, `not_image`, `unsupported`, `lfs_pointer`).
    skipped
        Entries passed over on purpose: hidden files, thumbnails' databases, text beside the images, pipes.
    findings
        What reading the data set met: layouts, spellings, copies.
    has_groups
        Whether the data set says which images belong together; if not, every file is its own group.
    copies
        Further files with the bytes of a record. Nothing is computed from them; the audit needs them, since
        a copy may carry another label or stand on the other side of the split.
    groups_set_aside
        Whether the data set names groups that are not kept together: see `by_image`.
    covariates
        Names of the columns of the table that each record has as its covariates.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> manifest = featstore.scan(data)
    >>> manifest.classes, manifest.count_by_class()
    (('covid', 'normal'), {'covid': 8, 'normal': 8})
    >>> first = manifest.only([manifest.records[0].id])  # a part goes wherever the whole would
    >>> len(first.records)
    1
    """

    root: Path
    records: tuple[ImageRecord, ...]
    unreadable: tuple[Quarantined, ...] = ()
    skipped: int = 0
    findings: tuple[Finding, ...] = ()
    has_groups: bool = False
    copies: tuple[ImageRecord, ...] = ()
    groups_set_aside: bool = False
    covariates: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """One line: how many images there are, of whom and of what."""
        bad = f", {len(self.unreadable)} unreadable" if self.unreadable else ""
        return printable(
            f"<Manifest: {counted(len(self.records), 'image')}, {counted(len(self.count_by_group()), 'group')},"
            f" classes: {counts(self.count_by_class())}{bad}; {self.root}>"
        )

    @property
    def files(self) -> tuple[ImageRecord, ...]:
        """Records and copies: everything that was found, for the audit."""
        return self.records + self.copies

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels, sorted; the position is the class index."""
        return tuple(sorted({record.label for record in self.files}))

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that occur, sorted; empty where the data set has none."""
        return tuple(sorted({record.split for record in self.files if record.split is not None}))

    def count_by_class(self) -> dict[str, int]:
        """Images per label, labels sorted."""
        return _counts(record.label for record in self.records)

    def count_by_split(self) -> dict[str | None, int]:
        """Images per split (None: unassigned), in sorted order with None last."""
        counts = Counter(record.split for record in self.records)
        return {split: counts[split] for split in sorted(counts, key=lambda name: (name is None, name))}

    def count_by_group(self) -> dict[str, int]:
        """Images per group, groups sorted."""
        return _counts(record.group for record in self.records)

    def only(self, ids: Collection[str]) -> Manifest:
        """Keep the images of these ids alone; what could not be read stays listed."""
        return self._with(lambda record: record if record.id in ids else None)

    def with_splits(self, splits: Mapping[str, str] | None) -> Manifest:
        """Put each image on the side that its id has here, copies too; None takes all sides away."""
        return self._with(lambda record: replace(record, split=splits[record.id] if splits else None))

    def by_image(self) -> Manifest:
        """Make every image a group of its own, and forget the splits, which were drawn for the groups.

        Scores on such a table are inflated where patients have several images (law 6): it is for showing by how
        much. The manifest, the matrix and ``run.json`` keep the mark `groups_set_aside`. All views of an image still
        stay on one side, since they share its id.
        """
        apart = self._with(lambda record: replace(record, group=record.id, split=None))
        return replace(apart, has_groups=False, groups_set_aside=self.has_groups or self.groups_set_aside)

    def groups_by_class(self) -> dict[str, int]:
        """Different groups per label: what bounds the number of folds."""
        return _counts(label for label, _ in {(record.label, record.group) for record in self.records})

    def _with(self, change: Callable[[ImageRecord], ImageRecord | None]) -> Manifest:
        records, copies = (
            tuple(kept for record in rows if (kept := change(record)) is not None)
            for rows in (self.records, self.copies)
        )
        return replace(self, records=records, copies=copies)


def _counts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


# What a data set claims to hold, before any file is opened

_REASONS = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.ELOOP: "loop",
    errno.EINVAL: "not_file",
    errno.EISDIR: "not_file",
    errno.EFBIG: "too_large",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
}


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file that is said to be an image.

    Attributes
    ----------
    name
        Path relative to the root, with ``/``.
    path
        Where to open it.
    label, group, split, site
        As in `featstore.types.ImageRecord`; group None where not known.
    real
        For a file reached through a link, where it really is; else None.
    pages
        Label, split and group of each picture of a file of arrays that is a data set of its own; else None.
    covariates
        As in `featstore.types.ImageRecord`.
    """

    name: str
    path: Path
    label: str
    group: str | None = None
    split: str | None = None
    site: str | None = None
    real: str | None = None
    pages: PageTable | None = None
    covariates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """All entries of a data set, and what was met on the way to them."""

    root: Path
    entries: tuple[ListedFile, ...]
    unreadable: tuple[Quarantined, ...] = ()
    skipped: int = 0
    findings: tuple[Finding, ...] = ()
    has_groups: bool = False


def quarantine(path: Path, error: OSError) -> Quarantined:
    """Turn the operating system's refusal into a row of the quarantine table."""
    reason = _REASONS.get(error.errno or 0, "unreadable")
    return Quarantined(path, None, reason, error.strerror or str(error))


def real_path_inside(path: Path, root: Path, *, follow_links: bool) -> str:
    """Where `path` really is, links resolved.

    Raises
    ------
    ManifestError
        If that is outside `root` and links must not be followed: a data set that reaches outside its folder
        is not the data set that gets copied, archived or cited.
    """
    real = os.path.realpath(path)
    home = os.path.realpath(root)
    if not follow_links and not Path(real).is_relative_to(home):
        raise ManifestError(
            f"{str(path)!r} is a link out of the data set, to {real!r}.",
            "Copy the images into the folder, or allow such links with --follow-links.",
        )
    return real


# What the scan learns from opening a file: its digest, its format, its pages


@dataclass(frozen=True, slots=True)
class Contents:
    """Content of a file, as the scan sees it.

    Attributes
    ----------
    digest
        SHA-256 of the bytes, 64 hex digits.
    kind
        Raster format by content.
    frames
        Numbers of the pages that are images, from 0; the second argument of `featstore.images.reading.decode`.
    total
        Pages of the file, with those that are skipped: smaller copies and masks.
    notes
        What is odd about the pages, keys of `featstore.images.formats.tiff.PAGE_NOTES`.
    group, sites, places, keys, rows
        What the file says of its origin: see `featstore.images.formats.container.Pages`.
    """

    digest: str
    kind: str
    frames: tuple[int, ...] = (0,)
    total: int = 1
    notes: tuple[str, ...] = ()
    group: str | None = None
    sites: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[int, Place] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[int, ...] = ()

    @property
    def pages(self) -> int:
        """How many images the file gives."""
        return len(self.frames)

    @property
    def ids(self) -> list[str]:
        """One image id per entry of `frames`."""
        own = content_id(self.digest, formats().get(self.kind))
        return [own] if self.total == 1 else [page_id(own, frame) for frame in self.frames]


def content_id(digest: str, known: Format | None) -> str:
    """Image id of a file of one image: its digest; of a plug-in's format the digest with name and version of it.

    So the features of an image that another version of the plug-in decoded are not taken for those of this one.
    """
    if known is None or not known.version:
        return digest
    return digest_bytes(f"{digest} {known.name} {known.version}".encode())


def page_id(digest: str, page: int) -> str:
    """Image id of one page of a file that holds several."""
    return digest_bytes(f"{digest}#{page}".encode())


def read_contents(path: Path, slices: str | None = None) -> Contents | Quarantined:
    """Read a file once, in blocks; what cannot be an image comes back as a row for the quarantine.

    Parameters
    ----------
    path
        The file.
    slices
        Which slices of a volume are images; see `featstore.images.scan.ScanOptions`.
    """
    digest = None
    try:
        with open_regular(path) as file:
            head = file.read(HEAD)
            file.seek(0)
            check_length(os.fstat(file.fileno()).st_size, most_bytes_of(head))
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            known = identify_format(head)
            file.seek(0)
            with damage_of(known):
                pages = known.list_pages(file)
                if slices is not None:
                    pages = known.choose(file, pages, slices)
            return Contents(
                digest,
                known.name,
                pages.frames,
                pages.total,
                pages.notes,
                pages.group,
                pages.sites,
                pages.places,
                pages.keys,
                pages.rows,
            )
    except OSError as error:
        return quarantine(path, error)
    except BadImageError as error:
        return Quarantined(path, digest, error.reason, error.detail)


# What was noted while scanning and decoding, as findings: counted, with a few examples

DECODING: dict[str, tuple[str, str]] = {
    "frames": ("FS304", "{files} of several pictures: only the first was taken."),
    "alpha": ("FS305", "{files} with transparent pixels: these were put on black."),
    "cmyk": ("FS306", "{files} in CMYK: converted to RGB without a colour profile."),
    "constant": ("FS307", "{images} of one colour throughout, showing nothing."),
    "orientation": ("FS308", "{files} with an unreadable orientation tag: taken as stored."),
    "not_hounsfield": (
        "FS321",
        "{images} of no Hounsfield units (MR, PET, radiographs) under a window of CT.",
    ),
    "range_unused": ("FS322", "{images} of 8 bits, to which a window or range does nothing."),
    "extra_channels": ("FS314", "{files} with channels beyond grey or RGB: these were left out."),
}
"""Key of `featstore.images.reading.WARNINGS` to the code of its finding and the message."""

PAGES: dict[str, tuple[str, str]] = {
    "pages": ("FS309", "{files} of several pages or slices: each of their {pages} pages is an image."),
    "reduced": ("FS310", "{files} with smaller copies or masks of a picture: these pages were skipped."),
    "channels": ("FS311", "{files} whose pages are channels of one picture: each of {pages} is an image."),
    "cut_short": ("FS312", "{files} with fewer slices than announced: those that are there were taken."),
    "sizes": ("FS313", "{files} with pages of different sizes: each of their {pages} pages is an image."),
    "localizer": ("FS318", "{files} with a localizer, an overview to plan slices by."),
    "slices": ("FS316", "{files} with a volume: {pages} slices are images."),
    "unplaced": ("FS317", "{files} with a volume that does not say how it lies: left may be right."),
}
"""Key of `featstore.images.formats.tiff.PAGE_NOTES` to the code of its finding and the message."""


def findings_of_notes(notes: Iterable[tuple[Path | str, Iterable[str]]]) -> tuple[Finding, ...]:
    """Count what decoding noted.

    Parameters
    ----------
    notes
        Path of an image and what `featstore.images.reading.decode` noted about it, one pair per image.
        Notes that no finding belongs to are passed over.

    Returns
    -------
    tuple of Finding
        One per kind of note, in the order of the codes, with the number of images and a few paths.
    """
    paths: dict[str, list[str]] = {note: [] for note in DECODING}
    for path, said in notes:
        for note in set(said) & paths.keys():
            paths[note].append(str(path))
    return tuple(
        _finding(*DECODING[note], list(dict.fromkeys(found)), len(found))
        for note, found in paths.items()
        if found
    )


def findings_of_pages(files: Iterable[tuple[str, Contents]]) -> tuple[Finding, ...]:
    """Count what the scan noted about the pages of files.

    Parameters
    ----------
    files
        Name of a file and what is in it.

    Returns
    -------
    tuple of Finding
        One per kind of note, in the order of the codes, with the number of files and a few names.
    """
    files = list(files)
    found = {note: [(name, contents) for name, contents in files if note in contents.notes] for note in PAGES}
    return tuple(
        _finding(
            *PAGES[note], [name for name, _ in rows], len(rows), sum(contents.pages for _, contents in rows)
        )
        for note, rows in found.items()
        if rows
    )


def findings_of_places(files: Iterable[tuple[str, Contents]]) -> tuple[Finding, ...]:
    """Slices that are at one place twice, and those that are missing between others, by series.

    Parameters
    ----------
    files
        Name of a file and what is in it.
    """
    stacks: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    for name, contents in files:
        for place in contents.places.values():
            stacks[place.stack].append((place.position, name))
    faults = [
        (min(name for _, name in slices), *spacing_faults(position for position, _ in slices))
        for slices in stacks.values()
    ]
    twice = sorted((name, count) for name, count, _ in faults if count)
    missing = sorted((name, count) for name, _, count in faults if count)
    return tuple(
        Finding(
            code,
            f"{counted(len(rows), 'series', 'series')} {message.format(sum(count for _, count in rows))}",
            len(rows),
            tuple(f"{name} and others of its series: {count}" for name, count in rows),
        )
        for code, message, rows in (
            ("FS319", "with slices at the place of another one: {} in all.", twice),
            ("FS320", "with gaps between slices: {} missing by the spacing of the others.", missing),
        )
        if rows
    )


def _finding(code: str, message: str, examples: list[str], count: int, pages: int = 0) -> Finding:
    text = message.format(files=counted(count, "file"), images=counted(count, "image"), pages=pages)
    return Finding(code, text, count, tuple(examples))


# Audit: conflicts and leaks that the table tells, by which no score would mean anything


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


def require_no_errors(
    manifest: Manifest, *, fitting: bool = True, codes: Collection[str] | None = None
) -> None:
    """Refuse a data set on which nothing should be fitted.

    Parameters
    ----------
    manifest
        The scanned data set.
    fitting
        Whether a classifier is to be fitted; without, one class is enough.
    codes
        Codes of the errors that matter; default all.

    Raises
    ------
    AuditError
        With the first error, its count, and the codes of the others.
    """
    errors = [finding for finding in _errors(manifest) if fitting or finding.name != "one_class"]
    errors = [finding for finding in errors if codes is None or finding.code in codes]
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
        lost = quarantine_text(quarantined_by_class(manifest, {}))
        also = f": {lost}" if lost else ""
        remedy = "Mend or replace the files in quarantine, or add images of a second class." if lost else ""
        yield Finding("FS109", f"All images are of the class {manifest.classes[0]!r}{also}.", remedy=remedy)


def _warnings(manifest: Manifest) -> Iterator[Finding]:
    if not manifest.has_groups:
        yield no_groups(manifest.records)


def no_groups(records: Iterable[ImageRecord]) -> Finding:
    """FS104, with what gives these images their patients: a single file of arrays has no paths to tell them by."""
    files = {record.path for record in records}
    of_arrays = len(files) == 1 and next(iter(files)).suffix.lower() in ARRAYS
    return Finding(
        "FS104",
        "No groups are given: images of one patient may stand on both sides of a split.",
        remedy="Save the patient of each picture in the file, beside its class: train_groups, val_groups, test_groups"
        " (groups where it has no splits)."
        if of_arrays
        else "",
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


# Losses to the quarantine: a class that is all bad looks as if it had never been there.

REMEDY = "Mend or replace these files; `featstore extract` lists them and goes on from where it was."


@dataclass(frozen=True, slots=True)
class ClassQuarantine:
    """Files of one class in the quarantine.

    Attributes
    ----------
    label
        Name of the class.
    bad, files
        Files in quarantine, and all files.
    reasons
        Codes of `featstore.images.reading.REASONS`, sorted.
    """

    label: str
    bad: int
    files: int
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        """One clause, such as ``class ill: 8 of 8 files are in quarantine (truncated)``."""
        why = ", ".join(self.reasons)
        return f"class {self.label}: {self.bad} of {self.files} files are in quarantine ({why})"


def quarantined_by_class(manifest: Manifest, reasons: Mapping[str, str]) -> list[ClassQuarantine]:
    """Losses of every class that has any, by name.

    Parameters
    ----------
    manifest
        The scanned data set.
    reasons
        Id of every image that does not decode -> why.
    """
    found: defaultdict[str, list[str | None]] = defaultdict(list)
    for label, reason in _files(manifest, reasons):
        found[label].append(reason)
    bad = {label: [reason for reason in mine if reason is not None] for label, mine in sorted(found.items())}
    return [
        ClassQuarantine(label, len(mine), len(found[label]), tuple(sorted(set(mine))))
        for label, mine in bad.items()
        if mine
    ]


def quarantine_text(found: list[ClassQuarantine]) -> str:
    """All of them in one line; empty where nothing is lost."""
    return "; ".join(map(str, found))


def one_class_left(manifest: Manifest, reasons: Mapping[str, str]) -> Iterator[Finding]:
    """FS109 where the quarantine leaves images of one class or none."""
    found = quarantined_by_class(manifest, reasons)
    left = sorted({record.label for record in manifest.records if record.id not in reasons})
    if found and len(left) < 2:  # noqa: PLR2004
        what = f"All images that can be read are of the class {left[0]!r}" if left else "No image can be read"
        yield Finding(
            "FS109", f"{what}: {quarantine_text(found)}.", sum(loss.bad for loss in found), remedy=REMEDY
        )


def require_two_classes(manifest: Manifest, reasons: Mapping[str, str]) -> None:
    """Refuse a data set of which the quarantine leaves one class or none.

    Raises
    ------
    AuditError
        With what each class lost.
    """
    for finding in one_class_left(manifest, reasons):
        raise AuditError(finding.message, finding.remedy)


def _files(manifest: Manifest, reasons: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    for record in manifest.records:
        yield record.label, reasons.get(record.id)
    for row in manifest.unreadable:
        if row.label:
            yield row.label, row.reason
