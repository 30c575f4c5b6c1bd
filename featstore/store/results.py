"""What cross-validation answered, kept beside the shards: a comparison that was interrupted goes on from here."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore import document
from featstore.errors import StoreError
from featstore.fingerprint import canonical_json, digest
from featstore.store import rooms
from featstore.store.commit import commit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

log = logging.getLogger(__name__)
FOLDER = "results"
MAX_BYTES = document.LARGE
"""Of one round, written and read: more is computed again by a comparison that goes on."""


def record_result(root: Path, key: Mapping[str, Any], proba: Sequence[Vector]) -> None:
    """Keep the answers of one round; a folder that cannot be written costs only the resumption.

    Parameters
    ----------
    root
        The cache folder.
    key
        Everything that can change the answers, as JSON.
    proba
        Probabilities ``(test images, classes)`` of each contestant.
    """
    note = document.seal({"key": dict(key), "proba": [values.tolist() for values in proba]})
    try:
        commit(root, _page(root, key), canonical_json(note).encode(), MAX_BYTES)
    except StoreError as error:
        log.warning("results are not kept: %s", error.cause)


def recorded_result(
    root: Path, key: Mapping[str, Any], shapes: Sequence[tuple[int, int]]
) -> list[Vector] | None:
    """Answers that `record_result` kept under `key`, to the last bit; None where there are none that can be believed.

    Parameters
    ----------
    root, key
        As for `record_result`.
    shapes
        Images and classes of each contestant's answers.
    """
    try:
        note = _read(root, _page(root, key))
        proba = [np.array(values, np.float64) for values in note["proba"]]
        sound = note["key"] == key and [p.shape for p in proba] == list(shapes)
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None
    return proba if sound and all(_are_probabilities(p) for p in proba) else None


def check(page: Path) -> None:
    """OSError, ValueError, TypeError, KeyError or OverflowError if a file is no round's answers."""
    note = document.unseal(document.parse(rooms.read_file(page, MAX_BYTES)))
    for values in note["proba"]:
        np.array(values, np.float64)


def _read(root: Path, page: Path) -> dict[str, Any]:
    return document.unseal(document.parse(rooms.read(root, page, MAX_BYTES)))


def _are_probabilities(proba: Vector) -> bool:
    return bool(((proba >= 0) & (proba <= 1)).all() and np.allclose(proba.sum(axis=1), 1.0, atol=1e-6))


def _page(root: Path, key: Mapping[str, Any]) -> Path:
    return root / FOLDER / f"{digest(dict(key))}.json"
