"""Windows of CT: which Hounsfield units become black and white, by name or as level and width."""

from __future__ import annotations

import math

from featstore.errors import UsageError, did_you_mean

WINDOWS: dict[str, tuple[float, float]] = {
    "bone": (400, 1800),
    "brain": (40, 80),
    "lung": (-600, 1500),
    "mediastinal": (40, 400),
}
"""Name to level and width in Hounsfield units, as radiology departments use them."""


def window_range(level: float, width: float) -> tuple[float, float]:
    """Values that become black and white.

    This is the function LINEAR_EXACT of DICOM (PS3.3 C.11.2.1.3.2): values up to level - width / 2 are black, from
    level + width / 2 on white. LINEAR, which scanners mean, is narrower by 1 and lower by 1/2.
    """
    return level - width / 2, level + width / 2


def parse_window(text: str) -> tuple[float, float]:
    """``lung``, or ``-600,1500`` (level and width), as the range of values that it shows.

    Raises
    ------
    UsageError
        If there is no such window.
    """
    if text in WINDOWS:
        return window_range(*WINDOWS[text])
    if "," not in text:
        raise UsageError(
            f"There is no window {text!r}.", f"{did_you_mean(text, WINDOWS)} Or write level,width."
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
