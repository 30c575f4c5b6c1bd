"""Which networks take part: those of the paper and any others asked for, as far as there are weights."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from featstore.backbones import catalog
from featstore.backbones.presence import absent, can_fetch, unreachable
from featstore.backbones.weights import IMAGENET, choice_for
from featstore.errors import WeightsError
from featstore.extraction.networks import Networks
from featstore.reproduction.outcome import Member

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)
ABSENT = "Its ImageNet weights are not on this machine, and could not be fetched."

SEVEN = ("InceptionV3", "DenseNet201", "ResNet50", "Xception", "VGG19", "NASNetLarge", "InceptionResNetV2")
"""The paper's networks, in the order in which their figures are numbered here."""


def members(names: Sequence[str], weights: Mapping[str, str], precision: str) -> tuple[Member, ...]:
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
    found = tuple(_member(name, choice_for(name, weights), precision) for name in dict.fromkeys(names))
    if not any(member.is_here for member in found):
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
    missing = absent(names, weights)
    if missing and len(missing) == len({*names}) and not any(can_fetch(catalog.row(n)) for n in missing):
        raise unreachable(missing)


def choices(found: Sequence[Member], weights: Mapping[str, str]) -> dict[str, str]:
    """Choice of weights of every network that takes part, by name."""
    return {member.name: choice_for(member.name, weights) for member in found if member.is_here}


def _member(name: str, choice: str, precision: str) -> Member:
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
    return Member(name, name in SEVEN, kind, digest, reason, row.input_size, row.dimension)
