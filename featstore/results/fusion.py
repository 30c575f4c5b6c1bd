"""Outcomes of `fuse` and `predict`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from msgspec import field

from featstore.findings import Finding, counted
from featstore.results.document import Count, Interval, Result, Share, bounds
from featstore.results.scores import PRIMARY, Curves, MatrixFields, Score

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


class ToleranceFields(TypedDict):
    """Threshold with a confidence, as of `featstore.evaluation.calibration.ToleranceBound`."""

    confidence: Share
    threshold: Share | None
    plain: Share
    patients: Count
    needed: Count | None


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
    """

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

    def headline(self) -> str:
        """What was fitted, and its AUC on each evaluated split."""
        told = [f"AUC {_told(score[PRIMARY])} on {split}" for split, score in self.scores.items()]
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
    return f"{score.value:.3f} [no interval]" if low is None else f"{score.value:.3f} [{low:.3f}, {high:.3f}]"


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
    """

    path: str
    label: str
    probability: Mapping[str, float]
    votes: Mapping[str, str]
    tuned_on: tuple[str, ...] = ()
    page: int | None = None
    given: str | None = None
    in_training: str | None = None

    @property
    def is_new(self) -> bool:
        """Whether neither the model nor a backbone has learned from it, as far as can be seen."""
        return self.in_training is None and not self.tuned_on


class MeanOfPages(Result, frozen=True, kw_only=True):
    """Mean probability over the pages of a file, and the class that the operating point makes of it."""

    path: str
    pages: int
    label: str
    probability: Mapping[str, float]


class Counts(Result, frozen=True, kw_only=True):
    """How many of the new images that bear a label were answered rightly.

    Attributes
    ----------
    labelled, right
        Images with a label that is a class of the model and that were not in training, and the right answers on them.
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
    """

    run: str
    operating: Mapping[str, Any]
    classes: tuple[str, ...]
    predictions: tuple[Prediction, ...]
    files: tuple[MeanOfPages, ...]
    bad: tuple[tuple[str, str, str], ...]
    skipped: int = 0
    findings: tuple[Finding, ...] = ()

    @property
    def counts(self) -> Counts | None:
        """Right answers, where labels were given."""
        known = [p for p in self.predictions if p.given in self.classes]
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
        counts = self.counts
        return {
            **super().to_json(examples=examples),
            "counts": None if counts is None else counts.to_json(),
        }

    def rows(self) -> Iterator[list[Any]]:
        """Table with the header first: an image or page per line, a column ``P(class)`` per class.

        ``page``, ``label`` and ``vote(backbone)`` are there only where there are any.
        """
        first = self.predictions[0] if self.predictions else None
        paged = any(p.page for p in self.predictions)
        labelled = any(p.given for p in self.predictions)
        voters = list(first.votes) if first else []
        yield [
            "path", *(["page"] if paged else []), *(["label"] if labelled else []), "predicted",
            *(f"P({name})" for name in self.classes), *(f"vote({name})" for name in voters),
            "in_training", "tuned_on",
        ]  # fmt: skip
        for p in self.predictions:
            yield [
                p.path, *([p.page or 1] if paged else []), *([p.given or ""] if labelled else []), p.label,
                *(p.probability[name] for name in self.classes), *(p.votes[name] for name in voters),
                p.in_training or "", "+".join(p.tuned_on),
            ]  # fmt: skip
