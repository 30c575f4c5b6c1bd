"""What a random projection costs: AUC of the discriminant that moments give, by dimensions kept, against all columns.

    python benchmarks/from_sites.py DATA --cache CACHE

DATA has a split of its own, and its identity view is in CACHE. Named reference: the strategy `lda` on the vectors
themselves, in the same run. How many hospitals share the images changes nothing (`tests/fusion/test_moments.py`).
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.metrics import roc_auc_score

import featstore
from featstore.fusion.moments import ClassMoments, discriminants, sign_projection
from featstore.fusion.strategies.lda import Lda

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


if __name__ == "__main__":
    main()
