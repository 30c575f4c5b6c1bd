"""Shortcuts: how well the class is guessed without any network, from the file or from its grey levels alone.

A score of a network means nothing unless it is clearly above these (Roberts et al., Common pitfalls and
recommendations for using machine learning to detect and prognosticate for COVID-19, Nature Machine Intelligence 3,
2021; Geirhos et al., Shortcut learning in deep neural networks, Nature Machine Intelligence 2, 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featstore.evaluation.estimates import held_out_scores, score_candidates
from featstore.evaluation.intervals import difference_interval, group_weights, sample_sizes
from featstore.evaluation.metrics import PRIMARY, decide, primary_score
from featstore.findings import Finding, counted
from featstore.image_facts import FactTable, notes_found
from featstore.images.reading import file_columns
from featstore.results.comparison import Candidate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.estimates import CandidateScores, EvaluationDesign
    from featstore.evaluation.patients import Patients
    from featstore.matrix import FeatureMatrix
    from featstore.results.scores import Score
    from featstore.splits import LabelledImages, Split

    Vector = NDArray[np.float64]

# The guesses

FILE = "file alone"
"""Bytes, width, height, channels, format and colour mode of the file: `featstore.images.reading.file_columns`."""
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
        ``(n,)`` of dtype `featstore.images.reading.FACT`.
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


# Findings of the data set about the scores on it, repeated by every command that scores on it


def data_findings(matrix: FeatureMatrix, facts: FactTable, *, draws_folds: bool) -> tuple[Finding, ...]:
    """Findings of the data set behind a matrix.

    Parameters
    ----------
    matrix
        The features.
    facts
        Facts of its images.
    draws_folds
        Whether splits are drawn although the data set may bring its own.
    """
    found = [*matrix.findings, *notes_found(facts)]
    if not matrix.has_groups and not matrix.groups_set_aside:
        found.append(
            Finding("FS104", "No groups are given: images of one patient may stand on both sides of a split.")
        )
    if matrix.excluded and not any(finding.code == "FS301" for finding in found):
        message = f"{counted(matrix.excluded, 'file')} of the data set took no part: in quarantine."
        found.append(Finding("FS301", message, matrix.excluded))
    named = sum(record.split is not None for record in matrix.records)
    if draws_folds and named:
        message = f"The data set's own split ({named} images) is not used: folds are drawn over all images."
        found.append(Finding("FS114", message, named))
    return tuple(found)


def cross_validated_shortcuts(
    design: EvaluationDesign, facts: FactTable, weights: Vector, patients: Patients | None = None
) -> tuple[CandidateScores, ...]:
    """Scores of the guesses that need no network, on the folds of a comparison; none if an image is not known.

    Where `patients` are scored, `design` is of their images and `weights` of them.
    """
    if len(facts.records) < len(design.y):
        return ()
    answers = shortcut_probabilities(facts.rows, design.y, design.splits)
    guesses = [Candidate("shortcut", (), name) for name in answers]
    proba = list(answers.values())
    if patients is not None:
        proba = [patients.pooled_folds(values, design.splits) for values in proba]
        design = patients.design(design)
    return tuple(score_candidates(design, guesses, proba, weights))


def held_out_shortcuts(
    matrix: FeatureMatrix,
    facts: FactTable,
    train: NDArray[np.intp],
    tested: Mapping[str, NDArray[np.intp]],
    positive: int | None,
    patients: Patients | None = None,
) -> tuple[dict[str, dict[str, dict[str, Score]]], dict[str, dict[str, Vector]]]:
    """Scores and answers of the guesses that need no network, by evaluated split and shortcut.

    They are about the images of `matrix`, or about `patients`.
    """
    if len(facts.records) < len(matrix.records):
        return {}, {}
    answers = {
        split: {
            name: proba[0]
            for name, proba in shortcut_probabilities(facts.rows, matrix.y, [(train, rows)]).items()
        }
        for split, rows in tested.items()
    }
    units: LabelledImages = matrix
    rows_of = dict(tested)
    if patients is not None:
        units = patients
        rows_of = {split: patients.rows(rows) for split, rows in tested.items()}
        answers = {
            split: {name: patients.pooled(proba, tested[split]) for name, proba in found.items()}
            for split, found in answers.items()
        }
    scores = {
        split: {
            name: held_out_scores(units, rows_of[split], proba, positive) for name, proba in found.items()
        }
        for split, found in answers.items()
    }
    return scores, answers


def shortcut_verdict(
    ranked: Sequence[CandidateScores], shortcuts: Sequence[CandidateScores]
) -> tuple[Finding, ...]:
    """FS101 for shortcuts that work, and FS401 where the best candidate is not above the best of them.

    None where there are no shortcuts: the facts of an image are not known, as of a file that is gone.
    """
    if not shortcuts:
        return ()
    estimates = {s.candidate.label: s.estimates[PRIMARY] for s in shortcuts}
    found = shortcut_findings({name: (e.mean, e.interval) for name, e in estimates.items()})
    best, guess = (max(some, key=lambda s: s.primary) for some in (ranked, shortcuts))
    if not found and best.primary > guess.primary:
        return ()
    interval = difference_interval(
        (guess.primary, best.primary),
        (guess.resampled, best.resampled),
        (guess.sample_size, best.sample_size),
    )
    return (
        *found,
        *not_above(best.candidate.label, best.primary, guess.candidate.label, guess.primary, interval),
    )


def held_out_verdict(
    matrix: LabelledImages,
    rows: NDArray[np.intp],
    name: str,
    proba: Vector,
    shortcuts: Mapping[str, Vector],
    scores: Mapping[str, Mapping[str, Score]],
    positive: int | None,
) -> tuple[Finding, ...]:
    """As `shortcut_verdict`, of one model on held-out images."""
    found = shortcut_findings({n: (s[PRIMARY].value, s[PRIMARY].interval) for n, s in scores.items()})
    if not shortcuts:
        return ()
    guess = max(shortcuts, key=lambda n: scores[n][PRIMARY].value or 0.0)
    weights = np.vstack([np.ones((1, len(rows))), group_weights(matrix.groups[rows])])
    y, groups, both = matrix.y[rows], matrix.groups[rows], (proba, shortcuts[guess])
    mine, theirs = (primary_score(y, p, weights, positive) for p in both)
    if not np.isfinite(mine[0] - theirs[0]):
        return found
    if not found and mine[0] > theirs[0]:
        return ()
    own, other = (sample_sizes(y, p, decide(p, positive), groups, positive)[PRIMARY] for p in both)
    values = float(theirs[0]), float(mine[0])
    interval = difference_interval(values, (theirs[1:], mine[1:]), (other, own))
    return (*found, *not_above(name, float(mine[0]), guess, float(theirs[0]), interval))
