"""Negative controls: whether the disease is seen, or something that goes with it, such as the border or the hospital.

A model is measured against guesses that see no lung, on the same patients; and the site is predicted from the same
vectors, whose direction is compared with that of the disease (Lipsitch, Tchetgen Tchetgen & Cohen, Negative controls,
Epidemiology 21, 2010; Zech et al., Variable generalization performance of a deep learning model to detect pneumonia
in chest radiographs, PLOS Medicine 15, 2018).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from featstore.errors import AuditError
from featstore.evaluation.estimates import EvaluationDesign, score_candidates
from featstore.evaluation.findings import GUESS, LINEAR_C, MAJORITY, NOTABLE
from featstore.evaluation.intervals import group_weights
from featstore.evaluation.metrics import PRIMARY
from featstore.evaluation.primary_question import planned_differences
from featstore.results.comparison import Candidate, NegativeControls, SitePrediction
from featstore.results.scores import Score
from featstore.splits import group_folds

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.estimates import CandidateScores
    from featstore.matrix import FeatureMatrix
    from featstore.results.comparison import ControlsVerdict, PlannedDifference, PrimaryQuestion
    from featstore.types import Block

    Vector = NDArray[np.float64]
    Rows = NDArray[np.intp]

FOLDS = 5
FEWEST = 3
"""Patients of a site, below which it is left out: fewer make no folds."""
AT_MOST = 1000
"""Images that the site is predicted of: more would take longer than they tell."""
PERMUTATIONS = 499
LEVEL = 0.05


def negative_controls(
    design: EvaluationDesign,
    matrix: FeatureMatrix,
    ranked: Sequence[CandidateScores],
    shortcuts: Sequence[CandidateScores],
    asked: PrimaryQuestion | None,
    seed: int = 0,
) -> NegativeControls | None:
    """Measure the primary fusion, or the best candidate where no question was asked, against every control.

    Parameters
    ----------
    design, ranked, shortcuts
        As of `featstore.evaluation.estimates.score_candidates`: candidates and guesses, on the same folds.
    matrix
        The features, with the site of each image where the data set names it.
    asked
        The primary question.
    seed
        Of folds, resamples and permutations.

    Returns
    -------
    None where there is nothing to measure against: facts of an image are not known, and no site is named.
    """
    model = max(ranked, key=lambda s: s.primary)
    if asked is not None:
        model = next(s for s in ranked if s.candidate.label == asked.primary)
    site = predict_site(matrix, model.candidate.backbones, design.positive, seed)
    if not shortcuts:
        return None if site is None else NegativeControls(model=model.candidate.label, site=site)
    found = planned_differences(design, model, shortcuts)
    intervals = {s.candidate.label: s.estimates[PRIMARY].interval for s in shortcuts}
    works = {
        s.candidate.label
        for s in shortcuts
        if s.primary >= NOTABLE and (interval := intervals[s.candidate.label]) and interval[0] > GUESS
    }
    return NegativeControls(
        model=model.candidate.label, controls=tuple(found), verdict=conclude(found, works), site=site
    )


def conclude(found: Sequence[PlannedDifference], works: Collection[str]) -> ControlsVerdict:
    """What the controls say: whether one is as good, all are clearly below, or neither can be told.

    Parameters
    ----------
    found
        The model less each control.
    works
        Controls that guess the class themselves, clearly better than chance.
    """
    level = {one.name for one in found if one.interval is None or one.interval[0] <= 0}
    if level & set(works) - {MAJORITY}:
        return "control_as_good"
    return "cannot_tell" if level else "above_controls"


def predict_site(
    matrix: FeatureMatrix, backbones: Sequence[str], positive: int | None = None, seed: int = 0
) -> SitePrediction | None:
    """Predict the site from the vectors, and compare its direction with that of the disease.

    Folds are over patients, and the model is the logistic regression of ``concat_logreg``. At most `AT_MOST` images,
    of whole patients drawn at random, take part; sites of fewer than `FEWEST` patients do not.

    Parameters
    ----------
    matrix
        The features; the identity view is used.
    backbones
        Whose columns.
    positive
        The disease; None for the class whose direction is closest.
    seed
        Of patients, folds, resamples and permutations.

    Returns
    -------
    None where fewer than two sites are left, or no folds have every site.
    """
    from featstore.fusion.linear import fit_logistic

    rows = _of_known_sites(matrix, seed)
    sites = np.array([matrix.records[row].site for row in rows.tolist()], np.str_)
    names, y = np.unique(sites, return_inverse=True)
    if len(names) < 2:  # noqa: PLR2004
        return None
    part = replace(matrix.only(rows), classes=tuple(names.tolist()), y=y)
    fewest = min(len(set(part.groups[y == at])) for at in range(len(names)))
    try:
        splits = group_folds(part, min(FOLDS, fewest), seed=seed)
    except AuditError:
        return None
    X, blocks = matrix.rows(rows, backbones, [0]), matrix.columns(backbones)
    proba = [fit_logistic(X[train], y[train], blocks, LINEAR_C).proba(X[test]) for train, test in splits]
    (scored,) = score_candidates(
        EvaluationDesign(y, part.groups, splits),
        [Candidate("concat_logreg", tuple(backbones), "site")],
        [proba],
        group_weights(part.groups, seed=seed),
    )
    seen, chance, p = direction_cosine(X, blocks, matrix.y[rows], y, part.groups, positive, seed)
    auc, balanced = (scored.estimates[name] for name in (PRIMARY, "balanced_accuracy"))
    return SitePrediction(
        sites=len(names),
        images=len(rows),
        patients=len(set(part.groups.tolist())),
        auc=Score(value=auc.mean, interval=auc.interval),
        balanced_accuracy=Score(value=balanced.mean, interval=balanced.interval),
        cosine=seen,
        by_chance=chance,
        p=p,
    )


def _of_known_sites(matrix: FeatureMatrix, seed: int) -> Rows:
    """Rows of images whose site has enough patients, of whole patients until there are `AT_MOST`."""
    sites = np.array([record.site or "" for record in matrix.records], np.str_)
    patients = {
        site: len(np.unique(matrix.groups[sites == site])) for site in np.unique(sites[sites != ""]).tolist()
    }
    rows = np.flatnonzero(np.isin(sites, [site for site, count in patients.items() if count >= FEWEST]))
    if len(rows) <= AT_MOST:
        return rows
    names, of = np.unique(matrix.groups[rows], return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    total = np.cumsum(np.bincount(of)[order])
    return rows[np.isin(of, order[: max(2, int(np.searchsorted(total, AT_MOST, side="right")))])]


def direction_cosine(
    X: NDArray[np.float32],
    blocks: tuple[Block, ...],
    y: Rows,
    sites: Rows,
    groups: NDArray[np.str_],
    positive: int | None = None,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Cosine between the directions of disease and site, and what it is where sites are dealt out at random.

    A direction is that of ridge regression on the standardised columns, penalised by the mean of their Gram matrix's
    diagonal. Of several classes or sites, each against the rest, the largest cosine counts, by chance as well.

    Parameters
    ----------
    X, blocks
        ``(n, d)`` columns, and their blocks.
    y, sites, groups
        ``(n,)`` class, site and patient of each row.
    positive
        The class that counts; None for all.
    seed
        Of the permutations of sites over patients.

    Returns
    -------
    Its size, from 0 to 1; the size that 95 % of the permutations stay below; and the share of permutations, with the
    seen one among them, that reach what was seen.
    """
    from featstore.fusion.linear import gram, standardise

    products = gram(X, blocks, *standardise(X, blocks))
    ridge = max(float(np.trace(products)) / len(X), np.finfo(float).tiny)
    factor = cho_factor(products + ridge * np.eye(len(X)))

    def directions(labels: Vector) -> tuple[Vector, Vector]:
        dual = cho_solve(factor, labels - labels.mean(axis=0))
        image = products @ dual
        length = np.sqrt(np.maximum((dual * image).sum(axis=0), np.finfo(float).tiny))
        return dual / length, image / length

    disease, _ = directions(_indicators(y, positive))
    rng = np.random.default_rng(seed)
    _, first, of = np.unique(groups, return_index=True, return_inverse=True)
    drawn = [sites[first][rng.permutation(len(first))][of] for _ in range(PERMUTATIONS)]
    largest = np.zeros(1 + PERMUTATIONS)
    for site in range(int(sites.max()) + 1)[1 if sites.max() == 1 else 0 :]:
        labels = np.column_stack([each == site for each in (sites, *drawn)]).astype(float)
        cosines = np.abs(disease.T @ directions(labels)[1]).max(axis=0)
        largest = np.maximum(largest, cosines)
    seen, null = float(min(1.0, largest[0])), largest[1:]
    reached = float((1 + (null >= largest[0]).sum()) / (1 + PERMUTATIONS))
    return seen, float(min(1.0, np.quantile(null, 1 - LEVEL))), reached


def _indicators(y: Rows, positive: int | None) -> Vector:
    """One column of the positive class, or of the second of two; else one of each class."""
    classes = range(int(y.max()) + 1)
    wanted = [positive] if positive is not None else classes[1 if len(classes) == 2 else 0 :]  # noqa: PLR2004
    return np.column_stack([y == c for c in wanted]).astype(float)
