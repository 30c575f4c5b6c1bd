"""Maps that turn a model's probabilities into ones to be taken at their word.

Fitted on out-of-fold probabilities by scikit-learn's `CalibratedClassifierCV`, kept as a few numbers: a run holds no
pickle (law 7). With more than two classes Platt's and the isotonic map are one per class, scaled to sum to one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np

from featstore.errors import RunError, UnknownNameError, did_you_mean
from featstore.evaluation.metrics import ALMOST_NEVER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]


REMEDY = "Fit again with `featstore fuse`."


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
        logits = self.slope * _logs(proba)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return _scaled(powers)


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


METHODS: Mapping[str, type[Temperature | Platt | Isotonic]] = {
    kind.name: kind for kind in (Temperature, Platt, Isotonic)
}


def method(name: str) -> type[Temperature | Platt | Isotonic]:
    """Return the kind of calibration by its name.

    Raises
    ------
    UnknownNameError
        If there is none.
    """
    if name not in METHODS:
        raise UnknownNameError(f"There is no calibration {name!r}.", did_you_mean(name, METHODS))
    return METHODS[name]


def to_json(calibration: Temperature | Platt | Isotonic) -> dict[str, Any]:
    """Name and numbers."""
    return {"method": calibration.name, **asdict(calibration)}


def from_json(document: Mapping[str, Any], classes: int) -> Temperature | Platt | Isotonic:
    """Rebuild what `to_json` wrote, for a model of so many classes.

    Raises
    ------
    RunError
        If it is not that, or does not turn probabilities into probabilities.
    """
    try:
        kind = METHODS[document["method"]]
        values = {name: _numbers(value) for name, value in document.items() if name != "method"}
        calibration = kind(**values)
        answer = calibration.apply(np.full((1, classes), 1 / classes))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"The run's calibration cannot be read: {error!r}.", REMEDY) from error
    if answer.shape != (1, classes):
        raise RunError(f"The run's calibration is not one of {classes} classes.", REMEDY)
    return calibration


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


def _numbers(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, list):
        return tuple(map(_numbers, value))
    if not np.isfinite(number := float(value)):
        raise ValueError(f"{value!r} is not finite")
    return number
