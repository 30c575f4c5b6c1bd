"""How well probabilities are calibrated, in sentences that terminal, report and card share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featstore.evaluation.metrics import ENOUGH_IMAGES

if TYPE_CHECKING:
    from collections.abc import Mapping


def calibration_text(curves: Mapping[str, Any]) -> str:
    """ECE beside that of a perfectly calibrated model, calibration slope and intercept; empty of an older run.

    Parameters
    ----------
    curves
        Of one contestant or split, as in metrics.json.
    """
    return " ".join(
        part
        for part in (_error(curves.get("calibration_error")), _slope(curves.get("recalibration")))
        if part
    )


def _error(part: Mapping[str, Any] | None) -> str:
    if part is None:
        return ""
    if part["ece"] is None or part["expected"] is None:
        return f"ECE not computed: fewer than {ENOUGH_IMAGES} images ({part['images']})."
    return (
        f"ECE {part['ece']:.3f}; a perfectly calibrated model would show {part['expected']:.3f} on as many images, by"
        " chance alone."
    )


def _slope(part: Mapping[str, Any] | None) -> str:
    if part is None:
        return ""
    if part["why"]:
        return f"Calibration slope and intercept are undefined: {part['why']}."
    return (
        f"Calibration slope {_number(part['slope'])} (1 is best; below: too sure), intercept"
        f" {_number(part['intercept'])} (0 is best)."
    )


def _number(part: Mapping[str, Any]) -> str:
    interval = part["interval"]
    told = "no interval" if interval is None else f"{interval[0]:.2f}, {interval[1]:.2f}"
    return f"{part['value']:.2f} [{told}]"
