"""`write_report`: runs as one HTML file, with what their data set adds where it is at hand."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from featstore.api.check import check
from featstore.arguments import public
from featstore.errors import BackboneError, RunError, UsageError, WeightsError
from featstore.images.reading import decoder_version, read_pixels
from featstore.images.scan import ScanOptions, refuse_unknown_options, scan
from featstore.reporting.figures.style import FORMATS, PRINT_DPI
from featstore.reporting.page.cases import Dataset, MappedCase, MappedCases, mapped_rows, uri
from featstore.reporting.page.report import MARK, compose, render
from featstore.reporting.run_record import RunRecord, read_records
from featstore.reporting.verdict import approximation_text
from featstore.results.fusion import Fusion
from featstore.runs import RUN, exclusive_access
from featstore.serialization import SHORT_DIGITS, open_regular, write_private
from featstore.tables import printable
from featstore.types import Decoding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featstore.reporting.figures.style import Format
    from featstore.reporting.page.report import Page

REPORT_FILE = "report.html"
HEAD = 1024
"""Bytes within which a report says that it is one."""


@public
def write_report(
    runs: Sequence[str | Path] | str | Path,
    out: str | Path | None = None,
    data: str | Path | None = None,
    cache: str | Path | None = None,
    *,
    with_images: bool = False,
    weights: Mapping[str, str] | None = None,
    names: bool = False,
    figures: str | Path | None = None,
    formats: Sequence[str] = FORMATS,
    dpi: int = PRINT_DPI,
    overwrite: bool = False,
    **reading: Unpack[ScanOptions],
) -> Path:
    """Write a report of one or more runs: one HTML file, offline, for its owner alone.

    Equal runs and equal data give equal bytes.

    Parameters
    ----------
    runs
        Folders of `featstore.extract`, `featstore.fuse` and `featstore.compare`; of several, the scored ones are set
        side by side.
    out
        The file; default ``report.html`` in the folder of the first run.
    data
        What the runs were made from. With it the report has the audit of `featstore.check`, the images by split and
        class, and a map of the features.
    cache
        Where the features are, for that map, and what the images show, for the audit; default
        as for `featstore.extract`.
    with_images
        Show thumbnails of the cases answered wrong, which needs `data`, and those figures of a reproduction that show
        images. Of a fit whose head is linear, also where the evidence lies (`featstore.explain`) in the surest wrong
        answers and in as many right ones, drawn at random; its networks are loaded for that. The file then holds
        pictures of patients.
    weights
        For these maps, where the weights of the networks are: as for `featstore.predict`.
    names
        Write the file of each case answered wrong beside it, which needs `data`. Such a report is for the owner of
        the data alone: names of files often name patients.
    figures
        Folder into which every figure is written as a file of its own, for a manuscript, with ``captions.txt``, which
        says in words what each shows. It is made if need be.
    formats
        Of these files: ``pdf``, ``png``, ``svg``, one or several.
    dpi
        Dots per inch of a PNG, 72 to 1200.
    overwrite
        Replace a file that is no report of featstore, and figures that show something else.
    **reading
        How `data` is read: see `featstore.images.scan.ScanOptions`.

    Returns
    -------
    The file.

    Raises
    ------
    UsageError
        If `out` is something else than a report, `data` is not what any of the runs saw, there is no such format, or
        a file in `figures` would be lost.
    RunError
        If a run is damaged, or the disk refuses.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity")
    >>> _ = featstore.fuse(data, positive="covid", out="runs/fuse", overwrite=True)
    >>> page = featstore.write_report("runs/fuse", "fuse.html", data, overwrite=True)
    >>> page.read_text("utf-8").startswith("<!")
    True
    """
    refuse_unknown_options(reading)
    folders = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    records = read_records(folders)
    if with_images and data is None and not any(record.kind == "paper" for record in records):
        raise UsageError("Thumbnails need the images.", "Add --data DATA, or leave out --with-images.")
    if names and data is None:
        raise UsageError("Names of files need the data set.", "Add --data DATA, or leave out --names.")
    kinds = _formats(formats, dpi)
    target = Path(out) if out is not None else folders[0] / REPORT_FILE
    _require_free(target, overwrite=overwrite)
    store = None if cache is None else Path(cache)
    dataset = None if data is None else read_dataset(Path(data), records, store, **reading)
    shown = dataset if with_images else None
    evidence = (
        {}
        if shown is None
        else {r.name: found for r in records if (found := mapped_cases(r, shown, weights or {}))}
    )
    page = compose(records, dataset, store, with_images=with_images, names=names, evidence=evidence)
    if figures is not None:
        _write_figures(page, Path(figures), kinds, dpi, overwrite=overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_access(target.parent) if (target.parent / RUN).exists() else nullcontext():
            write_private(target, render(page).encode())
    except OSError as error:
        raise RunError(f"Cannot write {target}: {error.strerror}.", "Choose another --out.") from error
    return target


# Figures as files


CAPTIONS = "captions.txt"
LEAST_DPI, MOST_DPI = 72, 1200


def _formats(formats: Sequence[str], dpi: int) -> list[Format]:
    wanted = list(formats)
    strange = next((one for one in wanted if one not in FORMATS), None)
    if strange is not None or not wanted:
        raise UsageError(f"Figures cannot be written as {strange or 'nothing'!r}.", "--format pdf,png,svg")
    if not LEAST_DPI <= dpi <= MOST_DPI:
        raise UsageError(f"{dpi} dots per inch are not {LEAST_DPI} to {MOST_DPI}.", "--dpi 300")
    return [kind for kind in FORMATS if kind in wanted]


def _write_figures(page: Page, folder: Path, kinds: Sequence[Format], dpi: int, *, overwrite: bool) -> None:
    """Write every figure of a page in every format, and what they show in words."""
    several = len(page.parts) > 1
    drawings = [
        picture if several else replace(picture, name=picture.name.removeprefix(f"{page.parts[0].anchor}-"))
        for picture in page.drawings
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        words = "\n\n".join(f"{picture.name}\n{picture.title}\n{picture.alt}" for picture in drawings)
        _write_figure(folder / CAPTIONS, f"{words}\n".encode(), overwrite=overwrite)
        for picture in drawings:
            for kind in kinds:
                path = folder / f"{picture.name}.{kind}"
                _write_figure(path, picture.document(kind, dpi), overwrite=overwrite)
    except OSError as error:
        raise RunError(f"Cannot write {folder}: {error.strerror}.", "Choose another --figures.") from error


def _write_figure(path: Path, data: bytes, *, overwrite: bool) -> None:
    """Write a file, unless something else is there that nobody said could go."""
    is_taken = path.exists() or path.is_symlink()
    if is_taken and not overwrite and not (path.is_file() and path.read_bytes() == data):
        raise UsageError(
            f"{path} is there already, and shows something else.",
            "Choose another --figures, or add --overwrite.",
        )
    write_private(path, data)


def _require_free(target: Path, *, overwrite: bool) -> None:
    """A report takes the place of an earlier one, since it can be made again; of nothing else without being told."""
    if target.is_dir():
        raise UsageError(f"{target} is a folder.", "Name a file: --out report.html.")
    if overwrite or not (target.exists() or target.is_symlink()):
        return
    try:
        with open_regular(target) as file:
            is_report = MARK.encode() in file.read(HEAD)
    except OSError:
        is_report = False
    if not is_report:
        raise UsageError(
            f"{target} is there already, and no report.", "Choose another --out, or add --overwrite."
        )


# Of the data set itself: audit, counts, thumbnails, vectors.


def read_dataset(
    data: Path, records: Sequence[RunRecord], cache: Path | None, **reading: Unpack[ScanOptions]
) -> Dataset:
    """Look at a data set that runs were made from, and once at each file; the cache may know what they show.

    Raises
    ------
    UsageError
        If none of the runs saw this table.
    """
    ranges = [(record.matrix.get("decoding") or {}).get("value_range") for record in records]
    window = next((tuple(found) for found in ranges if found), None)
    manifest = scan(data, **reading)
    audit = check(manifest, value_range=window, cache=cache)
    bad = {path for path, _, _ in audit.bad}
    images = {record.id: record for record in manifest.records if str(record.path) not in bad}
    found = Dataset(manifest, audit, images, Decoding(decoder_version(), value_range=window))
    if not any(found.is_of(record) for record in records):
        raise UsageError(
            f"None of the runs was made from {data} as it is now (other images, labels, groups or splits).",
            "Give the DATA of the run, with its --group-pattern and --columns, or leave out --data.",
        )
    return found


# Where the evidence lies

STRONGEST_SHARE = 0.99
"""Share of all positions whose evidence is weaker than the strongest colour."""


def mapped_cases(record: RunRecord, dataset: Dataset, weights: Mapping[str, str]) -> MappedCases | None:
    """Maps of a fit's evidence in wrong answers and in right ones, or why there are none; None of other runs."""
    if not isinstance(record.outcome, Fusion) or record.shown is None or not dataset.is_of(record):
        return None
    from featstore.api import explain  # with what loads networks

    answers, classes = record.predictions[record.shown], list(record.matrix["classes"])
    wrong, right = mapped_rows(answers)
    images = {i: dataset.images[i] for row in (*wrong, *right) if (i := answers.ids[row]) in dataset.images}
    try:
        found = explain.explain_records(record.folder, list(images.values()), weights)
    except WeightsError:  # names files, and a report names none
        why = "No map: weights of the networks are not where featstore looks. Name them: --weights NAME=FILE."
        return MappedCases((why,))
    except (UsageError, BackboneError, RunError) as error:
        return MappedCases((f"No map: {printable(error.cause)}",))
    everywhere = np.concatenate([np.abs(one.total).ravel() for one in found.values()] or [np.zeros(1)])
    strongest = float(np.quantile(everywhere, STRONGEST_SHARE))
    about = approximation_text(list(found.values()))

    def case(row: int) -> MappedCase:
        image = answers.ids[row]
        pixels, one = read_pixels(images[image], dataset.decoding), found[image]
        return MappedCase(
            id=image[:SHORT_DIGITS],
            truth=classes[answers.y[row]],
            answer=classes[answers.answered[row]],
            probability=float(answers.proba[row][answers.answered[row]]),
            image=uri(pixels),
            overlay=uri(explain.overlay(pixels, one.total, strongest)),
            words=f"Logit of {one.evidence_for} {one.logit:+.2f}; {one.carried_by or 'no network'} carries it most.",
        )

    groups = [
        (title, tuple(case(row) for row in rows if answers.ids[row] in found))
        for title, rows in (
            ("Answered wrong, the surest first", wrong),
            ("Answered right, drawn at random", right),
        )
    ]
    shown = (
        "Beside each image is what the model used of it: red speaks for the class named, blue against. The mean of"
        f" the map and a constant are the logit, {'about' if about else 'exactly'}; the strongest colours are"
        f" {strongest:.2g} and more, in all pictures."
    )
    careful = "A map says what the model used, not what causes the disease; a cell sees more than itself."
    return MappedCases(
        tuple(filter(None, (about, shown, careful))), tuple(group for group in groups if group[1])
    )
