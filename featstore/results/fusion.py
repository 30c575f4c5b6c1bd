"""Outcomes of `fuse` and `predict`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NotRequired, TypedDict

from msgspec import field

from featstore.findings import Finding, counted
from featstore.results.comparison import Looks
from featstore.results.document import Count, Interval, Result, Share, bounds
from featstore.results.scores import PRIMARY, Curves, MatrixFields, Score, Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from featstore.reporting.figures import Picture

# A fit


class MetricChange(Result, frozen=True, kw_only=True):
    """A metric on the same held-out images before and after, and the difference with its paired 95 % interval.

    None where undefined. The interval: `featstore.evaluation.intervals.difference_interval`.
    """

    before: float | None
    after: float | None
    difference: float | None
    interval: Interval


class WarmStart(Result, frozen=True, kw_only=True):
    """What a fine-tuning went on from, and what came of it.

    Attributes
    ----------
    run
        Folder of the earlier run.
    frozen
        Blocks whose input weights stayed.
    held_out_then
        Whether the earlier run is known to have held out the images scored here; None where it saw another table,
        which may have held the same patients: "before" may then flatter it.
    changes
        By evaluated split and metric, on probabilities before any calibration.
    """

    run: str
    frozen: tuple[str, ...]
    held_out_then: bool | None
    changes: Mapping[str, Mapping[str, MetricChange]]


class ToleranceFields(TypedDict):
    """Threshold with a confidence, as of `featstore.evaluation.calibration.ToleranceBound`."""

    confidence: Share
    threshold: Share | None
    plain: Share
    patients: Count
    needed: Count | None


class SingleNetwork(Result, frozen=True, kw_only=True):
    """A backbone alone, by the linear probe on the same training images, and what the fusion is more than it.

    Attributes
    ----------
    name
        The backbone.
    score
        Its primary metric on the held-out images.
    delta, interval
        Primary metric of the fusion less its own, and the paired 95 % interval
        (`featstore.evaluation.intervals.difference_interval`); None where undefined.
    """

    name: str
    score: Score
    delta: float | None
    interval: Interval


class OperatingFields(TypedDict):
    """Calibration and threshold, as of `featstore.evaluation.calibration.OperatingPoint.to_json`.

    Attributes
    ----------
    calibration, threshold, sensitivity, positive
        Of every run.
    confidence, tolerance
        Where a sensitivity is asked for; runs of earlier versions have none.
    """

    calibration: dict[str, Any] | None
    threshold: Share | None
    sensitivity: Share | None
    positive: Count | None
    confidence: NotRequired[Share | None]
    tolerance: NotRequired[ToleranceFields]


class ConformalRule(Result, frozen=True, kw_only=True):
    """Class-conditional prediction sets, as a model keeps them (`featstore.evaluation.abstention`).

    Attributes
    ----------
    alpha
        Error rate: at most this share of new patients of a class has a set without it.
    part
        Where the patients of calibration come from: the split ``val``, or ``calibration``, set aside of ``train``.
    patients
        How many of these there were, by class.
    pool
        How the images of a patient become one answer.
    by_image, by_patient
        Probability of each class from which on the set holds it, of an image and of a patient; None of patients where
        some had several classes.
    """

    alpha: Share
    part: str
    patients: tuple[Count, ...]
    pool: str
    by_image: tuple[float, ...]
    by_patient: tuple[float, ...] | None


class SetCoverage(Result, frozen=True, kw_only=True):
    """What prediction sets did on held-out patients of a class; each patient counts once.

    Attributes
    ----------
    patients
        How many.
    covered, interval
        Share whose set holds the class, with its 95 % interval.
    unsure, neither
        Share whose set holds several classes, or none.
    """

    patients: Count
    covered: Share
    interval: tuple[float, float]
    unsure: Share
    neither: Share


class Abstention(Result, frozen=True, kw_only=True):
    """Prediction sets of a fit, and what they did on each evaluated split that did not calibrate them.

    Attributes
    ----------
    rule
        What the model keeps.
    by_image, by_patient
        By split and class.
    """

    rule: ConformalRule
    by_image: Mapping[str, Mapping[str, SetCoverage]]
    by_patient: Mapping[str, Mapping[str, SetCoverage]]


class UnlikeTraining(Result, frozen=True, kw_only=True):
    """From which distance on an image is called unlike those of training.

    Attributes
    ----------
    share
        Of the images of patients left out of the distance, how many are called so.
    threshold
        The largest distance that is not called so; about one is usual.
    patients
        How many it was chosen on.
    has_patients
        Whether these are patients, and not images taken for them.
    held_out
        Share of the images called so, by evaluated split; each patient counts once.
    """

    share: Share
    threshold: float
    patients: Count
    has_patients: bool
    held_out: Mapping[str, Share] = field(default_factory=dict)


class Fusion(Result, frozen=True, kw_only=True):
    """Outcome of a fit.

    Attributes
    ----------
    run
        Folder that holds the model, predictions and metrics.
    strategy, options
        What was fitted.
    matrix
        What it was fitted on, as a plain dict.
    sizes
        Images by split; the model is fitted on ``train`` only.
    operating
        Calibration and threshold, as plain dict; both None where none were asked for.
    scores
        By evaluated split and metric, on the identity view, at the operating point.
    curves
        By evaluated split: decision, calibration and risk-coverage curve, and how well probabilities are calibrated.
    history
        Learning curves by epoch, for strategies that have them.
    warm_start
        What it was fine-tuned from, before and after; None for a fit from scratch.
    shortcuts
        By evaluated split: scores of guesses that need no network, as `scores`.
    singles
        By evaluated split: each backbone alone, the best first; none of a single backbone, and in runs of before.
    findings
        What a reader of the scores must know, the gravest first.
    looks
        Looks at these images before this one, as far as the cache knows; in ``run.json``, and not among the scores.
        None in runs of before.
    unit, pool
        What was scored: ``image``, or ``group`` for whole patients; and how the images of a patient become one answer
        (`featstore.evaluation.patients.pool_images`).
    patients
        Patients by split, where these were scored; else empty.
    by_image
        Beside the scores of patients: those of the images, by split and metric, at the operating point of images.
    abstention
        Prediction sets; None where none were asked for.
    unlike
        When an image is called unlike those of training; None where too few patients tell, and in runs of before.
    """

    IN_MEMORY: ClassVar[frozenset[str]] = frozenset({"looks"})

    run: str = ""
    strategy: str
    options: Mapping[str, Any]
    matrix: MatrixFields
    sizes: Mapping[str, Count]
    operating: OperatingFields
    scores: Mapping[str, Mapping[str, Score]]
    curves: Mapping[str, Curves]
    history: Mapping[str, list[float]] | None
    warm_start: WarmStart | None = field(name="continuation")
    shortcuts: Mapping[str, Mapping[str, Mapping[str, Score]]] = field(default_factory=dict)
    singles: Mapping[str, tuple[SingleNetwork, ...]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    looks: Looks | None = None
    unit: Unit = "image"
    pool: str | None = None
    patients: Mapping[str, Count] = field(default_factory=dict)
    by_image: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    abstention: Abstention | None = None
    unlike: UnlikeTraining | None = None

    def headline(self) -> str:
        """What was fitted, and its AUC on each evaluated split."""
        whose = " per patient" if self.unit == "group" else ""
        told = [f"AUC {_told(score[PRIMARY])}{whose} on {split}" for split, score in self.scores.items()]
        return f"{self.strategy}, {', '.join(told)}; run {self.run}"

    def table(self) -> list[dict[str, Any]]:
        """Scores of the fit and of guesses without a network, by split: ``auc``, ``auc_low``, ``auc_high``, ..."""
        answers = {split: {self.strategy: scores} for split, scores in self.scores.items()}
        rows = []
        for split, own in answers.items():
            for answer, scores in {**own, **self.shortcuts.get(split, {})}.items():
                row: dict[str, Any] = {"split": split, "answers": answer}
                for name, score in scores.items():
                    row |= bounds(name, score.value, score.interval)
                rows.append(row)
        return rows

    def _shown(self) -> list[dict[str, Any]]:
        kept = ("split", "answers", PRIMARY, f"{PRIMARY}_low", f"{PRIMARY}_high")
        return [{name: row[name] for name in kept} for row in self.table()]

    def plot(self) -> Picture:
        """Draw how far its probabilities can be trusted, on each split: `featstore.reporting.figures.reliability`."""
        from featstore.reporting import figures

        return figures.reliability(dict(self.curves))


def _told(score: Score) -> str:
    if score.value is None:
        return "undefined"
    low, high = score.interval or (None, None)
    return (
        f"{score.value:.3f} [no interval]" if low is None else f"{score.value:.3f} [{low:.3f} to {high:.3f}]"
    )


# Answers for images


class Prediction(Result, frozen=True, kw_only=True):
    """The answer for one image, or one page of a file that holds several.

    Attributes
    ----------
    path
        The file.
    label
        Predicted class, at the run's operating point.
    probability
        By class, summing to one; calibrated if the run is.
    votes
        Class that each backbone alone would choose, for strategies whose members can vote; else empty.
    tuned_on
        Backbones whose weights have learned from this image or its patient: the answer says nothing about new ones.
    page
        Number of the page, from 1, where the file holds several; else None.
    given
        Label that the CSV file gives, if it does.
    in_training
        How the image was recognised as one that the model has learned from: ``the same file``, ``the same pixels`` or
        ``the same patient name``; None for a new image.
    patient
        Whose image it is, where that is known.
    prediction_set
        Classes that a set with a guarantee holds; None of a model without.
    distance
        From the images of training, over the largest that is usual: above one it is unlike any of them. None of a
        model that does not tell.
    weight
        Share of the image in the answer of its patient, of a model that pools the images itself: their answer is then
        the patient's. None of any other.
    """

    path: str
    label: str
    probability: Mapping[str, float]
    votes: Mapping[str, str]
    tuned_on: tuple[str, ...] = ()
    page: int | None = None
    given: str | None = None
    in_training: str | None = None
    patient: str | None = None
    prediction_set: tuple[str, ...] | None = None
    distance: float | None = None
    weight: float | None = None

    @property
    def is_unlike(self) -> bool:
        """Whether it is unlike any image of training."""
        return self.distance is not None and self.distance > 1

    @property
    def is_new(self) -> bool:
        """Whether neither the model nor a backbone has learned from it, as far as can be seen."""
        return self.in_training is None and not self.tuned_on


class PatientPrediction(Result, frozen=True, kw_only=True):
    """The answer for a patient, pooled from those for its images.

    Attributes
    ----------
    patient
        Its name; the path where a single image is asked about.
    images, unlike
        How many of it were answered, and how many of these are unlike any in training.
    label, probability
        As of `Prediction`.
    given
        Label that the CSV file gives all its images, if it does.
    in_training
        How it was recognised as one that the model has learned from, as of `Prediction`.
    is_new
        Whether neither the model nor a backbone has learned from it, as far as can be seen.
    prediction_set
        Classes that a set with a guarantee for patients holds; None of a model without.
    """

    patient: str
    images: Count
    label: str
    probability: Mapping[str, float]
    given: str | None = None
    in_training: str | None = None
    is_new: bool = True
    prediction_set: tuple[str, ...] | None = None
    unlike: Count = 0


class MeanOfPages(Result, frozen=True, kw_only=True):
    """Mean probability over the pages of a file, and the class that the operating point makes of it."""

    path: str
    pages: int
    label: str
    probability: Mapping[str, float]


class Counts(Result, frozen=True, kw_only=True):
    """How many of the new images (or patients) that bear a label were answered rightly.

    Attributes
    ----------
    labelled, right
        Those with a label that is a class of the model and that were not in training, and the right answers on them.
    seen
        Further ones with a label, not counted since they were in training.
    """

    labelled: int
    right: int
    seen: int


class Predictions(Result, frozen=True, kw_only=True):
    """Answers for all images that decoded, and the others as (path, reason, detail).

    Attributes
    ----------
    run
        Folder of the model.
    operating
        Its calibration and threshold, as plain dict.
    classes
        Names of its classes.
    predictions
        An answer per image, or per page.
    files
        A summary of each file that holds several pages.
    bad
        What could not be answered.
    skipped
        Files in the folders given that do not look like images.
    findings
        What a reader should know, such as images that were in training.
    patients
        An answer per patient, of those images that tell whose they are.
    without_patient
        Images that do not tell.
    pool, patient_operating
        How images become a patient's answer, and at what operating point.
    chosen_for_patients
        Whether that point was chosen for patients; else it is the one of images, and the answer a convenience.
    alpha
        Error rate of the prediction sets; None of a model that keeps none.
    unlike
        When an image is called unlike those of training; None of a model that does not tell.
    scores
        By unit, ``image`` and ``patient``: every metric of the answers to images (patients) with a label that are not
        known from training, with its interval over patients, as `featstore.fuse` scores what it held out.
    """

    run: str
    operating: Mapping[str, Any]
    classes: tuple[str, ...]
    predictions: tuple[Prediction, ...]
    files: tuple[MeanOfPages, ...]
    bad: tuple[tuple[str, str, str], ...]
    skipped: int = 0
    findings: tuple[Finding, ...] = ()
    patients: tuple[PatientPrediction, ...] = ()
    without_patient: Count = 0
    pool: str | None = None
    patient_operating: Mapping[str, Any] = field(default_factory=dict)
    chosen_for_patients: bool = False
    alpha: Share | None = None
    unlike: UnlikeTraining | None = None
    scores: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)

    @property
    def counts(self) -> Counts | None:
        """Right answers for images, where labels were given."""
        return self._counted(self.predictions)

    @property
    def patient_counts(self) -> Counts | None:
        """Right answers for patients, where labels were given."""
        return self._counted(self.patients)

    def _counted(self, answers: Sequence[Prediction | PatientPrediction]) -> Counts | None:
        known = [p for p in answers if p.given in self.classes]
        if not known:
            return None
        new = [p for p in known if p.is_new]
        return Counts(
            labelled=len(new), right=sum(p.given == p.label for p in new), seen=len(known) - len(new)
        )

    def headline(self) -> str:
        """How many images were answered, and by which run."""
        aside = f", {len(self.bad)} in quarantine" if self.bad else ""
        return f"{counted(len(self.predictions), 'answer')} by {self.run}{aside}"

    def table(self) -> list[dict[str, Any]]:
        """Return the lines of `rows`, each as a dict."""
        header, *lines = self.rows()
        return [dict(zip(header, line, strict=True)) for line in lines]

    def to_json(self, *, examples: bool = True) -> dict[str, Any]:
        """Plain dict for ``--json``, with the right answers counted."""
        counts, of_patients = self.counts, self.patient_counts
        return {
            **super().to_json(examples=examples),
            "counts": None if counts is None else counts.to_json(),
            "patient_counts": None if of_patients is None else of_patients.to_json(),
        }

    def set_text(self, answer: Prediction | PatientPrediction) -> str:
        """Its prediction set in words; empty of a model that keeps none."""
        return "" if answer.prediction_set is None else set_text(answer.prediction_set, self.classes)

    def rows(self) -> Iterator[list[Any]]:
        """Table with the header first: an image or page per line, a column ``P(class)`` per class.

        ``page``, ``patient``, ``label``, ``weight``, ``prediction_set``, ``unlike_training`` and ``vote(backbone)``
        are there only where there are any.
        """
        first = self.predictions[0] if self.predictions else None
        paged = any(p.page for p in self.predictions)
        named = any(p.patient for p in self.predictions)
        labelled = any(p.given for p in self.predictions)
        sets, unlike = self.alpha is not None, self.unlike is not None
        weighed = any(p.weight is not None for p in self.predictions)
        voters = list(first.votes) if first else []
        yield [
            "path", *(["page"] if paged else []), *(["patient"] if named else []),
            *(["label"] if labelled else []), "predicted", *(f"P({name})" for name in self.classes),
            *(["weight"] if weighed else []), *(["prediction_set"] if sets else []),
            *(["unlike_training"] if unlike else []), *(f"vote({name})" for name in voters),
            "in_training", "tuned_on",
        ]  # fmt: skip
        for p in self.predictions:
            yield [
                p.path, *([p.page or 1] if paged else []), *([p.patient or ""] if named else []),
                *([p.given or ""] if labelled else []), p.label, *(p.probability[name] for name in self.classes),
                *([p.weight] if weighed else []), *([self.set_text(p)] if sets else []),
                *(["yes" if p.is_unlike else ""] if unlike else []), *(p.votes[name] for name in voters),
                p.in_training or "", "+".join(p.tuned_on),
            ]  # fmt: skip

    def patient_rows(self) -> Iterator[list[Any]]:
        """Table of the patients with the header first; columns as in `rows`, and the number of ``images``."""
        labelled = any(p.given for p in self.patients)
        sets, unlike = self.alpha is not None, self.unlike is not None
        yield [
            "patient", "images", *(["label"] if labelled else []), "predicted",
            *(f"P({name})" for name in self.classes), *(["prediction_set"] if sets else []),
            *(["images_unlike_training"] if unlike else []), "in_training",
        ]  # fmt: skip
        for p in self.patients:
            yield [
                p.patient, p.images, *([p.given or ""] if labelled else []), p.label,
                *(p.probability[name] for name in self.classes), *([self.set_text(p)] if sets else []),
                *([p.unlike] if unlike else []), p.in_training or "",
            ]  # fmt: skip


def set_text(held: Sequence[str], classes: Sequence[str]) -> str:
    """A prediction set in words: its class where there is one, else what it means that there are several or none."""
    two = len(classes) == 2  # noqa: PLR2004
    if len(held) == 1:
        return held[0]
    if not held:
        return "neither: unlike both" if two else "none: unlike all"
    if len(held) == len(classes):
        return "either: not sure" if two else "any: not sure"
    return f"{' or '.join(held)}: not sure"


# Where in an image the evidence lies


class Explanation(Result, frozen=True, kw_only=True):
    """Where in an image the evidence of its answer lies: a map per backbone, exact for a linear model.

    Attributes
    ----------
    prediction
        The answer.
    evidence_for
        The class whose logit is divided over the image: positive numbers speak for it, negative ones against.
    logit
        That of the model, before any calibration. Of two classes: the logarithm of its odds. Of more: the logarithm
        of its probability, less the mean of this over all classes.
    constant
        Its part that no image changes: the logit of an image whose vectors are the mean of those in training.
    contributions
        Part of each backbone: the mean of its map. With the constant they add up to the logit.
    remainder
        What is missing from the sum: by rounding, or of approximate maps by the approximation.
    exact
        Whether the model is linear; else the maps are integrated gradients, which are approximate.
    overlay, arrays
        Files with the picture and the maps, if they were written.
    maps
        ``(rows, columns)`` float64 of each backbone, on the grid of its last layer, in logits.
    total
        Their sum ``(rows, columns)`` float64 on a common grid, whose mean is that of theirs together.
    """

    IN_MEMORY: ClassVar[frozenset[str]] = frozenset({"maps", "total"})

    prediction: Prediction
    evidence_for: str
    logit: float
    constant: float
    contributions: Mapping[str, float]
    remainder: float
    exact: bool = True
    overlay: str | None = None
    arrays: str | None = None
    maps: Mapping[str, Any]
    total: Any

    @property
    def carried_by(self) -> str | None:
        """Backbone whose evidence speaks most for the predicted class; None where none does."""
        sign = 1 if self.prediction.label == self.evidence_for else -1
        name = max(self.contributions, key=lambda name: sign * self.contributions[name])
        return name if sign * self.contributions[name] > 0 else None


class Explanations(Result, frozen=True, kw_only=True):
    """Explanations of all images that decoded, and the others as (path, reason, detail).

    Attributes
    ----------
    run
        Folder of the model.
    operating
        Its calibration and threshold, as plain dict.
    classes
        Names of its classes.
    explanations
        One per image, or per page.
    bad
        What could not be answered.
    skipped
        Files in the folders given that do not look like images.
    findings
        What a reader should know, such as images that were in training.
    """

    run: str
    operating: Mapping[str, Any]
    classes: tuple[str, ...]
    explanations: tuple[Explanation, ...]
    bad: tuple[tuple[str, str, str], ...]
    skipped: int = 0
    findings: tuple[Finding, ...] = ()

    def headline(self) -> str:
        """How many images were explained, and by which run."""
        aside = f", {len(self.bad)} in quarantine" if self.bad else ""
        return f"{counted(len(self.explanations), 'explanation')} by {self.run}{aside}"

    def table(self) -> list[dict[str, Any]]:
        """Rows by image: the answer, the logit, the constant and the part of each backbone."""
        return [
            {
                "path": one.prediction.path,
                "page": one.prediction.page,
                "predicted": one.prediction.label,
                "probability": one.prediction.probability[one.prediction.label],
                "evidence_for": one.evidence_for,
                "logit": one.logit,
                "constant": one.constant,
                **one.contributions,
                "carried_by": one.carried_by,
            }
            for one in self.explanations
        ]


# A model handed over


class ExportedModel(Result, frozen=True, kw_only=True):
    """Outcome of `featstore.export`.

    Attributes
    ----------
    file, format, size_bytes
        What was written: ``keras``, ``onnx`` or, of a bundle, ``zip``; and its size.
    classes
        Columns of its answer, in this order.
    inputs
        Name of each input, and the side of the square images that it takes, in pixels.
    strategy, backbones
        What is in it.
    positive, threshold
        Class that the run calls positive, and the probability from which on it says so; the most probable class is
        the answer where the threshold is None.
    largest_difference
        Largest difference of a probability from that of the run itself, on generated images.
    licences
        Licence of each network's weights, as far as it is known.
    """

    file: str
    format: str
    size_bytes: Count
    classes: tuple[str, ...]
    inputs: Mapping[str, Count]
    strategy: str
    backbones: tuple[str, ...]
    positive: str | None
    threshold: Share | None
    largest_difference: float
    licences: Mapping[str, str]

    def headline(self) -> str:
        """What is in the file."""
        return f"{self.strategy} of {', '.join(self.backbones)} in {self.file}"

    def table(self) -> list[dict[str, Any]]:
        """Inputs of the model: ``input``, ``side`` in pixels."""
        return [{"input": name, "side": side} for name, side in self.inputs.items()]


# Feature packs


class Packed(Result, frozen=True, kw_only=True):
    """Outcome of `featstore.pack`.

    Attributes
    ----------
    file, size_bytes, sha256
        What was written: its size, and its SHA-256.
    kind
        ``fuse`` or ``compare``: what the run is.
    images, groups, views, columns
        What is in it: images, patients, views of each image, columns of each vector.
    backbones
        Networks that computed them.
    licence
        On what terms it may be used.
    imported
        Those of `backbones` that were not computed by featstore, but imported.
    """

    file: str
    size_bytes: Count
    sha256: str
    kind: str
    images: Count
    groups: Count
    views: Count
    columns: Count
    backbones: tuple[str, ...]
    licence: str
    imported: tuple[str, ...] = ()

    def headline(self) -> str:
        """What is in the file."""
        return (
            f"{counted(self.images, 'image')} of {counted(self.groups, 'patient')} as vectors in {self.file}"
        )

    def table(self) -> list[dict[str, Any]]:
        """What is in the file, in one row."""
        counts = ("images", "groups", "views", "columns", "size_bytes")
        return [{name: getattr(self, name) for name in counts}]


# One model of several hospitals


class SiteMoments(Result, frozen=True, kw_only=True):
    """Outcome of `featstore.moments`.

    Attributes
    ----------
    file, size_bytes
        What was written.
    backbones
        Networks whose vectors were projected.
    dimensions
        What is kept of all networks together.
    images, patients
        Number in it, by class.
    has_patients
        Whether these are patients, and not images taken for them.
    kept_for_testing
        Images of the data set's own split that are not in it.
    """

    file: str
    size_bytes: Count
    backbones: tuple[str, ...]
    dimensions: Count
    images: Mapping[str, Count]
    patients: Mapping[str, Count]
    has_patients: bool
    kept_for_testing: Count

    def headline(self) -> str:
        """What is in the file."""
        images, patients = sum(self.images.values()), sum(self.patients.values())
        return f"Moments of {counted(images, 'image')} of {counted(patients, 'patient')} in {self.file}"

    def table(self) -> list[dict[str, Any]]:
        """A row for each class."""
        return [
            {"class": name, "images": self.images[name], "patients": self.patients[name]}
            for name in self.images
        ]


class MergedFit(Result, frozen=True, kw_only=True):
    """Outcome of `featstore.fuse_from_sites`.

    Attributes
    ----------
    run
        Folder of the model.
    sites
        Number of hospitals.
    backbones, dimensions
        Networks, and what is kept of all of them together.
    shrinkage
        By which the covariance was moved to a multiple of the identity, 0 to 1.
    images, patients
        Number that the model was fitted on, by class.
    has_patients
        Whether all hospitals knew their patients.
    positive
        Class that is called positive.
    """

    run: str
    sites: Count
    backbones: tuple[str, ...]
    dimensions: Count
    shrinkage: float
    images: Mapping[str, Count]
    patients: Mapping[str, Count]
    has_patients: bool
    positive: str | None

    def headline(self) -> str:
        """What was fitted."""
        patients = counted(sum(self.patients.values()), "patient")
        return f"One model of {patients} at {counted(self.sites, 'hospital')} in {self.run}"

    def table(self) -> list[dict[str, Any]]:
        """A row for each class."""
        return [
            {"class": name, "images": self.images[name], "patients": self.patients[name]}
            for name in self.images
        ]


class SharedHead(Result, frozen=True, kw_only=True):
    """Outcome of `featstore.share`.

    Attributes
    ----------
    file, size_bytes
        What was written.
    name, strategy
        What the head is called, and what it was fitted by.
    backbones
        Networks whose vectors it weighs.
    images
        Number that it was fitted on.
    imported
        Those of `backbones` that were not computed by featstore, but imported.
    """

    file: str
    size_bytes: Count
    name: str
    strategy: str
    backbones: tuple[str, ...]
    images: Count
    imported: tuple[str, ...] = ()

    def headline(self) -> str:
        """What is in the file."""
        return f"Head {self.name} ({self.strategy}) of {counted(self.images, 'image')} in {self.file}"

    def table(self) -> list[dict[str, Any]]:
        """One row."""
        return [{"head": self.name, "strategy": self.strategy, "images": self.images}]


class HeadAnswers(Result, frozen=True, kw_only=True):
    """Outcome of `featstore.answers`.

    Attributes
    ----------
    file, size_bytes
        What was written.
    heads
        Names of the heads that were asked.
    images
        Number of test images.
    patients
        Test patients by class.
    has_patients
        Whether these are patients, and not images taken for them.
    scores
        Primary metric of each head on these patients.
    own
        Which of the heads is the hospital's own, by its run; None where none was given, so that nobody can tell
        whether it has learned from these patients.
    learned
        Test patients (or images, where these are not known) that were left out since it has learned from them.
    """

    file: str
    size_bytes: Count
    heads: tuple[str, ...]
    images: Count
    patients: Mapping[str, Count]
    has_patients: bool
    scores: Mapping[str, Score]
    own: str | None = None
    learned: Count = 0

    def headline(self) -> str:
        """What is in the file."""
        patients = counted(sum(self.patients.values()), "patient" if self.has_patients else "image")
        return f"Answers of {counted(len(self.heads), 'head')} to {patients} in {self.file}"

    def table(self) -> list[dict[str, Any]]:
        """A row for each head."""
        return [{"head": name, "auc": self.scores[name].value} for name in self.heads]


class HeadScore(Result, frozen=True, kw_only=True):
    """A shared head on the test patients of several hospitals.

    Attributes
    ----------
    name, strategy, images
        As of `SharedHead`.
    score, by_hospital
        Primary metric on all patients together, and at each hospital.
    delta, interval
        By how much the mean of all heads differs from it on all patients, with the paired 95 % interval.
    """

    name: str
    strategy: str
    images: Count
    score: Score
    by_hospital: Mapping[str, Score]
    delta: float | None
    interval: Interval


class MergedHeads(Result, frozen=True, kw_only=True):
    """Outcome of `featstore.fuse_from_sites` on answers of shared heads.

    Attributes
    ----------
    run
        Folder of the model: the mean of the heads' logits.
    hospitals
        As the files are called.
    backbones, classes, positive
        Networks, classes, and the positive one.
    images, patients
        Test images, and test patients by class, of all hospitals.
    has_patients
        Whether all hospitals knew their patients.
    unchecked
        Hospitals that did not say which head is their own (``answers --own``): nobody can tell whether it has learned
        from their test patients.
    scores
        Every metric of the model on all test patients.
    by_hospital
        Its primary metric at each hospital.
    heads
        Each head by itself.
    """

    run: str
    hospitals: tuple[str, ...]
    backbones: tuple[str, ...]
    classes: tuple[str, ...]
    positive: str | None
    images: Count
    patients: Mapping[str, Count]
    has_patients: bool
    scores: Mapping[str, Score]
    by_hospital: Mapping[str, Score]
    heads: tuple[HeadScore, ...]
    unchecked: tuple[str, ...] = ()

    def headline(self) -> str:
        """What the heads are worth together."""
        patients = counted(sum(self.patients.values()), "patient" if self.has_patients else "image")
        value = self.scores["auc"].value
        told = "" if value is None else f": AUC {value:.3f}"
        hospitals = counted(len(self.hospitals), "hospital")
        return f"{counted(len(self.heads), 'head')} together on {patients} of {hospitals}{told}"

    def table(self) -> list[dict[str, Any]]:
        """A row for the mean of all heads, and one for each."""
        rows = [("all heads", self.scores["auc"], self.by_hospital)]
        rows += [(head.name, head.score, head.by_hospital) for head in self.heads]
        return [
            {"head": name, "auc": score.value, **{place: one.value for place, one in by.items()}}
            for name, score, by in rows
        ]


class Difference(Result, frozen=True, kw_only=True):
    """A number or text that came out otherwise.

    Attributes
    ----------
    where
        Its place in ``metrics.json``.
    recorded, found
        What the pack came with, and what was computed.
    relative
        The difference as a share of the larger number; None of texts.
    """

    where: str
    recorded: str
    found: str
    relative: float | None


class Replay(Result, frozen=True, kw_only=True):
    """Outcome of `featstore.replay`.

    Attributes
    ----------
    kind
        ``fuse`` or ``compare``.
    images
        Images whose vectors it was computed from.
    same
        Whether all files are the same byte for byte.
    files, unequal
        What was compared, and which of them differ.
    tables
        Parts of ``metrics.json`` that were computed again.
    taken_over
        Parts that are not made from vectors, and were taken from the pack.
    differences, n_differences, largest
        The first places that differ, how many there are, and the largest difference of a number as a share of it.
    libraries
        Libraries of another version than when the run was made: then, and now.
    licence
        On what terms the pack may be used.
    imported
        Networks whose vectors were not computed by featstore, but imported: no replay tells what they are made from.
    """

    kind: str
    images: Count
    same: bool
    files: tuple[str, ...]
    unequal: tuple[str, ...]
    tables: tuple[str, ...]
    taken_over: tuple[str, ...]
    differences: tuple[Difference, ...]
    n_differences: Count
    largest: float
    libraries: Mapping[str, tuple[str, str]]
    licence: str
    imported: tuple[str, ...] = ()

    def headline(self) -> str:
        """Whether the scores came out the same."""
        if self.same:
            return f"the same, byte for byte: {' and '.join(self.files)} of {counted(self.images, 'image')}"
        return f"{counted(self.n_differences, 'place')} differ, by at most {self.largest:.1e} of a number"

    def table(self) -> list[dict[str, Any]]:
        """A row for each of `differences`."""
        return [one.to_json() for one in self.differences]
