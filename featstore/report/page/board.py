"""The cases that were answered wrong: what was said about each, and who said otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from featstore.fingerprint import SHORT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from featstore.report.records.record import Record

SHOWN = 200
"""Cases on a page, the surest mistakes first; predictions.csv has all."""


@dataclass(frozen=True, slots=True)
class Case:
    """One image that was answered wrong.

    Attributes
    ----------
    id
        First eight digits of the image id: no path, no patient.
    truth, answer
        Names of the classes.
    probability
        By class, for the answer that was given.
    votes
        By backbone the class that it alone would have answered, and whether that is right.
    thumbnail
        PNG as a data URI, or empty.
    """

    id: str
    truth: str
    answer: str
    probability: tuple[tuple[str, float], ...]
    votes: tuple[tuple[str, str, bool], ...]
    thumbnail: str

    @property
    def sure(self) -> float:
        """Probability of the class answered."""
        return dict(self.probability)[self.answer]

    @property
    def right_votes(self) -> int:
        """Backbones that alone would have been right."""
        return sum(right for _, _, right in self.votes)


@dataclass(frozen=True, slots=True)
class Board:
    """The wrong answers about one split, or of one contestant.

    Attributes
    ----------
    about
        Split or contestant.
    images, wrong
        How many were answered, and how many of them wrong.
    kinds
        Cases by (true class, class answered), the most frequent confusion first.
    """

    about: str
    images: int
    wrong: int
    kinds: tuple[tuple[str, str, tuple[Case, ...]], ...]

    @property
    def hidden(self) -> int:
        """Cases that are not on the page."""
        return self.wrong - sum(len(cases) for _, _, cases in self.kinds)

    @property
    def votes_known(self) -> bool:
        """Whether it is known what each backbone alone would have answered."""
        return any(case.votes for _, _, cases in self.kinds for case in cases)


def board(record: Record, thumbnails: Mapping[str, str]) -> Board | None:
    """Wrong answers of a fit on its test split, or of the leader of a comparison; None of an extraction.

    Parameters
    ----------
    thumbnails
        Data URI by image id, for those that have one.
    """
    if record.shown is None:
        return None
    answers, classes = record.answers[record.shown], list(record.matrix["classes"])
    kinds: dict[tuple[str, str], list[Case]] = {}
    for row in answers.wrong[:SHOWN].tolist():
        truth, answer = classes[answers.y[row]], classes[answers.answered[row]]
        case = Case(
            answers.ids[row][:SHORT],
            truth,
            answer,
            tuple(zip(classes, answers.proba[row].tolist(), strict=True)),
            tuple(
                (name, classes[votes[row]], bool(votes[row] == answers.y[row]))
                for name, votes in answers.votes.items()
            ),
            thumbnails.get(answers.ids[row], ""),
        )
        kinds.setdefault((truth, answer), []).append(case)
    ordered = sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0]))
    return Board(
        record.shown,
        len(answers.ids),
        len(answers.wrong),
        tuple((truth, answer, tuple(cases)) for (truth, answer), cases in ordered),
    )
