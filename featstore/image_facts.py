"""Facts of the images of a data set, found without a network, and images that were learned from already.

A fact follows from the bytes of the file and the way of decoding alone, like a feature vector: it is taken from the
cache, else from the file, and kept for the next command. Facts are what shortcuts and odd files are found by. Copies
are found by miniatures, which are pictures of patients and are never kept. Images that were learned from are
recognised by their bytes, their pixels or their patient's name.
"""

from __future__ import annotations

import io
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from featstore.errors import BadImageError
from featstore.findings import Finding
from featstore.images import reading
from featstore.images.augment import resize
from featstore.images.formats import container
from featstore.images.manifest import findings_of_notes
from featstore.images.near_copies import SIDE, Miniatures, find_copies
from featstore.images.reading import WARNINGS
from featstore.processes import map_ahead, threads
from featstore.serialization import digest
from featstore.store.notes import CopiesNote, record_copies, record_facts, recorded_copies, recorded_facts
from featstore.store.training_record import KnownImages, salt_of, salted_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.types import Decoding, ImageRecord, Pixels

    Seen = tuple[NDArray[np.void], Pixels] | BadImageError
    Way = Literal["file", "pixels", "group"]

# Facts: the file, its grey levels, and what decoding it noted

FACTS_REVISION = 2
"""Raised when a fact is computed otherwise, or another is added."""
BINS = 16
GRID = 10
"""Cells along each side of a picture; the outer ones, a tenth of the picture at each side, are its border."""
LEAST_BACKGROUND = 0.01
"""Share of a picture that lies outside the body, below which there is no background to speak of."""
QUANTILES = (5, 25, 50, 75, 95)
ROUNDING = 1e-3
_COUNTED = 1 << 22  # values that are counted in one go
MODES = ("", "1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F")
NOTES = tuple(sorted(WARNINGS))

FACT = np.dtype(
    [
        ("id", "S32"),
        ("pixels", "S32"),
        ("bytes", "<u8"),
        ("width", "<u4"),
        ("height", "<u4"),
        ("channels", "u1"),
        ("kind", "u1"),
        ("mode", "u1"),
        ("notes", "<u4"),
        ("histogram", "<f4", (BINS,)),
        ("outside", "u1"),
        ("border", "u1", (2, 4 * GRID - 4)),
        ("background", "u1", (len(QUANTILES) + 2 + BINS,)),
    ]
)
"""One image: id and SHA-256 of its pixels (32 bytes each), the file's head, grey histogram.

Of what is outside the lungs: 1 where it was looked at, mean and deviation of each cell of the border, and grey levels
of the background (`background_of`).
"""
BEFORE = np.dtype(FACT.descr[:-3])
"""The form of revision 1, which knows nothing of border and background."""


def compute_facts(record: ImageRecord, decoding: Decoding) -> tuple[NDArray[np.void], Pixels]:
    """Read one image and note what it shows.

    Parameters
    ----------
    record
        The image.
    decoding
        How its bytes become pixels.

    Returns
    -------
    Array of shape ``()`` and dtype `FACT`, and a grey miniature ``(SIDE, SIDE)`` uint8.

    Raises
    ------
    BadImageError
        As for `featstore.images.reading.read_picture`.
    """
    data, pixels, notes = reading.read_picture(record, decoding)
    height, width, channels = pixels.shape
    row = np.zeros((), FACT)
    row["id"] = bytes.fromhex(record.id)
    row["pixels"] = reading.pixel_digest(pixels)
    row["bytes"], row["width"], row["height"], row["channels"] = len(data), width, height, channels
    row["kind"], row["mode"] = (
        container.format_number(container.identify_format(data[: container.HEAD])),
        _position(MODES, _stored_mode(data)),
    )
    row["notes"] = sum(1 << NOTES.index(note) for note in notes)
    row["histogram"] = _counts(pixels) / pixels.size
    miniature: Pixels = np.rint(resize(pixels, SIDE).mean(axis=2)).astype(np.uint8)
    row["outside"], row["border"], row["background"] = 1, border_of(pixels), background_of(miniature)
    return row, miniature


def _counts(pixels: Pixels) -> NDArray[np.intp]:
    """Values by bin; NumPy makes eight bytes of each that it counts, so only some rows at a time."""
    rows = max(1, _COUNTED * len(pixels) // pixels.size)
    parts = (pixels[top : top + rows].ravel() // (256 // BINS) for top in range(0, len(pixels), rows))
    counts: NDArray[np.intp] = np.sum([np.bincount(part, minlength=BINS) for part in parts], axis=0)
    return counts


def border_of(pixels: Pixels) -> Pixels:
    """Grey levels of the outer frame of a picture, a tenth at each side: not a pixel further in is looked at.

    Parameters
    ----------
    pixels
        ``(height, width, channels)`` uint8.

    Returns
    -------
    ``(2, 36)`` uint8: mean and standard deviation of each outer cell of a grid of 10 by 10, the top row first, then
    the bottom row, the left and the right column.
    """
    height, width = pixels.shape[:2]
    down, right = (np.arange(GRID + 1) * side // GRID for side in (height, width))
    inner = slice(down[1], max(down[-2], down[1] + 1))
    strips = [
        (pixels[: max(1, down[1])], 1, right[:-1]),
        (pixels[min(down[-2], height - 1) :], 1, right[:-1]),
        (pixels[inner, : max(1, right[1])], 0, down[1:-2] - down[1]),
        (pixels[inner, min(right[-2], width - 1) :], 0, down[1:-2] - down[1]),
    ]
    moments = []
    for strip, axis, starts in strips:
        grey = strip[..., 0].astype(np.float32)
        for channel in range(1, strip.shape[2]):
            grey += strip[..., channel]
        grey /= strip.shape[2]
        at = np.minimum(starts, grey.shape[axis] - 1)
        one, two = ("ij->j", "ij,ij->j") if axis else ("ij->i", "ij,ij->i")
        sums = [np.add.reduceat(np.einsum(one, grey), at), np.add.reduceat(np.einsum(two, grey, grey), at)]
        counts = np.add.reduceat(np.full(grey.shape[axis], grey.shape[1 - axis]), at)
        moments.append(np.array(sums) / counts)
    mean, square = np.concatenate(moments, axis=1)
    border: Pixels = np.rint([mean, np.sqrt(np.maximum(square - mean**2, 0))]).clip(0, 255).astype(np.uint8)
    return border


def background_of(miniature: Pixels) -> Pixels:
    """Grey levels outside the body; where the body is, and how large, is not in them.

    The body is the largest connected part that is brighter than Otsu's threshold (IEEE Transactions on Systems, Man,
    and Cybernetics 9, 1979), with all that lies between two of its points in a row or a column, as lungs do, and a
    rim of one point.

    Parameters
    ----------
    miniature
        ``(SIDE, SIDE)`` uint8.

    Returns
    -------
    ``(23,)`` uint8: five quantiles, mean and standard deviation of the points outside, and the share of them (of 255)
    in each of 16 bins of grey levels. All zero where less than a hundredth of the picture is outside.
    """
    from scipy.ndimage import binary_dilation, label

    found, count = label(miniature > _threshold(miniature))
    described: Pixels = np.zeros(FACT["background"].shape, np.uint8)
    if not count:
        return described
    body = found == 1 + int(np.argmax(np.bincount(found.ravel())[1:]))
    between = [
        np.logical_or.accumulate(body, axis)
        & np.flip(np.logical_or.accumulate(np.flip(body, axis), axis), axis)
        for axis in (0, 1)
    ]
    outside = miniature[~binary_dilation(between[0] | between[1], np.ones((3, 3), bool))]
    if len(outside) < LEAST_BACKGROUND * miniature.size:
        return described
    shares = np.bincount(outside // (256 // BINS), minlength=BINS) / len(outside)
    described[:] = np.rint(
        [*np.percentile(outside, QUANTILES), outside.mean(), outside.std(), *(255 * shares)]
    )
    return described


def _threshold(picture: Pixels) -> int:
    """Grey level that divides the points into two classes of the largest variance between them (Otsu 1979)."""
    counts = np.bincount(picture.ravel(), minlength=256).astype(np.float64)
    below, first = np.cumsum(counts), np.cumsum(counts * np.arange(256))
    above = below[-1] - below
    both = (below > 0) & (above > 0)
    between = np.zeros(256)
    between[both] = (first[-1] * below[both] - below[-1] * first[both]) ** 2 / (below[both] * above[both])
    return int(np.argmax(between))


def outside_columns(facts: NDArray[np.void]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """What is known of border and background as columns ``(n, 72)`` and ``(n, 23)``; None if not of every image.

    Where a picture has no background its row is the mean of the others: that it has none, as the share of the body
    elsewhere, tells of the body.
    """
    if not len(facts) or not facts["outside"].all():
        return None
    border = facts["border"].reshape(len(facts), -1).astype(np.float64)
    background = facts["background"].astype(np.float64)
    some = background[:, len(QUANTILES) + 2 :].any(axis=1)
    if some.any():
        background[~some] = background[some].mean(axis=0)
    return border, background


def widened(rows: NDArray[np.void]) -> NDArray[np.void]:
    """Rows of dtype `BEFORE` as rows of `FACT` whose border and background are not known."""
    wide = np.zeros(len(rows), FACT)
    for name in BEFORE.names or ():
        wide[name] = rows[name]
    return wide


def plausible(facts: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which rows ``(n,)`` can be facts of an image at all: they may come from somebody else's cache."""
    sizes = (facts["bytes"] > 0) & (facts["width"] > 0) & (facts["height"] > 0) & (facts["kind"] > 0)
    shares = facts["histogram"]
    whole: NDArray[np.bool_] = sizes & (shares >= 0).all(axis=1) & (np.abs(shares.sum(axis=1) - 1) < ROUNDING)
    return whole


def notes_of(row: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Keys of `featstore.images.reading.WARNINGS` that decoding this image gave."""
    return tuple(note for bit, note in enumerate(NOTES) if int(row["notes"]) >> bit & 1)


def file_columns(facts: NDArray[np.void]) -> NDArray[np.float64]:
    """What is known of the files without looking at a picture, as columns ``(n, features)``.

    Bytes, width, height and bytes per pixel on a logarithmic scale; channels; format and stored mode as 0 and 1.
    """
    size, width, height = (facts[name].astype(np.float64) for name in ("bytes", "width", "height"))
    columns = [
        np.log(size),
        np.log(width),
        np.log(height),
        np.log(size / (width * height)),
        facts["channels"],
    ]
    columns += [facts["kind"] == kind for kind in np.unique(facts["kind"])]
    columns += [facts["mode"] == mode for mode in np.unique(facts["mode"])]
    return np.column_stack(columns).astype(np.float64)


def _stored_mode(data: bytes) -> str:
    """Colour mode that the header names, where Pillow reads it."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.mode
    except Exception:  # noqa: BLE001 - it has been decoded; what its header is called is no reason to fail
        return ""


def _position(names: tuple[str, ...], name: str) -> int:
    return names.index(name) if name in names else 0


# Facts of a data set, and pairs of images that show the same picture

AHEAD = 8
"""Images that each thread looks at before the first of them is asked for."""
COPIES_REVISION = 2
"""Raised when copies are found otherwise."""
LOOK, AGAIN = "look", "look again, for border and background"
"""What a bar says: the latter where an earlier version has looked at all of them."""


class CopyPair(NamedTuple):
    """Ids of two images that show the same picture, how alike they are (1 for equal), and in what way."""

    first: str
    second: str
    similarity: float
    how: str


@dataclass(frozen=True, slots=True)
class CopiesFound:
    """Images that show the same picture.

    Attributes
    ----------
    pairs
        The most alike first.
    crowded, left
        What was not looked at closely: see `featstore.images.near_copies.Copies`.
    """

    pairs: tuple[CopyPair, ...] = ()
    crowded: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class FactTable:
    """What the images of a data set show without a network.

    Attributes
    ----------
    records
        The images whose facts are known, in the order of the data set.
    rows
        ``(len(records),)`` of dtype `FACT`.
    bad
        The others, by id: reason and detail.
    miniatures
        Of those that were read just now, by row. They are pictures of patients, and nowhere kept.
    """

    records: tuple[ImageRecord, ...]
    rows: NDArray[np.void]
    bad: Mapping[str, tuple[str, str]]
    miniatures: Miniatures


def image_facts(
    records: Sequence[ImageRecord], decoding: Decoding, cache: Path | None = None, *, progress: bool = False
) -> FactTable:
    """Look at every image once, and at none whose facts are in the cache.

    Facts that an earlier version kept lack border and background: such an image is looked at again, and where its
    file is gone they stay unknown.

    Parameters
    ----------
    records
        Images; their files must be where the records say, unless their facts are known.
    decoding
        How bytes become pixels.
    cache
        Where facts are kept; None keeps none.
    progress
        Show a bar on stderr while files are read.
    """
    rows, known = np.zeros(len(records), FACT), np.zeros(len(records), bool)
    if cache is not None:
        kept = recorded_facts(cache, decoding, FACTS_REVISION, FACT)
        at, found = _rows_of(records, kept[plausible(kept)])
        rows[at], known[at] = found, True
    missing = np.flatnonzero(~known).tolist()
    if cache is not None and missing:
        at, found = _rows_of([records[row] for row in missing], _rows_before(cache, decoding))
        at = np.array(missing, np.intp)[at]
        rows[at], known[at] = found, True
    again = bool(missing) and bool(known[missing].all())
    bad: dict[str, tuple[str, str]] = {}
    miniatures = Miniatures.room_for(len(records))
    for row, seen in _stream_facts(
        missing, records, decoding, progress=progress, doing=AGAIN if again else LOOK
    ):
        if isinstance(seen, BadImageError):
            if not known[row]:
                bad[records[row].id] = seen.reason, seen.detail
        else:
            rows[row], known[row] = seen[0], True
            miniatures.put(row, seen[1])
    if cache is not None and miniatures.flush().known.any():
        record_facts(cache, decoding, FACTS_REVISION, rows[miniatures.known])
    if known.all():
        return FactTable(tuple(records), rows, bad, miniatures.flush())
    good = np.flatnonzero(known)
    return FactTable(tuple(records[row] for row in good.tolist()), rows[good], bad, miniatures.only(good))


def _rows_before(cache: Path, decoding: Decoding) -> NDArray[np.void]:
    """What an earlier version kept, without border and background."""
    kept = widened(recorded_facts(cache, decoding, 1, BEFORE))
    return kept[plausible(kept)]


def image_copies(
    facts: FactTable,
    groups: Sequence[str],
    decoding: Decoding,
    cache: Path | None = None,
    *,
    progress: bool = False,
) -> CopiesFound:
    """Find pairs of images of different groups that show the same picture, once for each data set.

    Parameters
    ----------
    facts
        The images.
    groups
        ``(n,)`` patient (group) of each of them.
    decoding, cache, progress
        As for `image_facts`. What is kept are ids, never a picture.
    """
    ids = [record.id for record in facts.records]
    sides = {group: at for at, group in enumerate(dict.fromkeys(groups))}
    key = {
        "revision": COPIES_REVISION,
        "decoding": digest(asdict(decoding)),
        "images": digest([[image, sides[group]] for image, group in zip(ids, groups, strict=True)]),
    }
    kept = None if cache is None else recorded_copies(cache, key)
    if kept is not None and {image for pair in kept.pairs for image in pair[:2]} <= set(ids):
        return CopiesFound(tuple(CopyPair(*pair) for pair in kept.pairs), kept.crowded, kept.left)
    found = _find_copies(facts, groups, decoding, progress=progress)
    if cache is not None:
        record_copies(cache, key, CopiesNote(found.pairs, found.crowded, found.left))
    return found


def _find_copies(
    facts: FactTable, groups: Sequence[str], decoding: Decoding, *, progress: bool
) -> CopiesFound:
    """Look at those images again that were not read just now, and compare each with the likest others."""
    small = facts.miniatures
    for row, seen in _stream_facts(
        np.flatnonzero(~small.known).tolist(), facts.records, decoding, progress=progress
    ):
        if not isinstance(seen, BadImageError):
            small.put(row, seen[1])

    def read(rows: Sequence[int]) -> dict[int, Pixels]:
        found = _stream_facts(rows, facts.records, decoding, progress=False)
        return {row: seen[1] for row, seen in found if not isinstance(seen, BadImageError)}

    found = find_copies(small, facts.rows["pixels"], groups, read=read, progress=progress)
    ids = [record.id for record in facts.records]
    pairs = [CopyPair(ids[p.first], ids[p.second], round(p.similarity, 4), p.how) for p in found.pairs]
    return CopiesFound(tuple(pairs), found.crowded, found.left)


def _stream_facts(
    rows: Sequence[int],
    records: Sequence[ImageRecord],
    decoding: Decoding,
    *,
    progress: bool,
    doing: str = LOOK,
) -> Iterator[tuple[int, Seen]]:
    """Look at these images, a few ahead of what is asked for: what is found does not pile up."""
    from tqdm import tqdm

    with (
        ThreadPoolExecutor(threads()) as pool,
        tqdm(total=len(rows), desc=doing, disable=not (progress and rows), unit="img") as bar,
    ):
        look = map_ahead(pool, lambda row: _facts_of(records[row], decoding), rows, AHEAD * threads())
        for row, seen in zip(rows, look, strict=True):
            yield row, seen
            bar.update()


def notes_found(facts: FactTable) -> tuple[Finding, ...]:
    """What decoding noted about the images, counted."""
    noted = [(record.path, notes_of(row)) for record, row in zip(facts.records, facts.rows, strict=True)]
    return findings_of_notes(noted)


def _facts_of(record: ImageRecord, decoding: Decoding) -> Seen:
    try:
        with reading.reserve_for_decoding(record.path):
            return compute_facts(record, decoding)
    except BadImageError as error:
        return error


def _rows_of(
    records: Sequence[ImageRecord], kept: NDArray[np.void]
) -> tuple[NDArray[np.intp], NDArray[np.void]]:
    """Places of the images that are known, and the facts of each; `kept` is in the order of ids."""
    ids = np.array([bytes.fromhex(record.id) for record in records], FACT["id"])
    at = np.searchsorted(kept["id"], ids)
    at[at == len(kept)] = 0
    known = np.flatnonzero(kept["id"][at] == ids) if len(kept) else np.zeros(0, np.intp)
    return known, kept[at[known]]


# Images that were learned from already

WIDTH = 32
WAYS: dict[Way, str] = {
    "file": "the same file",
    "pixels": "the same pixels",
    "group": "the same patient name",
}
"""How an image is recognised, the surest first."""


def pixel_digests(
    records: Iterable[ImageRecord], decoding: Decoding, cache: Path | None = None
) -> dict[str, str]:
    """Digests of pixels by image id, of the images that decode; from the cache where it has them."""
    rows = list(records)
    kept = {} if cache is None or not rows else _kept(cache, decoding)
    missing = [row for row in rows if row.id not in kept]
    with ThreadPoolExecutor(threads()) as pool:
        fresh = list(
            map_ahead(pool, lambda row: reading.pixel_digest_of(row, decoding), missing, AHEAD * threads())
        )
    found = kept | {row.id: value for row, value in zip(missing, fresh, strict=True) if value is not None}
    return {row.id: found[row.id] for row in rows if row.id in found}


def _kept(cache: Path, decoding: Decoding) -> dict[str, str]:
    """Digests that an earlier command kept; NumPy drops the zeros at the end of bytes, which belong to them."""
    facts = np.concatenate(
        [_rows_before(cache, decoding), recorded_facts(cache, decoding, FACTS_REVISION, FACT)]
    )
    ids, pixels = (
        [bytes(value).ljust(WIDTH, b"\0").hex() for value in facts[name]] for name in ("id", "pixels")
    )
    return dict(zip(ids, pixels, strict=True))


def known_images(
    records: Sequence[ImageRecord],
    decoding: Decoding,
    *,
    has_groups: bool,
    salt: str = "",
    cache: Path | None = None,
) -> KnownImages:
    """Digests of images that are learned from, to be kept beside what learns.

    Parameters
    ----------
    records
        The images.
    decoding
        How their pixels are made.
    has_groups
        Whether their groups are names, and not made up.
    salt
        That of an earlier record that this one is joined to; a new one if empty.
    cache
        Where facts of images are kept, so that files need not be read again.
    """
    ids = frozenset(record.id for record in records)
    salt = salt or salt_of(ids)
    groups = salted_names(salt, (record.group for record in records)) if has_groups else frozenset()
    return KnownImages(ids, frozenset(pixel_digests(records, decoding, cache).values()), groups, salt)


def recognise(
    records: Sequence[ImageRecord],
    known: Mapping[str, KnownImages],
    decoding: Decoding,
    *,
    has_groups: bool = True,
    cache: Path | None = None,
) -> dict[str, dict[str, Way]]:
    """Say which images are known, and how.

    Files are decoded only where there are digests of pixels to compare with, and only those that are not known by
    their bytes.

    Parameters
    ----------
    records
        The images asked about.
    known
        What each of those asked has learned from, by name.
    decoding
        How the pixels are made.
    has_groups
        Whether the groups of `records` are names, and not made up.
    cache
        As for `known_images`.

    Returns
    -------
    By name of `known`, the known image ids with the surest of `WAYS`.
    """
    unread = [r for r in records if any(k.pixels and r.id not in k.ids for k in known.values())]
    pixels = pixel_digests(unread, decoding, cache)

    def way(record: ImageRecord, images: KnownImages) -> Way | None:
        if record.id in images.ids:
            return "file"
        if pixels.get(record.id) in images.pixels:
            return "pixels"
        return "group" if has_groups and images.has_group(record.group) else None

    return {
        name: {record.id: how for record in records if (how := way(record, images)) is not None}
        for name, images in known.items()
    }


def seen_finding(who: str, records: Iterable[ImageRecord], found: Mapping[str, Way]) -> Finding | None:
    """Finding about images that `who` (a network, a model) has learned from; None if there is none."""
    seen = [record for record in records if record.id in found]
    if not seen:
        return None
    counts = Counter(found[record.id] for record in seen)
    how = ", ".join(f"{counts[way]} by {text}" for way, text in WAYS.items() if counts[way])
    examples = tuple(f"{record.path}: {WAYS[found[record.id]]}" for record in seen)
    return Finding("FS407", f"{who} learned from {len(seen)} of these images ({how}).", len(seen), examples)
