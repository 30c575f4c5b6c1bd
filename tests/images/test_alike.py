"""Copies among many pictures: work and memory for each picture are bounded, whatever the pictures show."""

import tracemalloc
from importlib import import_module

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from featstore.evaluation.leakage import copies_found
from featstore.image_facts import CopiesFound
from featstore.images import near_copies
from featstore.images import near_copies as alike
from featstore.images.near_copies import SIDE, Miniatures, find_copies
from featstore.images.scan import scan


@pytest.fixture
def small_cells(monkeypatch):
    """Collections of hundreds are sorted into cells, as thousands are."""
    monkeypatch.setattr(alike, "ALL_WITH_ALL", 64)
    monkeypatch.setattr(alike, "PER_CELL", 32)
    monkeypatch.setattr(alike, "MOST_IN_CELL", 48)
    monkeypatch.setattr(alike, "ROWS", 64)
    monkeypatch.setattr(near_copies, "ROWS", 64)


@pytest.fixture
def compared(monkeypatch):
    """How many pairs of pictures were correlated."""
    counted, windows = [], alike._windows

    def counting(*arguments, **options):
        for ones, others in windows(*arguments, **options):
            counted.append(len(ones) * len(others))
            yield ones, others

    monkeypatch.setattr(alike, "_windows", counting)
    return counted


def textures(count, seed=0):
    rng = np.random.default_rng(seed)
    fields = [
        (gaussian_filter(rng.normal(size=(count, SIDE, SIDE)), (0, s, s)), a)
        for s, a in ((6, 40), (2, 25), (0.8, 15))
    ]
    return (110 + sum(amount * field / field.std() for field, amount in fields)).clip(0, 255).astype(np.uint8)


def lookalikes(count, seed=0):
    """One picture, and noise that no two share."""
    noise = np.random.default_rng(seed).normal(0, 6, (count, SIDE, SIDE))
    return (textures(1) + noise).clip(0, 255).astype(np.uint8)


def found(pictures):
    return find_copies(
        Miniatures.of(pictures),
        [n.to_bytes(32, "big") for n in range(len(pictures))],
        [str(n) for n in range(len(pictures))],
    )


WAYS = {
    "brighter": lambda picture: picture.point(lambda value: min(255, int(value * 1.2))),
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned": lambda picture: picture.rotate(3, Image.Resampling.BILINEAR),
    "cropped": lambda picture: picture.resize((64, 64), Image.Resampling.BILINEAR, box=(3, 3, 61, 61)),
}


@pytest.mark.usefixtures("small_cells")
def test_copies_are_found_across_the_cells_of_a_large_collection():
    pictures = textures(240)
    copies = [np.asarray(way(Image.fromarray(pictures[7 * n]))) for n, way in enumerate(WAYS.values())]
    pairs = found(np.concatenate([pictures, copies])).pairs
    assert {pair[:2] for pair in pairs} == {(7 * n, 240 + n) for n in range(len(WAYS))}


@pytest.mark.usefixtures("small_cells")
@pytest.mark.parametrize("draw", [textures, lookalikes])
def test_each_picture_is_compared_with_a_bounded_number_of_others(compared, monkeypatch, draw):
    monkeypatch.setattr(near_copies, "MOST_ALIGNED", 20)
    monkeypatch.setattr(near_copies, "MOST_REFINED", 2)
    per_picture = []
    for count in (150, 450):
        compared.clear()
        found(draw(count))
        per_picture.append(sum(compared) / count)
    looks = 9  # plain and mirrored, each enlarged too; five ways of lying on a side
    assert max(per_picture) <= looks * alike.PROBES * alike.MOST_IN_CELL
    assert per_picture[1] <= 1.3 * per_picture[0]


@pytest.mark.usefixtures("small_cells")
def test_what_was_not_compared_closely_is_said(monkeypatch):
    monkeypatch.setattr(near_copies, "MOST_ALIGNED", 20)
    monkeypatch.setattr(near_copies, "MOST_REFINED", 2)
    copies = found(lookalikes(300))
    assert copies.crowded > 48
    assert copies.left > 20
    assert len(copies.pairs) < 4 * 300, "pairs grow with the pictures, not with their square"
    (said,) = [f for f in copies_found((), CopiesFound((), copies.crowded, copies.left)) if f.code == "FS315"]
    assert f"{copies.crowded} images resemble so many others" in said.message
    assert f"{copies.left} likely pairs were not aligned closely" in said.message
    assert copies_found((), CopiesFound()) == ()


@pytest.mark.usefixtures("small_cells")
def test_copies_that_are_equal_are_all_found_in_a_crowd(monkeypatch):
    monkeypatch.setattr(near_copies, "MOST_ALIGNED", 20)
    monkeypatch.setattr(near_copies, "MOST_REFINED", 2)
    pictures = lookalikes(1).repeat(200, axis=0)
    pairs = find_copies(Miniatures.of(pictures), [bytes([7]) * 32] * 200, [str(n) for n in range(200)]).pairs
    assert {(0, n) for n in range(1, 200)} <= {pair[:2] for pair in pairs}
    assert len(pairs) < 5 * 200


@pytest.mark.usefixtures("small_cells")
def test_memory_beside_the_miniatures_is_a_few_bytes_for_each_value():
    noise = np.random.default_rng(0).integers(0, 256, (600, SIDE, SIDE), dtype=np.uint8)
    peaks = []
    for count in (200, 600):
        tracemalloc.start()
        try:
            found(noise[:count])
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 400 < 3 << 10


@pytest.mark.usefixtures("small_cells")
def test_pictures_that_are_not_at_hand_are_read_again_and_give_the_same_pairs(monkeypatch):
    pictures = textures(60)
    copies = [np.asarray(way(Image.fromarray(pictures[7 * n]))) for n, way in enumerate(WAYS.values())]
    every = np.concatenate([pictures, copies])
    in_memory = found(every)
    monkeypatch.setattr(near_copies, "AT_HAND", 3)
    monkeypatch.setattr(near_copies, "AT_ONCE", 8)
    asked = []

    def read(rows):
        asked.append(len(rows))
        return {row: every[row] for row in rows}

    digests, sides = [n.to_bytes(32, "big") for n in range(len(every))], [str(n) for n in range(len(every))]
    assert find_copies(Miniatures.of(every), digests, sides, read=read) == in_memory
    assert len(asked) > 1
    assert max(asked) < len(every)
    moved = {(14, 62), (21, 63)}
    assert moved <= {pair[:2] for pair in in_memory.pairs}
    gone = find_copies(Miniatures.of(every), digests, sides, read=lambda _: {})
    assert not moved & {pair[:2] for pair in gone.pairs}, "what cannot be read again is no copy, and no error"


def test_rows_that_are_left_out_do_not_move_the_others():
    pictures = textures(7)
    some = Miniatures.room_for(7)
    for row in (0, 2, 3, 6):
        some.put(row, pictures[row])
    kept, whole = some.only(np.array([0, 2, 3, 6])), Miniatures.of(pictures[[0, 2, 3, 6]])
    assert (kept.bands.values == whole.bands.values).all()
    assert kept.known.all()
    assert all((kept.at_hand[row] == whole.at_hand[row]).all() for row in range(4))


def test_a_scan_holds_what_the_manifest_holds_and_little_beside(tmp_path):
    import_module(
        "tqdm"
    )  # where the machine is busy, a bar is shown, and its modules are no row of the manifest
    peaks = []
    for count in (300, 900):
        folder = tmp_path / str(count)
        for label in ("a", "b"):
            (folder / label).mkdir(parents=True)
        for n in range(count):
            picture = np.full((4, 4), n % 256, np.uint8)
            picture[0, 0] = n // 256
            Image.fromarray(picture).save(folder / "ab"[n % 2] / f"{n}.png")
        tracemalloc.start()
        try:
            assert len(scan(folder).records) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 600 < 1500, "a row of the manifest takes 600 bytes"
