"""Copies across patients: found however they were made, and never where chests merely resemble each other."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import affine_transform, gaussian_filter

from featstore.images.augment import resize
from featstore.images.near_copies import SIDE, Miniatures, affine_sampler, find_copies
from featstore.images.reading import pixel_digest
from featstore.phantom import phantom_slice

PATIENTS = 24


def miniature(picture):
    return np.rint(resize(np.asarray(picture)[..., None], SIDE).mean(axis=2)).astype(np.uint8)


def digest(picture):
    return pixel_digest(np.asarray(picture)[..., None])


@pytest.fixture(scope="module")
def chests():
    labels = ("covid", "normal")
    return [Image.fromarray(phantom_slice(n, label=labels[n % 2], size=128, z=0.4)) for n in range(PATIENTS)]


@pytest.fixture(scope="module")
def pictures():
    """Common shape, own texture, as tissue has it: coarse, middling and fine."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    frame = 60 * np.exp(-2 * (x**2 + 2 * y**2))

    def own():
        fields = [
            (gaussian_filter(rng.normal(size=(128, 128)), s), a) for s, a in ((12, 40), (4, 25), (1.5, 15))
        ]
        return frame + sum(amount * field / field.std() for field, amount in fields)

    return [Image.fromarray((90 + own()).clip(0, 255).astype(np.uint8)) for _ in range(PATIENTS)]


def copies(pictures):
    """Pairs among pictures that all belong to different patients."""
    small = np.array([miniature(picture) for picture in pictures])
    return find_copies(
        Miniatures.of(small), [digest(p) for p in pictures], [f"p{n}" for n in range(len(pictures))]
    ).pairs


def cropped(picture, share):
    width, height = picture.size
    box = width * share, height * share, width * (1 - share), height * (1 - share)
    return picture.crop(tuple(round(edge) for edge in box))


def compressed(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=40)
    return Image.open(buffer)


WAYS = {
    "compressed": compressed,
    "half the size": lambda picture: picture.resize((64, 64)),
    "brighter": lambda picture: picture.point(lambda value: min(255, int(value * 1.2))),
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    **{
        f"lying another way ({way.name})": lambda picture, way=way: picture.transpose(way)
        for way in Image.Transpose
        if way != Image.Transpose.FLIP_LEFT_RIGHT
    },
    "upside down and brighter": lambda picture: picture.rotate(180).point(lambda v: min(255, int(v * 1.2))),
    "turned by 3 degrees": lambda picture: picture.rotate(3, Image.Resampling.BILINEAR),
    "cropped by 5 % in all": lambda picture: cropped(picture, 0.025),
    "cropped by 5 % on each side": lambda picture: cropped(picture, 0.05),
    "turned and mirrored": lambda picture: picture.rotate(-3, Image.Resampling.BILINEAR).transpose(
        Image.Transpose.FLIP_LEFT_RIGHT
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_under_another_patient_is_found_and_nothing_else(pictures, way):
    victim = 5
    pairs = copies([*pictures, WAYS[way](pictures[victim])])
    assert [pair[:2] for pair in pairs] == [(victim, len(pictures))]


def test_equal_pixels_are_told_as_such_and_rank_first(chests):
    pairs = copies([*chests, chests[3]])
    assert pairs[0] == (3, len(chests), 1.0, "same pixels")


@pytest.mark.slow
def test_different_patients_are_no_copies_and_images_of_one_patient_are_no_finding(chests):
    small = np.array([miniature(p) for p in chests])
    digests = [digest(p) for p in chests]
    assert len(find_copies(Miniatures.of(small), digests, [f"p{n}" for n in range(PATIENTS)]).pairs) <= 1
    doubled = np.concatenate([small, small])
    assert find_copies(
        Miniatures.of(doubled), digests * 2, [f"p{n % PATIENTS}" for n in range(2 * PATIENTS)]
    ) == find_copies(Miniatures.of(doubled), digests * 2, [f"p{n % PATIENTS}" for n in range(2 * PATIENTS)])
    within = find_copies(
        Miniatures.of(doubled), digests * 2, [f"p{n % PATIENTS}" for n in range(2 * PATIENTS)]
    )
    assert all(pair.first % PATIENTS != pair.second % PATIENTS for pair in within.pairs)


def test_empty_pictures_are_no_copies_of_each_other():
    black = np.zeros((6, SIDE, SIDE), np.uint8)
    assert find_copies(Miniatures.of(black), [bytes(32)] * 6, list("abcdef")).pairs == ()


def test_noise_is_no_copy_of_noise():
    noise = np.random.default_rng(0).integers(0, 256, (40, SIDE, SIDE), dtype=np.uint8)
    assert (
        find_copies(
            Miniatures.of(noise), [bytes([n]) * 32 for n in range(40)], [str(n) for n in range(40)]
        ).pairs
        == ()
    )


@pytest.mark.parametrize("spread", [0.02, 0.2, 1.0])
def test_a_moved_picture_has_the_bits_of_scipys(spread):
    rng = np.random.default_rng(7)
    picture = rng.normal(0, 50, (SIDE, SIDE))
    move = affine_sampler(picture)
    for _ in range(20):
        matrix = np.eye(2) + rng.normal(0, spread, (2, 2))
        offset = rng.normal(0, 30 * spread, 2)
        np.testing.assert_array_equal(
            move(matrix, offset), affine_transform(picture, matrix, offset, order=1, mode="nearest")
        )
