"""Shrinkage LDA, SimpleShot, kernels with learned weights and the gated product, against independent references."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC

from featstore.errors import UsageError
from featstore.fusion.decision import block_logits
from featstore.fusion.linear import scaled_block, standardise
from featstore.fusion.strategies.kernel_svm import KernelSvm, kernel_weights
from featstore.fusion.strategies.lda import Lda
from featstore.fusion.strategies.logit_product import LogitProduct, fit_gate
from featstore.fusion.strategies.mean_logit import MeanLogit
from featstore.fusion.strategies.simpleshot import Simpleshot
from featstore.types import make_blocks

WIDTHS = {"a": 20, "b": 12}
BLOCKS = make_blocks(WIDTHS)


def data(n=120, n_classes=2, seed=0, widths=WIDTHS):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % n_classes)
    latent = rng.normal(size=(n, 6))
    latent[:, :n_classes] += 1.5 * np.eye(n_classes)[y]
    X = np.concatenate(
        [latent @ rng.normal(size=(6, w)) + rng.normal(size=(n, w)) for w in widths.values()], axis=1
    )
    return X * rng.lognormal(size=X.shape[1]), y


def weighed(X, X_new, blocks=BLOCKS):
    moments = standardise(X, blocks)
    return [
        np.concatenate([scaled_block(rows, block, *moments) for block in blocks], axis=1)
        for rows in (X, X_new)
    ]


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("n", [25, 120], ids=["fewer rows than columns", "more rows than columns"])
def test_lda_is_scikit_learns_with_the_covariance_of_ledoit_and_wolf(n, n_classes):
    X, y = data(n, n_classes)
    Z, Z_new = weighed(X, data(seed=1)[0])
    residuals = Z - np.stack([Z[y == label].mean(axis=0) for label in range(n_classes)])[y]
    covariance, shrinkage = ledoit_wolf(residuals, assume_centered=True)

    class Given:
        def fit(self, _):
            self.covariance_ = covariance
            return self

    reference = LinearDiscriminantAnalysis("lsqr", covariance_estimator=Given()).fit(Z, y)
    ours = Lda(BLOCKS).fit(X, y)
    assert ours.shrinkage_ == pytest.approx(shrinkage, abs=1e-10)
    np.testing.assert_allclose(ours.predict_proba(data(seed=1)[0]), reference.predict_proba(Z_new), atol=1e-9)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_simpleshot_is_the_nearest_mean_of_centred_rows_of_length_one(n_classes):
    X, y = data(n_classes=n_classes)
    Z, Z_new = weighed(X, data(seed=1)[0])
    ends = np.cumsum(list(WIDTHS.values()))[:-1]

    def unit(rows):
        return np.concatenate(
            [part / np.linalg.norm(part, axis=1)[:, None] for part in np.split(rows, ends, axis=1)], axis=1
        )

    means = np.stack([unit(Z)[y == label].mean(axis=0) for label in range(n_classes)])
    distances = ((unit(Z_new)[:, None] - means) ** 2).sum(axis=2)
    spread = ((unit(Z) - means[y]) ** 2).sum(axis=1).mean()
    ours = Simpleshot(BLOCKS).fit(X, y).predict_proba(data(seed=1)[0])
    np.testing.assert_allclose(ours, softmax(-distances / spread, axis=1), atol=1e-10)


def test_how_bright_an_image_is_means_nothing_to_simpleshot():
    X, y = data()
    Z, _ = weighed(X, X)
    fitted = Simpleshot(BLOCKS).fit(Z, y)
    farther = fitted.mean_ + 7 * (Z - fitted.mean_)
    np.testing.assert_allclose(fitted.predict_proba(farther), fitted.predict_proba(Z), atol=1e-9)


@pytest.mark.parametrize("evenness", [0.05, 0.2, 0.7, 1.0])
def test_weights_of_kernels_are_those_of_the_nearest_points_of_the_classes(evenness):
    """The definition of EasyMKL, minimised by a general optimiser."""
    X, y = data(24, seed=3)
    kernels = np.stack([rbf_kernel(X[:, :20], gamma=0.02), rbf_kernel(X[:, 20:], gamma=0.1)])
    signs = np.where(y == 1, 1.0, -1.0)
    base = kernels.mean(axis=0) * np.outer(signs, signs)

    def objective(gamma):
        return (1 - evenness) * gamma @ base @ gamma + evenness * gamma @ gamma

    found = minimize(
        objective,
        np.full(24, 1 / 12),
        jac=lambda gamma: 2 * ((1 - evenness) * base @ gamma + evenness * gamma),
        bounds=[(0, None)] * 24,
        constraints=[
            {"type": "eq", "fun": lambda gamma, label=label: gamma[y == label].sum() - 1} for label in (0, 1)
        ],
        options={"ftol": 1e-14, "maxiter": 500},
    ).x
    apart = np.array([(found * signs) @ kernel @ (found * signs) for kernel in kernels])
    np.testing.assert_allclose(kernel_weights(kernels, y == 1, evenness), apart / apart.sum(), atol=1e-4)


def test_a_backbone_that_knows_nothing_counts_for_less():
    X, y = data(200)
    X[:, 20:] = np.random.default_rng(1).normal(size=(200, 12))
    weights = KernelSvm(BLOCKS).fit(X, y).weights_
    assert weights.sum() == pytest.approx(1)
    assert weights[0] > 0.55
    assert KernelSvm(BLOCKS, evenness=None).fit(X, y).weights_.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_kernel_svm_orders_rows_as_svc_with_the_same_kernel(n_classes):
    X, y = data(n_classes=n_classes)
    Z, Z_new = weighed(X, data(seed=1)[0])
    ours = KernelSvm(BLOCKS).fit(X, y)

    def kernel(rows):
        parts = zip(ours.weights_, BLOCKS, strict=True)
        return sum(
            w * rbf_kernel(rows[:, b.start : b.stop], Z[:, b.start : b.stop], gamma=1.0) for w, b in parts
        )

    logits = np.log(ours.predict_proba(data(seed=1)[0]))
    machine = SVC(kernel="precomputed").fit(kernel(Z), y == n_classes - 1)
    decision = machine.decision_function(kernel(Z_new))
    if n_classes == 2:
        assert np.corrcoef(decision, logits[:, 1] - logits[:, 0])[0, 1] > 1 - 1e-6
    else:
        assert np.corrcoef(decision, logits[:, -1])[0, 1] > 0.9


def test_a_finding_that_is_a_ring_is_found_by_the_kernel():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4))
    y = ((X**2).sum(axis=1) > 3.4).astype(int)
    assert KernelSvm().fit(X[:200], y[:200]).score(X[200:], y[200:]) > 0.85


def test_the_gate_listens_to_the_backbone_that_is_right_in_each_image():
    rng = np.random.default_rng(0)
    y = np.arange(600) % 2
    right = rng.integers(0, 2, 600)
    sure, noise = 3.0 * (2 * y - 1), 0.3 * rng.normal(size=600)
    logits = np.where(right[:, None] == np.arange(2), sure[:, None], noise[:, None])[:, :, None]
    inputs = np.abs(logits[:, :, 0])
    gate = fit_gate(inputs, logits, y, 1.0)
    shares = softmax(inputs @ gate, axis=1)
    assert shares[np.arange(600), right].min() > 0.9


def test_a_gate_that_is_held_tight_is_the_mean_of_logits():
    X, y = data(n_classes=3)
    held = LogitProduct(BLOCKS, gate_C=1e-9).fit(X, y)
    np.testing.assert_allclose(held.predict_proba(X), MeanLogit(BLOCKS).fit(X, y).predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(held.shares(X), 0.5, atol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_shares_are_a_convex_mix_of_the_backbones_logits(n_classes):
    X, y = data(n_classes=n_classes)
    fitted = LogitProduct(BLOCKS, gate_C=10.0).fit(X, y)
    shares, logits = fitted.shares(X), block_logits(fitted.models_, X, BLOCKS)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    fused = (shares[:, :, None] * logits).sum(axis=1)
    full = np.concatenate([np.zeros_like(fused), fused], axis=1) if n_classes == 2 else fused
    np.testing.assert_allclose(fitted.predict_proba(X), softmax(full, axis=1), atol=1e-12)


@pytest.mark.parametrize(
    ("strategy", "what"),
    [
        (KernelSvm(BLOCKS, inner_folds=1), "holds nobody out"),
        (KernelSvm(BLOCKS, evenness=0.0), "out of range"),
        (KernelSvm(BLOCKS, evenness=1.5), "out of range"),
        (LogitProduct(BLOCKS, gate_C=0.0), "out of range"),
    ],
)
def test_a_parameter_that_cannot_be_meant_is_refused(strategy, what):
    with pytest.raises(UsageError, match=what):
        strategy.fit(*data())
