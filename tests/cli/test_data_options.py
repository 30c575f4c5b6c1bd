"""The options that say how DATA is read: in every command that reads it, from one place, down to stage two."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from commandline import featstore
from fakes import spec, write_images
from featstore_cli import options
from featstore_cli.main import app
from PIL import Image
from typer.main import get_command

import featstore as package
from featstore.api.cache import gc
from featstore.api.exchange import export_features
from featstore.errors import UsageError
from featstore.images.reading import decoder_version
from featstore.images.scan import ScanOptions, scan
from featstore.matrix import Source, load_matrix
from featstore.store.store import Store
from featstore.types import IDENTITY, Decoding, FeatureKey

FLAGS = {"--columns", "--follow-links", "--group-pattern", "--root", "--suffix"}


def commands(command, above=""):
    for name, part in getattr(command, "commands", {}).items():
        yield f"{above}{name}", part
        yield from commands(part, f"{above}{name} ")


READING = {
    name: command
    for name, command in commands(get_command(app))
    if any(parameter.name == "data" for parameter in command.params)
}


def test_the_commands_that_read_a_data_set_are_these():
    assert set(READING) >= {
        "check", "extract", "fuse", "compare", "finetune", "report", "paper", "cache export", "cache import",
        "cache gc", "cache drift", "split", "convert", "plan",
    }  # fmt: skip


@pytest.mark.parametrize("name", READING)
def test_every_command_that_reads_a_data_set_has_all_options_of_reading(name):
    assert {flag for parameter in READING[name].params for flag in parameter.opts} >= FLAGS


def test_the_options_of_the_commands_are_those_of_the_functions():
    assert set(options._READING) == set(ScanOptions.__annotations__)
    assert set(ScanOptions.__annotations__) <= set(Source.__annotations__)


@pytest.mark.parametrize("name", ["check", "extract", "finetune", "paper", "gc", "write_report", "drift"])
def test_a_misspelt_option_of_reading_does_not_vanish(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write_images(tmp_path / "data", 4)
    more = {
        "finetune": {"backbone": "EfficientNetLite0", "weights": {"*": "random:1"}, "out": "run"},
        "extract": {"weights": {"*": "random:1"}, "dry_run": True},
    }
    arguments = () if name == "gc" else (data,)
    with pytest.raises(TypeError, match="group_patern"):
        getattr(package, name)(*arguments, group_patern=r"(\d+)", **more.get(name, {}))


@pytest.mark.parametrize(
    ("entries", "columns"),
    [
        (None, None),
        (["group=patient_id"], {"group": "patient_id"}),
        (["path=file,label=class", "group=p"], {"path": "file", "label": "class", "group": "p"}),
        (["label=Finding, first,group=p"], {"label": "Finding, first", "group": "p"}),
        (["label=a=b"], {"label": "a=b"}),
    ],
)
def test_columns_are_written_with_commas_or_one_by_one(entries, columns):
    assert options.parse_columns(entries) == columns


@pytest.mark.parametrize("entries", [["patient"], ["=x"], ["group=a", "group=b"]])
def test_columns_that_cannot_be_meant_are_refused(entries):
    with pytest.raises(UsageError):
        options.parse_columns(entries)


@pytest.fixture
def kaggle(tmp_path):
    """Ids without folder and suffix in a table beside the folder of the images, and vectors of all in a cache."""
    data = write_images(tmp_path / "data", 8)
    records = scan(data).records
    (tmp_path / "lists").mkdir()
    lines = [
        f"{r.path.relative_to(data.parent).with_suffix('').as_posix()},{r.label.upper()},p{at // 2}"
        for at, r in enumerate(records)
    ]
    table = tmp_path / "lists" / "train.csv"
    table.write_text("\n".join(["image_id,finding,PatientID", *lines]))
    key = FeatureKey(spec(), IDENTITY, Decoding(decoder_version()))
    Store(tmp_path / "cache").write(key, [r.id for r in records], np.ones((8, 12), np.float32))
    return table


READ = {"columns": {"path": "image_id", "label": "finding", "group": "PatientID"}}


def test_stage_two_reads_the_same_table_and_keeps_what_was_found(kaggle, tmp_path):
    matrix = load_matrix(kaggle, cache=tmp_path / "cache", root=tmp_path / "data", suffix=".png", **READ)
    assert matrix.classes == ("ILL", "WELL")
    assert sorted(set(matrix.groups.tolist())) == ["p0", "p1", "p2", "p3"]
    assert "paths_mended" in {finding.name for finding in matrix.findings}
    export_features(kaggle, tmp_path / "x.npz", cache=tmp_path / "cache", root=tmp_path / "data", **READ)
    paths = np.load(tmp_path / "x.npz")["path"]
    assert all((tmp_path / "data" / path).is_file() for path in paths), "relative to where paths begin"


def test_garbage_is_told_by_a_table_and_a_folder_at_once(kaggle, tmp_path):
    (tmp_path / "more/a").mkdir(parents=True)
    write_images(tmp_path / "more/a", 2, seed=5)
    found = gc(
        kaggle, tmp_path / "more", cache=tmp_path / "cache", root=tmp_path / "data", dry_run=True, **READ
    )
    assert found.garbage == ()


def test_the_installed_command_leads_from_one_error_to_the_next_until_it_works(kaggle, tmp_path):
    """A physician types what each message says, and nothing else."""
    flags: list[str] = []
    for _ in range(3):
        done = featstore("check", kaggle, *flags, "--json", cwd=tmp_path)
        if done.code != 2:
            break
        flags += shlex.split("--" + done.err.partition("--")[2])
    assert (done.code, flags[::2]) == (0, ["--columns", "--root"])
    assert done.json["classes"] == {"ILL": 4, "WELL": 4}
    assert done.json["groups"] == 4
    assert {finding["code"] for finding in done.json["findings"]} >= {"FS207"}


def test_a_range_of_seeds_is_bounded_before_it_is_counted_out():
    assert options.parse_seeds("1-3,7") == [1, 2, 3, 7]
    assert options.parse_seeds(str(10**30)) == [10**30]
    with pytest.raises(UsageError, match="more than 100,000"):
        options.parse_seeds(f"1-{10**30}")


def test_a_command_to_be_typed_next_reads_the_data_in_the_same_way():
    reading = {
        "group_pattern": r"([nc]\d+)_",
        "columns": {"label": "Finding, first", "group": "p"},
        "root": Path("my images"),
        "covariates": ["age", "sex"],
        "follow_links": True,
        "suffix": None,
    }
    flags = options.reading_flags(reading)
    assert flags[:2] == ["--group-pattern", r"([nc]\d+)_"]
    entries = [flags[at + 1] for at, flag in enumerate(flags) if flag == "--columns"]
    assert options.parse_columns(entries) == reading["columns"]
    assert flags[-5:] == ["--root", "my images", "--covariates", "age,sex", "--follow-links"]


@pytest.mark.slow
def test_finetune_names_the_next_commands_with_the_options_of_the_data(tmp_path):
    names = [f"{'ab'[at % 2]}/p{at // 2 % 6 + 6 * (at % 2)}_{at}.png" for at in range(24)]
    for at, name in enumerate(names):
        place = tmp_path / "data" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(at).integers(0, 256, (40, 40), np.uint8)).save(place)
    done = featstore(
        "finetune", tmp_path / "data", "--group-pattern", r"(p\d+)_", "--backbone", "EfficientNetLite0",
        "--epochs", "1", "--unfreeze", "1", "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.code == 0, done.err
    commands = [shlex.split(line) for line in done.out.split("Next:")[1].strip().splitlines()]
    assert [words[1] for words in commands] == ["extract", "fuse"]
    for words in commands:
        again = featstore(
            *words[1:],
            "--cache",
            tmp_path / "cache",
            *(["--out", tmp_path / "f"] if words[1] == "fuse" else []),
        )
        assert again.code == 0, again.err
    assert "12 patients" in again.out
