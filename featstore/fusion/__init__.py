"""Fusion strategies: scikit-learn classifiers over named column blocks."""
