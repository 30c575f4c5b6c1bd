"""Whether probabilities can be taken at their word, acted upon, and left out where unsure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.evaluation.metrics import ENOUGH_IMAGES
from featstore.report.calibration import calibration_error
from featstore.report.figures.canvas import (
    SHOWN,
    abbreviated,
    below,
    blank,
    canvas,
    entry,
    grey_lines,
    mark,
    stroke,
)
from featstore.report.figures.picture import GREY, Picture, drawing
from featstore.report.plain import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Curves = Mapping[str, Mapping[str, Any]]

SIDE = 3.6
HEIGHT = 2.8
TOO_FEW = f"no ECE: fewer than {ENOUGH_IMAGES} images"
TREAT = 0.5
"""Threshold at which the alt text of decision curves reads off the net benefit."""


def reliability(
    curves: Curves, *, name: str = "reliability", title: str = "Reliability of the probabilities"
) -> Picture:
    """Share of images that were positive against the probability that was given, bin by bin.

    Parameters
    ----------
    curves
        By contestant, as in metrics.json: the key ``calibration`` has ``predicted``, ``observed`` (shares) and
        ``images`` of each bin. Contestants without it are left out. The key ``calibration_error`` has the ECE that a
        perfectly calibrated model would show, ``expected``.
    name, title
        Of the picture.

    References
    ----------
    Niculescu-Mizil & Caruana, Predicting good probabilities with supervised learning, ICML 2005.
    """
    parts = _of(curves, "calibration", "predicted")
    if not parts:
        why = "No reliability diagram can be drawn: it is about one positive class, and none was named."
        return blank(name, title, why)
    chance = {who: (part.get("calibration_error") or {}).get("expected") for who, part in curves.items()}
    return _reliability(_best_first(parts, calibration_error), chance, name, title)


def decision_curves(
    curves: Curves, *, name: str = "decision-curves", title: str = "Net benefit of acting on the probability"
) -> Picture:
    """Net benefit against the probability from which one would act, beside treating everyone and no one.

    Parameters
    ----------
    curves
        By contestant, as in metrics.json: the key ``decision`` has ``threshold``, ``net_benefit`` and ``treat_all``,
        per image. Contestants without it are left out.
    name, title
        Of the picture.

    References
    ----------
    Vickers & Elkin, Decision curve analysis, Medical Decision Making 26, 2006.
    """
    parts = _of(curves, "decision", "threshold")
    if not parts:
        why = "No decision curve can be drawn: it is about one positive class, and none was named."
        return blank(name, title, why)
    return _decisions(_best_first(parts, lambda part: -float(np.mean(part["net_benefit"]))), name, title)


def risk_coverage(
    curves: Curves, *, name: str = "risk-coverage", title: str = "Errors among the images answered"
) -> Picture:
    """Share of wrong answers when only the surest share of the images is answered.

    Parameters
    ----------
    curves
        By contestant, as in metrics.json: the key ``risk_coverage`` has ``coverage``, ``risk`` (shares) and ``aurc``.
    name, title
        Of the picture.

    References
    ----------
    Geifman & El-Yaniv, Selective classification for deep neural networks, NeurIPS 2017.
    """
    parts = _of(curves, "risk_coverage", "coverage")
    if not parts:
        return blank(name, title, "No image was answered, so there is no risk to draw.")
    return _risks(_best_first(parts, lambda part: float(part["aurc"])), name, title)


def error_text(part: Mapping[str, Any], expected: float | None = None) -> str:
    """ECE in words, with that of a perfectly calibrated model; or why there is none."""
    if sum(part["images"]) < ENOUGH_IMAGES:
        return TOO_FEW
    beside = "" if expected is None else f" (by chance {expected:.3f})"
    return f"ECE {calibration_error(part):.3f}{beside}"


def _of(curves: Curves, kind: str, key: str) -> dict[str, Mapping[str, Any]]:
    found = {who: parts.get(kind) or {} for who, parts in curves.items()}
    return {who: part for who, part in found.items() if part.get(key)}


def _best_first(
    parts: Mapping[str, Mapping[str, Any]], loss: Callable[[Mapping[str, Any]], float]
) -> dict[str, Mapping[str, Any]]:
    return dict(sorted(parts.items(), key=lambda item: loss(item[1])))


def _labels(parts: Mapping[str, Any]) -> tuple[list[str], str]:
    return abbreviated(list(parts)[:SHOWN], 2.4, 8)


def _others(parts: Mapping[str, Any], order: str) -> str:
    return f" Grey: {len(parts) - SHOWN} others with a higher {order}." if len(parts) > SHOWN else ""


@drawing
def _reliability(
    parts: Mapping[str, Mapping[str, Any]], chance: Mapping[str, float | None], name: str, title: str
) -> Picture:
    figure, axes = canvas(SIDE, SIDE)
    values = list(parts.values())
    grey_lines(axes, ((part["predicted"], part["observed"]) for part in values[SHOWN:]))
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (2, 2)), linewidth=1.0, label="taken at its word")
    labels, key = _labels(parts)
    for at, ((who, part), label) in enumerate(zip(parts.items(), labels, strict=False)):
        axes.plot(
            part["predicted"],
            part["observed"],
            label=entry(f"{label}: {error_text(part, chance[who])}"),
            markersize=4,
            **stroke(at) | mark(at),
        )
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set(xlabel="probability given (mean of the bin)", ylabel="share that was positive")
    images = sum(values[0]["images"])
    told = "; ".join(f"{printable(who)} {error_text(part, chance[who])}" for who, part in _named(parts))
    by_chance = (
        " By chance: the ECE of a perfectly calibrated model on as many images."
        if any(chance.values())
        else ""
    )
    below(
        axes,
        f"{_bins_text(values[0]['images'])} Above the line: too cautious; below: too sure.{by_chance}"
        f"{_others(parts, 'ECE')}\n{key}",
    )
    return Picture(name, title, f"{title} on {images:.0f} images, 0 is best: {told}.", figure)


def _bins_text(counts: Sequence[float]) -> str:
    """How many images a point stands for."""
    images, least, most = sum(counts), min(counts), max(counts)
    if len(counts) == 1:
        return f"{images:.0f} images, too few for more than one point."
    each = f"{least:.0f}" if least == most else f"{least:.0f} to {most:.0f}"
    return f"{images:.0f} images in {len(counts)} bins of {each} (first curve)."


@drawing
def _decisions(parts: Mapping[str, Mapping[str, Any]], name: str, title: str) -> Picture:
    figure, axes = canvas(HEIGHT)
    values = list(parts.values())
    grey_lines(axes, ((part["threshold"], part["net_benefit"]) for part in values[SHOWN:]))
    first = values[0]
    axes.plot(
        first["threshold"], first["treat_all"], color=GREY, linestyle=(0, (2, 2)), label="treat everyone"
    )
    axes.axhline(0.0, color=GREY, linewidth=1.2, label="treat no one")
    labels, key = _labels(parts)
    for at, (part, label) in enumerate(zip(values, labels, strict=False)):
        axes.plot(part["threshold"], part["net_benefit"], label=entry(label), **stroke(at))
    top = max(max(part["net_benefit"]) for part in values)
    top = max(top, *first["treat_all"], 0.05)
    axes.set(xlim=(0, 1), ylim=(-0.25 * top, 1.08 * top))
    axes.set(xlabel="probability from which one would act", ylabel="net benefit per image")
    below(
        axes,
        "Worth using only where above both grey lines; needs calibrated probabilities. Curves below the frame are"
        f" cut off.{_others_by_mean(parts)}\n{key}",
    )
    told = "; ".join(f"{printable(who)} {_at(part, 'net_benefit'):+.3f}" for who, part in _named(parts))
    everyone = _at(first, "treat_all")
    return Picture(
        name,
        title,
        f"Net benefit per image at a threshold of {TREAT:g}: {told}; treating everyone {everyone:+.3f}, no one 0.",
        figure,
    )


@drawing
def _risks(parts: Mapping[str, Mapping[str, Any]], name: str, title: str) -> Picture:
    figure, axes = canvas(HEIGHT)
    values = list(parts.values())
    grey_lines(axes, ((part["coverage"], part["risk"]) for part in values[SHOWN:]))
    labels, key = _labels(parts)
    for at, (part, label) in enumerate(zip(values, labels, strict=False)):
        axes.plot(
            part["coverage"], part["risk"], label=entry(f"{label}: AURC {part['aurc']:.3f}"), **stroke(at)
        )
    axes.set(xlim=(0, 1.01), ylim=(0, None))
    axes.set(
        xlabel="share of the images answered, surest first", ylabel="share of these answers that is wrong"
    )
    below(axes, f"What is left of the curve would be left to a physician.{_others(parts, 'AURC')}\n{key}")
    told = "; ".join(
        f"{printable(who)} AURC {part['aurc']:.3f}, {100 * part['risk'][-1]:.1f} % wrong when all are answered"
        for who, part in _named(parts)
    )
    return Picture(name, title, f"{title}: {told}.", figure)


def _named(parts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return list(parts.items())[:SHOWN]


def _others_by_mean(parts: Mapping[str, Any]) -> str:
    return f" Grey: {len(parts) - SHOWN} others with a lower mean." if len(parts) > SHOWN else ""


def _at(part: Mapping[str, Any], key: str) -> float:
    return float(np.interp(TREAT, part["threshold"], part[key]))
