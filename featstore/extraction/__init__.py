"""Extraction, stage one: the only place where images, a backbone and a store meet."""
