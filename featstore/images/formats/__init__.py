"""Formats of image files: how a file is recognised, checked and decoded."""
