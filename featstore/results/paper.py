"""Outcomes of whole studies: the reproduction of the paper, and the demo."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from featstore.evaluation.estimates import Score
    from featstore.results.comparison import Comparison
    from featstore.results.extraction import Extraction
    from featstore.results.fusion import Fusion


WEIGHTS_MARKS = {"random": "random weights", "absent": "weights absent"}
"""What stands in every table, caption and file name beside a network that was not trained, by kind of weights."""


@dataclass(frozen=True, slots=True)
class PaperNetwork:
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
    """

    name: str
    in_paper: bool
    weights: str
    digest: str | None
    reason: str
    input_size: int
    dimension: int

    @property
    def is_here(self) -> bool:
        """Whether it takes part."""
        return self.digest is not None

    @property
    def mark(self) -> str:
        """What must stand beside its name: ``random weights``, ``weights absent``, or nothing."""
        return WEIGHTS_MARKS.get(self.weights, "")

    @property
    def label(self) -> str:
        """Name for a table or a caption: a network without training says so."""
        return f"{self.name} ({self.mark})" if self.mark else self.name


@dataclass(frozen=True, slots=True)
class Conversion:
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

    formats: Mapping[str, int]
    channels: Mapping[str, int]
    notes: Mapping[str, int]
    unread: Mapping[str, int]
    smallest: int
    largest: int


@dataclass(frozen=True, slots=True)
class Leak:
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

    patients: int
    in_both: int
    test_images: int
    known_images: int


@dataclass(frozen=True, slots=True)
class Claim:
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
    images: int | None
    patients: int | None
    basis: str


@dataclass(frozen=True, slots=True)
class SavedFigure:
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

    number: int | None
    file: str
    title: str
    alt: str
    caption: str
    shows_images: bool = False


@dataclass(frozen=True, slots=True)
class Reproduction:
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
    sides
        Images by protocol (``by_image``, ``by_patient``), split and class.
    leak
        Patients on both sides of the split by image; None where the data set names no patients.
    floor
        Accuracy of always answering the most frequent class, on the test images of the split by image.
    heads
        By network, the score on the test images of a head of its own under the paper's protocol.
    fusions
        The same of the fusion head (``head``), after fine-tuning (``tuned``), and of the majority vote over networks
        (``vote``), by protocol.
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

    run: str
    arguments: Mapping[str, Any]
    conversion: Conversion
    audit: Mapping[str, Any]
    networks: tuple[PaperNetwork, ...]
    sides: Mapping[str, Mapping[str, Mapping[str, int]]]
    leak: Leak | None
    floor: float
    heads: Mapping[str, Score]
    fusions: Mapping[str, Mapping[str, Score]]
    claims: tuple[Claim, ...]
    reasons: tuple[str, ...]
    computed: int
    stored: int
    figures: tuple[SavedFigure, ...]
    steps: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json`` and ``metrics.json``."""
        document = asdict(self)
        for row, network in zip(document["networks"], self.networks, strict=True):
            row["label"] = network.label
        return document


@dataclass(frozen=True, slots=True, eq=False)
class Demonstration:
    """What each stage of the demonstration returned."""

    data: str
    extraction: Extraction
    fusion: Fusion
    comparison: Comparison
    report: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json``."""
        return {
            "data": self.data,
            "extraction": self.extraction.to_json(),
            "fusion": self.fusion.to_json(),
            "comparison": self.comparison.to_json(),
            "report": self.report,
            "seconds": self.seconds,
        }
