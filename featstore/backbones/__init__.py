"""Frozen networks: the catalogue, their weights, and the compiled forward pass."""
