"""The outcome of a comparison in sentences that claim no more than was seen."""

from __future__ import annotations

from collections import Counter
from math import ceil, floor, log10
from typing import TYPE_CHECKING

from featstore.evaluation.significance import MOST

if TYPE_CHECKING:
    from featstore.evaluation.comparison import Comparison
    from featstore.evaluation.duels import Duel
    from featstore.evaluation.standing import Standing
    from featstore.evaluation.winner import Nested

SHOWN = 12
"""Pairs that are printed; all are computed."""


def verdict(result: Comparison) -> str:
    """Say for the pairs that matter most whether their difference is real, and how many of all are."""
    if not result.duels:
        return "Verdict: there was nothing to compare with."
    unit = "patients (groups)" if result.matrix["has_groups"] else "images"
    shown = _that_matter(result)[:SHOWN]
    told = sum(duel.verdict != "cannot_tell" for duel in result.duels)
    pairs = len(result.duels)
    lines = [_duel_text(duel, result.matrix["groups"], unit) for duel in shown]
    rest = f"  Of all {pairs} pairs, {told} are told apart; --json has every one."
    return "\n".join(
        [
            f"Verdict (paired bootstrap over groups, p adjusted for {pairs} pairs by Holm):",
            *lines,
            *([rest] if pairs > len(shown) else []),
        ]
    )


def summary(result: Comparison) -> str:
    """One sentence: who is ahead, and whether that means anything."""
    leader, single = _leader(result), _best_single(result)
    ahead = f"{leader.contestant.label} has the highest AUC ({leader.primary:.3f})"
    if single is None:
        return f"{ahead}."
    name = single.contestant.label
    fusions = {s.contestant.label for s in result.standings if len(s.contestant.backbones) > 1}
    won = [d.a for d in result.duels if d.b == name and d.verdict == "a_better" and d.a in fusions]
    if won:
        return f"{ahead}; fusion pays: {', '.join(won)} beat the best single network, {name}."
    return f"{ahead}, but no fusion is told apart from the best single network, {name}, by these data."


def winner_text(result: Comparison) -> str:
    """What the best is worth once the luck of being picked is taken off, and where its uncertainty comes from."""
    leader = _leader(result)
    return "\n".join(part for part in (_guarded(result), _spread(leader)) if part)


def _guarded(result: Comparison) -> str:
    winner = result.winner
    if winner is None:
        return ""
    low, high = winner.interval
    return (
        f"Best of {winner.of}: {winner.name}, {winner.metric.upper()} {winner.naive:.3f}. It was picked on the images"
        f" it is scored on; expect {winner.guarded:.3f} [{low:.3f}, {high:.3f}] on others"
        f" (it came first in {100 * winner.picked:.0f} % of resamples).{_nested(winner.nested)}"
    )


def _nested(nested: Nested | None) -> str:
    if nested is None:
        return ""
    interval = f" [{nested.interval[0]:.3f}, {nested.interval[1]:.3f}]" if nested.interval else ""
    names = ", ".join(f"{name} in {times}" for name, times in Counter(nested.picked).most_common())
    return (
        f"\nPicked anew inside each of {len(nested.picked)} folds, on its training images: {nested.mean:.3f}"
        f"{interval}; the pick was {names}."
    )


def _spread(leader: Standing) -> str:
    """Write the components as deviations; those that were not looked at are left out."""
    spread = leader.spread
    parts = [f"{spread.patients:.3f} with other patients"]
    if spread.folds is not None:
        parts.append(f"{spread.folds:.3f} with other folds of the same patients")
    if spread.training is not None:
        parts.append(f"{spread.training:.3f} with another training seed")
    return f"The AUC of {leader.contestant.label} moves by about {', '.join(parts)} (one standard deviation)."


def _leader(result: Comparison) -> Standing:
    return max(result.standings, key=lambda s: s.primary)


def _best_single(result: Comparison) -> Standing | None:
    singles = [s for s in result.standings if len(s.contestant.backbones) == 1]
    return max(singles, key=lambda s: s.primary, default=None)


def _that_matter(result: Comparison) -> list[Duel]:
    """Fusions against the best single network first, then the leader against the others, then the rest."""
    leader, single = _leader(result).contestant.label, _best_single(result)
    name = single.contestant.label if single else leader
    fusions = {s.contestant.label for s in result.standings if len(s.contestant.backbones) > 1}

    def rank(duel: Duel) -> tuple[bool, bool, float]:
        return (
            not (duel.b == name and duel.a in fusions),
            leader not in {duel.a, duel.b},
            -duel.delta,
        )

    return sorted(result.duels, key=rank)


def _duel_text(duel: Duel, groups: int, unit: str) -> str:
    interval = f" [{duel.interval[0]:+.3f}, {duel.interval[1]:+.3f}]" if duel.interval else ""
    p = f"p = {duel.p:.3f}" if duel.p >= 0.0005 else "p < 0.001"  # noqa: PLR2004
    words = {
        "a_better": f"{duel.a} beats {duel.b}",
        "b_better": f"{duel.b} beats {duel.a}",
        "cannot_tell": f"cannot tell {duel.a} from {duel.b} with {groups} {unit}; {_needed(duel)}",
    }
    return f"  {words[duel.verdict]}: {duel.metric.upper()} difference {duel.delta:+.3f}{interval}, {p}."


def _needed(duel: Duel) -> str:
    if duel.needed is None:
        return f"more than {MOST} times as many would be needed"
    digit = 10 ** max(0, floor(log10(duel.needed)) - 1)
    return f"about {digit * ceil(duel.needed / digit)} would be needed"
