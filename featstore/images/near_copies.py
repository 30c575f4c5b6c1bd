"""Near copies: pictures that are the same, compressed anew, mirrored, lying another way, moved a little.

Miniatures are compared by their middle spatial frequencies: low ones (a bright chest in a dark frame) are common to
all patients, high ones do not survive compression. Each is compared with all others or, in a large collection, with
those of its cells; likely pairs that are not copies in place are then aligned (small turns and zooms, and shifts by
cross-correlation in the Fourier domain: Kuglin & Hines, The phase correlation image alignment method, 1975) and
correlated once more. A pair counts if it is alike by itself and stands out from how alike these images are to others
(Lowe, Distinctive image features from scale-invariant keypoints, 2004, section 7.1): in a collection where all
pictures resemble each other, resemblance means nothing. The thresholds were set on 746 CT slices, see
``docs/decisions/020-copies-across-patients.md``.

Up to `ALL_WITH_ALL` pictures are compared all with all. Beyond, an inverted file of cells is used: spherical k-means
on a sample finds centres, one for `PER_CELL` pictures; each picture lies in the cell of its nearest centre and is
compared with the pictures of its `PROBES` nearest cells (Sivic & Zisserman, Video Google, 2003; Jegou et al., Product
quantization for nearest neighbor search, 2011). A cell that holds more than `MOST_IN_CELL` is sorted along its
longest axis, and each picture is compared with the `MOST_IN_CELL` that lie nearest on it. So time and memory per
picture are bounded, whatever the pictures show. Of the pictures themselves only some stay in memory: those of a pair
that is aligned are read once more.
"""

from __future__ import annotations

import math
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from featstore.processes import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    from numpy.typing import NDArray

    from featstore.types import Pixels

    Floats = NDArray[np.float32]
    How = Literal[
        "same pixels", "copy", "mirrored", "turned", "mirrored and turned", "moved", "mirrored and moved"
    ]
    Way = tuple[int, int, bool]
    Rows = NDArray[np.intp]

# Pairs that show the same picture

SIDE = 64
"""Side of the grey miniature, pixels."""
IN_PLACE = 0.95
"""Correlation of the middle frequencies from which two miniatures may show one picture, or neighbouring slices."""
MIRRORED = 0.98
"""The same for a mirrored or turned picture: no neighbouring slice is, so only copies need to pass."""
QUARTERS = ((1, False), (2, False), (1, True), (2, True), (3, True))
"""Quarter turns, and whether of the mirrored picture. Three quarters of it are one of the other picture of a pair."""
LIKELY = 0.5
"""Correlation from which a pair is worth aligning."""
ALIGNED = 0.975
"""Correlation after alignment from which a pair may count."""
STANDS_OUT = 0.24
"""Largest ratio of what a pair lacks to 1 and of what pairs with others lack."""
WORTH_A_CLOSE_LOOK = 0.7
"""Correlation after alignment at half the resolution, from which a pair is aligned at the full one."""
WORTH_REFINING, LOOSELY = 0.88, 0.45
"""Correlation and ratio from which the alignment of a pair is refined to any affine move."""
EVALUATIONS = 300
NEIGHBOURS = 2
"""Likely pairs that are aligned for each image and way of looking."""
OTHERS = 3
"""The fourth most alike image tells how alike those of a collection are: a picture may have three copies."""
MOST_ALIGNED, MOST_REFINED = 20_000, 500
"""Pairs that are aligned, and whose alignment is refined, in all: those that stand out most."""
FAINT = 1.5
"""Grey levels: a miniature whose middle frequencies have a smaller root mean square shows nothing to compare."""
FINE, COARSE, BEFORE_TURNING = 2.0, 8.0, 4.0
"""Standard deviations, in pixels of the miniature, of the Gaussian filters."""
TURNS = (-5.0, -3.3, -1.7, 0.0, 1.7, 3.3, 5.0)
"""Degrees."""
ZOOMS = (0.84, 0.89, 0.94, 1.0, 1.06, 1.12, 1.19)
LOOK_ZOOM = 0.9
"""The likely ones are also looked for with one picture enlarged by so much, which finds cropped copies."""
SHIFT_SHARE = 12
"""The largest shift is the side divided by this."""
AT_HAND, AT_ONCE, SPECTRA = 2048, 1024, 128
"""Miniatures that stay in memory, those of pairs to be aligned that are read again together, and their spectra."""


class Pair(NamedTuple):
    """Two rows, the smaller first, how alike they are (1 for equal), and in what way."""

    first: int
    second: int
    similarity: float
    how: How


@dataclass(frozen=True, slots=True)
class Copies:
    """Pairs that show the same picture, and what was not looked at closely.

    Attributes
    ----------
    pairs
        The most alike first.
    crowded
        Images that resemble so many others that they were compared with the nearest of these only.
    left
        Likely pairs that were not aligned as closely as those that stand out more.
    """

    pairs: tuple[Pair, ...] = ()
    crowded: int = 0
    left: int = 0


@dataclass(slots=True, eq=False)
class Miniatures:
    """Small grey pictures to be compared: what is compared of each, and of the first ones the picture.

    Attributes
    ----------
    bands
        The middle spatial frequencies of each; memory is taken as rows are filled.
    known
        ``(n,)`` whether the picture has been seen; what has not is like nothing.
    at_hand
        By row, the first `AT_HAND` pictures ``(SIDE, SIDE)``.
    """

    bands: UnitVectors
    known: NDArray[np.bool_]
    at_hand: dict[int, Pixels] = field(default_factory=dict)
    _coming: dict[int, Pixels] = field(default_factory=dict)

    @classmethod
    def room_for(cls, count: int) -> Miniatures:
        """Room for so many, to be filled by `put` and `flush`."""
        return cls(UnitVectors.empty(count, (SIDE // 2) ** 2), np.zeros(count, bool))

    @classmethod
    def of(cls, pictures: Pixels) -> Miniatures:
        """All of ``(n, SIDE, SIDE)``."""
        made = cls.room_for(len(pictures))
        for row, picture in enumerate(pictures):
            made.put(row, picture)
        return made.flush()

    def put(self, row: int, picture: Pixels) -> None:
        """Look at one ``(SIDE, SIDE)``."""
        if len(self.at_hand) < AT_HAND:
            self.at_hand[row] = picture
        self._coming[row] = picture
        if len(self._coming) == ROWS:
            self.flush()

    def flush(self) -> Miniatures:
        """Compute what is compared of those that were put."""
        if self._coming:
            rows = np.array(list(self._coming))
            self.bands.put(rows, *_middle_frequencies(np.stack(list(self._coming.values()))))
            self.known[rows] = True
            self._coming.clear()
        return self

    def only(self, rows: Rows) -> Miniatures:
        """Move these rows up, in rising order, into the place of the others, which are lost."""
        at = {row: place for place, row in enumerate(rows.tolist())}
        kept = {at[row]: picture for row, picture in self.at_hand.items() if row in at}
        return Miniatures(self.flush().bands.only(rows), self.known[rows], kept)


def find_copies(
    miniatures: Miniatures,
    digests: Sequence[bytes] | NDArray[np.bytes_],
    sides: Sequence[str],
    *,
    read: Callable[[Sequence[int]], Mapping[int, Pixels]] = lambda _: {},
    progress: bool = False,
) -> Copies:
    """Find pairs of images on different sides that show the same picture.

    Parameters
    ----------
    miniatures
        The pictures.
    digests
        ``(n,)`` digest of the decoded pixels.
    sides
        ``(n,)`` patient (group) of each image: pairs within one are no finding.
    read
        Reads the miniatures of some rows again, those that can be read. It is asked for the pairs that are worth
        aligning, for at most `AT_ONCE` at a time or one and its likely copies.
    progress
        Show a bar on stderr.

    Returns
    -------
    Time grows with n. So does memory, by less than 2 KiB per image.
    """
    from tqdm import tqdm

    bands = miniatures.flush().bands
    if len(bands.values) < 2:  # noqa: PLR2004
        return Copies()
    side = _numbered(sides)
    cells = cells_of(bands)
    found = {pair: Pair(*pair, 1.0, "same pixels") for pair in _equal(digests, side, bands.shows)}
    likely: list[Likely] = []
    usual = np.empty(0)
    looks = tuple(_looks(SIDE // 2))
    steps = len(looks) * int(bands.shows.sum()) * cells.probed.shape[1]
    with tqdm(total=steps, desc="compare", unit="look", disable=not progress, smoothing=0.05) as bar:
        for look in looks:
            best = nearest_neighbours(bands, cells, look, side, OTHERS + 1, bar.update)
            if not look.mirrored and not look.enlarged:
                usual = _usual(best)
            if not look.enlarged:
                _keep(found, _in_place(best, usual, look))
            if not look.turned:
                likely.append(_likely(best, mirrored=look.mirrored))
    wanted, left = _that_stand_out_most(likely, found)
    del likely, best
    moved, unrefined = _moved(miniatures.at_hand, read, wanted, progress=progress)
    _keep(found, moved)
    pairs = sorted(found.values(), key=lambda pair: (-pair.similarity, pair.first, pair.second))
    return Copies(tuple(pairs), crowded(bands, cells), left + unrefined)


def _numbered(names: Sequence[str]) -> NDArray[np.int32]:
    """The same number for the same name."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int32)


class Likely(NamedTuple):
    """Pairs that are worth aligning; `ratios` is what they lack to 1, against what is usual for the first image."""

    rows: NDArray[np.int32]
    others: NDArray[np.int32]
    ratios: NDArray[np.float64]
    mirrored: bool


def _keep(found: dict[tuple[int, int], Pair], pairs: Iterable[Pair]) -> None:
    """Take the way in which a pair is most alike."""
    for pair in pairs:
        known = found.get(pair[:2])
        if known is None or known.similarity < pair.similarity:
            found[pair[:2]] = pair


def _looks(side: int) -> Iterator[ComparisonMode]:
    """Ways in which likely pairs are looked for; all but the enlarged ones may be enough by themselves."""
    operator = _turn_and_zoom(side, 0.0, LOOK_ZOOM)
    for mirrored in (False, True):
        for enlarged in (False, True):
            yield ComparisonMode(
                mirrored,
                enlarged,
                partial(_seen, side=side, operator=operator if enlarged else None, mirrored=mirrored),
            )
    for quarters, mirrored in QUARTERS:
        turned = partial(_turned, side=side, quarters=quarters, mirrored=mirrored)
        yield ComparisonMode(mirrored, enlarged=False, seen=turned, turned=True)


def _seen(vectors: Floats, *, side: int, operator: Any, mirrored: bool) -> Floats:  # noqa: ANN401
    if mirrored:
        vectors = vectors.reshape(-1, side, side)[:, :, ::-1].reshape(len(vectors), -1)
    if operator is None:
        return vectors
    enlarged = (operator @ vectors.T).T
    return unit(enlarged - enlarged.mean(axis=1, keepdims=True))


def _turned(vectors: Floats, *, side: int, quarters: int, mirrored: bool) -> Floats:
    pictures = vectors.reshape(-1, side, side)[:, :, :: -1 if mirrored else 1]
    return np.rot90(pictures, quarters, axes=(1, 2)).reshape(len(vectors), -1)


def _in_place(best: Neighbours, usual: NDArray[np.float64], look: ComparisonMode) -> Iterator[Pair]:
    """Pairs that are alike in a way of looking, and more so than either is to others as they lie."""
    how: How = "mirrored" if look.mirrored else "copy"
    if look.turned:
        how = "mirrored and turned" if look.mirrored else "turned"
    for row, rank in np.argwhere(best.values >= (IN_PLACE if how == "copy" else MIRRORED)).tolist():
        other = int(best.rows[row, rank])
        value = min(1.0, float(best.values[row, rank]))
        if 1 - value <= STANDS_OUT * (1 - max(usual[row], usual[other])):
            yield Pair(min(row, other), max(row, other), value, how)


def _likely(best: Neighbours, *, mirrored: bool) -> Likely:
    """The pairs of each image that are most likely copies of it in another place."""
    values = best.values[:, :NEIGHBOURS]
    rows, ranks = np.nonzero((values >= LIKELY) & (best.rows[:, :NEIGHBOURS] >= 0))
    lacks = 1 - values[rows, ranks].astype(np.float64)
    ratios = lacks / np.maximum(1 - _usual(best)[rows], 1e-6)
    return Likely(rows.astype(np.int32), best.rows[rows, ranks], ratios, mirrored)


def _that_stand_out_most(
    likely: Sequence[Likely], found: Collection[tuple[int, int]]
) -> tuple[list[Way], int]:
    """The pairs to be aligned, and how many are left: all likely pairs of the images that have the likeliest ones."""
    rows, others, ratios = (
        np.concatenate([getattr(part, name) for part in likely]) for name in Likely._fields[:3]
    )
    mirrored = np.concatenate([np.full(len(part.rows), part.mirrored) for part in likely])
    rank = np.full(max(int(rows.max(initial=0)), int(others.max(initial=0))) + 1, np.inf)
    np.minimum.at(rank, rows, ratios)
    order = np.lexsort((ratios, rows, rank[rows]))
    one, other = (pick(rows, others).astype(np.int64)[order] for pick in (np.minimum, np.maximum))
    ways = (one * len(rank) + other) * 2 + mirrored[order]
    firsts = np.sort(np.unique(ways, return_index=True)[1])
    every = ((int(one[at]), int(other[at]), bool(mirrored[order[at]])) for at in firsts)
    wanted = (way for way in every if way[:2] not in found)
    return list(islice(wanted, MOST_ALIGNED)), sum(1 for _ in wanted)


def _moved(
    at_hand: Mapping[int, Pixels],
    read: Callable[[Sequence[int]], Mapping[int, Pixels]],
    wanted: Sequence[Way],
    *,
    progress: bool,
) -> tuple[list[Pair], int]:
    """Align likely pairs, at half the resolution first: those that are alike then, and how many were not refined."""
    from tqdm import tqdm

    def pictures(ways: Iterable[Way]) -> dict[int, Pixels]:
        rows = dict.fromkeys(row for way in ways for row in way[:2])
        missing = [row for row in rows if row not in at_hand]
        again = read(missing) if missing else {}
        return {row: at_hand[row] for row in rows if row in at_hand} | dict(again)

    aligned: dict[Way, float] = {}
    with (
        ThreadPoolExecutor(threads()) as pool,
        tqdm(total=len(wanted), desc="align", unit="pair", disable=not (progress and wanted)) as bar,
    ):
        for part in _parts(wanted):
            seen = pictures(part)
            halved = {row: _halved(picture) for row, picture in seen.items()}
            found = dict(_aligned(halved, part, pool))
            close = [way for way, value in found.items() if value >= WORTH_A_CLOSE_LOOK]
            aligned |= found | dict(_aligned(seen, close, pool))
            bar.update(len(part))
    worth = sorted(_that_stand_out(aligned, WORTH_REFINING, LOOSELY), key=lambda way: -aligned[way])
    with ThreadPoolExecutor(threads()) as pool:
        for part in _parts(worth[:MOST_REFINED]):
            seen = pictures(part)
            there = [way for way in part if way[0] in seen and way[1] in seen]
            values = pool.map(
                lambda way, seen=seen: _refined(seen[way[0]], seen[way[1]], mirrored=way[2]), there
            )
            aligned |= {way: max(aligned[way], value) for way, value in zip(there, values, strict=True)}
    pairs = [
        Pair(one, other, aligned[one, other, mirrored], "mirrored and moved" if mirrored else "moved")
        for one, other, mirrored in _that_stand_out(aligned, ALIGNED, STANDS_OUT)
    ]
    return pairs, len(worth[MOST_REFINED:])


def _parts(ways: Sequence[Way]) -> Iterator[list[Way]]:
    """Pairs with the same second picture together, a few pictures at a time."""
    by_second: defaultdict[tuple[int, bool], list[Way]] = defaultdict(list)
    for way in ways:
        by_second[way[1:]].append(way)
    part: list[Way] = []
    rows: set[int] = set()
    for some in by_second.values():
        more = {row for way in some for row in way[:2]}
        if part and len(rows | more) > AT_ONCE:
            yield part
            part, rows = [], set()
        part += some
        rows |= more
    if part:
        yield part


def _refined(one: Pixels, other: Pixels, *, mirrored: bool) -> float:
    """Correlation after the best affine move (stretch and shear, too: pictures are squeezed into squares)."""
    from scipy.ndimage import gaussian_filter
    from scipy.optimize import minimize

    side = len(one)
    taper = np.outer(*(np.hanning(side + 2)[1:-1],) * 2) ** 0.5
    greys = np.stack([one, other]).astype(np.float64)
    sharp = [grey - gaussian_filter(grey, BEFORE_TURNING, mode="nearest") for grey in greys]
    target, moving = _unit(sharp[0] * taper), sharp[1][:, ::-1] if mirrored else sharp[1]
    middle, move = np.full(2, (side - 1) / 2), affine_sampler(moving)
    known: dict[bytes, float] = {}  # a line search asks again for where it stands

    def lacks(change: NDArray[np.float64]) -> float:
        key = change.tobytes()
        if key not in known:
            matrix = np.eye(2) + change[:4].reshape(2, 2) / side
            moved = move(matrix, middle + change[4:] - matrix @ middle)
            moved *= taper
            moved -= np.add.reduce(moved, axis=None) / moved.size
            moved /= max(math.sqrt(moved.ravel().dot(moved.ravel())), 1e-6)
            moved *= target
            known[key] = 1 - float(np.add.reduce(moved, axis=None))
        return known[key]

    best = min((_start(turn, zoom, side) for turn in TURNS for zoom in ZOOMS), key=lacks)
    found = minimize(
        lacks, best, method="Powell", options={"maxfev": EVALUATIONS, "xtol": 0.02, "ftol": 1e-4}
    )
    return min(1.0, 1 - float(found.fun))


def affine_sampler(picture: NDArray[np.float64]) -> Callable[..., NDArray[np.float64]]:
    """Make `scipy.ndimage.affine_transform` of one square picture, ``order=1, mode="nearest"``, at half its cost.

    Parameters
    ----------
    picture
        ``(side, side)``.

    Returns
    -------
    Function of a matrix ``(2, 2)`` and an offset ``(2,)``. Its picture ``(side, side)`` has the bits of scipy's,
    which adds in this order, and lies in memory that the next call takes.
    """
    side = len(picture)
    flat = np.pad(picture, 1, mode="edge").ravel()
    wide, at = side + 2, np.arange(side, dtype=np.float64)
    corners = [flat[start:] for start in (0, 1, wide, wide + 1)]
    places, floors, before = np.empty((3, 2, side, side))
    part, moved = np.empty((2, side, side))
    index = np.empty((side, side), np.intp)

    def move(matrix: NDArray[np.float64], offset: NDArray[np.float64]) -> NDArray[np.float64]:
        along = offset[:, None] + matrix[:, :1] * at
        np.add(along[:, :, None], (matrix[:, 1:] * at)[:, None, :], out=places)
        np.floor(places, out=floors)
        np.subtract(1.0, np.subtract(places, floors, out=places), out=before)
        behind = np.subtract(1.0, before, out=places)
        np.minimum(np.maximum(floors, -1.0, out=floors), side - 1.0, out=floors)
        np.add(np.multiply(floors[0], wide, out=part), floors[1], out=part)
        index[...] = np.add(part, wide + 1.0, out=part)
        (up, left), (down, right) = before, behind
        for corner, rows, columns in zip(corners, (up, up, down, down), (left, right) * 2, strict=True):
            into = moved if corner is corners[0] else part
            corner.take(index, out=into, mode="clip")
            np.multiply(np.multiply(into, rows, out=into), columns, out=into)
            if into is part:
                np.add(moved, part, out=moved)
        return moved

    return move


def _start(degrees: float, zoom: float, side: int) -> NDArray[np.float64]:
    turn = np.deg2rad(degrees)
    matrix = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.concatenate([((matrix - np.eye(2)) * side).ravel(), np.zeros(2)])


def _unit(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = picture - picture.mean()
    unit: NDArray[np.float64] = centred / max(float(np.linalg.norm(centred)), 1e-6)
    return unit


def _usual(best: Neighbours) -> NDArray[np.float64]:
    """How alike each image is to its fourth most alike one; of a small collection, to the middle one."""
    usual: NDArray[np.float64] = best.values[:, min(OTHERS, len(best.values) // 2)].astype(np.float64)
    return usual


def _that_stand_out(aligned: Mapping[Way, float], least: float, ratio: float) -> Iterator[Way]:
    """Pairs that are alike, and far more so than the other likely pairs of their images."""
    of_image: defaultdict[int, list[float]] = defaultdict(list)
    for (one, other, _), value in aligned.items():
        of_image[one].append(value)
        of_image[other].append(value)
    for (one, other, mirrored), value in aligned.items():
        usual = max(_middle(of_image[one], value), _middle(of_image[other], value))
        if value >= least and 1 - value <= ratio * (1 - usual):
            yield one, other, mirrored


def _middle(values: list[float], value: float) -> float:
    """Median of the values but for one of them; of none, what is enough for any pair."""
    rest = sorted(values)
    rest.remove(value)
    return rest[len(rest) // 2] if rest else 0.0


def _equal(
    digests: Sequence[bytes] | NDArray[np.bytes_], side: NDArray[np.int32], shows: NDArray[np.bool_]
) -> Iterator[tuple[int, int]]:
    """Pairs with equal pixels, the first of each set with each other; an empty picture is no evidence."""
    shown = np.flatnonzero(shows)
    numbers, counts = np.unique(np.asarray(digests)[shown], return_inverse=True, return_counts=True)[1:]
    sets: defaultdict[int, list[int]] = defaultdict(list)
    for at in np.flatnonzero(counts[numbers] > 1).tolist():
        sets[numbers[at]].append(int(shown[at]))
    for first, *others in sets.values():
        yield from ((first, other) for other in others if side[first] != side[other])


def _middle_frequencies(pictures: Pixels) -> tuple[Floats, NDArray[np.bool_]]:
    """The middle spatial frequencies of ``(n, SIDE, SIDE)``, at half the resolution, and whether there are any."""
    from scipy.ndimage import gaussian_filter1d

    halve = np.repeat(np.eye(SIDE // 2), 2, axis=1) / 2
    fine, coarse = (
        (halve @ gaussian_filter1d(np.eye(SIDE), width, axis=0, mode="nearest")).astype(np.float32)
        for width in (FINE, COARSE)
    )
    grey = pictures.astype(np.float32)
    rows = (fine @ grey @ fine.T - coarse @ grey @ coarse.T).reshape(len(grey), -1)
    rows -= rows.mean(axis=1, keepdims=True)
    return unit(rows), np.linalg.norm(rows, axis=1) > FAINT * np.sqrt(rows.shape[1])


def _halved(miniature: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean of each two by two pixels."""
    half = len(miniature) // 2
    halved: NDArray[np.uint8] = np.rint(miniature.reshape(half, 2, half, 2).mean(axis=(1, 3))).astype(
        np.uint8
    )
    return halved


def _aligned(
    pictures: Mapping[int, Pixels], pairs: Iterable[Way], pool: Executor
) -> Iterator[tuple[Way, float]]:
    """Correlation of each pair that is there after the best turn, zoom and shift of its second image."""
    by_second: defaultdict[tuple[int, bool], list[int]] = defaultdict(list)
    for one, other, mirrored in pairs:
        if one in pictures and other in pictures:
            by_second[other, mirrored].append(one)

    @lru_cache(maxsize=SPECTRA)
    def first(row: int) -> NDArray[np.complex64]:
        return np.conj(_spectra(_sharpened(pictures[row])[None]))

    def align(second: tuple[int, bool]) -> list[float]:
        fine = _sharpened(pictures[second[0]])
        return _best_alignments(fine[:, ::-1] if second[1] else fine, map(first, by_second[second]))

    for (other, mirrored), values in zip(by_second, pool.map(align, by_second), strict=True):
        for one, value in zip(by_second[other, mirrored], values, strict=True):
            yield (one, other, mirrored), value


def _sharpened(picture: Pixels) -> Floats:
    from scipy.ndimage import gaussian_filter

    grey = picture.astype(np.float32)
    fine: Floats = grey - gaussian_filter(grey, BEFORE_TURNING * len(grey) / 64, mode="nearest")
    return fine


@cache
def _taper(side: int) -> Floats:
    return np.sqrt(np.outer(*(np.hanning(side + 2)[1:-1],) * 2)).astype(np.float32)


def _spectra(pictures: Floats) -> NDArray[np.complex64]:
    """Half spectra of ``(n, side, side)``, each tapered, of mean 0 and norm 1."""
    from scipy.fft import rfft2

    seen = pictures * _taper(pictures.shape[1])
    seen -= seen.mean(axis=(1, 2), keepdims=True)
    seen /= np.maximum(np.sqrt((seen**2).sum(axis=(1, 2), keepdims=True)), 1e-6)
    transformed: NDArray[np.complex64] = rfft2(seen)
    return transformed


def _best_alignments(fine: Floats, firsts: Iterable[NDArray[np.complex64]]) -> list[float]:
    """Largest correlation of one picture, however moved, with each of others, whose conjugate spectra these are.

    Only the shifts in question are transformed back along the rows.
    """
    from scipy.fft import ifft, irfft

    side = len(fine)
    shifts = np.arange(-side // SHIFT_SHARE, side // SHIFT_SHARE + 1)
    moved = _spectra((_moves(side) @ fine.ravel()).reshape(-1, side, side).astype(np.float32))
    products = (ifft(moved * first, axis=1, overwrite_x=True)[:, shifts] for first in firsts)
    return [min(1.0, float(irfft(part, side, axis=2)[:, :, shifts].max())) for part in products]


@cache
def _moves(side: int) -> Any:  # noqa: ANN401
    """All turns and zooms ``(ways * side², side²)``."""
    from scipy.sparse import vstack

    return vstack([_turn_and_zoom(side, turn, zoom) for turn in TURNS for zoom in ZOOMS], format="csr")


def _turn_and_zoom(side: int, degrees: float, zoom: float) -> Any:  # noqa: ANN401
    """Sparse operator ``(side², side²)`` that turns and zooms a picture about its centre, bilinear."""
    from scipy.sparse import csr_array

    turn = np.deg2rad(degrees)
    centre = (side - 1) / 2
    y, x = np.mgrid[:side, :side] - centre
    rows = zoom * (np.cos(turn) * y - np.sin(turn) * x) + centre
    columns = zoom * (np.sin(turn) * y + np.cos(turn) * x) + centre
    rows, columns = rows.clip(0, side - 1).ravel(), columns.clip(0, side - 1).ravel()
    top, left = np.minimum(rows.astype(int), side - 2), np.minimum(columns.astype(int), side - 2)
    down, right = rows - top, columns - left
    weights = np.concatenate([(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right])
    sources = np.concatenate(
        [top * side + left, top * side + left + 1, (top + 1) * side + left, (top + 1) * side + left + 1]
    )
    rows = np.tile(np.arange(side**2, dtype=np.int32), 4)
    return csr_array((weights.astype(np.float32), (rows, sources.astype(np.int32))), shape=(side**2, side**2))


# Nearest neighbours without comparing all with all: an inverted file of cells

ALL_WITH_ALL = 2048
PER_CELL, PROBES = 256, 4
MOST_CELLS = 1024
MOST_IN_CELL = 1024
LEARNED, ROUNDS = 16, 3
"""Pictures for each cell that its centre is learned from, and rounds of k-means."""
ROWS = 512
"""Pictures that are compared at once."""
FULL = 127.0


@dataclass(frozen=True, slots=True)
class UnitVectors:
    """Unit vectors with mean 0, a byte for each value.

    Attributes
    ----------
    values
        ``(n, d)`` int8.
    shows
        ``(n,)`` whether there is anything to be seen; what is empty is like nothing.
    """

    values: NDArray[np.int8]
    shows: NDArray[np.bool_]

    @classmethod
    def empty(cls, count: int, dimension: int) -> UnitVectors:
        """Room for so many, to be filled by `put`."""
        return cls(np.zeros((count, dimension), np.int8), np.zeros(count, bool))

    def put(self, rows: Rows, vectors: Floats, shows: NDArray[np.bool_]) -> None:
        """Keep unit vectors."""
        largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-9)
        self.values[rows] = np.rint(vectors * (FULL / largest))
        self.shows[rows] = shows

    def only(self, rows: Rows) -> UnitVectors:
        """Move these rows up, in rising order, into the place of the others; no second array is made."""
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS]
            self.values[start : start + len(part)] = self.values[part]
            self.shows[start : start + len(part)] = self.shows[part]
        return UnitVectors(self.values[: len(rows)], self.shows[: len(rows)])

    def rows(self, at: Rows | slice) -> Floats:
        """Unit vectors of some rows."""
        return unit(self.values[at].astype(np.float32))


class ComparisonMode(NamedTuple):
    """A way of looking at the second picture of each pair: how its vectors follow from the plain ones."""

    mirrored: bool
    enlarged: bool
    seen: Callable[[Floats], Floats]
    turned: bool = False


class Neighbours(NamedTuple):
    """The pictures that each is most like, the most alike first; -1 where there are fewer."""

    rows: NDArray[np.int32]
    values: Floats


@dataclass(frozen=True, slots=True)
class Cells:
    """Where each picture lies.

    Attributes
    ----------
    centres
        ``(cells, d)``; a single one for few pictures.
    probed
        ``(n, probes)`` the cells that a picture is compared with, its own first.
    """

    centres: Floats
    probed: NDArray[np.int32]


def unit(vectors: Floats) -> Floats:
    """Vectors of norm 1; zero stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Floats = vectors / np.maximum(norms, 1e-9)
    return units


def cells_of(bands: UnitVectors) -> Cells:
    """Sort pictures into cells of like ones."""
    count = len(bands.values)
    shown = np.flatnonzero(bands.shows)
    number = 1 if len(shown) <= ALL_WITH_ALL else min(MOST_CELLS, -(-len(shown) // PER_CELL))
    centres = _centres(bands, shown, number)
    probes = min(PROBES, number)
    probed = np.zeros((count, probes), np.int32)
    if number > 1:
        for part, near in _by_part(count, lambda part: bands.rows(part) @ centres.T):
            best = np.argpartition(-near, probes - 1, axis=1)[:, :probes]
            ranked = np.argsort(-np.take_along_axis(near, best, axis=1), axis=1, kind="stable")
            probed[part] = np.take_along_axis(best, ranked, axis=1)
    return Cells(centres, probed)


def crowded(bands: UnitVectors, cells: Cells) -> int:
    """How many pictures lie in cells that hold more than each of them is compared with."""
    if len(cells.centres) == 1:
        return 0
    sizes = np.bincount(cells.probed[bands.shows, 0], minlength=len(cells.centres))
    return int(sizes[sizes > MOST_IN_CELL].sum())


def nearest_neighbours(
    bands: UnitVectors,
    cells: Cells,
    look: ComparisonMode,
    side: NDArray[np.int32],
    keep: int,
    done: Callable[[int], object] = lambda _: None,
) -> Neighbours:
    """Find the pictures of other sides that each is most like.

    Parameters
    ----------
    bands, cells
        The pictures, and where they lie.
    look
        How the others are looked at.
    side
        ``(n,)`` patient of each.
    keep
        How many are wanted of each.
    done
        Is told how many were looked for just now.
    """
    count = len(side)
    best = Neighbours(np.full((count, keep), -1, np.int32), np.full((count, keep), -1.0, np.float32))
    number = len(cells.centres)
    shown = np.flatnonzero(bands.shows)
    in_cell = _grouped(_cell_of_each(bands, cells, look)[shown], shown, number)
    probes = cells.probed.shape[1]
    by_cell = _grouped(cells.probed[shown].ravel(), np.repeat(shown, probes), number)
    whole = number == 1
    for members, asking in zip(in_cell, by_cell, strict=True):
        for ones, others in _windows(bands, look, asking, members, whole=whole):
            values = bands.rows(ones) @ look.seen(bands.rows(others)).T
            values[side[ones][:, None] == side[others]] = -1.0
            _merge(best, ones, others, values)
        done(len(asking))
    return best


def _grouped(cells: NDArray[np.int32], rows: Rows, number: int) -> list[Rows]:
    """Rows of each cell, in rising order."""
    order = np.argsort(cells, kind="stable")
    return np.split(rows[order], np.searchsorted(cells[order], np.arange(1, number)))


def _cell_of_each(bands: UnitVectors, cells: Cells, look: ComparisonMode) -> NDArray[np.int32]:
    """The cell that each picture lies in when it is looked at in this way."""
    if len(cells.centres) == 1:
        return np.zeros(len(bands.values), np.int32)
    homes = np.empty(len(bands.values), np.int32)
    near = _by_part(len(homes), lambda part: look.seen(bands.rows(part)) @ cells.centres.T)
    for part, values in near:
        homes[part] = values.argmax(axis=1)
    return homes


def _windows(
    bands: UnitVectors, look: ComparisonMode, asking: Rows, members: Rows, *, whole: bool
) -> Iterator[tuple[Rows, Rows]]:
    """Pictures to be compared with each other, few at a time: all of a cell, or the near ones of a large cell."""
    if not len(members):
        return
    if whole or len(members) <= MOST_IN_CELL:
        for start in range(0, len(asking), ROWS):
            yield asking[start : start + ROWS], members
        return
    axis = _longest_axis(bands.rows(members[:: -(-len(members) // MOST_IN_CELL)]))
    along = _project(members, lambda part: look.seen(bands.rows(part)), axis)
    order = np.argsort(along, kind="stable")
    members, along = members[order], along[order]
    places = np.searchsorted(along, _project(asking, bands.rows, axis))
    order = np.argsort(places, kind="stable")
    asking, places = asking[order], places[order]
    step = MOST_IN_CELL // 8
    for start in range(0, len(asking), step):
        middle = int(places[start : start + step][len(places[start : start + step]) // 2])
        first = min(max(0, middle - MOST_IN_CELL // 2), len(members) - MOST_IN_CELL)
        yield asking[start : start + step], members[first : first + MOST_IN_CELL]


def _merge(best: Neighbours, ones: Rows, others: Rows, values: Floats) -> None:
    """Keep the most alike of what was known and what is new."""
    keep = best.rows.shape[1]
    if values.shape[1] > keep:
        top = np.argpartition(-values, keep - 1, axis=1)[:, :keep]
        values, found = np.take_along_axis(values, top, axis=1), others[top]
    else:
        found = np.broadcast_to(others, values.shape)
    found = np.where(values > -1.0, found, -1)
    all_values = np.concatenate([best.values[ones], values], axis=1)
    all_rows = np.concatenate([best.rows[ones], found.astype(np.int32)], axis=1)
    order = np.argsort(-all_values, axis=1, kind="stable")[:, :keep]
    best.values[ones] = np.take_along_axis(all_values, order, axis=1)
    best.rows[ones] = np.take_along_axis(all_rows, order, axis=1)


def _centres(bands: UnitVectors, shown: Rows, number: int) -> Floats:
    """Spherical k-means on a sample, the same for the same pictures."""
    if number == 1:
        return np.zeros((1, bands.values.shape[1]), np.float32)
    rng = np.random.default_rng(0)
    sample = np.sort(rng.choice(shown, min(len(shown), LEARNED * number), replace=False))
    centres = bands.rows(np.sort(rng.choice(sample, number, replace=False)))
    for _ in range(ROUNDS):
        sums = np.zeros_like(centres)
        for start in range(0, len(sample), ROWS):
            vectors = bands.rows(sample[start : start + ROWS])
            np.add.at(sums, (vectors @ centres.T).argmax(axis=1), vectors)
        moved = unit(sums)
        centres = np.where(moved.any(axis=1, keepdims=True), moved, centres)
    return centres


def _longest_axis(vectors: Floats) -> Floats:
    """First principal component, by power iteration."""
    spread = vectors - vectors.mean(axis=0)
    axis: Floats = spread[np.abs(spread).sum(axis=1).argmax()].copy()
    for _ in range(ROUNDS):
        axis = spread.T @ (spread @ axis)
        axis /= max(float(np.linalg.norm(axis)), 1e-9)
    return axis


def _project(rows: Rows, vectors: Callable[[Rows], Floats], axis: Floats) -> Floats:
    parts = [vectors(rows[start : start + ROWS]) @ axis for start in range(0, len(rows), ROWS)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _by_part(count: int, value: Callable[[slice], Floats]) -> Iterator[tuple[slice, Floats]]:
    for start in range(0, count, ROWS):
        part = slice(start, min(start + ROWS, count))
        yield part, value(part)
