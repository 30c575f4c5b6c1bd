"""The report page: every part in the order in which it is read, as one HTML file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from featstore.errors import FeatstoreError
from featstore.reporting import wording
from featstore.reporting.page.cases import SHOWN, distribution_of, maps_of, pictures_of, wrong_cases
from featstore.reporting.page.model_card import SOURCE, Checklist, Section, fill_checklists, model_card
from featstore.reporting.page.tables import SideBySide, command, compare_runs, facts_of, keys_table, tables_of
from featstore.reporting.verdict import pair_lines, pairs_head, pairs_told
from featstore.reporting.wording import CAVEATS, headline
from featstore.results.comparison import Comparison
from featstore.tables import Table, number_cell, printable, text_cell

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from featstore.reporting.figures import Picture
    from featstore.reporting.page.cases import Dataset, WrongCases
    from featstore.reporting.run_record import RecordedFigure, RunRecord
    from featstore.results.extraction import Check


# Parts of a report

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
    pairs, pairs_note
        A sentence for each pair that matters, and how they were tested; empty but for comparisons.
    tables, pictures, wrong_cases, model_card
        Tables, figures, wrong answers, and the model card; the last two None and empty of an extraction.
    paper_figures
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
    pairs_note: str
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]
    paper_figures: tuple[RecordedFigure, ...]
    omitted: tuple[str, ...]
    wrong_cases: WrongCases | None
    model_card: tuple[Section, ...]
    command: str
    keys: Table | None
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """All parts of a report.

    Attributes
    ----------
    parts
        Its runs.
    side_by_side
        The scored ones side by side; None with fewer than two.
    audit, maps, without_maps
        What the data set itself shows: its audit, its vectors in the plane, and why there are none of these.
    checklists, caveats
        Checklists, pre-filled, and what must not be left unsaid.
    """

    parts: tuple[Part, ...]
    side_by_side: SideBySide | None
    audit: Check | None
    maps: tuple[Picture, ...]
    without_maps: str
    checklists: tuple[Checklist, ...]
    caveats: tuple[str, ...] = CAVEATS

    @property
    def title(self) -> str:
        """Names of the runs."""
        names = [part.name for part in self.parts]
        return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def compose(
    records: Sequence[RunRecord],
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
        compare_runs(records),
        None if dataset is None else dataset.audit,
        maps,
        without,
        fill_checklists(records),
    )


def _part(anchor: str, record: RunRecord, dataset: Dataset | None, *, with_images: bool) -> Part:
    known = dataset if dataset is not None and dataset.is_of(record) else None
    pictures, omitted = _pictures(record, known)
    private = 0 if with_images else sum(figure.shows_images for figure in record.paper_figures)
    if private:
        omitted.append(f"{private} figures show images of the data set; --with-images adds them.")
    if dataset is not None and known is None:
        omitted.append("DATA is not what this run saw: its distribution and thumbnails are left out.")
    return Part(
        anchor,
        record.name,
        record.kind,
        KINDS[record.kind],
        wording.data(record),
        headline(record),
        tuple(pair_lines(record.outcome)) if isinstance(record.outcome, Comparison) else (),
        f"{pairs_head(record.outcome)} {pairs_told(record.outcome)}"
        if isinstance(record.outcome, Comparison)
        else "",
        tuple(tables_of(record)),
        tuple(replace(picture, name=f"{anchor}-{picture.name}") for picture in pictures),
        tuple(figure for figure in record.paper_figures if with_images or not figure.shows_images),
        tuple(omitted),
        wrong_cases(record, _thumbnails(record, known) if with_images else {}),
        model_card(record),
        command(record),
        keys_table(record),
        tuple(facts_of(record)),
    )


def _pictures(record: RunRecord, dataset: Dataset | None) -> tuple[list[Picture], list[str]]:
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
    records: Sequence[RunRecord], dataset: Dataset | None, cache: Path | None
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


def _thumbnails(record: RunRecord, dataset: Dataset | None) -> dict[str, str]:
    if dataset is None or record.shown is None:
        return {}
    answers = record.predictions[record.shown]
    return dataset.thumbnails(answers.ids[row] for row in answers.wrong[:SHOWN].tolist())


# HTML

MARK = '<meta name="generator" content="featstore report">'
"""By this line a file is known to be a report."""


def render(page: Page) -> str:
    """HTML of a page: styles, script and pictures are in it, and its policy forbids it to load anything.

    Whatever a stranger wrote into a run is escaped, and characters that cannot be seen are spelt out. Equal pages
    give equal text.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True,
        loader=PackageLoader("featstore.reporting.page"),
        undefined=StrictUndefined,
        finalize=_readable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _text("report.js")
    return environment.get_template("report.html").render(
        page=page,
        card_source=SOURCE,
        shortcuts=_shortcuts(page),
        mark=Markup(MARK),  # noqa: S704 - ours
        style=Markup(_text("report.css")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        drawn={
            picture.name: Markup(picture.inline())  # noqa: S704 - drawn here; matplotlib escapes what it writes
            for picture in (*page.maps, *(picture for part in page.parts for picture in part.pictures))
        },
    )


def _shortcuts(page: Page) -> Table | None:
    """How well the label is guessed without a network."""
    if page.audit is None or not page.audit.shortcuts:
        return None
    rows = tuple(
        (text_cell(name), number_cell(score.value, score.interval))
        for name, score in page.audit.shortcuts.items()
    )
    note = "0.5 and less is harmless. A model that is hardly better has learned little more."
    return Table("Guessing the label without a network", ("From", "AUC"), rows, note)


def _text(name: str) -> str:
    return files("featstore.reporting.page").joinpath("templates", name).read_text(encoding="utf-8")


def _readable(value: Any) -> Any:  # noqa: ANN401
    return printable(value) if type(value) is str else value
