"""Negative controls: whether a score could come from something else than the disease.

A negative control is a model that cannot see what is asked about (Lipsitch, Tchetgen Tchetgen & Cohen, Negative
controls, Epidemiology 21, 2010): here the file alone, the outermost border, or what is outside the body. Where one of
them does as well as the network, the network may have learned the same (with the lungs masked: Maguolo & Nanni, A
critic evaluation of methods for COVID-19 automatic detection from X-ray images, Information Fusion 76, 2021). The
histogram of the whole picture is beside them, and counts the grey of the lungs as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featstore.errors import AuditError
from featstore.evaluation.estimates import CandidateScores, EvaluationDesign, score_primary
from featstore.evaluation.findings import FILE, HISTOGRAM
from featstore.evaluation.intervals import difference_interval, group_weights
from featstore.evaluation.metrics import PRIMARY
from featstore.findings import Finding
from featstore.image_facts import AROUND
from featstore.results.comparison import (
    Candidate,
    ControlDifference,
    NegativeControl,
    NegativeControls,
    SitePrediction,
)
from featstore.splits import group_folds
from featstore.tables import interval_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.crossval import ScoredUnits
    from featstore.image_facts import FactTable
    from featstore.matrix import FeatureMatrix
    from featstore.results.comparison import Comparison
    from featstore.splits import Split
    from featstore.types import Block, ImageRecord

    Vector = NDArray[np.float64]

BORDER, BACKGROUND = "border alone", "background alone"
CONTROLS = {FILE: False, HISTOGRAM: True, BORDER: False, BACKGROUND: False}
"""Controls by name, and whether they see grey levels of the lungs."""
PENALTY = 20.0
"""C of the logistic regression on the border and on the background, whose total variance is 1."""
MOST_STEPS, TINY, CONSTANT = 50, 1e-9, 1e-6
MODELS = 10
"""Candidates with the highest AUC that are measured against the controls, beside those that are asked about."""


def negative_controls(
    units: ScoredUnits,
    matrix: FeatureMatrix,
    facts: FactTable,
    ranked: Sequence[CandidateScores],
    shortcuts: Sequence[CandidateScores],
    weights: Vector,
    asked: Sequence[str] = (),
    seed: int = 0,
) -> NegativeControls | None:
    """Measure models against what cannot see the disease, on the same folds and patients.

    Parameters
    ----------
    units
        What is scored.
    matrix, facts
        The features, and what the images show without a network.
    ranked
        The candidates.
    shortcuts
        Guesses from the file and from the grey histogram, as of `featstore.evaluation.findings`.
    weights
        ``(resamples, n)``, those that the candidates were scored with.
    asked
        Labels of candidates that are measured however low they are.
    seed
        Of the folds by which the controls are learned where every patient is left out.

    Returns
    -------
    None if an image is not known, as of a file that is gone, or what lies around its body, as in a pack of before.
    """
    known_around = all(np.isfinite(facts.rows[name]).all() for name in AROUND)
    if len(facts.records) < len(matrix.records) or not shortcuts or not known_around:
        return None
    known = {s.candidate.label: s for s in shortcuts if s.candidate.label in CONTROLS}
    splits = units.learned_by_guesses(matrix, seed) or list(units.by_image.splits)
    columns = {BORDER: facts.rows["border"], BACKGROUND: facts.rows["background"]}
    answers = [
        [_logistic(x.astype(np.float64), matrix.y, split) for split in splits] for x in columns.values()
    ]
    guesses = [Candidate("control", (), name) for name in columns]
    for scored in score_primary(units.design, guesses, units.pooled(answers, splits), weights):
        known[scored.candidate.label] = scored
    best = sorted(ranked, key=lambda s: -s.primary)
    models = [s for at, s in enumerate(best) if at < MODELS or s.candidate.label in asked]
    return NegativeControls(
        controls=tuple(
            NegativeControl(
                name=name,
                mean=known[name].estimates[PRIMARY].mean,
                interval=known[name].estimates[PRIMARY].interval,
                sees_lung=sees_lung,
            )
            for name, sees_lung in CONTROLS.items()
        ),
        differences=tuple(_difference(model, known[name]) for model in models for name in CONTROLS),
        site=site_prediction(matrix, units.design.positive),
    )


def _difference(model: CandidateScores, control: CandidateScores) -> ControlDifference:
    return ControlDifference(
        model=model.candidate.label,
        control=control.candidate.label,
        delta=model.primary - control.primary,
        interval=difference_interval(
            (control.primary, model.primary),
            (control.resampled, model.resampled),
            (control.sample_size, model.sample_size),
        ),
    )


def _logistic(x: Vector, y: NDArray[np.intp], split: Split) -> Vector:
    """Probabilities ``(test images, classes)`` of logistic regressions on columns standardised in training.

    Of two classes one is fitted, of more each against the others, and their probabilities are made to add up to 1.
    """
    train, test = split
    middle, spread = x[train].mean(axis=0), x[train].std(axis=0)
    scale = np.divide(x.shape[1] ** -0.5, spread, out=np.zeros_like(spread), where=spread > CONSTANT)
    z = np.column_stack([(x - middle) * scale, np.ones(len(x))])
    classes = int(y.max()) + 1
    fitted = range(1, classes) if classes == 2 else range(classes)  # noqa: PLR2004
    columns = [expit(z[test] @ fit_by_newton(z[train], y[train] == c, PENALTY)) for c in fitted]
    proba = np.column_stack([1 - columns[0], *columns] if classes == 2 else columns)  # noqa: PLR2004
    shares: Vector = proba / proba.sum(axis=1, keepdims=True)
    return shares


def fit_by_newton(z: Vector, truth: NDArray[np.bool_], C: float) -> Vector:
    """Coefficients ``(d,)`` of L2 logistic regression, the last column of `z` being ones and not penalised.

    That of scikit-learn's ``LogisticRegression(C)``, in a hundredth of its time where columns are few.
    """
    ridge = np.full(z.shape[1], 1 / C)
    ridge[-1] = TINY
    sign = np.where(truth, 1.0, -1.0)

    def loss(w: Vector) -> float:
        return float(np.logaddexp(0, -sign * (z @ w)).sum() + (ridge * w * w).sum() / 2)

    w = np.zeros(z.shape[1])
    now = loss(w)
    for _ in range(MOST_STEPS):
        p = expit(z @ w)
        slope = z.T @ (p - truth) + ridge * w
        step = np.linalg.solve((z.T * (p * (1 - p))) @ z + np.diag(ridge), slope)
        share = 1.0
        while (new := loss(w - share * step)) > now and share > TINY:
            share /= 2
        if now - new <= TINY * (1 + now):
            break
        w, now = w - share * step, new
    return w


def expit(x: Vector) -> Vector:
    """Logistic function, without overflow."""
    found: Vector = 0.5 * (1 + np.tanh(x / 2))
    return found


def control_findings(result: Comparison, told: Sequence[Finding] = ()) -> tuple[Finding, ...]:
    """FS414 where a control that sees no lung is not clearly worse than the best candidate.

    Not of the file where FS401 is `told`, which says the same.
    """
    found = result.negative_controls
    if found is None:
        return ()
    best = max(result.candidates, key=lambda s: s.primary)
    is_told = any(finding.code == "FS401" for finding in told)
    explaining = [one for one in found.explaining(best.label) if not (is_told and one.name == FILE)]
    if not explaining:
        return ()
    worst = max(explaining, key=lambda one: one.mean or 0.0)
    against = found.against(best.label)[worst.name]
    interval = "" if against.interval is None else f" [{interval_text(against.interval, signed=True)}]"
    message = (
        f"The {worst.name} reaches AUC {worst.mean:.3f} without seeing a lung; {best.label}, the best model, is not"
        f" clearly above it (difference {against.delta:+.3f}{interval})."
    )
    return (Finding("FS414", message, value=round(against.delta, 4), interval=against.interval),)


# The site, told from the features, and the direction in which it lies

MOST_IMAGES = 2000
"""Images of whole patients, drawn at random, by which the site is predicted at most: time grows with their square."""
FEWEST = 4
"""Patients of a site that takes part."""
SITE_FOLDS = 5
SHRINKAGE = 0.1
"""Penalty of the ridge regression, as a share of the mean squared length of a standardised vector."""
DEALS = 499
"""Times that sites are dealt to patients at random."""


class _Sites:
    """Images as a split sees them, with the site in place of the class."""

    def __init__(
        self, records: Sequence[ImageRecord], groups: NDArray[np.str_], names: NDArray[np.str_]
    ) -> None:
        self.records, self.groups = records, groups
        found, at = np.unique(names, return_inverse=True)
        self.classes: Sequence[str] = found.tolist()
        self.y: NDArray[np.intp] = at.astype(np.intp)

    def fewest_patients(self) -> int:
        """Patients of the site that has the fewest."""
        return min(len(set(self.groups[self.y == c])) for c in range(len(self.classes)))


def site_prediction(matrix: FeatureMatrix, positive: int | None, seed: int = 0) -> SitePrediction | None:
    """Predict the site from the features by ridge regression, over folds of whole patients.

    Parameters
    ----------
    matrix
        The features; the identity view is used.
    positive
        The positive class, whose direction is compared with that of the site; None compares none.
    seed
        Of the folds, of the patients where there are many images, and of the deals.

    Returns
    -------
    None where fewer than two sites are known, of four patients or more each.
    """
    rows = _rows_with_site(matrix, np.random.default_rng(seed))
    if rows is None:
        return None
    table = _Sites([matrix.records[row] for row in rows], matrix.groups[rows], _names(matrix)[rows])
    try:
        splits = group_folds(table, min(SITE_FOLDS, table.fewest_patients()), 1, seed)
    except AuditError:  # patients who were at several sites
        return None
    x = matrix.features[0, rows]
    design = EvaluationDesign(table.y, table.groups, splits)
    answers = [_ridge(x, matrix.blocks, np.eye(len(table.classes))[table.y], split) for split in splits]
    (scored,) = score_primary(
        design, [Candidate("control", (), "site")], [answers], group_weights(table.groups, seed=seed)
    )
    angle = None if positive is None else _angle(x, matrix.blocks, matrix.y[rows] == positive, table, seed)
    cosine, chance, p = angle or (None, None, None)
    return SitePrediction(
        sites=len(table.classes),
        patients=len(set(table.groups.tolist())),
        images=len(rows),
        mean=scored.estimates[PRIMARY].mean,
        interval=scored.estimates[PRIMARY].interval,
        cosine=cosine,
        chance=chance,
        p=p,
    )


def _names(matrix: FeatureMatrix) -> NDArray[np.str_]:
    return np.array([record.site or "" for record in matrix.records])


def _rows_with_site(matrix: FeatureMatrix, rng: np.random.Generator) -> NDArray[np.intp] | None:
    """Images of sites with patients enough, at most `MOST_IMAGES` or what one patient has beyond."""
    names = _names(matrix)
    wanted = [name for name in np.unique(names) if name and len(set(matrix.groups[names == name])) >= FEWEST]
    if len(wanted) < 2:  # noqa: PLR2004
        return None
    rows = np.flatnonzero(np.isin(names, wanted))
    if len(rows) > MOST_IMAGES:
        patients, at, counts = np.unique(matrix.groups[rows], return_inverse=True, return_counts=True)
        order = rng.permutation(len(patients))
        kept = order[np.cumsum(counts[order]) <= MOST_IMAGES]
        rows = rows[np.isin(at, kept)]
        left = names[rows]
        if any(len(set(matrix.groups[rows[left == name]])) < FEWEST for name in wanted):
            return None
    return rows


def _gram(x: NDArray[np.float32], blocks: Sequence[Block], train: NDArray[np.intp]) -> tuple[Vector, float]:
    """Products ``(n, len(train))`` of vectors standardised by those in training, and the penalty."""
    from featstore.fusion.linear import standardise

    mean, scale = standardise(x[train], blocks)
    z = (x - mean) * scale
    products: Vector = z @ z[train].T
    own = products[train]
    return products, SHRINKAGE * max(float(np.trace(own)) / len(train), np.finfo(float).tiny)


def _ridge(x: NDArray[np.float32], blocks: Sequence[Block], targets: Vector, split: Split) -> Vector:
    """Scores ``(test images, targets)`` of a ridge regression in the dual."""
    from scipy.linalg import cho_factor, cho_solve

    train, test = split
    products, penalty = _gram(x, blocks, train)
    middle = targets[train].mean(axis=0)
    solver = cho_factor(products[train] + penalty * np.eye(len(train)))
    scores: Vector = products[test] @ cho_solve(solver, targets[train] - middle) + middle
    return scores


def _angle(
    x: NDArray[np.float32], blocks: Sequence[Block], positive: NDArray[np.bool_], table: _Sites, seed: int
) -> tuple[float, float, float] | None:
    """Cosine between disease and site, the size that chance stays below, and p; see `SitePrediction`.

    Two directions in thousands of dimensions are nearly orthogonal whatever they mean, so the cosine says nothing by
    itself. It is compared with those of sites that are dealt to the patients at random, as many to each.
    """
    from scipy.linalg import cho_factor, cho_solve

    if positive.all() or not positive.any():
        return None
    products, penalty = _gram(x, blocks, np.arange(len(x)))
    solver = cho_factor(products + penalty * np.eye(len(x)))
    patients, first, at = np.unique(table.groups, return_index=True, return_inverse=True)
    rng = np.random.default_rng(seed)
    sites = [table.y, *(table.y[first][rng.permutation(len(patients))][at] for _ in range(DEALS))]
    count = len(table.classes) if len(table.classes) > 2 else 1  # noqa: PLR2004 - of two, one is the other reversed
    indicators = np.concatenate([np.eye(len(table.classes))[site][:, -count:] for site in sites], axis=1)
    targets = np.column_stack([positive, indicators])
    dual = cho_solve(solver, targets - targets.mean(axis=0))
    along = products @ dual
    lengths = np.sqrt(np.maximum((dual * along).sum(axis=0), np.finfo(float).tiny))
    cosines = (dual[:, 0] @ along[:, 1:] / (lengths[0] * lengths[1:])).reshape(len(sites), count)
    largest = np.abs(cosines).max(axis=1)
    seen = float(cosines[0, np.abs(cosines[0]).argmax()])
    p = float((1 + (largest[1:] >= largest[0] - 1e-12).sum()) / len(sites))
    return seen, float(np.quantile(largest[1:], 0.95)), p
