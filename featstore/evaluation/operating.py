"""Operating points: what is added to a fitted model before its answer is given.

A calibration of the probabilities, and the probability from which an image is called positive. Both are chosen on
out-of-fold probabilities of the *training* images, by folds over whole groups within them (law 6), and then applied
to the model that was fitted on all of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.errors import RunError, UsageError
from featstore.evaluation.calibration import Isotonic, Platt, Temperature, from_json, method, to_json
from featstore.evaluation.metrics import decide

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

INNER_FOLDS = 5
REMEDY = "Fit again with `featstore fuse`."


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of an operating point.

    Attributes
    ----------
    calibrate
        ``temperature``, ``platt``, ``isotonic``, or None.
    sensitivity
        Share of the positive class to be found, above 0 and at most 1; None leaves the most probable class.
    positive
        Index of the positive class.

    Raises
    ------
    UnknownNameError
        If there is no such calibration.
    UsageError
        If the sensitivity is none, or nobody said of which class.
    """

    calibrate: str | None = None
    sensitivity: float | None = None
    positive: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant before anything is fitted."""
        if self.calibrate is not None:
            method(self.calibrate)
        if self.sensitivity is None:
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
class OperatingPoint:
    """A fitted calibration and a threshold; either may be absent.

    Attributes
    ----------
    calibration
        Applied to the model's probabilities.
    threshold
        Calibrated probability from which an image is called positive; None for the most probable class.
    wish
        What was asked for.
    """

    calibration: Temperature | Platt | Isotonic | None
    threshold: float | None
    wish: Wish

    def calibrate(self, proba: Vector) -> Vector:
        """Calibrated probabilities ``(n, classes)``."""
        return proba if self.calibration is None else self.calibration.apply(proba)

    def decide(self, calibrated: Vector) -> NDArray[np.intp]:
        """Class index ``(n,)`` that is answered."""
        return decide(calibrated, self.wish.positive, self.threshold)

    def to_json(self) -> dict[str, Any]:
        """Plain dict for the run and its model."""
        return {
            "calibration": None if self.calibration is None else to_json(self.calibration),
            "threshold": self.threshold,
            "sensitivity": self.wish.sensitivity,
            "positive": self.wish.positive,
        }


NEUTRAL = OperatingPoint(None, None, Wish())
"""The model's own probabilities, and the most probable class."""


def choose(y: NDArray[np.intp], proba: Vector, wish: Wish) -> OperatingPoint:
    """Fit what is wished for.

    Parameters
    ----------
    y
        ``(n,)`` true class index of the training images.
    proba
        ``(n, classes)`` their out-of-fold probabilities.
    wish
        What to fit.

    Notes
    -----
    The threshold is the highest one that finds at least the wished share of the positive images in `y`. Of other
    patients it may find more or fewer: the scores on held-out images say how many.
    """
    calibration = None if wish.calibrate is None else method(wish.calibrate).fit(y, proba)
    point = OperatingPoint(calibration, None, wish)
    if wish.sensitivity is None or wish.positive is None:
        return point
    found = np.sort(point.calibrate(proba)[y == wish.positive, wish.positive])[::-1]
    # Rounded first: 0.9 of 10 images are 9, whatever the last bit of the product says.
    enough = int(np.ceil(round(wish.sensitivity * len(found), 9)))
    return OperatingPoint(calibration, float(found[enough - 1]), wish)


def read_point(document: Mapping[str, Any] | None, classes: int) -> OperatingPoint:
    """Rebuild what `OperatingPoint.to_json` wrote for a model of so many classes; None is the neutral point.

    Raises
    ------
    RunError
        If it is damaged.
    """
    if document is None:
        return NEUTRAL
    try:
        kept = document["calibration"]
        wish = Wish(None if kept is None else kept["method"], document["sensitivity"], document["positive"])
        calibration = None if kept is None else from_json(kept, classes)
        threshold = None if document["threshold"] is None else float(document["threshold"])
        sound = (threshold is None) == (wish.sensitivity is None)
        sound &= threshold is None or bool(np.isfinite(threshold))
        sound &= wish.positive is None or (type(wish.positive) is int and 0 <= wish.positive < classes)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"The run's operating point cannot be read: {error!r}.", REMEDY) from error
    if not sound:
        raise RunError("The run's operating point does not fit its model.", REMEDY)
    return OperatingPoint(calibration, threshold, wish)
