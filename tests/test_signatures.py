"""Every public function refuses what it does not take, says what was meant, and lists what it takes."""

import inspect
import io
import pydoc
import re
from contextlib import redirect_stdout
from types import SimpleNamespace

import numpy as np
import pytest

import featstore
from featstore.arguments import public
from featstore.matrix import Source
from featstore.types import make_blocks

FUNCTIONS = [name for name in featstore.__all__ if name.islower()]
LISTS = ("backbones", "recipes", "strategies")
"""Functions that take nothing."""
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
    assert known or name in LISTS
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


@pytest.mark.parametrize(
    ("name", "arguments", "settled"),
    [
        ("answers", ("data", ["a.json", "b.json"], "c.json"), {"backbones": ["Xception"], "seeds": [1]}),
        ("moments", ("data", "c.json"), {"recipe": "mild"}),
        ("pack", ("run", "data", "c.zip"), {"precision": "float16"}),
    ],
)
def test_what_is_settled_already_is_refused_and_does_not_vanish(name, arguments, settled):
    with pytest.raises(featstore.UsageError, match=rf"^{', '.join(settled)} would be ignored: ") as caught:
        getattr(featstore, name)(*arguments, **settled)
    assert f"Leave out {' and '.join(settled)}." in str(caught.value)


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


@pytest.mark.parametrize(
    ("function", "option", "number"),
    [
        ("compare", "fold_seed", -1),
        ("compare", "fold_seed", 10**20),
        ("compare", "repeats", 0),
        ("compare", "repeats", 10**8),
        ("compare", "training_seeds", 0),
        ("compare", "jobs", 0),
        ("compare", "jobs", -2),
        ("compare", "jobs", 99_999),
        ("plan", "fold_seed", -1),
        ("fuse", "split_seed", -1),
        ("split", "seed", 10**20),
        ("finetune", "seed", -1),
        ("finetune", "split_seed", 2**32),
    ],
)
def test_a_number_that_nobody_can_mean_is_refused_before_anything_is_read(function, option, number):
    taken = {"plan": {"out": "p.json"}, "split": {"out": "s.csv"}}.get(function, {})
    if function == "finetune":
        taken = {"backbone": "EfficientNetLite0", "out": "run"}
    with pytest.raises(featstore.UsageError, match=f"--{option.replace('_', '-')} {number} is out of range"):
        getattr(featstore, function)("no-such-folder", **taken, **{option: number})


@pytest.mark.parametrize(
    ("annotation", "given", "taken"),
    [
        ("Sequence[str]", np.array(["a", "b"]), ["a", "b"]),
        ("Sequence[str] | None", (name for name in "ab"), ["a", "b"]),
        ("Sequence[str]", {"b", "a"}, ["a", "b"]),
        ("Sequence[int] | None", np.arange(2), [0, 1]),
        ("int", np.int64(3), 3),
        ("float", np.float32(0.5), 0.5),
        ("str | None", re.compile("a+"), "a+"),
        ("int | None", None, None),
        ("str | Path | None", None, None),
    ],
)
def test_what_a_notebook_has_at_hand_is_taken_as_pythons_own(annotation, given, taken):
    def function(data):
        return data

    function.__annotations__["data"] = annotation
    found = public(function)(data=given)
    assert found == taken
    assert type(found) is type(taken)


@pytest.mark.parametrize(
    ("annotation", "given", "says"),
    [
        ("int", "2", "value='2' is of another kind: give a whole number, such as value=1"),
        ("int", 1.5, "give a whole number"),
        ("int", True, "give a whole number"),
        ("int", None, "value=None is nothing: leave it out"),
        ("float", "0.01", "give a number, such as value=0.5"),
        ("str | None", 1, "give a text"),
        ("Mapping[str, str] | None", "group=group", "give a dict"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_what_to_give(annotation, given, says):
    def function(value):
        return value

    function.__annotations__["value"] = annotation
    with pytest.raises(TypeError, match=re.escape(says)):
        public(function)(value=given)


@pytest.mark.parametrize(("given", "kind"), [(None, "nothing"), (["a"], "a list"), (b"a", "a bytes")])
def test_data_that_is_no_path_is_refused_with_what_to_give(given, kind):
    with pytest.raises(TypeError, match=f"data is {kind}: give the path of a folder or of a file"):
        featstore.compare(given)


def test_letters_are_no_seeds():
    with pytest.raises(TypeError, match=r"seeds='1-4' is text: give whole numbers"):
        featstore.load_matrix("data", seeds="1-4")


SEVERAL = re.compile(r"(Sequence|Collection|Iterable)\[")
READ_BY_THE_FUNCTION = {
    ("compare", "strategies"), ("compare", "subsets"), ("explain", "images"), ("import_features", "ignore"),
    ("predict", "images"), ("write_report", "runs"),
}  # fmt: skip
"""Parameters whose annotation has a bare text beside the list: a text has a meaning of its own there."""


def parameters_for_several():
    """Every parameter of a public function that takes a list, with an item that fits it."""
    for name in FUNCTIONS:
        for option, one in inspect.signature(getattr(featstore, name)).parameters.items():
            if SEVERAL.search(str(one.annotation)):
                item = {"int": 3, "float": 0.5}.get(re.search(r"\[(\w+)", str(one.annotation))[1], "Xception")
                yield pytest.param(name, option, item, id=f"{name}-{option}")


@pytest.mark.parametrize(("name", "option", "item"), [*parameters_for_several()])
def test_one_item_is_one_item_in_every_public_function(name, option, item):
    """Never the letters of a text; a text in the place of a number is refused."""

    def spy(*given, **options):
        return options

    spy.__signature__ = inspect.signature(getattr(featstore, name))
    taken = public(spy)(**{option: item})[option]
    if (name, option) in READ_BY_THE_FUNCTION:
        assert taken == item
        return
    assert taken == [item]
    if not isinstance(item, str):
        with pytest.raises(TypeError, match=f"{option}='Xception' is text"):
            public(spy)(**{option: "Xception"})


def test_a_text_that_the_function_reads_itself_is_one_item_too():
    """Those of `READ_BY_THE_FUNCTION`; `predict` and `write_report` have it in tests of their own."""
    from featstore.evaluation.candidates import make_candidates

    both = [make_candidates(given, "singles", ("A", "B")) for given in ("soft_vote", ["soft_vote"])]
    assert both[0] == both[1]
    assert {c.strategy for c in both[0]} == {"concat_logreg", "soft_vote"}


def test_one_name_is_one_name_in_the_methods_of_a_matrix():
    method = featstore.FeatureMatrix.columns
    assert "backbones" in inspect.signature(method).parameters
    matrix = SimpleNamespace(blocks=make_blocks({"A": 2, "Xception": 3}))
    assert method(matrix, "Xception") == method(matrix, ["Xception"]) == make_blocks({"Xception": 3})


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
