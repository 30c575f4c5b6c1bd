"""The examples in the docstrings of what is public run as they stand, offline, one after the other in one folder."""

import doctest
import inspect

import pytest

import featstore
from featstore import types as blocks
from featstore.fusion.strategy import FusionStrategy

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
LIGHT = [
    "FeatstoreError", "Manifest", "backbones", "check", "import_features", "make_phantoms", "recipes", "scan",
    "strategies",
]  # fmt: skip
"""Examples that need no network."""
FUNCTIONS = [
    name for name in featstore.__all__ if inspect.isfunction(inspect.unwrap(getattr(featstore, name)))
]
EXPLAINED = [
    name
    for name in featstore.__all__
    if ">>>" in (inspect.getdoc(inspect.unwrap(getattr(featstore, name))) or "")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One for all: what an example makes, the next one finds made."""
    return tmp_path_factory.mktemp("examples")


def failures(thing, name):
    """What the examples of one object print that they do not say; nothing where all is as it says."""
    told = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=FLAGS)
    (test,) = [t for t in doctest.DocTestFinder(recurse=False).find(thing, name, globs={}) if t.examples]
    runner.run(test, out=told.append)
    return "".join(told)


def test_every_public_function_has_an_example():
    assert [name for name in FUNCTIONS if name not in EXPLAINED] == []


@pytest.mark.parametrize("name", LIGHT)
def test_an_example_without_a_network_runs(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert failures(inspect.unwrap(getattr(featstore, name)), name) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EXPLAINED if name not in LIGHT])
def test_an_example_runs(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert failures(inspect.unwrap(getattr(featstore, name)), name) == ""


def test_an_example_that_is_wrong_is_found():
    def wrong():
        """>>> 1 + 1
        3
        """

    assert "Expected:" in failures(wrong, "wrong")


@pytest.mark.parametrize("thing", [blocks.make_blocks, FusionStrategy], ids=lambda thing: thing.__name__)
def test_the_example_of_what_is_not_at_the_top_runs(thing):
    assert failures(thing, thing.__name__) == ""
