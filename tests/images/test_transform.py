"""A view's numbers come from (seed, image id) alone, and its one matrix is Keras'."""

from __future__ import annotations

import hashlib
import math
import os
import random
import struct
import subprocess
import sys
from dataclasses import asdict, fields
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from featstore.images import augment as module
from featstore.images.augment import Transform, affine, draw, uniforms
from featstore.images.recipe import PRESETS, Recipe, parse_recipe

ID = "a" * 64
PAPER = parse_recipe("paper")
IDS = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(2000)]

GOLDEN_UNIFORMS = (
    0.17575280046560038,
    0.8088944037659577,
    0.14457521464844203,
    0.254369972573659,
    0.5221972803913836,
    0.7567516680510937,
    0.2977213623706315,
    0.7964881570160841,
)
GOLDEN_TRANSFORM = Transform(
    theta=32.96988798137598,
    tx=-92.35942672602134,
    ty=106.27201082011584,
    shear=9.82520109705364,
    zx=0.9911210878434465,
    zy=0.9911210878434465,
    flip_horizontal=True,
    flip_vertical=False,
)


def test_the_draw_is_written_in_stone():
    """A change here changes every view ever cached: it needs a new Decoding.revision, not new numbers."""
    assert uniforms(3, ID) == GOLDEN_UNIFORMS
    assert draw(PAPER, 3, ID, 299, 299) == GOLDEN_TRANSFORM


@settings(deadline=None)
@given(st.integers(-(2**70), 2**70), st.text("0123456789abcdef", min_size=64, max_size=64))
def test_the_uniforms_are_the_top_53_bits_of_each_word_of_a_sha512(seed, image_id):
    digest = hashlib.sha512(f"featstore view 1\n{seed}\n{image_id}".encode()).digest()
    expected = tuple((word >> 11) / 2**53 for word in struct.unpack(">8Q", digest))
    assert uniforms(seed, image_id) == expected
    assert all(0 <= u < 1 for u in expected)


def test_numpy_seeds_and_python_seeds_are_the_same_seeds():
    assert uniforms(np.int64(3), ID) == uniforms(3, ID)


def test_neither_order_nor_anyones_random_state_changes_a_draw():
    jobs = [(seed, image_id) for seed in (1, 2) for image_id in IDS[:50]]
    straight = {job: draw(PAPER, *job, 224, 224) for job in jobs}
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert {job: draw(PAPER, *job, 224, 224) for job in reversed(jobs)} == straight


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_another_process_draws_the_same(hash_seed):
    code = (
        "from featstore.images.augment import draw; from featstore.images.recipe import parse_recipe;"
        f"print(draw(parse_recipe('paper'), 3, {ID!r}, 299, 299))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == repr(GOLDEN_TRANSFORM)


def test_seeds_and_images_differ():
    assert len({uniforms(seed, image_id) for seed in range(4) for image_id in IDS[:250]}) == 1000


def test_every_slot_is_uniform_and_independent_of_the_others_and_of_the_next_seed():
    draws = np.array([[*uniforms(1, image_id), *uniforms(2, image_id)] for image_id in IDS])
    assert all(kstest(slot, "uniform").pvalue > 1e-4 for slot in draws.T)
    correlation = np.corrcoef(draws.T) - np.eye(16)
    assert np.abs(correlation).max() < 5 / np.sqrt(len(IDS))


def test_the_paper_recipe_reaches_all_of_its_ranges():
    drawn = [draw(PAPER, 1, image_id, 200, 100) for image_id in IDS]
    reached = {f.name: [getattr(t, f.name) for t in drawn] for f in fields(Transform)}
    for name, low, high in [
        ("theta", 0, 40),
        ("tx", -100, 100),
        ("ty", -50, 50),
        ("shear", -20, 20),
        ("zx", 0.8, 1.2),
    ]:
        values = reached[name]
        assert low < min(values) < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < max(values) <= high
    assert reached["zx"] == reached["zy"]
    for name in ("flip_horizontal", "flip_vertical"):
        assert set(reached[name]) == {True, False}
        assert abs(sum(reached[name]) - len(IDS) / 2) < 5 * np.sqrt(len(IDS)) / 2


EXTREMES = st.sampled_from([0.0, 2.0**-53, 0.5, 1 - 2.0**-53])


@settings(deadline=None)
@given(
    st.one_of(EXTREMES, st.floats(0, 1, exclude_max=True)),
    st.lists(st.floats(-1e5, 1e5), min_size=2, max_size=2, unique=True),
)
@example(0.75, [100.0, math.nextafter(100.0, math.inf)])
def test_a_range_excludes_its_low_end_and_includes_its_high_end(u, ends):
    lo, hi = sorted(ends)
    with patch.object(module, "uniforms", return_value=(u,) * 8):
        theta = draw(Recipe(rotate=(lo, hi)), 0, ID, 9, 9).theta
    assert lo < theta <= hi
    assert theta == hi or u > 0


@settings(deadline=None)
@given(st.floats(1e-6, 1e5), EXTREMES)
def test_a_rotation_in_0_to_max_is_never_0(largest, u):
    with patch.object(module, "uniforms", return_value=(u,) * 8):
        assert draw(Recipe(rotate=(0, largest)), 0, ID, 9, 9).theta > 0


def test_a_flip_that_is_not_asked_for_never_happens():
    for recipe, horizontal, vertical in [("flip(h)", True, False), ("flip(v)", False, True)]:
        drawn = [draw(parse_recipe(recipe), 1, image_id, 9, 9) for image_id in IDS[:200]]
        assert any(t.flip_horizontal for t in drawn) is horizontal
        assert any(t.flip_vertical for t in drawn) is vertical


@pytest.mark.parametrize("off", ["shear", "rotate", "shift", "zoom", "flip"])
def test_leaving_one_operation_out_leaves_the_draws_of_the_others(off):
    touched = {
        "shear": {"shear"},
        "rotate": {"theta"},
        "shift": {"tx", "ty"},
        "zoom": {"zx", "zy"},
        "flip": {"flip_horizontal", "flip_vertical"},
    }[off]
    rest = parse_recipe("|".join(step for step in PRESETS["paper"].split("|") if not step.startswith(off)))
    for image_id in IDS[:20]:
        full, less = (asdict(draw(recipe, 1, image_id, 64, 48)) for recipe in (PAPER, rest))
        assert {name for name in full if full[name] != less[name]} <= touched
        assert all(less[name] == getattr(Transform(), name) for name in touched)


def test_two_input_sizes_show_the_same_view():
    for image_id in IDS[:20]:
        small, large = (draw(PAPER, 1, image_id, side, side) for side in (150, 300))
        assert (small.theta, small.shear, small.zx) == (large.theta, large.shear, large.zx)
        assert (2 * small.tx, 2 * small.ty) == pytest.approx((large.tx, large.ty))


def test_the_identity_recipe_draws_the_identity():
    assert {draw(parse_recipe("identity"), 5, image_id, 31, 17) for image_id in IDS[:50]} == {Transform()}
    assert np.array_equal(affine(Transform(), 31, 17), np.eye(2, 3))


def test_keras_moves_the_columns_by_what_it_draws_from_the_height():
    """Keras swaps its axes after composing the map: `tx`, a fraction of the height, shifts the columns."""
    assert np.array_equal(affine(Transform(tx=3.0), 20, 10), [[1, 0, 0], [0, 1, 3]])
    assert np.array_equal(affine(Transform(ty=3.0), 20, 10), [[1, 0, 3], [0, 1, 0]])


def test_keras_turns_an_image_that_is_not_square_about_the_wrong_point():
    matrix = affine(Transform(theta=33.0, zx=1.2, zy=1.2), 20, 10)
    keras_centre = np.array([4.5, 9.5])
    assert matrix @ [*keras_centre, 1] == pytest.approx(keras_centre)


angles = st.one_of(st.sampled_from([0.0, 90.0, -90.0, 180.0]), st.floats(-180, 180))
transforms = st.builds(
    lambda zoom, **others: Transform(zx=zoom, zy=zoom, **others),
    theta=angles,
    tx=st.floats(-30, 30),
    ty=st.floats(-30, 30),
    shear=st.floats(-60, 60),
    zoom=st.floats(0.3, 3),
    flip_horizontal=st.booleans(),
    flip_vertical=st.booleans(),
)


@pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")
@settings(deadline=None)
@given(transforms, st.integers(2, 40), st.integers(2, 40))
def test_the_matrix_says_where_keras_reads_each_pixel(transform, height, width):
    """Keras warps an image that holds its own coordinates: what comes out is the map, clipped at the border."""
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    keras = ImageDataGenerator(fill_mode="nearest", data_format="channels_last", dtype="float64")
    expected = keras.apply_transform(np.stack([rows, columns], axis=-1), asdict(transform))
    matrix = affine(transform, height, width)
    assert matrix.shape == (2, 3)
    assert matrix.dtype == np.float64
    row, column = np.tensordot(matrix, [rows, columns, np.ones_like(rows)], axes=1)
    np.testing.assert_allclose(np.clip(row, 0, height - 1), expected[:, :, 0], atol=1e-9)
    np.testing.assert_allclose(np.clip(column, 0, width - 1), expected[:, :, 1], atol=1e-9)
