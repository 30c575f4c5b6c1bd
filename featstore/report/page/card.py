"""Model card of a run (Mitchell et al. 2019): what is known, and what only its maker can say.

Mitchell, Wu, Zaldivar, Barnes, Vasserman, Hutchinson, Spitzer, Raji & Gebru, Model cards for model reporting,
FAT* 2019, doi 10.1145/3287560.3287596. The nine sections and their order are theirs (sections 4.1 to 4.9).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from featstore.evaluation.fuse import Fusion
from featstore.report.page import facts, findings
from featstore.report.page.limits import PURPOSE
from featstore.report.terminal.findings import said

if TYPE_CHECKING:
    from featstore.report.records.record import Record

SOURCE = "Mitchell et al. 2019, Model cards for model reporting (doi 10.1145/3287560.3287596)"


MEASURES = (
    "AUC decides; beside it average precision, sensitivity, specificity, balanced accuracy, F1, Brier score,"
    " calibration error and log-loss, each with a 95 % interval from resampled patients."
)


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the card.

    Attributes
    ----------
    title
        As in the source.
    known
        Sentences that the run answers for.
    open
        What is to be filled in by whoever publishes the model.
    """

    title: str
    known: tuple[str, ...]
    open: tuple[str, ...]


def card(record: Record) -> tuple[Section, ...]:
    """Model card of a fit, or of the leader of a comparison; nothing of an extraction, which has no model."""
    if record.outcome is None:
        return ()
    return (
        Section(
            "Model details",
            (
                facts.strategy(record),
                facts.networks(record),
                facts.weights(record),
                f"Made with featstore {record.about['libraries'].get('featstore', '')} at {record.about['created']}.",
                *_kept(record),
            ),
            ("Who made it, whom to ask, licence, how to cite it.",),
        ),
        Section("Intended use", (PURPOSE,), ("Whom it is for, and what for; uses that are out of scope.",)),
        Section(
            "Factors",
            ("The run knows classes, and patients and sites where the data set names them; nothing else.",),
            ("Age, sex, scanner, hospital, severity: which matter here, and whether they were looked at.",),
        ),
        Section(
            "Metrics",
            (
                MEASURES,
                facts.operating(record),
            ),
            ("What a missed patient and a false alarm cost, and which threshold follows.",),
        ),
        Section(
            "Evaluation data",
            (facts.partition(record), facts.disjoint(record), facts.preprocessing(record)),
            ("Where the images come from, and why these.",),
        ),
        Section(
            "Training data",
            (facts.data(record), facts.views(record)),
            ("How patients were chosen, when and where; who set the labels, and how.",),
        ),
        Section(
            "Quantitative analyses",
            (
                findings.performance(record),
                *filter(None, [findings.calibration(record)]),
                *filter(None, [findings.shortcuts(record)]),
                findings.mistakes(record),
            ),
            ("Results by factor (sex, age, scanner, hospital), and by their combinations.",),
        ),
        Section(
            "Ethical considerations",
            ("The run names no patient; its predictions.csv does, and is for its owner alone.",),
            ("Approval and consent; who could be harmed by wrong answers, and what is done about it.",),
        ),
        Section(
            "Caveats and recommendations",
            (
                "Nothing here was tested on data of another hospital than those in the data set.",
                *said(record.outcome.findings),
            ),
            ("What should be tested next, and what users must know.",),
        ),
    )


def _kept(record: Record) -> list[str]:
    if isinstance(record.outcome, Fusion):
        return ["The fitted model is kept in the run's folder; featstore predict uses it."]
    return [
        "A comparison keeps no model: this card is about the procedure of its leader. featstore fuse fits one."
    ]
