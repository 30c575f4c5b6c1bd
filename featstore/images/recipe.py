"""Augmentation recipes and windows as text, which people read, HDF5 keeps and the feature key hashes.

A window says which values become black and white: by name, as level and width, or as each file says of itself.
"""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from featstore.arguments import public
from featstore.errors import RecipeError, UnknownNameError, UsageError, did_you_mean, nearest
from featstore.tables import Rows
from featstore.types import IDENTITY_RECIPE

if TYPE_CHECKING:
    from collections.abc import Sequence


Range = tuple[float, float]

FILLS: Final = ("nearest", "reflect", "wrap", "constant")
FLIPS: Final = {"": "", "h": "h", "v": "v", "hv": "hv", "vh": "hv"}
PRESETS: Final[dict[str, str]] = {
    "identity": IDENTITY_RECIPE,
    "paper": "shear(20)|rotate(0,40)|shift(0.5)|zoom(0.2)|flip(hv)|fill(nearest)",
    "mild": "rotate(5)|shift(0.05)|zoom(0.05)|flip(h)|fill(nearest)",
    "flips": "flip(hv)",
}
SLUG_LENGTH: Final = 40

_SUMMARIES: Final = {
    "identity": "The image as it is.",
    "paper": "Ji et al. 2020, medRxiv 10.1101/2020.12.09.20246371; our shear, rotation, zoom and fill.",
    "mild": "Small rotation, shift and zoom, left-right flip: a plausible re-scan of the same patient.",
    "flips": "Left-right and up-down flips alone; no pixel is interpolated.",
}
_STEP: Final = re.compile(r"(\w+)\s*\((.*)\)", re.DOTALL)
_LARGEST: Final = 1e6
_LONGEST: Final = 1000  # characters; Python's parser can be brought down by a text of any length


class _Operation(NamedTuple):
    """Value that does nothing, open bounds of what can be meant, and unit of one ranged operation."""

    neutral: float
    low: float
    high: float
    unit: str


# The order is that of the canonical text.
_RANGED: Final = {
    "shear": _Operation(0.0, -90.0, 90.0, "degrees"),
    "rotate": _Operation(0.0, -_LARGEST, _LARGEST, "degrees"),
    "shift": _Operation(0.0, -_LARGEST, _LARGEST, "fractions of the height and width"),
    "zoom": _Operation(1.0, 0.0, _LARGEST, "factors"),
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What may happen to an image in a view; a range ``(lo, hi)`` excludes `lo`, includes `hi`.

    Equal ends fix a value. A fill that no pixel can need becomes ``nearest``, so recipes that do the same are
    equal and have one text, `str`.

    Attributes
    ----------
    shear
        Shear angle, degrees, within (-90, 90).
    rotate
        Rotation angle, degrees.
    shift
        Shift as a fraction of the height and, drawn apart, of the width.
    zoom
        Sampling step, the same along both axes: above 1 the image shrinks, below 1 it grows.
    flip
        ``h`` (left-right), ``v`` (up-down), ``hv`` (each with probability 1/2), or empty.
    fill
        What lies outside the image: ``nearest``, ``reflect``, ``wrap`` or ``constant``.
    cval
        Grey level outside the image for ``constant``.

    Raises
    ------
    RecipeError
        If a range is reversed, not finite or out of bounds, or a flip or fill is unknown.
    """

    shear: Range = (0.0, 0.0)
    rotate: Range = (0.0, 0.0)
    shift: Range = (0.0, 0.0)
    zoom: Range = (1.0, 1.0)
    flip: str = ""
    fill: str = "nearest"
    cval: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, and bring the rest to its one form."""
        for op in _RANGED:
            object.__setattr__(self, op, _checked_range(op, getattr(self, op)))
        object.__setattr__(self, "flip", _checked_flip(self.flip))
        fill, cval = _checked_fill(self.fill, self.cval)
        object.__setattr__(self, "fill", fill if self._active else "nearest")
        object.__setattr__(self, "cval", cval if self._active else 0.0)

    def __str__(self) -> str:
        """Canonical text: fixed order, shortest numbers, nothing that does nothing."""
        steps = [_format_range(op, getattr(self, op)) for op in self._active]
        if self.flip:
            steps.append(f"flip({self.flip})")
        if self._active:
            level = f",{_format(self.cval)}" if self.cval else ""
            steps.append(f"fill({self.fill}{level})")
        return "|".join(steps) or IDENTITY_RECIPE

    @property
    def is_identity(self) -> bool:
        """Whether every draw leaves pixels alone."""
        return not self._active and not self.flip

    @property
    def _active(self) -> list[str]:
        return [op for op, (neutral, *_) in _RANGED.items() if getattr(self, op) != (neutral, neutral)]


def parse_recipe(text: str) -> Recipe:
    """Read a preset's name or a text such as ``shear(20)|rotate(0,40)|flip(hv)|fill(constant,0)``.

    Operations come in any order. One number m stands for the symmetric range (-m, m], in `zoom` for
    (1-m, 1+m]; two numbers lo,hi for (lo, hi]. Numbers are Python literals; nothing is evaluated.

    Raises
    ------
    RecipeError
        If an operation is unknown, comes twice, or cannot be meant.
    """
    if len(text) > _LONGEST:
        raise RecipeError(
            f"The recipe has {len(text)} characters.", f"No recipe needs more than {_LONGEST}: shorten it."
        )
    text = PRESETS.get(text.strip(), text).strip()
    if text == IDENTITY_RECIPE:
        return Recipe()
    fields: dict[str, Any] = {}
    for step in text.split("|"):
        op, arguments = _split(step.strip())
        if op in fields:
            raise RecipeError(f"The recipe has {op!r} twice.", f"Keep one {op}(...).")
        fields |= _read(op, arguments)
    return Recipe(**fields)


def summary(preset: str) -> str:
    """One line about a preset.

    Raises
    ------
    UnknownNameError
        If there is no such preset.
    """
    if preset not in PRESETS:
        raise UnknownNameError(
            f"There is no preset {preset!r}.", did_you_mean(preset, PRESETS, "featstore recipes")
        )
    return _SUMMARIES[preset]


@dataclass(frozen=True, slots=True)
class RecipeSummary:
    """A preset of the augmentation, as it is listed.

    Attributes
    ----------
    name
        As `featstore.extract` takes it.
    recipe
        Its text, of which one's own can be made.
    summary
        What it is for, in one sentence.
    """

    name: str = field(metadata={"title": "preset"})
    recipe: str
    summary: str = field(metadata={"title": "what it is"})


@public
def recipes() -> Rows[RecipeSummary]:
    """List the presets of the augmentation.

    Examples
    --------
    >>> import featstore
    >>> {preset.name: preset.recipe for preset in featstore.recipes()}["flips"]
    'flip(hv)'
    """
    return Rows(RecipeSummary(name, text, _SUMMARIES[name]) for name, text in PRESETS.items())


def slug(recipe: Recipe) -> str:
    """Folder name of at most 40 letters, digits, ``.``, ``_`` and ``-``: the preset's name if it is one.

    A long recipe is cut off, so the slug is for people; the key beside it tells recipes apart.
    """
    named = {text: name for name, text in PRESETS.items()}
    safe = str(recipe).translate(str.maketrans("|,", "-_", "()+"))
    return named.get(str(recipe)) or safe[:SLUG_LENGTH].rstrip("-._")


def view_name(recipe: str, seed: int) -> str:
    """Name of a view: the preset where its recipe is one, else the recipe's text; then the seed."""
    named = next((name for name in PRESETS if str(parse_recipe(name)) == recipe), recipe)
    return named if recipe == "identity" else f"{named} #{seed}"


def _instead_of(step: str) -> str:
    """Remedy for what is neither a step nor a preset."""
    name = step.partition("(")[0].strip()
    steps = [*_RANGED, "flip", "fill"]
    close = nearest(name, steps if "(" in step else [*PRESETS, *steps])
    question = f"Did you mean {close[0]}? " if close else ""
    known = f"Steps are {', '.join(steps)}, joined by |, such as rotate(40)|flip(h)"
    return f"{question}{known}; `featstore recipes` lists the presets."


def _split(step: str) -> tuple[str, str]:
    match = _STEP.fullmatch(step)
    if match is None or match[1] not in {*_RANGED, "flip", "fill"}:
        raise RecipeError(
            f"{step[:80]!r} is no step of a recipe.",
            _instead_of(step),
        )
    return match[1], match[2].strip()


def _read(op: str, arguments: str) -> dict[str, Any]:
    if op == "flip":
        return {"flip": _checked_flip(arguments or "nothing")}
    if op == "fill":
        mode, comma, level = arguments.partition(",")
        return {"fill": mode.strip()} | ({"cval": _numbers(op, level, 1)[0]} if comma else {})
    numbers = _numbers(op, arguments, 2)
    m, neutral = numbers[0], _RANGED[op].neutral
    return {op: numbers if numbers[1:] else (neutral - m, neutral + m)}


def _numbers(op: str, arguments: str, most: int) -> tuple[float, ...]:
    try:
        numbers = tuple(map(_number, ast.literal_eval(f"({arguments},)")))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError, OverflowError):
        numbers = ()
    if not 1 <= len(numbers) <= most:
        raise RecipeError(
            f"{op} cannot be given {arguments[:80]!r}.",
            "Write finite numbers: rotate(40), rotate(0,40), zoom(0.2), fill(constant,0).",
        )
    return numbers


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(value)
    return float(value) + 0.0  # -0.0 is 0.0


def _checked_range(op: str, values: Range) -> Range:
    _, low, high, unit = _RANGED[op]
    try:
        lo, hi = map(_number, values)
        sound = low < lo <= hi < high
    except (ValueError, TypeError, OverflowError):
        sound = False
    if not sound:
        raise RecipeError(
            f"{op} cannot range over {values!r}.",
            f"Write {op}(m) or {op}(lo,hi), lo <= hi, in {unit} above {low:g} and below {high:g}.",
        )
    return lo, hi


def _checked_flip(flip: str) -> str:
    if flip not in FLIPS:
        raise RecipeError(f"There is no flip {flip!r}.", "Write flip(h), flip(v) or flip(hv).")
    return FLIPS[flip]


def _checked_fill(fill: str, cval: float) -> tuple[str, float]:
    if fill not in FILLS or not -_LARGEST < cval < _LARGEST or (cval and fill != "constant"):
        raise RecipeError(
            f"There is no fill {fill!r} with grey level {cval!r}.",
            "Write fill(nearest), fill(reflect), fill(wrap) or fill(constant,0).",
        )
    return fill, float(cval) + 0.0


def _format_range(op: str, values: Range) -> str:
    neutral, hi = _RANGED[op].neutral, values[1]
    for digits in range(1, 18):
        # 1 - 0.2 and 1 + 0.2 are not 0.2 away from 1 in binary: find the decimal that gives both.
        m = float(f"{hi - neutral:.{digits}g}")
        if (neutral - m, neutral + m) == values:
            return f"{op}({_format(m)})"
    return f"{op}({_format(values[0])},{_format(values[1])})"


def _format(value: float) -> str:
    return repr(value).removesuffix(".0")


WINDOWS: dict[str, tuple[float, float]] = {
    "bone": (400, 1800),
    "brain": (40, 80),
    "lung": (-600, 1500),
    "mediastinal": (40, 400),
}
"""Name to level and width in Hounsfield units, as radiology departments use them."""

FILE_WINDOW = (1.0, -1.0)
"""In the place of a value range: the window that each file has of its own. No range falls, so none is this one."""


def window_range(level: float, width: float) -> tuple[float, float]:
    """Values that become black and white.

    This is the function LINEAR_EXACT of DICOM (PS3.3 C.11.2.1.3.2): values up to level - width / 2 are black, from
    level + width / 2 on white. LINEAR, which scanners mean, is narrower by 1 and lower by 1/2.
    """
    return level - width / 2, level + width / 2


def parse_window(text: str) -> tuple[float, ...]:
    """Values that become black and white, of one window or of three.

    Parameters
    ----------
    text
        ``lung``; ``-600,1500`` (level and width); ``file``; or three of the first two kinds, such as
        ``lung,mediastinal,bone`` or ``lung,40,400,bone``: one for red, one for green, one for blue.

    Returns
    -------
    tuple of float
        ``(low, high)``, `FILE_WINDOW`, or the three pairs in one row.

    Raises
    ------
    UsageError
        If there is no such window, or there are two, or more than three.
    """
    if text == "file":
        return FILE_WINDOW
    parts = [part.strip() for part in text.split(",")]
    found: list[float] = []
    while parts:
        found += _next_window(parts, text)
    if len(found) not in {2, 6}:
        raise UsageError(
            f"--window {text!r} names {len(found) // 2} windows.",
            "Give one, or three, one for each channel: --window lung,mediastinal,bone",
        )
    return tuple(found)


def _next_window(parts: list[str], text: str) -> tuple[float, float]:
    """Take the next window from the front of what was written: a name, or level and width."""
    first = parts.pop(0)
    if first in WINDOWS:
        return window_range(*WINDOWS[first])
    if first == "file":
        raise UsageError(
            "The window of the file cannot stand beside others.", "Give --window file, or three by name."
        )
    try:
        level = float(first)
    except ValueError:
        raise UsageError(
            f"There is no window {first!r}.",
            f"{did_you_mean(first, (*WINDOWS, 'file'))} Or write level and width: --window=-600,1500",
        ) from None
    try:
        width = float(parts.pop(0))
    except (ValueError, IndexError):
        width = 0.0
    if not (math.isfinite(level) and 0 < width < math.inf):
        raise UsageError(
            f"--window {text!r} is not level and width.", "Write for instance --window=-600,1500."
        )
    return window_range(level, width)


def range_option(value_range: Sequence[float]) -> str:
    """Option of the command line that declares a value range: ``--range=-1350,150``, or ``--window`` of others."""
    if tuple(value_range) == FILE_WINDOW:
        return "--window=file"
    if len(value_range) == 2:  # noqa: PLR2004
        return f"--range={','.join(map(_text, value_range))}"
    return f"--window={','.join(_window_name(low, high) for low, high in pairs(value_range))}"


def pairs(value_range: Sequence[float]) -> list[tuple[float, float]]:
    """Black and white of each window of a value range, one or three."""
    return list(zip(value_range[::2], value_range[1::2], strict=True))


def _window_name(low: float, high: float) -> str:
    """Name of a window, or level and width."""
    names = {window_range(*window): name for name, window in WINDOWS.items()}
    return names.get((low, high)) or f"{_text((low + high) / 2)},{_text(high - low)}"


def _text(value: float) -> str:
    short = format(value, "g")
    return short if float(short) == value else repr(value)
