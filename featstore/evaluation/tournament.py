"""Everyone on the same folds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featstore.evaluation.contestants import Contestant, build, competing_options, fit, predict_proba

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from featstore.evaluation.folds import Split
    from featstore.matrix import FeatureMatrix

    Vector = NDArray[np.float64]


def play(
    matrix: FeatureMatrix, contestants: Sequence[Contestant], splits: Sequence[Split], jobs: int = 1
) -> Iterator[tuple[int, int, Vector]]:
    """Fit every contestant on every fold; yield (contestant, fold, probabilities of the test images)."""
    from joblib import Parallel, delayed

    rounds = [(c, f) for c in range(len(contestants)) for f in range(len(splits))]
    results = Parallel(n_jobs=jobs, return_as="generator")(
        delayed(_one_round)(matrix, contestants[c], splits[f]) for c, f in rounds
    )
    for (c, f), proba in zip(rounds, results, strict=True):
        yield c, f, proba


def _one_round(matrix: FeatureMatrix, contestant: Contestant, split: Split) -> Vector:
    train, test = split
    unfitted = build(contestant, matrix, competing_options(contestant.strategy))
    estimator = fit(unfitted, matrix, train, contestant.backbones)
    return predict_proba(estimator, matrix, test, contestant.backbones)
