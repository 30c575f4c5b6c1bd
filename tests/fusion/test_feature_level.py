"""Feature level and floors against scikit-learn's pipelines of the same, and where the answer is known."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neighbors import NearestCentroid as ReferenceCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from featstore.errors import UsageError
from featstore.fusion.linear import Projection, align, fit_elasticnet, principal_parts
from featstore.fusion.model_io import export_model, restore_model
from featstore.fusion.strategies.cca_concat import CcaConcat, canonical_rotations
from featstore.fusion.strategies.class_decomposition import ClassDecomposition
from featstore.fusion.strategies.concat_elasticnet import ConcatElasticnet
from featstore.fusion.strategies.concat_logreg import ConcatLogreg
from featstore.fusion.strategies.concat_svm import ConcatSvm
from featstore.fusion.strategies.dca_concat import DcaConcat, pairing_rotations, separating_axes
from featstore.fusion.strategies.knn import Knn
from featstore.fusion.strategies.mrmr import Mrmr, choose
from featstore.fusion.strategies.nearest_centroid import NearestCentroid
from featstore.fusion.strategies.pca_concat import PcaConcat
from featstore.fusion.strategies.project_max import ProjectMax
from featstore.fusion.strategies.project_mean import ProjectMean
from featstore.types import make_blocks

WIDTHS = {"a": 20, "b": 12}
BLOCKS = make_blocks(WIDTHS)


def data(n=120, n_classes=2, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % n_classes)
    latent = rng.normal(size=(n, 6))
    latent[:, :n_classes] += 1.5 * np.eye(n_classes)[y]
    X = np.concatenate(
        [latent @ rng.normal(size=(6, w)) + rng.normal(size=(n, w)) for w in WIDTHS.values()], axis=1
    )
    return X * rng.lognormal(size=X.shape[1]), y


def weighed():
    """Standardised columns, every block with a total variance of one."""
    weights = np.concatenate([np.full(width, width**-0.5) for width in WIDTHS.values()])
    return make_pipeline(StandardScaler(), FunctionTransformer(lambda Z: Z * weights))


def parts_of(Z):
    return np.split(Z, np.cumsum(list(WIDTHS.values()))[:-1], axis=1)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_pca_concat_is_the_pipeline_of_pca_and_logistic_regression(n_classes):
    X, y = data(n_classes=n_classes)
    new, _ = data(seed=1)
    scaler = weighed().fit(X)
    pcas = [PCA(5, svd_solver="full").fit(part) for part in parts_of(scaler.transform(X))]

    def scores(rows):
        parts = [
            pca.transform(part) for pca, part in zip(pcas, parts_of(scaler.transform(rows)), strict=True)
        ]
        return np.concatenate(
            [
                part / np.sqrt(pca.explained_variance_.sum() * (1 - 1 / len(X)))
                for pca, part in zip(pcas, parts, strict=True)
            ],
            axis=1,
        )

    reference = LogisticRegression(C=5.0, tol=1e-10, max_iter=9999).fit(scores(X), y)
    ours = PcaConcat(BLOCKS, n_components=5).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(new), reference.predict_proba(scores(new)), atol=1e-6)


class Precomputed(ClassifierMixin, BaseEstimator):
    """A plain scikit-learn linear SVM behind the same scaling, for `CalibratedClassifierCV`."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.machine_ = make_pipeline(weighed(), SVC(kernel="linear", tol=1e-6)).fit(X, y)
        return self

    def decision_function(self, X):
        return self.machine_.decision_function(X)

    def predict(self, X):
        return self.machine_.predict(X)


def test_concat_svm_is_a_calibrated_linear_svc_with_the_same_inner_group_folds():
    X, y = data(n=200)
    groups = np.arange(200) // 4
    folds = list(StratifiedGroupKFold(3, shuffle=True, random_state=0).split(X, y, groups))
    reference = CalibratedClassifierCV(Precomputed(), cv=folds, ensemble=False).fit(X, y)
    ours = ConcatSvm(BLOCKS).fit(X, y, groups=groups)
    np.testing.assert_allclose(ours.predict_proba(X), reference.predict_proba(X), atol=2e-3)
    direction = reference.calibrated_classifiers_[0].estimator.machine_[-1].coef_[0]
    assert np.corrcoef(direction, ours.model_.coef[0])[0, 1] > 1 - 1e-5


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_elastic_net_has_the_solution_of_saga(n_classes, l1_ratio):
    X, y = data(n=80, n_classes=n_classes)
    Z = StandardScaler().fit_transform(X)
    truth = np.eye(n_classes)[y]
    largest = np.abs((truth - truth.mean(axis=0)).T @ Z).max() / len(Z)
    saga = LogisticRegression(
        C=l1_ratio / (0.2 * largest * len(Z)), l1_ratio=l1_ratio, solver="saga", tol=1e-9, max_iter=100_000
    ).fit(Z, y)
    coef, intercept = fit_elasticnet(Z, y, 0.2, l1_ratio)
    np.testing.assert_allclose(coef, saga.coef_, atol=1e-5)
    np.testing.assert_allclose(
        intercept - intercept.mean(), saga.intercept_ - saga.intercept_.mean(), atol=1e-5
    )
    ours = ConcatElasticnet(BLOCKS, penalty=0.2, l1_ratio=l1_ratio).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), saga.predict_proba(Z), atol=1e-6)


def test_full_penalty_silences_every_column_and_less_lets_few_speak():
    X, y = data(n=60)
    assert not ConcatElasticnet(penalty=1.0).fit(X, y).model_.coef.any()
    assert 0 < np.count_nonzero(ConcatElasticnet(penalty=0.5).fit(X, y).model_.coef) < 20


def test_elastic_net_finds_the_columns_that_matter_among_thousands():
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(150, 2000))
    y = (Z[:, [3, 700, 1999]].sum(axis=1) > 0).astype(int)
    coef, _ = fit_elasticnet(Z, y, 0.5, 1.0)
    assert set(np.argsort(-np.abs(coef[0]))[:3]) == {3, 700, 1999}


def test_canonical_variates_of_two_blocks_are_those_of_scikit_learn():
    X, _ = data(n=300)
    blocks = make_blocks({"a": 20, "b": 12})
    mean, scale = X.mean(axis=0), 1 / X.std(axis=0)
    _, scores = principal_parts(X, blocks, mean, scale, 99, 0)
    ours = [part @ turn for part, turn in zip(scores, canonical_rotations(scores, 3, ridge=0.0), strict=True)]
    theirs = CCA(3, max_iter=20_000, tol=1e-12).fit(*parts_of(X)).transform(*parts_of(X))
    for i in range(3):
        correlations = [np.corrcoef(pair[0][:, i], pair[1][:, i])[0, 1] for pair in (ours, theirs)]
        assert correlations[0] == pytest.approx(correlations[1], abs=1e-4)
        assert abs(np.corrcoef(ours[0][:, i], theirs[0][:, i])[0, 1]) > 0.999


def test_cca_keeps_what_backbones_share_and_drops_what_only_one_sees():
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    private = 6 * rng.normal(size=(400, 1)) * rng.normal(size=(1, 20))
    shared = (2 * y[:, None] - 1) @ rng.normal(size=(1, 20))
    X = np.concatenate([shared + private, 0.5 * shared, shared], axis=1) + rng.normal(size=(400, 60))
    blocks = make_blocks({"a": 20, "b": 20, "c": 20})
    first = CcaConcat(blocks, n_variates=1).fit(X[:200], y[:200])
    assert first.score(X[200:], y[200:]) > 0.95
    assert (
        PcaConcat(make_blocks({"a": 20}), n_components=1)
        .fit(X[:200, :20], y[:200])
        .score(X[200:, :20], y[200:])
        < 0.7
    )


@pytest.mark.parametrize("n_classes", [3, 4])
def test_dca_unitises_the_scatter_between_classes_and_the_covariance_between_sets(n_classes):
    X, y = data(n=200, n_classes=n_classes)
    parts = parts_of(StandardScaler().fit_transform(X))
    axes = [separating_axes(part, y) for part in parts]
    scores = [part @ axis for part, axis in zip(parts, axes, strict=True)]
    for score in scores:
        assert score.shape[1] == n_classes - 1
        means = np.stack(
            [score[y == label].mean(axis=0) * np.sqrt((y == label).sum()) for label in range(n_classes)]
        )
        np.testing.assert_allclose(means.T @ means, np.eye(n_classes - 1), atol=1e-8)
    left, right = (score @ turn for score, turn in zip(scores, pairing_rotations(scores), strict=True))
    np.testing.assert_allclose(left.T @ right, np.eye(n_classes - 1), atol=1e-8)


def test_dca_of_two_classes_projects_on_the_line_between_the_means():
    X, y = data()
    model = DcaConcat(make_blocks({"a": 20, "b": 12})).fit(X, y).model_
    Z = StandardScaler().fit_transform(X)
    between = Z[y == 1].mean(axis=0) - Z[y == 0].mean(axis=0)
    for part, line in zip(parts_of(model.coef), parts_of(between[None]), strict=True):
        assert abs(np.corrcoef(part[0], line[0])[0, 1]) > 1 - 1e-9


def test_rotated_copies_of_one_cloud_are_brought_back_together():
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(50, 4)) * [4, 3, 2, 1]
    cloud -= cloud.mean(axis=0)
    turned = [cloud @ np.linalg.qr(rng.normal(size=(4, 4)))[0] for _ in range(3)]
    brought = [part @ turn for part, turn in zip(turned, align(turned), strict=True)]
    for other in brought[1:]:
        np.testing.assert_allclose(other, brought[0], atol=1e-5)


@pytest.mark.parametrize("kind", [ProjectMean, ProjectMax])
def test_projections_agree_on_a_backbone_and_its_rotation(kind):
    """The second backbone is the first in other coordinates: in the common space they say the same."""
    rng = np.random.default_rng(0)
    X, y = data(n=200)
    one = StandardScaler().fit_transform(X[:, :12])
    X2 = np.concatenate([one, one @ np.linalg.qr(rng.normal(size=(12, 12)))[0]], axis=1)
    fusion = kind(make_blocks({"one": 12, "other": 12})).fit(X2, y)
    first, second = (
        p.score(part) for p, part in zip(fusion.projections_, (X2[:, :12], X2[:, 12:]), strict=True)
    )
    overlap = np.linalg.svd(first.T @ second, compute_uv=False).sum() / np.linalg.norm(first) ** 2
    assert np.trace(first.T @ second) / np.linalg.norm(first) ** 2 > 0.9 * overlap


def test_a_maximum_hears_the_backbone_that_a_mean_drowns():
    """One backbone at a time, and never the same, shouts for class 1."""
    rng = np.random.default_rng(0)
    y = np.arange(600) % 2
    quiet = rng.normal(size=(600, 5))[:, None].repeat(4, axis=1) + 0.1 * rng.normal(size=(600, 4, 5))
    quiet[np.arange(600), rng.integers(0, 4, 600), 0] += 4.0 * y
    X, blocks = quiet.reshape(600, 20), make_blocks(dict.fromkeys("abcd", 5))
    scores = [
        kind(blocks).fit(X[:300], y[:300]).score(X[300:], y[300:]) for kind in (ProjectMax, ProjectMean)
    ]
    assert scores[0] > scores[1]


@pytest.mark.parametrize(
    "arrays", [{"mean": np.zeros(2)}, {"axes": np.zeros(3)}, {"scale": np.full(3, np.nan)}]
)
def test_arrays_that_do_not_belong_together_make_no_projection(arrays):
    with pytest.raises(ValueError, match=r"match|finite"):
        Projection(**{"axes": np.zeros((3, 2)), "mean": np.zeros(3), "scale": np.ones(3), **arrays})


def test_mrmr_chooses_as_the_definition_says():
    X, y = data(n=100)
    relevance, correlation = f_classif(X, y)[0], np.abs(np.corrcoef(X.T))
    expected = [int(relevance.argmax())]
    while len(expected) < 6:
        merit = relevance / np.maximum(correlation[:, expected].mean(axis=1), 1e-3)
        merit[expected] = -1
        expected.append(int(merit.argmax()))
    assert choose(X, y, 6).tolist() == expected


def test_mrmr_takes_a_copy_last():
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    columns = y[:, None] * [2.0, 2.0, 0.8] + rng.normal(size=(200, 3))
    X = np.column_stack([columns, columns[:, 0] + 1e-3 * rng.normal(size=200)])
    chosen = Mrmr(n_columns=3).fit(X, y).chosen_.tolist()
    assert 2 not in chosen[:1]
    assert not {0, 3} <= set(chosen[:2])


@pytest.mark.parametrize("n_classes", [2, 3])
def test_floors_are_those_of_scikit_learn(n_classes):
    X, y = data(n_classes=n_classes)
    new, _ = data(seed=1)
    centroid = make_pipeline(weighed(), ReferenceCentroid()).fit(X, y)
    np.testing.assert_array_equal(NearestCentroid(BLOCKS).fit(X, y).predict(new), centroid.predict(new))
    neighbours = make_pipeline(weighed(), KNeighborsClassifier(7, metric="cosine")).fit(X, y)
    ours = Knn(BLOCKS, n_neighbors=7).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(new), neighbours.predict_proba(new), atol=1e-12)


def test_class_decomposition_separates_a_class_on_both_sides_of_the_other():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 2
    side = rng.choice([-1, 1], 300)
    X = np.column_stack([4 * side * y, 1e-2 * y]) + rng.normal(size=(300, 2))
    plain = ConcatLogreg().fit(X[:150], y[:150]).score(X[150:], y[150:])
    split = ClassDecomposition().fit(X[:150], y[:150])
    assert plain < 0.7
    assert split.score(X[150:], y[150:]) > 0.9
    subclasses = split.inner_.predict_proba(X)
    np.testing.assert_allclose(subclasses[:, split.parents_ == 1].sum(axis=1), split.predict_proba(X)[:, 1])


def test_class_decomposition_wraps_any_other_strategy_and_bundles_it():
    X, y = data()
    for inner in ("soft_vote", "knn"):
        fitted = ClassDecomposition(BLOCKS, strategy=inner).fit(X, y)
        restored = restore_model(*export_model(fitted))
        assert type(restored.inner_).__module__.endswith(inner)
        assert restored.predict_proba(X).tobytes() == fitted.predict_proba(X).tobytes()
    with pytest.raises(UsageError, match="itself"):
        ClassDecomposition(strategy="class_decomposition").fit(X, y)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (ConcatSvm(inner_folds=1), "inner_folds=1"),
        (ConcatElasticnet(penalty=0), "penalty=0"),
        (ConcatElasticnet(l1_ratio=0), "l1_ratio=0"),
        (PcaConcat(n_components=0), "0 components"),
        (CcaConcat(n_variates=0), "n_variates=0"),
        (Mrmr(n_columns=0), "n_columns=0"),
        (Knn(n_neighbors=0), "n_neighbors=0"),
        (ClassDecomposition(n_subclasses=0), "n_subclasses=0"),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_name(strategy, message):
    with pytest.raises(UsageError, match=message):
        strategy.fit(*data(n=30))
