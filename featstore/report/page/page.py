"""What stands on the page: every part of a report, in the order in which it is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from featstore.errors import FeatstoreError
from featstore.evaluation.comparison import Comparison
from featstore.report.page import facts
from featstore.report.page.board import SHOWN, board
from featstore.report.page.card import card
from featstore.report.page.gallery import distribution_of, maps_of, pictures_of
from featstore.report.page.limits import LIMITS
from featstore.report.page.opening import opening
from featstore.report.page.pairing import pair
from featstore.report.page.provenance import command, facts_of, keys_sheet
from featstore.report.page.sheets import sheets_of
from featstore.report.page.worksheet import worksheet
from featstore.report.verdict import pair_lines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from featstore.evaluation.check import Check
    from featstore.report.figures import Picture
    from featstore.report.page.board import Board
    from featstore.report.page.card import Section
    from featstore.report.page.dataset import Dataset
    from featstore.report.page.pairing import Pairs
    from featstore.report.page.sheet import Sheet
    from featstore.report.page.worksheet import Checklist
    from featstore.report.records.record import Record
    from featstore.report.records.reproduced import Twin

POOLED = (
    "Curves and the table of answers are drawn from the out-of-fold answers of all images together; the table of"
    " scores has means over the folds, which differ a little."
)
KINDS = {
    "compare": "comparison",
    "fuse": "fit",
    "extract": "extraction",
    "paper": "reproduction of the paper",
}
WITHOUT_DATA = "Left out: featstore report RUN --data DATA adds it."


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One run on the page.

    Attributes
    ----------
    anchor
        What its links lead to.
    verdict
        Sentences, the one that matters first.
    pairs
        A sentence for each pair that matters; empty but for comparisons.
    sheets, pictures, board, card
        Tables, figures, wrong answers, and the model card; the last two None and empty of an extraction.
    twins
        Figures by the paper's numbers.
    omitted
        What is not shown, and how to get it.
    command, keys, facts
        Provenance.
    """

    anchor: str
    name: str
    kind: str
    what: str
    about: str
    verdict: tuple[str, ...]
    pairs: tuple[str, ...]
    sheets: tuple[Sheet, ...]
    pictures: tuple[Picture, ...]
    twins: tuple[Twin, ...]
    omitted: tuple[str, ...]
    board: Board | None
    card: tuple[Section, ...]
    command: str
    keys: Sheet | None
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """A report.

    Attributes
    ----------
    parts
        Its runs.
    pairs
        The scored ones side by side; None with fewer than two.
    audit, maps, without_maps
        What the data set itself shows: its audit, its vectors in the plane, and why there are none of these.
    worksheet, limits
        Checklists, pre-filled, and what must not be left unsaid.
    """

    parts: tuple[Part, ...]
    pairs: Pairs | None
    audit: Check | None
    maps: tuple[Picture, ...]
    without_maps: str
    worksheet: tuple[Checklist, ...]
    limits: tuple[str, ...] = LIMITS

    @property
    def title(self) -> str:
        """Names of the runs."""
        names = [part.name for part in self.parts]
        return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def compose(
    records: Sequence[Record],
    dataset: Dataset | None = None,
    cache: Path | None = None,
    *,
    with_images: bool = False,
) -> Page:
    """Put a page together.

    Parameters
    ----------
    records
        The runs.
    dataset
        What they were made from, if it is at hand.
    cache
        Where its vectors are, for the map.
    with_images
        Whether cases have thumbnails.
    """
    maps, without = _maps(records, dataset, cache)
    return Page(
        tuple(
            _part(f"run{at}", record, dataset, with_images=with_images)
            for at, record in enumerate(records, 1)
        ),
        pair(records),
        None if dataset is None else dataset.audit,
        maps,
        without,
        worksheet(records),
    )


def _part(anchor: str, record: Record, dataset: Dataset | None, *, with_images: bool) -> Part:
    known = dataset if dataset is not None and dataset.is_of(record) else None
    pictures, omitted = _pictures(record, known)
    private = 0 if with_images else sum(twin.shows_images for twin in record.twins)
    if private:
        omitted.append(f"{private} figures show images of the data set; --with-images adds them.")
    if dataset is not None and known is None:
        omitted.append("DATA is not what this run saw: its distribution and thumbnails are left out.")
    return Part(
        anchor,
        record.name,
        record.kind,
        KINDS[record.kind],
        facts.data(record),
        opening(record),
        tuple(pair_lines(record.outcome)) if isinstance(record.outcome, Comparison) else (),
        tuple(sheets_of(record)),
        tuple(replace(picture, name=f"{anchor}-{picture.name}") for picture in pictures),
        tuple(twin for twin in record.twins if with_images or not twin.shows_images),
        tuple(omitted),
        board(record, _thumbnails(record, known) if with_images else {}),
        card(record),
        command(record),
        keys_sheet(record),
        tuple(facts_of(record)),
    )


def _pictures(record: Record, dataset: Dataset | None) -> tuple[list[Picture], list[str]]:
    found = pictures_of(record)
    if record.kind == "paper":
        return found, [
            "The steps are runs of their own, in folders within this run: featstore report shows each."
        ]
    notes = [POOLED] if isinstance(record.outcome, Comparison) else []
    if dataset is None:
        return found, [*notes, f"Images by split and class. {WITHOUT_DATA}"]
    return [*found, distribution_of(dataset.counts(record))], notes


def _maps(
    records: Sequence[Record], dataset: Dataset | None, cache: Path | None
) -> tuple[tuple[Picture, ...], str]:
    """Maps of the vectors of the first run that was made from the data, or why there are none."""
    known = [r for r in records if dataset is not None and r.kind != "paper" and dataset.is_of(r)]
    if dataset is None or not known:
        return (), ""
    try:
        return tuple(maps_of(dataset.matrix(known[0], cache))), ""
    except FeatstoreError:  # whose text may name the cache's folder, and a report names none
        return (
            (),
            "The map of the features is left out: the cache does not hold them. Say which one does: --cache.",
        )


def _thumbnails(record: Record, dataset: Dataset | None) -> dict[str, str]:
    if dataset is None or record.shown is None:
        return {}
    answers = record.answers[record.shown]
    return dataset.thumbnails(answers.ids[row] for row in answers.wrong[:SHOWN].tolist())
