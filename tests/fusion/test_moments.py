"""Class moments of several hospitals give the model that all their rows together would give."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import OAS, oas
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from featstore.fusion.moments import ClassMoments, discriminants, oracle_shrinkage, sign_projection

WIDTHS = {"A": 60, "B": 30}
KEPT = 4


def rows_of(n_classes=2, n=240, seed=0):
    """Rows of two networks far from zero, one row a patient, and the site of each."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % n_classes)
    X = rng.normal(size=(n, sum(WIDTHS.values()))) * np.geomspace(0.1, 30, sum(WIDTHS.values())) + 7
    X += y[:, None] * rng.normal(size=X.shape[1])
    return X, y, rng.integers(0, 3, n)


def projections():
    return [sign_projection(name, width, KEPT, 0) for name, width in WIDTHS.items()]


def projected(X):
    edges = np.cumsum([*WIDTHS.values()])[:-1]
    return np.concatenate(
        [part @ P for part, P in zip(np.split(X, edges, axis=1), projections(), strict=True)], axis=1
    )


def moments_of(Z, y, sites=None):
    """Of each class, added up over sites."""
    sites = np.zeros(len(y), int) if sites is None else sites
    found = []
    for label in np.unique(y):
        parts = [
            ClassMoments.of(Z[own], np.flatnonzero(own))
            for site in np.unique(sites)
            if (own := (y == label) & (sites == site)).any()
        ]
        total = parts[0]
        for part in parts[1:]:
            total += part
        found.append(total)
    return found


@pytest.mark.parametrize("n_classes", [2, 3])
def test_moments_of_sites_give_the_discriminants_of_all_rows_by_scikit_learn(n_classes):
    """Standardised and projected by hand, shrunk by scikit-learn's OAS of the rows less their class means."""
    X, y, sites = rows_of(n_classes)
    model, shrinkage = discriminants(moments_of(projected(X), y, sites), projections())
    Z = projected(X)
    Z = (Z - Z.mean(axis=0)) / Z.std(axis=0)
    residuals = Z - np.stack([Z[y == label].mean(axis=0) for label in range(n_classes)])[y]
    assert shrinkage == pytest.approx(oas(residuals, assume_centered=True)[1], rel=1e-10)

    class Within(OAS):
        """The covariance within the classes, as scikit-learn asks for it: of each class, weighed by its share."""

        def fit(self, rows, _=None):  # noqa: ARG002
            whole = OAS(assume_centered=True).fit(residuals)
            self.covariance_ = whole.covariance_
            return self

    reference = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Within()).fit(Z, y)
    np.testing.assert_allclose(model.proba(X), reference.predict_proba(Z), atol=1e-8)


@given(seed=st.integers(0, 2**31), n_sites=st.integers(1, 5))
def test_how_patients_are_dealt_to_hospitals_changes_nothing(seed, n_sites):
    X, y, _ = rows_of(seed=seed)
    sites = np.random.default_rng(seed).integers(0, n_sites, len(y))
    Z = projected(X)
    for one, whole in zip(moments_of(Z, y, sites), moments_of(Z, y), strict=True):
        assert (one.images, one.patients) == (whole.images, whole.patients)
        np.testing.assert_allclose(one.mean, whole.mean, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(
            one.scatter, whole.scatter, rtol=1e-7, atol=1e-7 * np.abs(whole.scatter).max()
        )
    together, alone = (discriminants(moments_of(Z, y, dealt), projections())[0] for dealt in (sites, None))
    np.testing.assert_allclose(together.proba(X), alone.proba(X), atol=1e-8)


def test_signs_are_the_same_everywhere_and_other_for_other_networks_and_seeds():
    """Pinned: another hospital's numpy, machine or year must draw these."""
    signs = sign_projection("ResNet50", 8, 3, 0) * np.sqrt(8)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    pinned = [
        [-1, 1, 1],
        [1, 1, -1],
        [-1, 1, -1],
        [1, -1, 1],
        [-1, 1, -1],
        [-1, -1, -1],
        [-1, -1, 1],
        [-1, 1, -1],
    ]
    np.testing.assert_array_equal(signs, pinned)
    assert (signs != sign_projection("ResNet50", 8, 3, 1) * np.sqrt(8)).any()
    assert (signs != sign_projection("Xception", 8, 3, 0) * np.sqrt(8)).any()
    large = sign_projection("ResNet50", 2048, 8, 0)
    assert abs(large.mean()) * np.sqrt(2048) < 0.05
    np.testing.assert_allclose(large.T @ large, np.eye(8), atol=0.15)


def test_lengths_are_kept_about():
    """Johnson and Lindenstrauss: of many dimensions, for there all can be kept."""
    X, _, _ = rows_of(n=40)
    P = sign_projection("A", X.shape[1], 64, 0)
    true, kept = (np.linalg.norm(Z[:20] - Z[20:], axis=1) for Z in (X, X @ P * np.sqrt(X.shape[1] / 64)))
    np.testing.assert_allclose(kept, true, rtol=0.6)


@pytest.mark.parametrize(
    ("images", "patients", "scatter"),
    [
        (3, 4, np.eye(2)),
        (0, 0, np.eye(2)),
        (3, 3, np.eye(3)),
        (3, 3, np.array([[1.0, 0.5], [0.0, 1.0]])),
        (3, 3, np.array([[1.0, 2.0], [2.0, 1.0]])),
        (3, 3, np.array([[np.nan, 0.0], [0.0, 1.0]])),
        (3, 3, np.array([[1e200, 0.0], [0.0, 1.0]])),
    ],
)
def test_what_is_no_scatter_of_any_images_is_refused(images, patients, scatter):
    with pytest.raises(ValueError, match=r"scatter|counts|number"):
        ClassMoments(images, patients, np.zeros(2), scatter)


def test_columns_that_never_vary_are_silent_and_none_at_all_is_refused():
    X, y, _ = rows_of()
    X[:, : WIDTHS["A"]] = 3.0
    model, _ = discriminants(moments_of(projected(X), y), projections())
    assert np.abs(model.coef[:, : WIDTHS["A"]]).max() < 1e-12
    assert np.isfinite(model.proba(X)).all()
    with pytest.raises(ValueError, match="no column varies"):
        discriminants(moments_of(projected(np.full_like(X, 2.0)), y), projections())


def test_more_images_of_the_same_patients_make_the_covariance_no_surer():
    X, y, _ = rows_of()
    Z, patients = projected(X), np.arange(len(y))
    once, thrice = (
        [ClassMoments.of(np.tile(Z[y == at], (n, 1)), np.tile(patients[y == at], n)) for at in range(2)]
        for n in (1, 3)
    )
    assert discriminants(thrice, projections())[1] == pytest.approx(discriminants(once, projections())[1])


def test_a_covariance_that_is_a_multiple_of_the_identity_is_taken_for_one():
    assert oracle_shrinkage(np.eye(5) * 3, 10) == 1.0
