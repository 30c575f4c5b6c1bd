"""Every public function refuses what it does not take, says what was meant, and lists what it takes."""

import inspect
import io
import pydoc
from contextlib import redirect_stdout

import numpy as np
import pytest

import featstore
from featstore.arguments import public
from featstore.matrix import Source

FUNCTIONS = [name for name in featstore.__all__ if name.islower()]
TAKE_FEATURES = ("compare", "export_features", "fuse", "load_matrix")


def keywords(function):
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, one in inspect.signature(function).parameters.items() if one.kind in kinds]


def misspelt(name):
    """Two letters swapped."""
    swapped = name[0] + name[2:0:-1] + name[3:]
    return name + "s" if swapped == name else swapped


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_misspelt_keyword_is_refused_with_the_one_that_was_meant(name):
    function = getattr(featstore, name)
    known = keywords(function)
    assert known
    for keyword in known:
        wrong = misspelt(keyword)
        if wrong in known:
            continue
        with pytest.raises(
            TypeError, match=rf"{name}\(\) got an unexpected keyword argument '{wrong}'"
        ) as caught:
            function("x", "y", **{wrong: 1})
        assert f"Did you mean {keyword!r}?" in str(caught.value)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_keyword_like_no_other_leads_to_the_help(name):
    with pytest.raises(TypeError, match=rf"'qqqq'. See help\(featstore.{name}\)"):
        getattr(featstore, name)(qqqq=1)


@pytest.mark.parametrize(
    ("name", "wrong", "meant"),
    [
        ("compare", "n_folds", "folds"),
        ("compare", "group_patern", "group_pattern"),
        ("fuse", "calibrat", "calibrate"),
        ("fuse", "Strategy", "strategy"),
        ("load_matrix", "backbone", "backbones"),
        ("export_features", "precison", "precision"),
    ],
)
def test_what_was_seen_to_vanish(name, wrong, meant):
    with pytest.raises(TypeError, match=rf"{wrong}'. Did you mean '{meant}'\?"):
        getattr(featstore, name)("data", **{wrong: 3})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_help_lists_every_option_and_hides_none_behind_stars(name):
    function = getattr(featstore, name)
    signature = inspect.signature(function)
    assert not any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())
    with redirect_stdout(io.StringIO()) as page:
        pydoc.help(function)
    assert all(option in page.getvalue() for option in signature.parameters)


@pytest.mark.parametrize("name", TAKE_FEATURES)
def test_whatever_says_which_features_is_an_option_of_its_own(name):
    parameters = inspect.signature(getattr(featstore, name)).parameters
    for entry in Source.__annotations__:
        assert parameters[entry].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["follow_links"].default is False
    assert parameters["backbones"].default is None


class Entries(Source, total=False):
    """A TypedDict with one more entry."""

    suffix: "str | None"


def test_an_entry_that_is_added_is_taken_and_listed():
    from typing import Unpack

    @public
    def load(data: str, **source: "Unpack[Entries]") -> dict:
        return {"data": data, **source}

    load.__wrapped__.__globals__["Unpack"] = Unpack
    assert "suffix" in inspect.signature(load).parameters
    assert load("x", suffix=".png") == {"data": "x", "suffix": ".png"}
    with pytest.raises(TypeError, match="Did you mean 'suffix'"):
        load("x", sufix=".png")


@pytest.mark.parametrize(
    ("annotation", "given", "taken"),
    [
        ("Sequence[str]", "one.png", ["one.png"]),
        ("Sequence[str | Path]", "one.png", ["one.png"]),
        ("Sequence[str] | None", None, None),
        ("Sequence[str] | None", ["a", "b"], ["a", "b"]),
        ("Sequence[str] | str", "all", "all"),
        ("Collection[int] | None", 3, [3]),
        ("Iterable[int]", np.int64(3), [3]),
        ("Iterable[int]", range(2), range(2)),
        ("str", "one", "one"),
        ("int", 3, 3),
    ],
)
def test_one_item_stands_for_a_list_of_one(annotation, given, taken):
    def function(first, *, option=None):
        return first, option

    function.__annotations__ = {"first": annotation, "option": annotation}
    assert public(function)(given, option=given) == (taken, taken)


def test_letters_are_no_seeds():
    with pytest.raises(TypeError, match=r"seeds='1-4' is text: give whole numbers"):
        featstore.load_matrix("data", seeds="1-4")


def test_several_is_read_from_every_annotation_that_says_so():
    """A list of texts or numbers in a public signature takes one of them, whoever adds it."""
    lists = {
        name: [n for n, p in inspect.signature(getattr(featstore, name)).parameters.items()
               if str(p.annotation).startswith(("Sequence[", "Collection[", "Iterable["))]
        for name in FUNCTIONS
    }  # fmt: skip
    assert {"backbones", "seeds"} <= set(lists["extract"])
    assert {"backbones", "views", "strategies", "subsets"} <= set(lists["compare"])
    assert {"backbones", "precisions", "batch_sizes"} <= set(lists["bench"])
    assert "freeze_blocks" in lists["fuse"]
