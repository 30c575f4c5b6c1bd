"""What the data set itself says about the scores that it gives, repeated by every command that scores on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featstore.evaluation.bootstrap import group_weights
from featstore.evaluation.contestants import Contestant
from featstore.evaluation.intervals import bases, difference_interval
from featstore.evaluation.metrics import PRIMARY, decide, primary_score
from featstore.evaluation.scores import held_out_scores
from featstore.evaluation.shortcuts import not_above, shortcut_findings, shortcut_probabilities
from featstore.evaluation.standing import standings
from featstore.extraction.facts import notes_found
from featstore.findings import Finding, counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.scores import Score
    from featstore.evaluation.standing import Arena, Standing
    from featstore.extraction.facts import FactTable
    from featstore.matrix import FeatureMatrix

    Vector = NDArray[np.float64]


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


def shortcut_standings(arena: Arena, facts: FactTable, weights: Vector) -> tuple[Standing, ...]:
    """Scores of the guesses that need no network, on the folds of a comparison; none if an image is not known."""
    if len(facts.records) < len(arena.y):
        return ()
    answers = shortcut_probabilities(facts.rows, arena.y, arena.splits)
    guesses = [Contestant("shortcut", (), name) for name in answers]
    return tuple(standings(arena, guesses, list(answers.values()), weights))


def shortcut_scores(
    matrix: FeatureMatrix,
    facts: FactTable,
    train: NDArray[np.intp],
    tested: Mapping[str, NDArray[np.intp]],
    positive: int | None,
) -> tuple[dict[str, dict[str, dict[str, Score]]], dict[str, dict[str, Vector]]]:
    """Scores and answers of the guesses that need no network, by evaluated split and shortcut."""
    if len(facts.records) < len(matrix.records):
        return {}, {}
    answers = {
        split: {
            name: proba[0]
            for name, proba in shortcut_probabilities(facts.rows, matrix.y, [(train, rows)]).items()
        }
        for split, rows in tested.items()
    }
    scores = {
        split: {
            name: held_out_scores(matrix, tested[split], proba, positive) for name, proba in found.items()
        }
        for split, found in answers.items()
    }
    return scores, answers


def shortcut_verdict(ranked: Sequence[Standing], shortcuts: Sequence[Standing]) -> tuple[Finding, ...]:
    """FS101 for shortcuts that work, and FS401 where the best contestant is not above the best of them."""
    estimates = {s.contestant.label: s.estimates[PRIMARY] for s in shortcuts}
    found = shortcut_findings({name: (e.mean, e.interval) for name, e in estimates.items()})
    best, guess = (max(some, key=lambda s: s.primary) for some in (ranked, shortcuts))
    if not found and best.primary > guess.primary:
        return ()
    interval = difference_interval(
        (guess.primary, best.primary), (guess.resampled, best.resampled), (guess.basis, best.basis)
    )
    return (
        *found,
        *not_above(best.contestant.label, best.primary, guess.contestant.label, guess.primary, interval),
    )


def held_out_verdict(
    matrix: FeatureMatrix,
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
    own, other = (bases(y, p, decide(p, positive), groups, positive)[PRIMARY] for p in both)
    values = float(theirs[0]), float(mine[0])
    interval = difference_interval(values, (theirs[1:], mine[1:]), (other, own))
    return (*found, *not_above(name, float(mine[0]), guess, float(theirs[0]), interval))
