"""Our warp is Keras' warp, pixel for pixel, in every fill mode and on every border."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featstore.errors import RecipeError
from featstore.images.augment import Transform, draw, warp
from featstore.images.recipe import FILLS, parse_recipe

# Keras still reaches scipy through a namespace that scipy has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")

TOLERANCE = 1e-3  # grey levels
CVAL = 77.5


def noise(height, width, channels, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def keras_warp(image, transform, fill):
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    generator = ImageDataGenerator(fill_mode=fill, cval=CVAL, data_format="channels_last")
    return generator.apply_transform(image.astype(np.float32), asdict(transform))


def assert_equals_keras(image, transform, fill):
    ours = warp(image, transform, fill, CVAL)
    assert ours.dtype == np.float32
    assert ours.shape == image.shape
    np.testing.assert_allclose(ours, keras_warp(image, transform, fill), rtol=0, atol=TOLERANCE)


# Pixels far outside, on the border to the last bit, and anywhere between.
shifts = st.one_of(
    st.sampled_from([0.0, 0.5, 1.0, -1.0]), st.integers(-80, 80).map(float), st.floats(-80, 80)
)
transforms = st.builds(
    lambda zoom, **others: Transform(zx=zoom, zy=zoom, **others),
    theta=st.one_of(st.sampled_from([0.0, 45.0, 90.0, -90.0, 180.0, 270.0]), st.floats(-360, 360)),
    tx=shifts,
    ty=shifts,
    shear=st.one_of(st.just(0.0), st.floats(-80, 80)),
    zoom=st.one_of(st.sampled_from([1.0, 0.5, 2.0]), st.floats(0.1, 5)),
    flip_horizontal=st.booleans(),
    flip_vertical=st.booleans(),
)
sides = st.integers(1, 33)


@pytest.mark.parametrize("fill", FILLS)
@settings(deadline=None, max_examples=200)
@given(transform=transforms, height=sides, width=sides, channels=st.sampled_from([1, 3]))
def test_any_transform_of_any_image_equals_keras(fill, transform, height, width, channels):
    assert_equals_keras(noise(height, width, channels), transform, fill)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("shape", [(64, 48, 3), (48, 64, 1), (299, 299, 3)])
def test_the_views_of_the_paper_equal_keras(shape, fill):
    height, width, _ = shape
    for seed in range(3):
        transform = draw(parse_recipe("paper"), seed, "a" * 64, height, width)
        assert_equals_keras(noise(*shape), transform, fill)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("fraction", [0.5, -0.5, 1.0, -1.0, 2.5, -2.5])
def test_shifts_of_half_the_image_and_more_equal_keras(fraction, fill):
    for height, width in [(20, 20), (31, 18)]:
        moved = Transform(tx=fraction * height, ty=-fraction * width)
        assert_equals_keras(noise(height, width, 3), moved, fill)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("theta", [90.0, -90.0, 180.0, 270.0, 360.0])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
def test_quarter_turns_put_pixels_on_the_border_and_still_equal_keras(theta, fill, flips):
    """The last bit of the coordinate decides here between the border pixel and the outside."""
    for height, width in [(17, 17), (16, 16), (9, 14)]:
        turned = Transform(theta=theta, flip_horizontal=flips[0], flip_vertical=flips[1])
        assert_equals_keras(noise(height, width, 3), turned, fill)


@pytest.mark.parametrize("turns", [-5.0, 5.0])
def test_wrap_has_a_period_one_short_of_the_image_as_scipy_has_it(turns):
    """Six pixels repeat every five; where they meet, scipy shows the last on the left, the first on the right."""
    row = np.arange(6, dtype=np.float32).reshape(1, 6, 1)
    assert warp(row, Transform(tx=turns), "wrap")[0, :, 0].tolist() == [5, 1, 2, 3, 4, 0]


def test_constant_is_hard_at_the_centre_of_the_border_pixel():
    row = np.full((1, 4, 1), 100, dtype=np.uint8)
    moved = warp(row, Transform(tx=0.25), "constant", cval=7.0)
    assert moved[0, :, 0].tolist() == [100, 100, 100, 7]


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        ("nearest", [3, 4, 4, 4]),
        ("reflect", [3, 4, 4, 3]),
        ("constant", [3, 4, 0, 0]),
        ("wrap", [3, 4, 2, 3]),
    ],
)
def test_the_fill_modes_by_hand(fill, expected):
    row = np.array([1, 2, 3, 4], dtype=np.uint8).reshape(1, 4, 1)
    assert warp(row, Transform(tx=2.0), fill)[0, :, 0].tolist() == expected


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_the_identity_returns_the_very_pixels(height, width, seed):
    pixels = np.random.default_rng(seed).normal(0, 1e4, (height, width, 3)).astype(np.float32)
    for fill in FILLS:
        same = warp(pixels, Transform(), fill, CVAL)
        assert same.tobytes() == pixels.tobytes()
        assert not np.shares_memory(same, pixels)


def test_flips_alone_only_move_pixels():
    image = noise(7, 5, 3)
    assert np.array_equal(warp(image, Transform(flip_horizontal=True)), image[:, ::-1])
    assert np.array_equal(warp(image, Transform(flip_vertical=True)), image[::-1])
    assert np.array_equal(warp(image, Transform(flip_horizontal=True, flip_vertical=True)), image[::-1, ::-1])
    assert warp(image, Transform(flip_vertical=True)).flags.c_contiguous


@settings(deadline=None)
@given(transforms, st.sampled_from(FILLS), sides, sides)
def test_a_grey_image_gives_the_values_of_its_three_equal_channels(transform, fill, height, width):
    grey = noise(height, width, 1)
    one = warp(grey, transform, fill, CVAL)
    three = warp(np.repeat(grey, 3, axis=2), transform, fill, CVAL)
    assert np.repeat(one, 3, axis=2).tobytes() == three.tobytes()


@settings(deadline=None)
@given(transforms, st.sampled_from(FILLS))
def test_bytes_and_floats_of_the_same_image_warp_alike(transform, fill):
    image = noise(12, 15, 3)
    assert np.array_equal(warp(image, transform, fill), warp(image.astype(np.float32), transform, fill))


@settings(deadline=None)
@given(transforms, st.sampled_from(["nearest", "reflect", "wrap"]))
def test_no_grey_level_is_invented(transform, fill):
    image = noise(12, 15, 1)
    warped = warp(image, transform, fill)
    assert image.min() - TOLERANCE <= warped.min()
    assert warped.max() <= image.max() + TOLERANCE


@pytest.mark.parametrize("fill", FILLS)
def test_an_image_wider_than_a_block_and_one_of_many_blocks_equal_keras(fill):
    tilted = Transform(theta=3.0, tx=5.0, shear=4.0, zx=1.1, zy=1.1, flip_horizontal=True)
    assert_equals_keras(noise(5, 20_000, 1), tilted, fill)
    assert_equals_keras(noise(701, 203, 1), tilted, fill)


def test_the_input_is_left_alone_even_when_it_is_read_only_or_strided():
    image = noise(20, 30, 3)
    view = image[::2, ::-1]
    view.flags.writeable = False
    before = image.copy()
    for fill in FILLS:
        assert_equals_keras(view, Transform(theta=20.0, tx=4.0), fill)
    assert np.array_equal(image, before)


def test_threads_get_the_bytes_of_a_single_thread():
    image = noise(120, 120, 3)
    drawn = [draw(parse_recipe("paper"), seed, "b" * 64, 120, 120) for seed in range(24)]

    def job(transform):
        return warp(image, transform, "reflect").tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(job, drawn)) == [job(transform) for transform in drawn]


@pytest.mark.parametrize("fill", ["mirror", "MIRROR", "grid-wrap", ""])
def test_an_unknown_fill_is_refused(fill):
    with pytest.raises(RecipeError, match="fill"):
        warp(noise(9, 9, 1), Transform(theta=1.0), fill)
