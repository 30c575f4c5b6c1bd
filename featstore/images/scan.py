"""Scan of a data set: from a folder or a CSV file to a manifest."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypedDict, cast

from featstore.arguments import public
from featstore.errors import BadImageError, ManifestError, did_you_mean
from featstore.findings import Finding, counted
from featstore.images.csv import TABLES, list_csv
from featstore.images.folder import list_folder, list_tree
from featstore.images.formats import npz
from featstore.images.formats.container import suffixes
from featstore.images.formats.dicom import SITE_TAGS, in_space
from featstore.images.formats.nifti import parse_slices
from featstore.images.formats.npz import ARRAYS
from featstore.images.label_table import label_images, read_labels
from featstore.images.manifest import (
    Contents,
    ListedFile,
    Listing,
    Manifest,
    Quarantined,
    findings_of_pages,
    findings_of_places,
    page_id,
    read_contents,
)
from featstore.images.names import check_groups, check_labels, check_masks, merged_groups, named_sites
from featstore.images.other_kinds import other_kind_of
from featstore.images.reading import REASONS
from featstore.processes import map_ahead, track
from featstore.types import ImageRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from featstore.images.label_table import LabelTable


_MAX_THREADS, _AHEAD = 8, 64


class ScanOptions(TypedDict, total=False):
    """How a data set is read; every entry may be left out. Whatever takes a data set takes these.

    Attributes
    ----------
    group_pattern
        Regular expression, searched in each relative path; its first group that took part names the patient.
    follow_links
        Whether links may lead out of the data set.
    columns
        Which columns of a table are meant, such as ``{"path": "filename", "group": "patient_id"}``; what is not
        named here is looked for under its own name: ``path``, ``label``, ``group``, ``split``, ``site``. Several
        columns of zeros and ones can be the label: ``{"label": "MEL,NV,BCC"}``.
    root
        Folder where the paths of a CSV file begin; default the folder of the file.
    suffix
        What to add to paths of a CSV file that have no suffix, such as ``.png``.
    site_tag
        Tag of DICOM files that names the site, one of `featstore.images.formats.dicom.SITE_TAGS`; what a CSV file
        says of the site goes first.
    slices
        Which slices of a volume (NIfTI) are images: an axis, ``axial`` (the default), ``coronal`` or ``sagittal``,
        and behind a colon what to take along it: ``every=4``, ``range=10-40`` (from 1) or ``range=25%-75%``, both
        with a comma, or ``largest-lung``, the axial slice of a chest that shows most air inside of the body.
    covariates
        Columns of a table, such as ``["age", "sex"]``, that become a block beside those of the networks: see
        `featstore.covariates`.
    labels
        A table that says the classes of the images in a folder, whatever its subfolders are called; a row is a
        patient, study, series or file: see `featstore.images.label_table`.
    labels_by
        What a row of `labels` is: ``patient``, ``study``, ``series`` or ``file``; default the finest of which there
        is a column (PatientID, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID or path).
    """

    group_pattern: str | None
    follow_links: bool
    columns: Mapping[str, str] | None
    root: str | Path | None
    suffix: str | None
    site_tag: str | None
    slices: str | None
    covariates: Sequence[str] | None
    labels: str | Path | None
    labels_by: str | None


def scan_options(options: Mapping[str, Any]) -> ScanOptions:
    """Those of some options that say how a data set is read."""
    return cast(
        "ScanOptions", {name: options[name] for name in ScanOptions.__annotations__ if name in options}
    )


TABLE_OPTIONS = ("columns", "root", "suffix", "covariates")
"""Options that only a CSV file can have."""


def refuse_unknown_options(options: Mapping[str, object]) -> None:
    """Refuse what is no option of `scan`, where that might not be called.

    Raises
    ------
    TypeError
        With the nearest name.
    """
    for name in options:
        if name not in ScanOptions.__annotations__:
            near = difflib.get_close_matches(name, ScanOptions.__annotations__, n=1)
            hint = f". Did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"unexpected keyword argument {name!r}{hint}")


@public
def scan(
    data: str | Path | Manifest,
    *,
    group_pattern: str | None = None,
    follow_links: bool = False,
    columns: Mapping[str, str] | None = None,
    root: str | Path | None = None,
    suffix: str | None = None,
    site_tag: str | None = None,
    slices: str | None = None,
    covariates: Sequence[str] | None = None,
    labels: str | Path | None = None,
    labels_by: str | None = None,
) -> Manifest:
    """Read a data set: list the files, hash them, sort out what is no image.

    Parameters
    ----------
    data
        A folder ``class/...`` or ``split/class/...``; a table ``path,label[,group][,split][,site]``, CSV or Parquet;
        or arrays of pictures and labels, ``.npz`` (as MedMNIST's), ``.npy`` or ``.h5``.
        A manifest is what it would be read to, and comes back as it is: so a part of a data set goes wherever all of
        it would.
    group_pattern, follow_links, columns, root, suffix, site_tag, slices, covariates, labels, labels_by
        See `ScanOptions`.

    Returns
    -------
    Manifest
        Records in the order of the relative paths; slices of a DICOM series in the order of space. Two files with the
        same bytes give one record. Where neither a column nor a pattern names the groups, files that name a patient
        (DICOM) are grouped by a pseudonym of it.

    Raises
    ------
    ManifestError
        If the layout or the CSV file cannot be understood, the pattern does not match a path, or nothing in
        the data set is an image.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> manifest = featstore.scan(data)
    >>> len(manifest.records), manifest.classes
    (16, ('covid', 'normal'))
    >>> manifest.records[0].path.name
    'p002-s0.png'
    """
    if isinstance(data, Manifest):
        return data
    _check_choices(site_tag, slices)
    data = Path(data)
    _refuse_impossible(data)
    table = _label_table(data, labels, labels_by, root, suffix, columns=columns, covariates=covariates)
    if table is not None:
        listing = list_tree(data, follow_links=follow_links)
    else:
        listing = _list(data, follow_links, columns, root, suffix, covariates)
    if group_pattern is not None:
        listing = _with_groups(listing, group_pattern, table)
    entries = sorted(listing.entries, key=lambda entry: entry.name)
    if not data.is_dir() or any(entry.real is not None for entry in entries):
        entries = _once_by_real_path(entries)
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        read = map_ahead(
            pool, partial(read_contents, slices=slices), (entry.path for entry in entries), _AHEAD
        )
        contents = list(track(read, "hash", "file", len(entries)))
    images = [
        (entry, found) for entry, found in zip(entries, contents, strict=True) if isinstance(found, Contents)
    ]
    refused = [
        replace(found, label=entry.label)
        for entry, found in zip(entries, contents, strict=True)
        if isinstance(found, Quarantined)
    ]
    bad = [*listing.unreadable, *refused]
    if not images:
        raise _nothing_left(data, bad)
    if slices is not None and not any("slices" in found.notes for _, found in images):
        raise ManifestError(
            f"--slices is for volumes (NIfTI, arrays), and {str(data)!r} has none.", "Leave it out."
        )
    images = _in_space(images)
    if table is not None:
        listing, images = _labelled(listing, images, table)
    images, has_groups = _with_origins(images, site_tag, has_groups=listing.has_groups)
    images, of_sites = _with_sites(images)
    records, copies = _once_by_id(images)
    records, copies, merged = _merge_groups(records, copies, has_groups=has_groups)
    return Manifest(
        root=listing.root,
        records=tuple(records),
        unreadable=tuple(sorted(bad, key=lambda row: str(row.path))),
        skipped=listing.skipped,
        findings=(
            *listing.findings,
            *_findings(images, records, copies),
            *check_masks(entry.name for entry, _ in images),
            *check_labels(named := list(_pictures(entry for entry, _ in images))),
            *(check_groups(named, group_pattern) if has_groups else ()),
            *merged,
            *of_sites,
        ),
        has_groups=has_groups,
        copies=tuple(copies),
        covariates=tuple(covariates or ()),
    )


def _label_table(
    data: Path,
    labels: str | Path | None,
    labels_by: str | None,
    root: str | Path | None,
    suffix: str | None,
    *,
    columns: Mapping[str, str] | None,
    covariates: Sequence[str] | None,
) -> LabelTable | None:
    """Read the table of labels, if there is one."""
    if labels is None:
        if labels_by is not None:
            raise ManifestError(
                "--labels-by says what a row of a table is, and none was given.", "Add --labels TABLE."
            )
        return None
    if not data.is_dir():
        what = "does not exist" if not data.exists() else "is none"
        raise ManifestError(
            f"--labels is for a folder of images, and {str(data)!r} {what}.",
            "Give the folder as DATA, and the table as --labels TABLE.",
        )
    for name, value in {"root": root, "suffix": suffix}.items():
        if value:
            raise ManifestError(
                f"--{name} is for a table that is DATA; with --labels, DATA is the folder.",
                f"Leave out --{name}.",
            )
    return read_labels(labels, labels_by, columns=columns, covariates=covariates)


def _labelled(
    listing: Listing, images: Sequence[tuple[ListedFile, Contents]], table: LabelTable
) -> tuple[Listing, list[tuple[ListedFile, Contents]]]:
    found, told = label_images(images, table)
    has_groups = all(entry.group for entry, _ in found)
    return replace(listing, findings=(*listing.findings, *told), has_groups=has_groups), found


def _with_origins(
    images: Sequence[tuple[ListedFile, Contents]], site_tag: str | None, *, has_groups: bool
) -> tuple[list[tuple[ListedFile, Contents]], bool]:
    """Take group and site from the files where the table or the pattern names none; and whether all have a group."""
    found = [
        (
            replace(
                entry,
                group=entry.group if has_groups else contents.group,
                site=entry.site or contents.sites.get(site_tag or ""),
            ),
            contents,
        )
        for entry, contents in images
    ]
    return found, has_groups or all(entry.group for entry, _ in found)


def _with_sites(
    images: Sequence[tuple[ListedFile, Contents]],
) -> tuple[list[tuple[ListedFile, Contents]], list[Finding]]:
    """Call each site by one name, so that it is not learned from where it is left out; and what was done."""
    changed, found = named_sites(Counter(entry.site for entry, _ in images if entry.site))
    return [
        (replace(entry, site=changed[entry.site]) if entry.site in changed else entry, contents)
        for entry, contents in images
    ], found


def _in_space(images: Sequence[tuple[ListedFile, Contents]]) -> list[tuple[ListedFile, Contents]]:
    """Files of one slice each in the order of space, within the seats that their series has among all paths."""
    places = {
        seat: next(iter(found.places.values()))
        for seat, (_, found) in enumerate(images)
        if found.total == 1 and found.places
    }
    return [images[seat] for seat in in_space(range(len(images)), places)]


def _check_choices(tag: str | None, slices: str | None) -> None:
    if tag is not None and tag not in SITE_TAGS:
        raise ManifestError(
            f"{tag!r} is no tag that names a site.",
            did_you_mean(tag, SITE_TAGS),
        )
    if slices is not None:
        parse_slices(slices)


def _list(
    data: Path,
    follow_links: bool,
    columns: Mapping[str, str] | None,
    root: str | Path | None,
    suffix: str | None,
    covariates: Sequence[str] | None,
) -> Listing:
    """Images of a data set that says their classes itself."""
    if data.is_file() and data.suffix.lower() in TABLES:
        return list_csv(
            data, follow_links=follow_links, columns=columns, root=root, suffix=suffix, covariates=covariates
        )
    _refuse_table_options(data, columns, root, suffix, covariates)
    is_array = data.is_file() and data.suffix.lower() in ARRAYS and not other_kind_of(data)
    return _list_arrays(data) if is_array else _list_folder(data, follow_links=follow_links)


def _list_folder(data: Path, *, follow_links: bool) -> Listing:
    if data.is_dir():
        try:
            return list_folder(data, follow_links=follow_links)
        except ManifestError as error:
            raise _of_another_kind(data) or error from error
    if other := _of_another_kind(data):
        raise other
    what = "is no folder, table or file of arrays" if data.exists() else "does not exist"
    raise ManifestError(
        f"The data set {str(data)!r} {what}.",
        "Give a folder with one folder per class, or a CSV file with the columns path,label.",
    )


def _of_another_kind(data: Path) -> ManifestError | None:
    """What a data set is in place of one, and how it becomes one; None where that cannot be told."""
    other = other_kind_of(data)
    return other and ManifestError(f"The data set {str(data)!r} is {other.what}.", other.remedy)


_ARRAY_REMEDIES = {
    "too_large": "Save its pictures in smaller files below one folder per class, or each as PNG:"
    " for n, p in enumerate(numpy.load(FILE)['train_images']): PIL.Image.fromarray(p).save(f'{n}.png')",
    "unsupported": "Save pictures and classes as train_images, train_labels, test_images, test_labels in one .npz or"
    " .h5; or give a folder with one folder per class.",
}


def _list_arrays(data: Path) -> Listing:
    """A file of arrays, which says the class of each of its pictures."""
    try:
        table = npz.read_table(data)
    except BadImageError as error:
        remedy = _ARRAY_REMEDIES.get(error.reason, REASONS[error.reason])
        raise ManifestError(f"{str(data)!r} cannot be a data set: {error.detail}", remedy) from error
    except OSError as error:
        raise ManifestError(f"{str(data)!r} cannot be read: {error.strerror}.", "Check the file.") from error
    entry = ListedFile(data.name, data, label="", pages=table)
    return Listing(data.parent, (entry,), has_groups=bool(table.groups))


def _refuse_impossible(data: Path) -> None:
    """Refuse a name that no file can have; of one that is not there, or not to be read, the listing says so."""
    try:
        data.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ManifestError(f"{str(data)[:100]!r} cannot be a data set: {why}.", "Check its path.") from error


def _refuse_table_options(data: Path, *options: object) -> None:
    for name, value in zip(TABLE_OPTIONS, options, strict=True):
        if value:
            raise ManifestError(
                f"--{name} is for a CSV file, and {str(data)!r} is none.",
                f"Leave out --{name}, or give the CSV file.",
            )


def _with_groups(listing: Listing, pattern: str, table: LabelTable | None = None) -> Listing:
    if any(entry.pages for entry in listing.entries):
        raise ManifestError(
            "--group-pattern is for paths, and a file of arrays has one.",
            "Save the patient of each picture beside the labels, as train_groups and so on, or leave it out.",
        )
    if listing.has_groups or (table is not None and table.has_groups):
        raise ManifestError(
            "There is a group column and a group pattern.",
            "Leave out --group-pattern, or rename the column group in the CSV file.",
        )
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise ManifestError(
            f"The group pattern {pattern!r} is no regular expression: {error}.", "Mend it."
        ) from error
    if not regex.groups:
        raise ManifestError(
            f"The group pattern {pattern!r} captures nothing.", r"Put the patient in parentheses: '(p\d+)_'."
        )
    entries = tuple(replace(entry, group=_group_of(entry, regex)) for entry in listing.entries)
    if lost := [entry.name for entry in entries if not entry.group]:
        raise ManifestError(
            f"The group pattern {pattern!r} finds no group in {len(lost)} of {len(entries)} paths, such as"
            f" {lost[0]!r}.",
            r"Widen it, for instance by a second pattern behind a bar, 'patient(\d+)|case(\d+)', or name the groups"
            " in a CSV file with a group column.",
        )
    return replace(listing, entries=entries, has_groups=True)


def _group_of(entry: ListedFile, regex: re.Pattern[str]) -> str:
    """What the first group of the pattern that took part has matched; empty where there is none."""
    match = regex.search(entry.name)
    return next((text for text in match.groups() if text is not None), "") if match else ""


def _once_by_real_path(entries: Sequence[ListedFile]) -> list[ListedFile]:
    """Drop links to a file that is listed anyway with the same meaning; other links stay, for the audit."""
    kept: dict[tuple[str, str, str | None, str | None], ListedFile] = {}
    for entry in sorted(entries, key=lambda entry: entry.real is not None):
        real = entry.real or os.path.realpath(entry.path)
        kept.setdefault((real, entry.label, entry.split, entry.group), entry)
    return sorted(kept.values(), key=lambda entry: entry.name)


def _once_by_id(images: Iterable[tuple[ListedFile, Contents]]) -> tuple[list[ImageRecord], list[ImageRecord]]:
    records: dict[str, ImageRecord] = {}
    copies: list[ImageRecord] = []
    for entry, contents in images:
        rows = contents.rows or contents.frames
        table = [entry] * contents.pages if entry.pages is None else [*_pictures([entry])]
        pictures = table if entry.pages is None else [table[row] for row in rows]
        for image_id, frame, row, picture in zip(contents.ids, contents.frames, rows, pictures, strict=True):
            own = page_id(contents.digest, row) if contents.rows else image_id
            group = picture.group or (own if entry.pages else contents.digest)
            record = ImageRecord(
                image_id,
                picture.path,
                picture.label,
                group,
                picture.split,
                picture.site,
                frame,
                picture.covariates,
            )
            if records.setdefault(image_id, record) is not record:
                copies.append(record)
    return list(records.values()), copies


def _pictures(entries: Iterable[ListedFile]) -> Iterator[ListedFile]:
    """Files, with those of arrays that are data sets taken apart into their pictures."""
    for entry in entries:
        if entry.pages is None:
            yield entry
            continue
        labels, splits, groups = entry.pages
        for label, split, group in zip(labels, splits, groups or [None] * len(labels), strict=True):
            yield replace(entry, label=label, split=split, group=group)


def _merge_groups(
    records: list[ImageRecord], copies: list[ImageRecord], *, has_groups: bool
) -> tuple[list[ImageRecord], list[ImageRecord], tuple[Finding, ...]]:
    """Take groups for one that share a file, or are spelled alike: a patient under two names is one patient."""
    files = [*records, *copies]
    merged = merged_groups((file.group, file.id) for file in files) if has_groups else {}
    if not merged:
        return records, copies, ()
    examples = tuple(f"{old!r} is taken for {new!r}" for old, new in sorted(merged.items()))
    message = (
        f"{counted(len(merged), 'group (patient) was', 'groups (patients) were')} merged with one that shares a file,"
        " or is called the same but for capitals, accents and spaces."
    )
    records, copies = (
        [replace(file, group=merged.get(file.group, file.group)) for file in rows]
        for rows in (records, copies)
    )
    return records, copies, (Finding("FS103", message, len(merged), examples),)


def _findings(
    images: Sequence[tuple[ListedFile, Contents]],
    records: Sequence[ImageRecord],
    copies: Sequence[ImageRecord],
) -> Iterable[Finding]:
    labels = {record.id: record.label for record in records}
    if same := list(dict.fromkeys(str(copy.path) for copy in copies if labels[copy.id] == copy.label)):
        repeats = counted(len(same), "file repeats", "files repeat")
        message = f"{repeats} the bytes of another of the same class; each image is kept once."
        yield Finding("FS302", message, len(same), tuple(same))
    if collisions := _unicode_collisions(entry.name for entry, _ in images):
        message = f"{len(collisions)} names differ only in how accents are encoded (NFC, NFD)."
        yield Finding("FS208", message, len(collisions), tuple(collisions))
    if other := [entry.name for entry, found in images if _is_misnamed(entry.name, found.kind)]:
        files = counted(len(other), "file is", "files are")
        message = f"{files} of another format than the suffix says, and decoded by content."
        yield Finding("FS303", message, len(other), tuple(other))
    yield from findings_of_places((entry.name, found) for entry, found in images)
    yield from findings_of_pages(
        (entry.name, found) for entry, found in images if entry.pages is None or found.rows
    )


def _unicode_collisions(names: Iterable[str]) -> list[str]:
    """Paths that would collide on a file system that normalises, whole or in one of their folders."""
    whole = list(names)

    def parts() -> Iterator[str]:
        return (part for name in whole for part in accumulate(name.split("/"), "{}/{}".format))

    changed = {part for part in parts() if not unicodedata.is_normalized("NFC", part)}
    spellings: dict[str, set[str]] = {unicodedata.normalize("NFC", part): set() for part in changed}
    for part in parts() if changed else ():
        if (spelling := unicodedata.normalize("NFC", part)) in spellings:
            spellings[spelling].add(part)
    return sorted(part for group in spellings.values() if len(group) > 1 for part in group)


def _is_misnamed(name: str, kind: str) -> bool:
    return suffixes().get(PurePosixPath(name).suffix.lower(), kind) != kind


def _nothing_left(data: Path, bad: Sequence[Quarantined]) -> ManifestError:
    if not bad:
        return ManifestError(f"{str(data)!r} holds no images.", "Put the images into one folder per class.")
    if data.is_dir() and (other := _of_another_kind(data)):
        return other
    reasons = sorted({row.reason for row in bad})
    first = bad[0]
    cause = f"None of the {len(bad)} files of {str(data)!r} is an image ({', '.join(reasons)})."
    if "missing" not in reasons:
        return ManifestError(f"{cause} First: {first.path.name!r}. {first.detail}", REASONS[first.reason])
    return ManifestError(
        cause,
        "Check that the data set was downloaded completely, and that paths are relative to the CSV file.",
    )
