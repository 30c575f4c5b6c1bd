"""`split`: divide a data set into train, val and test, or into folds, and write it as a manifest."""

from __future__ import annotations

import csv
import io
import math
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from featstore.api.check import ReadableImages
from featstore.arguments import public
from featstore.errors import StoreError, UsageError, did_you_mean
from featstore.images.csv import TABLES, other_columns
from featstore.images.manifest import Manifest, require_no_errors
from featstore.images.scan import ScanOptions, scan
from featstore.results.extraction import DataSplit, SplitPart
from featstore.serialization import PRIVATE_FOLDER, write_private
from featstore.splits import draw_parts, group_folds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from featstore.types import ImageRecord

    Rows = NDArray[np.intp]

GROUP, IMAGE = UNITS = ("group", "image")
SIDES = {2: ("train", "test"), 3: ("train", "val", "test")}
"""Names of the parts, by their number."""
USUAL = (60, 20, 20)


@public
def split(
    data: str | Path | Manifest,
    out: str | Path,
    *,
    by: str = GROUP,
    ratios: Sequence[float] | None = None,
    folds: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    **options: Unpack[ScanOptions],
) -> DataSplit:
    """Divide a data set and write the division as a manifest, which every command reads as its data set.

    Whole groups (patients), every class in every part, near the wanted shares of each class. Images are not decoded;
    copies of a file go where the first one goes.

    Parameters
    ----------
    data
        A folder, a CSV file or a `Manifest`. A split of its own is not kept, and that is told.
    out
        The CSV file: ``path,label,group,split[,site]``, paths relative to it, and all other columns of the table that
        `data` is, or the covariates that were named of a table of labels. With `folds`, one for each fold:
        ``split-1.csv`` and so on, in which the fold is ``test`` and the rest ``train``. For their owner alone.
    by
        What stays together: ``group``, or ``image`` where the data set names no groups and each image is a patient.
    ratios
        Of train, val and test, or of train and test, in any unit; default 60, 20, 20.
    folds
        In place of `ratios`: the number of folds.
    seed
        Of the drawing; the same one divides the same images alike.
    overwrite
        Replace files that are there already.
    **options
        How the data set is read: see `featstore.images.scan.ScanOptions`.

    Raises
    ------
    UsageError
        If an option cannot be meant, or a file is there already.
    AuditError
        If the groups cannot be divided so, or the data set contradicts itself.
    StoreError
        If a file cannot be written.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=2, size=64)
    >>> drawn = featstore.split(data, "phantoms/split.csv", ratios=[50, 25, 25], overwrite=True)
    >>> {part.name: part.groups for part in drawn.parts}
    {'train': 8, 'val': 4, 'test': 4}
    >>> featstore.scan("phantoms/split.csv").count_by_split()
    {'test': 8, 'train': 16, 'val': 8}
    """
    target = Path(out)
    shares = _shares(ratios, folds)
    targets = _targets(target, folds, overwrite=overwrite)
    if by not in UNITS:
        raise UsageError(f"--by {by!r} is nothing to divide by.", did_you_mean(by, UNITS))
    found = scan(data, **options)
    manifest = found.with_splits(None)
    require_no_errors(manifest)
    _require_unit(manifest, by)
    _require_whole_files(manifest, by)
    table = ReadableImages.of(manifest.records)
    if folds is None:
        drawn = dict(zip(SIDES[len(shares)], draw_parts(table, shares, seed), strict=True))
        divisions = [drawn]
    else:
        pairs = group_folds(table, folds, seed=seed)
        drawn = {f"fold {number}": test for number, (_, test) in enumerate(pairs, 1)}
        divisions = [{"train": train, "test": test} for train, test in pairs]
    root = _root(manifest, target)
    others = _other_columns(data, manifest, options)
    for path, division in zip(targets, divisions, strict=True):
        page = _text(manifest, table, division, root or target.parent, others, with_groups=by == GROUP)
        _write(path, page)
    parts = zip(drawn.items(), shares, strict=True)
    return DataSplit(
        files=tuple(map(str, targets)),
        by=by,
        seed=seed,
        parts=tuple(_part(table, name, rows, share) for (name, rows), share in parts),
        images=len(table.records),
        root=str(root or ""),
        replaced={side or "none": n for side, n in found.count_by_split().items()} if found.splits else {},
        bad=tuple((str(row.path), row.reason, row.detail) for row in manifest.unreadable),
        findings=manifest.findings,
    )


# What was asked for


def _shares(ratios: Sequence[float] | None, folds: int | None) -> list[float]:
    """Share of each part; they sum to one."""
    if folds is not None:
        if ratios is not None:
            raise UsageError("--ratios and --folds were both given.", "Leave one of them out.")
        if folds < 2:  # noqa: PLR2004
            raise UsageError(f"{folds} folds are no division.", "Use --folds 5.")
        return [1 / folds] * folds
    wanted = list(USUAL if ratios is None else ratios)
    if len(wanted) not in SIDES or not all(math.isfinite(ratio) and ratio > 0 for ratio in wanted):
        text = "/".join(f"{ratio:g}" for ratio in wanted)
        raise UsageError(
            f"--ratios {text} are not the sizes of train and test, or of train, val and test.",
            "Write two or three numbers above zero, such as --ratios 60/20/20 or --ratios 80/20.",
        )
    return [ratio / sum(wanted) for ratio in wanted]


def _require_whole_files(manifest: Manifest, by: str) -> None:
    """A table has a line for each file, so pictures of one file have one class and go to one part."""
    together: dict[Path, set[tuple[str, str]]] = {}
    for record in manifest.records:
        unit = record.group if by == GROUP else record.id
        together.setdefault(record.path, set()).add((record.label, unit))
    if several := [path for path, kinds in together.items() if len(kinds) > 1]:
        raise UsageError(
            f"{several[0]} holds pictures that may go to several parts, and the table has one line for each file.",
            "Write the pictures as files of their own first: featstore convert DATA --out FOLDER",
        )


def _targets(out: Path, folds: int | None, *, overwrite: bool) -> list[Path]:
    if out.suffix.lower() != ".csv":
        raise UsageError(f"--out {str(out)!r} is no CSV file.", "Write for instance --out split.csv")
    if folds is None:
        targets = [out]
    else:
        targets = [out.with_name(f"{out.stem}-{number}{out.suffix}") for number in range(1, folds + 1)]
    there = [path for path in targets if os.path.lexists(path)]
    if there and not overwrite:
        raise UsageError(f"{there[0]} is there already.", "Choose another name, or add --overwrite.")
    return targets


def _require_unit(manifest: Manifest, by: str) -> None:
    """Refuse to divide by patients that nobody named, and to divide patients that somebody did."""
    if by == GROUP and not manifest.has_groups:
        raise UsageError(
            "The data set does not say which images are of one patient (group).",
            r"Say it: --columns group=patient_id in a table, or --group-pattern '(p\d+)' for file names; or say that"
            " every image is another patient: --by image",
        )
    if by == IMAGE and manifest.has_groups:
        raise UsageError(
            "The data set names patients (groups), and --by image would put images of one patient on both sides.",
            "Use --by group, which keeps every patient on one side.",
        )


# What comes out


def _part(table: ReadableImages, name: str, rows: Rows, share: float) -> SplitPart:
    labels = Counter(table.y[rows].tolist())
    return SplitPart(
        name=name,
        wanted=share,
        images=len(rows),
        groups=len(set(table.groups[rows].tolist())),
        classes={label: labels[number] for number, label in enumerate(table.classes)},
    )


def _root(manifest: Manifest, out: Path) -> Path | None:
    """Where paths have to begin; None where they can begin in the folder of the file, as is usual."""
    inside = os.path.realpath(out.parent), os.path.realpath(manifest.root)
    lies_below = os.path.commonpath(inside) == inside[0]
    if lies_below and manifest.root.absolute().is_relative_to(out.parent.absolute()):
        return None
    return manifest.root.absolute()


def _other_columns(
    data: str | Path | Manifest, manifest: Manifest, options: ScanOptions
) -> tuple[list[str], dict[Path, Sequence[str]]]:
    """Names of the further columns of the data set's table, such as age, and the cells of each file."""
    if not isinstance(data, Manifest) and Path(data).is_file() and Path(data).suffix.lower() in TABLES:
        asked = {name: options.get(name) for name in ("columns", "root", "suffix")}
        names, cells = other_columns(Path(data), **asked)  # type: ignore[arg-type]
        return names, {file.path: cells[_inside(file.path, manifest.root)] for file in manifest.files}
    return list(manifest.covariates), {file.path: file.covariates for file in manifest.files}


def _inside(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _text(
    manifest: Manifest,
    table: ReadableImages,
    division: Mapping[str, Rows],
    base: Path,
    others: tuple[list[str], dict[Path, Sequence[str]]],
    *,
    with_groups: bool,
) -> bytes:
    """The manifest as bytes: a line for each file, copies and all."""
    sides = {table.records[row].id: side for side, rows in division.items() for row in rows.tolist()}
    files = {file.path: file for file in manifest.with_splits(sides).files}
    names = {_name(path, base): file for path, file in files.items()}
    has_site = any(file.site is not None for file in files.values())
    columns = ["path", "label", *(["group"] if with_groups else []), "split", *(["site"] if has_site else [])]
    page = io.StringIO(newline="")
    writer = csv.writer(page, lineterminator="\n")
    further, cells = others
    writer.writerow([*columns, *further])
    writer.writerows(
        [*_cells(name, names[name], columns), *cells[names[name].path]] for name in sorted(names)
    )
    return page.getvalue().encode()


def _cells(name: str, file: ImageRecord, columns: Sequence[str]) -> list[str]:
    cells = {"path": name, "label": file.label, "group": file.group, "split": file.split, "site": file.site}
    return [cells[column] or "" for column in columns]


def _name(path: Path, base: Path) -> str:
    name = path.absolute().relative_to(base.absolute()).as_posix()
    if not name.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in name):
        raise UsageError(
            f"The name {name!r} is no Unicode, and a CSV file cannot hold it.", "Rename that file or folder."
        )
    return name


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        write_private(path, data)
    except OSError as error:
        raise StoreError(
            f"Cannot write {path}: {error.strerror or error}",
            "Make room, or choose another place with --out.",
        ) from error
