"""The report page: every part in the order in which it is read, as one HTML file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from featstore.errors import FeatstoreError
from featstore.findings import ordered
from featstore.reporting import wording
from featstore.reporting.page.cases import (
    MAIN,
    SHOWN,
    answer_picture,
    distribution_of,
    flow_of,
    maps_of,
    pictures_of,
    table_one,
    wrong_cases,
)
from featstore.reporting.page.model_card import SOURCE, Checklist, Section, fill_checklists, model_card
from featstore.reporting.page.tables import (
    SideBySide,
    command,
    compare_runs,
    controls_table,
    facts_of,
    folded_tables,
    keys_table,
    shown_tables,
)
from featstore.reporting.verdict import controls_lines, pair_lines, pairs_head, pairs_told
from featstore.reporting.wording import CAVEATS, headline
from featstore.results.comparison import Comparison
from featstore.tables import Table, number_cell, printable, text_cell, typeset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from markupsafe import Markup

    from featstore.findings import Finding
    from featstore.reporting.figures import Picture
    from featstore.reporting.page.cases import Dataset, MappedCases, WrongCases
    from featstore.reporting.run_record import RecordedFigure, RunRecord
    from featstore.results.extraction import Check


# Parts of a report

KINDS = {
    "compare": "comparison",
    "fuse": "fit",
    "extract": "extraction",
    "paper": "reproduction of the paper",
}


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One run on the page.

    Attributes
    ----------
    anchor
        What its links lead to.
    verdict, answer
        Sentences, the one that matters first, and the picture of the primary question; None where none was asked.
    findings
        What a reader of the scores must know, the gravest first.
    table_one, flow
        Patients and images by class, and what became of the images found; None of a run that scored nothing.
    tables, folded
        Tables that must be seen, and those that wait until they are asked for.
    pairs, pairs_note
        A sentence for each pair that matters, and how they were tested; empty but for comparisons.
    pictures, more_pictures
        Figures, and those that wait.
    wrong_cases, model_card
        Wrong answers, and the model card; None and empty of an extraction.
    paper_figures
        Figures by the paper's numbers.
    omitted
        What is not shown, and how to get it.
    command, keys, facts
        Provenance.
    evidence
        Where the evidence lies in some images; None where no images are shown.
    controls, controls_table
        Whether the score could be something else than the disease; empty and None but for comparisons.
    """

    anchor: str
    name: str
    kind: str
    what: str
    about: str
    verdict: tuple[str, ...]
    answer: Picture | None
    findings: tuple[Finding, ...]
    table_one: Table | None
    flow: Picture | None
    tables: tuple[Table, ...]
    folded: tuple[Table, ...]
    pairs: tuple[str, ...]
    pairs_note: str
    pictures: tuple[Picture, ...]
    more_pictures: tuple[Picture, ...]
    paper_figures: tuple[RecordedFigure, ...]
    omitted: tuple[str, ...]
    wrong_cases: WrongCases | None
    model_card: tuple[Section, ...]
    command: str
    keys: Table | None
    facts: tuple[tuple[str, str], ...]
    controls: tuple[str, ...] = ()
    controls_table: Table | None = None
    evidence: MappedCases | None = None

    @property
    def drawings(self) -> tuple[Picture, ...]:
        """All its figures, in the order of the page."""
        first = (picture for picture in (self.answer, self.flow) if picture is not None)
        return (*first, *self.pictures, *self.more_pictures)


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
    names_files
        Whether cases bear the names of their files.
    has_shortcuts
        Whether a run has scored what guesses without a network: a number has one definition on a page.
    """

    parts: tuple[Part, ...]
    side_by_side: SideBySide | None
    audit: Check | None
    maps: tuple[Picture, ...]
    without_maps: str
    checklists: tuple[Checklist, ...]
    caveats: tuple[str, ...] = CAVEATS
    names_files: bool = False
    has_shortcuts: bool = False

    @property
    def drawings(self) -> tuple[Picture, ...]:
        """All figures that were drawn for it, each under a name of its own."""
        return (*(picture for part in self.parts for picture in part.drawings), *self.maps)

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
    names: bool = False,
    evidence: Mapping[str, MappedCases] | None = None,
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
    names
        Whether cases bear the names of their files.
    evidence
        Where it lies in some images, by the name of the run.
    """
    maps, without = _maps(records, dataset, cache)
    return Page(
        tuple(
            replace(
                _part(f"run{at}", record, dataset, with_images=with_images, names=names),
                evidence=(evidence or {}).get(record.name),
            )
            for at, record in enumerate(records, 1)
        ),
        compare_runs(records),
        None if dataset is None else dataset.audit,
        maps,
        without,
        fill_checklists(records),
        names_files=names,
        has_shortcuts=any(record.outcome is not None and record.outcome.shortcuts for record in records),
    )


def _part(anchor: str, record: RunRecord, dataset: Dataset | None, *, with_images: bool, names: bool) -> Part:
    known = dataset if dataset is not None and dataset.is_of(record) else None
    pictures = pictures_of(record)
    if known is not None and record.kind != "paper":
        pictures.append(distribution_of(known.counts(record)))
    is_comparison = isinstance(record.outcome, Comparison)
    first = {picture.name for picture in pictures if picture.name in MAIN or not is_comparison}
    return Part(
        anchor,
        record.name,
        record.kind,
        KINDS[record.kind],
        wording.data(record),
        tuple(map(typeset, headline(record))),
        _own(anchor, answer_picture(record)),
        () if record.outcome is None else tuple(ordered(record.outcome.findings)),
        table_one(record, known),
        _own(anchor, flow_of(record, known)),
        tuple(shown_tables(record)),
        tuple(folded_tables(record)),
        tuple(map(typeset, pair_lines(record.outcome))) if isinstance(record.outcome, Comparison) else (),
        f"{pairs_head(record.outcome)} {pairs_told(record.outcome)}"
        if isinstance(record.outcome, Comparison)
        else "",
        tuple(filter(None, (_own(anchor, picture) for picture in pictures if picture.name in first))),
        tuple(filter(None, (_own(anchor, picture) for picture in pictures if picture.name not in first))),
        tuple(figure for figure in record.paper_figures if with_images or not figure.shows_images),
        tuple(_omitted(record, dataset, known, with_images=with_images)),
        wrong_cases(
            record,
            _of_cases(record, known, "thumbnails") if with_images else {},
            _of_cases(record, known, "names") if names else {},
        ),
        model_card(record),
        command(record),
        keys_table(record),
        tuple(facts_of(record)),
        tuple(map(typeset, controls_lines(record.outcome))) if isinstance(record.outcome, Comparison) else (),
        controls_table(record.outcome) if isinstance(record.outcome, Comparison) else None,
    )


def _own(anchor: str, picture: Picture | None) -> Picture | None:
    """The picture under a name that no other run of the page has."""
    return None if picture is None else replace(picture, name=f"{anchor}-{picture.name}")


def _omitted(
    record: RunRecord, dataset: Dataset | None, known: Dataset | None, *, with_images: bool
) -> Iterator[str]:
    if record.kind == "paper":
        yield "The steps are runs of their own, in folders within this run: featstore report shows each."
    private = 0 if with_images else sum(figure.shows_images for figure in record.paper_figures)
    if private:
        yield f"{private} figures show images of the data set; --with-images adds them."
    if dataset is not None and known is None:
        yield "DATA is not what this run saw: its sites, distribution and thumbnails are left out."


def _of_cases(record: RunRecord, dataset: Dataset | None, what: str) -> dict[str, str]:
    """Thumbnails or names of the cases on the page."""
    if dataset is None or record.shown is None:
        return {}
    answers = record.predictions[record.shown]
    ids = [answers.ids[row] for row in answers.wrong[:SHOWN].tolist()]
    return dataset.thumbnails(ids) if what == "thumbnails" else dataset.names(ids)


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


# HTML

SHORTCUT = "FS101"
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
    environment.filters["coded"] = _coded
    script = _text("report.js")
    return environment.get_template("report.html").render(
        page=page,
        card_source=SOURCE,
        findings=_untold(page),
        shortcuts=_shortcuts(page),
        mark=Markup(MARK),  # noqa: S704 - ours
        style=Markup(_text("report.css")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        drawn={
            picture.name: Markup(picture.inline())  # noqa: S704 - drawn here; matplotlib escapes what it writes
            for picture in page.drawings
        },
    )


def _untold(page: Page) -> list[Finding]:
    """Findings of the audit that no run has told; a run tells on its own images what guesses without a network."""
    told = {(finding.code, finding.message) for part in page.parts for finding in part.findings}
    found = () if page.audit is None else page.audit.findings
    return [
        finding
        for finding in found
        if (finding.code, finding.message) not in told
        and not (finding.code == SHORTCUT and page.has_shortcuts)
    ]


def _shortcuts(page: Page) -> Table | None:
    """How well the label is guessed without a network, where no run has scored that on its own images."""
    if page.audit is None or not page.audit.shortcuts or page.has_shortcuts:
        return None
    rows = tuple(
        (text_cell(name), number_cell(score.value, score.interval))
        for name, score in page.audit.shortcuts.items()
    )
    note = "0.5 and less is harmless. A model that is hardly better has learned little more."
    return Table("Guessing the label without a network", ("From", "AUC"), rows, note)


def _text(name: str) -> str:
    return files("featstore.reporting.page").joinpath("templates", name).read_text(encoding="utf-8")


CODE = re.compile(r"`([^`]+)`")


def _coded(text: str) -> Markup:
    """A sentence whose commands, which stand in backticks, are shown as code."""
    from markupsafe import Markup, escape

    return Markup(CODE.sub(r"<code>\1</code>", str(escape(_readable(text)))))  # noqa: S704 - escaped before


def _readable(value: Any) -> Any:  # noqa: ANN401
    return printable(value) if type(value) is str else value
