"""Fixtures of the store's tests."""

import shutil
import tempfile
from importlib import import_module
from pathlib import Path

import pytest

from featstore.store import verify as repair
from featstore.store import verify as verification


@pytest.fixture
def open_folder():
    """A temporary folder that nobody can reach, too; pytest's own are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="featstore-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def in_this_process(monkeypatch):
    """Read files here: a process that reads for others starts as another user than `without_rights` makes of this."""

    def call(work, path, *arguments):
        module, _, name = work.partition(":")
        return getattr(import_module(module), name)(path, *arguments)

    for module in (verification, repair):
        monkeypatch.setattr(module, "call_isolated", call)
