"""When a model should not answer: prediction sets with a guarantee, and images that are unlike any in training.

Prediction sets are class-conditional (Mondrian) split conformal: Vovk, Conditional validity of inductive conformal
predictors, ACML 2012. Patients are exchangeable, their images are not; so each patient weighs the same and shares its
weight out among its images: Lee, Barber & Willett, Distribution-free inference with hierarchical data, 2023
(arXiv:2306.06342); Dunn, Wasserman & Ramdas, Distribution-free prediction sets for two-layer hierarchical models,
JASA 2023. Thresholds come from patients that the model was not fitted on. MAPIE knows no groups
(docs/decisions/033-abstention.md).

What is guaranteed, if a new patient of a class comes as those of calibration did: with a probability of at least
1 - alpha over the draw of the patients of calibration and of the new one, the set of an image drawn evenly from those
of the new patient holds the class; and so does the set of the patient, whose one score is pooled from its images.
Nothing is guaranteed for each single patient, for each study, or for another hospital.

How unlike an image is to those of training is its Mahalanobis distance to their mean, with the covariance of Ledoit &
Wolf, A well-conditioned estimator for large-dimensional covariance matrices, 2004. The model keeps the mean, the
deviation of each network and a few principal directions, and no patient's vector.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from msgspec.structs import replace

from featstore.errors import AuditError, RunError, UsageError
from featstore.evaluation.intervals import wilson
from featstore.results.document import read_result
from featstore.results.fusion import Abstention, ConformalRule, SetCoverage, UnlikeTraining
from featstore.splits import inner_folds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.patients import Units
    from featstore.matrix import FeatureMatrix
    from featstore.splits import LabelledImages

    Vector = NDArray[np.float64]
    Rows = NDArray[np.intp]

REMEDY = "Fit again with `featstore fuse`."

# Quantiles over patients

ROUNDING = 1e-9


def patients_needed(alpha: float) -> int:
    """Fewest patients of a class from which a level of ``1 - alpha`` can be certified."""
    return math.ceil(1 / alpha - ROUNDING) - 1


def patient_quantile(scores: Vector, patients: NDArray[Any], alpha: float) -> float | None:
    """Smallest score that at least ``1 - alpha`` of new patients' images do not exceed.

    Parameters
    ----------
    scores
        ``(n,)``, one per image, larger where it is less like the others.
    patients
        ``(n,)`` whose image each is. Each patient of K weighs ``1 / (K + 1)``, in equal parts on its images; the
        rest lies at infinity, for the new one.
    alpha
        Share that may exceed it.

    Returns
    -------
    None where so few patients certify nothing.
    """
    names, number, images = np.unique(patients, return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    mass = np.cumsum((1 / images[number] / (len(names) + 1))[order])
    reached = np.flatnonzero(mass >= 1 - alpha - ROUNDING)
    return float(scores[order[reached[0]]]) if len(reached) else None


# Prediction sets

FOLDS = 4
"""Of the training patients one in so many is set aside to calibrate on; more where a class would have too few."""


def require_alpha(alpha: float | None) -> None:
    """Refuse an error rate that is none.

    Raises
    ------
    UsageError
        If it is not above 0 and at most 0.5.
    """
    if alpha is not None and not 0 < alpha <= 0.5:  # noqa: PLR2004
        raise UsageError(
            f"--abstain {alpha:g} is no error rate from which to abstain.", "Use one such as --abstain 0.1."
        )


def set_aside(matrix: FeatureMatrix, train: Rows, alpha: float, seed: int) -> tuple[Rows, Rows]:
    """Part the training images into those to fit and those to calibrate on, over whole patients.

    Raises
    ------
    AuditError
        If no patients are known, or a class has too few.
    """
    _require_patients(matrix)
    needed = patients_needed(alpha)
    fewest = min(_patients_by_class(matrix, train))
    folds = min(FOLDS, fewest // max(needed, 1))
    if folds < 2:  # noqa: PLR2004
        raise too_few(matrix, train, alpha, of=2)
    return inner_folds(matrix, train, folds, seed, needed_by="--abstain")[0]


def _require_patients(matrix: FeatureMatrix) -> None:
    if not matrix.has_groups:
        raise AuditError(
            "No patients (groups) are known, and a guarantee is about new patients.",
            "Name them, --columns group=patient_id or --group-pattern; or leave out --abstain.",
        )


def _patients_by_class(matrix: FeatureMatrix, rows: Rows) -> list[int]:
    y, groups = matrix.y[rows], matrix.groups[rows]
    return [len(np.unique(groups[y == c])) for c in range(len(matrix.classes))]


def too_few(matrix: FeatureMatrix, rows: Rows, alpha: float, *, of: int = 1) -> AuditError:
    """Refusal of a level that the patients of a class cannot certify; `of` parts of them one calibrates."""
    counts = [count // of for count in _patients_by_class(matrix, rows)]
    fewest = min(counts)
    possible = math.ceil(100 / (fewest + 1)) / 100
    other = f"Use --abstain {possible:g} or more" if possible <= 0.5 else "Leave out --abstain"  # noqa: PLR2004
    return AuditError(
        f"{fewest} patients of the class {matrix.classes[counts.index(fewest)]!r} can be calibrated on;"
        f" a level of {1 - alpha:g} takes {patients_needed(alpha)}.",
        f"{other}, or add patients.",
    )


def calibrate_sets(
    matrix: FeatureMatrix,
    rows: Rows,
    proba: Vector,
    alpha: float,
    part: str,
    pool: str,
    pooled: tuple[Rows, Vector] | None,
) -> ConformalRule:
    """Choose, for each class, the probability from which on it belongs to the set.

    Parameters
    ----------
    matrix, rows
        The images to calibrate on, of which the model has learned nothing.
    proba
        ``(n, classes)`` of these, at the operating point of images.
    alpha
        Error rate.
    part
        Where the patients come from: ``val`` or ``calibration``.
    pool, pooled
        How images become a patient's answer; and the true class ``(patients,)`` and the probabilities ``(patients,
        classes)`` of the patients, None where some have several classes.

    Raises
    ------
    AuditError
        If no patients are known, or a class has too few.
    """
    _require_patients(matrix)
    if min(_patients_by_class(matrix, rows)) < patients_needed(alpha):
        raise too_few(matrix, rows, alpha)
    y, groups = matrix.y[rows], matrix.groups[rows]
    return ConformalRule(
        alpha=alpha,
        part=part,
        patients=tuple(_patients_by_class(matrix, rows)),
        pool=pool,
        by_image=_thresholds(proba, y, groups, alpha),
        by_patient=None
        if pooled is None
        else _thresholds(pooled[1], pooled[0], np.arange(len(pooled[0])), alpha),
    )


def _thresholds(proba: Vector, y: Rows, patients: NDArray[Any], alpha: float) -> tuple[float, ...]:
    """Least probability of each class; of a class that is not certified none, so that all sets hold it."""
    found = [
        patient_quantile(-proba[y == c, c], patients[y == c], alpha) if (y == c).any() else None
        for c in range(proba.shape[1])
    ]
    return tuple(0.0 if quantile is None else -quantile for quantile in found)


def prediction_sets(proba: Vector, thresholds: Sequence[float]) -> NDArray[np.bool_]:
    """``(n, classes)`` whether each class belongs to the set: its probability is at least its threshold."""
    held: NDArray[np.bool_] = proba >= np.array(thresholds)
    return held


def coverage(
    sets: NDArray[np.bool_], y: Rows, patients: NDArray[Any], classes: Sequence[str]
) -> dict[str, SetCoverage]:
    """What sets did on held-out patients, by class: each patient counts once, its images in equal parts.

    Parameters
    ----------
    sets, y
        ``(n, classes)`` and the true classes ``(n,)``.
    patients
        ``(n,)`` whose images they are.
    classes
        Names.

    Notes
    -----
    Intervals are Wilson's on the number of patients: the mean of a patient's images varies less than one of them.
    """
    found = {}
    for c, name in enumerate(classes):
        here = y == c
        shares = [
            sets[here, c],
            sets[here].sum(axis=1) > 1,
            ~sets[here].any(axis=1),
        ]
        count = len(np.unique(patients[here]))
        if not count:
            continue
        covered, unsure, neither = (_by_patient(values, patients[here]) for values in shares)
        low, high = wilson(covered, count)
        found[name] = SetCoverage(
            patients=count,
            covered=covered,
            interval=(float(low), float(high)),
            unsure=unsure,
            neither=neither,
        )
    return found


def _by_patient(values: NDArray[np.bool_], patients: NDArray[Any]) -> float:
    _, number, images = np.unique(patients, return_inverse=True, return_counts=True)
    return float((np.bincount(number, values) / images).mean())


def read_rule(document: Any, classes: int) -> ConformalRule | None:  # noqa: ANN401
    """Read what a model keeps; None of a model that keeps nothing.

    Raises
    ------
    RunError
        If it is damaged.
    """
    if document is None:
        return None
    try:
        rule = read_result(ConformalRule, document, "the prediction sets")
    except (ValueError, TypeError) as error:
        raise RunError(f"The run's prediction sets cannot be read: {error}.", REMEDY) from error
    parts = [rule.by_image, *([] if rule.by_patient is None else [rule.by_patient]), rule.patients]
    if not 0 < rule.alpha < 1 or any(len(part) != classes for part in parts):
        raise RunError(f"The run's prediction sets are not of {classes} classes.", REMEDY)
    return rule


# Images unlike any in training

UNLIKE = 0.05
"""Share of the images of held-out patients that would be called unlike those of training."""
DIRECTIONS, PATIENTS_A_DIRECTION = 32, 8
"""Principal directions that are kept, and patients that each takes: none is the vector of a patient."""
PARTS = 5
MOST = 1000
"""Images that the distance is fitted on; of more, so many at even steps."""
LEAST = 1e-12
WIDEST = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class TrainingDistance:
    """How far a vector is from those of training.

    Attributes
    ----------
    mean, scale
        ``(d,)`` mean of the training vectors, and for each column the usual deviation in its block.
    directions
        ``(k, d)`` principal directions of the scaled vectors, orthonormal.
    variances, rest
        ``(k,)`` shrunk variances along them, and the mean of that along all others.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    directions: NDArray[np.float32]
    variances: Vector
    rest: float

    @classmethod
    def fit(cls, X: NDArray[Any], directions: int, widths: Sequence[int] = ()) -> Self:
        """Learn from vectors ``(n, d)`` of at least two images, blocks of so many columns weighing the same.

        Columns of a network keep their proportions: many are zero but for a few images, and divided by their own
        deviations these few would be farther than any picture of something else.
        """
        X = np.asarray(X, np.float64)
        mean, scale = X.mean(axis=0), np.empty(X.shape[1])
        ends = np.cumsum(widths or [X.shape[1]])
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            scale[start:end] = np.sqrt(X[:, start:end].var(axis=0).mean())
        scale[scale < LEAST] = 1.0
        Z = (X - mean) / scale
        n, d = Z.shape
        small = Z @ Z.T if n <= d else Z.T @ Z
        shrinkage, usual = ledoit_wolf(small, (Z * Z).sum(axis=1), d)
        keep = max(0, min(directions, n - 1, d))
        values, vectors = np.linalg.eigh(small)
        values, vectors = values[::-1][:keep], vectors[:, ::-1][:, :keep]
        solid = values > max(float(values[0]) if keep else 0.0, LEAST) * LEAST
        values, vectors = values[solid], vectors[:, solid]
        axes = (vectors.T @ Z) / np.sqrt(values)[:, None] if n <= d else vectors.T
        along = values / n
        left = (float(np.trace(small)) / n - float(along.sum())) / max(1, d - len(along))
        return cls(
            mean.astype(np.float32),
            scale.astype(np.float32),
            axes.astype(np.float32),
            np.maximum((1 - shrinkage) * along + shrinkage * usual, LEAST),
            max((1 - shrinkage) * max(left, 0.0) + shrinkage * usual, LEAST),
        )

    def distances(self, X: NDArray[Any]) -> Vector:
        """Squared distances ``(n,)``, over the number of columns: about one of an image as those of training."""
        Z = (np.asarray(X, np.float64) - self.mean) / self.scale
        along = Z @ self.directions.T.astype(np.float64)
        across = np.maximum((Z * Z).sum(axis=1) - (along * along).sum(axis=1), 0.0)
        squared: Vector = ((along * along) / self.variances).sum(axis=1) + across / self.rest
        found: Vector = squared / Z.shape[1]
        return found

    def to_json(self) -> dict[str, Any]:
        """As text, arrays in base 64."""
        return {
            **{name: _packed(getattr(self, name)) for name in ("mean", "scale", "directions")},
            "variances": self.variances.tolist(),
            "rest": self.rest,
        }


def ledoit_wolf(gram: Vector, squared_norms: Vector, columns: int) -> tuple[float, float]:
    """Shrinkage of a covariance, and the mean variance that it shrinks towards.

    Parameters
    ----------
    gram
        ``Z @ Z.T`` or ``Z.T @ Z`` of centred vectors ``(n, columns)``, whichever is smaller.
    squared_norms
        ``(n,)`` squared lengths of the vectors.
    columns
        Of the vectors.
    """
    n = len(squared_norms)
    usual = float(squared_norms.sum()) / n / columns
    spread = float((gram * gram).sum()) / n**2
    apart = (spread - columns * usual**2) / columns
    noise = (float((squared_norms**2).sum()) / n - spread) / (columns * n)
    noise = min(max(noise, 0.0), apart)
    return (noise / apart if noise > 0 else 0.0), usual


@dataclass(frozen=True, slots=True, eq=False)
class UnlikeRule:
    """A distance, and the largest that is not called unlike."""

    distance: TrainingDistance
    about: UnlikeTraining

    def ratios(self, X: NDArray[Any]) -> Vector:
        """Distances ``(n,)`` over the threshold: above one the image is unlike any in training."""
        found: Vector = np.sqrt(self.distance.distances(X)) / self.about.threshold
        return found

    def to_json(self) -> dict[str, Any]:
        """For the model."""
        return {**self.about.to_json(), "distance": self.distance.to_json()}


def at_most(rows: Rows, most: int = MOST) -> Rows:
    """So many of the rows at even steps, all where there are no more."""
    chosen: Rows = rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.intp)]
    return chosen


def fit_unlike(
    X: NDArray[Any], patients: NDArray[Any], widths: Sequence[int] = (), *, has_patients: bool
) -> UnlikeRule | None:
    """Learn a distance from training vectors, and its threshold from patients that were left out of it.

    Parameters
    ----------
    X
        ``(n, d)`` identity view of the training images, without covariates.
    patients
        ``(n,)`` whose image each is.
    widths
        Columns of each network, in order; without, all are of one.
    has_patients
        Whether these are patients, and not images taken for them.

    Returns
    -------
    None where so few patients certify no threshold.
    """
    names, number = np.unique(patients, return_inverse=True)
    if len(names) < patients_needed(UNLIKE):
        return None
    keep = min(DIRECTIONS, len(names) // PATIENTS_A_DIRECTION)
    found = np.empty(len(X))
    for part in range(PARTS):
        out = number % PARTS == part
        found[out] = TrainingDistance.fit(X[~out], keep, widths).distances(X[out])
    threshold = patient_quantile(np.sqrt(found), patients, UNLIKE)
    if threshold is None or threshold <= 0:
        return None
    about = UnlikeTraining(share=UNLIKE, threshold=threshold, patients=len(names), has_patients=has_patients)
    return UnlikeRule(TrainingDistance.fit(X, keep, widths), about)


def read_unlike(document: Any, columns: int) -> UnlikeRule | None:  # noqa: ANN401
    """Read what a model keeps, for vectors of so many columns; None of a model that keeps nothing.

    Raises
    ------
    RunError
        If it is damaged.
    """
    if document is None:
        return None
    try:
        arrays = document["distance"]
        about = {name: value for name, value in document.items() if name != "distance"}
        variances = np.array(arrays["variances"], np.float64)
        rule = UnlikeRule(
            TrainingDistance(
                _unpacked(arrays["mean"], 1, columns)[0],
                _unpacked(arrays["scale"], 1, columns)[0],
                _unpacked(arrays["directions"], len(variances), columns),
                variances,
                float(arrays["rest"]),
            ),
            read_result(UnlikeTraining, about, "the distance from training"),
        )
        sound = (
            variances.shape == (len(variances),)
            and bool((variances > 0).all())
            and np.isfinite([*variances, rule.distance.rest]).all()
            and min(rule.distance.rest, rule.about.threshold) > 0
            and bool((rule.distance.scale > 0).all())
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError) as error:
        raise RunError(f"The run's distance from training cannot be read: {error!r}.", REMEDY) from error
    if not sound:
        raise RunError("The run's distance from training is none.", REMEDY)
    return rule


def _packed(array: NDArray[np.float32]) -> str:
    return base64.b64encode(array.astype("<f4").tobytes()).decode()


def _unpacked(text: str, rows: int, columns: int) -> NDArray[np.float32]:
    array = np.frombuffer(base64.b64decode(text, validate=True), "<f4").reshape(rows, columns)
    if not np.isfinite(array).all():
        raise ValueError("a number is not finite")
    return array


# What a fit keeps of both


def held_out_coverage(
    rule: ConformalRule,
    units: Units,
    images: Mapping[str, tuple[Rows, Vector]],
    patients: Mapping[str, tuple[Rows, Vector]],
) -> Abstention:
    """What prediction sets did on each split that did not calibrate them.

    Parameters
    ----------
    rule
        The sets.
    units
        The data set, and its patients where they have one class each.
    images, patients
        By split, rows of the images and of the patients, and their probabilities ``(n, classes)``.
    """
    classes = units.images.classes

    def told(
        found: Mapping[str, tuple[Rows, Vector]], thresholds: Sequence[float] | None, table: LabelledImages
    ) -> dict[str, dict[str, SetCoverage]]:
        if thresholds is None:
            return {}
        return {
            split: coverage(prediction_sets(proba, thresholds), table.y[rows], table.groups[rows], classes)
            for split, (rows, proba) in found.items()
            if split != rule.part
        }

    return Abstention(
        rule=rule,
        by_image=told(images, rule.by_image, units.images),
        by_patient=told(patients, rule.by_patient, units.table),
    )


def held_out_unlike(
    rule: UnlikeRule, vectors: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]
) -> UnlikeTraining:
    """Share of the images that are called unlike those of training, by split: vectors ``(n, d)`` and patients."""
    shares = {
        split: _by_patient(rule.ratios(X) > 1, patients) for split, (X, patients) in vectors.items() if len(X)
    }
    return replace(rule.about, held_out=shares)
