"""What stage two loads: aligned features with named column blocks and a view axis."""

from featstore.matrix.features import FeatureMatrix
from featstore.matrix.load import Source, load_matrix

__all__ = ["FeatureMatrix", "Source", "load_matrix"]
