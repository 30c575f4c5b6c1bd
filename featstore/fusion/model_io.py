"""Fitted strategies as JSON and arrays, without pickle: nothing that is loaded can run code."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy

from featstore import registry, serialization
from featstore.errors import FeatstoreError, RunError, UnknownNameError
from featstore.fusion.linear import LinearModel, Projection
from featstore.fusion.strategy import FOLDER, FusionStrategy, check_blocks
from featstore.serialization import PRIVATE_FOLDER, DocumentError, digest_bytes, read_regular, write_private
from featstore.types import Block

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    State = dict[str, Any]
    Arrays = dict[str, NDArray[Any]]

# Strategies

FORMAT = 2
"""2: sealed, so that a damaged parameter or class name shows as damaged arrays do."""
MAX_MODEL_BYTES = 1 << 31
STATE_FILE, ARRAYS_FILE = "model.json", "arrays.npz"
REMEDY = "Fit the strategy again with `featstore fuse`."
# What a hand-made bundle can provoke while an estimator is rebuilt and asked once; anything else is a bug of ours.
RESTORE_ERRORS = (
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
    name = registry.name_of(FOLDER, type(strategy))
    if name is None:
        raise RunError(
            f"{type(strategy).__name__} is not a strategy of {FOLDER}.",
            "Put its file there, or name it with --plugin.",
        )
    if not hasattr(strategy, "classes_"):
        raise RunError(f"This {name} is not fitted, so there is nothing to save.", "Call fit first.")
    notation = ModelCodec({})
    try:
        state = {"format": FORMAT, **notation.write_strategy("", strategy)}
    except ModelFormatError as error:
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
        _check_predicts(strategy)
    except RESTORE_ERRORS as error:
        foreign = isinstance(error, UnknownNameError)
        remedy = (
            "Name the plug-in that it was fitted with: featstore --plugin FILE.py." if foreign else REMEDY
        )
        raise RunError(f"The model cannot be restored: {_first_line(error)}.", remedy) from error
    return strategy


def save_strategy(folder: Path, strategy: FusionStrategy, extra: State) -> None:
    """Write ``model.json`` and ``arrays.npz`` to `folder`, created if need be.

    Each file appears whole, and the JSON last: it names the digest of the arrays, so the two cannot be mixed up.

    Parameters
    ----------
    folder
        Where to.
    strategy
        Fitted.
    extra
        JSON-able; handed back by `load_strategy`.

    Raises
    ------
    RunError
        If the strategy or `extra` cannot be written as JSON and arrays, or the disk refuses.
    """
    state, arrays = export_model(strategy)
    try:
        folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        packed = io.BytesIO()
        np.savez(packed, allow_pickle=False, **dict(sorted(arrays.items())))
        content = {**state, "arrays_sha256": digest_bytes(packed.getvalue()), "extra": extra}
        text = json.dumps(serialization.seal(content), indent=1, sort_keys=True, allow_nan=False) + "\n"
        write_private(folder / ARRAYS_FILE, packed.getvalue())
        write_private(folder / STATE_FILE, text.encode("ascii"))
    except (OSError, TypeError, ValueError) as error:
        raise RunError(
            f"The model cannot be written to {folder}: {_first_line(error)}.",
            "Check the folder and the disk.",
        ) from error


def load_strategy(folder: Path) -> tuple[FusionStrategy, State]:
    """Read the strategy and the extra state that `save_strategy` left in `folder`.

    Raises
    ------
    RunError
        If a file is missing or damaged, or `restore_model` refuses its content.
    """
    state = _read_state(folder / STATE_FILE)
    arrays = _read_arrays(folder / ARRAYS_FILE, state.get("arrays_sha256"))
    return restore_model(state, arrays), state.get("extra", {})


def _rebuild(state: State, arrays: Arrays) -> FusionStrategy:
    notation = ModelCodec(dict(arrays))
    strategy = notation.read_strategy(state)
    if notation.arrays:
        raise ModelFormatError(f"nothing refers to the array {min(notation.arrays)!r}")
    return strategy


def _check_predicts(strategy: FusionStrategy) -> None:
    """Ask for one row: whatever does not fit together shows here and not at the first patient."""
    check_blocks(strategy.blocks_, strategy.n_features_in_)
    answer = strategy.predict_proba(np.zeros((1, strategy.n_features_in_)))
    expected = (1, len(strategy.classes_))
    if answer.shape != expected or not np.isfinite(answer).all():
        raise ModelFormatError(f"it answers {answer.shape} numbers where {expected} finite ones are due")
    strategy.predict(np.zeros((1, strategy.n_features_in_)))


def _check_format(version: Any) -> None:  # noqa: ANN401
    if version != FORMAT:
        raise RunError(
            f"The model has format {version!r}; this featstore reads {FORMAT}.",
            "Use the featstore that wrote it, or fit again.",
        )


def _read_state(path: Path) -> State:
    try:
        state = serialization.read(path, serialization.LARGE)
        if isinstance(state, dict):
            _check_format(state.get("format"))
        return serialization.unseal(state)
    except (OSError, DocumentError) as error:
        raise RunError(f"No readable model at {path}: {_first_line(error)}.", REMEDY) from error


def _read_arrays(path: Path, digest: str | None) -> Arrays:
    try:
        data = read_regular(path, MAX_MODEL_BYTES)
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


# Values a strategy may hold, as JSON with the arrays set aside

VALUES = {"block": Block, "linear_model": LinearModel, "projection": Projection}
ARRAY_KINDS = "biufU"
LEARNED = re.compile(r"[A-Za-z]\w*[A-Za-z0-9]_")


class ModelFormatError(ValueError):
    """A value that cannot be written, or a text that is not a value. One line, without a full stop."""


@dataclass(frozen=True, slots=True)
class ModelCodec:
    """Writes values as JSON and arrays by name, and reads them back; `arrays` fills up or is used up on the way.

    Text, finite numbers, booleans, None, lists and dicts with text keys stand for themselves. Everything else
    is an object with the one key ``$tuple``, ``$array``, ``$labels`` (object array of text or integers),
    ``$strategy``, or a name of `VALUES`.
    """

    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)

    def write(self, path: str, value: Any) -> Any:  # noqa: ANN401
        """JSON for `value`; `path` is where it lives, and names its arrays.

        Raises
        ------
        NotationError
            If the value, or one inside it, has no notation.
        """
        if isinstance(value, np.generic):
            value = value.item()
        match value:
            case None | bool() | int() | str():
                return value
            case float() if isfinite(value):
                return value
            case list():
                return [self.write(f"{path}.{i}", item) for i, item in enumerate(value)]
            case dict() if all(isinstance(key, str) and not key.startswith("$") for key in value):
                return {key: self.write(f"{path}.{key}", item) for key, item in value.items()}
        return self._write_tagged(path, value)

    def read(self, text: Any) -> Any:  # noqa: ANN401
        """Value that `write` turned into `text`.

        Raises
        ------
        NotationError
            If the notation is unknown, or an array is missing, not finite, or not of the shape and type noted.
        """
        match text:
            case list():
                return [self.read(item) for item in text]
            case dict() if len(text) == 1 and next(iter(text)).startswith("$"):
                return self._read_tagged(*next(iter(text.items())))
            case dict():
                return {key: self.read(item) for key, item in text.items()}
            case float() if not isfinite(text):
                raise ModelFormatError("a number is not finite")
        return text

    def write_strategy(self, path: str, strategy: FusionStrategy) -> dict[str, Any]:
        """Name, parameters and everything learned; `path` is empty for the strategy that is not part of another.

        Raises
        ------
        NotationError
            If it holds something without a notation.
        """
        inside = f"{path}." if path else ""
        name = registry.name_of(FOLDER, type(strategy))
        if name is None:
            raise ModelFormatError(f"{type(strategy).__name__} is no strategy that can be found again")
        learned = {key: value for key, value in vars(strategy).items() if LEARNED.fullmatch(key)}
        return {
            "strategy": name,
            "parameters": self.write(f"{inside}parameters", strategy.get_params(deep=False)),
            "learned": self.write(f"{inside}learned", learned),
        }

    def read_strategy(self, text: Any) -> FusionStrategy:  # noqa: ANN401
        """Fitted strategy that `write_strategy` turned into `text`; only those of the folder are ever made.

        Raises
        ------
        NotationError
            If a part is no notation, or would overwrite what a strategy is.
        UnknownNameError
            If there is no such strategy.
        """
        kind = registry.load(FOLDER, text["strategy"])
        strategy: FusionStrategy = kind(**self.read(text["parameters"]))
        for name, value in self.read(text["learned"]).items():
            if not LEARNED.fullmatch(name) or hasattr(kind, name):
                raise ModelFormatError(f"{name!r} cannot be something learned")
            setattr(strategy, name, value)
        return strategy

    def _write_tagged(self, path: str, value: Any) -> dict[str, Any]:  # noqa: ANN401
        if isinstance(value, tuple):
            return {"$tuple": self.write(path, list(value))}
        if isinstance(value, np.ndarray):
            return self._write_array(path, value)
        if isinstance(value, FusionStrategy):
            return {"$strategy": self.write_strategy(path, value)}
        for mark, kind in VALUES.items():
            if type(value) is kind:
                parts = {part.name: getattr(value, part.name) for part in fields(kind)}
                return {f"${mark}": self.write(path, parts)}
        raise ModelFormatError(
            f"{path} is {type(value).__name__} {value!r:.40}, which has no place in a bundle"
        )

    def _write_array(self, path: str, array: NDArray[Any]) -> dict[str, Any]:
        if array.dtype == object:
            labels = [self.write(path, label) for label in array]
            if array.ndim != 1 or not all(isinstance(label, str | int) for label in labels):
                raise ModelFormatError(f"{path} holds objects that are neither text nor integers")
            return {"$labels": labels}
        if array.dtype.kind not in ARRAY_KINDS or not _finite(array):
            raise ModelFormatError(f"{path} is not an array of text or finite numbers")
        self.arrays[path] = array
        return {"$array": {"name": path, "dtype": array.dtype.str, "shape": list(array.shape)}}

    def _read_tagged(self, mark: str, content: Any) -> Any:  # noqa: ANN401
        match mark, content:
            case "$array", {"name": str(name), "dtype": str(dtype), "shape": [*shape]}:
                return self._read_array(name, dtype, tuple(shape))
            case "$tuple", [*items]:
                return tuple(self.read(items))
            case "$strategy", {"strategy": str(), "parameters": dict(), "learned": dict(), **rest} if (
                not rest
            ):
                return self.read_strategy(content)
            case "$labels", [*labels] if all(isinstance(label, str | int) for label in labels):
                array = np.empty(len(labels), dtype=object)
                array[:] = labels
                return array
        kind = VALUES.get(mark.removeprefix("$"))
        parts = self.read(content)
        if kind is None or not isinstance(parts, dict) or set(parts) != {part.name for part in fields(kind)}:
            raise ModelFormatError(f"{mark!r} is no notation of this version")
        return kind(**parts)

    def _read_array(self, name: str, dtype: str, shape: tuple[Any, ...]) -> NDArray[Any]:
        if name not in self.arrays:
            raise ModelFormatError(f"the array {name!r} is missing")
        array = self.arrays.pop(name)
        if array.dtype.str != dtype or array.shape != shape:
            raise ModelFormatError(
                f"the array {name!r} is {array.dtype.str} {array.shape}, noted {dtype} {shape}"
            )
        if array.dtype.kind not in ARRAY_KINDS or not _finite(array):
            raise ModelFormatError(f"the array {name!r} is not finite numbers or text")
        return array


def _finite(array: NDArray[Any]) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


# Arrays by name in an ``.npz``, read without trusting the ZIP, the headers, or anything pickled

SUFFIX = ".npy"
_ENCRYPTED = 0x1


class ArchiveError(ValueError):
    """Bytes that are no archive of plain arrays. One line, without a full stop."""


def read_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """Arrays of an archive that `numpy.savez` wrote, by name.

    Members are stored, not compressed, as `numpy.savez` does, so that together they cannot be larger than the
    archive: neither a ZIP bomb nor members that share bytes fit. Nothing is unpacked to the disk.

    Parameters
    ----------
    data
        The whole file.

    Raises
    ------
    ArchiveError
        If a member is compressed, encrypted, no plain array, or not of the size that its header announces.
    """
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_members(members, len(data))
            return {member.filename.removesuffix(SUFFIX): _array(archive.read(member)) for member in members}
    except ArchiveError:
        raise
    except (
        BadZipFile,
        OSError,
        ValueError,
        LookupError,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        why = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise ArchiveError(f"it does not unpack: {why}") from error


def _check_members(members: list[ZipInfo], size: int) -> None:
    names = [member.filename for member in members]
    for member in members:
        name = member.filename
        if not name.endswith(SUFFIX) or set(name) & {"/", "\\", ":"} or name.startswith("."):
            raise ArchiveError(f"its member {name!r} cannot be the name of an array")
        if member.compress_type != ZIP_STORED or member.flag_bits & _ENCRYPTED:
            raise ArchiveError(f"its member {name!r} is compressed or encrypted")
    if len(set(names)) < len(names):
        raise ArchiveError("two of its members have one name")
    if sum(member.file_size for member in members) > size:
        raise ArchiveError("its members announce more bytes than it has")


def _array(member: bytes) -> NDArray[Any]:
    file = io.BytesIO(member)
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise ArchiveError(f"an array has format {version}")
    shape, by_columns, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ArchiveError("an array holds objects, which are pickled; allow_pickle=False")
    values = memoryview(member)[file.tell() :]
    if math.prod(shape) * dtype.itemsize != len(values) or min(shape, default=0) < 0:
        raise ArchiveError(f"an array of {shape} {dtype} has {len(values)} bytes")
    return (
        np.frombuffer(values, dtype).reshape(shape, order="F" if by_columns else "C")
        if len(values)
        else (np.empty(shape, dtype))
    )


_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
