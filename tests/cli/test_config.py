"""`featstore.toml`: read by every command on DATA, under its flags; refused where it cannot be meant; written."""

import inspect
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from commandline import featstore
from fakes import spec, write_images
from featstore_cli.main import app
from hypothesis import example, given
from hypothesis import strategies as st
from typer.main import get_command

import featstore as package
from featstore.api.config import NOT_FOR, SETTINGS, ConfigOptions, _document, _values
from featstore.errors import UnknownNameError, UsageError
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.serialization import digest_file
from featstore.store.store import Store
from featstore.types import IDENTITY, Decoding, FeatureKey

NAME = "featstore.toml"
_PATH = Path(NAME)


@pytest.fixture
def data(tmp_path):
    """Table of twelve images of two classes; there are no settings beside it yet."""
    return write_images(tmp_path / "data", 12)


@pytest.fixture
def extracted(data, tmp_path):
    """The same with vectors of two networks in a cache."""
    records = scan(data).records
    rng = np.random.default_rng(0)
    for name in ("A", "B"):
        key = FeatureKey(spec(name=name), IDENTITY, Decoding(decoder_version()))
        vectors = rng.normal(size=(len(records), 12)).astype(np.float32)
        Store(tmp_path / "cache").write(key, [record.id for record in records], vectors)
    return data


def settings(data, text):
    """Put a file where the settings of a data set are looked for."""
    path = (data if data.is_dir() else data.parent) / NAME
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def run_json(folder):
    return json.loads((folder / "run.json").read_text())


# Read


def test_a_command_takes_what_the_file_says_flags_win_and_the_run_records_it(extracted, tmp_path):
    path = settings(extracted, 'positive = "well"\ntest-size = 0.5\nbackbones = ["A"]\nratios = [1, 1]\n')
    common = ["fuse", extracted, "--cache", tmp_path / "cache", "--json"]
    first = featstore(*common, "--out", tmp_path / "one")
    assert first.code == 0, first.err
    run = run_json(tmp_path / "one")
    assert run["matrix"]["positive"] == "well"
    assert [b["name"] for b in run["matrix"]["backbones"]] == ["A"]
    assert run["config"] == {
        "file": NAME,
        "sha256": digest_file(path),
        "used": ["backbones", "positive", "test_size"],
    }
    second = featstore(*common, "--out", tmp_path / "two", "--positive", "ill", "--backbones", "A,B")
    assert second.code == 0, second.err
    run = run_json(tmp_path / "two")
    assert run["matrix"]["positive"] == "ill"
    assert [b["name"] for b in run["matrix"]["backbones"]] == ["A", "B"]
    assert run["config"]["used"] == ["test_size"]
    third = featstore(*common, "--out", tmp_path / "three", "--config", "none")
    assert third.code == 0, third.err
    assert "config" not in run_json(tmp_path / "three")


def test_it_says_on_stderr_what_it_takes_and_to_a_program_nothing(data):
    settings(data, 'accept = "FS408"\nfolds = 3')
    done = featstore("check", data)
    assert f"check: accept as in {data.parent / NAME}" in done.err
    quiet = featstore("check", data, "--json")
    assert NAME not in quiet.err
    assert [f["code"] for f in quiet.json["findings"] if f["accepted"]] == [
        f["code"] for f in quiet.json["findings"] if f["code"] == "FS408"
    ]


def test_a_table_has_its_settings_beside_it_and_other_tables_there_are_read_without_its_columns(tmp_path):
    data = write_images(tmp_path / "data", 12).parent
    records = scan(data / "manifest.csv").records
    lines = [
        f"{r.path.relative_to(data).as_posix()},{r.label},p{at // 2},{at // 2}"
        for at, r in enumerate(records)
    ]
    table = data / "raw.csv"
    table.write_text("\n".join(["file,finding,who,age", *lines]))
    columns = 'columns = { path = "file", label = "finding", group = "who" }\ncovariates = "age"\n'
    settings(data, f'data = "raw.csv"\n{columns}ratios = "50/50"\nfolds = 3')
    drawn = featstore("split", table, "--out", data / "s.csv", "--json")
    assert drawn.code == 0, drawn.err
    assert [part["name"] for part in drawn.json["parts"]] == ["train", "test"], "folds are compare's"
    again = featstore("split", data / "s.csv", "--out", data / "t.csv", "--folds", 2, "--json")
    assert again.code == 0, again.err
    assert [part["name"] for part in again.json["parts"]] == ["fold 1", "fold 2"], "a flag in their place"


@pytest.mark.parametrize("flags", [["--window", "lung"], ["--range", "0,9"]])
def test_a_flag_stands_in_the_place_of_the_other_name_of_its_setting(data, flags):
    settings(data, "range = [0, 255]")
    assert featstore("check", data, *flags, "--json").code in {0, 5}


def test_several_data_sets_need_one_way_to_be_read(tmp_path):
    first, second = (write_images(tmp_path / name, 4, seed=n) for n, name in enumerate("ab"))
    Store(tmp_path / "cache").write(
        FeatureKey(spec(), IDENTITY, Decoding(decoder_version())),
        [scan(first).records[0].id],
        np.ones((1, 12), np.float32),
    )
    settings(first, "columns = { site = 'label' }")
    gc = ["cache", "gc", first, second, "--cache", tmp_path / "cache", "--dry-run", "--json"]
    done = featstore(*gc)
    assert (done.code, "differ" in done.err) == (2, True)
    assert featstore(*gc, "--config", "none").code == 0
    settings(second, "columns = { site = 'label' }")
    assert featstore(*gc).code == 0


def test_python_gets_keyword_arguments_of_the_function(data):
    settings(
        data,
        """
folds = "split"
seeds = "1-3,7"
window = "lung"
recipe = "mild"
views = "expand, average"
weights = { A = "random:3", B = "b.h5" }
fold_seed = 2
covariates = "age, sex"
""",
    )
    assert package.read_config(data, function="compare") == {
        "folds": "split",
        "seeds": (1, 2, 3, 7),
        "value_range": (-1350.0, 150.0),
        "recipe": "mild",
        "views": ["expand", "average"],
        "weights": {"A": "random:3", "B": str(data.parent / "b.h5")},
        "fold_seed": 2,
        "covariates": ["age", "sex"],
    }
    assert set(package.read_config(data, function="check")) == {"value_range", "covariates"}
    assert "recipe" not in package.read_config(data, function="finetune")
    assert package.read_config(data, path="none") == {}
    assert package.read_config(data.parent / "ill") == {}
    with pytest.raises(UnknownNameError, match="compare"):
        package.read_config(data, function="compar")


def test_every_setting_is_an_argument_of_a_function_and_an_option_of_a_command():
    functions = [getattr(package, n) for n in package.__all__ if n.islower() and n != "write_config"]
    arguments = {name for function in functions for name in inspect.signature(function).parameters}
    assert set(ConfigOptions.__annotations__) - arguments == {"window"}
    assert {_argument(name) for name in SETTINGS} == set(ConfigOptions.__annotations__)
    commands = get_command(app).commands
    options = {p.name for command in commands.values() for p in command.params}
    assert {_argument(name) for name in SETTINGS} <= options
    for command, names in NOT_FOR.items():
        assert names <= {p.name for p in commands[command].params}, "needed, or it is dead"


def _argument(name):
    return "value_range" if name == "range" else name.replace("-", "_")


@pytest.mark.parametrize("name", SETTINGS)
def test_the_example_of_every_setting_can_be_read(name):
    read = _values(_PATH, f"{name} = {SETTINGS[name].example}", named=False)
    assert set(read) == {_argument(name)}


# Refused


@pytest.mark.parametrize(
    ("text", "cause", "remedy"),
    [
        ("positiv = 'x'", "line 1: positiv is no setting", "Did you mean positive?"),
        ("folds = 5\nout = 'x'", "line 2: out is no setting", "--write-config"),
        ("plugin = 'x.py'", "plugin is no setting", "--write-config"),
        ("follow-links = true", "follow-links is no setting", "--write-config"),
        ("[compare]\nfolds = 5", "line 1: [compare] is no setting", "Leave it out"),
        ("[columns]\ngroup = 'p'\nmargin = 0.1", "margin stands under [columns]", "Move it above"),
        ("\nmargin = 'big'", "line 2: margin cannot be 'big'", "margin = 0.01"),
        ("margin = nan", "margin cannot be nan", "margin = 0.01"),
        ("margin = true", "margin cannot be True", "margin = 0.01"),
        ("positive = 3", "positive cannot be 3", 'positive = "covid"'),
        ("positive = ''", "positive cannot be ''", 'positive = "covid"'),
        ("positive = 2020-01-01", "positive cannot be datetime", 'positive = "covid"'),
        ("seeds = '1-99999999'", "seeds cannot be '1-99999999'", 'seeds = "1-4"'),
        ("seeds = [1.5]", "seeds cannot be [1.5]", 'seeds = "1-4"'),
        ("folds = -1", "folds cannot be -1", "folds = 5"),
        ("range = [3, 1]", "range cannot be [3, 1]", "range = [0, 4095]"),
        ("columns = 'group=p'", "columns cannot be 'group=p'", "patient_id"),
        ("range = [0, 1]\nwindow = 'lung'", "say the same", "Leave one"),
        ("fold-seed = 1\nfold_seed = 2", "line 2: fold-seed stands twice", "Leave one"),
        ("folds = 5\nfolds = 6", "line 2: it is no TOML", "--config none"),
        ("folds = 5\nfolds: 6", "line 2: it is no TOML", "--config none"),
        ('positive = "co', "line 1: it is no TOML", "--config none"),
        (b"folds = 5\npositive = '\xff'", "line 2: it is no text in UTF-8", "Save the file as UTF-8"),
        ("folds = 5".encode("utf-16"), "line 1: it is no text in UTF-8", "Save the file as UTF-8"),
        ("folds = " + "[" * 1900, "it is nested too deeply", "--config none"),
        ("folds = " + "9" * 1900, "folds cannot be 99", "folds = 5"),
        ("#" * 3000, "line 1: it has more than 2,048 characters", "--config none"),
        ("#\n" * 40_000, "more than 65,536", "--config none"),
        ("root = '..'", "root leads out of the folder", "--root FOLDER"),
        ("root = '/etc'", "root leads out of the folder", "--root FOLDER"),
        ("x" * 500 + " = 1", "is no setting", "--write-config"),
    ],
)
def test_what_cannot_be_meant_is_told_with_its_line_and_a_remedy(tmp_path, text, cause, remedy):
    path = settings(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        package.read_config(tmp_path)
    assert caught.value.cause.startswith(str(path))
    assert cause in caught.value.cause
    assert remedy in caught.value.remedy
    assert len(caught.value.cause) < len(str(path)) + 200
    assert "\n" not in str(caught.value.cause + caught.value.remedy)


def test_a_file_of_windows_is_read(tmp_path):
    settings(tmp_path, b'\xef\xbb\xbffolds = 5\r\npositive = "covid"\r\n')
    assert package.read_config(tmp_path) == {"folds": 5, "positive": "covid"}


@pytest.mark.parametrize("kind", ["folder", "link", "dangling", "loop"])
def test_what_is_no_plain_file_is_refused_and_can_be_left_aside(data, tmp_path, kind):
    (tmp_path / "other.toml").write_text("folds = 3")
    place = data.parent / NAME
    match kind:
        case "folder":
            place.mkdir()
        case "link":
            place.symlink_to(tmp_path / "other.toml")
        case "dangling":
            place.symlink_to("nowhere")
        case "loop":
            place.symlink_to(NAME)
    done = featstore("check", data)
    assert done.code == 2
    assert "--config none" in done.err
    assert featstore("check", data, "--config", "none").code in {0, 5}
    if kind == "link":
        assert package.read_config(data, path=place) == {"folds": 3}, "whoever names it means it"


def test_a_file_that_was_named_must_be_there(data, tmp_path):
    done = featstore("check", data, "--config", tmp_path / "nowhere.toml")
    assert (done.code, "nowhere.toml cannot be read: No such file" in done.err) == (2, True)


def test_a_plan_settles_what_the_file_says(extracted, tmp_path):
    settings(extracted, 'folds = 3\nrepeats = 1\npositive = "ill"\nstrategies = "concat_logreg"')
    cache = ["--cache", tmp_path / "cache"]
    sealed = featstore("plan", extracted, *cache, "--out", tmp_path / "plan.json", "--json")
    assert sealed.code == 0, sealed.err
    assert (sealed.json["folds"], sealed.json["repeats"]) == (3, 1)
    settings(extracted, 'folds = 4\nstrategies = "soft_vote"')
    command = ["compare", extracted, *cache, "--plan", tmp_path / "plan.json", "--json"]
    done = featstore(*command)
    assert done.code == 0, done.err
    assert done.json["protocol"]["folds"] == 3
    path = settings(extracted, 'strategies = "soft_vot"')
    done = featstore(*command)
    assert (
        f"Did you mean soft_vote? `featstore strategies` lists all. Settings as in {path}: strategies."
        in done.err
    )


# Written


def test_check_writes_what_was_found_and_given_and_overwrites_nothing_unasked(data):
    done = featstore("check", data, "--write-config", "--columns", "site=label", "--accept", "FS408")
    assert done.code in {0, 5}, done.err
    assert f"Settings written to {data.parent / NAME}" in done.err
    text = (data.parent / NAME).read_text()
    assert "# Found: 12 images of 6 patients (groups); ill 6, well 6." in text
    assert tomllib.loads(text) == {
        "data": "manifest.csv", "columns": {"site": "label"}, "positive": "ill", "accept": ["FS408"]
    }  # fmt: skip
    again = featstore("check", data, "--write-config")
    assert (again.code, (data.parent / NAME).read_text()) == (2, text)
    assert "--overwrite" in again.err
    (data.parent / NAME).write_text(text + "folds = 3\nseeds = '1-4'\n")
    kept = featstore("check", data, "--write-config", "--overwrite", "--columns", "site=group")
    assert kept.code in {0, 5}, kept.err
    written = tomllib.loads((data.parent / NAME).read_text())
    assert (written["folds"], written["seeds"], written["columns"]) == (3, "1-4", {"site": "group"})
    elsewhere = featstore(
        "check", data, "--write-config", "--config", data.parent / "mine.toml", "--window", "lung"
    )
    assert elsewhere.code in {0, 5}, elsewhere.err
    assert tomllib.loads((data.parent / "mine.toml").read_text()) == {
        "data": "manifest.csv", "positive": "ill", "window": "lung"
    }  # fmt: skip


def test_paths_are_written_from_the_folder_of_the_file_and_read_back(tmp_path):
    path = package.write_config(
        tmp_path / "a.csv", root=tmp_path / "x", weights={"A": "a.h5", "B": "imagenet"}
    )
    assert tomllib.loads(path.read_text()) == {
        "data": "a.csv", "root": "x", "weights": {"A": "a.h5", "B": "imagenet"}
    }  # fmt: skip


def test_what_could_not_be_read_beside_the_data_is_not_written_there(tmp_path):
    with pytest.raises(UsageError, match="root leads out"):
        package.write_config(tmp_path / "data/a.csv", root=tmp_path)
    (tmp_path / "mine").mkdir()
    path = package.write_config(tmp_path / "data/a.csv", root=tmp_path, path=tmp_path / "mine/a.toml")
    assert package.read_config(tmp_path / "data/a.csv", path=path) == {"root": tmp_path}


def test_a_value_that_is_not_of_its_kind_is_not_written(tmp_path):
    with pytest.raises(UsageError, match="folds cannot be 'five'"):
        package.write_config(tmp_path, folds="five")
    assert not (tmp_path / NAME).exists()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "positive": TEXT,
            "group_pattern": TEXT,
            "suffix": TEXT,
            "margin": st.floats(allow_nan=False, allow_infinity=False),
            "folds": st.integers(0, 1 << 62) | st.just("split"),
            "seeds": st.lists(st.integers(0, 1 << 62), max_size=4).map(tuple),
            "backbones": st.lists(TEXT, min_size=1, max_size=3),
            "columns": st.dictionaries(TEXT, TEXT, min_size=1, max_size=3),
        },
    )
)
@example({"positive": "\\'\"\x7f\x00\n\u2028"})
def test_whatever_is_written_is_read_back(values):
    text = _document({name.replace("_", "-"): value for name, value in values.items()}, None)
    assert _values(_PATH, text, named=True) == values
