"""What stage two takes where it is told none: the last extract of these images, else what is complete for them."""

import json
import shlex
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fakes import GridBackbone, spec, write_images
from PIL import Image

import featstore
from featstore.api import extract as module
from featstore.api.cache import verify
from featstore.errors import AuditError, MissingFeaturesError, UnknownNameError, UsageError
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.matrix import load_matrix
from featstore.splits import group_folds
from featstore.store.notes import recorded_request
from featstore.store.store import Store
from featstore.stored_features import extract_command
from featstore.types import IDENTITY, Decoding, FeatureKey, View

N = 12
MILD = "rotate(0,40)|fill(nearest)"
OTHER = "flip(h)|fill(nearest)"
DECODING = Decoding(decoder_version())


class Grids:
    """Networks of any name, without TensorFlow; a weight ``random:7`` is another network of the same name."""

    def __init__(self, weights, preprocess, precision="float32", _engine="tensorflow"):
        self.weights, self.preprocess, self.precision = weights, preprocess, precision

    def spec(self, name, *, fetch):  # noqa: ARG002
        weights = f"{self.weights.get(name, 'random:0')} keras 0"
        return replace(spec(name, weights=weights), precision=self.precision, preprocess=self.preprocess)

    def load(self, wanted):
        return GridBackbone(wanted)

    def keep(self, _wanted):
        pass


@pytest.fixture(autouse=True)
def _no_tensorflow(monkeypatch):
    monkeypatch.setattr(module, "Networks", Grids)


@pytest.fixture
def data(tmp_path):
    return write_images(tmp_path / "data", N)


def extract(data, *names, **options):
    return featstore.extract(data, backbones=list(names), **options)


def store(data, name, images=N, view=IDENTITY, decoding=DECODING, **changed):
    """Vectors of the first `images` images, as anything but an extract of this data would leave them."""
    ids = [record.id for record in scan(data).records[:images]]
    weights = changed.pop("weights", "random:0 keras 0")
    key = FeatureKey(replace(spec(name, weights=weights), **changed), view, decoding)
    Store(Path("cache")).write(key, ids, np.ones((images, 12), np.float32))


def note(matrix, code="FS405"):
    (finding,) = [finding for finding in matrix.findings if finding.code == code]
    return finding


def codes(matrix):
    return {finding.code for finding in matrix.findings}


def test_a_network_that_only_another_data_set_has_is_left_out_and_named(data, tmp_path):
    extract(data, "MobileNet", "ResNet50")
    extract(write_images(tmp_path / "more", N, seed=7), "VGG19")
    shutil.rmtree("cache/index")
    matrix = load_matrix(data)
    assert matrix.backbones == ("MobileNet", "ResNet50")
    assert "Left out: VGG19 (0 of 12 images)" in note(matrix).message
    assert note(matrix).count == 1


def test_a_network_that_has_some_of_the_images_is_left_out_with_its_count(data):
    store(data, "MobileNet")
    store(data, "ResNet50", images=8)
    matrix = load_matrix(data)
    assert matrix.backbones == ("MobileNet",)
    assert (
        "Taken are MobileNet (complete for all 12 images). Left out: ResNet50 (8 of 12 images)."
        in note(matrix).message
    )


def test_the_last_extract_of_these_images_decides_and_a_network_that_came_later_is_named(data):
    extract(data, "MobileNet", "ResNet50", recipe=MILD, seeds=[1, 2])
    store(data, "VGG19")
    for view in (View(MILD, 3), View(OTHER, 1)):
        store(data, "MobileNet", view=view)
        store(data, "ResNet50", view=view)
    matrix = load_matrix(data)
    assert matrix.backbones == ("MobileNet", "ResNet50")
    assert matrix.views == (IDENTITY, View(MILD, 1), View(MILD, 2))
    found = note(matrix)
    assert "Taken are MobileNet, ResNet50 (asked for by the last extract of these images)" in found.message
    assert "Left out: VGG19 (all 12 images)" in found.message
    assert "Complete and not asked for: 2 augmented views." in found.message
    names = found.remedy.rpartition("--backbones ")[2].split(",")
    assert load_matrix(data, backbones=names, recipe=MILD, seeds=[]).backbones == (
        "MobileNet",
        "ResNet50",
        "VGG19",
    )


def test_the_very_last_extract_counts_whatever_path_it_was_given(data, tmp_path):
    extract(data, "MobileNet", "ResNet50")
    shutil.copytree(data.parent, tmp_path / "elsewhere")
    extract(tmp_path / "elsewhere" / data.name, "ResNet50")
    assert load_matrix(data).backbones == ("ResNet50",)


def test_an_extract_of_other_images_or_under_another_range_does_not_count(data, tmp_path):
    extract(data, "MobileNet")
    extract(write_images(tmp_path / "more", N, seed=7), "ResNet50")
    extract(data, "VGG19", value_range=(0.0, 99.0))
    assert load_matrix(data).backbones == ("MobileNet",)
    assert load_matrix(data, value_range=(0, 99)).backbones == ("VGG19",)


def test_jobs_of_an_array_leave_one_request_that_counts_once_all_are_done(data):
    extract(data, "ResNet50", "MobileNet", num_workers=2, worker_index=0)
    with pytest.raises(MissingFeaturesError, match=r"MobileNet \d of 12 images; ResNet50 \d of 12 images"):
        load_matrix(data)
    extract(data, "ResNet50", "MobileNet", num_workers=2, worker_index=1)
    store(data, "VGG19")
    assert load_matrix(data).backbones == ("MobileNet", "ResNet50")


def test_the_command_compares_what_yesterday_compared(data, tmp_path, monkeypatch, capsys):
    extract(data, "MobileNet", "ResNet50", precision="bfloat16")
    store(data, "VGG19", precision="bfloat16")
    extract(write_images(tmp_path / "more", N, seed=7), "Xception")
    command = f"featstore compare {data} --folds 2 --strategies nearest_centroid --json"
    _type(command, data, monkeypatch)
    matrix = json.loads(capsys.readouterr().out)["matrix"]
    assert [(s["name"], s["precision"]) for s in matrix["backbones"]] == [
        ("MobileNet", "bfloat16"),
        ("ResNet50", "bfloat16"),
    ]
    _type(f"{command} --backbones VGG19,ResNet50 --precision bfloat16", data, monkeypatch)
    matrix = json.loads(capsys.readouterr().out)["matrix"]
    assert [spec["name"] for spec in matrix["backbones"]] == ["VGG19", "ResNet50"]


def test_a_dry_run_and_the_paper_leave_no_request(data):
    extract(data, "MobileNet")
    extract(data, "ResNet50", as_default=False)
    extract(data, "VGG19", dry_run=True)
    assert load_matrix(data).backbones == ("MobileNet",)


@pytest.mark.parametrize("damage", ["deleted", "torn", "forged", "moved"])
def test_without_its_request_stage_two_takes_what_is_complete(data, tmp_path, damage):
    extract(data, "MobileNet")
    extract(data, "ResNet50")
    (page,) = Path("cache/index").glob("*.json")
    text = page.read_text()
    if damage == "deleted":
        page.unlink()
    elif damage == "moved":
        extract(write_images(tmp_path / "more", N, seed=7), "VGG19")
        (other,) = set(Path("cache/index").glob("*.json")) - {page}
        shutil.copy(other, page)
    else:
        page.write_text(text[:-40] if damage == "torn" else text.replace("ResNet50", "ResNet51"))
    assert load_matrix(data).backbones == ("MobileNet", "ResNet50")
    bad = [Path(path).name for path, _ in verify("cache").bad]
    assert bad == ([page.name] if damage in {"torn", "forged"} else [])


def test_the_record_names_no_path_and_no_patient(data):
    extract(data, "MobileNet")
    (page,) = Path("cache/index").glob("*.json")
    text = page.read_text()
    assert not [word for word in ("ill", "well", "p0", "manifest", ".png", str(data.parent)) if word in text]


def test_added_images_are_asked_for_with_a_command_that_works(data, monkeypatch):
    extract(data, "MobileNet", "ResNet50", recipe=MILD, seeds=[1, 2], weights={"ResNet50": "random:7"})
    write_images(data.parent, N + 4)
    with pytest.raises(
        MissingFeaturesError, match=r"MobileNet 12 of 16 images and 12 of 16 .* in 2 of 2"
    ) as caught:
        load_matrix(data)
    command = caught.value.remedy.partition(": ")[2].rstrip(".")
    assert command == (
        "featstore extract DATA --backbones MobileNet,ResNet50"
        " --weights MobileNet=random:0 --weights ResNet50=random:7"
        f" --recipe {shlex.quote(MILD)} --seeds 1-2"
    )
    _type(command, data, monkeypatch)
    matrix = load_matrix(data)
    assert (len(matrix.records), len(matrix.views)) == (N + 4, 3)


def _type(command, data, monkeypatch):
    """Run a command line that a remedy gave."""
    from featstore_cli.main import main

    monkeypatch.setattr("sys.argv", [str(data) if word == "DATA" else word for word in shlex.split(command)])
    try:
        main()
    except SystemExit as end:
        assert not end.code  # noqa: PT017


@pytest.mark.parametrize("asked", [{"precision": "bfloat16"}, {"preprocess": "rescale"}])
def test_imported_vectors_do_not_stand_for_networks_that_are_asked_for_otherwise(data, tmp_path, asked):
    extract(data, "MobileNet", seeds=())
    files = [record.id for record in scan(data).records]
    np.savez(tmp_path / "v.npz", ids=files, features=np.random.default_rng(0).normal(size=(N, 3)))
    featstore.import_features(data, tmp_path / "v.npz", "Theirs")
    assert load_matrix(data).backbones == ("MobileNet", "Theirs")
    with pytest.raises(MissingFeaturesError, match="MobileNet") as error:
        load_matrix(data, **asked)
    (name,) = asked
    assert f"--{name}" in error.value.remedy


def test_networks_are_taken_with_one_preprocessing_where_they_have_one_in_common(data):
    extract(data, "MobileNet", "ResNet50", seeds=())
    extract(data, "MobileNet", preprocess="rescale", seeds=())
    named = load_matrix(data, backbones=["MobileNet", "ResNet50"])
    assert [spec.preprocess for spec in named.specs] == ["official", "official"]
    assert load_matrix(data, backbones=["MobileNet"]).specs[0].preprocess == "rescale"


def test_the_last_extract_settles_weights_precision_preprocessing_and_recipe(data):
    extract(data, "MobileNet", weights={"MobileNet": "random:7"}, recipe=OTHER, seeds=[1])
    extract(data, "MobileNet", precision="bfloat16", preprocess="rescale", recipe=MILD, seeds=[1])
    extract(data, "MobileNet", recipe=MILD, seeds=[4])
    assert load_matrix(data).views == (IDENTITY, View(MILD, 4))
    extract(data, "MobileNet", precision="bfloat16", preprocess="rescale", recipe=MILD, seeds=[1])
    matrix = load_matrix(data)
    assert (matrix.specs[0].precision, matrix.specs[0].preprocess) == ("bfloat16", "rescale")
    assert load_matrix(data, recipe=MILD).views == (IDENTITY, View(MILD, 1))
    assert load_matrix(data, seeds=[1]).views == (IDENTITY, View(MILD, 1))
    assert load_matrix(data, seeds=()).views == (IDENTITY,)
    with pytest.raises(UsageError, match="MobileNet with several weights"):
        load_matrix(data, precision="float32", preprocess="official")


def test_what_is_said_beats_the_last_extract(data):
    store(data, "MobileNet")
    extract(data, "ResNet50", recipe=MILD, seeds=[1])
    matrix = load_matrix(data, backbones=["MobileNet"])
    assert matrix.backbones == ("MobileNet",)
    assert matrix.views == (IDENTITY,)
    assert "FS405" not in codes(matrix)


def test_weights_of_which_only_one_is_complete_are_no_question(data):
    store(data, "MobileNet")
    store(data, "MobileNet", images=4, weights="random:7 keras 0")
    assert load_matrix(data).specs[0].weights == "random:0 keras 0"
    store(data, "ResNet50", images=4, weights="random:1 keras 0")
    store(data, "ResNet50", images=4, weights="random:2 keras 0")
    assert load_matrix(data).backbones == ("MobileNet",)


def test_views_that_a_network_lacks_take_no_part_and_are_counted(data):
    for name in ("MobileNet", "ResNet50"):
        store(data, name)
        store(data, name, view=View(MILD, 1))
    store(data, "MobileNet", view=View(MILD, 2))
    store(data, "MobileNet", view=View(OTHER, 3))
    store(data, "ResNet50", view=View(OTHER, 3), images=5)
    matrix = load_matrix(data)
    assert matrix.views == (IDENTITY, View(MILD, 1))
    assert "Not complete for all of these, and left out: 2 augmented views." in note(matrix).message
    assert load_matrix(data, backbones=["MobileNet"], recipe=MILD).views == (
        IDENTITY,
        View(MILD, 1),
        View(MILD, 2),
    )


def test_a_named_network_that_lacks_images_says_how_many_and_what_is_ready(data):
    store(data, "MobileNet")
    store(data, "ResNet50", images=8)
    with pytest.raises(MissingFeaturesError, match="ResNet50 8 of 12 images") as caught:
        load_matrix(data, backbones=["MobileNet", "ResNet50"])
    assert "featstore extract DATA --backbones MobileNet,ResNet50" in caught.value.remedy
    ready = caught.value.remedy.rpartition("--backbones ")[2].rstrip(".")
    assert load_matrix(data, backbones=ready.split(",")).backbones == ("MobileNet",)


ELSEWHERE = {
    "range": ({"decoding": replace(DECODING, value_range=(0.0, 4080.0))}, {}, "--range=0,4080"),
    "negative range": (
        {"decoding": replace(DECODING, value_range=(-1350.0, 150.0))},
        {},
        "--range=-1350,150",
    ),
    "another range": (
        {"decoding": replace(DECODING, value_range=(0.5, 1.25))},
        {"value_range": (0, 9)},
        "--range=0.5,1.25",
    ),
    "no range": ({}, {"value_range": (0, 9)}, "Leave out --range"),
    "precision": ({"precision": "bfloat16"}, {}, "--precision bfloat16"),
    "default precision": ({}, {"precision": "float16"}, "--precision float32"),
    "preprocess": ({"preprocess": "rescale"}, {}, "--preprocess rescale"),
    "both": (
        {"precision": "bfloat16", "decoding": replace(DECODING, value_range=(0.0, 9.0))},
        {},
        "Give --range=0,9 --precision bfloat16",
    ),
}


@pytest.mark.parametrize(("there", "asked", "flag"), ELSEWHERE.values(), ids=ELSEWHERE)
@pytest.mark.parametrize("named", [None, ["MobileNet"]])
def test_features_that_exist_under_another_flag_are_named_with_it(data, there, asked, flag, named):
    store(data, "MobileNet", **there)
    with pytest.raises(MissingFeaturesError) as caught:
        load_matrix(data, backbones=named, **asked)
    assert "MobileNet (12 of 12 images) with" in caught.value.cause
    assert flag in caught.value.remedy
    given = _options(caught.value.remedy)
    kept = {} if "Leave out" in flag else {key: value for key, value in asked.items() if key not in given}
    assert load_matrix(data, backbones=named, **kept, **given).backbones == ("MobileNet",)


def _options(remedy):
    words = [word.rstrip(".") for word in remedy.replace("=", " ").split()]
    pairs = dict(pairwise(words))
    given = {name: pairs[f"--{name}"] for name in ("precision", "preprocess") if f"--{name}" in pairs}
    if "Give" in remedy and "--range" in pairs:
        given["value_range"] = tuple(map(float, pairs["--range"].split(",")))
    return given


@pytest.mark.parametrize(
    ("asked", "flag"), [({}, "--range=LOW,HIGH"), ({"value_range": (0, 9)}, "--range=0,9")]
)
@pytest.mark.parametrize("others", [False, True])
def test_deep_images_without_features_are_to_be_extracted_with_a_range(tmp_path, asked, flag, others):
    for n in range(8):
        path = tmp_path / "deep" / ("ill" if n % 2 else "well") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 1000 * n, np.uint16)).save(path)
    if others:
        extract(write_images(tmp_path / "data", N), "MobileNet")
    with pytest.raises(MissingFeaturesError) as caught:
        load_matrix(tmp_path / "deep", **asked)
    assert f"`featstore extract DATA {flag}`" in caught.value.remedy


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"decoding": Decoding("pillow 0.0.0")}, "decoded by pillow 0.0.0, and this machine has"),
        ({"revision": 1}, "computed by an earlier featstore"),
    ],
)
def test_features_that_cannot_be_used_any_more_are_to_be_computed_again(data, changed, words):
    store(data, "MobileNet", **changed)
    with pytest.raises(MissingFeaturesError, match=words) as caught:
        load_matrix(data)
    assert "featstore extract DATA --backbones MobileNet" in caught.value.remedy


def test_a_recipe_that_is_not_there_is_said_and_not_dropped(data):
    store(data, "MobileNet")
    store(data, "MobileNet", view=View(MILD, 1))
    with pytest.raises(
        MissingFeaturesError, match=r"No view of the recipe flip.*complete are: those of rotate"
    ):
        load_matrix(data, recipe=OTHER)


def test_a_misspelt_backbone_is_no_reason_to_extract_it(data):
    store(data, "MobileNet")
    with pytest.raises(UnknownNameError) as caught:
        load_matrix(data, backbones=["MobileNte"])
    assert "Did you mean MobileNet" in caught.value.remedy
    with pytest.raises(UnknownNameError, match="'Xceptoin'") as caught:
        load_matrix(data, backbones=["Xceptoin"])
    assert "Xception" in caught.value.remedy


def test_imported_vectors_always_take_part_and_are_marked(data):
    extract(data, "MobileNet", recipe=MILD, seeds=[1])
    store(data, "Theirs", weights=f"foreign:{'0' * 64}", preprocess="foreign", input_size=0)
    matrix = load_matrix(data)
    assert matrix.backbones == ("MobileNet", "Theirs")
    assert note(matrix, "FS404").message.startswith("Theirs: not computed here, but imported.")
    assert "Not complete for all of these, and left out: 1 augmented view." in note(matrix).message
    without = note(matrix, "FS404").remedy.rpartition("--backbones ")[2]
    matrix = load_matrix(data, backbones=[without])
    assert codes(matrix).isdisjoint({"FS404", "FS405"})
    assert len(matrix.views) == 2


def test_a_record_is_only_for_the_very_same_images(data):
    extract(data, "MobileNet")
    ids = [record.id for record in scan(data).records]
    assert recorded_request(Path("cache"), ids[::-1], DECODING).backbones[0].name == "MobileNet"
    assert recorded_request(Path("cache"), ids[1:], DECODING) is None


def test_the_command_for_what_is_missing_says_everything_that_is_not_the_default():
    odd = replace(spec("MobileNet", weights="sha256:0"), precision="bfloat16", preprocess="rescale")
    views = [IDENTITY, *(View(MILD, seed) for seed in (1, 2, 4, 7, 8, 9))]
    line = extract_command([odd], views, replace(DECODING, value_range=(-1350.0, 150.0)))
    assert shlex.split(line) == [
        "featstore", "extract", "DATA", "--backbones", "MobileNet", "--weights", "MobileNet=FILE",
        "--preprocess", "rescale", "--precision", "bfloat16", "--recipe", MILD, "--seeds", "1-2,4,7-9",
        "--range=-1350,150",
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["truncated", "empty", "gone"])
def test_a_class_that_is_all_in_quarantine_is_named_with_its_count(data, how):
    for path in (data.parent / "ill").iterdir():
        if how == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-30] if how == "truncated" else b"")
    result = extract(data, "MobileNet")
    reason = {"truncated": "truncated", "empty": "empty", "gone": "missing"}[how]
    words = rf"class ill: 6 of 6 files are in quarantine \({reason}\)"
    (lost,) = [finding for finding in result.findings if finding.code == "FS109"]
    assert lost.message.count(words.replace("\\", "")) == 1
    with pytest.raises(AuditError, match=words) as caught:
        load_matrix(data)
    assert "class 'well'" in caught.value.cause


STEPS = {
    "fuse": lambda data: featstore.fuse(data, out="run"),
    "compare": featstore.compare,
    "export": lambda data: featstore.export_features(data, "out.npz"),
    "paper": lambda data: featstore.paper(data, backbones=["VGG16"], weights={"VGG16": "random:1"}),
    "finetune": lambda data: featstore.finetune(
        data, backbone="MobileNet", weights={"MobileNet": "random:1"}, out="tuned"
    ),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_no_step_takes_a_class_in_quarantine_for_one_that_was_never_there(data, step):
    for path in (data.parent / "well").iterdir():
        path.write_bytes(path.read_bytes()[:-30])
    extract(data, "VGG16")
    with pytest.raises(AuditError, match=r"class well: 6 of 6 files are in quarantine \(truncated\)"):
        step(data)


def test_a_class_that_loses_some_is_told_with_the_rest(data):
    for path in sorted((data.parent / "ill").iterdir())[:2]:
        path.write_bytes(b"")
    extract(data, "MobileNet")
    matrix = load_matrix(data)
    assert note(matrix, "FS301").message == "Class ill: 2 of 6 files are in quarantine (empty)."
    assert note(matrix, "FS301").count == 2
    with pytest.raises(
        AuditError, match=r"there are: ill 2, well 3\. Class ill: 2 of 6 files are in quarantine"
    ):
        group_folds(matrix, 5)


def test_where_no_image_can_be_read_every_class_says_so(data):
    for path in data.parent.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:-30])
    extract(data, "MobileNet")
    with pytest.raises(AuditError, match=r"No image can be read: class ill: 6 of 6 .*; class well: 6 of 6"):
        load_matrix(data)


def test_where_nothing_was_asked_for_the_fullest_is_named_and_the_others_are_counted(data, tmp_path):
    """Of three networks with some of the images, one has the most: it is the nearest way on."""
    few = write_images(tmp_path / "few", N - 8)
    extract(few, "MobileNet", "ResNet50", "Xception")
    extract(write_images(tmp_path / "some", N - 4), "Xception")
    with pytest.raises(MissingFeaturesError) as caught:
        load_matrix(data)
    cause, remedy = caught.value.cause, caught.value.remedy
    assert "asked for" not in cause
    assert f"Xception {N - 4} of {N} images, and 2 more have some." in cause
    assert "--backbones Xception " in remedy
