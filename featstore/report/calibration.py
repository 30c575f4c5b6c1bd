"""How well probabilities are calibrated, in sentences that terminal, report and card share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

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


def calibration_error(part: Mapping[str, Any]) -> float:
    """Mean over the images of the distance between what a bin was told and what it was (ECE)."""
    gap = np.abs(np.subtract(part["predicted"], part["observed"]))
    return float(np.average(gap, weights=part["images"]))


def chance_text(curves: Mapping[str, Any]) -> str:
    """ECE of a perfectly calibrated model on as many images, for a table; empty where it is not known."""
    expected = (curves.get("calibration_error") or {}).get("expected")
    return "" if expected is None else f"{expected:.3f} by chance"


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
    if part["why"] or part["slope"]["value"] is None or part["intercept"]["value"] is None:
        return f"Calibration slope and intercept are undefined: {part['why']}."
    return (
        f"Calibration slope {_number(part['slope'])} (1 is best; below: too sure), intercept"
        f" {_number(part['intercept'])} (0 is best)."
    )


def _number(part: Mapping[str, Any]) -> str:
    interval = part["interval"]
    told = "no interval" if interval is None else f"{interval[0]:.2f}, {interval[1]:.2f}"
    return f"{part['value']:.2f} [{told}]"
