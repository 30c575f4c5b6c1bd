"""Outcomes of `plan` and `compare`: the sealed question; its answer, candidates, pairs, selection bias, backbones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from msgspec import field

from featstore.findings import Finding
from featstore.results.document import Count, Interval, Result, Share, bounds
from featstore.results.scores import (
    PRIMARY,
    Curves,
    MatrixFields,
    MetricEstimate,
    Score,
    Unit,
    VarianceComponents,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from featstore.reporting.figures import Picture

# A question that is sealed before any score, and the looks that were taken at a data set

SPLIT = "split"


class Looks(Result, frozen=True, kw_only=True):
    """How often scores of these images were computed, as far as one cache knows.

    Attributes
    ----------
    compare, fuse
        By command.
    first, last
        When, ISO 8601, UTC; empty where there was none.
    """

    compare: Count = 0
    fuse: Count = 0
    first: str = ""
    last: str = ""

    @property
    def count(self) -> int:
        """All of them."""
        return self.compare + self.fuse


class Plan(Result, frozen=True, kw_only=True):
    """A question, and how it will be answered: what `featstore.compare` runs with ``plan``.

    Attributes
    ----------
    kind
        ``plan``.
    created
        When it was sealed, ISO 8601, UTC.
    primary, margin, metric
        The question: is this fusion better than every single network, in this metric, and what is too small a gain.
    positive
        The positive class; None for averages over the classes.
    folds, repeats, fold_seed
        The cross-validation; in place of a number ``split`` for the data set's own test images, ``site`` or ``group``
        for each site or patient left out.
    calibrate
        Calibration, fitted within the training images of each fold.
    views, test_views
        View policies, as for `featstore.compare`.
    data_sha256, images, groups
        The data set: digest of ids, labels, groups, splits and sites; its images and patients.
    features_sha256, backbones
        The features: digest of networks, views and decoding; names of the networks.
    looks
        Looks at these images before it was sealed.
    unit, pool
        What is scored, images or patients (``group``), and how the images of one become one answer.
    harmonise
        What is done inside each fold about features that differ between sites.
    """

    kind: Literal["plan"] = "plan"
    created: str
    primary: str
    margin: float
    metric: str
    positive: str | None
    folds: Count | Literal["split", "site", "group"]
    repeats: Count
    fold_seed: Count
    calibrate: str | None
    views: tuple[str, ...]
    test_views: str
    data_sha256: str
    images: Count
    groups: Count
    features_sha256: str
    backbones: tuple[str, ...]
    looks: Looks
    unit: Literal["image", "group"] = "image"
    pool: str | None = None
    harmonise: Literal["none", "per-site"] = "none"

    def headline(self) -> str:
        """The question, and when it was sealed."""
        late = f", after {self.looks.count} looks at these images" if self.looks.count else ""
        return (
            f"is {self.primary} better than every single network ({', '.join(self.backbones)})? Sealed on"
            f" {self.created[:10]}{late}"
        )

    def table(self) -> list[dict[str, Any]]:
        """A row for each thing that is settled, with its value."""
        return [{"settled": name, "value": value} for name, value in self.to_json().items() if name != "kind"]


class Planning(Result, frozen=True, kw_only=True):
    """Whether a comparison was planned.

    Attributes
    ----------
    plan
        Digest of the plan that was run; None for an exploration.
    created
        When it was sealed; empty without a plan.
    before_plan
        Looks at these images before it was sealed.
    looks
        All looks at these images before this one.
    """

    plan: str | None
    created: str = ""
    before_plan: Count = 0
    looks: Looks


# Candidates


@dataclass(frozen=True, slots=True)
class Candidate:
    """A strategy over a subset of the backbones.

    Attributes
    ----------
    strategy
        Name of the strategy.
    backbones
        Its backbones; those to choose from where it is greedy.
    label
        How it is called in tables.
    seed
        Training seed; None is the strategy's own.
    greedy
        Whether its backbones are chosen in each fold, by forward selection on the training images.
    views, test_views
        What it makes of the views in training and in testing: see `featstore.evaluation.candidates`.
    """

    strategy: str
    backbones: tuple[str, ...]
    label: str
    seed: int | None = None
    greedy: bool = False
    views: str = "expand"
    test_views: str = "identity"

    @property
    def samples_views(self) -> bool:
        """Whether the views that it trains on are drawn at random."""
        return self.views == "sample"


class CandidateResult(Result, frozen=True, kw_only=True, eq=False):
    """A candidate with its scores, curves and answers.

    Attributes
    ----------
    label, strategy, backbones, views, test_views
        Who it is: see `Candidate`.
    selected_backbones
        Backbones that it had in each fold, where it chooses them; else None.
    estimates
        By metric.
    variance_components
        Of the primary metric.
    curves
        Decision, calibration and risk-coverage curve over the out-of-fold probabilities of all images.
    proba, decisions
        For each fold, probabilities ``(test images, classes)`` and class index ``(test images,)``; none of a
        comparison that was read back.
    """

    IN_MEMORY: ClassVar[frozenset[str]] = frozenset({"proba", "decisions"})

    label: str = field(name="name")
    strategy: str
    backbones: tuple[str, ...]
    views: str
    test_views: str
    selected_backbones: tuple[tuple[str, ...], ...] | None = field(name="chosen")
    estimates: Mapping[str, MetricEstimate] = field(name="metrics")
    variance_components: VarianceComponents = field(name="spread")
    curves: Curves
    proba: tuple[Any, ...] = ()
    decisions: tuple[Any, ...] = ()

    @property
    def candidate(self) -> Candidate:
        """Who it is."""
        return Candidate(
            self.strategy,
            self.backbones,
            self.label,
            greedy=self.selected_backbones is not None,
            views=self.views,
            test_views=self.test_views,
        )

    @property
    def primary(self) -> float:
        """Mean of the primary metric over the folds."""
        return self.estimates[PRIMARY].mean or 0.0


class ShortcutResult(Result, frozen=True, kw_only=True):
    """A guess that needs no network, scored on the same folds: see `featstore.evaluation.findings`."""

    label: str = field(name="name")
    estimates: Mapping[str, MetricEstimate] = field(name="metrics")

    @property
    def candidate(self) -> Candidate:
        """Its name, and no backbone."""
        return Candidate("shortcut", (), self.label)

    @property
    def primary(self) -> float:
        """Mean of the primary metric over the folds."""
        return self.estimates[PRIMARY].mean or 0.0


# Negative controls: what the score could come from, if not from the disease

Explained = Literal["explained", "apart", "cannot_tell"]
UNDECIDED = 0.5
"""AUC of guessing."""


class NegativeControl(Result, frozen=True, kw_only=True):
    """A model that cannot see the disease, scored on the same folds: its AUC and its 95 % interval.

    Attributes
    ----------
    sees_lung
        Whether grey levels of the lungs are among what it sees, as in a histogram of the whole picture.
    """

    name: str
    mean: float | None
    interval: Interval
    sees_lung: bool = False

    @property
    def is_informative(self) -> bool:
        """Whether it is better than guessing."""
        return self.interval is not None and self.interval[0] > UNDECIDED


class ControlDifference(Result, frozen=True, kw_only=True):
    """AUC of a model less that of a negative control, with the 95 % interval over the same patients, not adjusted."""

    model: str
    control: str
    delta: float
    interval: Interval

    @property
    def is_above(self) -> bool:
        """Whether the model is clearly better."""
        return self.interval is not None and self.interval[0] > 0


class SitePrediction(Result, frozen=True, kw_only=True):
    """How well the features tell the site, and whether they tell it in the direction of the disease.

    Attributes
    ----------
    sites, patients, images
        How many took part.
    mean, interval
        AUC (mean over the sites, each against the others) over folds of whole patients, and its 95 % interval.
    cosine
        Between the direction of the disease and that of a site in the standardised features, the largest in size over
        the sites; None where there is no positive class.
    chance
        Size that 95 % of the cosines stay below when the sites are dealt to the patients at random.
    p
        Share of such deals in which the cosine is at least as large.
    """

    sites: Count
    patients: Count
    images: Count
    mean: float | None
    interval: Interval
    cosine: float | None = None
    chance: float | None = None
    p: Share | None = None


class NegativeControls(Result, frozen=True, kw_only=True):
    """What else than the disease a score could come from.

    Attributes
    ----------
    controls
        Each with its own score.
    differences
        Of the models with the highest AUC, the primary fusion and the single networks, to each of `controls`.
    site
        Prediction of the site; None where fewer than two sites are known.
    """

    controls: tuple[NegativeControl, ...]
    differences: tuple[ControlDifference, ...]
    site: SitePrediction | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """Who was measured against them."""
        return tuple(dict.fromkeys(one.model for one in self.differences))

    def against(self, model: str) -> dict[str, ControlDifference]:
        """Differences of a model by control."""
        return {one.control: one for one in self.differences if one.model == model}

    def explaining(self, model: str) -> tuple[NegativeControl, ...]:
        """Controls that see no lung, do better than guessing, and are not clearly worse than a model."""
        found = self.against(model)
        return tuple(
            control
            for control in self.controls
            if not control.sees_lung and control.is_informative and not found[control.name].is_above
        )

    def verdict(self, model: str) -> Explained:
        """Whether a score is explained without the lung, stands apart from all controls, or neither is shown."""
        if self.explaining(model):
            return "explained"
        found = self.against(model)
        above = all(found[control.name].is_above for control in self.controls if not control.sees_lung)
        return "apart" if above else "cannot_tell"


# Pairs


class TestResult(Result, frozen=True, kw_only=True):
    """A p value as such, and adjusted for the number of pairs (Holm); None where the test is undefined."""

    __test__: ClassVar[bool] = False

    p: Share | None
    adjusted: Share | None


class PairwiseDifference(Result, frozen=True, kw_only=True):
    """The difference ``a - b`` in the primary metric, on the same images: exploration, beside the primary question.

    Attributes
    ----------
    a, b
        Labels; `a` comes later among the candidates, so that a fusion is measured against a single backbone.
    delta, interval
        Difference of the means over folds, and its 95 % interval, for this pair alone, within -1 and 1; None where a
        class has fewer than two patients.
    simultaneous
        Interval that holds for all pairs of the family together.
    family
        ``fusions`` (a fusion against a single network, where the primary question was answered with yes) or ``all``.
    p
        Adjusted for the family by step-down max-T: `featstore.evaluation.pairwise_tests.max_t`. In runs of before it
        is that of the paired bootstrap, adjusted for all pairs by Holm.
    verdict
        `p` against 0.05.
    tests
        Each p for this pair alone, and adjusted for all pairs by Holm: ``clustered`` (that of `interval`),
        ``bootstrap`` (of the groups), ``delong`` (of the AUCs; two classes, or a positive one), ``mcnemar`` (of the
        decisions) and ``corrected_t`` (over the folds).
    """

    a: str
    b: str
    metric: str
    delta: float
    interval: Interval
    simultaneous: Interval = None
    family: Literal["fusions", "all"] = "all"
    p: Share
    verdict: Literal["a_better", "b_better", "cannot_tell"]
    tests: Mapping[str, TestResult]


# The primary question

Conclusion = Literal["better", "equivalent", "worse", "cannot_tell"]
NoNumber = Literal["", "guessing", "too_many", "no_interval"]


class PlannedDifference(Result, frozen=True, kw_only=True):
    """The primary fusion less one other, with what a planned test of this pair alone says.

    Attributes
    ----------
    name
        The other: a single network, or a guess that needs none.
    delta, interval
        Difference of the means over folds, and its 95 % interval, which is not adjusted.
    p
        Two-sided, not adjusted.
    """

    name: str
    delta: float
    interval: Interval
    p: Share


class PrimaryQuestion(Result, frozen=True, kw_only=True):
    """Whether one fusion, named before any score was seen, is better than every single network.

    Attributes
    ----------
    primary
        Label of the fusion.
    margin
        Difference that is too small to matter.
    verdict
        ``better``: than every single network; ``equivalent``: the difference to the best single network lies within
        the margin; ``worse``: a single network is better; ``cannot_tell``.
    against
        The single network that is hardest to surpass: the difference that decides.
    singles
        The difference to every single network, `against` first.
    shortcuts
        The difference to the guesses that need no network, where they were made: tested next, and planned only if the
        verdict is ``better``.
    above_shortcuts
        Whether the fusion is better than all of them; None where they were not made.
    patients
        Groups that were scored; images where no groups are known.
    detectable
        True difference to `against` that would be told with 80 % power, at 5 %; None without an interval.
    needed, needed_interval
        Patients with whom a true difference as large as the margin would be told with 80 % power, and a 95 %
        interval of this number; None unless the verdict is ``cannot_tell``.
    no_number
        Why there is none then: ``guessing`` (not both of the two are above guessing), ``too_many`` (more than 100
        times as many), or ``no_interval``.
    """

    primary: str
    metric: str
    margin: float
    verdict: Conclusion
    against: str
    singles: tuple[PlannedDifference, ...]
    shortcuts: tuple[PlannedDifference, ...] = ()
    above_shortcuts: bool | None = None
    patients: Count
    detectable: float | None = None
    needed: Count | None = None
    needed_interval: tuple[Count, Count] | None = None
    no_number: NoNumber = ""

    @property
    def decisive(self) -> PlannedDifference:
        """The difference to the single network that is hardest to surpass."""
        return self.singles[0]

    @property
    def opens_the_gate(self) -> bool:
        """Whether fusions against single networks are planned tests: better than these, and than all guesses."""
        return self.verdict == "better" and self.above_shortcuts is not False


# The best of all


class NestedSelection(Result, frozen=True, kw_only=True):
    """What picking anew inside each fold, from its training images alone, is worth on its test images.

    Attributes
    ----------
    mean, interval
        Primary metric over the folds, and its 95 % interval as of `featstore.results.scores.MetricEstimate`.
    selected
        Who was picked in each fold.
    """

    mean: float
    interval: Interval
    selected: tuple[str, ...] = field(name="picked")


class SelectionBias(Result, frozen=True, kw_only=True):
    """The score of the best of k candidates, corrected for having been selected by it.

    Attributes
    ----------
    name, of
        The candidate with the highest primary metric, and how many there were.
    apparent
        Its score as it stands in the table.
    corrected
        What picking the best of these candidates is worth on patients that had no part in the picking; never above
        `apparent`, since a correction for luck does not raise a score.
    interval
        95 %, of `corrected`; None where a class has fewer than two patients.
    optimism
        ``apparent - corrected``.
    selection_frequency
        Share of the resamples in which this one won.
    nested
        The same question answered by inner folds; None where none were fitted.
    """

    name: str
    of: Count
    metric: str
    apparent: float = field(name="naive")
    corrected: float = field(name="guarded")
    interval: Interval
    optimism: float
    selection_frequency: Share = field(name="picked")
    nested: NestedSelection | None = None


# Views and backbones


class ViewPoint(Result, frozen=True, kw_only=True):
    """Primary metric, mean over folds and 95 % interval, with `views` augmented views beside the identity."""

    candidate: str = field(name="contestant")
    metric: str
    views: Count
    mean: float | None
    interval: Interval


class BackboneCost(Result, frozen=True, kw_only=True):
    """Cost and worth of one backbone.

    Attributes
    ----------
    milliseconds, basis
        Per image on all cores of this machine, and where that is known from; None for imported vectors.
    bytes
        Of one vector, uncompressed.
    alone
        Primary metric of the linear probe on it alone.
    shapley
        Its mean gain in the primary metric when backbones join in random order.
    caruana
        Its weight in an ensemble picked greedily from the single backbones' out-of-fold probabilities.
    log_me, h_score
        Transferability scores of its identity view.
    """

    name: str
    milliseconds: float | None
    basis: str
    bytes: Count
    alone: float
    shapley: float
    caruana: float
    log_me: float
    h_score: float


class ParetoPoint(Result, frozen=True, kw_only=True):
    """A subset that no cheaper one surpasses: its cost per image and its primary metric."""

    backbones: tuple[str, ...]
    milliseconds: float
    score: float


class BackboneValue(Result, frozen=True, kw_only=True):
    """Cost and worth of all backbones of a matrix.

    Attributes
    ----------
    costs
        Of each backbone.
    exact
        Whether the Shapley values are over all subsets, or over sampled permutations.
    front
        The Pareto front of the subsets whose cost is known, cheapest first.
    redundancy
        Linear CKA ``(backbones, backbones)`` of the identity view.
    agreement
        Spearman correlation of each transferability score with `BackboneCost.alone`; None for fewer than three
        backbones.
    """

    metric: str
    costs: tuple[BackboneCost, ...] = field(name="prices")
    exact: bool
    front: tuple[ParetoPoint, ...]
    redundancy: tuple[tuple[float, ...], ...]
    agreement: Mapping[str, float | None]


# Sites left out


class SiteScores(Result, frozen=True, kw_only=True):
    """One site, scored by what was learned at all others.

    Attributes
    ----------
    site
        Its name.
    images, patients, classes
        Images and patients that were scored there; patients by class.
    scores
        By metric; without a value where the site lacks a class that it needs.
    inside
        The primary metric on the same images by folds over the patients of all sites; None where undefined.
    """

    site: str
    images: Count
    patients: Count
    classes: Mapping[str, Count]
    scores: Mapping[str, Score]
    inside: float | None


class InsideOutside(Result, frozen=True, kw_only=True):
    """What a candidate loses at a site that it has not learned from.

    Attributes
    ----------
    candidate, metric
        Who, and the primary metric.
    inside
        By folds over the patients of all sites, the mean over the folds: what ``--folds 5`` prints.
    inside_by_site
        The same answers, ranked within each site: the mean over the sites.
    outside
        By sites left out, ranked within each site: the mean over the sites.
    outside_pooled
        The same answers, ranked over all sites together, although several models gave them.
    drop, interval
        ``inside - outside`` and its 95 % interval over patients of these sites.
    """

    candidate: str
    metric: str
    inside: float | None
    inside_by_site: float | None
    outside: float | None
    outside_pooled: float | None
    drop: float | None
    interval: Interval


class SiteResult(Result, frozen=True, kw_only=True):
    """What leaving out one site at a time shows.

    Attributes
    ----------
    candidate
        Whose scores stand by site: the primary fusion, or the one with the highest primary metric.
    sites
        Every site that was left out.
    never_left_out
        Sites without which a class would have been missing in training.
    shared_patients
        Patients of several sites: each is tested at every one of them, by what was learned without that patient.
    inside_folds
        Folds of `InsideOutside.inside`.
    drops
        By candidate.
    """

    candidate: str
    sites: tuple[SiteScores, ...]
    never_left_out: tuple[str, ...] = ()
    shared_patients: Count = 0
    inside_folds: Count
    drops: tuple[InsideOutside, ...]

    @property
    def shown(self) -> InsideOutside:
        """That of the candidate whose scores stand by site."""
        return next(one for one in self.drops if one.candidate == self.candidate)


# Outcome


class Protocol(Result, frozen=True, kw_only=True):
    """How candidates were tested.

    Attributes
    ----------
    folds, repeats, fold_seed
        The cross-validation.
    calibrate, sensitivity
        Calibration and sensitivity asked for.
    confidence
        How sure the sensitivity must be reached; None for the plain threshold.
    own_split
        Whether the data set's own test images were scored, once, in place of folds.
    left_out
        ``site`` or ``group`` where each site or each patient was left out: as many folds as there are. Empty else.
    harmonise
        What was done inside each fold about features that differ between sites
        (`featstore.evaluation.candidates.by_site`).
    plan
        Digest of the sealed plan that was run; None for an exploration.
    adjustment
        How the p values of the pairs are adjusted: ``max-T``, or ``holm`` in runs of before.
    unit
        What is scored: ``image``, or ``group`` for whole patients.
    pool
        How the images of a patient become one answer (`featstore.evaluation.patients.pool_images`); None of images.
    """

    folds: Count
    repeats: Count
    fold_seed: Count
    calibrate: str | None
    sensitivity: Share | None
    own_split: bool = False
    confidence: Share | None = None
    plan: str | None = None
    adjustment: Literal["holm", "max-T"] = "holm"
    unit: Unit = "image"
    pool: str | None = None
    left_out: Literal["", "site", "group"] = ""
    harmonise: Literal["none", "per-site"] = "none"

    @property
    def asked_folds(self) -> int | str:
        """What ``--folds`` was given."""
        return "split" if self.own_split else self.left_out or self.folds


class ScoresByImage(Result, frozen=True, kw_only=True):
    """What stands beside a comparison of patients.

    Attributes
    ----------
    patients
        Patients that were scored, by class.
    estimates
        By candidate and metric, where every image counts for itself.
    """

    patients: Mapping[str, Count]
    estimates: Mapping[str, Mapping[str, MetricEstimate]]


class Comparison(Result, frozen=True, kw_only=True, eq=False):
    """Outcome of a comparison.

    Attributes
    ----------
    matrix
        What was compared on, as a plain dict: counts, classes, backbones, views.
    protocol
        How they were tested.
    primary_question
        The question that was settled before any score, with its answer; None where a single network leaves nothing to
        ask, and in runs of before.
    findings
        What a reader of the scores must know, the gravest first.
    shortcuts
        Guesses that need no network, on the same images.
    candidates
        Every candidate, in the order of the candidates: singles first.
    pairs
        Every pair of candidates.
    selection_bias
        The best of them, corrected for selection bias (the winner's curse); None with a single candidate.
    view_curve
        A score by number of augmented views, if asked for.
    backbone_value
        Cost and worth of the backbones, if asked for.
    fits, fits_reused
        Fits that were asked for, and those of them that earlier runs had left in the cache. In ``run.json``, and not
        among the scores, which are the same however they were come by.
    planning
        Whether it was planned, and the looks at these images before; in ``run.json``, too. None in runs of before.
    by_image
        Where patients are scored: how many there are, and the scores of every candidate by image, beside; else None.
    sites
        Where sites were left out: scores by site, and what that costs; else None.
    negative_controls
        What else than the disease a score could come from; None where the images were not at hand, and in runs of
        before.
    """

    IN_MEMORY: ClassVar[frozenset[str]] = frozenset({"fits", "fits_reused", "planning"})

    matrix: MatrixFields
    protocol: Protocol
    primary_question: PrimaryQuestion | None = None
    findings: tuple[Finding, ...] = ()
    shortcuts: tuple[ShortcutResult, ...] = ()
    candidates: tuple[CandidateResult, ...] = field(name="contestants")
    pairs: tuple[PairwiseDifference, ...] = field(name="comparisons")
    selection_bias: SelectionBias | None = field(name="winner")
    view_curve: tuple[ViewPoint, ...]
    backbone_value: BackboneValue | None = field(name="economics")
    fits: Count = 0
    fits_reused: Count = 0
    planning: Planning | None = None
    by_image: ScoresByImage | None = None
    sites: SiteResult | None = None
    negative_controls: NegativeControls | None = None

    @property
    def folds(self) -> int:
        """Folds of each repeat."""
        return self.protocol.folds

    @property
    def repeats(self) -> int:
        """How many times all images were tested."""
        return self.protocol.repeats

    @property
    def fold_seed(self) -> int:
        """Seed of the folds."""
        return self.protocol.fold_seed

    @property
    def own_split(self) -> bool:
        """Whether the data set's own test images were scored, once, in place of folds."""
        return self.protocol.own_split

    @property
    def curves(self) -> dict[str, Curves]:
        """Curves by candidate."""
        return {s.label: s.curves for s in self.candidates}

    @property
    def selected_backbones(self) -> tuple[tuple[str, ...], ...]:
        """Backbones that the greedy candidates had in each fold; empty without any."""
        return next((s.selected_backbones for s in self.candidates if s.selected_backbones), ())

    @property
    def verdict(self) -> Conclusion | None:
        """Answer to the primary question: `PrimaryQuestion.verdict`; None where there was none."""
        return None if self.primary_question is None else self.primary_question.verdict

    def headline(self) -> str:
        """The answer to the primary question, with the difference that decides."""
        scored = f"{self.matrix['images']} images"
        if self.by_image is not None:
            scored = f"{sum(self.by_image.patients.values())} patients ({scored})"
        about = f"{len(self.candidates)} candidates, {scored}"
        asked = self.primary_question
        if asked is None:
            return about
        low, high = asked.decisive.interval or (None, None)
        interval = "no interval" if low is None else f"{low:+z.3f} to {high:+z.3f}"
        return (
            f"{asked.verdict.replace('_', ' ')}: {asked.primary} less {asked.against},"
            f" {asked.metric.upper()} {asked.decisive.delta:+z.3f} [{interval}]; {about}"
        )

    def table(self) -> list[dict[str, Any]]:
        """Every score of every candidate and guess, the highest AUC first: ``auc``, ``auc_low``, ``auc_high``, ..."""
        everyone: list[CandidateResult | ShortcutResult] = [*self.candidates, *self.shortcuts]
        rows: list[dict[str, Any]] = []
        for s in sorted(everyone, key=lambda s: -s.primary):
            who = s.candidate
            row: dict[str, Any] = {"candidate": s.label, "strategy": who.strategy}
            row["backbones"] = "+".join(who.backbones)
            for name, estimate in s.estimates.items():
                row |= bounds(name, estimate.mean, estimate.interval)
            rows.append(row)
        return rows

    def _shown(self) -> list[dict[str, Any]]:
        kept = ("candidate", PRIMARY, f"{PRIMARY}_low", f"{PRIMARY}_high")
        return [{name: row[name] for name in kept} for row in self.table()]

    def plot(self) -> Picture:
        """Draw the primary fusion less every single network: `featstore.reporting.figures.differences`.

        Where no question was asked, every candidate's AUC with its interval, best first:
        `featstore.reporting.figures.forest`.
        """
        from featstore.reporting import figures

        if self.primary_question is not None:
            return figures.differences(self.primary_question.to_json())
        return figures.forest([s.to_json() for s in self.candidates])

    def rows(self) -> Iterator[list[Any]]:
        """Lines of ``results.csv``: one per candidate, the header first; an empty cell is undefined."""
        metrics = list(self.candidates[0].estimates)
        columns = [f"{name}{end}" for name in metrics for end in ("", "_low", "_high")]
        yield ["contestant", "strategy", "backbones", "views", "test_views", *columns]
        for s in self.candidates:
            estimates = [s.estimates[name] for name in metrics]
            scores = [value for e in estimates for value in (e.mean, *(e.interval or (None, None)))]
            yield [s.label, s.strategy, "+".join(s.backbones), s.views, s.test_views, *scores]
