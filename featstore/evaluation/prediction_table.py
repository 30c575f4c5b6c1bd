"""Answers for new images, as objects and as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from featstore import run
from featstore.errors import RunError, UsageError
from featstore.files import write_private

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from featstore.findings import Finding


@dataclass(frozen=True, slots=True)
class Prediction:
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


@dataclass(frozen=True, slots=True)
class MeanOfPages:
    """Mean probability over the pages of a file, and the class that the operating point makes of it."""

    path: str
    pages: int
    label: str
    probability: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Counts:
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


@dataclass(frozen=True, slots=True)
class Predictions:
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
        return Counts(len(new), sum(p.given == p.label for p in new), len(known) - len(new))

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json``."""
        counts = self.counts
        return {
            **asdict(self),
            "findings": [finding.to_json() for finding in self.findings],
            "counts": None if counts is None else asdict(counts),
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


def refuse_unwritable(path: Path, *, overwrite: bool) -> None:
    """Make sure, before any work is done, that a table may be written to `path`.

    Raises
    ------
    UsageError
        If it is neither ``.csv`` nor ``.json``, lies in no folder, or is there already and `overwrite` is off.
    """
    if path.suffix.lower() not in {".csv", ".json"}:
        raise UsageError(
            f"--out {path} is neither a .csv nor a .json file.", "Write for instance --out answers.csv."
        )
    if not path.parent.is_dir():
        raise UsageError(f"There is no folder {path.parent}.", "Make it first, or choose another --out.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder.", "Choose another --out.")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} is there already.", "Choose another --out, or add --overwrite.")


def write_table(path: Path, result: Predictions) -> None:
    """Write all answers as ``.csv`` or ``.json``, for the owner alone.

    Raises
    ------
    RunError
        If the disk refuses.
    """
    is_csv = path.suffix.lower() == ".csv"
    text = run.csv_text(result.rows()) if is_csv else run.json_text(result.to_json())
    try:
        write_private(path, text.encode())
    except OSError as error:
        raise RunError(f"Cannot write {path}: {error.strerror}", "Choose another --out.") from error
