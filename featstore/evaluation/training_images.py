"""The images that a kept model has learned from, beside the model: so that `predict` can say when it meets one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from featstore import document, run
from featstore.errors import RunError
from featstore.files import write_private
from featstore.fingerprint import canonical_json
from featstore.recognition import known_images
from featstore.store.known_images import KnownImages

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.matrix import FeatureMatrix

FORMAT = 1
DIGESTS = ("ids", "pixels", "groups")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def training_images(
    matrix: FeatureMatrix, rows: NDArray[Any], earlier: KnownImages | None, cache: Path
) -> KnownImages:
    """Digests of what a model learns from.

    Parameters
    ----------
    matrix, rows
        The images, by row number.
    earlier
        What the model that it goes on from had learned from; None for a fit from scratch.
    cache
        Where facts of images are kept, so that files need not be read again.
    """
    known = known_images(
        [matrix.records[row] for row in rows],
        matrix.decoding,
        has_groups=matrix.has_groups,
        salt=earlier.salt if earlier else "",
        cache=cache,
    )
    return known if earlier is None else known | earlier


def write_training_images(out: Path, known: KnownImages) -> None:
    """Write ``model/training.json``: digests alone, neither a path nor the name of a patient.

    Raises
    ------
    RunError
        If the disk refuses.
    """
    digests = {name: sorted(getattr(known, name)) for name in DIGESTS}
    content = {"format": FORMAT, "complete": known.is_complete, "salt": known.salt, **digests}
    try:
        write_private(out / run.TRAINING, canonical_json(document.seal(content)).encode())
    except OSError as error:
        raise run.unwritable(out, error) from error


def read_training_images(out: Path, about: Mapping[str, Any]) -> KnownImages | None:
    """Read what the model of a run has learned from; None for a run of an earlier featstore, which does not say.

    Parameters
    ----------
    out, about
        The run's folder, and its ``run.json``.

    Raises
    ------
    RunError
        If the file is missing, damaged, or of another run.
    """
    files = about.get("files")
    if isinstance(files, dict) and run.TRAINING not in files:
        return None
    try:
        content = document.unseal(document.parse(run.read_own(out, about, run.TRAINING)))
        return _known(content)
    except document.DocumentError as error:
        raise RunError(f"{out / run.TRAINING} cannot be read: {error}.", run.REMEDY) from error


def _known(content: Mapping[str, Any]) -> KnownImages:
    salt, complete = content.get("salt"), content.get("complete")
    if content.get("format") != FORMAT or not isinstance(salt, str) or not isinstance(complete, bool):
        raise document.DocumentError("it is no list of training images")
    ids, pixels, groups = (_digests(content.get(name)) for name in DIGESTS)
    return KnownImages(ids, pixels, groups, salt, complete)


def _digests(found: Any) -> frozenset[str]:  # noqa: ANN401
    if not isinstance(found, list) or not all(isinstance(d, str) and _DIGEST.fullmatch(d) for d in found):
        raise document.DocumentError("it names something that is no image")
    return frozenset(found)
