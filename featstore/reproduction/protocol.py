"""The fits of both protocols, by the public functions and into run folders of their own.

Beside them: which networks take part, who is trained on and tested on, and why the numbers differ.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore import runs
from featstore.api.compare import compare
from featstore.api.extract import extract
from featstore.api.fuse import fuse
from featstore.backbones import catalog
from featstore.backbones.weights import IMAGENET, can_fetch, choice_for, missing_weights, unreachable_error
from featstore.errors import AuditError, WeightsError
from featstore.extraction.networks import Networks
from featstore.reporting.run_record import read_predictions
from featstore.results.paper import Claim, Leak, PaperNetwork
from featstore.results.scores import Score
from featstore.splits import most_parts, validation_mask

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.images.manifest import Manifest
    from featstore.results.comparison import CandidateResult, Comparison
    from featstore.results.extraction import Extraction
    from featstore.results.fusion import Fusion
    from featstore.types import ImageRecord


# Fits

HEAD, VOTE = "concat_head", "vote_backbones"
HONEST = "concat_logreg"
"""The fusion that the honest number is about: featstore's default, settled before any score was seen."""
FOLDS = 5
STEPS = {
    "by_image/extract": "features by the paper's preprocessing, augmented views for training",
    "by_image/heads": "a head for each network, split by image",
    "by_image/head": "the fusion head of the paper, split by image",
    "by_image/tuned": "the same, fine-tuned",
    "by_image/vote": "majority vote over the networks, split by image",
    "by_patient/head": "the fusion head of the paper, patients kept together",
    "by_patient/tuned": "the same, fine-tuned",
    "by_patient/vote": "majority vote over the networks, patients kept together",
    "by_patient/extract": "features by each network's own preprocessing",
    "by_patient/compare": "the honest protocol: cross-validation over whole patients",
}


@dataclass(frozen=True, slots=True)
class PaperSettings:
    """Settings that all fits share.

    Attributes
    ----------
    backbones
        Networks that take part.
    epochs
        Of each head.
    positive
        Class that sensitivity is about.
    views
        ``recipe`` and ``seeds`` of the augmented views to train on.
    source
        Weights, precision, value range and cache, as for `featstore.extract`.
    memory
        Budget of an extraction, bytes.
    jobs
        Processes of the comparison.
    progress
        Show bars on stderr.
    """

    backbones: Sequence[str]
    epochs: int
    positive: str | None
    views: Mapping[str, Any]
    source: Mapping[str, Any]
    memory: int | None
    jobs: int
    progress: bool

    @property
    def paper_source(self) -> dict[str, Any]:
        """Features as the paper has them: pixels divided by 255 for every network, and augmented views beside."""
        return {"preprocess": "rescale", **self.views, **self.source}

    @property
    def own_source(self) -> dict[str, Any]:
        """Features as each network was trained to have them, of the plain images."""
        return {"preprocess": "official", "seeds": (), **self.source}


@dataclass(frozen=True, slots=True, eq=False)
class Fits:
    """The paper's models on one split.

    Attributes
    ----------
    heads
        By network, a head of its own; empty where none was asked for.
    head, tuned
        The fusion head, and the same after fine-tuning.
    vote
        Majority vote over the networks; None where there is one only.
    """

    heads: Mapping[str, Fusion]
    head: Fusion
    tuned: Fusion
    vote: Fusion | None

    @property
    def fusions(self) -> dict[str, Fusion]:
        """What fuses, by step."""
        steps = {"head": self.head, "tuned": self.tuned}
        return steps if self.vote is None else steps | {"vote": self.vote}


def compute_features(
    manifest: Manifest, settings: PaperSettings, features: Mapping[str, Any], out: Path
) -> Extraction:
    """Compute what is missing; where nothing is, the account of the extraction that did it stays."""
    wanted: dict[str, Any] = {
        "backbones": settings.backbones, "memory": settings.memory, "as_default": False, **features,
    }  # fmt: skip
    planned = extract(manifest, dry_run=True, **wanted)
    if not planned.missing and (out / runs.RUN).exists():
        return planned
    return extract(manifest, out=out, overwrite=True, progress=settings.progress, **wanted)


def fit_paper(split: Manifest, settings: PaperSettings, out: Path, *, singles: bool) -> Fits:
    """Train as the paper does: on augmented views of the training images, validated and tested on plain ones.

    Parameters
    ----------
    split
        With the sides ``train``, ``val`` and ``test``.
    settings
        What all fits share.
    out
        Folder for the runs.
    singles
        Whether each network gets a head of its own, too.
    """
    shared: dict[str, Any] = {"positive": settings.positive, "overwrite": True, **settings.paper_source}
    paper: dict[str, Any] = {
        "strategy": HEAD,
        "preset": "paper",
        "options": {"epochs": settings.epochs},
        **shared,
    }
    everyone: dict[str, Any] = {"backbones": settings.backbones}
    heads = {
        name: fuse(split, out=out / "heads" / name, backbones=[name], **paper)
        for name in (settings.backbones if singles else ())
    }
    head = fuse(split, out=out / "head", **everyone, **paper)
    tuned = fuse(split, strategy=HEAD, init_from=out / "head", out=out / "tuned", **everyone, **shared)
    vote = fuse(split, strategy=VOTE, out=out / "vote", **everyone, **shared) if _several(settings) else None
    return Fits(heads, head, tuned, vote)


def compare_on_folds(manifest: Manifest, settings: PaperSettings, out: Path) -> Comparison:
    """Compare fusions and single networks on folds over whole patients, with each network's own preprocessing."""
    return compare(
        manifest,
        strategies=[HONEST, HEAD, VOTE],
        subsets="singles",
        folds=max(2, _possible_folds(manifest)),
        positive=settings.positive,
        jobs=settings.jobs,
        progress=settings.progress,
        backbones=settings.backbones,
        out=out,
        overwrite=True,
        **settings.own_source,
    )


def _possible_folds(manifest: Manifest) -> int:
    """As many as the protocol has, or as can have every class each: `paper` has no option for their number."""
    labels = np.unique([record.label for record in manifest.records], return_inverse=True)[1]
    return most_parts(labels, np.array([record.group for record in manifest.records]), FOLDS)


def _several(settings: PaperSettings) -> bool:
    return len(settings.backbones) > 1


# Networks: those of the paper and any others asked for, as far as there are weights

log = logging.getLogger(__name__)
ABSENT = "Its ImageNet weights are not on this machine, and could not be fetched."

SEVEN = ("InceptionV3", "DenseNet201", "ResNet50", "Xception", "VGG19", "NASNetLarge", "InceptionResNetV2")
"""The paper's networks, in the order of its section 3.3; it does not say which DenseNet."""
BY_FIGURE = (
    "DenseNet201",
    "InceptionV3",
    "InceptionResNetV2",
    "NASNetLarge",
    "ResNet50",
    "VGG19",
    "Xception",
)
"""The same in the order of its figures 8 to 21, two for each."""


def find_networks(
    names: Sequence[str], weights: Mapping[str, str], precision: str
) -> tuple[PaperNetwork, ...]:
    """Find the weights of each network; Keras may download those of ImageNet.

    Parameters
    ----------
    names
        Catalogue names.
    weights
        Choice by name, ``*`` for all others; ``imagenet`` where nothing is said.
    precision
        As for `featstore.extract`.

    Raises
    ------
    WeightsError
        If no network has weights, or a file that was named is not what it should be.
    """
    found = tuple(_network(name, choice_for(name, weights), precision) for name in dict.fromkeys(names))
    if not any(network.is_here for network in found):
        raise WeightsError(
            f"None of the {len(found)} networks has weights: those of ImageNet could not be fetched.",
            "Give files (--weights Xception=xception.weights.h5), or random:0 to see the machinery run.",
        )
    return found


def require_some(names: Sequence[str], weights: Mapping[str, str]) -> None:
    """Refuse, before any image is read, networks of which none has weights here or can get them.

    Raises
    ------
    AbsentWeightsError
        If there is none, with the names of all.
    """
    missing = missing_weights(names, weights)
    if missing and len(missing) == len({*names}) and not any(can_fetch(catalog.row(n)) for n in missing):
        raise unreachable_error(missing)


def choices(found: Sequence[PaperNetwork], weights: Mapping[str, str]) -> dict[str, str]:
    """Choice of weights of every network that takes part, by name."""
    return {network.name: choice_for(network.name, weights) for network in found if network.is_here}


def _network(name: str, choice: str, precision: str) -> PaperNetwork:
    row = catalog.row(name)
    digest, reason = None, ""
    try:
        digest = Networks({name: choice}, "official", precision).spec(name, fetch=True).weights
    except WeightsError as error:
        if choice != IMAGENET:
            raise
        log.warning("%s It does not take part.", error.cause)  # names folders, which a run does not
        reason = ABSENT
    kind = choice.partition(":")[0] if choice == IMAGENET or choice.startswith("random:") else "file"
    kind = kind if digest is not None else "absent"
    return PaperNetwork(
        name=name,
        in_paper=name in SEVEN,
        weights=kind,
        digest=digest,
        reason=reason,
        input_size=row.input_size,
        dimension=row.dimension,
    )


# Sides: a sample of whole patients, a split by image or patient, and the leak

TEST_SHARE = 0.25
"""Share of the images held out for testing; what the paper took is not known here."""
VALIDATION_SHARE = 0.4
"""The paper's share of the other images to validate on."""
PAPER_SPLIT = (2450, 1775, 1775)
"""To train, validate and test: the paper's 2,450 of 6,000 to train, and halves of the others, which it only draws."""


def sample(manifest: Manifest, images: int | None, seed: int) -> Manifest:
    """About so many images, as whole patients, each class in proportion; all where None or no fewer are there.

    Parameters
    ----------
    manifest
        The data set.
    images
        Number wanted; the patients' sizes decide how near it is met.
    seed
        Of the draw.
    """
    if images is None or images >= len(manifest.records):
        return manifest
    y, groups = _numbered(manifest.records)
    taken = validation_mask(y, groups, images / len(y), np.random.default_rng([seed, 0]))
    return manifest.only({record.id for record, take in zip(manifest.records, taken, strict=True) if take})


def split(manifest: Manifest, seed: int, *, paper_split: bool = False) -> Manifest:
    """Draw the sides ``train``, ``val`` and ``test`` over whole groups, each class in proportion.

    Parameters
    ----------
    manifest
        The data set.
    seed
        Of the draw.
    paper_split
        Whether to take `PAPER_SPLIT` for their sizes.
    """
    _, val, test = PAPER_SPLIT
    test_share = test / sum(PAPER_SPLIT) if paper_split else TEST_SHARE
    validation_share = val / (sum(PAPER_SPLIT) - test) if paper_split else VALIDATION_SHARE
    y, groups = _numbered(manifest.records)
    rng = np.random.default_rng([seed, 1])
    sides = np.full(len(y), "train", dtype="<U5")
    sides[validation_mask(y, groups, test_share, rng)] = "test"
    rest = np.flatnonzero(sides == "train")
    compact = np.unique(groups[rest], return_inverse=True)[1]
    sides[rest[validation_mask(y[rest], compact, validation_share, rng)]] = "val"
    return manifest.with_splits(
        {record.id: str(side) for record, side in zip(manifest.records, sides, strict=True)}
    )


def require_every_class(manifest: Manifest) -> None:
    """Make sure, before hours of extraction, that every side of a split can be learnt from or scored.

    Raises
    ------
    AuditError
        If a side lacks a class.
    """
    for side, classes in split_counts(manifest).items():
        if absent := [name for name, count in classes.items() if not count]:
            raise AuditError(
                f"The {side} side of a split came out without {absent[0]}: there are too few patients of it.",
                "Give more --images or patients, or another --seed.",
            )


def split_counts(manifest: Manifest) -> dict[str, dict[str, int]]:
    """Images by side and class, in the order in which they are used."""
    counts = Counter((record.split, record.label) for record in manifest.records)
    return {side: {c: counts[side, c] for c in manifest.classes} for side in ("train", "val", "test")}


def leak(manifest: Manifest, by_image: Manifest) -> Leak | None:
    """Count the patients of `manifest` that the split of `by_image` tears apart; None where no patients are named."""
    if not manifest.has_groups:
        return None
    group = {record.id: record.group for record in manifest.records}
    networks: defaultdict[str | None, list[str]] = defaultdict(list)
    for record in by_image.records:
        networks[record.split].append(group[record.id])
    trained = set(networks["train"])
    known = [name for name in networks["test"] if name in trained]
    return Leak(
        patients=len(set(group.values())),
        in_both=len(set(known)),
        test_images=len(networks["test"]),
        known_images=len(known),
    )


def _numbered(records: Iterable[ImageRecord]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Class and group numbers."""
    labels, names = zip(*((record.label, record.group) for record in records), strict=True)
    return np.unique(labels, return_inverse=True)[1], np.unique(names, return_inverse=True)[1]


# The paper's number beside this run's, and why they differ

PAPER_ACCURACY = 0.96
"""Accuracy that Ji et al. 2020 report."""
METRIC = "accuracy"
LEARNT_ACCURACY = 0.9
"""Accuracy in training, with dropout, from which a head knows its training images."""


def claims(by_image: Fits, by_patient: Fits | None, honest: Comparison) -> tuple[Claim, ...]:
    """Lay the accuracies side by side: the paper's, its protocol here, the same by patient, and the honest one."""
    tested = by_image.tuned.sizes["test"]
    rows = [
        Claim(
            name="paper",
            title=f"Ji et al. 2020, as claimed (interval as if on {tested} test images)",
            accuracy=Score(value=PAPER_ACCURACY, interval=exact_interval(PAPER_ACCURACY, tested)),
            images=None,
            patients=None,
            basis="exact binomial; the paper's own test size is not known here",
        ),
        _held_out(
            "by_image", "the paper's protocol here, split by image", by_image, "images as if independent"
        ),
    ]
    if by_patient is not None:
        rows.append(_held_out("by_patient", "the same, but patients kept together", by_patient, "patients"))
    chosen = honest_candidate(honest)
    unit = "patients" if honest.matrix["has_groups"] else "images"
    estimate = chosen.estimates[METRIC]
    rows.append(
        Claim(
            name="honest",
            title=f"honest: {chosen.candidate.label}, {honest.folds}-fold over {unit},"
            " each network's own preprocessing",
            accuracy=Score(value=estimate.mean, interval=estimate.interval),
            images=honest.matrix["images"],
            patients=honest.matrix["groups"] if honest.matrix["has_groups"] else None,
            basis=f"bootstrap over {unit}, widened for the overlap of the folds",
        )
    )
    return tuple(rows)


def honest_candidate(honest: Comparison) -> CandidateResult:
    """Candidate that the honest number is about: settled in advance, not the best."""
    fused = [s for s in honest.candidates if s.candidate.label == HONEST]
    return (fused or list(honest.candidates))[0]


def exact_interval(share: float, images: int) -> tuple[float, float]:
    """95 % interval of a share of so many images: Clopper & Pearson, Biometrika 26, 1934."""
    from scipy.stats import binomtest

    found = binomtest(round(share * images), images).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


def majority_baseline(sides: Mapping[str, Mapping[str, int]]) -> float:
    """Accuracy on the test images of answering what is most frequent among the training images."""
    train, test = sides["train"], sides["test"]
    return test[max(train, key=lambda name: train[name])] / sum(test.values())


def hit_probability(fits: Fits, folder: Path) -> dict[str, float | None]:
    """Probability of the majority on the test images, which is what the paper puts out beside the class (3.3).

    Parameters
    ----------
    fits
        The paper's models on one split.
    folder
        Where their runs are.

    Returns
    -------
    dict
        Mean over all test images, over those that were answered right and over those answered wrong; None over none.
        Empty where one network alone cannot vote.
    """
    if fits.vote is None:
        return {}
    data = (folder / "vote" / runs.PREDICTIONS).read_bytes()
    found = read_predictions(data, "split", ["test"], [*fits.vote.matrix["classes"]])["test"]
    hit = found.proba[np.arange(len(found.answered)), found.answered]
    right = found.answered == found.y
    parts = {"all": hit, "right": hit[right], "wrong": hit[~right]}
    return {name: float(part.mean()) if len(part) else None for name, part in parts.items()}


def reasons(
    found: Sequence[Claim],
    leak: Leak | None,
    networks: Sequence[PaperNetwork],
    by_image: Fits,
    honest: Comparison,
    audit: Mapping[str, object],
) -> tuple[str, ...]:
    """Sentences on why the numbers differ, the heaviest first."""
    by_name = {claim.name: claim for claim in found}
    return tuple(
        sentence
        for sentence in (
            *_untrained(networks),
            _leak(leak, by_name),
            _preprocessing(by_name),
            _training(by_image),
            _selection(by_image, honest),
            _size(by_name),
            _shortcuts(audit),
        )
        if sentence
    )


def _held_out(name: str, title: str, fits: Fits, unit: str) -> Claim:
    fusion = fits.tuned
    return Claim(
        name=name,
        title=title,
        accuracy=fusion.scores["test"][METRIC],
        images=fusion.sizes["test"],
        patients=None,
        basis=f"bootstrap over {unit}; one split",
    )


def _untrained(networks: Sequence[PaperNetwork]) -> Iterator[str]:
    here = [network for network in networks if network.is_here]
    if absent := [network.name for network in networks if not network.is_here]:
        yield f"Weights absent: {', '.join(absent)} did not take part, so this is not the paper's set of networks."
    if drawn := [network.name for network in here if network.weights == "random"]:
        yield (
            f"Random weights, never trained: {', '.join(drawn)} ({len(drawn)} of {len(here)} networks)."
            " No number of this run says what trained ones would give."
        )


def _leak(leak: Leak | None, by_name: Mapping[str, Claim]) -> str:
    if leak is None:
        return (
            "Leak: the data set names no patients, so nothing can be kept together, and the honest protocol cannot be"
            " more honest than the paper's here. Add a group column, or --group-pattern."
        )
    counted = (
        f"Leak: split by image, {leak.in_both} of {leak.patients} patients have images on both sides, and"
        f" {leak.known_images} of {leak.test_images} test images show a patient whom the model was trained on."
    )
    apart, together = by_name["by_image"].accuracy.value, by_name["by_patient"].accuracy.value
    if apart is None or together is None:
        return counted
    return (
        f"{counted} With everything else equal and patients kept together: {together:.3f} instead of {apart:.3f}"
        f" ({apart - together:+.3f} for the split by image; one split each, so the luck of the split is in it)."
    )


def _preprocessing(by_name: Mapping[str, Claim]) -> str:
    return (
        "Preprocessing: the paper divides pixels by 255 for every network; most were trained on other scales, and the"
        " honest protocol gives each its own. It also trains on plain images only, and fuses by"
        f" {by_name['honest'].title.partition(': ')[2].partition(',')[0]}."
    )


def _training(by_image: Fits) -> str:
    """Say how far the paper's head came: its rate is made for many steps."""
    history = by_image.head.history
    if not history or not history["loss"]:
        return ""
    loss, right = history["loss"], history["accuracy"]
    guessing = math.log(len(by_image.head.matrix["classes"]))
    told = (
        f"Training: in {len(loss)} epochs at a rate of {by_image.head.options['learning_rate']:g} the loss of the"
        f" fusion head went from {loss[0]:.3f} to {loss[-1]:.3f} nats (guessing: {guessing:.3f}), its accuracy in"
        f" training to {right[-1]:.3f}."
    )
    return (
        told
        if right[-1] > LEARNT_ACCURACY
        else f"{told} The less it knows its own images, the less a leak shows."
    )


def _selection(by_image: Fits, honest: Comparison) -> str:
    tried = {**by_image.heads, **by_image.fusions}
    scores = {name: fit.scores["test"][METRIC].value for name, fit in tried.items()}
    known = {name: value for name, value in scores.items() if value is not None}
    if not known:
        return ""
    best = max(known, key=lambda name: known[name])
    told = (
        f"Selection: {len(known)} models were scored on the same test images; the best, {best}, has"
        f" {known[best]:.3f}. Whoever picks the best on the images that it is scored on reports luck as well"
    )
    if honest.selection_bias is None:
        return f"{told}."
    winner = honest.selection_bias
    return (
        f"{told}: in the honest comparison the best AUC of {winner.of} is {winner.apparent:.3f}, and"
        f" {winner.corrected:.3f} without the luck of having been picked."
    )


def _size(by_name: Mapping[str, Claim]) -> str:
    small, honest = by_name["by_image"], by_name["honest"]
    units = f" of {honest.patients} patients" if honest.patients is not None else ""
    return (
        f"Size: {small.images} test images of one split against {honest.images} images{units}, each tested once."
        " Two numbers whose intervals overlap are not told apart."
    )


def _shortcuts(audit: Mapping[str, object]) -> str:
    shortcuts = audit.get("shortcuts")
    if not isinstance(shortcuts, dict) or not shortcuts:
        return ""
    guessed = ", ".join(f"{name} {auc:.3f}" for name, auc in shortcuts.items())
    return f"Shortcuts: AUC of guessing the label without looking at anatomy: {guessed}."
