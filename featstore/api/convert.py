"""`convert`: write what extraction sees as PNG, with a manifest that every command reads."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Unpack

from featstore.arguments import public
from featstore.errors import BadImageError, ManifestError, StoreError, UsageError
from featstore.extraction.pipeline import refuse_undeclared_range
from featstore.images.manifest import findings_of_notes, require_no_errors
from featstore.images.reading import REASONS, decoder_version, read_picture, reserve_for_decoding
from featstore.images.scan import ScanOptions, scan
from featstore.processes import map_ahead, raise_if_requested, threads, track
from featstore.results.extraction import ConvertedImages
from featstore.serialization import PRIVATE_FILE, PRIVATE_FOLDER, write_private
from featstore.types import Decoding

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from featstore.images.manifest import Manifest
    from featstore.types import ImageRecord, Pixels

MANIFEST = "manifest.csv"
SOURCE = "source image of featstore"
"""Key of the text in each PNG that holds the id of the image that it was made from."""
_LOST = frozenset({"FS106", "FS107"})
"""Errors that nobody could find in what is written: of copies in two classes or splits, one would be left."""
_AHEAD = 4
_ID_LETTERS = 20


@public
def convert(
    data: str | Path | Manifest,
    out: str | Path,
    *,
    value_range: tuple[float, ...] | None = None,
    **reading: Unpack[ScanOptions],
) -> ConvertedImages:
    """Decode each image of a data set and write its 8-bit pixels as PNG, as they are before a network resizes them.

    The manifest beside them is a data set: its images have the vectors of `data`, without a range or a window. Their
    views with a seed are others, since those are drawn by the bytes of a file.

    Parameters
    ----------
    data
        A folder, a CSV file, a file of arrays or a `Manifest`.
    out
        A folder that is empty, or not there. It gets ``CLASS/ID.png``, named by the id of the source image and never
        by its path, and ``manifest.csv``, last of all, with the columns ``path,label[,group][,split][,site]`` and
        ``source,page``: the file, and the number of the page in it, from 1. For their owner alone.
    value_range
        ``(low, high)`` of 16-bit and float images; six numbers are three windows, one for each channel.
    **reading
        How the data set is read: see `featstore.images.scan.ScanOptions`.

    Raises
    ------
    AuditError
        If the same bytes have two classes or lie in two splits: one of such copies would be written.
    ManifestError
        If no image can be decoded.
    UsageError
        If `out` holds anything, or an image needs a range.
    StoreError
        If a file cannot be written.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=4, slices=1, size=64)
    >>> done = featstore.convert(data, "converted")
    >>> done.images, len(featstore.scan("converted/manifest.csv").records)
    (4, 4)
    """
    folder = Path(out)
    _refuse_full(folder)
    decoding = Decoding(decoder_version(), value_range=value_range)
    manifest = scan(data, **reading)
    require_no_errors(manifest, codes=_LOST)
    refuse_undeclared_range(manifest.records, decoding)
    folders = _class_folders({record.label for record in manifest.records})
    work = partial(_convert_one, folder, folders, decoding)
    try:
        for name in folders.values():
            (folder / name).mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        with ThreadPoolExecutor(threads()) as pool:
            coming = map_ahead(pool, work, manifest.records, _AHEAD * threads())
            written = []
            for png in track(coming, "convert", "img", len(manifest.records)):
                raise_if_requested()
                written.append(png)
        pairs = list(zip(manifest.records, written, strict=True))
        kept = [(record, png) for record, png in pairs if isinstance(png, _Png)]
        if kept:
            write_private(folder / MANIFEST, _table(manifest, kept))
        else:
            for name in folders.values():
                (folder / name).rmdir()
    except OSError as error:
        raise StoreError(
            f"Cannot write {folder}: {error.strerror or error}",
            "Make room, or choose another place with --out.",
        ) from error
    bad = [(record, png) for record, png in pairs if isinstance(png, BadImageError)]
    if not kept:
        raise _nothing_written(bad)
    return ConvertedImages(
        manifest=str(folder / MANIFEST),
        images=len(kept),
        sources=len({record.path for record, _ in kept}),
        classes=dict(sorted(Counter(record.label for record, _ in kept).items())),
        channels=dict(sorted(Counter(png.channels for _, png in kept).items())),
        size_bytes=sum(png.bytes for _, png in kept),
        bad=(
            *((str(row.path), row.reason, row.detail) for row in manifest.unreadable),
            *((str(record.path), error.reason, error.detail) for record, error in bad),
        ),
        findings=(*manifest.findings, *findings_of_notes((record.path, png.notes) for record, png in kept)),
    )


class _Png(NamedTuple):
    """A file that was written: its path from the manifest, size, grey or colour, and what decoding noted."""

    path: str
    bytes: int
    channels: str
    notes: tuple[str, ...]


def _nothing_written(bad: Sequence[tuple[ImageRecord, BadImageError]]) -> ManifestError:
    record, first = bad[0]
    return ManifestError(
        f"None of the {len(bad)} images can be decoded; nothing was written. First: {str(record.path)!r}:"
        f" {first.reason} ({first.detail})",
        REASONS[first.reason],
    )


def _refuse_full(folder: Path) -> None:
    try:
        is_full = os.path.lexists(folder) and any(folder.iterdir())
    except OSError as error:
        raise UsageError(f"--out {str(folder)!r} is no folder: {error.strerror}.", "Name another.") from error
    if is_full:
        raise UsageError(
            f"{folder} holds files already.", "Choose another --out, or empty that folder first."
        )


def _class_folders(labels: Collection[str]) -> dict[str, str]:
    """A folder for each class: its name without what a file system or a terminal could take amiss, each only once."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for label in sorted(labels):
        plain = "".join(letter if letter.isalnum() or letter in "_-" else "-" for letter in label)[:60].strip(
            "-"
        )
        name = plain or "class"
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{plain or 'class'}-{number}"
        taken.add(name.casefold())
        found[label] = name
    return found


def _convert_one(
    folder: Path, folders: dict[str, str], decoding: Decoding, record: ImageRecord
) -> _Png | BadImageError:
    """Write one image, unless it does not decode."""
    try:
        with reserve_for_decoding(record.path):
            _, pixels, notes = read_picture(record, decoding)
    except BadImageError as error:
        return error
    name = f"{folders[record.label]}/{record.id[:_ID_LETTERS]}.png"
    data = png_bytes(pixels, record.id)
    with os.fdopen(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE), "wb") as file:
        file.write(data)
    return _Png(name, len(data), "grey" if pixels.shape[2] == 1 else "colour", notes)


def png_bytes(pixels: Pixels, image_id: str) -> bytes:
    """Pixels ``(height, width, 1 or 3)`` as a PNG, which tells by a text which image it was made from.

    So pictures that are black throughout, of two patients, are two files as they were before.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    said = PngInfo()
    said.add_text(SOURCE, image_id)
    buffer = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.save(buffer, "PNG", pnginfo=said)
    return buffer.getvalue()


def _table(manifest: Manifest, kept: Sequence[tuple[ImageRecord, _Png]]) -> bytes:
    """The manifest as bytes, with what the data set says; pages of one file stay one group."""
    has_groups = manifest.has_groups or len({record.group for record, _ in kept}) < len(kept)
    optional = {
        "group": has_groups,
        "split": bool(manifest.splits),
        "site": any(record.site is not None for record, _ in kept),
    }
    columns = ["path", "label", *(name for name, is_there in optional.items() if is_there), "source", "page"]
    page = io.StringIO(newline="")
    writer = csv.DictWriter(page, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for record, png in kept:
        writer.writerow(
            {
                "path": png.path,
                "label": record.label,
                "group": _group(manifest, record),
                "split": record.split or "",
                "site": record.site or "",
                "source": _source(manifest.root, record.path),
                "page": record.frame + 1,
            }
        )
    return page.getvalue().encode()


def _group(manifest: Manifest, record: ImageRecord) -> str:
    return record.group if manifest.has_groups else f"file-{record.group[:_ID_LETTERS]}"


def _source(root: Path, path: Path) -> str:
    """Path from the root of the data set, in Unicode."""
    name = path.relative_to(root) if path.is_relative_to(root) else path
    return os.fsencode(name.as_posix()).decode("utf-8", "replace")
