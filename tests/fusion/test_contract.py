"""What every fusion strategy promises; a new file in the folder is held to it the moment it appears."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from featstore import registry
from featstore.errors import AuditError, RunError, UsageError
from featstore.fusion.model_io import export_model, load_strategy, restore_model, save_strategy
from featstore.fusion.strategy import FusionStrategy
from featstore.testing import STRATEGY_CHECKS, WIDTHS, blocky, make_strategy
from featstore.types import make_blocks

FOLDER = "featstore.fusion.strategies"
NAMES = registry.names(FOLDER)
LABELS = {
    "int": np.array([3, 7]),
    "text": np.array(["COVID", "normal"]),
    "object": np.array(["COVID", "normal"], dtype=object),
    "bool": np.array([False, True]),
    "three": np.array(["a", "b", "c"]),
    "negative": np.array([-1, 0, 1], dtype=np.int8),
}
KINDS = [
    pytest.param(labels, id=kind, marks=() if kind in {"text", "three"} else pytest.mark.slow)
    for kind, labels in LABELS.items()
]
OFTEN = {"ConcatHead", "ConcatLogreg", "SoftVote", "Stacking"}
"""One of each level: scikit-learn's checks are put to all others by the slow tests."""


def make(name, **parameters):
    return make_strategy(registry.load(FOLDER, name), **parameters)


@cache
def fitted(name):
    """One fit on the plain data, for tests of what a fitted strategy does and does not change."""
    return make(name).fit(*blocky())


@cache
def of_200(name, n_classes=2):
    """One fit on the first half of many rows, for tests of what it says about the others."""
    X, y = blocky(n=400, n_classes=n_classes)
    return make(name).fit(X[:200], y[:200])


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture(
    params=[pytest.param(n, marks=() if type(make(n)).__name__ in OFTEN else pytest.mark.slow) for n in NAMES]
)
def often(request):
    """A strategy, for promises that take several fits: the fast tests ask one of each level, the slow ones all."""
    return request.param


CHECKS = parametrize_with_checks([make(name, blocks=None) for name in NAMES])


def cost(estimator, check):
    """The slow tests also repeat the longest check with other kinds of arrays."""
    often = type(estimator).__name__ in OFTEN and not check.keywords.get("readonly_memmap")
    return () if often else pytest.mark.slow


@pytest.mark.parametrize(
    CHECKS.args[0], [pytest.param(*pair, marks=cost(*pair)) for pair in CHECKS.args[1]], **CHECKS.kwargs
)
def test_is_a_scikit_learn_classifier(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks warn about their own data
        check(estimator)


def test_first_line_tells_what_it_is(name):
    line = registry.summary(FOLDER, name)
    assert 20 < len(line) < 100
    assert line.endswith(".")


def test_class_is_documented_with_its_source(name):
    kind = registry.load(FOLDER, name)
    assert issubclass(kind, FusionStrategy)
    assert kind.min_blocks >= 1
    assert "References" in kind.__doc__


def test_level_and_least_number_of_backbones_stand_in_its_file(name):
    """`featstore strategies` reads them without importing, so they must be written where it looks."""
    kind = registry.load(FOLDER, name)
    facts = registry.constants(FOLDER, name)
    assert {"level", "min_blocks", "price"} <= set(facts)
    assert facts == {name: getattr(kind, name) for name in facts}
    assert kind.level in {"feature", "decision", "floor"}


@pytest.mark.parametrize("check", STRATEGY_CHECKS, ids=lambda check: check.__name__)
def test_keeps_what_the_shipped_contract_says(name, check):
    check(registry.load(FOLDER, name))


@pytest.mark.parametrize("labels", KINDS)
def test_learns_labels_of_any_type(name, labels):
    X, y = blocky(n_classes=len(labels))
    X_new, y_new = X[::2], y[::2]
    strategy = make(name).fit(X, labels[y])
    predicted = strategy.predict(X_new)
    assert strategy.classes_.tolist() == labels.tolist()
    assert predicted.dtype == labels.dtype
    assert (predicted == labels[y_new]).mean() > 0.85


@pytest.mark.parametrize("n_classes", [2, 3, pytest.param(5, marks=pytest.mark.slow)])
def test_generalises_to_new_rows(name, n_classes):
    X, y = blocky(n=400, n_classes=n_classes)
    assert of_200(name, n_classes).score(X[200:], y[200:]) > 0.8


def test_labels_are_names_not_numbers(name):
    X, y = blocky()
    as_text = make(name).fit(X, np.array(["x", "y"])[y]).predict_proba(X)
    assert as_text.tobytes() == fitted(name).predict_proba(X).tobytes()


def test_order_of_backbones_hardly_matters(often):
    X, y = blocky(n=400)
    turned = np.roll(X, WIDTHS["noise"], axis=1)
    turned_blocks = make_blocks({key: WIDTHS[key] for key in ("noise", "wide", "narrow")})
    straight = of_200(often).predict(X[200:])
    other = make(often, blocks=turned_blocks).fit(turned[:200], y[:200]).predict(turned[200:])
    assert (straight == other).mean() > 0.95


def test_one_backbone_is_enough_to_run(name):
    X, y = blocky(widths={"wide": 30})
    for blocks in (None, make_blocks({"wide": 30})):
        assert make(name, blocks=blocks).fit(X, y).score(X, y) > 0.85


def test_more_columns_than_rows(name):
    widths = {"wide": 300, "narrow": 40}
    X, y = blocky(n=60, widths=widths)
    strategy = make(name, blocks=make_blocks(widths)).fit(X[:40], y[:40])
    assert strategy.score(X[40:], y[40:]) > 0.85


def test_float32_and_float64_input_give_the_same_model(name):
    X, y = blocky()
    assert X.dtype == np.float32
    double = make(name).fit(X.astype(np.float64), y)
    np.testing.assert_allclose(
        fitted(name).predict_proba(X), double.predict_proba(X.astype(float)), atol=1e-9
    )


def test_a_column_that_was_constant_in_training_cannot_explode(name):
    X, y = blocky()
    X[:, [0, 33]] = [0.0, 1234.5]
    X[0, 33] = np.nextafter(np.float32(1234.5), np.float32(0))
    strategy = make(name).fit(X, y)
    moved = X.copy()
    moved[:, [0, 33]] += 3.0
    np.testing.assert_allclose(strategy.predict_proba(moved), strategy.predict_proba(X), atol=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("within", ["the same for all", "the same for each class"])
def test_vectors_without_any_spread_give_probabilities_and_no_warning(name, n_classes, within):
    X, y = blocky(n_classes=n_classes)
    X = np.ones_like(X) if within == "the same for all" else X[:n_classes][y]
    proba = make(name).fit(X, y).predict_proba(X)
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba, proba[:n_classes][y], atol=1e-9)


def test_input_is_left_alone(name):
    X, y = blocky()
    X.setflags(write=False)
    make(name).fit(X, y).predict_proba(X)


def test_fit_takes_groups_of_any_kind(often):
    X, y = blocky()
    by_text = make(often).fit(X, y, groups=[f"patient {i // 4}" for i in range(len(y))])
    by_number = make(often).fit(X, y, groups=np.char.mod("%03d", np.arange(len(y)) // 4))
    for strategy in (by_text, by_number):
        assert strategy.score(X, y) > 0.85


def test_groups_of_another_length_are_refused(name):
    X, y = blocky()
    with pytest.raises(UsageError, match="3 groups for 90 rows"):
        make(name).fit(X, y, groups=[1, 2, 3])


def test_one_class_is_refused_with_a_remedy(name):
    X, _ = blocky()
    with pytest.raises(AuditError, match=r"Only one class.*'COVID'.*\nAdd images"):
        make(name).fit(X, np.full(len(X), "COVID"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_feature_that_is_not_finite_is_refused_by_name_of_backbone(name, value):
    X, y = blocky()
    bad = X.copy()
    bad[[5, 8], 32] = value
    with pytest.raises(UsageError, match="in 2 of 90 rows of block 'narrow', the first is row 5"):
        make(name).fit(bad, y)
    with pytest.raises(UsageError, match="block 'narrow'"):
        fitted(name).predict_proba(bad)


def test_blocks_that_do_not_tile_the_columns_are_refused(name):
    X, y = blocky()
    with pytest.raises(UsageError, match="do not tile 48 columns"):
        make(name, blocks=make_blocks({"wide": 30, "narrow": 6})).fit(X, y)


def test_works_in_a_pipeline_and_a_grid_search(often):
    X, y = blocky()
    pipe = make_pipeline(FunctionTransformer(), make(often))
    step = pipe.steps[-1][0]
    knob = {"C": [0.1, 1.0]} if "C" in pipe[-1].get_params() else {"blocks": [None, make_blocks(WIDTHS)]}
    search = GridSearchCV(pipe, {f"{step}__{key}": values for key, values in knob.items()}, cv=3).fit(X, y)
    assert search.best_score_ > 0.7


@pytest.mark.parametrize("labels", KINDS)
def test_bundle_restores_the_same_bytes(name, labels, tmp_path):
    X, y = blocky(n_classes=len(labels))
    strategy = make(name).fit(X, labels[y], groups=np.arange(len(y)) // 3)
    save_strategy(tmp_path / "run" / "model", strategy, {"backbones": ["wide", "narrow"], "note": "é"})
    restored, extra = load_strategy(tmp_path / "run" / "model")
    assert sorted(path.name for path in (tmp_path / "run" / "model").iterdir()) == [
        "arrays.npz",
        "model.json",
    ]
    assert extra == {"backbones": ["wide", "narrow"], "note": "é"}
    assert type(restored) is type(strategy)
    assert restored.get_params() == strategy.get_params()
    assert restored.classes_.dtype == strategy.classes_.dtype
    assert restored.predict_proba(X).tobytes() == strategy.predict_proba(X).tobytes()
    np.testing.assert_array_equal(restored.predict(X), strategy.predict(X))


def test_bundle_of_a_restored_strategy_is_the_same_bundle(name, tmp_path):
    save_strategy(tmp_path / "a", fitted(name), {})
    save_strategy(tmp_path / "b", load_strategy(tmp_path / "a")[0], {})
    for file in ("model.json", "arrays.npz"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_bundle_without_one_of_its_arrays_is_refused(name):
    state, arrays = export_model(fitted(name))
    assert arrays
    for missing in arrays:
        with pytest.raises(RunError, match="is missing"):
            restore_model(state, {key: value for key, value in arrays.items() if key != missing})


def test_bundle_with_an_array_of_another_shape_is_refused(name):
    state, arrays = export_model(fitted(name))
    for key, array in arrays.items():
        with pytest.raises(RunError, match="noted"):
            restore_model(state, {**arrays, key: array[..., :-1]})


def test_bundle_with_a_number_that_is_not_finite_is_refused(name):
    state, arrays = export_model(fitted(name))
    for key, array in arrays.items():
        if array.dtype.kind == "f":
            with pytest.raises(RunError, match="not finite"):
                restore_model(state, {**arrays, key: np.full_like(array, np.nan)})


def test_an_unfitted_strategy_has_no_bundle(name):
    with pytest.raises(RunError, match="not fitted"):
        export_model(make(name))
