"""The warp on the device shows what the warp on the host shows."""

import jaxprocess
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featstore.images import augment
from featstore.images.augment import Transform, warp

FILLS = ("nearest", "reflect", "wrap", "constant")
TRANSFORMS = st.builds(
    Transform,
    theta=st.floats(-180, 180),
    tx=st.floats(-40, 40),
    ty=st.floats(-40, 40),
    shear=st.floats(-40, 40),
    zx=st.floats(0.4, 2.5),
    zy=st.floats(0.4, 2.5),
    flip_horizontal=st.booleans(),
    flip_vertical=st.booleans(),
)


@pytest.fixture(scope="module")
def on_device():
    with jaxprocess.start() as process:
        yield lambda function, *arguments: process.submit(function, *arguments).result()


def jumps(transform, height, width):
    """Output pixels that are read within a millionth of where ``constant`` and ``wrap`` jump."""
    where = augment.reads([transform], height, width)
    at = (where.rows[0, :, :, None] + where.columns[0, :, None, :]) / 2.0**augment.BITS
    near = np.zeros((height, width), bool)
    for coordinate, size in zip(at, (height, width), strict=True):
        period = max(size - 1, 1)
        near |= np.abs(coordinate / period - np.rint(coordinate / period)) * period < 2e-6
    return near


@pytest.mark.slow
def test_a_view_is_that_of_the_host(on_device):
    @settings(max_examples=40)
    @given(
        transform=TRANSFORMS,
        fill=st.sampled_from(FILLS),
        seed=st.integers(0, 9),
        shape=st.sampled_from([(37, 53, 1), (40, 40, 3)]),
    )
    def agrees(transform, fill, seed, shape):
        pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        expected = warp(pixels, transform, fill, 7.0)
        found = on_device(jaxprocess.warped, pixels[None], transform, fill, 7.0)[0]
        differ = (np.abs(found - expected) > augment.TOLERANCE).any(axis=2)
        assert not (differ & ~jumps(transform, *shape[:2])).any()

    agrees()


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize(
    "transform", [Transform(), Transform(flip_horizontal=True), Transform(flip_vertical=True, tx=3.0)]
)
def test_whole_pixels_move_whole(on_device, transform, fill):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    found = on_device(jaxprocess.warped, pixels[None], transform, fill, 7.0)[0]
    assert (found == warp(pixels, transform, fill, 7.0)).all()


def test_a_view_from_too_far_away_is_refused():
    with pytest.raises(augment.TooFarError, match="more than 2048 away"):
        augment.reads([Transform(tx=5000.0)], 32, 32)


TURNED = Transform(theta=30.0, tx=2.0, zx=1.2)


def pictures(count, channels):
    return list(np.random.default_rng(1).integers(0, 256, (count, 24, 24, channels), dtype=np.uint8))


@pytest.mark.parametrize("transforms", [[], [TURNED, Transform()]], ids=["as they are", "turned"])
def test_grey_pictures_travel_on_one_channel_and_look_the_same_beside_coloured_ones(on_device, transforms):
    grey = pictures(3, 1)
    kind, shape, alone = on_device(jaxprocess.seen, grey, [2, 0], transforms, "reflect", 0.0, 4)
    assert (kind, shape, alone.shape) == ("uint8", (4, 24, 24, 1), (4, 24, 24, 3))
    _, shape, beside = on_device(
        jaxprocess.seen, [*grey, *pictures(2, 3)], [2, 0], transforms, "reflect", 0.0, 4
    )
    assert shape == (8, 24, 24, 3)
    assert alone[:2].tobytes() == beside[:2].tobytes()
    expected = warp(grey[2], transforms[0] if transforms else Transform(), "reflect", 0.0)
    assert np.abs(alone[0] - expected).max() <= augment.TOLERANCE


def test_a_picture_looks_the_same_at_any_place(on_device):
    images, transforms = pictures(5, 3), [replace_turn(at) for at in range(5)]
    _, _, forward = on_device(jaxprocess.seen, images, range(5), transforms, "wrap", 0.0, 8)
    _, _, backward = on_device(jaxprocess.seen, images[::-1], range(5), transforms[::-1], "wrap", 0.0, 8)
    assert forward[:5].tobytes() == np.ascontiguousarray(backward[:5][::-1]).tobytes()


def replace_turn(at):
    return Transform(theta=17.0 * at, shear=3.0 * at)
