"""The primary question: whether one fusion, named before any score is seen, is better than every single network.

It is asked at full strength. "Better than every one" holds only if it holds against each, so each pair is tested at
the full level and nothing has to be adjusted (intersection-union test: Berger, Technometrics 24, 1982). "A single
network is better" would hold if it held of any, so there max-T adjusts for their number. "Equivalent" is tested by
two one-sided tests (Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15, 1987): the fusion is not worse
than any single network by the margin, nor better than all of them by it.

What follows is planned only where the question before it is answered with yes (gatekeeping): the fusion against the
guesses that need no network, then fusions against single networks by max-T. All other pairs are exploration.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from featstore.errors import UsageError
from featstore.evaluation.candidates import PROBE, read_subset, require_asked_so
from featstore.evaluation.metrics import PRIMARY
from featstore.evaluation.pairwise_tests import ALPHA, Differences, differences, max_t, t_quantile, tested
from featstore.results.comparison import Candidate, Conclusion, NoNumber, PlannedDifference, PrimaryQuestion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featstore.evaluation.estimates import CandidateScores, EvaluationDesign

DEFAULT = PROBE
"""The primary fusion unless another is named, over all networks."""
MARGIN = 0.01
"""Difference in the primary metric that is too small to matter."""
POWER = 0.8
GUESSING = 0.5
DOUBT = 0.001
"""Level of the one-sided test against guessing, without which no number of patients is given."""
MOST = 100
"""A study more than this many times as large is not worth a number."""

# Settled before any score


@dataclass(frozen=True, slots=True)
class Question:
    """Who is asked about.

    Attributes
    ----------
    primary
        The fusion.
    singles
        Every single network.
    margin
        Difference that is too small to matter.
    """

    primary: Candidate
    singles: tuple[Candidate, ...]
    margin: float


def settle(
    primary: str | None,
    margin: float,
    candidates: Sequence[Candidate],
    backbones: Sequence[str],
    pool: str | None = None,
) -> tuple[list[Candidate], Question | None]:
    """Settle the question, and who must be compared to answer it.

    Parameters
    ----------
    primary
        ``NAME`` or ``NAME:A+B``; None is `DEFAULT` over all networks.
    margin
        As of `Question`.
    candidates
        Those that were asked for.
    backbones
        All networks, in column order.
    pool
        How images become a patient's answer; None where images are scored.

    Returns
    -------
    All candidates, those added that the question needs; and the question, None where one network leaves none to ask.

    Raises
    ------
    UsageError
        If a primary fusion was named that fuses nothing or does not answer about what is scored, or the margin is
        none.
    """
    if not 0 < margin < GUESSING:
        raise UsageError(
            f"The margin {margin:g} is no small difference in AUC.",
            "Give one that is too small to matter, such as `featstore compare DATA --margin 0.01`",
        )
    name, _, subset = (primary or DEFAULT).partition(":")
    require_asked_so([name], pool)
    fused = read_subset(subset, backbones) if subset else tuple(backbones)
    if len(fused) < 2:  # noqa: PLR2004
        if primary is None:
            return list(candidates), None
        raise UsageError(
            f"The primary fusion {primary} fuses nothing: it has the single network {', '.join(fused)}, and leaves no"
            " question to ask.",
            "Compare two networks or more, or name no primary fusion.",
        )
    wanted = [
        *(Candidate(PROBE, (one,), one) for one in backbones),
        Candidate(name, fused, name if len(fused) == len(backbones) else f"{name}:{'+'.join(fused)}"),
    ]
    missing = [one for one in wanted if one not in candidates]
    singles = [one for one in missing if len(one.backbones) == 1]
    everyone = [*singles, *candidates, *(one for one in missing if len(one.backbones) > 1)]
    return everyone, Question(wanted[-1], tuple(wanted[:-1]), margin)


def with_policy(question: Question | None, candidates: Sequence[Candidate]) -> Question | None:
    """Return the question about candidates of the first view policy, as `with_views` has named them."""
    if question is None:
        return None
    first: dict[tuple[str, tuple[str, ...]], Candidate] = {}
    for one in candidates:
        if not one.greedy:
            first.setdefault((one.strategy, one.backbones), one)
    found = [first[one.strategy, one.backbones] for one in (question.primary, *question.singles)]
    return Question(found[0], tuple(found[1:]), question.margin)


# The answer


def answer(
    design: EvaluationDesign,
    question: Question | None,
    scored: Sequence[CandidateScores],
    shortcuts: Sequence[CandidateScores] = (),
) -> PrimaryQuestion | None:
    """Answer the primary question.

    Parameters
    ----------
    design, scored
        As of `featstore.evaluation.estimates.score_candidates`.
    question
        As of `settle`.
    shortcuts
        Guesses that need no network, scored on the same folds.
    """
    if question is None:
        return None
    by_name = {s.candidate.label: s for s in scored}
    primary = by_name[question.primary.label]
    singles = [by_name[one.label] for one in question.singles]
    found = _against(design, primary, singles)
    known = bool(np.isfinite(found.below + found.above).all())
    verdict = _conclude(found, question.margin) if known else "cannot_tell"
    # The single network that is hardest to surpass comes first.
    clear = found.delta / found.below if known else found.delta
    order = np.argsort(clear, kind="stable")
    hardest = int(order[0])
    planned = _planned(found, singles)
    baselines = _against(design, primary, shortcuts) if shortcuts else None
    patients = len(np.unique(design.groups[tested(design)]))
    unit_error = float(found.below[hardest]) / t_quantile(found.degrees) if known else None
    needed, interval = None, None
    why: NoNumber = ""
    if verdict == "cannot_tell":
        guessing = not _above_guessing(design, found, [primary, singles[hardest]], [0, hardest + 1])
        needed, interval, why = (
            (None, None, "guessing")
            if guessing and unit_error is not None
            else _patients(found, hardest, unit_error, patients, question.margin)
        )
    return PrimaryQuestion(
        primary=primary.candidate.label,
        metric=PRIMARY,
        margin=question.margin,
        verdict=verdict,
        against=singles[hardest].candidate.label,
        singles=tuple(planned[at] for at in order),
        shortcuts=() if baselines is None else tuple(_planned(baselines, shortcuts)),
        above_shortcuts=None if baselines is None else bool((baselines.delta > baselines.below).all()),
        patients=patients,
        detectable=None if unit_error is None else _quantiles(found.degrees) * unit_error,
        needed=needed,
        needed_interval=interval,
        no_number=why,
    )


def _against(
    design: EvaluationDesign, primary: CandidateScores, others: Sequence[CandidateScores]
) -> Differences:
    second = np.arange(1, len(others) + 1)
    return differences(design, [primary, *others], np.zeros_like(second), second)


def _planned(found: Differences, others: Sequence[CandidateScores]) -> list[PlannedDifference]:
    return [
        PlannedDifference(name=s.candidate.label, delta=float(delta), interval=interval, p=float(p))
        for s, delta, interval, p in zip(others, found.delta, found.intervals(), found.p, strict=True)
    ]


def _conclude(found: Differences, margin: float) -> Conclusion:
    lower = found.delta - found.below
    if (lower > 0).all():
        return "better"
    p, quantile = max_t(found)
    if ((p < ALPHA) & (found.delta < 0)).any():
        return "worse"
    # Of all single networks the best one counts: that its lead is small must hold although it was picked.
    upper = found.delta + found.above * max(1.0, quantile / t_quantile(found.degrees))
    return "equivalent" if (lower > -margin).all() and (upper < margin).any() else "cannot_tell"


def _quantiles(degrees: int) -> float:
    """Standard errors that a true difference must be worth to be told with 80 % power at 5 %."""
    from scipy.stats import t

    return t_quantile(degrees) + float(t.isf(1 - POWER, degrees))


def _above_guessing(
    design: EvaluationDesign, found: Differences, scored: Sequence[CandidateScores], rows: Sequence[int]
) -> bool:
    """Whether all of these are above one half, by the errors of patients' contributions: no seed decides.

    At the level of `DOUBT`, since a number of patients for what is nothing but luck costs somebody years.
    """
    from scipy.stats import t

    own = np.sqrt((found.contributions[list(rows)] ** 2).sum(axis=1))
    means = np.array([s.primary for s in scored])
    lower = means - float(t.isf(DOUBT, found.degrees)) * design.overlap_factor * own
    return bool((lower > GUESSING).all())


def _patients(
    found: Differences, at: int, error: float | None, patients: int, margin: float
) -> tuple[int | None, tuple[int, int] | None, NoNumber]:
    """Patients with whom a true difference of the margin would be told, their interval, and why there are none.

    The number does not depend on the difference that was seen. Its variance shrinks with the number of patients, and
    is known from the patients at hand only as well as their contributions' fourth moment lets it (a chi-squared
    distribution with as many degrees of freedom: Satterthwaite, Biometrics Bulletin 2, 1946).
    """
    from scipy.stats import chi2

    if error is None:
        return None, None, "no_interval"
    parts = found.contributions[found.first[at]] - found.contributions[found.second[at]]
    variance = float((parts**2).sum())
    spread = float((parts**4).sum()) - variance**2 / len(parts)
    degrees = float(np.clip(2 * variance**2 / spread, 1, patients)) if spread > 0 else float(found.degrees)
    middle = patients * (_quantiles(found.degrees) * error / margin) ** 2
    if not 0 < middle <= MOST * patients:
        return None, None, "too_many"
    low, high = (middle * degrees / chi2.isf(tail, degrees) for tail in (0.025, 0.975))
    return ceil(middle), (ceil(low), ceil(high)), ""
