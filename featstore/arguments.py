"""Arguments of the public functions: checked, and completed, before a function looks at them.

A name that it does not take is refused with the nearest one that it does; a single text or number where several are
meant is one item; and what `typing.Unpack` hides in ``**source`` is listed by `help` and `inspect.signature`.
"""

from __future__ import annotations

import inspect
import operator
import re
from collections.abc import Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from featstore.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


P = ParamSpec("P")
R = TypeVar("R")

_SEVERAL = re.compile(r"\b(?:Sequence|Collection|Iterable)\[(int|float|str)( \| Path)?\]")
_UNPACKED = re.compile(r"Unpack\[(\w+)\]")
MOST_SEED = 2**32 - 1
BOUNDS = {
    "seed": (0, MOST_SEED),
    "fold_seed": (0, MOST_SEED),
    "split_seed": (0, MOST_SEED),
    "training_seeds": (1, 1000),
    "repeats": (1, 1000),
}
"""What generators of random numbers take, and more than anybody waits for."""
JOBS, JOBS_PER_CORE = 16, 4
"""Processes that are never too many, and for each core."""


def public(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function: exact names, lists where lists are meant, and a signature that names everything."""
    signature = _spelt_out(function)
    names = [name for name, one in signature.parameters.items() if one.kind is not one.VAR_POSITIONAL]
    several = {
        name: match
        for name, one in signature.parameters.items()
        if one.kind is not one.VAR_POSITIONAL and (match := _SEVERAL.search(str(one.annotation)))
    }
    whole = {
        name
        for name in several
        if re.search(r"(^|\| )str( \||$)", str(signature.parameters[name].annotation))
    }
    positions = dict(enumerate(signature.parameters))
    kinds = {name: str(signature.parameters[name].annotation) for name in names}

    def listed(name: str, value: Any) -> Any:  # noqa: ANN401
        value = _plain(value, several=name in several)
        if name not in several or name in whole:
            if name in kinds:
                _require_kind(name, kinds[name], value)
            return value
        match several[name][1]:
            case "int":
                return _numbers(name, value)
            case "float":
                return _floats(name, value)
        return _texts(value)

    @wraps(function)
    def checked(*arguments: P.args, **options: P.kwargs) -> R:
        refuse_unknown(function.__name__, options, names)
        given = [listed(positions.get(at, ""), value) for at, value in enumerate(arguments)]
        for name, value in [*zip(positions.values(), arguments, strict=False), *options.items()]:
            require_in_bounds(name, value)
        return function(*given, **{name: listed(name, value) for name, value in options.items()})

    checked.__signature__ = signature  # type: ignore[attr-defined]
    return checked


def require_in_bounds(name: str, value: object) -> None:
    """Refuse a seed that no generator takes, and more repeats or processes than can be meant.

    Raises
    ------
    UsageError
        If a number is out of the range that `BOUNDS` has of its name.
    """
    if not isinstance(value, int):
        return
    low, high = BOUNDS.get(name, (value, value))
    if name == "jobs":
        from featstore.processes import available_cores

        low, high = (-1 if value == -1 else 1), max(JOBS, JOBS_PER_CORE * available_cores())
    if not low <= value <= high:
        least = "-1 (one for each core), or 1" if name == "jobs" else str(low)
        raise UsageError(
            f"--{name.replace('_', '-')} {value} is out of range.", f"Give a whole number: {least} to {high}."
        )


def refuse_unknown(function: str, options: Iterable[str], names: Iterable[str]) -> None:
    """Refuse arguments that a function does not take, as Python does, and name the nearest.

    Raises
    ------
    TypeError
        If an option is none of the names.
    """
    known = list(names)
    for option in options:
        if option not in known:
            close = nearest(option, known)
            hint = f"Did you mean {close[0]!r}?" if close else f"See help(featstore.{function})."
            raise TypeError(f"{function}() got an unexpected keyword argument {option!r}. {hint}")


def _spelt_out(function: Callable[..., Any]) -> inspect.Signature:
    """Signature with the entries of an unpacked TypedDict in the place of ``**``."""
    signature = inspect.signature(function)
    parameters: list[inspect.Parameter] = []
    for one in signature.parameters.values():
        unpacked = _UNPACKED.search(str(one.annotation))
        if one.kind is not one.VAR_KEYWORD or unpacked is None:
            parameters.append(one)
            continue
        entries = inspect.unwrap(function).__globals__[unpacked[1]].__annotations__
        parameters += [_parameter(name, kind) for name, kind in entries.items()]
    return signature.replace(parameters=parameters)


def _parameter(name: str, annotation: Any) -> inspect.Parameter:  # noqa: ANN401
    kind = getattr(annotation, "__forward_arg__", annotation)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=False if kind in {"bool", bool} else None,
        annotation=kind,
    )


def _plain(value: Any, *, several: bool) -> Any:  # noqa: ANN401
    """Numbers and arrays of NumPy as Python's own, patterns as text; several of anything as a list."""
    if isinstance(value, re.Pattern):
        return value.pattern
    if isinstance(value, Mapping) and any(isinstance(one, Path) for one in value.values()):
        return {key: str(one) if isinstance(one, Path) else one for key, one in value.items()}
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist() if several or not getattr(value, "ndim", 0) else value
    if several and isinstance(value, (set, frozenset)):
        return sorted(value)
    return list(value) if several and isinstance(value, Iterator) else value


_PATHS = frozenset({"data", "folder", "run"})
_NO_PATHS = (list, tuple, dict, set, bytes, int, float, type(None))
_RESULTS = "featstore.results."


def _require_kind(name: str, kind: str, value: object) -> None:
    """Refuse a value of another kind than the signature's: the plain ones only, which are mixed up in notebooks.

    Raises
    ------
    TypeError
        If it is; the text says what to give.
    """
    one, *optional = kind.split(" | ")
    if value is None and optional[-1:] == ["None"]:
        return
    if (
        name in _PATHS
        and "Path" in kind
        and (
            isinstance(value, _NO_PATHS)
            or hasattr(value, "columns")
            or type(value).__module__.startswith(_RESULTS)
        )
    ):
        what = "nothing" if value is None else f"a {type(value).__name__}"
        raise TypeError(f"{name} is {what}: give the path of a folder or of a file, such as {name}='place'.")
    if value is None:
        if kind in _EXAMPLES:
            raise TypeError(f"{name}=None is nothing: leave it out, or give {_EXAMPLES[one].format(name)}.")
        return
    if isinstance(value, str) and _MAPPING.match(kind):
        raise TypeError(f"{name}={value!r} is text: give a dict, such as {name}={{'NAME': 'VALUE'}}.")
    if optional not in ([], ["None"]) or one not in _EXAMPLES:
        return
    right = {
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, (int, float)) and not isinstance(value, bool),
        "str": isinstance(value, (str, Path)),
    }[one]
    if not right:
        raise TypeError(f"{name}={value!r} is of another kind: give {_EXAMPLES[one].format(name)}.")


_EXAMPLES = {
    "int": "a whole number, such as {0}=1",
    "float": "a number, such as {0}=0.5",
    "str": "a text, such as {0}='...'",
}
_MAPPING = re.compile(r"(Mapping|dict)\[[^|]*\]( \| None)?$")


def _texts(value: Any) -> Any:  # noqa: ANN401
    return [value] if isinstance(value, (str, Path)) else value


def _numbers(name: str, value: Any) -> Any:  # noqa: ANN401
    """Whole numbers; text is none, not even letter by letter."""
    try:
        return [operator.index(value)]
    except TypeError:
        if isinstance(value, (str, bytes)):
            message = f"{name}={value!r} is text: give whole numbers, such as {name}=[1, 2]."
            raise TypeError(message) from None
        return value


def _floats(name: str, value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, (str, bytes)):
        message = f"{name}={value!r} is text: give numbers, such as {name}=[60, 20, 20]."
        raise TypeError(message)
    return [value] if isinstance(value, (int, float)) else value


def refuse_settled(options: Mapping[str, Any], names: Iterable[str], by: str) -> None:
    """Refuse options that would be ignored, since something else says what they ask.

    Raises
    ------
    UsageError
        If one of the names is given and not None.
    """
    if given := [name for name in names if options.get(name) is not None]:
        raise UsageError(f"{', '.join(given)} would be ignored: {by}.", f"Leave out {' and '.join(given)}.")
