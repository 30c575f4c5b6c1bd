"""Findings about the scores: shortcuts that do as well, one answer for all, few patients, a guessed positive class.

Messages name classes, splits and candidates, never a path or a patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from featstore import registry
from featstore.errors import FeatstoreError
from featstore.evaluation.candidates import PROBE, STRATEGIES
from featstore.evaluation.estimates import held_out_scores, score_candidates
from featstore.evaluation.intervals import difference_interval, group_weights, sample_sizes
from featstore.evaluation.metrics import PRIMARY, decide, primary_score
from featstore.findings import Finding, counted, ordered, quoted
from featstore.image_facts import FactTable, file_columns, notes_found
from featstore.images.manifest import no_groups
from featstore.processes import collector_paused
from featstore.results.comparison import Candidate
from featstore.tables import interval_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.estimates import CandidateScores, EvaluationDesign
    from featstore.evaluation.metrics import Positive
    from featstore.evaluation.patients import Patients
    from featstore.matrix import FeatureMatrix
    from featstore.results.comparison import Comparison, PrimaryQuestion
    from featstore.results.scores import Score
    from featstore.splits import LabelledImages, Split

    Vector = NDArray[np.float64]

# The use of a result: pure functions of labels and answers

MISSED = 0.05
"""Share of a class found, from which down the class is as good as never answered."""
FEW = 10
"""Patients of a class: with all of ten answered right, the interval still begins at 0.72."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredImages:
    """Images that were answered.

    Attributes
    ----------
    name
        What a message calls them: a split, or a candidate.
    y, answers
        ``(n,)`` true class index, and the one answered.
    groups
        ``(n,)`` patient of each image.
    noun
        What each row is: images, or patients.
    """

    name: str
    y: NDArray[np.intp]
    answers: NDArray[np.intp]
    groups: NDArray[np.str_]
    noun: str = "images"


def fusion_findings(
    classes: Sequence[str],
    tested: Sequence[ScoredImages],
    positive: Positive,
    *,
    has_groups: bool = True,
    at_edge: tuple[str, float, float] | None = None,
) -> tuple[Finding, ...]:
    """Findings of a fit.

    Parameters
    ----------
    classes
        Names, in the order of the class indices.
    tested
        Each evaluated split.
    positive
        The positive class and who chose it.
    has_groups
        Whether groups are patients; otherwise each image counts for one.
    at_edge
        As from `featstore.fusion.strategy.FusionStrategy.at_edge`.
    """
    found = [
        *(_one_answer(f"On the split {part.name!r} the model", classes, part) for part in tested),
        *(_few_patients(classes, part.y, part.groups, part.name, has_groups=has_groups) for part in tested),
        guessed_positive_class(classes, positive),
        _chosen_at_edge(at_edge),
    ]
    return ordered(finding for finding in found if finding is not None)


def comparison_findings(
    classes: Sequence[str],
    tested: Sequence[ScoredImages],
    leader: str,
    positive: Positive,
    *,
    has_groups: bool = True,
) -> tuple[Finding, ...]:
    """Findings of a comparison.

    Parameters
    ----------
    classes, positive, has_groups
        As for `fusion_findings`.
    tested
        Answers of each candidate about the same images, every image once.
    leader
        Name of the candidate with the highest primary metric.
    """
    found = [
        _one_sided(classes, tested, leader),
        *(_few_patients(classes, part.y, part.groups, "", has_groups=has_groups) for part in tested[:1]),
        guessed_positive_class(classes, positive),
    ]
    return ordered(finding for finding in found if finding is not None)


def findings_of(
    result: Comparison, design: EvaluationDesign, positive: Positive, *, has_groups: bool = True
) -> tuple[Finding, ...]:
    """`comparison_findings` of the answers that a comparison holds, and `dearer_finding` of its pairs."""
    folds = design.first_repeat
    rows = np.concatenate([design.splits[at][1] for at in folds])
    tested = [
        ScoredImages(
            s.candidate.label,
            design.y[rows],
            np.concatenate([s.decisions[at] for at in folds]),
            design.groups[rows],
            "patients" if result.protocol.unit == "group" else "images",
        )
        for s in result.candidates
    ]
    leader = max(result.candidates, key=lambda s: s.primary).candidate.label
    found = comparison_findings(
        list(result.matrix["classes"]), tested, leader, positive, has_groups=has_groups
    )
    dearer = dearer_finding(result)
    return found if dearer is None else ordered((*found, dearer))


DEARER = 2.0
"""Prices from which on a strategy costs notably more: the declared ones are good for one digit."""


def dearer_finding(result: Comparison) -> Finding | None:
    """FS430 where strategies cost much more than the linear probe on the same networks, and are not better.

    The price is the declared one (`featstore.fusion.strategy.FusionStrategy`), not that of this run: seconds differ
    from run to run, and a run that is replayed must say the same. Better is what the verdict of the pair says.
    """
    probes = {
        (one.backbones, one.selected_backbones, one.views, one.test_views): one.label
        for one in result.candidates
        if one.strategy == PROBE
    }
    verdicts = {(pair.a, pair.b): pair.verdict == "a_better" for pair in result.pairs}
    verdicts |= {(pair.b, pair.a): pair.verdict == "b_better" for pair in result.pairs}
    better: dict[str, list[bool]] = {}
    for one in result.candidates:
        probe = probes.get((one.backbones, one.selected_backbones, one.views, one.test_views))
        if probe is not None and (one.label, probe) in verdicts:
            better.setdefault(one.strategy, []).append(verdicts[one.label, probe])
    unit = _price(PROBE) or 1.0
    prices = {name: (_price(name) or 0.0) / unit for name, won in better.items() if not any(won)}
    dearer = sorted(
        (name for name in prices if prices[name] >= DEARER), key=lambda name: (-prices[name], name)
    )
    if not dearer:
        return None
    told = ", ".join(f"{name} ({prices[name]:.1f} times)" for name in dearer)
    rest = sorted({one.strategy for one in result.candidates}.difference(dearer))
    one_of = "costs more than twice" if len(dearer) == 1 else "cost more than twice"
    return Finding(
        "FS430",
        f"Not better than {PROBE} on the same networks, and {one_of} its computing time: {told}.",
        len(dearer),
        remedy=f"Nothing needs to be done; to leave them out: featstore compare DATA --strategies {','.join(rest)}",
    )


def _price(strategy: str) -> float | None:
    """Declared price of a strategy; None where it is from elsewhere and says nothing, or is not here any more."""
    try:
        found = registry.constants(STRATEGIES, strategy).get("price")
    except FeatstoreError:
        return None
    return float(found) if isinstance(found, int | float) else None


def _chosen_at_edge(at_edge: tuple[str, float, float] | None) -> Finding | None:
    """FS413 where a parameter was chosen at an end of its grid."""
    if at_edge is None:
        return None
    name, value, beyond = at_edge
    return Finding(
        "FS413",
        f"{name}={value:g} is at the end of what was tried: the best may lie beyond.",
        remedy=f"Try the next one, and keep the better: --set {name}={beyond:g}",
    )


def guessed_positive_class(classes: Sequence[str], positive: Positive) -> Finding | None:
    """FS406 where featstore chose the positive class."""
    if not positive.guessed or positive.index is None:
        return None
    name, other = classes[positive.index], classes[1 - positive.index]
    why = (
        f"because {other!r} names the absence of it"
        if positive.origin == "names"
        else "a mere guess: neither name says which class is the disease, so the last in sorted order was taken"
    )
    return Finding(
        "FS406",
        f"The positive class is {name!r}, {why}. Sensitivity, specificity, F1 and average precision depend on it.",
        remedy=f"If that is wrong: --positive {_shell(other)}; if it is right: --positive {_shell(name)}",
    )


def _shell(name: str) -> str:
    """A name as a shell takes it."""
    from shlex import quote

    return quote(name)


def missed_classes(classes: Sequence[str], part: ScoredImages) -> list[str]:
    """Say of each class that is as good as never answered how many of its images were found."""
    missed = []
    for at, name in enumerate(classes):
        mine = part.y == at
        right = int((mine & (part.answers == at)).sum())
        if mine.any() and right <= MISSED * mine.sum():
            missed.append(f"{right} of {int(mine.sum())} {part.noun} of {name!r} are found")
    return missed


def _one_answer(whose: str, classes: Sequence[str], part: ScoredImages) -> Finding | None:
    missed = missed_classes(classes, part)
    if not missed:
        return None
    given, counts = np.unique(part.answers, return_counts=True)
    most = int(counts.argmax())
    return Finding(
        "FS402",
        f"{whose} answers {classes[given[most]]!r} for {int(counts[most])} of {len(part.y)} {part.noun}:"
        f" {', '.join(missed)}.",
        count=int(counts[most]),
    )


def _one_sided(classes: Sequence[str], tested: Sequence[ScoredImages], leader: str) -> Finding | None:
    """One finding for all candidates, the leader's case spelt out."""
    flagged = [part for part in tested if missed_classes(classes, part)]
    if not flagged:
        return None
    names = quoted([part.name for part in flagged if part.name != leader])
    first = next((part for part in flagged if part.name == leader), None)
    if first is None:
        one = flagged[0].noun.removesuffix("s")
        message = (
            f"{len(flagged)} of {len(tested)} candidates give (nearly) every {one} one answer: {names}; the one"
            " with the highest AUC does not."
        )
        return Finding("FS402", message, count=len(flagged))
    finding = _one_answer(f"{leader}, which has the highest AUC,", classes, first)
    if finding is None:
        return None
    also = f" So do {len(flagged) - 1} of the {len(tested) - 1} others: {names}." if names else ""
    return Finding("FS402", finding.message + also, count=len(flagged))


def _few_patients(
    classes: Sequence[str],
    y: NDArray[np.intp],
    groups: NDArray[np.str_],
    split: str,
    *,
    has_groups: bool,
) -> Finding | None:
    """FS403 where a class has so few patients that intervals are wide, or one, which allows none."""
    counts = {name: len(np.unique(groups[y == at])) for at, name in enumerate(classes)}
    few = {name: count for name, count in counts.items() if count < FEW}
    if not few:
        return None
    told = ", ".join(
        f"{_units(count, has_groups=has_groups)} of class {name!r}" for name, count in few.items()
    )
    where = f"On the split {split!r}" if split else "In all"
    least = min(few.values())
    # The class with one patient is said in the words of a table: "no interval: 1 patient of class X".
    alone = [name for name, count in few.items() if count == 1]
    consequence = (
        "intervals say next to nothing"
        if least > 1
        else f"no interval: {_units(least, has_groups=has_groups)} of class {alone[0]!r}"
        if alone
        else "what needs that class has no value"
    )
    return Finding(
        "FS403",
        f"{where}, {told} {'was' if list(few.values()) == [1] else 'were'} scored: {consequence}.",
        count=least,
    )


def _units(count: int, *, has_groups: bool) -> str:
    unit = "patient" if has_groups else "image"
    return f"{count} {unit}{'' if count == 1 else 's'}"


# Shortcuts: how well the class is guessed without any network, from the file or from its grey levels alone.
#
# A score of a network means nothing unless it is clearly above these (Roberts et al., Common pitfalls and
# recommendations for using machine learning to detect and prognosticate for COVID-19, Nature Machine Intelligence 3,
# 2021; Geirhos et al., Shortcut learning in deep neural networks, Nature Machine Intelligence 2, 2020).

FILE = "file alone"
"""Bytes, width, height, channels, format and colour mode of the file: `featstore.image_facts.file_columns`."""
HISTOGRAM = "grey histogram alone"
MAJORITY = "most frequent class"
SHORTCUTS = (FILE, HISTOGRAM, MAJORITY)
TREES, LEAF = 100, 3
LEARNED = 20_000
"""Images that a guess is learned from at most: more would only cost time and memory."""
REMEMBERED = 256
"""Guesses that a process keeps: whoever compares the same images again need not wait for the same trees."""
_GUESSED: dict[bytes, Vector] = {}
GUESS, NOTABLE = 0.5, 0.6
"""AUC of guessing, and from which on a shortcut is worth a finding if its interval is above guessing."""


def shortcut_probabilities(
    facts: NDArray[np.void], y: NDArray[np.intp], splits: Sequence[Split]
) -> dict[str, list[Vector]]:
    """Answers of the guesses that need no network, on the folds that the networks are scored on.

    Parameters
    ----------
    facts
        ``(n,)`` of dtype `featstore.image_facts.FACT`.
    y
        ``(n,)`` class index.
    splits
        Pairs (training images, test images) of row numbers.

    Returns
    -------
    For each of `SHORTCUTS` and each split, probabilities ``(test images, classes)``.
    """
    classes = int(y.max()) + 1
    columns = {FILE: file_columns(facts), HISTOGRAM: facts["histogram"].astype(np.float64)}
    answers = {name: [_guess(x, y, split, classes) for split in splits] for name, x in columns.items()}
    shares = [np.bincount(y[train], minlength=classes) / len(train) for train, _ in splits]
    answers[MAJORITY] = [
        np.tile(share, (len(test), 1)) for share, (_, test) in zip(shares, splits, strict=True)
    ]
    return answers


def shortcut_findings(
    scores: Mapping[str, tuple[float | None, tuple[float, float] | None]],
    split: str | None = None,
) -> tuple[Finding, ...]:
    """Say which shortcuts guess the class better than chance.

    Parameters
    ----------
    scores
        AUC and its 95 % interval by name of the shortcut.
    split
        Where they were held out; None over folds.
    """
    the = "The" if split is None else f"On {split} the"
    found = []
    for name in (FILE, HISTOGRAM):
        value, interval = scores.get(name, (None, None))
        if value is not None and value >= NOTABLE and interval is not None and interval[0] > GUESS:
            low, high = interval
            message = (
                f"{the} class is guessed from the {name.replace(' alone', '')} alone, without a network:"
                f" AUC {value:.3f} [{interval_text((low, high))}]."
            )
            found.append(Finding("FS101", message, value=round(value, 4), interval=interval))
    return tuple(found)


def not_above(
    best: str,
    value: float,
    shortcut: str,
    baseline: float,
    interval: tuple[float, float] | None,
    split: str | None = None,
) -> tuple[Finding, ...]:
    """Say so if the best score is not above that of a shortcut.

    Parameters
    ----------
    best, value
        Who has the best score, and the score.
    shortcut, baseline
        The best shortcut and its score.
    interval
        95 % of the difference ``value - baseline`` on the same resamples; None where there is none.
    split
        Where one model was held out; None where the best of several was scored over folds.
    """
    if interval is not None and interval[0] > 0:
        return ()
    who = (
        f"The best score, AUC {value:.3f} of {best},"
        if split is None
        else f"On {split} the AUC of {best}, {value:.3f},"
    )
    verb = "is not above" if value <= baseline else "is not shown to be above"
    difference = "" if interval is None else f" (difference [{interval_text(interval, signed=True)}])"
    message = f"{who} {verb} that of the {shortcut}, {baseline:.3f}{difference}."
    return (Finding("FS401", message, value=round(value - baseline, 4), interval=interval),)


def _guess(x: Vector, y: NDArray[np.intp], split: Split, classes: int) -> Vector:
    """Extremely randomised trees, which need no scaling and see thresholds and bands (Geurts et al. 2006).

    Regression on the indicators of the classes: their variance is half of Gini's impurity, so that it splits as
    classification does. The numbers are those of scikit-learn's ``ExtraTreesRegressor(TREES, min_samples_leaf=LEAF,
    max_features="sqrt", random_state=0)``, whose bookkeeping takes twice as long as its trees where images are few.
    """
    train, test = split
    if len(train) > LEARNED:
        train = np.sort(np.random.default_rng(0).choice(train, LEARNED, replace=False))
    given = x[train].astype(np.float32), x[test].astype(np.float32), np.eye(classes)[y[train]]
    key = blake2b(repr([array.shape for array in given]).encode())
    for array in given:
        key.update(np.ascontiguousarray(array).data)
    if (known := key.digest()) not in _GUESSED:
        if len(_GUESSED) >= REMEMBERED:
            _GUESSED.clear()
        _GUESSED[known] = _grow(*given)
    return _GUESSED[known].copy()


def _grow(seen: NDArray[np.float32], new: NDArray[np.float32], indicators: Vector) -> Vector:
    with collector_paused():
        from sklearn import config_context
        from sklearn.tree import ExtraTreeRegressor

    seeds, proba = np.random.RandomState(0), np.zeros((len(new), indicators.shape[1]))
    with config_context(skip_parameter_validation=True, assume_finite=True):
        for _ in range(TREES):
            seed = seeds.randint(np.iinfo(np.int32).max)
            tree = ExtraTreeRegressor(min_samples_leaf=LEAF, max_features="sqrt", random_state=seed)
            proba += tree.fit(seen, indicators, check_input=False).predict(new, check_input=False)
    return proba / TREES


# Findings of the data set about the scores on it, repeated by every command that scores on it


def data_findings(matrix: FeatureMatrix, facts: FactTable, *, draws_folds: bool) -> tuple[Finding, ...]:
    """Findings of the data set behind a matrix.

    Parameters
    ----------
    matrix
        The features.
    facts
        Facts of its images.
    draws_folds
        Whether splits are drawn although the data set may bring its own.
    """
    found = [*matrix.findings, *notes_found(facts)]
    if not matrix.has_groups and not matrix.groups_set_aside:
        found.append(no_groups(matrix.records))
    if matrix.excluded and not any(finding.code == "FS301" for finding in found):
        message = f"{counted(matrix.excluded, 'file')} of the data set took no part: in quarantine."
        found.append(Finding("FS301", message, matrix.excluded))
    named = sum(record.split is not None for record in matrix.records)
    if draws_folds and named:
        message = f"The data set's own split ({named} images) is not used: folds are drawn over all images."
        found.append(Finding("FS114", message, named))
    return tuple(found)


def cross_validated_shortcuts(
    design: EvaluationDesign,
    facts: FactTable,
    weights: Vector,
    patients: Patients | None = None,
    learned: Sequence[Split] | None = None,
) -> tuple[CandidateScores, ...]:
    """Scores of the guesses that need no network, on the folds of a comparison; none if an image is not known.

    Where `patients` are scored, `design` is of their images and `weights` of them. Where all images are one test set
    (every patient is left out), guesses are `learned` by other folds, which test each image once.
    """
    if len(facts.records) < len(design.y):
        return ()
    answers = shortcut_probabilities(facts.rows, design.y, learned or design.splits)
    guesses = [Candidate("shortcut", (), name) for name in answers]
    proba = list(answers.values())
    if learned is not None:
        order = np.argsort(np.concatenate([test for _, test in learned]), kind="stable")
        proba = [[np.concatenate(_at_one_prior(values, design.y, learned))[order]] for values in proba]
    if patients is not None:
        proba = [patients.pooled_folds(values, design.splits) for values in proba]
        design = patients.design(design)
    return tuple(score_candidates(design, guesses, proba, weights))


EQUAL = 12
"""Digits of a guess: what differs by rounding is the same, and is not ranked."""


def _at_one_prior(proba: Sequence[Vector], y: NDArray[np.intp], learned: Sequence[Split]) -> list[Vector]:
    """Probabilities of each fold as if all folds had learned from classes of the same share.

    Where an image of a class is left out, that class is a little rarer among the others, and a guess that knows
    nothing would answer the less likely the truer it is. Weighing by the shares takes that out (Saerens, Latinne &
    Decaestecker, Neural Computation 14, 2002).
    """
    shares = np.bincount(y) / len(y)
    found = []
    for values, (train, _) in zip(proba, learned, strict=True):
        own = np.bincount(y[train], minlength=len(shares)) / len(train)
        weighed = values * np.divide(shares, own, out=np.ones_like(own), where=own > 0)
        found.append((weighed / weighed.sum(axis=1, keepdims=True)).round(EQUAL))
    return found


def held_out_shortcuts(
    matrix: FeatureMatrix,
    facts: FactTable,
    train: NDArray[np.intp],
    tested: Mapping[str, NDArray[np.intp]],
    positive: int | None,
    patients: Patients | None = None,
) -> tuple[dict[str, dict[str, dict[str, Score]]], dict[str, dict[str, Vector]]]:
    """Scores and answers of the guesses that need no network, by evaluated split and shortcut.

    They are about the images of `matrix`, or about `patients`.
    """
    if len(facts.records) < len(matrix.records):
        return {}, {}
    answers = {
        split: {
            name: proba[0]
            for name, proba in shortcut_probabilities(facts.rows, matrix.y, [(train, rows)]).items()
        }
        for split, rows in tested.items()
    }
    units: LabelledImages = matrix
    rows_of = dict(tested)
    if patients is not None:
        units = patients
        rows_of = {split: patients.rows(rows) for split, rows in tested.items()}
        answers = {
            split: {name: patients.pooled(proba, tested[split]) for name, proba in found.items()}
            for split, found in answers.items()
        }
    scores = {
        split: {
            name: held_out_scores(units, rows_of[split], proba, positive) for name, proba in found.items()
        }
        for split, found in answers.items()
    }
    return scores, answers


def shortcut_verdict(
    ranked: Sequence[CandidateScores],
    shortcuts: Sequence[CandidateScores],
    answered: PrimaryQuestion | None = None,
) -> tuple[Finding, ...]:
    """FS101 for shortcuts that work, and FS401 where the best candidate is not above the best of them.

    None where there are no shortcuts: the facts of an image are not known, as of a file that is gone. Where the best
    candidate is the fusion that a primary question is `answered` about, the interval is the one of that answer.
    """
    if not shortcuts:
        return ()
    estimates = {s.candidate.label: s.estimates[PRIMARY] for s in shortcuts}
    found = shortcut_findings({name: (e.mean, e.interval) for name, e in estimates.items()})
    best, guess = (max(some, key=lambda s: s.primary) for some in (ranked, shortcuts))
    if not found and best.primary > guess.primary:
        return ()
    of_question = (
        {one.name: one.interval for one in answered.shortcuts}
        if answered is not None and answered.primary == best.candidate.label
        else {}
    )
    interval = of_question.get(guess.candidate.label) or difference_interval(
        (guess.primary, best.primary),
        (guess.resampled, best.resampled),
        (guess.sample_size, best.sample_size),
    )
    return (
        *found,
        *not_above(best.candidate.label, best.primary, guess.candidate.label, guess.primary, interval),
    )


def held_out_verdict(
    matrix: LabelledImages,
    rows: NDArray[np.intp],
    name: str,
    proba: Vector,
    shortcuts: Mapping[str, Vector],
    scores: Mapping[str, Mapping[str, Score]],
    positive: int | None,
    split: str,
) -> tuple[Finding, ...]:
    """As `shortcut_verdict`, of one model on the held-out images of a split."""
    found = shortcut_findings({n: (s[PRIMARY].value, s[PRIMARY].interval) for n, s in scores.items()}, split)
    if not shortcuts:
        return ()
    guess = max(shortcuts, key=lambda n: scores[n][PRIMARY].value or 0.0)
    weights = np.vstack([np.ones((1, len(rows))), group_weights(matrix.groups[rows])])
    y, groups, both = matrix.y[rows], matrix.groups[rows], (proba, shortcuts[guess])
    mine, theirs = (primary_score(y, p, weights, positive) for p in both)
    if not np.isfinite(mine[0] - theirs[0]):
        return found
    if not found and mine[0] > theirs[0]:
        return ()
    own, other = (sample_sizes(y, p, decide(p, positive), groups, positive)[PRIMARY] for p in both)
    values = float(theirs[0]), float(mine[0])
    interval = difference_interval(values, (theirs[1:], mine[1:]), (other, own))
    return (*found, *not_above(name, float(mine[0]), guess, float(theirs[0]), interval, split))
