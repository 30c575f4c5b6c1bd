"""Resampling draws patients, and its intervals keep their promises."""

from pathlib import Path

import numpy as np
import pytest

from featstore.api.check import ReadableImages
from featstore.evaluation import intervals as bootstrap
from featstore.evaluation.estimates import held_out_primary, held_out_scores
from featstore.evaluation.intervals import group_weights, percentile_interval, weight_blocks, widen
from featstore.types import ImageRecord


def test_images_of_a_patient_are_drawn_together():
    groups = np.array(["a", "b", "a", "c", "b", "a"])
    weights = group_weights(groups, resamples=50)
    for name in "abc":
        members = weights[:, groups == name]
        assert (members == members[:, :1]).all()
    first = [int(np.flatnonzero(groups == name)[0]) for name in "abc"]
    assert (weights[:, first].sum(axis=1) == 3).all()


def test_the_same_seed_draws_the_same():
    groups = np.array(["a", "b", "c"])
    assert np.array_equal(group_weights(groups, 20, seed=4), group_weights(groups, 20, seed=4))
    assert not np.array_equal(group_weights(groups, 20, seed=4), group_weights(groups, 20, seed=5))


def test_patients_make_the_interval_wider_than_images_would():
    """20 patients with 10 equal images each carry the information of 20 images, not of 200."""
    values = np.repeat(np.random.default_rng(1).normal(size=20), 10)
    by_patient = np.repeat([f"p{i}" for i in range(20)], 10)
    by_image = np.array([f"i{i}" for i in range(200)])
    widths = []
    for groups in (by_patient, by_image):
        weights = group_weights(groups)
        low, high = percentile_interval((weights @ values) / weights.sum(axis=1))
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(10), rel=0.15)


def test_the_interval_of_a_mean_is_that_of_the_textbook():
    values = np.random.default_rng(2).normal(size=400)
    weights = group_weights(np.arange(400).astype(str), resamples=4000)
    low, high = percentile_interval((weights @ values) / weights.sum(axis=1))
    half = 1.96 * values.std() / np.sqrt(400)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_no_finite_value_is_no_interval():
    assert percentile_interval(np.array([np.nan, np.nan])) is None


def test_widening_keeps_what_was_seen_in_the_middle():
    """Resampling pushes some scores to one side; the spread is believed, the shift is not."""
    values = np.random.default_rng(0).normal(0.3, 0.01, 2001)
    values[0] = np.nan
    wide = widen(values, 0.2, 3.0)
    assert np.nanmedian(wide) == pytest.approx(0.2)
    assert np.nanstd(wide) == pytest.approx(3 * np.nanstd(values))


def test_blocks_of_resamples_are_the_same_resamples_and_so_is_the_interval(monkeypatch):
    monkeypatch.setattr(bootstrap, "BLOCK", 1000)
    rng = np.random.default_rng(0)
    groups = np.array([f"p{n // 2}" for n in range(120)])
    blocks = [*weight_blocks(groups)]
    assert max(block.size for block in blocks) <= 1000
    np.testing.assert_array_equal(np.concatenate(blocks), group_weights(groups))
    records = [
        ImageRecord(f"{n:064x}", Path(f"{n}.png"), "ab"[n // 2 % 2], group) for n, group in enumerate(groups)
    ]
    proba = rng.dirichlet([1, 1], 120)
    table = ReadableImages.of(records)
    whole = held_out_scores(table, np.arange(120), proba, None)["auc"]
    assert held_out_primary(table, np.arange(120), {"x": proba}, None) == {"x": whole}
