"""Evaluation, stage two: the only place where a matrix meets a strategy."""
