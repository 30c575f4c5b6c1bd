"""Outcomes of whole studies: the reproduction of the paper, and the demo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from msgspec import field, structs

from featstore.results.comparison import Comparison
from featstore.results.document import Count, Result, Share, bounds
from featstore.results.extraction import Extraction
from featstore.results.fusion import Fusion
from featstore.results.scores import Score

WEIGHTS_MARKS = {"random": "random weights", "absent": "weights absent"}
"""What stands in every table, caption and file name beside a network that was not trained, by kind of weights."""


class PaperNetwork(Result, frozen=True, kw_only=True):
    """A network that was asked for.

    Attributes
    ----------
    name
        Catalogue name.
    in_paper
        Whether it is one of the seven of the paper.
    weights
        ``imagenet``, ``file``, ``random``, or ``absent``: then the run goes on without it.
    digest
        What the feature key says of the weights; None where they are absent.
    reason
        Why they are absent, else empty.
    input_size, dimension
        Side of its square input in pixels, and length of its vector.
    label
        Name for a table or a caption.
    """

    name: str
    in_paper: bool
    weights: str = ""
    digest: str | None
    reason: str
    input_size: Count
    dimension: Count
    label: str = ""

    @property
    def is_here(self) -> bool:
        """Whether it takes part."""
        return self.digest is not None

    @property
    def mark(self) -> str:
        """What must stand beside its name: ``random weights``, ``weights absent``, or nothing."""
        return WEIGHTS_MARKS.get(self.weights, "")

    def __post_init__(self) -> None:
        """A network without training says so."""
        if not self.label:
            structs.force_setattr(self, "label", f"{self.name} ({self.mark})" if self.mark else self.name)


class Conversion(Result, frozen=True, kw_only=True):
    """What the decoder met, and made 8-bit grey or RGB of.

    Attributes
    ----------
    formats
        Images by file format, told by content.
    channels
        Images by ``grey`` and ``colour`` after decoding; grey is repeated three times at a network's door.
    notes
        Images by what the decoder had to do: composite transparency, convert CMYK, take the first frame.
    unread
        Images in quarantine, by reason.
    smallest, largest
        Shortest and longest side met, pixels.
    """

    formats: Mapping[str, Count] = field(default_factory=dict)
    channels: Mapping[str, Count] = field(default_factory=dict)
    notes: Mapping[str, Count] = field(default_factory=dict)
    unread: Mapping[str, Count] = field(default_factory=dict)
    smallest: Count = 0
    largest: Count = 0


class Leak(Result, frozen=True, kw_only=True):
    """Patients that a split by image puts on both sides.

    Attributes
    ----------
    patients
        Groups in all.
    in_both
        Groups with training images and test images.
    test_images, known_images
        Test images, and those among them whose patient is also trained on.
    """

    patients: Count
    in_both: Count
    test_images: Count
    known_images: Count


class Claim(Result, frozen=True, kw_only=True):
    """An accuracy, and what it rests on.

    Attributes
    ----------
    name
        ``paper``, ``by_image`` (the paper's protocol here), ``by_patient`` (the same, but patients kept together) or
        ``honest``.
    title
        The same in words.
    accuracy
        Share of right answers, and its 95 % interval.
    images, patients
        Number of images that were answered for, and of groups among them; None where unknown.
    basis
        How the interval comes about.
    """

    name: str
    title: str
    accuracy: Score
    images: Count | None
    patients: Count | None
    basis: str


class SavedFigure(Result, frozen=True, kw_only=True):
    """A figure of the run.

    Attributes
    ----------
    number
        Number of this figure in the paper; None where the paper has none.
    file
        Where it lies in the run folder.
    title, alt
        As of its `Picture`.
    caption
        What it shows, and where it departs from the paper's.
    shows_images
        Whether it holds images of the data set, and so must not leave the run folder unasked.
    """

    number: Count | None
    file: str
    title: str
    alt: str
    caption: str
    shows_images: bool = False


class DataFields(TypedDict):
    """Digest of the data set's table."""

    data_sha256: str


class ReproductionFields(TypedDict):
    """What ``run.json`` of a reproduction says beside `Reproduction`."""

    arguments: DataFields


class Reproduction(Result, frozen=True, kw_only=True):
    """Outcome of `featstore.paper`.

    Attributes
    ----------
    run
        The run's folder; ``by_image`` and ``by_patient`` in it hold a run for each step.
    arguments
        What was asked for, and the digest of the data: no path, no patient.
    conversion
        Formats met.
    audit
        Codes of what `featstore.check` found, by severity, and AUC of guessing the label without a network.
    networks
        Who was asked for, and who takes part.
    splits
        Images by protocol (``by_image``, ``by_patient``), split and class.
    leak
        Patients on both sides of the split by image; None where the data set names no patients.
    majority_baseline
        Accuracy of always answering the most frequent class, on the test images of the split by image.
    heads
        By network, the score on the test images of a head of its own under the paper's protocol.
    fusions
        The same of the fusion head (``head``), after fine-tuning (``tuned``), and of the majority vote over networks
        (``vote``), by protocol.
    hit_probability
        By protocol, the mean probability of the majority's class on the test images: over ``all``, those answered
        ``right`` and those answered ``wrong``. Empty where one network alone took part.
    claims
        The paper's number and this run's, to be laid side by side.
    reasons
        Sentences on why they differ.
    computed, stored
        Vectors that this call had to compute, and that were there.
    figures
        Index of the figures.
    steps
        Run folders made on the way, relative to `run`, and what each is.
    """

    run: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    conversion: Conversion = field(default_factory=Conversion)
    audit: Mapping[str, Any] = field(default_factory=dict)
    networks: tuple[PaperNetwork, ...]
    splits: Mapping[str, Mapping[str, Mapping[str, Count]]] = field(name="sides")
    leak: Leak | None = None
    majority_baseline: Share = field(name="floor")
    heads: Mapping[str, Score]
    fusions: Mapping[str, Mapping[str, Score]]
    hit_probability: Mapping[str, Mapping[str, Share | None]] = field(default_factory=dict)
    claims: tuple[Claim, ...]
    reasons: tuple[str, ...]
    computed: Count
    stored: Count
    figures: tuple[SavedFigure, ...]
    steps: Mapping[str, str]

    def headline(self) -> str:
        """How many networks there were, and where the run is."""
        here = sum(network.weights not in {"", "absent"} for network in self.networks)
        return f"{here} of {len(self.networks)} networks, {len(self.figures)} figures; run {self.run}"

    def table(self) -> list[dict[str, Any]]:
        """The paper's accuracy and this run's, beside each other."""
        return [
            {
                "accuracy of": c.title,
                **bounds("accuracy", c.accuracy.value, c.accuracy.interval),
                "basis": c.basis,
            }
            for c in self.claims
        ]


class Demonstration(Result, frozen=True, kw_only=True, eq=False):
    """What each stage of the demonstration returned."""

    data: str
    extraction: Extraction
    fusion: Fusion
    comparison: Comparison
    report: str
    seconds: float

    def headline(self) -> str:
        """What the comparison found, and where the report is."""
        return f"{self.comparison.headline()}; report {self.report}"

    def table(self) -> list[dict[str, Any]]:
        """Scores of the comparison."""
        return self.comparison.table()
