"""Export of features for other tools, and import of their features."""
