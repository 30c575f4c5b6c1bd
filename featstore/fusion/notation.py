"""Values a strategy may hold, written as JSON with the arrays set aside."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore import registry
from featstore.fusion.blocks import Block
from featstore.fusion.linear import LinearModel
from featstore.fusion.projection import Projection
from featstore.fusion.strategy import FOLDER, FusionStrategy

if TYPE_CHECKING:
    from numpy.typing import NDArray

VALUES = {"block": Block, "linear_model": LinearModel, "projection": Projection}
ARRAY_KINDS = "biufU"
LEARNED = re.compile(r"[A-Za-z]\w*[A-Za-z0-9]_")


class NotationError(ValueError):
    """A value that cannot be written, or a text that is not a value. One line, without a full stop."""


@dataclass(frozen=True, slots=True)
class Notation:
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
        return self._write_marked(path, value)

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
                return self._read_marked(*next(iter(text.items())))
            case dict():
                return {key: self.read(item) for key, item in text.items()}
            case float() if not isfinite(text):
                raise NotationError("a number is not finite")
        return text

    def write_strategy(self, path: str, strategy: FusionStrategy) -> dict[str, Any]:
        """Name, parameters and everything learned; `path` is empty for the strategy that is not part of another.

        Raises
        ------
        NotationError
            If it holds something without a notation.
        """
        inside = f"{path}." if path else ""
        learned = {key: value for key, value in vars(strategy).items() if LEARNED.fullmatch(key)}
        return {
            "strategy": type(strategy).__module__.rpartition(".")[2],
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
                raise NotationError(f"{name!r} cannot be something learned")
            setattr(strategy, name, value)
        return strategy

    def _write_marked(self, path: str, value: Any) -> dict[str, Any]:  # noqa: ANN401
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
        raise NotationError(f"{path} is {type(value).__name__} {value!r:.40}, which has no place in a bundle")

    def _write_array(self, path: str, array: NDArray[Any]) -> dict[str, Any]:
        if array.dtype == object:
            labels = [self.write(path, label) for label in array]
            if array.ndim != 1 or not all(isinstance(label, str | int) for label in labels):
                raise NotationError(f"{path} holds objects that are neither text nor integers")
            return {"$labels": labels}
        if array.dtype.kind not in ARRAY_KINDS or not _finite(array):
            raise NotationError(f"{path} is not an array of text or finite numbers")
        self.arrays[path] = array
        return {"$array": {"name": path, "dtype": array.dtype.str, "shape": list(array.shape)}}

    def _read_marked(self, mark: str, content: Any) -> Any:  # noqa: ANN401
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
            raise NotationError(f"{mark!r} is no notation of this version")
        return kind(**parts)

    def _read_array(self, name: str, dtype: str, shape: tuple[Any, ...]) -> NDArray[Any]:
        if name not in self.arrays:
            raise NotationError(f"the array {name!r} is missing")
        array = self.arrays.pop(name)
        if array.dtype.str != dtype or array.shape != shape:
            raise NotationError(
                f"the array {name!r} is {array.dtype.str} {array.shape}, noted {dtype} {shape}"
            )
        if array.dtype.kind not in ARRAY_KINDS or not _finite(array):
            raise NotationError(f"the array {name!r} is not finite numbers or text")
        return array


def _finite(array: NDArray[Any]) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())
