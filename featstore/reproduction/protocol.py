"""The fits of both protocols, by the public functions and into run folders of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore import run
from featstore.evaluation.compare import compare
from featstore.evaluation.fuse import fuse
from featstore.extraction.extract import extract
from featstore.partition import most_parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from featstore.evaluation.comparison import Comparison
    from featstore.evaluation.fuse import Fusion
    from featstore.extraction.summary import Extraction
    from featstore.images.manifest import Manifest

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
class Settings:
    """What all fits share.

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
    def papers(self) -> dict[str, Any]:
        """Features as the paper has them: pixels divided by 255 for every network, and augmented views beside."""
        return {"preprocess": "rescale", **self.views, **self.source}

    @property
    def own(self) -> dict[str, Any]:
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
    manifest: Manifest, settings: Settings, features: Mapping[str, Any], out: Path
) -> Extraction:
    """Compute what is missing; where nothing is, the account of the extraction that did it stays."""
    wanted: dict[str, Any] = {
        "backbones": settings.backbones, "memory": settings.memory, "as_default": False, **features,
    }  # fmt: skip
    planned = extract(manifest, dry_run=True, **wanted)
    if not planned.missing and (out / run.RUN).exists():
        return planned
    return extract(manifest, out=out, overwrite=True, progress=settings.progress, **wanted)


def fit_paper(split: Manifest, settings: Settings, out: Path, *, singles: bool) -> Fits:
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
    shared: dict[str, Any] = {"positive": settings.positive, "overwrite": True, **settings.papers}
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


def cross_validate(manifest: Manifest, settings: Settings, out: Path) -> Comparison:
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
        **settings.own,
    )


def _possible_folds(manifest: Manifest) -> int:
    """As many as the protocol has, or as can have every class each: `paper` has no option for their number."""
    labels = np.unique([record.label for record in manifest.records], return_inverse=True)[1]
    return most_parts(labels, np.array([record.group for record in manifest.records]), FOLDS)


def _several(settings: Settings) -> bool:
    return len(settings.backbones) > 1
