"""What every test can count on: no user settings, no shared cache, patient hypothesis.

Properties explore new examples at every run on a desk, and repeat the same ones in CI.
"""

import os
from collections import Counter, defaultdict

import pytest
from hypothesis import settings

settings.register_profile("explore", deadline=None)
settings.register_profile("repeat", deadline=None, derandomize=True)
settings.load_profile("repeat" if os.environ.get("CI") else "explore")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Each test runs in a folder of its own, so that no default writes into the checkout or the user's home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEATSTORE_CACHE", raising=False)


TOLD = ("crash", "concurrency", "hostile")
"""Markers whose tests say at the end what they tried, and how many."""
TRIED = pytest.StashKey[defaultdict[str, Counter]]()


def pytest_configure(config):
    config.stash[TRIED] = defaultdict(Counter)


@pytest.fixture
def tried(request):
    """Count what a test tried: ``tried("kills")``, ``tried("files", 12)``, ``tried("shards bad", 0)``."""
    (marker,) = {mark.name for mark in request.node.iter_markers()}.intersection(TOLD)

    def count(what, times=1):
        request.config.stash[TRIED][marker][what] += times

    return count


def pytest_terminal_summary(terminalreporter, config):
    for marker, counts in sorted(config.stash[TRIED].items()):
        told = ", ".join(f"{times:,} {what}" for what, times in counts.items())
        terminalreporter.write_line(f"{marker}: {told}")
