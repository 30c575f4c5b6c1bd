# The plotting functions, and where each lives; loaded when first asked for.

from .comparison import (
    critical_difference,
    differences,
    forest,
    lattice,
    pareto,
    views_curve,
)
from .curves import (
    decision_curves,
    precision_recall,
    reliability,
    risk_coverage,
    roc,
)
from .data import (
    augmentation_grid,
    confusion,
    distribution,
    embedding_map,
    flow_diagram,
    image_grid,
)
from .networks import accuracy_curves, fusion_diagram, loss_curves
from .style import Picture

__all__ = [
    "Picture",
    "accuracy_curves",
    "augmentation_grid",
    "confusion",
    "critical_difference",
    "decision_curves",
    "differences",
    "distribution",
    "embedding_map",
    "flow_diagram",
    "forest",
    "fusion_diagram",
    "image_grid",
    "lattice",
    "loss_curves",
    "pareto",
    "precision_recall",
    "reliability",
    "risk_coverage",
    "roc",
    "views_curve",
]
