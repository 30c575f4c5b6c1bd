"""Plotting functions: plain numbers in, a `Picture` out; any run, report or notebook may use them.

``from featstore.report import figures`` loads nothing; matplotlib comes with the first picture.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featstore.report.figures.answers import confusion
    from featstore.report.figures.dataset import distribution
    from featstore.report.figures.diagram import fusion_diagram
    from featstore.report.figures.discrimination import precision_recall, roc
    from featstore.report.figures.embedding import embedding_map
    from featstore.report.figures.picture import Picture
    from featstore.report.figures.probabilities import decision_curves, reliability, risk_coverage
    from featstore.report.figures.ranking import critical_difference, forest
    from featstore.report.figures.samples import augmentation_grid, image_grid
    from featstore.report.figures.subsets import lattice, pareto
    from featstore.report.figures.training import accuracy_curves, loss_curves
    from featstore.report.figures.views import views_curve

__all__ = [
    "Picture", "accuracy_curves", "augmentation_grid", "confusion", "critical_difference", "decision_curves",
    "distribution", "embedding_map", "forest", "fusion_diagram", "image_grid", "lattice", "loss_curves", "pareto",
    "precision_recall", "reliability", "risk_coverage", "roc", "views_curve",
]  # fmt: skip

_HOMES = {
    "Picture": "picture",
    "accuracy_curves": "training",
    "augmentation_grid": "samples",
    "confusion": "answers",
    "critical_difference": "ranking",
    "decision_curves": "probabilities",
    "distribution": "dataset",
    "embedding_map": "embedding",
    "forest": "ranking",
    "fusion_diagram": "diagram",
    "image_grid": "samples",
    "lattice": "subsets",
    "loss_curves": "training",
    "pareto": "subsets",
    "precision_recall": "discrimination",
    "reliability": "probabilities",
    "risk_coverage": "probabilities",
    "roc": "discrimination",
    "views_curve": "views",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import a plotting function when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'featstore.report.figures' has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Names of the public functions."""
    return sorted(__all__)
