"""A recipe is text: it parses, it has one canonical form, and nonsense is refused in two lines."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featstore.errors import RecipeError, UnknownNameError
from featstore.images.recipe import FILLS, PRESETS, SLUG_LENGTH, Recipe, parse_recipe, slug, summary


def ranges(low: float, high: float) -> st.SearchStrategy[tuple[float, float]]:
    bound = st.floats(low, high, exclude_min=True, exclude_max=True)
    return st.tuples(bound, bound).map(lambda pair: (min(pair), max(pair)))


def spreads(neutral: float, largest: float) -> st.SearchStrategy[tuple[float, float]]:
    return st.floats(0, largest, exclude_max=True).map(lambda m: (neutral - m, neutral + m))


def recipes() -> st.SearchStrategy[Recipe]:
    fills = st.one_of(
        st.tuples(st.sampled_from(FILLS), st.just(0.0)),
        st.tuples(st.just("constant"), st.floats(-1e5, 1e5)),
    )
    return st.builds(
        lambda fill, **ops: Recipe(**ops, fill=fill[0], cval=fill[1]),
        fill=fills,
        shear=st.one_of(st.just((0.0, 0.0)), spreads(0, 90), ranges(-90, 90)),
        rotate=st.one_of(st.just((0.0, 0.0)), spreads(0, 360), ranges(-1e6, 1e6)),
        shift=st.one_of(st.just((0.0, 0.0)), spreads(0, 1), ranges(-2, 2)),
        zoom=st.one_of(st.just((1.0, 1.0)), spreads(1, 1), ranges(0, 1e6)),
        flip=st.sampled_from(["", "h", "v", "hv", "vh"]),
    )


@settings(deadline=None)
@given(recipes())
def test_the_text_of_a_recipe_parses_to_the_same_recipe(recipe):
    assert parse_recipe(str(recipe)) == recipe


@settings(deadline=None)
@given(recipes())
def test_equal_recipes_have_one_text_and_others_another(recipe):
    assert str(parse_recipe(str(recipe))) == str(recipe)
    assert (str(recipe) == "identity") == (recipe == Recipe()) == recipe.is_identity


@settings(deadline=None)
@given(st.integers(1, 899).map(lambda n: n / 1000))
def test_a_short_zoom_stays_short(m):
    """1 - 0.2 and 1 + 0.2 are not 0.2 away from 1 in binary; the text must say 0.2 all the same."""
    assert str(parse_recipe(f"zoom({m!r})")) == f"zoom({m!r})|fill(nearest)"


def test_the_order_of_operations_and_white_space_do_not_matter():
    steps = [
        "shear( 20 )",
        " rotate (0 , 40)",
        "shift(0.50)",
        "zoom(2e-1)\n",
        "flip( vh )",
        "fill( nearest )",
    ]
    texts = {str(parse_recipe("|".join(order))) for order in itertools.permutations(steps)}
    assert texts == {PRESETS["paper"]}


def test_one_number_is_a_symmetric_range_and_two_are_its_ends():
    recipe = parse_recipe("shear(20)|rotate(0,40)|shift(0.5)|zoom(0.25)")
    assert recipe.shear == (-20, 20)
    assert recipe.rotate == (0, 40)
    assert recipe.shift == (-0.5, 0.5)
    assert recipe.zoom == (0.75, 1.25)
    assert parse_recipe("zoom(0.75,1.25)|rotate(-40,40)") == parse_recipe("zoom(0.25)|rotate(40)")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("rotate(40.0)|fill(nearest)", "rotate(40)|fill(nearest)"),
        ("rotate(40)", "rotate(40)|fill(nearest)"),
        ("rotate(-0.0,5)", "rotate(0,5)|fill(nearest)"),
        ("shear(0)|rotate(40)|zoom(0)", "rotate(40)|fill(nearest)"),
        ("rotate(90,90)|fill(constant)", "rotate(90,90)|fill(constant)"),
        ("rotate(9)|fill(constant,0)", "rotate(9)|fill(constant)"),
        ("rotate(9)|fill(constant,-2.5)", "rotate(9)|fill(constant,-2.5)"),
        ("flip(h)|fill(wrap)", "flip(h)"),
        ("fill(constant,7)", "identity"),
        ("shear(0)|zoom(1,1)", "identity"),
        (" identity ", "identity"),
    ],
)
def test_what_does_nothing_is_left_out(text, canonical):
    assert str(parse_recipe(text)) == canonical


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_canonical_and_described_in_one_line(name):
    assert str(parse_recipe(name)) == PRESETS[name]
    assert parse_recipe(f"  {name} ") == parse_recipe(PRESETS[name])
    assert summary(name)
    assert "\n" not in summary(name)


def test_the_paper_preset_has_every_operation_of_the_paper():
    recipe = parse_recipe("paper")
    assert recipe.rotate[0] == 0
    assert recipe.shift == (-0.5, 0.5)
    assert recipe.flip == "hv"
    assert recipe.shear[1] > 0
    assert recipe.zoom[0] < 1 < recipe.zoom[1]
    assert "10.1101/2020.12.09.20246371" in summary("paper")


def test_an_unknown_preset_has_no_summary():
    with pytest.raises(UnknownNameError, match="papyrus"):
        summary("papyrus")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "no step"),
        ("papyrus", "no step"),
        ("blur(3)", "blur"),
        ("Rotate(3)", "Rotate"),
        ("rotate(3)|", "no step"),
        ("identity|flip(h)", "identity"),
        ("rotate(3)|rotate(4)", "twice"),
        ("fill(wrap)|fill(wrap)", "twice"),
        ("rotate(nan)", "nan"),
        ("rotate(1e999)", "1e999"),
        ("rotate(-1e999,0)", "1e999"),
        ("rotate(True)", "True"),
        ("rotate('3')", "3"),
        ("rotate()", "rotate"),
        ("rotate(1,2,3)", "1,2,3"),
        ("rotate(1)(2)", "rotate"),
        ("rotate(__import__('os'))", "__import__"),
        ("rotate(40,0)", "range"),
        ("rotate(-40)", "range"),
        ("zoom(1)", "zoom"),
        ("zoom(0,2)", "zoom"),
        ("zoom(-1,2)", "zoom"),
        ("shear(90)", "shear"),
        ("shear(-90,0)", "shear"),
        ("shift(1e7)", "shift"),
        ("flip(x)", "flip"),
        ("flip()", "flip"),
        ("flip(hh)", "flip"),
        ("fill(mirror)", "mirror"),
        ("fill(constant,nan)", "nan"),
        ("fill(constant,1,2)", "1,2"),
        ("fill(constant,)", "fill"),
        ("fill(wrap,3)", "wrap"),
    ],
)
def test_nonsense_is_refused_with_a_cause_and_a_remedy(text, cause):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text)
    assert cause in caught.value.cause
    assert caught.value.remedy
    assert str(caught.value).count("\n") == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"rotate": (0, float("nan"))},
        {"rotate": (0, float("inf"))},
        {"rotate": (0, 10**400)},
        {"shift": 0.5},
        {"shift": (0, 0.1, 0.2)},
        {"zoom": (0, 1)},
        {"flip": "d"},
        {"fill": "mirror"},
        {"fill": "constant", "cval": float("nan")},
        {"fill": "nearest", "cval": 3.0},
    ],
)
def test_a_recipe_made_by_hand_is_held_to_the_same_rules(fields):
    with pytest.raises(RecipeError):
        Recipe(**fields)


@settings(deadline=None)
@given(st.text("shearotzmflipn()|,.-+e0123456789 \n", max_size=60))
def test_any_text_is_a_recipe_or_a_recipe_error(text):
    try:
        recipe = parse_recipe(text)
    except RecipeError as error:
        assert str(error).count("\n") == 1  # noqa: PT017
    else:
        assert parse_recipe(str(recipe)) == recipe


@settings(deadline=None)
@given(recipes())
def test_a_slug_is_a_safe_short_folder_name(recipe):
    name = slug(recipe)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", name)
    assert len(name) <= SLUG_LENGTH


def test_a_slug_is_the_presets_name_where_there_is_one():
    assert [slug(parse_recipe(name)) for name in PRESETS] == list(PRESETS)
    assert slug(parse_recipe("flip(vh)|fill(reflect)")) == "flips"
    assert slug(parse_recipe("rotate(0,40)|shear(20)")) == "shear20-rotate0_40-fillnearest"


def test_the_recipe_language_needs_the_standard_library_only():
    code = (
        "import sys, featstore.images.recipe;"
        "print(sorted({'numpy', 'scipy', 'PIL', 'h5py', 'tensorflow', 'keras', 'sklearn'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
