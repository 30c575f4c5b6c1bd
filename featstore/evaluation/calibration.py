"""Calibration of probabilities, operating points, calibration errors, and the curves to choose them by.

Calibrations are fitted on out-of-fold probabilities by scikit-learn's `CalibratedClassifierCV` and kept as a few
numbers: a run holds no pickle (law 7). With more than two classes Platt's and the isotonic map are one per class,
scaled to sum to one.

An operating point is a calibration of the probabilities, and the probability from which an image is called positive.
Both are chosen on out-of-fold probabilities of the *training* images, by folds over whole groups within them (law 6),
and then applied to the model that was fitted on all of these.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeAlias

import numpy as np

from featstore.errors import RunError, UnknownNameError, UsageError, did_you_mean
from featstore.evaluation.intervals import LEVEL
from featstore.evaluation.metrics import ALMOST_NEVER, calibration_error, decide, equal_mass_bins
from featstore.results.document import read_result
from featstore.results.fusion import OperatingFields, ToleranceFields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.results.scores import (
        CalibrationError,
        Coefficient,
        Curves,
        NetBenefit,
        Recalibration,
        Reliability,
        RiskCoverage,
    )

    Vector = NDArray[np.float64]

# Calibrations

REMEDY = "Fit again with `featstore fuse`."
RIDGE = 1e-5
ROUNDING = 1e-9


class Calibration(Protocol):
    """A fitted map of probabilities."""

    name: ClassVar[str]

    @classmethod
    def fit(cls, y: NDArray[np.intp], proba: Vector) -> Self:
        """Learn from true classes ``(n,)`` and probabilities ``(n, classes)`` that did not see them."""

    def apply(self, proba: Vector) -> Vector:
        """Return calibrated probabilities ``(n, classes)``."""


@dataclass(frozen=True, slots=True)
class Temperature:
    """One number for all classes: logits times `slope`. Keeps the order of the images, and the predicted class.

    Source: Guo et al., On calibration of modern neural networks, ICML 2017; `slope` is one over their temperature.
    """

    name: ClassVar[str] = "temperature"
    slope: float

    @classmethod
    def fit(cls, y: NDArray[np.intp], proba: Vector) -> Self:
        """See `Calibration`."""
        two = proba.shape[1] == 2  # noqa: PLR2004
        (fitted,) = _learn(y, _odds(proba) if two else _logs(proba), cls.name)
        # Of two classes scikit-learn makes the logits (-z, z), which lie 2 z apart.
        return cls(float(fitted.beta_) * (2 if two else 1))

    def apply(self, proba: Vector) -> Vector:
        """See `Calibration`."""
        return _softmax(self.slope * _logs(proba))


@dataclass(frozen=True, slots=True)
class Platt:
    """A logistic curve over the log-odds of each class (of the second class alone where there are two).

    Source: Platt, Probabilistic outputs for support vector machines, 1999.
    """

    name: ClassVar[str] = "platt"
    slopes: tuple[float, ...]
    offsets: tuple[float, ...]

    @classmethod
    def fit(cls, y: NDArray[np.intp], proba: Vector) -> Self:
        """See `Calibration`."""
        fitted = _learn(y, _odds(proba), "sigmoid")
        return cls(tuple(float(-f.a_) for f in fitted), tuple(float(-f.b_) for f in fitted))

    def apply(self, proba: Vector) -> Vector:
        """See `Calibration`."""
        logits = _odds(proba) * np.array(self.slopes) + np.array(self.offsets)
        return _completed(1 / (1 + np.exp(-logits.clip(-500, 500))))


@dataclass(frozen=True, slots=True)
class VectorScaling:
    """A slope and an offset for the logit of each class, fitted together. For three or more classes.

    Unlike one Platt's curve per class it needs no scaling to a sum of one, which makes probabilities less sure.

    Source: Guo et al., On calibration of modern neural networks, ICML 2017. Log-loss is least, but for a penalty of
    `RIDGE` on what departs from the probabilities as they are, which keeps the numbers finite where the classes are
    told apart without an error.
    """

    name: ClassVar[str] = "vector"
    slopes: tuple[float, ...]
    offsets: tuple[float, ...]

    @classmethod
    def fit(cls, y: NDArray[np.intp], proba: Vector) -> Self:
        """See `Calibration`."""
        from scipy.optimize import minimize

        logits, width = _logs(proba), proba.shape[1]
        truth = (y[:, None] == np.arange(width)).astype(np.float64)
        start = np.repeat([1.0, 0.0], width)

        def loss(values: Vector) -> tuple[float, Vector]:
            fitted = _softmax(logits * values[:width] + values[width:])
            gaps = (fitted - truth) / len(y)
            slope = np.concatenate([(gaps * logits).sum(axis=0), gaps.sum(axis=0)])
            apart = values - start
            cost = -float((truth * _logs(fitted)).sum()) / len(y) + RIDGE * float(apart @ apart) / 2
            return cost, slope + RIDGE * apart

        values = minimize(loss, start, jac=True, method="L-BFGS-B").x
        return cls(tuple(values[:width].tolist()), tuple(values[width:].tolist()))

    def apply(self, proba: Vector) -> Vector:
        """See `Calibration`."""
        return _softmax(_logs(proba) * np.array(self.slopes) + np.array(self.offsets))


@dataclass(frozen=True, slots=True)
class Isotonic:
    """A rising staircase over the log-odds of each class, joined by straight lines. Needs about a thousand images.

    Source: Zadrozny & Elkin, Transforming classifier scores into accurate multiclass probability estimates, KDD 2002.
    """

    name: ClassVar[str] = "isotonic"
    odds: tuple[tuple[float, ...], ...]
    heights: tuple[tuple[float, ...], ...]

    @classmethod
    def fit(cls, y: NDArray[np.intp], proba: Vector) -> Self:
        """See `Calibration`."""
        fitted = _learn(y, _odds(proba), cls.name)
        return cls(
            tuple(tuple(f.X_thresholds_.tolist()) for f in fitted),
            tuple(tuple(f.y_thresholds_.tolist()) for f in fitted),
        )

    def apply(self, proba: Vector) -> Vector:
        """See `Calibration`."""
        columns = zip(_odds(proba).T, self.odds, self.heights, strict=True)
        return _completed(np.column_stack([np.interp(x, xs, ys) for x, xs, ys in columns]))


AnyCalibration: TypeAlias = Temperature | Platt | Isotonic | VectorScaling

METHODS: Mapping[str, type[AnyCalibration]] = {
    kind.name: kind for kind in (Temperature, Platt, Isotonic, VectorScaling)
}


def method(name: str) -> type[AnyCalibration]:
    """Return the kind of calibration by its name.

    Raises
    ------
    UnknownNameError
        If there is none.
    """
    if name not in METHODS:
        raise UnknownNameError(f"There is no calibration {name!r}.", did_you_mean(name, METHODS))
    return METHODS[name]


def to_json(calibration: AnyCalibration) -> dict[str, Any]:
    """Name and numbers."""
    return {"method": calibration.name, **asdict(calibration)}


def from_json(document: Mapping[str, Any], classes: int) -> AnyCalibration:
    """Rebuild what `to_json` wrote, for a model of so many classes.

    Raises
    ------
    RunError
        If it is not that: another number of classes, numbers that are none or beyond all measure, a staircase that
        falls or leaves 0 to 1; or if it does not turn probabilities into probabilities.
    """
    try:
        calibration = read_result(METHODS[document["method"]], dict(document), "the calibration")
        sound = _is_sound(calibration, classes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"The run's calibration cannot be read: {error!r}.", REMEDY) from error
    if not sound:
        raise RunError(f"The run's calibration is not one of {classes} classes.", REMEDY)
    return calibration


def _is_sound(calibration: AnyCalibration, classes: int) -> bool:
    """Whether there are as many numbers as the classes need, and they make probabilities of probabilities."""
    two = classes == 2  # noqa: PLR2004
    match calibration:
        case Platt():
            parts = (calibration.slopes, calibration.offsets)
            counted = all(len(part) == (1 if two else classes) for part in parts)
        case VectorScaling():
            counted = len(calibration.slopes) == len(calibration.offsets) == classes
        case Isotonic():
            stairs = list(zip(calibration.odds, calibration.heights, strict=True))
            counted = len(stairs) == (1 if two else classes) and all(_rises(*stair) for stair in stairs)
        case Temperature():
            counted = True
    if not counted:
        return False
    rows = np.full((3, classes), 1 / classes)
    rows[1:] = 0.0
    rows[1, 0] = rows[2, -1] = 1.0
    answer = calibration.apply(rows)
    return (
        answer.shape == rows.shape
        and bool(((answer >= -ROUNDING) & (answer <= 1 + ROUNDING)).all())
        and bool(np.allclose(answer.sum(axis=1), 1.0))
    )


def _rises(odds: Sequence[float], heights: Sequence[float]) -> bool:
    """Whether it is a rising staircase from 0 to 1."""
    if not 0 < len(odds) == len(heights):
        return False
    rising = bool((np.diff(odds) >= 0).all()) and bool((np.diff(heights) >= 0).all())
    return rising and heights[0] >= -ROUNDING and heights[-1] <= 1 + ROUNDING


def _learn(y: NDArray[np.intp], scores: Vector, name: str) -> Sequence[Any]:
    """Let scikit-learn fit its calibrators on ``scores (n, 1)`` of two classes, or ``(n, classes)`` of more."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression

    # A classifier that hands its input through: the scores come from other models and are out-of-fold already.
    through = LogisticRegression()
    through.classes_, width = np.unique(y), scores.shape[1]
    through.coef_, through.intercept_ = np.eye(width), np.zeros(width)
    rows = np.arange(len(y))
    fitted = CalibratedClassifierCV(FrozenEstimator(through), method=name, cv=[(rows, rows)]).fit(scores, y)
    calibrators: Sequence[Any] = fitted.calibrated_classifiers_[0].calibrators
    return calibrators


def _logs(proba: Vector) -> Vector:
    logs: Vector = np.log(proba.clip(ALMOST_NEVER, 1.0))
    return logs


def _softmax(logits: Vector) -> Vector:
    return _scaled(np.exp(logits - logits.max(axis=1, keepdims=True)))


def _odds(proba: Vector) -> Vector:
    """Log-odds of the second class ``(n, 1)`` where there are two, else of each class ``(n, classes)``."""
    columns = proba[:, 1:] if proba.shape[1] == 2 else proba  # noqa: PLR2004
    return _logs(columns) - _logs(1 - columns)


def _completed(columns: Vector) -> Vector:
    """Add the first of two classes, or scale several to a sum of one."""
    if columns.shape[1] == 1:
        return np.hstack([1 - columns, columns])
    return _scaled(columns)


def _scaled(parts: Vector) -> Vector:
    total = parts.sum(axis=1, keepdims=True)
    even = np.full(parts.shape, 1 / parts.shape[1])
    scaled: Vector = np.divide(parts, total, out=even, where=total > 0)
    return scaled


# Operating points

INNER_FOLDS = 5


@dataclass(frozen=True, slots=True)
class OperatingPointRequest:
    """What is asked of an operating point.

    Attributes
    ----------
    calibrate
        ``temperature``, ``platt``, ``isotonic``, or None.
    sensitivity
        Share of the positive class to be found, above 0 and at most 1; None leaves the most probable class.
    positive
        Index of the positive class.
    confidence
        How sure the sensitivity must be reached on other patients, between 0 and 1; None takes the threshold that
        reaches it on the patients at hand.

    Raises
    ------
    UnknownNameError
        If there is no such calibration.
    UsageError
        If the sensitivity or the confidence is none, or nobody said of which class.
    """

    calibrate: str | None = None
    sensitivity: float | None = None
    positive: int | None = None
    confidence: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant before anything is fitted."""
        if self.calibrate is not None:
            method(self.calibrate)
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise UsageError(
                f"A confidence of {self.confidence} cannot be had.", "Use a share below 1: --confidence 0.95."
            )
        if self.sensitivity is None:
            if self.confidence is not None:
                raise UsageError(
                    "A confidence is about a sensitivity to be reached.", "Say which: --sensitivity 0.9."
                )
            return
        if not 0 < self.sensitivity <= 1:
            raise UsageError(
                f"A sensitivity of {self.sensitivity} cannot be aimed at.", "Use a share: --sensitivity 0.95."
            )
        if self.positive is None:
            raise UsageError("A sensitivity is about one class.", "Say which: --positive CLASS.")

    @property
    def is_none(self) -> bool:
        """Whether nothing is asked, so that nothing need be fitted within the training images."""
        return self.calibrate is None and self.sensitivity is None


@dataclass(frozen=True, slots=True)
class ToleranceBound:
    """The threshold that reaches a sensitivity with a confidence, beside the plain one.

    Attributes
    ----------
    confidence
        How sure it is that the sensitivity is reached on other patients.
    threshold
        Calibrated probability; None where there are too few patients.
    plain
        The threshold that reaches the sensitivity on the patients at hand, on others at best half the time.
    patients
        Those of the positive class that it rests on.
    needed
        How many there have to be for any threshold; None where no number is enough (a sensitivity of 1).
    """

    confidence: float
    threshold: float | None
    plain: float
    patients: int
    needed: int | None

    def to_json(self) -> ToleranceFields:
        """Plain dict for the run and its model."""
        return {
            "confidence": self.confidence,
            "threshold": self.threshold,
            "plain": self.plain,
            "patients": self.patients,
            "needed": self.needed,
        }


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A fitted calibration and a threshold; either may be absent.

    Attributes
    ----------
    calibration
        Applied to the model's probabilities.
    threshold
        Calibrated probability from which an image is called positive; None for the most probable class.
    request
        What was asked for.
    tolerance
        The threshold with and without a confidence; None of a run of an earlier version, or where no sensitivity is
        asked for.
    """

    calibration: AnyCalibration | None
    threshold: float | None
    request: OperatingPointRequest
    tolerance: ToleranceBound | None = None

    def calibrate(self, proba: Vector) -> Vector:
        """Calibrated probabilities ``(n, classes)``."""
        return proba if self.calibration is None else self.calibration.apply(proba)

    def decide(self, calibrated: Vector) -> NDArray[np.intp]:
        """Class index ``(n,)`` that is answered."""
        return decide(calibrated, self.request.positive, self.threshold)

    def to_json(self) -> OperatingFields:
        """Plain dict for the run and its model."""
        fields: OperatingFields = {
            "calibration": None if self.calibration is None else to_json(self.calibration),
            "threshold": self.threshold,
            "sensitivity": self.request.sensitivity,
            "positive": self.request.positive,
        }
        if self.tolerance is not None:
            fields["confidence"] = self.request.confidence
            fields["tolerance"] = self.tolerance.to_json()
        return fields


NEUTRAL = OperatingPoint(None, None, OperatingPointRequest())
"""The model's own probabilities, and the most probable class."""


def fit_operating_point(
    y: NDArray[np.intp],
    proba: Vector,
    request: OperatingPointRequest,
    groups: NDArray[np.str_] | None = None,
) -> OperatingPoint:
    """Fit what is requested.

    Parameters
    ----------
    y
        ``(n,)`` true class index of the training images.
    proba
        ``(n, classes)`` their out-of-fold probabilities.
    request
        What to fit.
    groups
        ``(n,)`` patient of each image; None takes every image for a patient of its own.

    Raises
    ------
    UsageError
        If a confidence is asked for that so few patients do not allow.

    Notes
    -----
    The plain threshold is the highest one that finds at least the requested share of the positive images in `y`. Of
    other patients it may find more or fewer: the scores on held-out images say how many. With a confidence it is that
    of `tolerance_threshold`.
    """
    calibration = None if request.calibrate is None else method(request.calibrate).fit(y, proba)
    point = OperatingPoint(calibration, None, request)
    if request.sensitivity is None or request.positive is None:
        return point
    positives = y == request.positive
    values = point.calibrate(proba)[positives, request.positive]
    found = np.sort(values)[::-1]
    # Rounded first: 0.9 of 10 images are 9, whatever the last bit of the product says.
    enough = int(np.ceil(round(request.sensitivity * len(found), 9)))
    plain = float(found[enough - 1])
    patients = np.arange(len(y)).astype(str) if groups is None else groups
    confidence = LEVEL if request.confidence is None else request.confidence
    bound = ToleranceBound(
        confidence,
        tolerance_threshold(values, patients[positives], request.sensitivity, confidence),
        plain,
        len(np.unique(patients[positives])),
        patients_needed(request.sensitivity, confidence),
    )
    if request.confidence is not None and bound.threshold is None:
        raise UsageError(
            not_enough_patients(bound.to_json(), request.sensitivity),
            "Leave out --confidence, or aim at a lower --sensitivity.",
        )
    threshold = plain if request.confidence is None else bound.threshold
    return OperatingPoint(calibration, threshold, request, bound)


def tolerance_threshold(
    values: Vector, groups: NDArray[np.str_], sensitivity: float, confidence: float = LEVEL
) -> float | None:
    """Highest threshold that reaches a sensitivity on other patients with a confidence; None of too few patients.

    Of n patients at most k may be missed, where k is the largest number with ``P(Binomial(n, 1 - sensitivity) <= k)
    <= 1 - confidence``: the threshold is the (k + 1)-th lowest probability, an exact tolerance bound without any
    assumption about the distribution. A patient with several images counts as missed by the share of them below the
    threshold, and the sensitivity is the mean over the patients of the share that is found. Images of a patient that
    are missed or found all together are the least favourable case, and that of the binomial distribution.

    Parameters
    ----------
    values, groups
        ``(n,)`` probability and patient of each positive image, from models that had not seen it.
    sensitivity, confidence
        Shares.

    References
    ----------
    Wilks, Determination of sample sizes for setting tolerance limits, Annals of Mathematical Statistics 12, 1941.
    """
    from scipy.stats import binom

    _, patient, count = np.unique(groups, return_inverse=True, return_counts=True)
    patients = len(count)
    tail = binom.cdf(np.arange(patients), patients, 1 - sensitivity)
    missed = int((tail <= 1 - confidence + ROUNDING).sum()) - 1
    if missed < 0:
        return None
    order = np.argsort(values, kind="stable")
    lower = np.concatenate([[0.0], np.cumsum(1 / count[patient[order]])[:-1]])
    # Images that are equally probable are called together: what lies strictly below is what is missed.
    ordered = values[order]
    below = lower[np.searchsorted(ordered, ordered)]
    return float(ordered[below <= missed + ROUNDING][-1])


def patients_needed(sensitivity: float, confidence: float = LEVEL) -> int | None:
    """How many patients of a class a threshold that reaches the sensitivity so surely takes; None: none will do."""
    if sensitivity >= 1:
        return None
    return max(1, int(np.ceil(round(float(np.log(1 - confidence) / np.log(sensitivity)), 9))))


def not_enough_patients(tolerance: ToleranceFields, sensitivity: float) -> str:
    """Say in one line why no threshold reaches the sensitivity with the confidence."""
    needed = "no number is enough" if tolerance["needed"] is None else f"{tolerance['needed']} are needed"
    return (
        f"Not enough patients to be {100 * tolerance['confidence']:g} % sure of a sensitivity of {sensitivity:g}:"
        f" {tolerance['patients']} of the positive class, {needed}."
    )


def read_operating_point(document: Mapping[str, Any] | None, classes: int) -> OperatingPoint:
    """Rebuild what `OperatingPoint.to_json` wrote for a model of so many classes; None is the neutral point.

    Raises
    ------
    RunError
        If it is damaged.
    """
    if document is None:
        return NEUTRAL
    try:
        fields: OperatingFields = read_result(OperatingFields, document, "the operating point")
        kept, bound = fields["calibration"], fields.get("tolerance")
        request = OperatingPointRequest(
            None if kept is None else kept["method"],
            fields["sensitivity"],
            fields["positive"],
            fields.get("confidence"),
        )
        point = OperatingPoint(
            None if kept is None else from_json(kept, classes),
            fields["threshold"],
            request,
            None if bound is None else ToleranceBound(**bound),
        )
    except RunError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"The run's operating point cannot be read: {error!r}.", REMEDY) from error
    if not _fits_together(point, classes):
        raise RunError("The run's operating point does not fit its model.", REMEDY)
    return point


def _fits_together(point: OperatingPoint, classes: int) -> bool:
    """Whether class, threshold, sensitivity and tolerance bound of a run can stand beside each other."""
    asked, bound = point.request, point.tolerance
    if (point.threshold is None) != (asked.sensitivity is None) or (asked.positive or 0) >= classes:
        return False
    if bound is None or asked.sensitivity is None:
        return bound is None and asked.confidence is None
    if not 0 < bound.confidence < 1 or bound.patients < 1 or bound.needed == 0:
        return False
    if asked.confidence is None:
        return point.threshold == bound.plain
    return bound.confidence == asked.confidence and point.threshold == bound.threshold


# How far probabilities are from the truth, and how far they would be by chance alone

DRAWS = 1000
CELLS = 4_000_000
"""Random numbers held at once."""
LIMIT = 50_000_000
"""Random numbers drawn for one expected error: of very many images fewer sets of labels are enough."""
STEPS = 50
CLOSE = 1e-10
FEWEST = 2
"""Patients of each class from which on a slope has an interval."""


def calibration_summary(y: NDArray[np.intp], proba: Vector, positive: int | None = None) -> CalibrationError:
    """ECE of all images together, and the one that a perfectly calibrated model would show on as many.

    Returns
    -------
    ``ece`` and ``expected``, both None of fewer than 100 images; ``images``.
    """
    value = float(calibration_error(y, proba, np.ones((1, len(y))), positive)[0])
    known = bool(np.isfinite(value))
    return {
        "ece": value if known else None,
        "expected": expected_error(proba, positive) if known else None,
        "images": len(y),
    }


def expected_error(proba: Vector, positive: int | None = None, seed: int = 0) -> float:
    """Mean ECE of labels that are drawn from the probabilities themselves: never zero, the less so the fewer images.

    Each image's label is drawn on its own. Where patients have several images chance alone makes it larger still.

    Parameters
    ----------
    proba
        ``(n, classes)``.
    positive
        As for `featstore.evaluation.metrics.score`.

    References
    ----------
    Broecker & Smith, Increasing the reliability of reliability diagrams, Weather and Forecasting 22, 2007
    (consistency resampling); Vaicenavicius et al., Evaluating model calibration in classification, AISTATS 2019.
    """
    rng = np.random.default_rng(seed)
    images = len(proba)
    draws = max(100, min(DRAWS, LIMIT // max(1, images)))
    bins = {
        c: equal_mass_bins(proba[:, c])
        for c in ([positive] if positive is not None else range(proba.shape[1]))
    }
    bounds = np.cumsum(proba, axis=1)
    total = 0.0
    for start in range(0, draws, step := max(1, CELLS // max(1, images))):
        chance = rng.random((min(step, draws - start), images))
        for c, number in bins.items():
            label = (chance < bounds[:, c]) & (chance >= (bounds[:, c - 1] if c else 0.0))
            sums = (proba[:, c] - label) @ (number[:, None] == np.arange(number.max() + 1))
            total += float(np.abs(sums).sum()) / images / len(bins)
    return total / draws


def recalibration(truth: NDArray[np.bool_], values: Vector, groups: NDArray[np.str_]) -> Recalibration:
    """Slope and intercept of a logistic regression of the outcome on the log-odds of the probability.

    One and zero are best. A slope below one: the probabilities are too sure; an intercept above zero: too low.
    Intervals by the covariance that allows for images of one patient to depend on each other.

    Parameters
    ----------
    truth, values, groups
        ``(n,)`` whether an image is positive, its probability, its patient.

    Returns
    -------
    ``slope`` and ``intercept``, each with ``value`` and ``interval``; ``why`` they are not known, otherwise empty.

    References
    ----------
    Cox, Two further applications of a model for binary regression, Biometrika 45, 1958. Liang & Zeger, Longitudinal
    data analysis using generalized linear models, Biometrika 73, 1986.
    """
    odds = np.log(values.clip(ALMOST_NEVER, 1)) - np.log((1 - values).clip(ALMOST_NEVER, 1))
    why = _undefined(truth, odds)
    found = None if why else _logistic(truth, odds)
    if found is None:
        unknown: Coefficient = {"value": None, "interval": None}
        return {"slope": unknown, "intercept": unknown, "why": why or "the fit does not settle"}
    beta, design, curvature = found
    errors = _errors(truth, beta, design, curvature, groups)

    def coefficient(at: int) -> Coefficient:
        around = None if errors is None else (float(beta[at] - errors[at]), float(beta[at] + errors[at]))
        return {"value": float(beta[at]), "interval": around}

    return {"slope": coefficient(1), "intercept": coefficient(0), "why": ""}


def _undefined(truth: NDArray[np.bool_], odds: Vector) -> str:
    if truth.all() or not truth.any():
        return "all images are of one class"
    if np.ptp(odds) < CLOSE:
        return "every image has the same probability"
    pos, neg = odds[truth], odds[~truth]
    if pos.min() >= neg.max() or pos.max() <= neg.min():
        return "the probabilities part the classes without an error"
    return ""


def _logistic(truth: NDArray[np.bool_], odds: Vector) -> tuple[Vector, Vector, Vector] | None:
    """Coefficients, design and curvature by Newton's method with halved steps; None where it does not settle."""
    design = np.column_stack([np.ones_like(odds), odds])
    beta, loss = np.zeros(2), np.inf
    step = np.zeros(2)
    for _ in range(STEPS):
        for _ in range(STEPS):
            eta = design @ (beta + step)
            now = float((np.logaddexp(0, eta) - truth * eta).sum())
            if now <= loss + CLOSE:
                break
            step = step / 2
        beta, loss = beta + step, now
        fitted = 1 / (1 + np.exp(-eta.clip(-500, 500)))
        curvature = (design * (fitted * (1 - fitted))[:, None]).T @ design
        try:
            step = np.linalg.solve(curvature, design.T @ (truth - fitted))
        except np.linalg.LinAlgError:
            return None
        if not np.isfinite(step).all():
            return None
        if np.abs(step).max() < CLOSE:
            return beta, design, curvature
    return None


def _errors(
    truth: NDArray[np.bool_], beta: Vector, design: Vector, curvature: Vector, groups: NDArray[np.str_]
) -> Vector | None:
    """Half widths of 95 % intervals; None with fewer than two patients of a class."""
    from scipy.special import stdtrit

    names, index = np.unique(groups, return_inverse=True)
    if min(len(np.unique(index[side])) for side in (truth, ~truth)) < FEWEST:
        return None
    scores = np.zeros((len(names), 2))
    np.add.at(scores, index, design * (truth - 1 / (1 + np.exp(-design @ beta)))[:, None])
    inverse = np.linalg.inv(curvature)
    covariance = inverse @ (scores.T @ scores) @ inverse * len(names) / (len(names) - 1)
    quantile = float(stdtrit(len(names) - 1, (1 + LEVEL) / 2))
    half: Vector = quantile * np.sqrt(covariance.diagonal().clip(0.0))
    return half


# Curves by which to choose an operating point; ``metrics.json`` keeps them, a report draws them.

THRESHOLDS = np.arange(1, 100) / 100
COVERAGES = np.arange(1, 21) / 20


def curves(
    y: NDArray[np.intp],
    proba: Vector,
    decisions: NDArray[np.intp],
    positive: int | None,
    groups: NDArray[np.str_] | None = None,
) -> Curves:
    """Every curve of one candidate on images that its models had not seen.

    Parameters
    ----------
    y, proba, decisions
        ``(n,)`` true class index, ``(n, classes)`` probabilities, ``(n,)`` class index answered.
    positive
        Decision and calibration curve, calibration slope and intercept are about this class; None leaves them out.
        Of three or more classes each has a slope and an intercept, against all others, whatever is positive.
    groups
        ``(n,)`` patient of each image; None takes every image for a patient of its own.
    """
    confidence = proba[np.arange(len(y)), decisions]
    patients = np.arange(len(y)).astype(str) if groups is None else groups
    drawn: Curves = {
        "risk_coverage": risk_coverage(decisions == y, confidence),
        "calibration_error": calibration_summary(y, proba, positive),
    }
    if positive is not None:
        truth, values = y == positive, proba[:, positive]
        drawn["decision"] = decision_curve(truth, values)
        drawn["calibration"] = calibration_curve(truth, values)
        drawn["recalibration"] = recalibration(truth, values, patients)
    if proba.shape[1] > 2:  # noqa: PLR2004
        drawn["recalibration_by_class"] = [
            recalibration(y == c, proba[:, c], patients) for c in range(proba.shape[1])
        ]
    return drawn


def decision_curve(truth: NDArray[np.bool_], values: Vector) -> NetBenefit:
    """Net benefit of acting on a probability, by the probability from which one would act.

    Of n images, ``true positives / n - false positives / n * t / (1 - t)``: whoever acts from t on says that a missed
    patient is as bad as (1 - t) / t needless treatments. Beside it, treating everyone; treating no one is 0. The
    values must be calibrated to be read as probabilities.

    Parameters
    ----------
    truth, values
        ``(n,)`` whether an image is positive, and its probability.

    References
    ----------
    Vickers & Elkin, Decision curve analysis, Medical Decision Making 26, 2006.
    """
    called = values >= THRESHOLDS[:, None]
    odds = THRESHOLDS / (1 - THRESHOLDS)
    model = (called & truth).mean(axis=1) - (called & ~truth).mean(axis=1) * odds
    share = truth.mean()
    return {
        "threshold": THRESHOLDS.tolist(),
        "net_benefit": model.tolist(),
        "treat_all": (share - (1 - share) * odds).tolist(),
    }


def risk_coverage(right: NDArray[np.bool_], confidence: Vector) -> RiskCoverage:
    """Share of wrong answers among the images answered, when the least sure ones are left to a physician.

    Parameters
    ----------
    right, confidence
        ``(n,)`` whether an answer is right, and how sure it is. Images that are equally sure are taken in every
        order: each counts the mean error of all of them.

    Returns
    -------
    ``coverage`` (share answered), ``risk`` (share wrong among these), and ``aurc``, the mean risk over all coverages.

    References
    ----------
    Geifman & El-Yaniv, Selective classification for deep neural networks, NeurIPS 2017.
    """
    _, level = np.unique(-confidence, return_inverse=True)
    wrong = (np.bincount(level, ~right) / np.bincount(level))[np.sort(level)]
    count = np.arange(1, len(right) + 1)
    risk = np.cumsum(wrong) / count
    at = np.ceil((COVERAGES * len(right)).round(9)).astype(int) - 1
    return {
        "coverage": (count[at] / len(right)).tolist(),
        "risk": risk[at].tolist(),
        "aurc": float(risk.mean()),
    }


def calibration_curve(truth: NDArray[np.bool_], values: Vector) -> Reliability:
    """Mean probability and share of positives in each bin of the calibration error, and its number of images."""
    bins = equal_mass_bins(values)
    count = np.bincount(bins)
    filled = count > 0
    return {
        "predicted": (np.bincount(bins, values)[filled] / count[filled]).tolist(),
        "observed": (np.bincount(bins, truth)[filled] / count[filled]).tolist(),
        "images": count[filled].tolist(),
    }
