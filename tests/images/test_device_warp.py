"""The warp on the device shows what the warp on the host shows."""

import numpy as np
import pytest

pytest.importorskip("jax", reason="JAX is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st

from featstore.images import device_warp
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


def jumps(transform, height, width):
    """Output pixels that are read within a millionth of where ``constant`` and ``wrap`` jump."""
    where = device_warp.reads([transform], height, width)
    at = (where.rows[0, :, :, None] + where.columns[0, :, None, :]) / 2.0**device_warp.BITS
    near = np.zeros((height, width), bool)
    for coordinate, size in zip(at, (height, width), strict=True):
        period = max(size - 1, 1)
        near |= np.abs(coordinate / period - np.rint(coordinate / period)) * period < 2e-6
    return near


@settings(max_examples=40, deadline=None)
@given(
    transform=TRANSFORMS,
    fill=st.sampled_from(FILLS),
    seed=st.integers(0, 9),
    shape=st.sampled_from([(37, 53, 1), (40, 40, 3)]),
)
def test_a_view_is_that_of_the_host(transform, fill, seed, shape):
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    expected = warp(pixels, transform, fill, 7.0)
    found = np.asarray(device_warp.warp(pixels[None], device_warp.reads([transform], *shape[:2]), fill, 7.0))[
        0
    ]
    differ = (np.abs(found - expected) > device_warp.TOLERANCE).any(axis=2)
    assert not (differ & ~jumps(transform, *shape[:2])).any()


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize(
    "transform", [Transform(), Transform(flip_horizontal=True), Transform(flip_vertical=True, tx=3.0)]
)
def test_whole_pixels_move_whole(transform, fill):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    found = np.asarray(device_warp.warp(pixels[None], device_warp.reads([transform], 20, 31), fill, 7.0))[0]
    assert (found == warp(pixels, transform, fill, 7.0)).all()


def test_a_view_from_too_far_away_is_refused():
    with pytest.raises(ValueError, match="more than 2048 away"):
        device_warp.reads([Transform(tx=5000.0)], 32, 32)
