"""Fitted strategies as JSON and arrays: saved and restored without pickle, so that nothing loaded can run code."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore import document, registry
from featstore.document import DocumentError
from featstore.errors import FeatstoreError, RunError
from featstore.files import PRIVATE_FOLDER, read_regular, write_private
from featstore.fingerprint import digest_bytes
from featstore.fusion.archive import ArchiveError, read_arrays
from featstore.fusion.blocks import tile
from featstore.fusion.notation import Notation, NotationError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.fusion.strategy import FusionStrategy

    State = dict[str, Any]
    Arrays = dict[str, NDArray[Any]]

FORMAT = 2
"""2: sealed, so that a damaged parameter or class name shows as damaged arrays do."""
MAX_BYTES = 1 << 31
FOLDER = "featstore.fusion.strategies"
STATE_FILE, ARRAYS_FILE = "model.json", "arrays.npz"
LEARNED = re.compile(r"[A-Za-z]\w*[A-Za-z0-9]_")
REMEDY = "Fit the strategy again with `featstore fuse`."
# What a hand-made bundle can provoke while an estimator is rebuilt and asked once; anything else is a bug of ours.
MISFIT = (FeatstoreError, ValueError, TypeError, AttributeError, LookupError, MemoryError, OverflowError)


def export_model(strategy: FusionStrategy) -> tuple[State, Arrays]:
    """Turn a fitted strategy into JSON-able state and plain arrays.

    Parameters
    ----------
    strategy
        A fitted strategy of the folder ``featstore.fusion.strategies``.

    Returns
    -------
    State with format, strategy, parameters and everything learned; arrays by the names the state calls them.

    Raises
    ------
    RunError
        If the strategy is not fitted, not of the folder, or holds something that has no place in a bundle.
    """
    name = type(strategy).__module__.rpartition(".")[2]
    if name not in registry.names(FOLDER) or registry.load(FOLDER, name) is not type(strategy):
        raise RunError(f"{type(strategy).__name__} is not a strategy of {FOLDER}.", "Put its file there.")
    learned = {key: value for key, value in vars(strategy).items() if LEARNED.fullmatch(key)}
    if "classes_" not in learned:
        raise RunError(f"This {name} is not fitted, so there is nothing to save.", "Call fit first.")
    notation = Notation({})
    try:
        parameters = notation.write("parameters", strategy.get_params(deep=False))
        state = {
            "format": FORMAT,
            "strategy": name,
            "parameters": parameters,
            "learned": notation.write("learned", learned),
        }
    except NotationError as error:
        raise RunError(
            f"{name} cannot be saved: {error}.", "Keep to numbers, text, arrays, blocks and models."
        ) from error
    return state, notation.arrays


def restore_model(state: State, arrays: Arrays) -> FusionStrategy:
    """Rebuild the strategy that `export_model` took apart; it predicts the same bytes.

    Raises
    ------
    RunError
        If the format is unknown; an array is missing, superfluous, not finite, or of another shape or type;
        or the parts do not make a strategy that can predict.
    """
    _check_format(state.get("format"))
    try:
        strategy = _rebuild(state, arrays)
        _try_out(strategy)
    except MISFIT as error:
        raise RunError(f"The model cannot be restored: {_first_line(error)}.", REMEDY) from error
    return strategy


def write_bundle(folder: Path, strategy: FusionStrategy, extra: State) -> None:
    """Write ``model.json`` and ``arrays.npz`` to `folder`, created if need be.

    Each file appears whole, and the JSON last: it names the digest of the arrays, so the two cannot be mixed up.

    Parameters
    ----------
    folder
        Where to.
    strategy
        Fitted.
    extra
        JSON-able; handed back by `read_bundle`.

    Raises
    ------
    RunError
        If the strategy or `extra` cannot be written as JSON and arrays, or the disk refuses.
    """
    state, arrays = export_model(strategy)
    try:
        folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        packed = io.BytesIO()
        np.savez(packed, allow_pickle=False, **arrays)
        content = {**state, "arrays_sha256": digest_bytes(packed.getvalue()), "extra": extra}
        text = json.dumps(document.seal(content), indent=1, sort_keys=True, allow_nan=False) + "\n"
        write_private(folder / ARRAYS_FILE, packed.getvalue())
        write_private(folder / STATE_FILE, text.encode("ascii"))
    except (OSError, TypeError, ValueError) as error:
        raise RunError(
            f"The model cannot be written to {folder}: {_first_line(error)}.",
            "Check the folder and the disk.",
        ) from error


def read_bundle(folder: Path) -> tuple[FusionStrategy, State]:
    """Read the strategy and the extra state that `write_bundle` left in `folder`.

    Raises
    ------
    RunError
        If a file is missing or damaged, or `restore_model` refuses its content.
    """
    state = _read_state(folder / STATE_FILE)
    arrays = _read_arrays(folder / ARRAYS_FILE, state.get("arrays_sha256"))
    return restore_model(state, arrays), state.get("extra", {})


def _rebuild(state: State, arrays: Arrays) -> FusionStrategy:
    kind = registry.load(FOLDER, state["strategy"])
    notation = Notation(dict(arrays))
    strategy: FusionStrategy = kind(**notation.read(state["parameters"]))
    for name, value in notation.read(state["learned"]).items():
        if not LEARNED.fullmatch(name) or hasattr(kind, name):
            raise NotationError(f"{name!r} cannot be something learned")
        setattr(strategy, name, value)
    if notation.arrays:
        raise NotationError(f"nothing refers to the array {min(notation.arrays)!r}")
    return strategy


def _try_out(strategy: FusionStrategy) -> None:
    """Ask for one row: whatever does not fit together shows here and not at the first patient."""
    tile(strategy.blocks_, strategy.n_features_in_)
    answer = strategy.predict_proba(np.zeros((1, strategy.n_features_in_)))
    expected = (1, len(strategy.classes_))
    if answer.shape != expected or not np.isfinite(answer).all():
        raise NotationError(f"it answers {answer.shape} numbers where {expected} finite ones are due")
    strategy.predict(np.zeros((1, strategy.n_features_in_)))


def _check_format(version: Any) -> None:  # noqa: ANN401
    if version != FORMAT:
        raise RunError(
            f"The model has format {version!r}; this featstore reads {FORMAT}.",
            "Use the featstore that wrote it, or fit again.",
        )


def _read_state(path: Path) -> State:
    try:
        state = document.read(path, document.LARGE)
        if isinstance(state, dict):
            _check_format(state.get("format"))
        return document.unseal(state)
    except (OSError, DocumentError) as error:
        raise RunError(f"No readable model at {path}: {_first_line(error)}.", REMEDY) from error


def _read_arrays(path: Path, digest: str | None) -> Arrays:
    try:
        data = read_regular(path, MAX_BYTES)
        # Hash before opening: a parser should not meet damaged bytes.
        if digest_bytes(data) == digest:
            return read_arrays(data)
    except (OSError, ArchiveError) as error:
        raise RunError(f"No readable arrays at {path}: {_first_line(error)}.", REMEDY) from error
    raise RunError(f"{path} is not the file that {STATE_FILE} was written with.", REMEDY)


def _first_line(error: BaseException) -> str:
    if isinstance(error, OSError) and not isinstance(error, FeatstoreError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
