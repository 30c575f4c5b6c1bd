"""Runs side by side: paired on the images that both were tested on, where they saw the same table."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from featstore.evaluation.bootstrap import group_weights
from featstore.evaluation.comparison import Comparison
from featstore.evaluation.fuse import Fusion
from featstore.evaluation.intervals import bases, difference_interval
from featstore.evaluation.metrics import PRIMARY, decide, score
from featstore.report.page.facts import kept
from featstore.report.page.sheet import Sheet, figure, whole, words
from featstore.report.verdict import spoken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featstore.report.records.answers import Answers
    from featstore.report.records.record import Record

ENOUGH = 2
"""Groups from which resampling them says anything."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Every two runs of a report.

    Attributes
    ----------
    sheet
        The pairs that could be compared; None without any.
    sentences
        What may be said of each pair, and why the others may not be compared.
    """

    sheet: Sheet | None
    sentences: tuple[str, ...]


def pair(records: Sequence[Record]) -> Pairs | None:
    """Set fits and comparisons side by side; None where there are fewer than two."""
    scored = [record for record in records if record.outcome is not None]
    if len(scored) < 2:  # noqa: PLR2004
        return None
    rows, sentences = [], []
    for one, two in combinations(scored, 2):
        why = _apart(one, two)
        if why:
            sentences.append(why)
            continue
        y, groups, proba = _common(one, two)
        values, interval = _difference(y, groups, proba, _positive(one))
        rows.append(
            (
                words(f"{_who(one)} and {_who(two)}"),
                whole(len(y)),
                figure(values[0]),
                figure(values[1]),
                figure(_minus(values), interval, signed=True),
            )
        )
        sentences.append(_sentence(one, two, len(y), values, interval))
    heads = ("Runs", "Images in common", f"{PRIMARY.upper()} of the first", "of the second", "Difference")
    note = (
        f"Images answered unseen by both, all together (a comparison's own table has means over folds); 95 % interval"
        f" from resampled {kept(scored[0])}, for each pair alone."
    )
    sheet = Sheet("The same images, two runs", heads, tuple(rows), note) if rows else None
    return Pairs(sheet, tuple(sentences))


def _apart(one: Record, two: Record) -> str:
    """Why two runs may not be paired; empty where they may."""
    if one.data_sha256 != two.data_sha256:
        return (
            f"{one.name} and {two.name} saw different tables of images and labels: their numbers stand beside each"
            " other, but a difference between them may be the data's and not the method's."
        )
    if list(one.matrix["classes"]) != list(two.matrix["classes"]) or _positive(one) != _positive(two):
        return f"{one.name} and {two.name} are about different classes: their scores cannot be compared."
    _, groups, _ = _common(one, two)
    if len(set(groups.tolist())) < ENOUGH:
        return f"{one.name} and {two.name} were tested on no images in common: their scores cannot be paired."
    return ""


def _common(one: Record, two: Record) -> tuple[NDArray[np.intp], NDArray[np.str_], list[NDArray[np.float64]]]:
    """True classes, groups and both probabilities of the images in common, in the order of the first."""
    first, second = _answers(one), _answers(two)
    place = {image: row for row, image in enumerate(second.ids)}
    rows = np.array([row for row, image in enumerate(first.ids) if image in place], np.intp)
    others = np.array([place[first.ids[row]] for row in rows], np.intp)
    return first.y[rows], first.groups[rows], [first.proba[rows], second.proba[others]]


def _difference(
    y: NDArray[np.intp], groups: NDArray[np.str_], proba: Sequence[NDArray[np.float64]], positive: int | None
) -> tuple[tuple[float | None, float | None], tuple[float, float] | None]:
    weights = np.vstack([np.ones((1, len(y))), group_weights(groups)])
    one, two = (score(y, p, weights, positive)[PRIMARY] for p in proba)
    if not np.isfinite(one[0] + two[0]):
        return (None, None), None
    values = float(one[0]), float(two[0])
    first, second = (bases(y, p, decide(p, positive), groups, positive)[PRIMARY] for p in proba)
    return values, difference_interval(values, (one[1:], two[1:]), (first, second))


def _minus(values: tuple[float | None, float | None]) -> float | None:
    one, two = values
    return None if one is None or two is None else two - one


def _sentence(
    one: Record,
    two: Record,
    images: int,
    values: tuple[float | None, float | None],
    interval: tuple[float, float] | None,
) -> str:
    if values[0] is None or values[1] is None or interval is None:
        why = (
            "a class is missing"
            if values[0] is None
            else "a class has a single patient, so nothing can be tested"
        )
        return f"On the {images:,} images that {_who(one)} and {_who(two)} were both tested on, {why}."
    low, high = interval
    delta = values[1] - values[0]
    word = "higher" if delta >= 0 else "lower"
    by = spoken(delta, (low, high)) if delta >= 0 else spoken(-delta, (-high, -low))
    told = f"On the {images:,} images that both were tested on, {_who(two)} has an AUC {by} {word}"
    unclear = low <= 0 <= high
    if unclear:
        return f"{told} than {_who(one)}; that may be chance."
    return f"{told} than {_who(one)}; {_picked(one, two) or 'that is more than chance would explain'}."


def _picked(*records: Record) -> str:
    picked = [record.name for record in records if isinstance(record.outcome, Comparison)]
    if not picked:
        return ""
    return f"but the leader of {' and '.join(picked)} was picked on these images, so that part of it is luck"


def _who(record: Record) -> str:
    what = record.outcome.strategy if isinstance(record.outcome, Fusion) else record.shown
    return f"{record.name} ({what})"


def _answers(record: Record) -> Answers:
    return record.answers[record.shown or ""]


def _positive(record: Record) -> int | None:
    matrix = record.matrix
    return None if matrix["positive"] is None else list(matrix["classes"]).index(matrix["positive"])
