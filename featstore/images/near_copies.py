"""Pictures that are copies of each other: the same, compressed anew, mirrored, turned a little or cropped a little.

Miniatures are compared by their middle spatial frequencies: low ones (a bright chest in a dark frame) are common to
all patients, high ones do not survive compression. All pairs are correlated; likely ones that are not copies in place
are then aligned (small turns and zooms, and shifts by cross-correlation in the Fourier domain: Kuglin & Hines, The
phase correlation image alignment method, 1975) and correlated once more. A pair counts if it is alike by itself and
stands out from how alike these images are to others (Lowe, Distinctive image features from scale-invariant keypoints,
2004, section 7.1): in a collection where all pictures resemble each other, resemblance means nothing. The thresholds
were set on 746 CT slices, see ``docs/decisions/020-copies-across-patients.md``.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    How = Literal["same pixels", "copy", "mirrored", "moved", "mirrored and moved"]
    Look = tuple[int, int, bool]

IN_PLACE = 0.95
"""Correlation of the middle frequencies from which two miniatures may show one picture, or neighbouring slices."""
MIRRORED = 0.98
"""The same for a mirrored picture: no neighbouring slice is mirrored, so only copies need to pass."""
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
MOST_ALIGNED = 20_000
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
ROWS = 1024


class Pair(NamedTuple):
    """Two rows, the smaller first, how alike they are (1 for equal), and in what way."""

    first: int
    second: int
    similarity: float
    how: How


def find_copies(
    miniatures: NDArray[np.uint8],
    digests: Sequence[bytes] | NDArray[np.bytes_],
    sides: Sequence[str],
) -> tuple[Pair, ...]:
    """Find pairs of images on different sides that show the same picture.

    Parameters
    ----------
    miniatures
        ``(n, side, side)`` grey.
    digests
        ``(n,)`` digest of the decoded pixels.
    sides
        ``(n,)`` patient (group) of each image: pairs within one are no finding.

    Returns
    -------
    The most alike first; memory grows with n, time with n squared (seconds for 1,000 images, minutes for 20,000).
    """
    if len(miniatures) < 2:  # noqa: PLR2004
        return ()
    side = np.unique(np.asarray(sides), return_inverse=True)[1]
    bands, shows = _middle_frequencies(miniatures)
    found = {pair: Pair(*pair, 1.0, "same pixels") for pair in _equal(digests, side, shows)}
    likely: dict[Look, float] = {}
    usual = np.full(len(miniatures), -1.0)
    for rows, values in _across(bands, bands, side, shows):
        usual[rows] = _usual(values)
    for mirrored in (False, True):
        for left, right, in_place in _looks(miniatures, bands, mirrored=mirrored):
            for rows, values in _across(left, right, side, shows):
                _note(likely, rows, values, mirrored=mirrored)
                if in_place:
                    _keep(found, _in_place(rows, values, usual, mirrored=mirrored))
    _keep(found, _moved(miniatures, likely, frozenset(found)))
    return tuple(sorted(found.values(), key=lambda pair: (-pair.similarity, pair.first, pair.second)))


def _keep(found: dict[tuple[int, int], Pair], pairs: Iterable[Pair]) -> None:
    """Take the way in which a pair is most alike."""
    for pair in pairs:
        known = found.get(pair[:2])
        if known is None or known.similarity < pair.similarity:
            found[pair[:2]] = pair


def _looks(
    miniatures: NDArray[np.uint8], bands: Floats, *, mirrored: bool
) -> Iterator[tuple[Floats, Floats, bool]]:
    """What is correlated with what to find likely pairs, and whether a high correlation is enough by itself."""
    seen = miniatures[:, :, ::-1] if mirrored else miniatures
    yield bands, _middle_frequencies(seen)[0], True
    yield bands, _middle_frequencies(_enlarged(seen))[0], False


def _in_place(rows: range, values: Floats, usual: NDArray[np.float64], *, mirrored: bool) -> Iterator[Pair]:
    """Pairs that are alike as they lie, and more so than either is to others."""
    for row, column in np.argwhere(values >= (MIRRORED if mirrored else IN_PLACE)):
        one, other = rows.start + int(row), int(column)
        value = min(1.0, float(values[row, column]))
        if 1 - value <= STANDS_OUT * (1 - max(usual[one], usual[other])):
            yield Pair(min(one, other), max(one, other), value, "mirrored" if mirrored else "copy")


def _moved(
    miniatures: NDArray[np.uint8], likely: Mapping[Look, float], found: Collection[tuple[int, int]]
) -> Iterator[Pair]:
    """Align the likeliest pairs, at half the resolution first, and yield those that are alike then."""
    by_likelihood = sorted(likely, key=lambda look: -likely[look])
    wanted = [look for look in by_likelihood if look[:2] not in found][:MOST_ALIGNED]
    aligned = dict(_aligned(_halved(miniatures), wanted))
    close = [look for look, value in aligned.items() if value >= WORTH_A_CLOSE_LOOK]
    aligned |= dict(_aligned(miniatures, close))
    for look in list(_that_stand_out(aligned, len(miniatures), WORTH_REFINING, LOOSELY)):
        aligned[look] = max(aligned[look], _refined(miniatures, look))
    for one, other, mirrored in _that_stand_out(aligned, len(miniatures), ALIGNED, STANDS_OUT):
        yield Pair(one, other, aligned[one, other, mirrored], "mirrored and moved" if mirrored else "moved")


def _refined(miniatures: NDArray[np.uint8], look: Look) -> float:
    """Correlation after the best affine move (stretch and shear, too: pictures are squeezed into squares)."""
    from scipy.ndimage import affine_transform, gaussian_filter
    from scipy.optimize import minimize

    one, other, mirrored = look
    side = miniatures.shape[1]
    taper = np.outer(*(np.hanning(side + 2)[1:-1],) * 2) ** 0.5
    greys = miniatures[[one, other]].astype(np.float64)
    sharp = [grey - gaussian_filter(grey, BEFORE_TURNING, mode="nearest") for grey in greys]
    target, moving = _unit(sharp[0] * taper), sharp[1][:, ::-1] if mirrored else sharp[1]
    centre = (side - 1) / 2

    def lacks(change: NDArray[np.float64]) -> float:
        matrix = np.eye(2) + change[:4].reshape(2, 2) / side
        offset = centre + change[4:] - matrix @ np.full(2, centre)
        moved = affine_transform(moving, matrix, offset, order=1, mode="nearest")
        return 1 - float((target * _unit(moved * taper)).sum())

    best = min((_start(turn, zoom, side) for turn in TURNS for zoom in ZOOMS), key=lacks)
    found = minimize(
        lacks, best, method="Powell", options={"maxfev": EVALUATIONS, "xtol": 0.02, "ftol": 1e-4}
    )
    return min(1.0, 1 - float(found.fun))


def _start(degrees: float, zoom: float, side: int) -> NDArray[np.float64]:
    turn = np.deg2rad(degrees)
    matrix = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.concatenate([((matrix - np.eye(2)) * side).ravel(), np.zeros(2)])


def _unit(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = picture - picture.mean()
    unit: NDArray[np.float64] = centred / max(float(np.linalg.norm(centred)), 1e-6)
    return unit


def _usual(values: Floats) -> NDArray[np.float64]:
    """How alike each image is to its fourth most alike one; of a small collection, to the middle one."""
    rank = min(OTHERS, values.shape[1] // 2)
    ranked = -np.partition(-values, rank, axis=1)[:, rank]
    return ranked.astype(np.float64)


def _note(likely: dict[Look, float], rows: range, values: Floats, *, mirrored: bool) -> None:
    """Remember the likeliest pairs of each image."""
    count = min(NEIGHBOURS, values.shape[1] - 1)
    best = np.argpartition(-values, count, axis=1)[:, :count]
    for at, columns in enumerate(best):
        for column in columns:
            if values[at, column] >= LIKELY:
                one, other = sorted((rows.start + at, int(column)))
                look = one, other, mirrored
                likely[look] = max(float(values[at, column]), likely.get(look, 0.0))


def _that_stand_out(aligned: Mapping[Look, float], count: int, least: float, ratio: float) -> Iterator[Look]:
    """Pairs that are alike, and far more so than the other likely pairs of their images."""
    of_image: list[list[float]] = [[] for _ in range(count)]
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
    digests: Sequence[bytes] | NDArray[np.bytes_], side: NDArray[np.intp], shows: NDArray[np.bool_]
) -> Iterator[tuple[int, int]]:
    """Pairs with equal pixels, the first of each set with each other; an empty picture is no evidence."""
    sets: defaultdict[bytes, list[int]] = defaultdict(list)
    for row, digest in enumerate(digests):
        if shows[row]:
            sets[bytes(digest)].append(row)
    for first, *others in sets.values():
        yield from ((first, other) for other in others if side[first] != side[other])


def _across(
    bands: Floats, others: Floats, side: NDArray[np.intp], shows: NDArray[np.bool_]
) -> Iterator[tuple[range, Floats]]:
    """Correlation of some rows with all, block by block; -1 within a side and where there is nothing to be seen."""
    for start in range(0, len(bands), ROWS):
        rows = range(start, min(start + ROWS, len(bands)))
        part = slice(rows.start, rows.stop)
        values = bands[part] @ others.T
        values[(side[part][:, None] == side) | ~shows[part][:, None] | ~shows] = -1.0
        yield rows, values


def _middle_frequencies(miniatures: NDArray[np.uint8]) -> tuple[Floats, NDArray[np.bool_]]:
    """Rows ``(n, values)`` with mean 0 and norm 1, and whether there is anything to be seen."""
    from scipy.ndimage import gaussian_filter

    rows = np.empty((len(miniatures), (miniatures.shape[1] // 2) ** 2), np.float32)
    for row, miniature in zip(rows, miniatures, strict=True):
        grey = miniature.astype(np.float32)
        band = gaussian_filter(grey, FINE, mode="nearest") - gaussian_filter(grey, COARSE, mode="nearest")
        row[:] = band[::2, ::2].ravel()
    rows -= rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(rows, axis=1)
    shows = norms > FAINT * np.sqrt(rows.shape[1])
    return rows / np.maximum(norms, 1e-6)[:, None].astype(np.float32), shows


def _halved(miniatures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean of each two by two pixels."""
    count, side, _ = miniatures.shape
    means = miniatures.reshape(count, side // 2, 2, side // 2, 2).mean(axis=(2, 4))
    halved: NDArray[np.uint8] = np.rint(means).astype(np.uint8)
    return halved


def _enlarged(miniatures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of each miniature, stretched to its size."""
    operator = _turn_and_zoom(miniatures.shape[1], 0.0, LOOK_ZOOM)
    flat = miniatures.reshape(len(miniatures), -1).astype(np.float32)
    stretched: NDArray[np.uint8] = np.rint((operator @ flat.T).T).astype(np.uint8).reshape(miniatures.shape)
    return stretched


def _aligned(miniatures: NDArray[np.uint8], pairs: Iterable[Look]) -> Iterator[tuple[Look, float]]:
    """Correlation of each pair after the best turn, zoom and shift of its second image."""
    from scipy.fft import irfft2, rfft2
    from scipy.ndimage import gaussian_filter
    from scipy.sparse import vstack

    by_second: defaultdict[tuple[int, bool], list[int]] = defaultdict(list)
    for one, other, mirrored in pairs:
        by_second[other, mirrored].append(one)
    if not by_second:
        return
    side = miniatures.shape[1]
    moves = vstack([_turn_and_zoom(side, turn, zoom) for turn in TURNS for zoom in ZOOMS]).tocsr()
    shifts = np.arange(-side // SHIFT_SHARE, side // SHIFT_SHARE + 1)
    taper = np.sqrt(np.outer(*(np.hanning(side + 2)[1:-1],) * 2)).astype(np.float32)

    def sharpened(row: int) -> Floats:
        grey = miniatures[row].astype(np.float32)
        fine: Floats = grey - gaussian_filter(grey, BEFORE_TURNING * side / 64, mode="nearest")
        return fine

    def spectra(pictures: Floats) -> NDArray[np.complex64]:
        seen = pictures * taper
        seen -= seen.mean(axis=(1, 2), keepdims=True)
        seen /= np.maximum(np.sqrt((seen**2).sum(axis=(1, 2), keepdims=True)), 1e-6)
        transformed: NDArray[np.complex64] = rfft2(seen)
        return transformed

    for (other, mirrored), ones in by_second.items():
        fine = sharpened(other)[:, ::-1] if mirrored else sharpened(other)
        moved = spectra((moves @ fine.ravel()).reshape(-1, side, side).astype(np.float32))
        for one in ones:
            products = irfft2(moved * np.conj(spectra(sharpened(one)[None])), s=(side, side))
            near = products[:, shifts][:, :, shifts]
            yield (one, other, mirrored), min(1.0, float(near.max()))


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
    return csr_array(
        (weights.astype(np.float32), (np.tile(np.arange(side**2), 4), sources)), shape=(side**2, side**2)
    )
