"""The outcome of a comparison in a sentence that claims no more than was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featstore.evaluation.compare import Comparison
    from featstore.evaluation.tournament import Duel


def verdict(result: Comparison) -> str:
    """Say which contestant leads, and for each duel whether the difference is real."""
    if not result.duels:
        return "Verdict: there was nothing to compare with."
    units = f"{result.matrix['groups']} {'groups' if result.matrix['has_groups'] else 'images'}"
    lines = [_duel_text(duel, units) for duel in result.duels]
    return "\n".join(["Verdict (paired bootstrap over groups, p values adjusted by Holm):", *lines])


def summary(result: Comparison) -> str:
    """One sentence: who is ahead, and whether that means anything."""
    leader = max(result.standings, key=lambda s: s.estimates["auc"].mean)
    ahead = f"{leader.contestant.label} has the highest AUC ({leader.estimates['auc'].mean:.3f})"
    won = [duel for duel in result.duels if duel.verdict == "a_better"]
    if won:
        return (
            f"{ahead}; fusion pays: {', '.join(d.a for d in won)} beat the best single network, {won[0].b}."
        )
    reference = result.duels[0].b if result.duels else leader.contestant.label
    return f"{ahead}, but no fusion is told apart from the best single network, {reference}, by these data."


def _duel_text(duel: Duel, units: str) -> str:
    interval = f" [{duel.interval[0]:+.3f}, {duel.interval[1]:+.3f}]" if duel.interval else ""
    numbers = f"{duel.metric.upper()} difference {duel.delta:+.3f}{interval}, p = {duel.p:.3f}"
    words = {
        "a_better": f"{duel.a} beats {duel.b}",
        "b_better": f"{duel.b} beats {duel.a}",
        "cannot_tell": f"cannot tell {duel.a} from {duel.b} with {units}",
    }
    return f"  {words[duel.verdict]}: {numbers}."
