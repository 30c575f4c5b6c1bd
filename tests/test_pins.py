"""Pins that must follow somebody else's: the newest that is allowed, and not merely one that works."""

import re
from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
H5PY = ("3.11.0", "3.12.0", "3.12.1", "3.13.0", "3.14.0", "3.15.0", "3.15.1", "3.16.0")
"""Releases as of 2026-11; a newer one that TensorFlow allows is to be added here, and pinned."""


def pinned(name):
    return Version(re.search(rf"^{name}==(\S+)", CONSTRAINTS.read_text(), re.MULTILINE)[1])


def test_h5py_is_the_newest_that_tensorflow_allows():
    """HDF5 mends its defects in new releases, and comes with h5py."""
    wanted = next(r for r in map(Requirement, requires("tensorflow")) if r.name == "h5py")
    newest = max(Version(release) for release in H5PY if Version(release) in wanted.specifier)
    assert pinned("h5py") == newest == Version(version("h5py"))
