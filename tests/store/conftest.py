"""Fixtures of the store's tests."""

import shutil
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def open_folder():
    """A temporary folder that nobody can reach, too; pytest's own are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="featstore-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
