"""Confidence intervals of scores: score tests by the number of patients, and the cluster bootstrap.

A bootstrap can only draw what it has seen: where all answers are right every resample is perfect, and its interval is
a point. So each score has a second interval, by inverting a score test with the number of patients, and the wider end
of the two is given on either side:

* a share (sensitivity, specificity, accuracy): Wilson, JASA 22, 1927. Means of values between 0 and 1 (Brier score,
  calibration error) and log-loss over its largest plausible value are taken for shares, which can only be too wide;
* F1: the share of right answers among the images that are positive or called so, transformed (Hand, Christen &
  Kirielle, Machine Learning 110, 2021);
* average precision: as a share of the positives (Boyd, Eng & Page, ECML PKDD 2013);
* the area under the ROC curve: Newcombe, Statistics in Medicine 25, 2006, method 5.

Images of one patient may tell the same thing again and again. Their number is divided by the design effect (Korn &
Graubard, Survey Methodology 24, 1998), as far as it can be known: from the variance that the bootstrap saw, with the
t quantile for as many patients as were seen on the rarer side (right or wrong), and never fewer patients than Kish's
effective number (Survey Sampling, 1965), which takes the images of a patient to be copies of each other.

The bootstrap resamples patients, not images: images of one patient are not independent, so a resample draws whole
groups with replacement (cluster bootstrap: Davison & Hinkley, Bootstrap Methods and their Application, 1997, section
3.8). The same resamples serve every candidate, which makes differences between candidates paired.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from featstore.evaluation.metrics import ALMOST_NEVER, METRICS, RANKING, metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Interval = tuple[float, float]

# Score tests by the number of patients

Z = 1.959963984540054
"""Quantile of the normal distribution for an interval of 95 %."""
FEWEST = 2
"""Patients from which on there is an interval."""
HALVINGS = 60
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class SampleSize:
    """Sample size of a score: how much was seen of what it is about.

    Attributes
    ----------
    kind
        ``share``, ``f1`` or ``area``.
    patients
        Effective number of patients, if the images of one are copies of each other (Kish).
    negative_patients
        The same of the negatives, for ``area``.
    max_ratio
        How many times as many independent images there could be.
    minority_patients
        Patients with a right answer, or with a wrong one, whichever are fewer.
    upper_bound
        Largest value that the score can plausibly have.
    independent_variance
        Variance with so many patients and one image of each, as DeLong has it, for ``area``; 0 where it is not known.
    """

    kind: Literal["share", "f1", "area"]
    patients: float
    max_ratio: float
    minority_patients: int
    negative_patients: float = 0.0
    upper_bound: float = 1.0
    independent_variance: float = 0.0


def sample_sizes(
    y: NDArray[np.intp],
    proba: Vector,
    predicted: NDArray[np.intp],
    groups: NDArray[np.str_],
    positive: int | None,
    parts: Sequence[NDArray[np.intp]] = (),
) -> dict[str, SampleSize | None]:
    """What each score of `featstore.evaluation.metrics.metrics` rests on.

    Parameters
    ----------
    y, proba, predicted, groups
        ``(n,)`` true class index, ``(n, classes)`` probabilities, ``(n,)`` class answered and patient; images once.
    positive
        As for `featstore.evaluation.metrics.score`.
    parts
        Rows of each test fold: images are ranked within them. All together if there is none.

    Returns
    -------
    None where there are fewer than two patients of a class that the score needs.
    """
    index = np.unique(groups, return_inverse=True)[1]
    right = predicted == y
    targets = [positive] if positive is not None else range(proba.shape[1])
    every = _share(index, np.ones(len(y), bool), right)
    loss = None if every is None else replace(every, max_ratio=np.inf)
    found = [_share(index, y == c, right) for c in range(proba.shape[1])]
    cost = -np.log(np.maximum(proba.min(initial=1.0), ALMOST_NEVER) / 2)
    support = _ranking_supports([(y == c, proba[:, c]) for c in targets], groups, parts) | {
        "images": every,
        "classes": _pooled_sample(found),
        "positives": _pooled_sample([found[c] for c in targets]),
        "negatives": _smallest_sample(_share(index, y != c, predicted != c) for c in targets),
        "called": _pooled_sample([_share(index, predicted == c, right) for c in targets]),
        "cleared": _smallest_sample(_share(index, predicted != c, y != c) for c in targets),
        "overlap": _smallest_sample(_overlap(index, y == c, predicted == c) for c in targets),
        "loss": loss,
    }
    sizes = {name: support.get(row.rests_on) for name, row in metrics().items()}
    return {
        name: size if size is None or metrics()[name].bounded else replace(size, upper_bound=float(cost))
        for name, size in sizes.items()
    }


def ranking_sample_sizes(
    tasks: Iterable[tuple[NDArray[np.bool_], Vector]],
    groups: NDArray[np.str_],
    parts: Sequence[NDArray[np.intp]] = (),
) -> dict[str, SampleSize | None]:
    """What the scores of `RANKING` rest on.

    Parameters
    ----------
    tasks
        Whether each image is positive ``(n,)``, and its score ``(n,)``: one for each class that is averaged over.
    groups, parts
        As for `sample_sizes`.
    """
    support = _ranking_supports(tasks, groups, parts)
    return {name: support.get(METRICS[name].rests_on) for name in RANKING}


def _ranking_supports(
    tasks: Iterable[tuple[NDArray[np.bool_], Vector]],
    groups: NDArray[np.str_],
    parts: Sequence[NDArray[np.intp]],
) -> dict[str, SampleSize | None]:
    """By what a score can rest on, of those that need the order of the images alone."""
    index = np.unique(groups, return_inverse=True)[1]
    areas = [_area(index, truth, values, parts) for truth, values in tasks]
    shares = [None if a is None else replace(a, kind="share") for a in areas]
    marks = [None if s is None else replace(s, patients=min(s.patients, s.negative_patients)) for s in shares]
    return {
        "area": _smallest_sample(areas),
        "ranking": _smallest_sample(shares),
        "mark": _smallest_sample(marks),
    }


def minimal_interval(
    value: float, resampled: Vector | float, sample_size: SampleSize | None
) -> Interval | None:
    """Interval that so many patients allow at best, by a score test; None where there are fewer than two.

    Parameters
    ----------
    value
        The score that was seen.
    resampled
        ``(resamples,)`` the score in each resample, not widened; or its variance, where that is known without any.
    """
    if sample_size is None:
        return None
    share = min(value / sample_size.upper_bound, 1.0)
    bound = sample_size.upper_bound
    scaled = resampled / bound**2 if isinstance(resampled, float) else resampled / bound
    times = sample_size_ratio(share, scaled, sample_size)
    if sample_size.kind == "area":
        low, high = newcombe(share, times * sample_size.patients, times * sample_size.negative_patients)
    elif sample_size.kind == "f1":
        low, high = (
            float(2 * end / (1 + end)) for end in wilson(share / (2 - share), times * sample_size.patients)
        )
    else:
        low, high = map(float, wilson(share, times * sample_size.patients))
    return min(value, low * sample_size.upper_bound), max(value, high * sample_size.upper_bound)


def score_interval(
    name: str, value: float, resampled: Vector, sample_size: SampleSize | None, factor: float = 1.0
) -> Interval | None:
    """95 % interval of a score: by bootstrap, and never narrower than `minimal_interval`.

    Parameters
    ----------
    name
        Of the score, in `featstore.evaluation.metrics.metrics`.
    factor
        How much wider the bootstrap's part is for the overlap of training sets.
    """
    least = minimal_interval(value, resampled, sample_size)
    if least is None:
        return None
    drawn = percentile_interval(
        widen(resampled, value, factor).clip(0.0, 1.0 if metrics()[name].bounded else None)
    )
    low, high = drawn or least
    return min(low, least[0]), max(high, least[1])


def difference_interval(
    values: tuple[float, float],
    resampled: tuple[Vector, Vector],
    around: tuple[SampleSize | None, SampleSize | None],
    *,
    bounded: bool = True,
) -> Interval | None:
    """95 % interval of ``second - first`` on the same images: bootstrap, never narrower than `paired` allows."""
    one, two = (minimal_interval(*each) for each in zip(values, resampled, around, strict=True))
    if one is None or two is None or around[0] is None:
        return None
    both = np.isfinite(resampled[0]) & np.isfinite(resampled[1])
    first, second = (part[both] for part in resampled)
    seen = values[1] - values[0]
    spread = np.array([_variance(part) for part in (second, first, second - first)])
    related = correlation(spread[:1], spread[1:2], spread[2:], effective_patients(around[0]))
    ends = np.array([[values[1] - two[0], two[1] - values[1], values[0] - one[0], one[1] - values[0]]]).T
    least = paired(np.array([seen]), ends[0], ends[1], ends[2], ends[3], related)
    drawn = widen(second - first, seen, 1.0)
    low, high = percentile_interval(drawn.clip(-1.0, 1.0) if bounded else drawn) or (seen, seen)
    return min(low, float(least[0][0])), max(high, float(least[1][0]))


def wilson(share: Vector | float, patients: Vector | float) -> tuple[Vector, Vector]:
    """Score interval of a share of so many, which need not be a whole number; it stays within 0 and 1."""
    p, n = np.asarray(share, float), np.asarray(patients, float)
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return np.minimum(p, (centre - half).clip(0.0)), np.maximum(p, (centre + half).clip(max=1.0))


def newcombe(area: float, positives: float, negatives: float) -> Interval:
    """Score interval of an area under the ROC curve of so many positives and negatives."""
    low, high = np.array([0.0, area]), np.array([area, 1.0])
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        outside = (middle - area) ** 2 > Z**2 * area_variance(middle, positives, negatives)
        # The lower end lies above a value that is outside, the upper one below it.
        outside[1] = ~outside[1]
        low, high = np.where(outside, middle, low), np.where(outside, high, middle)
    return float(low[0]), float(high[1])


def area_variance(area: Vector, positives: float, negatives: float) -> Vector:
    """Hanley & McNeil's variance (Radiology 143, 1982), as Newcombe's method 5 has it."""
    half = (positives + negatives) / 2 - 1
    spread = 1 + half * ((1 - area) / (2 - area) + area / (1 + area))
    variance: Vector = area * (1 - area) * spread / (positives * negatives)
    return variance


def paired(
    delta: Vector, below_a: Vector, above_a: Vector, below_b: Vector, above_b: Vector, related: Vector
) -> tuple[Vector, Vector]:
    """Interval of differences ``a - b`` from the intervals of both: Zou & Donner, Statistics in Medicine 27, 2008.

    Parameters
    ----------
    delta
        Differences that were seen.
    below_a, above_a, below_b, above_b
        How far the ends of each interval lie below and above its value.
    related
        Correlation of the two.
    """
    down = below_a**2 + above_b**2 - 2 * related * below_a * above_b
    up = above_a**2 + below_b**2 - 2 * related * above_a * below_b
    return delta - np.sqrt(down.clip(0.0)), delta + np.sqrt(up.clip(0.0))


def correlation(a: Vector, b: Vector, difference: Vector, patients: float) -> Vector:
    """Correlation from three variances; so many patients cannot show that it is one.

    It is shrunk by ``(patients - 1) / (patients + 1)``; zero where one of the two does not vary.
    """
    scale = np.sqrt(np.asarray(a) * b)
    related = np.divide(
        a + np.asarray(b) - difference, 2 * scale, out=np.zeros(np.shape(scale)), where=scale > 0
    )
    shrunk: Vector = related.clip(-1.0, 1.0) * (patients - 1) / (patients + 1)
    return shrunk


def sample_size_ratio(share: float, resampled: Vector | float, sample_size: SampleSize) -> float:
    """How many times Kish's number of patients the images count for; 1 where nothing can be known about it.

    As for `minimal_interval`, of a share.
    """
    variance = _variance(resampled)
    if sample_size.minority_patients < FEWEST or not variance or not 0 < share < 1:
        return 1.0
    from scipy.special import stdtrit

    if sample_size.kind == "area":
        alone = sample_size.independent_variance or float(
            area_variance(np.array(share), sample_size.patients, sample_size.negative_patients)
        )
    else:
        steep = (2 - share) ** 2 / 2 if sample_size.kind == "f1" else 1.0
        alone = share * (1 - share) * steep / sample_size.patients
    quantile = float(stdtrit(sample_size.minority_patients - 1, (1 + LEVEL) / 2))
    return float(np.clip(alone / variance * (Z / quantile) ** 2, 1.0, sample_size.max_ratio))


def _variance(resampled: Vector | float) -> float:
    """Variance of resamples, or the one that is known."""
    if isinstance(resampled, float):
        return resampled if resampled > ROUNDING**2 else 0.0
    finite = resampled[np.isfinite(resampled)]
    # What is nothing but rounding is no variance.
    return float(finite.var()) if len(finite) and np.ptp(finite) > ROUNDING else 0.0


def _kish(index: NDArray[np.intp], among: NDArray[np.bool_]) -> tuple[int, float]:
    """Patients with images among these, and their effective number."""
    images = np.bincount(index[among])
    return int((images > 0).sum()), float(images.sum() ** 2 / max(1, (images**2).sum()))


def _share(index: NDArray[np.intp], among: NDArray[np.bool_], right: NDArray[np.bool_]) -> SampleSize | None:
    """Of the right answers among some images."""
    patients, effective = _kish(index, among)
    if patients < FEWEST:
        return None
    rarer = min(len(np.unique(index[among & answer])) for answer in (right, ~right))
    return SampleSize("share", effective, among.sum() / effective, rarer)


def _overlap(
    index: NDArray[np.intp], truth: NDArray[np.bool_], called: NDArray[np.bool_]
) -> SampleSize | None:
    """Of the images that are positive or called so."""
    if _kish(index, truth)[0] < FEWEST:
        return None
    found = _share(index, truth | called, truth & called)
    return None if found is None else replace(found, kind="f1")


def _area(
    index: NDArray[np.intp], truth: NDArray[np.bool_], values: Vector, parts: Sequence[NDArray[np.intp]]
) -> SampleSize | None:
    """Of the positives that should be above the negatives of their fold."""
    (pos, positives), (neg, negatives) = _kish(index, truth), _kish(index, ~truth)
    if min(pos, neg) < FEWEST:
        return None
    above, below = np.zeros((2, len(truth)), bool)
    variances = []
    for rows in parts or [np.arange(len(truth))]:
        mine, others = rows[truth[rows]], rows[~truth[rows]]
        if len(mine) and len(others):
            above[mine] = values[mine] > values[others].min()
            above[others] = values[others] < values[mine].max()
            below[mine] = values[mine] <= values[others].max()
            below[others] = values[others] >= values[mine].min()
            variances.append(_delong(values[mine], values[others]))
    rarer = min(len(np.unique(index[side])) for side in (above, below))
    most = min(truth.sum() / positives, (~truth).sum() / negatives)
    alone = float(most) * float(np.mean(variances)) / len(variances) if variances else 0.0
    return SampleSize(
        "area",
        positives,
        float(most),
        rarer,
        negatives,
        independent_variance=alone if np.isfinite(alone) else 0.0,
    )


def _delong(pos: Vector, neg: Vector) -> float:
    """Variance of an area over images that do not depend on each other; NaN with fewer than two of a kind."""
    if min(len(pos), len(neg)) < FEWEST:
        return float("nan")
    both = [(pos, np.sort(neg)), (neg, np.sort(pos))]
    parts = [
        (np.searchsorted(other, one, "left") + np.searchsorted(other, one, "right")) / 2 / len(other)
        for one, other in both
    ]
    return float(sum(part.var(ddof=1) / len(part) for part in parts))


def _smallest_sample(found: Iterable[SampleSize | None]) -> SampleSize | None:
    """Basis of a mean over classes that may all move together: that of the fewest patients."""
    known = list(found)
    parts = [sample_size for sample_size in known if sample_size is not None]
    if len(parts) < len(known):
        return None
    least = min(parts, key=effective_patients)
    return replace(
        least,
        minority_patients=min(b.minority_patients for b in parts),
        max_ratio=min(b.max_ratio for b in parts),
    )


def _pooled_sample(found: Sequence[SampleSize | None]) -> SampleSize | None:
    """Basis of a mean over classes that share no image."""
    parts = [sample_size for sample_size in found if sample_size is not None]
    if len(parts) < len(found):
        return None
    patients = len(parts) ** 2 / sum(1 / sample_size.patients for sample_size in parts)
    return SampleSize(
        "share", patients, min(b.max_ratio for b in parts), min(b.minority_patients for b in parts)
    )


def effective_patients(sample_size: SampleSize) -> float:
    """Effective number of patients; of the rarer class where two are needed."""
    return (
        min(sample_size.patients, sample_size.negative_patients)
        if sample_size.kind == "area"
        else sample_size.patients
    )


# Cluster bootstrap

RESAMPLES = 2000
BLOCK = 1 << 20
"""Weights that are held at once where resamples are drawn one block after the other."""
LEVEL = 0.95


def group_weights(groups: NDArray[np.str_], resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.float64]:
    """How often each image is drawn in each resample of the groups.

    Parameters
    ----------
    groups
        ``(n,)`` group of each image.

    Returns
    -------
    ``(resamples, n)`` float64, whole numbers.
    """
    names, index = np.unique(groups, return_inverse=True)
    draws = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), resamples
    )
    return draws[:, index].astype(np.float64)


def weight_blocks(
    groups: NDArray[np.str_], resamples: int = RESAMPLES, seed: int = 0
) -> Iterator[NDArray[np.float64]]:
    """The rows of `group_weights`, a few at a time: memory does not grow with the number of images.

    Parameters
    ----------
    groups
        ``(n,)`` group of each image.
    """
    names, index = np.unique(groups, return_inverse=True)
    shares, rng = np.full(len(names), 1 / len(names)), np.random.default_rng(seed)
    step = max(1, BLOCK // len(index))
    for start in range(0, resamples, step):
        draws = rng.multinomial(len(names), shares, min(step, resamples - start))
        yield draws[:, index].astype(np.float64)


def percentile_interval(values: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float] | None:
    """Percentile interval of resampled values; None where every resample lacked a class."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    low, high = np.percentile(finite, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def overlap_factor(splits: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]) -> float:
    """How much wider an interval over cross-validation must be than resampling the test images says.

    Folds share most of their training images, so their scores vary together when the sample changes: Nadeau and
    Bengio (Inference for the generalization error, Machine Learning 52, 2003) multiply the variance of the mean
    over J folds by ``1 + J * n_test / n_train``. One pass over all images makes that ``1 + n / n_train``, however
    often it is repeated.

    Parameters
    ----------
    splits
        Pairs (training images, test images).
    """
    if len(splits) == 1:
        return 1.0  # one test set: there is no mean over folds whose scores could vary together
    shares = [(len(train) + len(test)) / len(train) for train, test in splits]
    return float(np.sqrt(1 + np.mean(shares)))


def widen(values: NDArray[np.float64], centre: float, factor: float) -> NDArray[np.float64]:
    """Stretch resampled values and lay their median on the value that was seen.

    Resampling is noisier than the sample, which pushes some scores to one side (the calibration error up): the spread
    is to be believed, the shift is not.
    """
    finite = values[np.isfinite(values)]
    middle = np.median(finite) if finite.size else 0.0
    return centre + factor * (values - middle)
