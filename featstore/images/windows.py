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


def parse_window(text: str) -> tuple[float, float]:
    """``lung``, or ``-600,1500`` (level and width), as the range of values that it shows; ``file`` as `FILE_WINDOW`.

    Raises
    ------
    UsageError
        If there is no such window.
    """
    if text == "file":
        return FILE_WINDOW
    if text in WINDOWS:
        return window_range(*WINDOWS[text])
    if "," not in text:
        raise UsageError(
            f"There is no window {text!r}.", f"{did_you_mean(text, (*WINDOWS, 'file'))} Or write level,width."
        )
    try:
        level, width = (float(part) for part in text.split(","))
    except ValueError:
        level, width = 0.0, 0.0
    if not (math.isfinite(level) and 0 < width < math.inf):
        raise UsageError(
            f"--window {text!r} is not level and width.", "Write for instance --window=-600,1500."
        )
    return window_range(level, width)


def range_option(value_range: Sequence[float]) -> str:
    """Option of the command line that declares a value range: ``--range=-1350,150``, or ``--window=file``."""
    if tuple(value_range) == FILE_WINDOW:
        return "--window=file"
    return f"--range={','.join(map(_number, value_range))}"


def _number(value: float) -> str:
    short = format(value, "g")
    return short if float(short) == value else repr(value)
