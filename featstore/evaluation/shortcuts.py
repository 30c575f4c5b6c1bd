"""Shortcuts: how well the class is guessed without any network, from the file or from its grey levels alone.

A score of a network means nothing unless it is clearly above these (Roberts et al., Common pitfalls and
recommendations for using machine learning to detect and prognosticate for COVID-19, Nature Machine Intelligence 3,
2021; Geirhos et al., Shortcut learning in deep neural networks, Nature Machine Intelligence 2, 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featstore.findings import Finding
from featstore.images.facts import file_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.folds import Split

    Vector = NDArray[np.float64]

FILE = "file alone"
"""Bytes, width, height, channels, format and colour mode of the file: `featstore.images.facts.file_columns`."""
HISTOGRAM = "grey histogram alone"
MAJORITY = "most frequent class"
SHORTCUTS = (FILE, HISTOGRAM, MAJORITY)
TREES, LEAF = 100, 3
LEARNED = 20_000
"""Images that a guess is learned from at most: more would only cost time and memory."""
GUESS, NOTABLE = 0.5, 0.6
"""AUC of guessing, and from which on a shortcut is worth a finding if its interval is above guessing."""


def shortcut_probabilities(
    facts: NDArray[np.void], y: NDArray[np.intp], splits: Sequence[Split]
) -> dict[str, list[Vector]]:
    """Answers of the guesses that need no network, on the folds that the networks are scored on.

    Parameters
    ----------
    facts
        ``(n,)`` of dtype `featstore.images.facts.FACT`.
    y
        ``(n,)`` class index.
    splits
        Pairs (training images, test images) of row numbers.

    Returns
    -------
    For each of `SHORTCUTS` and each split, probabilities ``(test images, classes)``.
    """
    classes = int(y.max()) + 1
    columns = {FILE: file_columns(facts), HISTOGRAM: facts["histogram"].astype(np.float64)}
    answers = {name: [_guess(x, y, split, classes) for split in splits] for name, x in columns.items()}
    shares = [np.bincount(y[train], minlength=classes) / len(train) for train, _ in splits]
    answers[MAJORITY] = [
        np.tile(share, (len(test), 1)) for share, (_, test) in zip(shares, splits, strict=True)
    ]
    return answers


def shortcut_findings(
    scores: Mapping[str, tuple[float | None, tuple[float, float] | None]],
) -> tuple[Finding, ...]:
    """Say which shortcuts guess the class better than chance.

    Parameters
    ----------
    scores
        AUC and its 95 % interval by name of the shortcut.
    """
    found = []
    for name in (FILE, HISTOGRAM):
        value, interval = scores.get(name, (None, None))
        if value is not None and value >= NOTABLE and interval is not None and interval[0] > GUESS:
            low, high = interval
            message = (
                f"The class is guessed from the {name.replace(' alone', '')} alone, without a network:"
                f" AUC {value:.3f} [{low:.3f}, {high:.3f}]."
            )
            found.append(Finding("FS101", message, value=round(value, 4), interval=interval))
    return tuple(found)


def not_above(
    best: str, value: float, shortcut: str, baseline: float, interval: tuple[float, float] | None
) -> tuple[Finding, ...]:
    """Say so if the best score is not above that of a shortcut.

    Parameters
    ----------
    best, value
        Who has the best score, and the score.
    shortcut, baseline
        The best shortcut and its score.
    interval
        95 % of the difference ``value - baseline`` on the same resamples; None where there is none.
    """
    if interval is not None and interval[0] > 0:
        return ()
    difference = "" if interval is None else f" (difference [{interval[0]:+.3f}, {interval[1]:+.3f}])"
    message = (
        f"The best score, AUC {value:.3f} of {best}, is not above that of the {shortcut},"
        f" {baseline:.3f}{difference}."
    )
    return (Finding("FS401", message, value=round(value - baseline, 4), interval=interval),)


def _guess(x: Vector, y: NDArray[np.intp], split: Split, classes: int) -> Vector:
    """Extremely randomised trees, which need no scaling and see thresholds and bands (Geurts et al. 2006).

    Regression on the indicators of the classes: their variance is half of Gini's impurity, so that it splits as
    classification does. The numbers are those of scikit-learn's ``ExtraTreesRegressor(TREES, min_samples_leaf=LEAF,
    max_features="sqrt", random_state=0)``, whose bookkeeping takes twice as long as its trees where images are few.
    """
    from sklearn import config_context
    from sklearn.tree import ExtraTreeRegressor

    train, test = split
    if len(train) > LEARNED:
        train = np.sort(np.random.default_rng(0).choice(train, LEARNED, replace=False))
    seen, new = x[train].astype(np.float32), x[test].astype(np.float32)
    seeds = np.random.RandomState(0)
    indicators, proba = np.eye(classes)[y[train]], np.zeros((len(test), classes))
    with config_context(skip_parameter_validation=True, assume_finite=True):
        for _ in range(TREES):
            seed = seeds.randint(np.iinfo(np.int32).max)
            tree = ExtraTreeRegressor(min_samples_leaf=LEAF, max_features="sqrt", random_state=seed)
            proba += tree.fit(seen, indicators, check_input=False).predict(new, check_input=False)
    return proba / TREES
