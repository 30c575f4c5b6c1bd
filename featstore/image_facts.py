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
BINS, BORDER, BACKGROUND = 16, 18, 19
ROUNDING = 1e-3
MODES = ("", "1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F")
NOTES = (
    "alpha", "cmyk", "constant", "extra_channels", "frames", "orientation", "not_hounsfield", "range_unused",
)  # fmt: skip
"""Bit by bit what `notes` of a row mean, also of rows that were kept before: new ones go to the end."""

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
        ("border", "<f2", (BORDER,)),
        ("background", "<f2", (BACKGROUND,)),
    ]
)
"""One image: id and SHA-256 of its pixels (32 bytes each), the file's head, grey histogram, what lies around."""
AROUND = ("border", "background")
FACT_OF_BEFORE = np.dtype([field for field in FACT.descr if field[0] not in AROUND])
"""A row of before revision 2, as packs of then hold it."""


def widened(rows: NDArray[np.void]) -> NDArray[np.void]:
    """Rows of before as rows of today: what lies around the body is not known of them, and NaN."""
    if rows.dtype != FACT_OF_BEFORE:
        return rows
    wide = np.zeros(rows.shape, FACT)
    for name in FACT_OF_BEFORE.names or ():
        wide[name] = rows[name]
    for name in AROUND:
        wide[name] = np.nan
    return wide


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
    row["border"], row["background"] = border_columns(miniature), background_columns(miniature)
    return row, miniature


def _counts(pixels: Pixels) -> NDArray[np.intp]:
    """Values by bin, counted by Pillow: NumPy would make eight bytes of each."""
    from PIL import Image

    grey = Image.fromarray(pixels.reshape(len(pixels), -1))
    counts: NDArray[np.intp] = np.array(grey.histogram(), np.intp).reshape(BINS, -1).sum(axis=1)
    return counts


# What lies around the lungs: the outermost border, and what is outside the body

RING = SIDE // 16
"""Width of the border, in pixels of a miniature: the outermost 6 % of the picture on each side."""
PARTS = 4
LEAST = 0.01
"""Share of the picture below which there is no background to speak of."""


def border_columns(miniature: Pixels) -> NDArray[np.float64]:
    """Grey of the border ``(BORDER,)``: mean of each quarter of each side, mean and deviation of all, 0 to 1."""
    grey = miniature / 255.0
    sides = grey[:RING], grey[-RING:], grey[:, :RING].T, grey[:, -RING:].T
    quarters = [side.reshape(RING, PARTS, -1).mean(axis=(0, 2)) for side in sides]
    ring = np.concatenate([side.ravel() for side in sides])
    return np.concatenate([*quarters, [ring.mean(), ring.std()]])


def background_columns(miniature: Pixels) -> NDArray[np.float64]:
    """Grey outside the body ``(BACKGROUND,)``: mean in each cell of 4 x 4, share of the picture, mean and deviation.

    All of them are 0 where less than `LEAST` of the picture is background.
    """
    outside, grey = background(miniature), miniature / 255.0
    if outside.mean() < LEAST:
        return np.zeros(BACKGROUND)
    cells = (PARTS, SIDE // PARTS, PARTS, -1)
    sums, counts = (part.reshape(cells).sum(axis=(1, 3)).ravel() for part in (grey * outside, outside))
    seen = grey[outside]
    return np.concatenate([sums / np.maximum(counts, 1), [outside.mean(), seen.mean(), seen.std()]])


def background(miniature: Pixels) -> NDArray[np.bool_]:
    """What lies outside the body, of the shape of `miniature`.

    The body is the largest connected part brighter than the threshold of Otsu (1979), and whatever lies between two
    pixels of it in a row or in a column: so the dark lungs belong to it, where the chest wall is in the picture.
    """
    from scipy.ndimage import label

    parts, count = label(miniature > _otsu(miniature))
    if not count:
        return np.ones(miniature.shape, bool)
    body = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    outside: NDArray[np.bool_] = ~(_between(body) | _between(body.T).T)
    return outside


def _between(body: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which pixels lie between two of `body` in their row, or are of it."""
    left = np.logical_or.accumulate(body, axis=1)
    right = np.logical_or.accumulate(body[:, ::-1], axis=1)[:, ::-1]
    between: NDArray[np.bool_] = left & right
    return between


def _otsu(miniature: Pixels) -> int:
    """Grey level that divides the histogram into the two parts that differ most."""
    counts = np.bincount(miniature.ravel(), minlength=256)
    below, levels = np.cumsum(counts), np.cumsum(counts * np.arange(256))
    weights = below * (below[-1] - below)
    apart = (levels[-1] * (below / below[-1]) - levels) ** 2 / np.maximum(weights, 1)
    return int(apart.argmax())


# What is told of facts


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
COPIES_REVISION = 3
"""Raised when copies are found otherwise."""


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
    bad: dict[str, tuple[str, str]] = {}
    miniatures = Miniatures.room_for(len(records))
    missing = np.flatnonzero(~known).tolist()
    for row, seen in _stream_facts(missing, records, decoding, progress=progress):
        if isinstance(seen, BadImageError):
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
    rows: Sequence[int], records: Sequence[ImageRecord], decoding: Decoding, *, progress: bool
) -> Iterator[tuple[int, Seen]]:
    """Look at these images, a few ahead of what is asked for: what is found does not pile up."""
    from tqdm import tqdm

    with (
        ThreadPoolExecutor(threads()) as pool,
        tqdm(total=len(rows), desc="look", disable=not (progress and rows), unit="img") as bar,
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
    facts = recorded_facts(cache, decoding, FACTS_REVISION, FACT)
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
