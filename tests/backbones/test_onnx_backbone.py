"""ONNX files as networks: what their settings mean, what is refused before a library opens it, and the contract."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from featstore_cli.options import parse_names
from onnx import TensorProto, helper
from onnx_files import SETTINGS, model, of_keras, small, tensor, write, write_external

import featstore
from featstore.backbones import catalog, onnx_backbone
from featstore.backbones.loading import load_backbone
from featstore.backbones.weights import choice_for, find_weights, parse_weights_options, resolve_weights
from featstore.errors import (
    BackboneError,
    FeatstoreError,
    RefusedFileError,
    UnknownNameError,
    UsageError,
    WeightsError,
)
from featstore.testing import check_backbone


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch):
    monkeypatch.setenv(catalog.NETWORKS, "")


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "small.onnx", small())


def embed(name, images, **options):
    return load_backbone(name, batch_size=len(images), **options).embed(images)


def noise(count=3, side=16):
    return np.random.default_rng(1).uniform(0, 255, (count, side, side, 3)).astype(np.float32)


# A file is a network


def test_a_file_is_a_network_of_the_catalogue(file):
    assert catalog.named([f"Mine={file}", "ResNet50"]) == ["Mine", "ResNet50"]
    row = catalog.row("Mine")
    assert (row.input_size, row.dimension, "Mine" in catalog.names()) == (16, 8, True)
    check_backbone("Mine")


def test_a_network_of_keras_written_as_onnx_gives_the_same_vectors(tmp_path):
    from featstore.backbones import keras_backbone

    row = catalog.row("MobileNet025")
    network = keras_backbone.build(row, resolve_weights(row, "random:1"), "official")
    side = row.input_size
    settings = {"mean": 1, "std": 1, "scale": 127.5}
    catalog.add_file("Written", write(tmp_path / "mobilenet.onnx", of_keras(network), settings))
    images = noise(2, side)
    theirs = embed("MobileNet025", images, weights="random:1")
    ours = embed("Written", images)
    assert ours.shape == theirs.shape == (2, 256)
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def test_pixels_are_prepared_as_the_settings_say(tmp_path):
    """The mean of each channel of the input, against the arithmetic of this test."""
    nodes = [helper.make_node("ReduceMean", ["pixels"], ["vector"], axes=[2, 3], keepdims=0)]
    settings = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "channels": "BGR", "scale": 200}
    catalog.add_file("Means", write(tmp_path / "means.onnx", model(nodes), settings))
    images = noise()
    wanted = (images.mean(axis=(1, 2))[:, ::-1] / 200 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    assert embed("Means", images) == pytest.approx(wanted, rel=1e-5)


def test_a_network_of_one_channel_gets_grey(tmp_path):
    nodes = [helper.make_node("ReduceMean", ["pixels"], ["vector"], axes=[2, 3], keepdims=0)]
    settings = {"mean": 0, "std": 1, "scale": 1}
    catalog.add_file("Grey", write(tmp_path / "g.onnx", model(nodes, sizes=(1, 1, 16, 16)), settings))
    images = noise()
    assert embed("Grey", images)[:, 0] == pytest.approx(images.mean(axis=(1, 2, 3)), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"pooling": "cls"}, lambda tokens: tokens[:, 0]),
        ({"pooling": "mean"}, lambda tokens: tokens.mean(axis=1)),
        ({"pooling": "mean", "skip_tokens": 1}, lambda tokens: tokens[:, 1:].mean(axis=1)),
    ],
)
def test_tokens_become_a_vector(tmp_path, settings, wanted):
    """Rows of the image as tokens: 16 of 48 numbers."""
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["turned"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["turned", "shape"], ["tokens"]),
    ]
    made = model(nodes, [tensor("shape", np.array([0, 16, 48]))], outputs=("tokens",))
    settings = {"mean": 0, "std": 1, "scale": 1, **settings}
    catalog.add_file("Tokens", write(tmp_path / "tokens.onnx", made, settings))
    images = noise()
    assert embed("Tokens", images) == pytest.approx(wanted(images.reshape(3, 16, 48)), rel=1e-5)


def test_a_map_inside_is_pooled_and_is_another_network(tmp_path, file):
    inside = write(tmp_path / "inside.onnx", small(), {**SETTINGS, "output": "map"})
    catalog.named([f"Last={file}", f"Map={inside}"])
    images = noise()
    assert embed("Map", images) == pytest.approx(embed("Last", images), rel=1e-5)
    versions = {catalog.row(name).version for name in ("Last", "Map")}
    assert len(versions) == 2


def test_file_and_settings_are_in_the_key_and_how_settings_are_written_is_not(tmp_path):
    def digest(made, settings):
        catalog.add_file("Mine", write(tmp_path / "a.onnx", made, settings))
        return resolve_weights(catalog.row("Mine")).digest

    first = digest(small(), SETTINGS)
    assert digest(small(seed=1), SETTINGS) != first
    assert digest(small(), {**SETTINGS, "std": 0.3}) != first
    assert digest(small(), {"std": [0.25] * 3, "mean": [0.5] * 3, "layout": "NCHW"}) == first


def test_settings_in_the_command_are_those_beside_the_file_and_each_network_has_its_own(tmp_path):
    beside = write(
        tmp_path / "beside.onnx", small(), {"mean": [0.5, 0.4, 0.3], "std": 0.25, "channels": "BGR"}
    )
    bare = write(tmp_path / "bare.onnx", small(), None)
    other = write(tmp_path / "other.onnx", small(), {"mean": 0.1, "std": 0.25})
    text = f"A={beside},B={bare}[mean=0.5/0.4/0.3, std=0.25,channels=BGR],C={other}[mean=0.2],MobileNet"
    names = parse_names(text)
    assert len(names) == 4
    assert catalog.named(names) == ["A", "B", "C", "MobileNet"]
    digests = {name: resolve_weights(catalog.row(name)).digest for name in "ABC"}
    assert digests["A"] == digests["B"] != digests["C"]
    assert catalog.network_file("C")[1].mean == (0.2, 0.2, 0.2), "what is said goes before what lies beside"
    assert embed("A", noise()).tobytes() == embed("B", noise()).tobytes()
    os.utime(bare, ns=(1, 1))
    assert resolve_weights(catalog.row("B")).digest == digests["B"], "looked at again as it was said"
    os.environ[catalog.NETWORKS] = ""
    choice = f"{bare}[mean=0.5/0.4/0.3,std=0.25,channels=BGR]"
    assert parse_weights_options([f"B={choice}"]) == {"B": choice}
    assert resolve_weights(catalog.row("B"), choice_for("B", {"B": choice})).digest == digests["B"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("A=runs, old/x,y.onnx, B", ["A=runs, old/x,y.onnx", "B"]),
        ("B,A=x,y.onnx[mean=0,std=1],C=z.onnx", ["B", "A=x,y.onnx[mean=0,std=1]", "C=z.onnx"]),
        (" A=x.onnx ,B:conv4,, C", ["A=x.onnx", "B:conv4", "C"]),
        ("A=nothing,B=x.onnx", ["A=nothing", "B=x.onnx"]),
        ("a[b,c", ["a[b", "c"]),
    ],
)
def test_a_comma_in_the_path_of_a_network_parts_nothing(text, names):
    assert parse_names(text) == names


def test_a_network_in_a_folder_with_a_comma_in_its_name_is_used(tmp_path):
    (tmp_path / "Smith, 2024").mkdir()
    file = write(tmp_path / "Smith, 2024" / "a.onnx", small(), SETTINGS)
    assert catalog.named(parse_names(f"Mine={file},MobileNet")) == ["Mine", "MobileNet"]
    assert catalog.network_file("Mine")[0] == file
    assert embed("Mine", noise()).shape[0]


@pytest.mark.parametrize(
    ("said", "cause", "remedy"),
    [
        ("size=224", "'size=224' is no setting", "input_size=224"),
        ("maen=0.5", "'maen=0.5' is no setting", "Did you mean mean?"),
        ("mean", "'mean' is no setting", "[input_size=224"),
        ("mean=a", "'mean=a' cannot be", "mean=0.485/0.456/0.406"),
        ("input_size=2.5", "'input_size=2.5' cannot be", "[input_size=224"),
        ("mean=0,mean=1", "mean is said twice", "Leave one"),
    ],
)
def test_settings_in_the_command_that_cannot_be_are_refused(file, said, cause, remedy):
    with pytest.raises(UsageError) as error:
        catalog.named([f"Mine={file}[{said}]"])
    assert cause in error.value.cause
    assert remedy in error.value.remedy


def test_vectors_are_the_same_bytes_whatever_the_threads_and_the_batch(file, monkeypatch):
    catalog.add_file("Mine", file)
    images = noise(8)
    monkeypatch.setenv("FEATSTORE_THREADS", "1")
    alone = np.concatenate([embed("Mine", images[at : at + 1]) for at in range(8)])
    monkeypatch.setenv("FEATSTORE_THREADS", "4")
    assert embed("Mine", images).tobytes() == alone.tobytes()


def test_a_file_that_changed_is_looked_at_again(tmp_path, file):
    catalog.add_file("Mine", file)
    write(file, small(channels=12))
    os.utime(file, ns=(1, 1))
    assert catalog.row("Mine").dimension == 12


# What the graph does not say is asked for


def refused(tmp_path, made, settings=SETTINGS):
    """Cause and remedy."""
    with pytest.raises(FeatstoreError) as error:
        catalog.add_file("Mine", write(tmp_path / "a.onnx", made, settings))
    assert not isinstance(error.value, RefusedFileError)
    assert "\n" not in error.value.cause + error.value.remedy
    return error.value


def test_the_remedy_is_a_file_of_settings_that_works(tmp_path):
    """Written as it stands, it is enough."""
    said = refused(tmp_path, small(sizes=(None, 3, None, None)), None)
    assert "the input_size and mean and std of its input 'pixels' (?, 3, ?, ?)" in said.cause
    text = said.remedy[said.remedy.index("{") : said.remedy.index("}") + 1]
    catalog.add_file("Mine", write(tmp_path / "a.onnx", small(sizes=(None, 3, None, None)), json.loads(text)))
    assert catalog.row("Mine").input_size == 224


def test_one_of_several_outputs_has_to_be_named(tmp_path):
    said = refused(tmp_path, small(outputs=("vector", "map")))
    assert "2 outputs: vector, map" in said.cause
    text = said.remedy[said.remedy.index("{") : said.remedy.index("}") + 1]
    assert json.loads(text)["output"] == "vector"
    catalog.add_file("Mine", write(tmp_path / "a.onnx", small(outputs=("vector", "map")), json.loads(text)))


@pytest.mark.parametrize(
    "made", [small(), small(sizes=(None, 3, None, None)), small(outputs=("map", "vector"))]
)
def test_the_remedy_for_the_command_is_one_that_works(tmp_path, made):
    said = refused(tmp_path, made, None)
    for _ in range(2):  # the outputs are asked for once the pixels are known
        name, path, settings = re.search(r"'(\w+)=([^\[]+)\[(.*)\]'\.$", said.remedy).groups()
        try:
            catalog.add_file(name, Path(path), onnx_backbone.parse_settings(name, settings))
        except WeightsError as error:
            said = error
        else:
            break
    assert catalog.row("Mine").input_size in {16, 224}


@pytest.mark.parametrize(
    ("made", "cause"),
    [
        (small(sizes=(4, 3, 16, 16)), "takes 4 images at a time"),
        (small(sizes=(None, 4, 16, 16)), "neither 1 nor 3 channels"),
        (small(sizes=(None, 77)), "(?, 77), not one batch"),
    ],
)
def test_inputs_that_are_no_images_one_by_one_are_named(tmp_path, made, cause):
    assert cause in refused(tmp_path, made).cause


def test_the_type_of_an_input_that_is_no_float_is_named(tmp_path):
    made = small()
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    assert "(?, 3, 16, 16) of uint8" in refused(tmp_path, made).cause


def test_settings_of_the_command_are_not_blamed_on_a_file_that_is_not_there(tmp_path):
    with pytest.raises(WeightsError, match="The command has 2 numbers for mean") as error:
        catalog.add_file("Mine", write(tmp_path / "a.onnx", small(), None), {"mean": [0, 0], "std": 1})
    assert ".json" not in error.value.cause


def test_as_many_tokens_left_out_as_there_are_is_refused(tmp_path):
    nodes = [helper.make_node("Reshape", ["pixels", "shape"], ["tokens"])]
    made = model(nodes, [tensor("shape", np.array([0, 16, 48]))], outputs=("tokens",))
    said = refused(tmp_path, made, {**SETTINGS, "pooling": "mean", "skip_tokens": 16})
    assert "16 tokens, and skip_tokens=16 leaves none" in said.cause


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({"mean": 0, "std": 1, "output": "vektor"}, "no tensor 'vektor'"),
        ({"mean": 0, "std": 1, "outputs": "vector"}, "no field 'outputs'"),
        ({"mean": 0, "std": 0}, "mean, std or scale that cannot be"),
        ({"mean": [0, 0], "std": 1}, "2 numbers for mean, and the network 3 channels"),
        ({"mean": 0, "std": 1, "input_size": 32}, "input_size that cannot be, or that the graph contradicts"),
        ({"mean": 0, "std": 1, "layout": "NHWC"}, "layout that cannot be"),
        ({"mean": 0, "std": 1, "channels": "grey"}, "channels that cannot be"),
        ({"mean": 0, "std": 1, "pooling": "cls"}, "and pooling 'cls': that makes no vector"),
        ({"mean": "0", "std": 1}, "mean, std or scale"),
        ([], "no JSON object"),
    ],
)
def test_settings_that_cannot_be_are_named(tmp_path, settings, cause):
    assert cause in refused(tmp_path, small(), settings).cause


def test_tokens_without_a_pooling_are_asked_about(tmp_path):
    nodes = [helper.make_node("Reshape", ["pixels", "shape"], ["tokens"])]
    made = model(nodes, [tensor("shape", np.array([0, 16, 48]))], outputs=("tokens",))
    said = refused(tmp_path, made)
    assert "16 tokens of 48 numbers" in said.cause
    assert '"pooling": "cls"' in said.remedy


def test_a_picture_that_is_not_square_is_refused(tmp_path):
    assert "images of 16 x 32 pixels" in refused(tmp_path, small(sizes=(None, 3, 16, 32))).cause


def test_names_that_cannot_be_are_refused(file):
    for name, cause in (("ResNet50", "another network"), ("a b", "cannot name"), ("", "cannot name")):
        with pytest.raises(UsageError, match=cause):
            catalog.named([f"{name}={file}"])
    with pytest.raises(UsageError, match=r"neither a name nor NAME=FILE\.onnx"):
        catalog.named(["ResNet50=weights.h5"])
    with pytest.raises(WeightsError, match="There is no network"):
        catalog.named(["Mine=absent.onnx"])


@pytest.mark.parametrize(
    ("backbones", "cause", "remedy"),
    [
        (
            ["A=a.onnx[mean=0,std=1]", "A=b.onnx[mean=0,std=1]"],
            "A is the name of two networks",
            "a name of its own",
        ),
        (
            ["A=a.onnx[mean=0,std=1]", "A=a.onnx[mean=1,std=1]"],
            "A is the name of two networks",
            "a name of its own",
        ),
        (["folder/a.onnx"], "a file without a name", "NAME=folder/a.onnx"),
        (["A=model.pt"], "neither a name nor NAME=FILE.onnx", "Export it as ONNX"),
        (["A=saved_model"], "neither a name nor NAME=FILE.onnx", "Export it as ONNX"),
        (["A=a.onnx[mean=0", "std=1]"], "neither a name nor NAME=FILE.onnx", "Close the bracket"),
        (["ResNet50=a.h5"], "neither a name nor NAME=FILE.onnx", "--weights ResNet50=a.h5"),
    ],
)
def test_what_is_typed_wrong_is_answered_with_what_to_type(backbones, cause, remedy):
    with pytest.raises(UsageError, match=cause) as error:
        catalog.named(backbones)
    assert remedy in error.value.remedy


# Hostile files


def infinite_loop():
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info(n, t, [])
            for n, t in (("at", TensorProto.INT64), ("go", TensorProto.BOOL))
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, [])],
    )
    return model(
        [
            helper.make_node("Loop", ["", "yes"], [], body=body),
            helper.make_node("Identity", ["pixels"], ["vector"]),
        ],
        [tensor("yes", np.array(True))],
    )


def hidden(kind):
    """A node of that operator within both branches of an If."""
    branch = helper.make_graph(
        [helper.make_node(kind, [], ["x"], shape=[2])],
        "branch",
        [],
        [helper.make_tensor_value_info("x", 1, [2])],
    )
    nodes = [
        helper.make_node("If", ["yes"], ["_"], then_branch=branch, else_branch=branch),
        helper.make_node("Identity", ["pixels"], ["vector"]),
    ]
    return model(nodes, [tensor("yes", np.array(True))])


def announced():
    made = small()
    made.graph.initializer[0].dims[0] = 1 << 40
    return made


def in_a_constant():
    """The value of an attribute lies in /etc/passwd."""
    value = tensor("v", np.zeros(4, np.float32))
    value.data_location = TensorProto.EXTERNAL
    value.ClearField("raw_data")
    entry = value.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    return model(
        [
            helper.make_node("Constant", [], ["c"], value=value),
            helper.make_node("Identity", ["pixels"], ["vector"]),
        ]
    )


def with_functions():
    made = small()
    relu = helper.make_node("Relu", ["x"], ["y"])
    made.functions.append(helper.make_function("", "Relu", ["x"], ["y"], [relu], made.opset_import))
    return made


FORGED = {
    "custom": (
        lambda: model([helper.make_node("Shell", ["pixels"], ["vector"], domain="evil")]),
        "'Shell' is of 'evil'",
    ),
    "loop": (infinite_loop, r"has a loop \(Loop\)"),
    "random": (lambda: hidden("RandomNormal"), r"random numbers \(RandomNormal\)"),
    "announced": (announced, "'kernel' announces more than it holds"),
    "constant": (in_a_constant, "another file"),
    "functions": (with_functions, "functions"),
    "empty": (lambda: b"", "no whole ONNX file"),
    "pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "no whole ONNX file|ends too early"),
    "cut": (lambda: small().SerializeToString()[:200], "ends too early|no whole"),
    "text": (lambda: b"\xff" * 4096, "no whole"),
}


@pytest.mark.hostile
@pytest.mark.parametrize("kind", FORGED)
def test_a_hostile_file_is_refused_before_onnxruntime_opens_it(kind, tmp_path, monkeypatch):
    make, cause = FORGED[kind]
    monkeypatch.setattr(onnx_backbone, "call_isolated", lambda *_: pytest.fail("it got past the guard"))
    with pytest.raises(RefusedFileError, match=cause):
        catalog.add_file("Bad", write(tmp_path / "bad.onnx", make()))


@pytest.mark.hostile
def test_weights_in_another_file_are_refused_and_the_remedy_works(tmp_path):
    path = write_external(tmp_path / "model.onnx", small())
    with pytest.raises(RefusedFileError, match="its weights lie in another file") as error:
        catalog.add_file("Mine", path)
    code = error.value.remedy.partition('"')[2].partition('"')[0]
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    shutil.copy(onnx_backbone.sidecar(path), tmp_path / "whole.onnx.json")
    assert catalog.add_file("Mine", tmp_path / "whole.onnx") == "Mine"


@pytest.mark.hostile
def test_a_small_file_that_wants_all_memory_ends_its_own_process_only(tmp_path):
    nodes = [
        helper.make_node("Expand", ["one", "shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Add", ["mean", "sum"], ["vector"]),
    ]
    weights = [tensor("one", np.ones(1, np.float32)), tensor("shape", np.array([1 << 36]))]
    with pytest.raises(RefusedFileError, match="is refused"):
        catalog.add_file("Bomb", write(tmp_path / "bomb.onnx", model(nodes, weights)))


@pytest.mark.slow
@pytest.mark.hostile
def test_no_mutation_of_a_file_ends_this_process_or_raises_what_is_not_said(tmp_path):
    """The walk alone: bytes changed, cut out and doubled."""
    whole, chance = small().SerializeToString(), np.random.default_rng(0)
    path, refusals = tmp_path / "mutant.onnx", 0
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(chance.integers(1, 4)):
            at = int(chance.integers(len(data)))
            data[at : at + int(chance.integers(0, 3))] = chance.bytes(int(chance.integers(0, 3)))
        path.write_bytes(data)
        try:
            onnx_backbone.read_graph(path)
        except RefusedFileError:
            refusals += 1
    assert refusals > 200


def test_without_onnxruntime_the_extra_is_named(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    onnx_backbone._examined.cache_clear()
    with pytest.raises(BackboneError) as error:
        catalog.add_file("Mine", file)
    assert "featstore[onnx]" in error.value.remedy


# All the way through


def test_weights_of_a_name_may_bring_the_network(file):
    catalog.add_file("Mine", file)
    row = catalog.row("Mine")
    spec = load_backbone("Mine").spec
    os.environ[catalog.NETWORKS] = ""
    with pytest.raises(UnknownNameError):
        catalog.row("Mine")
    assert parse_weights_options([f"Mine={file}"]) == {"Mine": str(file)}
    os.environ[catalog.NETWORKS] = ""
    assert resolve_weights(row, find_weights(spec, {"Mine": str(file)})).digest == spec.weights


def journey(tmp_path, source, settings):
    """Extract twice, compare, fuse, predict and report; return the comparison and what the second extraction did."""
    path = tmp_path / "model.onnx"
    shutil.copy(source, path)
    onnx_backbone.sidecar(path).write_text(json.dumps(settings))
    data = featstore.make_phantoms(tmp_path / "phantoms", patients=12, slices=1, size=64)
    where = {"cache": tmp_path / "cache"}
    featstore.extract(data, backbones=[f"Mine={path}"], seeds=[1], **where)
    again = featstore.extract(data, backbones=[f"Mine={path}"], seeds=[1, 2], **where)
    os.environ[catalog.NETWORKS] = ""
    compared = featstore.compare(data, strategies=["concat_logreg"], out=tmp_path / "run", **where)
    featstore.fuse(data, strategy="concat_logreg", out=tmp_path / "model", **where)
    one = next(Path(data).parent.rglob("*.png"))
    predicted = featstore.predict(tmp_path / "model", [one], weights={"Mine": str(path)})
    report = featstore.write_report(tmp_path / "run")
    return again, compared, predicted, report


@pytest.mark.slow
def test_an_onnx_network_goes_all_the_way(tmp_path, file):
    again, compared, predicted, report = journey(tmp_path, file, SETTINGS)
    assert again.computed == 12
    assert [scored.candidate.label for scored in compared.candidates] == ["Mine"]
    assert len(predicted.predictions) == 1
    assert "Mine" in report.read_text("utf-8")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("rapidocr_onnxruntime") is None, reason="rapidocr-onnxruntime is not installed")
def test_a_network_that_somebody_else_published_goes_all_the_way(tmp_path):
    """The classifier of RapidOCR (0.6 MB, a MobileNetV3 by PaddlePaddle), cut before its head."""
    package = Path(find_spec("rapidocr_onnxruntime").origin).parent
    source = package / "models" / "ch_ppocr_mobile_v2.0_cls_infer.onnx"
    settings = {"input_size": 96, "mean": 0.5, "std": 0.5, "output": "reshape2_0.tmp_0"}
    again, compared, _, _ = journey(tmp_path, source, settings)
    assert again.computed == 12
    assert [scored.candidate.label for scored in compared.candidates] == ["Mine"]
