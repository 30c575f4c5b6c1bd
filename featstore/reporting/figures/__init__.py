"""Plotting functions: plain numbers in, a `Picture` out; any run, report or notebook may use them.

``from featstore.reporting import figures`` loads nothing; matplotlib comes with the first picture.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featstore.reporting.figures.comparison import (
        critical_difference,
        forest,
        lattice,
        pareto,
        views_curve,
    )
    from featstore.reporting.figures.curves import (
        decision_curves,
        precision_recall,
        reliability,
        risk_coverage,
        roc,
    )
    from featstore.reporting.figures.data import (
        augmentation_grid,
        confusion,
        distribution,
        embedding_map,
        image_grid,
    )
    from featstore.reporting.figures.networks import accuracy_curves, fusion_diagram, loss_curves
    from featstore.reporting.figures.style import Picture


__all__ = [
    "Picture", "accuracy_curves", "augmentation_grid", "confusion", "critical_difference", "decision_curves",
    "distribution", "embedding_map", "forest", "fusion_diagram", "image_grid", "lattice", "loss_curves", "pareto",
    "precision_recall", "reliability", "risk_coverage", "roc", "views_curve",
]  # fmt: skip

_HOMES = {
    "Picture": "style",
    "accuracy_curves": "networks",
    "augmentation_grid": "data",
    "confusion": "data",
    "critical_difference": "comparison",
    "decision_curves": "curves",
    "distribution": "data",
    "embedding_map": "data",
    "forest": "comparison",
    "fusion_diagram": "networks",
    "image_grid": "data",
    "lattice": "comparison",
    "loss_curves": "networks",
    "pareto": "comparison",
    "precision_recall": "curves",
    "reliability": "curves",
    "risk_coverage": "curves",
    "roc": "curves",
    "views_curve": "comparison",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import a plotting function when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'featstore.reporting.figures' has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Names of the public functions."""
    return sorted(__all__)
