"""Verdicts: comparisons, calibration and findings in sentences that claim no more than was seen."""

from __future__ import annotations

from collections import Counter
from math import ceil, floor, log10
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore import registry
from featstore.evaluation.candidates import STRATEGIES
from featstore.evaluation.metrics import ENOUGH_IMAGES, PRIMARY
from featstore.evaluation.primary_question import MOST
from featstore.findings import Finding, counted, ordered
from featstore.results.fusion import Explanation, Fusion
from featstore.tables import interval_text, printable
from featstore.types import GROUP

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from featstore.results.comparison import (
        CandidateResult,
        Comparison,
        Looks,
        NegativeControls,
        NestedSelection,
        PairwiseDifference,
        Planning,
        PrimaryQuestion,
        SitePrediction,
        SiteResult,
    )
    from featstore.results.scores import Score


# The answer to the primary question

CHANCE = 0.5
WIDE = 0.2
"""Width of an interval of the AUC from which on it says little: from useless to good is hardly more."""
FEWEST_NETWORKS = 2
NOT_ABOVE_SHORTCUT = "FS401"
ROUNDED = 1e-3
"""Further apart than by rounding two differences are not the same."""


def summary(result: Comparison) -> str:
    """Answer the primary question in a sentence or two; for runs from before there was one, say who is ahead."""
    return " ".join(answer_sentences(result)[:2])


def answer_sentences(result: Comparison) -> list[str]:
    """Return the answer, what it rests on, and what goes with it: each a sentence or two."""
    asked = result.primary_question
    if asked is None:
        return [_without_question(result), *planning_sentences(result)]
    return [_answer(asked), _grounds(asked, result), *planning_sentences(result), *consequences(result)]


def _answer(asked: PrimaryQuestion) -> str:
    small = (
        "" if abs(asked.decisive.delta) >= asked.margin else f", by less than the margin of {asked.margin:g}"
    )
    each = "both single networks" if len(asked.singles) == FEWEST_NETWORKS else "every single network"
    match asked.verdict:
        case "better":
            return f"Yes: {asked.primary} is better than {each}{small}."
        case "worse":
            worst = min(asked.singles, key=lambda one: one.delta)
            return f"No: {worst.name} alone is better than {asked.primary}."
        case "equivalent":
            within = f"within a margin of {asked.margin:g}"
            return f"No gain: {asked.primary} is as good as the best single network, {within}."
    return f"Cannot tell yet whether {asked.primary} is better than {each}."


def _grounds(asked: PrimaryQuestion, result: Comparison) -> str:
    auc = {s.candidate.label: s.primary for s in result.candidates}
    scores = f"{auc[asked.primary]:.3f} against {auc[asked.against]:.3f}"
    patients = f"{asked.patients:,} {unit(result)}"
    return (
        f"Hardest to surpass is {asked.against}: {asked.metric.upper()} {scores}, difference"
        f" {_signed(asked.decisive.delta, asked.decisive.interval)}, {_p(asked.decisive.p)}, {patients}."
    )


def consequences(result: Comparison) -> list[str]:
    """What goes with the answer: the guesses that need no network, and what these patients could have told."""
    asked = result.primary_question
    if asked is None:
        return []
    return [line for line in (_shortcut_text(asked), _power_text(asked, unit(result))) if line]


def planning_sentences(result: Comparison) -> list[str]:
    """Say whether it was planned or is exploratory, and name the looks at the same images; none of an old run."""
    planning = result.planning
    if planning is None:
        return []
    if planning.plan is None:
        return [f"Exploratory: no plan was sealed. {looks_text(planning.looks)}"]
    day, since = planning.created[:10], planning.looks.count - planning.before_plan
    after = f" {since} more since then." if since > 0 else ""
    if planning.before_plan:
        many = f"{planning.before_plan} look{'' if planning.before_plan == 1 else 's'}"
        return [f"Planned after {many} at these images (sealed on {day}): scores were known then.{after}"]
    return [f"Planned: sealed on {day}, before any look at these images that is known.{after}"]


def looks_text(looks: Looks) -> str:
    """How often these images were looked at before, as far as the cache knows."""
    if not looks.count:
        return (
            "First look at these images; `featstore plan DATA --out plan.json` seals a question before one."
        )
    parts = [f"{count} {name}" for name, count in (("compare", looks.compare), ("fuse", looks.fuse)) if count]
    first, last = looks.first[:10], looks.last[:10]
    when = f"on {first}" if first == last else f"from {first} to {last}"
    return f"Look {looks.count + 1} at these images: {' and '.join(parts)} before it, {when}."


def question_text(result: Comparison) -> str:
    """Which question was asked, and how; empty where there was none."""
    asked = result.primary_question
    if asked is None:
        return ""
    return (
        f"Primary question, {_settled(result.planning)}: is {asked.primary} better than every single network"
        f" ({', '.join(one.name for one in asked.singles)})? Tested against each at 5 % (intersection-union test,"
        f" margin {asked.margin:g}); all else is exploration."
    )


def _settled(planning: Planning | None) -> str:
    if planning is None or planning.plan is None:
        return "settled before any score"
    return f"planned and sealed on {planning.created[:10]}"


def _shortcut_text(asked: PrimaryQuestion) -> str:
    if asked.above_shortcuts is None or not asked.shortcuts:
        return ""
    best = max(asked.shortcuts, key=lambda one: -one.delta)
    difference = _signed(best.delta, best.interval)
    if asked.above_shortcuts:
        seen = f"the best guess without a network, {best.name} (difference {difference})"
        return "" if asked.verdict != "better" else f"It is better than {seen}, too."
    but = "But it" if asked.verdict == "better" else asked.primary
    return _not_above_shortcut(but, best.name, difference)


LARGEST_DIFFERENCE = 1.0
"""Of two AUCs."""


def _power_text(asked: PrimaryQuestion, unit: str) -> str:
    if asked.verdict != "cannot_tell":
        return ""
    if asked.detectable is None:
        return f"A class has too few {unit} for any interval: nothing can be concluded."
    least = f"{asked.detectable:.3f}"
    could = f"These {asked.patients:,} {unit} tell a true difference from about {least} on (80 % power)"
    if asked.detectable >= LARGEST_DIFFERENCE:
        could = f"These {asked.patients:,} {unit} are too few to tell any difference in AUC (80 % power)"
    margin = f"one of {asked.margin:g} would need"
    if asked.needed is not None and asked.needed_interval is not None:
        low, high = map(_two_digits, asked.needed_interval)
        return f"{could}; {margin} about {_two_digits(asked.needed):,} ({low:,} to {high:,})."
    if asked.no_number == "guessing":
        doubt = "these features are not shown beyond doubt (p < 0.001) to be better than guessing"
        return f"{could}. No number of {unit} is promised: {doubt}."
    return f"{could}; {margin} more than {MOST} times as many {unit}."


def _two_digits(count: int) -> int:
    digit = 10 ** max(0, floor(log10(max(1, count))) - 1)
    return int(digit * ceil(count / digit))


POOLED = {
    "mean-logit": "the mean of the logits",
    "mean": "the mean of the probabilities",
    "max": "the image that speaks most for it",
    "noisy-or": "noisy-or, as if images erred independently",
}
"""What a patient's answer is made of, by the way of pooling."""


def pooled_text(pool: str | None, strategies: Iterable[str] = ()) -> str:
    """How the images of a patient become one answer, under these strategies; empty where images were scored."""
    if pool is None:
        return ""
    named = list(dict.fromkeys(strategies))
    themselves = [name for name in named if _pools_itself(name)]
    own = (
        f"{' and '.join(themselves)} pool{'s' * (len(themselves) == 1)} a patient's images before answering."
    )
    if themselves and len(themselves) == len(named):
        return own
    how = POOLED.get(pool, f"the mean of the {pool.removeprefix('top-')} images that speak most for it")
    return f"A patient's answer is {how} ({pool})" + (f"; {own}" if themselves else ".")


def _pools_itself(strategy: str) -> bool:
    """Whether a strategy, if it is known here, answers for patients."""
    known = strategy in registry.names(STRATEGIES)
    return known and registry.constants(STRATEGIES, strategy).get("unit") == GROUP


def units(result: Comparison | Fusion) -> str:
    """What was scored: images or patients."""
    unit = result.unit if isinstance(result, Fusion) else result.protocol.unit
    return "patients" if unit == GROUP else "images"


def unit(result: Comparison) -> str:
    """What was kept together and is resampled."""
    return "patients" if result.matrix["has_groups"] else "images"


def _signed(delta: float, interval: tuple[float, float] | None) -> str:
    return f"{delta:+z.3f}" + (f" [{interval_text(interval, signed=True)}]" if interval else " [no interval]")


def _p(value: float) -> str:
    return f"p = {value:.3f}" if value >= 0.0005 else "p < 0.001"  # noqa: PLR2004


def _without_question(result: Comparison) -> str:
    leader, single = _leader(result), best_single(result)
    ahead = f"{leader.candidate.label} has the highest AUC ({leader.primary:.3f})"
    if single is None:
        return f"{ahead}."
    name = single.candidate.label
    if len(result.matrix["backbones"]) < FEWEST_NETWORKS:
        return (
            f"No question to ask: {name} is the only network, and nothing is fused; AUC {single.primary:.3f}."
        )
    won = fusions_that_pay(result)
    if won:
        return f"{ahead}; fusion pays: {', '.join(won)} beat the best single network, {name}."
    return f"{ahead}, but no fusion is told apart from the best single network, {name}, by these data."


# Sites and patients left out


def ranked_sites(found: SiteResult) -> int:
    """Sites at which the primary metric of the shown candidate is defined."""
    return sum(one.scores[PRIMARY].value is not None for one in found.sites)


def drop_text(found: SiteResult | None) -> str:
    """What a candidate loses at a site that it has not learned from; empty where no site was left out."""
    if found is None:
        return ""
    one, name = found.shown, found.candidate
    if one.inside is None or one.outside is None or one.drop is None:
        return "At no site left out is there an AUC, since each lacks a class: the drop is not known."
    label = one.metric.upper()
    within = "" if one.inside_by_site is None else f" ({one.inside_by_site:.3f} within each site)"
    told, what = "no interval", "too few patients to tell"
    if one.interval is not None:
        low, high = one.interval
        told = interval_text(one.interval, signed=True)
        what = "a loss" if low > 0 else "a gain" if high < 0 else "which cannot be told from none"
    return (
        f"By {found.inside_folds} folds over patients of all sites {name} has an {label} of {one.inside:.3f}{within},"
        f" at a site left out {one.outside:.3f}: a drop of {one.drop:+z.3f} [{told}], {what}."
    )


def sites_text(found: SiteResult) -> str:
    """What the table of sites does not say."""
    count, unranked = len(found.sites), len(found.sites) - ranked_sites(found)
    whom = "this site" if count == 1 else f"these {count} sites"
    parts = [f"Intervals are over patients: they speak of {whom}, not of the next one."]
    if unranked:
        parts.append(f"Without an {PRIMARY.upper()}, since a class is missing there: {unranked}.")
    if lone := sum(
        one.scores[PRIMARY].value is not None and min(filter(None, one.classes.values())) == 1
        for one in found.sites
    ):
        parts.append(f"With a single patient of a class, and of the same weight in the mean: {lone}.")
    if found.shown.outside_pooled is not None and count > 1:
        parts.append(f"All sites ranked together: {found.shown.outside_pooled:.3f}.")
    if found.never_left_out:
        never = ", ".join(found.never_left_out)
        parts.append(f"Never left out, since a class would be missing in training: {never}.")
    if found.shared_patients:
        parts.append(
            f"Patients of several sites ({found.shared_patients}) are tested at each, by models that saw none of"
            " their images."
        )
    return " ".join(parts)


A_BATCH = 10
"""Images of a site below which its own mean and deviation are those of single images."""


def harmonised_text(result: Comparison) -> str:
    """What was done about features that differ between sites; empty where nothing was."""
    if result.protocol.harmonise == "none":
        return ""
    few = [] if result.sites is None else [one.site for one in result.sites.sites if one.images < A_BATCH]
    told = ""
    if few:
        told = (
            f" Its own mean and deviation rest on fewer than {A_BATCH} images at {', '.join(few)}:"
            " believe no answer there."
        )
    return (
        "Harmonised: features by the mean and deviation of each site's own images, those of the site left out too,"
        " without their labels. It needs images of the new site first, and can make things worse: look at `featstore"
        f" compare DATA --folds site` beside it.{told}"
    )


def patients_left_out_text(result: Comparison) -> str:
    """How patients were left out one by one; empty where they were not."""
    if result.protocol.left_out != GROUP:
        return ""
    return (
        f"Each of {result.folds:,} {unit(result)} was left out once, and from training one more of every other class,"
        " so that the proportion of the classes tells nothing."
    )


# Pairs: exploration beside the primary question

SHOWN = 12
"""Pairs that are printed; all are computed."""


def pairs_text(result: Comparison) -> str:
    """Say for the pairs that matter most whether their difference is real, and how many of all are."""
    if not result.pairs:
        return "There is no pair to compare."
    return "\n".join([pairs_head(result), *(f"  {line}" for line in pair_lines(result)), pairs_told(result)])


def pairs_head(result: Comparison) -> str:
    """How the p values of pairs are adjusted, and what they are good for."""
    if result.protocol.adjustment == "holm":
        return "Pairs: paired bootstrap over patients; p is adjusted for all pairs (Holm)."
    return (
        "Pairs, for exploration: simultaneous 95 % intervals and p by step-down max-T over all pairs (fusions against"
        " single networks among themselves, if the primary question was answered with yes)."
    )


def pairs_told(result: Comparison) -> str:
    """How many pairs have a difference that is more than noise."""
    return (
        f"Of all {len(result.pairs):,} pairs, {counted(significant_pairs(result), 'differs', 'differ')} by more than"
        " noise; --json and metrics.json have every one."
    )


def pair_lines(result: Comparison) -> list[str]:
    """One sentence for each of the pairs that matter most, at most `SHOWN`."""
    return [_difference_text(pair) for pair in _that_matter(result)[:SHOWN]]


def significant_pairs(result: Comparison) -> int:
    """How many of all pairs have a difference that is more than noise."""
    return sum(pair.verdict != "cannot_tell" for pair in result.pairs)


def fusion_summary(result: Fusion, split: str, groups: int) -> str:
    """One sentence on a fit, and one on what its interval allows to be said.

    Parameters
    ----------
    split
        The evaluated split that is told.
    groups
        Patients in it.
    """
    score, matrix = result.scores[split]["auc"], result.matrix
    images = f"{result.sizes[split]} images"
    seen = f"On {images} of {groups} patients that it had not seen"
    if result.patients:
        seen = f"On {groups} patients that it had not seen ({images})"
    elif matrix.get("groups_set_aside"):
        seen = f"On {images} that it had not seen, of patients that it may have seen"
    elif not matrix["has_groups"]:
        seen = f"On {images} that it had not seen (their patients are not known)"
    if score.value is None:
        return f"{seen}, {result.strategy} has no AUC: a class is missing among them."
    if score.interval is None:
        return (
            f"{seen}, {result.strategy} reaches an AUC of {score.value:.3f}. There is no interval, and nothing can be"
            " concluded: a class has a single patient."
        )
    low, high = score.interval
    told = f"{seen}, {result.strategy} reaches an AUC of {phrase(score.value, score.interval)}."
    if low <= CHANCE <= high:
        return f"{told} The interval includes {CHANCE}: by these data it cannot be told from guessing."
    if high < CHANCE:
        return f"{told} That is worse than guessing: look for swapped labels."
    wide = high - low > WIDE
    better = "It is better than guessing" + (
        "; how good, these patients are too few to say." if wide else "."
    )
    return " ".join(filter(None, [told, better, fusion_shortcut_text(result, split)]))


def fusion_shortcut_text(result: Fusion, split: str) -> str:
    """That a fit is not shown to be better than a guess without a network (FS401), where that is so on a split."""
    value, guesses = result.scores[split][PRIMARY].value, result.shortcuts.get(split, {})
    known = {name: scores[PRIMARY].value for name, scores in guesses.items() if PRIMARY in scores}
    best = max(known, key=lambda name: known[name] or 0.0, default=None)
    if value is None or best is None:
        return ""
    away = value - (known[best] or 0.0)
    for found in result.findings:
        if found.code == NOT_ABOVE_SHORTCUT and found.value is not None and abs(found.value - away) < ROUNDED:
            return _not_above_shortcut("It", best, _signed(away, found.interval))
    return ""


def _not_above_shortcut(who: str, shortcut: str, difference: str) -> str:
    guess = f"the best guess without a network, {shortcut} (difference {difference})"
    return f"{who} is not shown to be better than {guess}: these images may be told apart without seeing the disease."


def approximation_text(explained: Sequence[Explanation]) -> str:
    """How far approximate maps are from adding up to the logit; empty where all are exact."""
    if all(one.exact for one in explained):
        return ""
    worst = max(explained, key=lambda one: abs(one.remainder))
    missed, evidence = abs(worst.remainder), abs(worst.logit - worst.constant)
    how_much = f"{missed:.2g}" if missed >= ROUNDED else f"less than {ROUNDED:g}"
    where = ", in the worst image" if len(explained) > 1 else ""
    return f"Approximate (integrated gradients): the maps miss {how_much} of an evidence of {evidence:.2g}{where}."


def above_guessing(score: Score) -> str:
    """Whether an AUC is told from guessing, for the end of a sentence."""
    if score.interval is None:
        return "nothing can be concluded, a class has a single patient"
    low, high = score.interval
    if high < CHANCE:
        return "worse than guessing; look for swapped labels"
    if low <= CHANCE:
        return "by these data it cannot be told from guessing"
    return "better than guessing" + ("; how good, these are too few to say" if high - low > WIDE else "")


def told_apart(interval: tuple[float, float] | None) -> str:
    """Whether a difference is told from none, for the end of a sentence."""
    if interval is None:
        return "too few patients to tell"
    return (
        "which cannot be told from none"
        if interval[0] <= 0 <= interval[1]
        else "more than chance on this split"
    )


def phrase(value: float | None, interval: tuple[float, float] | None) -> str:
    """A number with its 95 % interval, in words."""
    if value is None:
        return "undefined"
    return f"{value:.3f}" + (f" (95 % interval {interval_text(interval)})" if interval else "")


def fusions_that_pay(result: Comparison) -> list[str]:
    """Candidates of several networks that are told from the best single one, and better."""
    single = best_single(result)
    name = single.candidate.label if single else None
    fusions = {s.candidate.label for s in result.candidates if len(s.candidate.backbones) > 1}
    return [d.a for d in result.pairs if d.b == name and d.verdict == "a_better" and d.a in fusions]


def selection_bias_text(result: Comparison) -> str:
    """What the best is worth once the luck of being picked is taken off, and where its uncertainty comes from."""
    leader = _leader(result)
    return "\n".join(part for part in (_corrected(result), _variance_components(leader)) if part)


def _corrected(result: Comparison) -> str:
    winner = result.selection_bias
    if winner is None:
        return ""
    interval = "no interval" if winner.interval is None else interval_text(winner.interval)
    return (
        f"Best of {winner.of}: {winner.name}, {winner.metric.upper()} {winner.apparent:.3f}. It was picked on the"
        f" images it is scored on; expect {winner.corrected:.3f} [{interval}] on others"
        f" (it came first in {100 * winner.selection_frequency:.0f} % of resamples).{_nested(winner.nested)}"
    )


def _nested(nested: NestedSelection | None) -> str:
    if nested is None:
        return ""
    interval = f" [{interval_text(nested.interval)}]" if nested.interval else ""
    names = ", ".join(f"{name} in {times}" for name, times in Counter(nested.selected).most_common())
    folds = len(nested.selected)
    where = "the split" if folds == 1 else f"each of {folds} folds"
    return (
        f"\nPicked anew inside {where}, on its training images: {nested.mean:.3f}"
        f"{interval}; the pick was {names}."
    )


def _variance_components(leader: CandidateResult) -> str:
    """Write the components as deviations; those that were not looked at are left out."""
    spread = leader.variance_components
    parts = [] if spread.patients is None else [f"{spread.patients:.3f} with other patients"]
    if spread.folds is not None:
        parts.append(f"{spread.folds:.3f} with other folds of the same patients")
    if spread.training is not None:
        parts.append(f"{spread.training:.3f} with another training seed")
    if spread.folds is None and spread.training is None and parts:
        return ""  # the interval of the table says how much other patients change
    if not parts:
        return "How much the AUC moves with other patients cannot be said: a class has a single patient."
    return f"The AUC of {leader.candidate.label} moves by about {', '.join(parts)} (one standard deviation)."


def _leader(result: Comparison) -> CandidateResult:
    return max(result.candidates, key=lambda s: s.primary)


def best_single(result: Comparison) -> CandidateResult | None:
    """The single network with the highest primary metric."""
    singles = [s for s in result.candidates if len(s.candidate.backbones) == 1]
    return max(singles, key=lambda s: s.primary, default=None)


def _that_matter(result: Comparison) -> list[PairwiseDifference]:
    """Fusions against the best single network first, then the leader against the others, then the rest."""
    leader, single = _leader(result).candidate.label, best_single(result)
    name = single.candidate.label if single else leader
    fusions = {s.candidate.label for s in result.candidates if len(s.candidate.backbones) > 1}

    def rank(pair: PairwiseDifference) -> tuple[bool, bool, float]:
        return (
            not (pair.b == name and pair.a in fusions),
            leader not in {pair.a, pair.b},
            -pair.delta,
        )

    return sorted(result.pairs, key=rank)


def _difference_text(pair: PairwiseDifference) -> str:
    words = {
        "a_better": f"{pair.a} is better than {pair.b}",
        "b_better": f"{pair.b} is better than {pair.a}",
        "cannot_tell": f"cannot tell {pair.a} from {pair.b}",
    }
    seen = _signed(pair.delta, pair.simultaneous or pair.interval)
    return f"{words[pair.verdict]}: {pair.metric.upper()} difference {seen}, {_p(pair.p)}."


# How well probabilities are calibrated: for terminal, report and card

SHOWN_SLOPES = 5


def calibration_text(curves: Mapping[str, Any], classes: Sequence[str] = (), unit: str = "images") -> str:
    """ECE beside that of a perfectly calibrated model, calibration slope and intercept; empty of an older run.

    Parameters
    ----------
    curves
        Of one candidate or split, as in metrics.json.
    classes
        Names of the classes, in their order; without them slopes by class are left out.
    unit
        What was answered: images or patients.
    """
    parts = (
        _error(curves.get("calibration_error"), unit),
        _slope(curves.get("recalibration")),
        _slopes(curves.get("recalibration_by_class", ()), classes),
    )
    return " ".join(part for part in parts if part)


def sure(confidence: float | None) -> str:
    """How sure a sensitivity must be reached, behind its number; empty where nobody asked."""
    return "" if confidence is None else f", to be reached with {100 * confidence:g} % confidence"


def calibration_error(part: Mapping[str, Any]) -> float:
    """Mean over the images of the distance between what a bin was told and what it was (ECE)."""
    gap = np.abs(np.subtract(part["predicted"], part["observed"]))
    return float(np.average(gap, weights=part["images"]))


def chance_text(curves: Mapping[str, Any]) -> str:
    """ECE of a perfectly calibrated model on as many images, for a table; empty where it is not known."""
    expected = (curves.get("calibration_error") or {}).get("expected")
    return "" if expected is None else f"{expected:.3f} by chance"


def _error(part: Mapping[str, Any] | None, unit: str) -> str:
    if part is None:
        return ""
    if part["ece"] is None or part["expected"] is None:
        return f"ECE not computed: fewer than {ENOUGH_IMAGES} {unit} ({part['images']})."
    return (
        f"ECE {part['ece']:.3f}; a perfectly calibrated model would show {part['expected']:.3f} on as many {unit}, by"
        " chance alone."
    )


def _slope(part: Mapping[str, Any] | None) -> str:
    if part is None:
        return ""
    if part["why"] or part["slope"]["value"] is None or part["intercept"]["value"] is None:
        return f"Calibration slope and intercept are undefined: {part['why']}."
    return (
        f"Calibration slope {_number(part['slope'])} (1 is best; below: too sure), intercept"
        f" {_number(part['intercept'])} (0 is best)."
    )


def _slopes(parts: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> str:
    """Slope and intercept of each of several classes; of many, of those that are farthest from one."""
    known = {name: part for name, part in zip(classes, parts, strict=False) if not part["why"]}
    far = sorted(known, key=lambda name: -abs((known[name]["slope"]["value"] or 0) - 1))[:SHOWN_SLOPES]
    if not far:
        return ""
    some = f" (of {len(classes)}, the {len(far)} farthest from 1)" if len(far) < len(known) else ""
    told = [
        f"{printable(name)} {_number(part['slope'])} and {_number(part['intercept'])}"
        for name, part in known.items()
        if name in far
    ]
    undefined = [printable(name) for name in classes if name not in known]
    rest = f"; undefined: {', '.join(undefined)}" if undefined else ""
    return (
        "Calibration slope (1 is best; below: too sure) and intercept (0 is best), each class against the"
        f" others{some}: {'; '.join(told)}{rest}."
    )


def _number(part: Mapping[str, Any]) -> str:
    if part["value"] is None:
        return "undefined"
    interval = part["interval"]
    told = "no interval" if interval is None else interval_text(interval, 2)
    return f"{part['value']:.2f} [{told}]"


# Findings as lines of text: in full where files are looked for, in brief beside scores

WHERE = "docs/findings.md explains each code; featstore check DATA names the files."


def findings_text(found: Sequence[Finding]) -> str:
    """Findings, the gravest first: code, what was met, one example, what to do; accepted ones in one line."""
    known = ordered(found)
    blocks = [_block(finding) for finding in known if not finding.accepted]
    return "\n".join([*blocks, *_accepted(known)])


def findings_brief(found: Sequence[Finding]) -> str:
    """A line for each finding that bears on the scores, and one for all notes."""
    known = ordered(found)
    open_ones = [finding for finding in known if not finding.accepted]
    lines = [_line(finding) for finding in open_ones if finding.severity != "note"]
    notes = [f"{f.title} ({f.count})" if f.count else f.title for f in open_ones if f.severity == "note"]
    if notes:
        lines.append(f"Notes: {', '.join(notes)}.")
    lines += _accepted(known)
    return "\n".join([*lines, WHERE]) if lines else ""


def findings_by_code(found: Sequence[Finding]) -> str:
    """As `findings_brief`, but a single line for all findings of a code: the first, and how many there are."""
    told: dict[str, list[Finding]] = {}
    for finding in ordered(found):
        told.setdefault(f"{finding.code}{finding.accepted}", []).append(finding)
    several = {id(same[0]): len(same) for same in told.values()}
    kept = [f for f in found if id(f) in several or f.severity == "note" or f.accepted]
    lines = findings_brief(kept).split("\n")
    for same in told.values():
        if len(same) > 1 and same[0].severity != "note" and not same[0].accepted:
            at = lines.index(_line(same[0]))
            lines[at] = lines[at].replace(same[0].title, f"{same[0].title} ({len(same)} times)", 1)
    return "\n".join(lines)


def findings_codes(found: Sequence[Finding]) -> str:
    """Findings by their codes and names alone, the gravest first, and how to read them."""
    open_ones = [finding for finding in ordered(found) if not finding.accepted]
    lines = []
    for severity in ("error", "warning", "note"):
        told = list(dict.fromkeys(finding.title for finding in open_ones if finding.severity == severity))
        lines += (
            [f"{severity.capitalize()}{'' if len(told) == 1 else 's'}: {', '.join(told)}."] if told else []
        )
    lines += _accepted(found)
    return "\n".join([*lines, f"--details shows them whole; {WHERE}"]) if lines else ""


def findings_sentences(found: Sequence[Finding]) -> tuple[str, ...]:
    """Sentences for a report and a model card: errors and warnings, accepted ones too, without any path."""
    return tuple(
        f"{finding.title}: {finding.message}{' (Accepted.)' if finding.accepted else ''}"
        for finding in ordered(found)
        if finding.severity != "note"
    )


def _block(finding: Finding) -> str:
    lines = [_line(finding)]
    lines += [f"  for example {printable(example)}" for example in finding.examples[:1]]
    return "\n".join([*lines, f"  {finding.remedy}"])


def _line(finding: Finding) -> str:
    return f"{finding.severity.upper()} {finding.title}: {printable(finding.message)}"


def _accepted(found: Sequence[Finding]) -> list[str]:
    titles = [finding.title for finding in found if finding.accepted]
    return [f"Accepted: {', '.join(titles)}."] if titles else []


# When a model should not answer


def sets_text(result: Fusion, split: str) -> str:
    """Level of the prediction sets, on whom they were calibrated, and what they did; empty where there are none."""
    if result.abstention is None:
        return ""
    rule = result.abstention.rule
    classes = list(result.matrix["classes"])
    by = " and ".join(
        f"{count} {printable(name)}" for name, count in zip(classes, rule.patients, strict=False)
    )
    about = result.abstention.by_patient if result.unit == GROUP else result.abstention.by_image
    told = [
        f"{printable(name)} {found.covered:.3f} [{interval_text(found.interval)}]"
        f" (not sure {found.unsure:.2f}, neither {found.neither:.2f}; n = {found.patients})"
        for name, found in about.get(split, {}).items()
    ]
    seen = f" On {split} the sets of {units(result)} hold the class of {', '.join(told)}." if told else ""
    return (
        f"Prediction sets at {100 * (1 - rule.alpha):.0f} %, calibrated on patients that the model was not fitted on"
        f" ({by}).{seen}"
        " The level holds over new patients of a class who come as those did, and for no other hospital."
    )


def unlike_text(result: Fusion, split: str) -> str:
    """From when on an image is called unlike those of training, and how many were; empty where that is not told."""
    if result.unlike is None:
        return ""
    who = "patients" if result.unlike.has_patients else "images"
    share = result.unlike.held_out.get(split)
    seen = "" if share is None else f"; on {split} {100 * share:.1f} % of the images are"
    return (
        "An image is called unlike those of training where it is farther from them than"
        f" {100 * (1 - result.unlike.share):.0f} % of those of {result.unlike.patients} {who} left out{seen}."
    )


# What else than the disease a score could come from: negative controls, and the site

SPLIT_IN_HALF = 0.5
SIGNIFICANT = 0.05


def controls_lines(result: Comparison) -> list[str]:
    """Say whether a score could be something else than the disease, and what the features tell of the site."""
    found = result.negative_controls
    if found is None:
        return [
            "Not checked: that needs the images. Run `featstore compare DATA` again where they are at hand."
        ]
    named = max(result.candidates, key=lambda s: s.primary).label
    return [
        _explained(found, named, planned_intervals(result)),
        *([] if found.site is None else _site_lines(found.site)),
    ]


def planned_intervals(result: Comparison) -> dict[tuple[str, str], tuple[float, float] | None]:
    """Intervals of the primary fusion less each guess by its own test: what the answer says, all else says, too."""
    asked = result.primary_question
    return {} if asked is None else {(asked.primary, one.name): one.interval for one in asked.shortcuts}


def _explained(
    found: NegativeControls, named: str, planned: Mapping[tuple[str, str], tuple[float, float] | None]
) -> str:
    against = found.against(named)

    def told(name: str) -> str:
        return _signed(against[name].delta, planned.get((named, name), against[name].interval))

    if explaining := found.explaining(named):
        worst = max(explaining, key=lambda one: one.mean or 0.0)
        return (
            f"It could. The {worst.name} sees no lung and reaches AUC {worst.mean:.3f}; {named} is not clearly above"
            f" that (difference {told(worst.name)}). The score may come from a scanner,"
            " a marker or the way of cropping."
        )
    blind = [one for one in found.controls if not one.sees_lung]
    nearest = max(blind, key=lambda one: one.mean or 0.0)
    apart = f"{nearest.name}, difference {told(nearest.name)}"
    if found.verdict(named) == "apart":
        return (
            f"Not by what was tried. {named} is clearly above every control that sees no lung (the nearest: {apart})."
            " Other explanations remain, such as age, posture or the scanner's noise within the body."
        )
    return (
        f"These patients cannot tell. No control that sees no lung is better than guessing and as good as {named},"
        f" but {named} is not clearly above all of them either (the nearest: {apart})."
    )


def _site_lines(site: SitePrediction) -> list[str]:
    if site.mean is None:
        return []
    score = f"AUC {site.mean:.3f}" + ("" if site.interval is None else f" [{interval_text(site.interval)}]")
    told = site.interval is not None and site.interval[0] > SPLIT_IN_HALF
    tell = "tell" if told else "are not shown to tell"
    where = f"over folds of whole patients ({site.patients:,} patients)"
    lines = [f"The same vectors {tell} which of {site.sites} sites an image is from: {score}, {where}."]
    if site.cosine is not None and site.chance is not None and site.p is not None:
        seen = (
            f"cosine {site.cosine:+.2f}; for sites dealt to the patients at random 95 % lie within"
            f" {site.chance:.2f} of 0"
        )
        lines.append(
            f"Disease and site lie in related directions ({seen}): a model of the disease is partly one of the site."
            if site.p < SIGNIFICANT
            else f"The direction of the disease is not shown to be that of a site ({seen})."
        )
    return lines
