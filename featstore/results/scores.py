"""What fits and comparisons share: the features that were scored, scores with their intervals, and curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypeAlias, TypedDict

from featstore.results.document import Count, Interval, Result, Share, fields_of
from featstore.types import BackboneSpec, Decoding, View

PRIMARY = "auc"
"""The metric by which candidates are ranked."""

Unit = Literal["image", "group"]
"""What is scored: images, or whole groups (patients)."""

# Features: plain dicts, as they stand in ``run.json`` and ``metrics.json``

if TYPE_CHECKING:
    from collections.abc import Mapping

    BackboneFields: TypeAlias = Mapping[str, Any]
    ViewFields: TypeAlias = Mapping[str, Any]
    DecodingFields: TypeAlias = Mapping[str, Any]
else:
    BackboneFields, ViewFields, DecodingFields = map(fields_of, (BackboneSpec, View, Decoding))


class MatrixFields(TypedDict):
    """What a matrix held: counts, classes, and the full feature keys; no path, no patient.

    Attributes
    ----------
    data_sha256
        Digest of the data set's table.
    images, quarantined, set_apart
        Images that took part, that do not decode, and that were kept out of it.
    tuned
        Backbones whose weights have learned from images of it.
    groups, has_groups, groups_set_aside
        Patients; whether any are named; whether they were and were not used.
    classes
        Images by class.
    positive, positive_origin
        The positive class, None for averages, and who chose it.
    backbones, views, decoding
        The parts of the feature keys.
    """

    data_sha256: str
    images: Count
    quarantined: Count
    set_apart: NotRequired[Count]
    tuned: NotRequired[list[str]]
    groups: Count
    has_groups: bool
    groups_set_aside: NotRequired[bool]
    classes: dict[str, Count]
    positive: str | None
    backbones: list[BackboneFields]
    views: list[ViewFields]
    decoding: DecodingFields
    positive_origin: NotRequired[str]


# Scores


class Score(Result, frozen=True, kw_only=True):
    """A metric on held-out images and its 95 % interval (`featstore.evaluation.intervals`); None where undefined."""

    value: float | None
    interval: Interval


class MetricEstimate(Result, frozen=True, kw_only=True):
    """One metric of one candidate.

    Attributes
    ----------
    mean, deviation
        Over the folds; the deviation has ``ddof=1``, and there is none of one split. None where a fold has no value.
        The ECE is that of all images together, each tested once (the first repeat), and has no deviation.
    interval
        95 %, by bootstrap over groups of the mean over folds, widened for the overlap of the training sets
        (`featstore.evaluation.intervals.overlap_factor`), and never narrower than so many patients allow
        (`featstore.evaluation.intervals`); None where undefined.
    folds
        The value in each fold.
    """

    mean: float | None
    deviation: float | None
    interval: Interval
    folds: tuple[float | None, ...]


class VarianceComponents(Result, frozen=True, kw_only=True):
    """Where the uncertainty of the primary metric comes from, as standard deviations.

    Attributes
    ----------
    patients
        With other patients: deviation of the resampled means, widened like the interval; where so many patients allow
        no such precision, what they do allow. None where there are too few for an interval.
    folds
        With other folds of the same patients: deviation between repeats; None with one repeat.
    training
        With other training seeds on the same folds; None where they were not varied, or the strategy has none.
    """

    patients: float | None
    folds: float | None
    training: float | None


# Curves: plain dicts, which figures are drawn from


class RiskCoverage(TypedDict):
    """Share of wrong answers among the surest ones, by the share of images that is answered."""

    coverage: list[Share]
    risk: list[Share]
    aurc: float


class CalibrationError(TypedDict):
    """Calibration error of all images together, and the one that a perfectly calibrated model would show."""

    ece: Share | None
    expected: Share | None
    images: Count


class NetBenefit(TypedDict):
    """Net benefit of acting on a probability, by the probability from which one would act."""

    threshold: list[Share]
    net_benefit: list[float]
    treat_all: list[float]


class Reliability(TypedDict):
    """Mean probability and share of positive images, by bin."""

    predicted: list[Share]
    observed: list[Share]
    images: list[Count]


class Coefficient(TypedDict):
    """A coefficient with its 95 % interval."""

    value: float | None
    interval: Interval


class Recalibration(TypedDict):
    """Calibration slope and intercept, and why there are none."""

    slope: Coefficient
    intercept: Coefficient
    why: str


class Curves(TypedDict):
    """Curves of one candidate, or on one split.

    Attributes
    ----------
    risk_coverage
        Of every one.
    calibration_error, recalibration
        Runs of earlier versions have none.
    decision, calibration
        Of the positive class, where there is one.
    recalibration_by_class
        Of three or more classes, each against all others, in their order; runs of earlier versions have none.
    """

    risk_coverage: RiskCoverage
    calibration_error: NotRequired[CalibrationError]
    decision: NotRequired[NetBenefit]
    calibration: NotRequired[Reliability]
    recalibration: NotRequired[Recalibration]
    recalibration_by_class: NotRequired[list[Recalibration]]
