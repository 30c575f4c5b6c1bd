"""What every test can count on: no user settings, no shared cache, patient hypothesis."""

import pytest
from hypothesis import settings

settings.register_profile("featstore", deadline=None)
settings.load_profile("featstore")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Each test runs in a folder of its own, so that no default writes into the checkout or the user's home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEATSTORE_CACHE", raising=False)
