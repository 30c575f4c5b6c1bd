"""What features promise before anything is fitted to them, and how far two networks say the same. Advice only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

ROUNDS = 100
TOLERANCE = 1e-6


def linear_cka(X: NDArray[Any], Y: NDArray[Any]) -> float:
    """Linear centred kernel alignment of ``X (n, d)`` and ``Y (n, e)``: 1 for the same up to rotation and scale.

    Kornblith, Norouzi, Lee & Hinton, Similarity of neural network representations revisited, ICML 2019. Many columns
    push it up with few images, so it is for comparing pairs with each other.
    """
    X, Y = _centred(X), _centred(Y)
    if X.shape[1] + Y.shape[1] > 2 * len(X):  # the same by Gram matrices, which are then the smaller ones
        K, L = X @ X.T, Y @ Y.T
        return float((K * L).sum() / (np.linalg.norm(K) * np.linalg.norm(L)))
    across = np.linalg.norm(X.T @ Y) ** 2
    return float(across / (np.linalg.norm(X.T @ X) * np.linalg.norm(Y.T @ Y)))


def log_me(X: NDArray[Any], y: NDArray[np.intp]) -> float:
    """Log of the maximum evidence per image, mean over classes, of features ``(n, d)`` for class numbers ``(n,)``.

    You, Liu, Wang & Long, LogME: practical assessment of pre-trained models for transfer learning, ICML 2021, with
    the fixed point of You et al. 2022: each class is a linear regression whose prior precision and noise precision
    are those that make the labels likeliest.
    """
    features = np.asarray(X, np.float64)
    left, sigma, _ = np.linalg.svd(features, full_matrices=False)
    targets = np.eye(int(y.max()) + 1)[y]
    return float(np.mean([_evidence(left, sigma, target) for target in targets.T]))


def h_score(X: NDArray[Any], y: NDArray[np.intp]) -> float:
    """Spread between the class means of ``X (n, d)``, measured in the spread of all images: ``tr(S^-1 B)``.

    Bao et al., An information-theoretic approach to transferability in task transfer learning, ICIP 2019. S is
    shrunk after Ledoit & Wolf (Ibrahim, Ponomareva & Mazumder, ECML 2022): with more columns than images the plain
    one would give every network the same score.
    """
    from sklearn.covariance import ledoit_wolf

    features = _centred(X)
    covariance, _ = ledoit_wolf(features, assume_centered=True)
    numbers, counts = np.unique(y, return_counts=True)
    means = np.array([features[y == c].mean(axis=0) for c in numbers])
    weighted = means * np.sqrt(counts / len(y))[:, None]
    return float(np.trace(weighted @ np.linalg.solve(covariance, weighted.T)))


def _centred(X: NDArray[Any]) -> Vector:
    values = np.asarray(X, np.float64)
    centred: Vector = values - values.mean(axis=0)
    return centred


def _evidence(left: Vector, sigma: Vector, target: Vector) -> float:
    """Evidence of one regression at its fixed point, per image."""
    n, squares, inside = len(target), sigma**2, left.T @ target
    outside = max(float(target @ target - inside @ inside), 0.0)
    prior, noise = 1.0, 1.0
    for _ in range(ROUNDS):
        shrunk = prior + noise * squares
        effective = float((noise * squares / shrunk).sum())
        weights = float(((noise * sigma * inside / shrunk) ** 2).sum())
        residual = outside + float(((prior * inside / shrunk) ** 2).sum())
        before = prior / noise
        prior, noise = effective / max(weights, TOLERANCE**2), (n - effective) / max(residual, TOLERANCE**2)
        if abs(prior / noise - before) <= TOLERANCE * before:
            break
    spread = np.log1p(noise / prior * squares).sum()
    shrunk = prior + noise * squares
    misfit = noise * outside + float((noise * prior * inside**2 / shrunk).sum())
    return float((n * np.log(noise / (2 * np.pi)) - spread - misfit) / (2 * n))
