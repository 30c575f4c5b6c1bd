"""Reporting checklists with the answers that runs can give; every other item is left to the authors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from featstore.report.page import facts, findings
from featstore.report.page.checklists import CLAIM, CLAIM_SOURCE, TRIPOD, TRIPOD_SOURCE
from featstore.report.page.limits import PURPOSE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from featstore.report.records.record import Record

    Answer = Callable[[Record], str]

METRICS = (
    "Discrimination: AUC, average precision, sensitivity at fixed specificity and the reverse. Answers: accuracy,"
    " balanced accuracy, sensitivity, specificity, F1. Probabilities: Brier score, calibration error, log-loss;"
    " reliability and decision curve where one class is positive, risk-coverage curve."
)


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a checklist; `known` is empty where it is to be filled in by the authors."""

    number: str
    topic: str
    known: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checklist:
    """A checklist with its source, and its items by section."""

    source: str
    sections: tuple[tuple[str, tuple[Item, ...]], ...]

    @property
    def items(self) -> tuple[Item, ...]:
        """All items, in order."""
        return tuple(item for _, items in self.sections for item in items)


def worksheet(records: Sequence[Record]) -> tuple[Checklist, ...]:
    """CLAIM and TRIPOD+AI, pre-filled from the fits and comparisons of a report; nothing without any.

    Where several runs give one answer it stands once; where they differ, each bears the name of its run.
    """
    scored = [record for record in records if record.outcome is not None]
    if not scored:
        return ()
    return (
        _fill(CLAIM_SOURCE, CLAIM, CLAIM_ANSWERS, scored),
        _fill(TRIPOD_SOURCE, TRIPOD, TRIPOD_ANSWERS, scored),
    )


def _fill(
    source: str,
    items: Mapping[str, Mapping[str, str]],
    answers: Mapping[str, Sequence[Answer]],
    records: Sequence[Record],
) -> Checklist:
    return Checklist(
        source,
        tuple(
            (
                section,
                tuple(
                    Item(number, topic, _known(answers.get(number, ()), records))
                    for number, topic in topics.items()
                ),
            )
            for section, topics in items.items()
        ),
    )


def _known(answers: Sequence[Answer], records: Sequence[Record]) -> tuple[str, ...]:
    told = []
    for answer in answers:
        said = [(record.name, answer(record)) for record in records]
        if len({sentence for _, sentence in said}) == 1:
            told.append(said[0][1])
        else:
            told += [f"{name}: {sentence}" for name, sentence in said if sentence]
    return tuple(sentence for sentence in told if sentence)


def _say(sentence: str) -> Answer:
    return lambda _: sentence


_MISSING = _say(
    "Images that could not be read are left out and listed with their reason; no value is imputed."
)
_ENSEMBLE = _say(
    "Networks are fused at feature or at decision level; which, the description of the model says."
)
_CODE = _say(
    "featstore is open source (Apache-2.0); the report's provenance has the command and every digest."
)
_LIMITS = _say(f"{PURPOSE} Tested on no data from outside the data set.")
_PREDICTORS = _say("The vectors are the only predictors; no clinical variable enters.")

CLAIM_ANSWERS: dict[str, Sequence[Answer]] = {
    "1": [_say("Transfer learning with frozen convolutional networks; their features are fused.")],
    "9": [facts.preprocessing],
    "12": [_MISSING],
    "19": [facts.partition],
    "20": [facts.disjoint],
    "22": [facts.networks, facts.strategy],
    "23": [facts.software],
    "24": [facts.weights],
    "25": [facts.views, facts.strategy],
    "26": [findings.selection],
    "27": [_ENSEMBLE],
    "28": [_say(METRICS)],
    "29": [findings.uncertainty],
    "32": [findings.internal],
    "35": [facts.data],
    "37": [findings.performance],
    "39": [findings.mistakes],
    "40": [_LIMITS],
    "43": [_CODE],
}
TRIPOD_ANSWERS: dict[str, Sequence[Answer]] = {
    "7": [facts.preprocessing],
    "9b": [facts.networks, _PREDICTORS],
    "11": [_MISSING],
    "12a": [facts.partition, facts.disjoint],
    "12c": [facts.strategy, facts.views],
    "12e": [_say(METRICS), findings.uncertainty],
    "15": [facts.operating],
    "18f": [_CODE],
    "20a": [facts.data],
    "21": [facts.partition],
    "23a": [findings.performance],
    "26": [_LIMITS],
}
