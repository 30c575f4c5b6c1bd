"""Formats of image files: what a file is, and how it becomes pixels."""
