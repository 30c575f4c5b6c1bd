"""Variances of AUCs against published numbers, the defining double sums, and simulation."""

import numpy as np
import pytest

from featstore.evaluation.pairwise_tests import auc_covariance


def each_alone(n):
    return np.array([f"p{i}" for i in range(n)])


def test_the_auc_and_variance_of_the_subarachnoid_haemorrhage_data():
    """Turck 2010, WFNS grade of 72 patients with good and 41 with poor outcome, as in R's pROC: data(aSAH).

    pROC prints an AUC of 0.8236789 and, in its tests, var(roc) = 0.00146991470882363.
    """
    good, poor = [37, 20, 3, 8, 4], [2, 12, 1, 8, 18]
    grade = np.concatenate([np.repeat(np.arange(1, 6), good), np.repeat(np.arange(1, 6), poor)])
    truth = np.arange(113) >= 72
    areas, covariance = auc_covariance(truth, grade[None].astype(float), each_alone(113))
    assert areas[0] == pytest.approx(0.8236789, abs=5e-8)
    assert covariance[0, 0] == pytest.approx(0.00146991470882363, abs=1e-15)


def slow(truth, values, groups):
    """Obuchowski 1997 as printed: every pair compared, sums over the images of each patient."""
    ill, well = np.flatnonzero(truth), np.flatnonzero(~truth)
    wins = (values[:, ill, None] > values[:, None, well]) + 0.5 * (
        values[:, ill, None] == values[:, None, well]
    )
    areas = wins.mean(axis=(1, 2))
    names = sorted(set(groups))
    v10 = np.array([(wins.mean(2) - areas[:, None])[:, groups[ill] == g].sum(1) for g in names])
    v01 = np.array([(wins.mean(1) - areas[:, None])[:, groups[well] == g].sum(1) for g in names])
    with_ill, with_well = len(set(groups[ill])), len(set(groups[well]))
    s10 = with_ill / ((with_ill - 1) * len(ill)) * v10.T @ v10
    s01 = with_well / ((with_well - 1) * len(well)) * v01.T @ v01
    s11 = len(names) / (len(names) - 1) * v10.T @ v01
    return areas, s10 / len(ill) + s01 / len(well) + (s11 + s11.T) / (len(ill) * len(well))


def sample(rng, patients=30, images=3, mixed=True):
    groups = np.repeat([f"p{i:02d}" for i in range(patients)], images)
    truth = rng.random(len(groups)) < 0.4 if mixed else np.repeat(np.arange(patients) % 3 == 0, images)
    own = np.repeat(rng.normal(size=patients), images)
    values = (truth + own + rng.normal(size=(4, len(groups)))).round(1)
    return truth, values, groups


@pytest.mark.parametrize("mixed", [True, False], ids=["ill and well in one patient", "patients of one kind"])
def test_the_covariances_are_the_published_double_sums(mixed):
    truth, values, groups = sample(np.random.default_rng(0), mixed=mixed)
    areas, covariance = auc_covariance(truth, values, groups)
    expected_areas, expected = slow(truth, values, groups)
    np.testing.assert_allclose(areas, expected_areas)
    np.testing.assert_allclose(covariance, expected, rtol=1e-12)


def test_with_one_image_per_patient_it_is_delongs():
    truth, values, _ = sample(np.random.default_rng(1), images=1, patients=60)
    wins = (values[:, truth][:, :, None] > values[:, ~truth][:, None]) * 1.0
    wins += 0.5 * (values[:, truth][:, :, None] == values[:, ~truth][:, None])
    expected = np.cov(wins.mean(2)) / truth.sum() + np.cov(wins.mean(1)) / (~truth).sum()
    np.testing.assert_allclose(auc_covariance(truth, values, each_alone(60))[1], expected)


def test_the_clustered_variance_is_that_of_repeated_studies_and_the_plain_one_is_too_small():
    rng = np.random.default_rng(2)
    areas, clustered, plain = [], [], []
    for _ in range(400):
        truth, values, groups = sample(rng, images=4, mixed=False)
        values = values + np.repeat(rng.normal(size=30), 4)
        area, covariance = auc_covariance(truth, values, groups)
        areas.append(area[0])
        clustered.append(covariance[0, 0])
        plain.append(auc_covariance(truth, values, each_alone(120))[1][0, 0])
    assert np.mean(clustered) / np.var(areas) == pytest.approx(1, abs=0.2)
    assert np.mean(plain) / np.var(areas) < 0.6


def test_a_single_ill_patient_says_nothing_about_others():
    truth = np.array([True, True, False, False, False])
    groups = np.array(["a", "a", "b", "c", "d"])
    _, covariance = auc_covariance(truth, np.random.default_rng(0).random((2, 5)), groups)
    assert not np.isfinite(covariance).any()
