"""Fitted strategies as JSON and arrays: saved and restored without pickle, so that nothing loaded can run code."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, BinaryIO
from zipfile import BadZipFile

import numpy as np

from featstore import registry
from featstore.errors import FeatstoreError, RunError
from featstore.fingerprint import digest_file
from featstore.fusion.blocks import tile
from featstore.fusion.notation import Notation, NotationError
from featstore.fusion.strategy import FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.fusion.strategy import FusionStrategy

    State = dict[str, Any]
    Arrays = dict[str, NDArray[Any]]

FORMAT = 1
STATE_FILE, ARRAYS_FILE = "model.json", "arrays.npz"
REMEDY = "Fit the strategy again with `featstore fuse`."
# What a hand-made bundle can provoke while an estimator is rebuilt and asked once; anything else is a bug of ours.
MISFIT = (
    FeatstoreError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    MemoryError,
    OverflowError,
    RecursionError,
)


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
    if not hasattr(strategy, "classes_"):
        raise RunError(f"This {name} is not fitted, so there is nothing to save.", "Call fit first.")
    notation = Notation({})
    try:
        state = {"format": FORMAT, **notation.write_strategy("", strategy)}
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
        folder.mkdir(parents=True, exist_ok=True)
        _replace(
            folder / ARRAYS_FILE,
            lambda file: np.savez(file, allow_pickle=False, **dict(sorted(arrays.items()))),
        )
        document = {**state, "arrays_sha256": digest_file(folder / ARRAYS_FILE), "extra": extra}
        text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"
        _replace(folder / STATE_FILE, lambda file: file.write(text.encode("ascii")))
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
    notation = Notation(dict(arrays))
    strategy = notation.read_strategy(state)
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
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"No readable model at {path}: {_first_line(error)}.", REMEDY) from error
    if not isinstance(state, dict):
        raise RunError(f"No model at {path}, but {type(state).__name__}.", REMEDY)
    _check_format(state.get("format"))
    return state


def _read_arrays(path: Path, digest: str | None) -> Arrays:
    try:
        # Hash before opening: a parser should not meet damaged bytes.
        if digest_file(path) == digest:
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, BadZipFile, AttributeError) as error:
        raise RunError(f"No readable arrays at {path}: {_first_line(error)}.", REMEDY) from error
    raise RunError(f"{path} is not the file that {STATE_FILE} was written with.", REMEDY)


def _replace(path: Path, save: Callable[[BinaryIO], object]) -> None:
    """Let `save` write to a neighbour of `path`, then put it in its place."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            save(file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
