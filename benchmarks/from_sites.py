"""What is lost where nothing but small files leaves a hospital: AUC of what they give, against all images together.

    python benchmarks/from_sites.py DATA --cache CACHE

DATA has a split of its own, and its identity view is in CACHE. Named reference: the strategy `lda` on the vectors
themselves, in the same run. Of moments, by dimensions kept: how many hospitals share the images changes nothing
(`tests/fusion/test_moments.py`). Of shared heads, by number of hospitals: the training patients are dealt to them,
five times; the mean of their heads (`concat_logreg`) against one head of all, and the best and worst of the heads.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.metrics import roc_auc_score

import featstore
from featstore.fusion.moments import ClassMoments, discriminants, sign_projection
from featstore.fusion.strategies.concat_logreg import ConcatLogreg
from featstore.fusion.strategies.lda import Lda

HOSPITALS = (2, 3, 5)
DIMENSIONS = (4, 8, 16, 32, 64, 128)
SEEDS = range(5)


def main() -> None:
    """Print one line for each number of dimensions: mean and range over seeds of the projection."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--cache", default="cache")
    given = parser.parse_args()
    matrix = featstore.load_matrix(given.data, seeds=(), cache=given.cache)
    split = np.array([record.split or "" for record in matrix.records])
    train, test, y = split == "train", split == "test", matrix.y
    if len(matrix.classes) != 2 or not (train.any() and test.any()):
        raise SystemExit("Give a data set of two classes with images of train and test.")
    whole = Lda(matrix.blocks).fit(matrix.X[train], y[train])
    reference = roc_auc_score(y[test], whole.predict_proba(matrix.X[test])[:, 1])
    patients = [len(set(matrix.groups[train & (y == at)])) for at in range(2)]
    print(
        f"{train.sum()} training images of {patients[0]} + {patients[1]} patients, {test.sum()} test images"
    )
    print(f"{matrix.X.shape[1]:>5} columns, lda: AUC {reference:.3f}")
    for dimensions in DIMENSIONS:
        found = []
        for seed in SEEDS:
            projections = [sign_projection(s.name, s.dimension, dimensions, seed) for s in matrix.specs]
            parts = zip(matrix.blocks, projections, strict=True)
            Z = np.concatenate(
                [matrix.X[:, block.start : block.stop].astype(float) @ one for block, one in parts], axis=1
            )
            own = [train & (y == at) for at in range(2)]
            moments = [ClassMoments.of(Z[rows], matrix.groups[rows]) for rows in own]
            model, _ = discriminants(moments, projections)
            found.append(roc_auc_score(y[test], model.proba(matrix.X[test])[:, 1]))
        print(
            f"{dimensions:>5} of each of {len(projections)} networks: AUC {np.mean(found):.3f}"
            f" ({min(found):.3f} to {max(found):.3f}), {np.mean(found) / reference:.2f} of the reference"
        )
    one = ConcatLogreg(matrix.blocks).fit(matrix.X[train], y[train])
    alone = roc_auc_score(y[test], one.predict_proba(matrix.X[test])[:, 1])
    print(f"one head of all, concat_logreg: AUC {alone:.3f}, {alone / reference:.2f} of the reference")
    for hospitals in HOSPITALS:
        together, heads = [], []
        for seed in SEEDS:
            logits = dealt(matrix, train, test, hospitals, seed)
            together.append(roc_auc_score(y[test], np.mean(logits, axis=0)))
            heads += [roc_auc_score(y[test], head) for head in logits]
        print(
            f"{hospitals:>5} hospitals' heads together: AUC {np.mean(together):.3f}"
            f" ({min(together):.3f} to {max(together):.3f}), {np.mean(together) / reference:.2f} of the reference;"
            f" by themselves {np.mean(heads):.3f} ({min(heads):.3f} to {max(heads):.3f})"
        )


def dealt(
    matrix: featstore.FeatureMatrix, train: np.ndarray, test: np.ndarray, hospitals: int, seed: int
) -> list[np.ndarray]:
    """Logits of the test images by the head of each hospital, to which patients are dealt class by class."""
    rng, mine = np.random.default_rng(seed), np.zeros(len(train), np.intp)
    for label in range(2):
        patients = np.unique(matrix.groups[train & (matrix.y == label)])
        for at, patient in enumerate(rng.permutation(patients)):
            mine[matrix.groups == patient] = at % hospitals
    parts = [train & (mine == at) for at in range(hospitals)]
    fitted = [ConcatLogreg(matrix.blocks).fit(matrix.X[part], matrix.y[part]) for part in parts]
    return [model.linear_logits().decision(matrix.X[test])[:, 0] for model in fitted]


if __name__ == "__main__":
    main()
