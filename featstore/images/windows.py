"""Windows: which values become black and white, by name, as level and width, or as each file says of itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from featstore.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

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
            "Give one, or three: one for each channel, such as lung,mediastinal,bone.",
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
            f"{did_you_mean(first, (*WINDOWS, 'file'))} Or write level,width.",
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
        return f"--range={','.join(map(_number, value_range))}"
    return f"--window={','.join(_window_name(low, high) for low, high in pairs(value_range))}"


def pairs(value_range: Sequence[float]) -> list[tuple[float, float]]:
    """Black and white of each window of a value range, one or three."""
    return list(zip(value_range[::2], value_range[1::2], strict=True))


def _window_name(low: float, high: float) -> str:
    """Name of a window, or level and width."""
    names = {window_range(*window): name for name, window in WINDOWS.items()}
    return names.get((low, high)) or f"{_number((low + high) / 2)},{_number(high - low)}"


def _number(value: float) -> str:
    short = format(value, "g")
    return short if float(short) == value else repr(value)
