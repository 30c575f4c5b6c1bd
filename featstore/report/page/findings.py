"""What a run found and how it was tested, in sentences that its card and its worksheet share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featstore.evaluation.comparison import Comparison
from featstore.evaluation.fuse import Fusion
from featstore.evaluation.metrics import PRIMARY
from featstore.report.calibration import calibration_text
from featstore.report.records.record import leader
from featstore.report.verdict import spoken

if TYPE_CHECKING:
    from featstore.report.records.answers import Answers
    from featstore.report.records.record import Record


def performance(record: Record) -> str:
    """The primary metric with its interval, guarded where it is the best of many."""
    match record.outcome:
        case Fusion() as fusion:
            score = fusion.scores[record.shown or ""][PRIMARY]
            size = fusion.sizes[record.shown or ""]
            return f"{PRIMARY.upper()} {spoken(score.value, score.interval)} on {size:,} images that it had not seen."
        case Comparison(winner=None) as comparison:
            estimate = leader(comparison).estimates[PRIMARY]
            return f"{PRIMARY.upper()} {spoken(estimate.mean, estimate.interval)}, mean of the folds."
        case Comparison(winner=winner) if winner is not None:
            return (
                f"Best of {winner.of}: {winner.name}, {winner.metric.upper()} {winner.naive:.3f}; on other patients"
                f" expect {spoken(winner.guarded, winner.interval)}, since it was picked on these."
            )
        case _:
            return ""


def calibration(record: Record) -> str:
    """How well its probabilities are calibrated, or those of the leader."""
    match record.outcome:
        case Fusion() | Comparison() as outcome:
            return calibration_text(outcome.curves.get(record.shown or "", {}))
        case _:
            return ""


def selection(record: Record) -> str:
    """How the model was chosen among others."""
    match record.outcome:
        case Comparison() as comparison:
            return (
                f"The highest AUC of {len(comparison.standings)} contestants, out of fold. The guarded estimate picks"
                " anew in each resample (bootstrap bias-corrected cross-validation, Tsamardinos 2018)."
            )
        case Fusion():
            return "One model was fitted; this run chose among none."
        case _:
            return ""


def internal(record: Record) -> str:
    """What kind of testing the scores are."""
    whom = "patients" if record.matrix["has_groups"] else "images"
    return f"All scores are from held-out {whom} of the same data set (internal testing)."


def uncertainty(record: Record) -> str:
    """Where intervals and p values come from."""
    whom = "patients, not images" if record.matrix["has_groups"] else "images, since no patients are named"
    told = (
        f"95 % intervals from 2,000 bootstrap resamples of {whom}, and never narrower than score intervals for so"
        " many (shares: Wilson 1927; AUC: Newcombe 2006)"
    )
    if not isinstance(record.outcome, Comparison):
        return f"{told}."
    return (
        f"{told}; the bootstrap is widened for the overlap of the training sets (Nadeau & Bengio 2003). Differences"
        " are paired, their"
        " p values adjusted for all pairs (Holm)."
    )


def shortcuts(record: Record) -> str:
    """How well the class is guessed without a network, on the images that the scores are about."""
    match record.outcome:
        case Fusion() as fusion:
            found = {
                name: (scores[PRIMARY].value, scores[PRIMARY].interval)
                for name, scores in fusion.shortcuts.get(record.shown or "", {}).items()
            }
        case Comparison() as comparison:
            found = {
                s.contestant.label: (s.estimates[PRIMARY].mean, s.estimates[PRIMARY].interval)
                for s in comparison.shortcuts
            }
        case _:
            found = {}
    told = "; ".join(f"{name} {spoken(*score)}" for name, score in found.items())
    return f"Guessing without a network, on the same images: {PRIMARY.upper()} of {told}." if told else ""


def mistakes(record: Record) -> str:
    """How many answers were wrong."""
    shown = _shown(record)
    if shown is None:
        return ""
    return (
        f"{len(shown.wrong):,} of {len(shown.ids):,} images were answered wrong ({record.shown}); the report lists"
        " them, the surest mistakes first."
    )


def tested_groups(record: Record) -> int:
    """Patients among the images that the report's answers are about."""
    shown = _shown(record)
    return 0 if shown is None else len(set(shown.groups.tolist()))


def _shown(record: Record) -> Answers | None:
    return None if record.shown is None else record.answers[record.shown]
