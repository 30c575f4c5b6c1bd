"""Where the weights that a kept model was fitted with are now: found by their digest, never downloaded unasked."""

from __future__ import annotations

import re
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING

from featstore.backbones import catalog
from featstore.backbones.weights import (
    EVERY_BACKBONE,
    IMAGENET,
    choice_for,
    keras_models_folder,
    resolve_weights,
)
from featstore.errors import WeightsError
from featstore.fingerprint import digest_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from featstore.types import BackboneSpec

_RANDOM = re.compile(r"(random:\d{1,9}) keras (.+)")


def find_weights(spec: BackboneSpec, choices: Mapping[str, str], folders: Sequence[Path] = ()) -> str:
    """Choice of weights that gives the digest of a spec; reads and hashes files, loads and downloads nothing.

    Where nothing is said of the backbone, ImageNet weights and files that bear its name are looked at in Keras'
    cache and in `folders`, and random weights are drawn again.

    Parameters
    ----------
    spec
        Of the model.
    choices
        As for `featstore.extract`. ``imagenet``, said aloud, allows Keras to download its weights.
    folders
        Where else files may lie, such as runs of `featstore.finetune`.

    Raises
    ------
    WeightsError
        If the weights are not here, or those that were chosen are others.
    """
    if spec.name in choices or EVERY_BACKBONE in choices:
        return _confirmed(spec, choice_for(spec.name, choices))
    if drawn := _RANDOM.fullmatch(spec.weights):
        return _drawn_again(spec, drawn[1], drawn[2])
    official = _official(spec)
    if official == spec.weights:
        return IMAGENET
    for path in _namesakes(spec, [keras_models_folder(), *folders]):
        with suppress(OSError):  # a file that may not be read is not the one
            if f"sha256:{digest_file(path)}" == spec.weights:
                return str(path)
    raise _absent(spec, official)


def _confirmed(spec: BackboneSpec, choice: str) -> str:
    found = resolve_weights(catalog.row(spec.name), choice).digest
    if found is None or found == spec.weights:
        return choice
    raise WeightsError(
        f"{spec.name} is wanted with the weights {spec.weights}, and {choice} are others: {found}.",
        f"Pass the same file or seed as when the features were computed: --weights {spec.name}=CHOICE.",
    )


def _drawn_again(spec: BackboneSpec, choice: str, keras: str) -> str:
    if keras == version("keras"):
        return choice
    raise WeightsError(
        f"{spec.name} is wanted with the weights {spec.weights}, and Keras {version('keras')} draws other ones.",
        f"Install keras=={keras}, or make the run again: featstore extract, then featstore fuse.",
    )


def _official(spec: BackboneSpec) -> str | None:
    """Digest of the published weights, if they are on this machine."""
    try:
        return resolve_weights(catalog.row(spec.name), IMAGENET).digest
    except WeightsError:
        return None


def _namesakes(spec: BackboneSpec, folders: Sequence[Path]) -> Iterator[Path]:
    """Weights files that bear the backbone's name."""
    wanted = _letters(spec.name)
    for folder in folders:
        with suppress(OSError):
            yield from [p for p in sorted(folder.glob("*.h5")) if wanted in _letters(p.name) and p.is_file()]


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def _absent(spec: BackboneSpec, official: str | None) -> WeightsError:
    if official is not None:
        return WeightsError(
            f"{spec.name} is wanted with the weights {spec.weights}, and those for ImageNet are others: {official}.",
            f"Name the file with that digest: --weights {spec.name}=PATH.",
        )
    return WeightsError(
        f"{spec.name} is wanted with the weights {spec.weights}, which are neither in {keras_models_folder()}"
        " nor beside the run.",
        f"Name the file with that digest: --weights {spec.name}=PATH. If they are Keras' own for ImageNet, let Keras"
        f" fetch them: --weights {spec.name}=imagenet.",
    )
