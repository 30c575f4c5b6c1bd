"""One small extracted data set that all tests of the command line share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - dataclass field

import pytest
from commandline import NETS, Outcome, featstore

from featstore.phantom import make_phantoms


@dataclass(frozen=True)
class World:
    data: Path
    cache: Path
    first: Outcome


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Phantoms of 16 patients, extracted once through the command line: identity and one view."""
    folder = tmp_path_factory.mktemp("world")
    data = make_phantoms(folder / "phantoms", patients=16, slices=2, size=64)
    cache = folder / "cache"
    arguments = ["extract", data, *NETS, "--recipe", "mild", "--seeds", "1", "--cache", cache]
    first = featstore(*arguments, "--out", folder / "run")
    assert first.code == 0, first.err
    return World(data, cache, first)
