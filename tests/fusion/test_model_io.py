"""Bundles that were damaged, forged, or made by a featstore that is not this one."""

import copy
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featstore.errors import RunError
from featstore.fusion.model_io import (
    ModelCodec,
    ModelFormatError,
    export_model,
    load_strategy,
    restore_model,
    save_strategy,
)
from featstore.fusion.strategies.concat_head import ConcatHead
from featstore.fusion.strategies.concat_logreg import ConcatLogreg
from featstore.fusion.strategy import FusionStrategy
from featstore.serialization import digest_file, seal
from featstore.types import Block, make_blocks


def data():
    rng = np.random.default_rng(0)
    y = np.arange(30) % 2
    return rng.normal(size=(30, 4)) + y[:, None], np.array(["no", "yes"])[y]


@pytest.fixture
def strategy():
    return ConcatLogreg(make_blocks({"a": 3, "b": 1})).fit(*data())


@pytest.fixture
def folder(tmp_path, strategy):
    save_strategy(tmp_path / "model", strategy, {})
    return tmp_path / "model"


def refusal(state, arrays):
    with pytest.raises(RunError) as caught:
        restore_model(state, arrays)
    assert len(str(caught.value).splitlines()) == 2  # a line of cause, a line of remedy
    return caught.value.cause


def test_state_is_json_and_arrays_are_plain(strategy):
    state, arrays = export_model(strategy)
    assert json.loads(json.dumps(state, allow_nan=False)) == state
    assert all(not array.dtype.hasobject for array in arrays.values())
    assert "learned.model_.coef" in arrays


def test_state_survives_json(strategy):
    state, arrays = export_model(strategy)
    restored = restore_model(json.loads(json.dumps(state)), arrays)
    assert restored.blocks == strategy.blocks
    assert restored.predict_proba(data()[0]).tobytes() == strategy.predict_proba(data()[0]).tobytes()


def test_restoring_leaves_its_input_alone(strategy):
    state, arrays = export_model(strategy)
    before = copy.deepcopy(state), set(arrays)
    restore_model(state, arrays)
    assert (state, set(arrays)) == before


@pytest.mark.parametrize("version", [None, 0, 1, 3, "2", [2]])
def test_unknown_format_is_refused(strategy, version):
    state, arrays = export_model(strategy)
    assert "has format" in refusal({**state, "format": version}, arrays)


@pytest.mark.parametrize(
    "forge",
    [
        lambda state: state.update(strategy="no_such"),
        lambda state: state.update(strategy="../strategy"),
        lambda state: state.update(strategy=["concat_logreg"]),
        lambda state: state.update(strategy="vote_backbones"),
        lambda state: state.pop("strategy"),
        lambda state: state.pop("learned"),
        lambda state: state.update(learned=[]),
        lambda state: state["parameters"].update(surprise=1),
        lambda state: state["parameters"].update(C={"$code": "import os"}),
        lambda state: state["learned"].update(predict="x"),
        lambda state: state["learned"].update(__class__="x"),
        lambda state: state["learned"].update(_predict_proba="x"),
        lambda state: state["learned"].update(n_features_in_=5),
        lambda state: state["learned"].update(n_features_in_=10**30),
        lambda state: state["learned"].update(n_features_in_=-1),
        lambda state: state["learned"].update(model_="x"),
        lambda state: state["learned"].update(blocks_={"$tuple": []}),
        lambda state: state["learned"].pop("classes_"),
        lambda state: state["learned"].update(classes_={"$labels": ["a", "b", "c"]}),
        lambda state: state["learned"].update(classes_={"$labels": [None]}),
        lambda state: state["learned"].update(classes_={"$labels": [float("nan"), 1]}),
        lambda state: state["learned"]["model_"]["$linear_model"].pop("mean"),
        lambda state: state["learned"]["model_"]["$linear_model"].update(more=1),
        lambda state: state["learned"]["model_"]["$linear_model"]["coef"]["$array"].update(shape=[4]),
    ],
)
def test_forged_state_is_refused(strategy, forge):
    state, arrays = export_model(strategy)
    state = copy.deepcopy(state)
    forge(state)
    assert "cannot be restored" in refusal(state, arrays)


def test_arrays_that_fit_their_note_but_not_each_other_are_refused(strategy):
    state, arrays = copy.deepcopy(export_model(strategy))
    state["learned"]["model_"]["$linear_model"]["mean"]["$array"]["shape"] = [3]
    arrays["learned.model_.mean"] = np.zeros(3)
    assert "mean has shape (3,), expected (4,)" in refusal(state, arrays)


def test_an_array_too_many_is_refused(strategy):
    state, arrays = export_model(strategy)
    assert "'stowaway'" in refusal(state, {**arrays, "stowaway": np.zeros(1)})


@pytest.mark.parametrize("file", ["model.json", "arrays.npz"])
@pytest.mark.parametrize("damage", ["delete", "empty", "truncate", "flip"])
def test_damaged_files_are_refused(folder, file, damage):
    path = folder / file
    content = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        flipped = content[:40] + bytes([content[40] ^ 0xFF]) + content[41:]
        path.write_bytes({"empty": b"", "truncate": content[: len(content) // 2], "flip": flipped}[damage])
    with pytest.raises(RunError, match=file):
        load_strategy(folder)


def test_arrays_of_another_model_are_refused(folder, tmp_path):
    save_strategy(tmp_path / "other", ConcatLogreg(C=0.1).fit(*data()), {})
    (tmp_path / "other" / "arrays.npz").replace(folder / "arrays.npz")
    with pytest.raises(RunError, match=r"is not the file that model\.json was written with"):
        load_strategy(folder)


def test_a_pickled_array_is_never_loaded(folder):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("a pickle was loaded",)

    np.savez(folder / "arrays.npz", **{"learned.model_.coef": np.array([Bomb()], dtype=object)})
    state = json.loads((folder / "model.json").read_text())
    state["arrays_sha256"] = digest_file(folder / "arrays.npz")
    del state["sha256"]
    (folder / "model.json").write_text(json.dumps(seal(state)))
    assert zipfile.is_zipfile(folder / "arrays.npz")
    with pytest.raises(RunError, match=r"allow_pickle=False"):
        load_strategy(folder)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"model"', "[" * 100_000])
def test_json_that_is_no_model_is_refused(folder, text):
    (folder / "model.json").write_text(text)
    with pytest.raises(RunError, match=r"model\.json"):
        load_strategy(folder)


def test_writing_twice_leaves_the_second(folder):
    second = ConcatLogreg(C=0.01).fit(*data())
    save_strategy(folder, second, {"turn": 2})
    restored, extra = load_strategy(folder)
    assert (restored.C, extra) == (0.01, {"turn": 2})


def test_extra_that_is_not_json_is_refused_and_leaves_no_model(tmp_path, strategy):
    for extra in ({"x": object()}, {"x": float("nan")}):
        with pytest.raises(RunError, match="cannot be written"):
            save_strategy(tmp_path / "m", strategy, extra)
    assert not (tmp_path / "m" / "model.json").exists()


def test_a_folder_that_cannot_be_is_a_run_error(tmp_path, strategy):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        save_strategy(tmp_path / "file" / "model", strategy, {})


def test_what_has_no_notation_is_refused_by_name():
    head = ConcatHead(epochs=1, random_state=np.random.RandomState(0)).fit(*data())
    with pytest.raises(RunError, match=r"parameters\.random_state is RandomState"):
        export_model(head)


def test_a_strategy_from_elsewhere_is_refused():
    class Elsewhere(FusionStrategy):
        pass

    with pytest.raises(RunError, match="not a strategy of"):
        export_model(Elsewhere())


plain = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
keys = st.text().filter(lambda key: not key.startswith("$"))
blocks = st.builds(Block, st.text(max_size=3), st.integers(0, 9), st.integers(10, 19))
values = st.recursive(
    plain | blocks,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner),
    max_leaves=12,
)


@given(values)
def test_any_value_comes_back_through_json(value):
    text = json.dumps(ModelCodec().write("value", value), allow_nan=False)
    assert ModelCodec().read(json.loads(text)) == value


@pytest.mark.parametrize(
    "value", [float("nan"), object(), {1: 2}, {"$array": 1}, np.array([1j]), np.array([None]), b"x"]
)
def test_values_without_notation_are_refused(value):
    with pytest.raises(ModelFormatError, match=r"^value"):
        ModelCodec().write("value", value)
