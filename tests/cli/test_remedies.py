"""What a command advises can be typed into that very command; what is misspelt is answered by what was meant."""

import json
import re
import shlex

import numpy as np
import pytest
import typer
from featstore_cli.main import app
from featstore_cli.options import parse_columns, parse_range
from PIL import Image

import featstore
from featstore.errors import (
    AuditError,
    BadImageError,
    FeatstoreError,
    MissingFeaturesError,
    UnknownNameError,
    UsageError,
)
from featstore.extraction.pipeline import refuse_undeclared_range
from featstore.images.reading import REASONS, decode
from featstore.images.scan import scan
from featstore.types import Decoding

NET = "Vectors"
COMMANDS = typer.main.get_command(app)


def flags_of(*command):
    found = COMMANDS
    for name in command:
        found = found.commands[name]
    return {flag for parameter in found.params for flag in (*parameter.opts, *parameter.secondary_opts)}


def run(*arguments):
    """Run a command in this process; its error, or None."""
    try:
        app([str(argument) for argument in arguments], standalone_mode=False)
    except FeatstoreError as error:
        return error
    return None


def advised(error):
    return set(re.findall(r"--[a-z][a-z-]*", error.remedy))


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(pixels).save(path)


def store(folder, rows, header="path,label,group"):
    """A data set of ``path, class, group`` as a CSV file, or as a folder, with vectors in a cache."""
    for at, (path, *_) in enumerate(rows):
        picture(folder / "data" / path, at)
    data = folder / "data"
    if header:
        data = folder / "data" / "table.csv"
        data.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    rng = np.random.default_rng(0)
    np.savez(
        folder / "vectors.npz",
        features=rng.normal(size=(len(rows), 4)).astype(np.float32),
        filenames=np.array([path for path, *_ in rows]),
    )
    featstore.import_features(data, folder / "vectors.npz", NET, cache=folder / "cache")
    return data, folder / "cache"


def patients(counts):
    """CSV rows from images by group and class."""
    return [
        (f"{group}-{label}-{at}.png", label, group)
        for group, row in counts.items()
        for label, count in row.items()
        for at in range(count)
    ]


CASES = {
    "four patients, one of both classes": patients(
        {"g0": {"neg": 6, "pos": 2}, "g1": {"pos": 8}, "g2": {"neg": 8}, "g3": {"neg": 2}}
    ),
    "uneven": patients(
        {f"P{i}": {"pos": 13 if i == 3 else 1} for i in range(4)} | {f"N{i}": {"neg": 1} for i in range(16)}
    ),
    "lone member": patients(
        {f"b{i}": {"benign": 1} for i in range(6)}
        | {f"m{i}": {"malignant": 1} for i in range(6)}
        | {"r": {"rare": 1}}
    ),
    "tiny": patients({"p": {"a": 1}, "q": {"a": 1}, "r": {"b": 1}, "s": {"b": 1}}),
    "pairs only": patients({"p": {"a": 2, "b": 2}, "q": {"b": 2, "c": 2}, "r": {"a": 2, "c": 2}}),
    "two patients a class, one of both": patients({"p": {"a": 3}, "q": {"a": 3, "b": 3}, "r": {"b": 3}}),
}
CLASS_ABSENT = [
    (f"{split}/{label}/{at}.png",)
    for split, size in (("train", 4), ("test", 3))
    for label in ("0", "90", "180", "270")
    for at in range(size)
    if (split, label) != ("test", "180")
]
CASE_OF_NAMES = [
    (f"{split}/{label}/{at}.png",)
    for split, labels in (("train", ("NORMAL", "PNEUMONIA")), ("test", ("Normal", "Pneumonia")))
    for label in labels
    for at in range(4)
]
MORE = [("--calibrate", "platt"), ("--nested", "--calibrate", "platt")]


SELDOM = ("uneven", "tiny", "two patients a class, one of both", "case of names")
"""Of a kind with one of the others: asked by the slow tests."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(case, marks=pytest.mark.slow if case in SELDOM else ())
        for case in (*CASES, "class absent in test", "case of names")
    ],
)
def odd(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    if request.param in CASES:
        return request.param, *store(folder, CASES[request.param])
    rows = CLASS_ABSENT if "absent" in request.param else CASE_OF_NAMES
    return request.param, *store(folder, rows, header=None)


@pytest.mark.parametrize("arguments", [(), pytest.param(MORE[0], marks=pytest.mark.slow)])
def test_fuse_answers_or_advises_what_fuse_has(odd, arguments, tmp_path):
    name, data, cache = odd
    error = run("fuse", data, "--cache", cache, "--out", "run", *arguments)
    if not arguments:
        refused = {"lone member", "pairs only", "class absent in test", "case of names"}
        assert (error is not None) == (name in refused)
    if error is not None:
        assert isinstance(error, AuditError)
        assert advised(error) <= flags_of("fuse"), error.remedy


@pytest.mark.parametrize("folds", [pytest.param("2", marks=pytest.mark.slow), "5"])
@pytest.mark.parametrize("arguments", [(), pytest.param(MORE[1], marks=pytest.mark.slow)])
def test_compare_answers_or_advises_what_compare_has_and_what_it_advises_works(odd, folds, arguments):
    _, data, cache = odd
    command = ["compare", data, "--cache", cache, "--strategies", "knn", *arguments]
    error = run(*command, "--folds", folds)
    if error is None:
        return
    assert isinstance(error, AuditError)
    assert advised(error) <= flags_of("compare"), error.remedy
    number = re.search(r"--folds (\d+)", error.remedy)
    if number:
        assert number[1] != folds
        again = run(*command, "--folds", number[1])
        assert again is None or "Leave out --calibrate, --sensitivity and --nested" in again.remedy


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_four_patients_are_compared_whatever_the_seed(tmp_path, seed):
    data, cache = store(tmp_path, CASES["four patients, one of both classes"])
    found = featstore.compare(data, strategies="knn", folds=2, fold_seed=seed, cache=cache)
    assert found.folds == 2
    assert [scores.candidate.label for scores in found.candidates] == [NET]


def test_what_fuse_advises_about_a_lone_class_member_works(tmp_path):
    rows = CASES["lone member"]
    more = [*rows, ("another.png", "rare", "s")]
    less = [row for row in rows if row[1] != "rare"]
    for at, mended in enumerate((more, less)):
        data, cache = store(tmp_path / str(at), mended)
        assert run("fuse", data, "--cache", cache, "--out", "run", "--overwrite") is None


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    counts = {f"p{i}": {"ill": 1} for i in range(6)} | {f"q{i}": {"well": 1} for i in range(6)}
    return store(tmp_path_factory.mktemp("plain"), patients(counts))


TYPOS = [
    (("fuse", "--out", "r", "--strategy", "concat_logrge"), "concat_logreg", "featstore strategies"),
    (("fuse", "--out", "r", "--strategy", "Soft-Vote"), "soft_vote", "featstore strategies"),
    (("fuse", "--out", "r", "--preset", "tunde"), "tuned", None),
    (("fuse", "--out", "r", "--set", "c=3"), "C", None),
    (("fuse", "--out", "r", "--calibrate", "plat"), "platt", None),
    (("fuse", "--out", "r", "--positive", "Ill"), "ill", None),
    (("fuse", "--out", "r", "--weights", "Xcepton=random:1"), "Xception", "featstore backbones"),
    (("fuse", "--out", "r", "--weights", "Xception=imagnet"), "imagenet", None),
    (("compare", "--strategies", "knn,staking"), "stacking", "featstore strategies"),
    (("compare", "--backbones", "Vektors"), NET, "featstore cache ls"),
    (("compare", "--subsets", "vectors"), NET, None),
    (("compare", "--subsets", "gredy"), "greedy", None),
    (("compare", "--views", "expnad", "--strategies", "knn"), "expand", None),
    (("compare", "--test-views", "averge", "--strategies", "knn"), "average", None),
    (("compare", "--precision", "flaot32"), "float32", None),
    (("compare", "--preprocess", "rescal"), "rescale", None),
    (("compare", "--view-curve", "concat_logrge"), "concat_logreg", "featstore strategies"),
    (("fuse", "--out", "r", "--strategy", "concat_head", "--set", "optimizer=adamm"), "adam", None),
    (("fuse", "--out", "r", "--strategy", "concat_head", "--set", "schedule=cosin"), "cosine", None),
    (("fuse", "--out", "r", "--strategy", "concat_head", "--set", "class_weight=balance"), "balanced", None),
    (("extract", "--backbones", "MobilenetV2x"), "MobileNetV2", "featstore backbones"),
    (("extract", "--recipe", "papr", "--seeds", "1"), "paper", "featstore recipes"),
    (("extract", "--executor", "proceses"), "processes", None),
    (("extract", "--precision", "bfloat"), "bfloat16", None),
    (
        ("finetune", "--out", "r", "--backbone", "efficientnetlite"),
        "EfficientNetLite0",
        "featstore backbones",
    ),
]


@pytest.mark.parametrize(("arguments", "meant", "listing"), TYPOS, ids=[" ".join(t[0][-2:]) for t in TYPOS])
def test_a_name_that_does_not_exist_is_answered_by_the_one_that_was_meant(plain, arguments, meant, listing):
    data, cache = plain
    command, *rest = arguments
    where = [] if command == "finetune" else ["--cache", cache]
    error = run(command, data, *where, *rest)
    assert isinstance(error, UsageError)
    assert re.search(rf"Did you mean ([^?]* or )?{meant}\b[^?]*\?", error.remedy), error
    assert len(str(error)) < 300
    assert "featstore." not in str(error)
    if listing is not None:
        assert f"`{listing}` lists" in error.remedy
        flags_of(*listing.split()[1:])


def test_a_name_like_no_other_leads_to_the_list(plain):
    data, cache = plain
    error = run("fuse", data, "--cache", cache, "--out", "r", "--strategy", "qqq")
    assert error.cause == "There is no strategy 'qqq'."
    assert error.remedy == "`featstore strategies` lists all."
    error = run("compare", data, "--cache", cache, "--backbones", "TheTypo")
    assert isinstance(error, UnknownNameError)
    assert "extract" not in error.remedy


@pytest.mark.parametrize("wrong", ["comapre", "extarct", "predit"])
def test_a_command_that_does_not_exist_is_answered_by_the_one_that_was_meant(wrong):
    with pytest.raises(typer.BadParameter.__base__, match="Did you mean"):
        app([wrong], standalone_mode=False)


def test_one_text_stands_for_a_list_of_one(plain):
    data, cache = plain
    named = featstore.load_matrix(data, backbones=NET, cache=cache, seeds=())
    assert named.backbones == (NET,)
    found = featstore.compare(
        data, strategies="knn", backbones=NET, views="identity", subsets=[NET], folds=2, cache=cache
    )
    assert [scores.candidate.label for scores in found.candidates] == [NET]
    with pytest.raises(UnknownNameError, match="There is no strategy 'kn'"):
        featstore.compare(data, strategies="kn", folds=2, cache=cache)


def typed(remedy, **meant):
    """Flags of a remedy with their values, as typed; `meant` says what stands for a word in capitals."""
    words = []
    for flag, value in re.findall(r"(--[a-z][a-z-]*)(?:[ =]('[^']*'|[^\s;:`]+))?", remedy):
        own = re.sub("|".join(meant) or "(?!)", lambda word: str(meant[word[0]]), value)
        words += [f"{flag}={shlex.split(own.rstrip('.,)'))[0]}" if own else flag]
    return words


def answered(capsys, *arguments):
    """JSON document of a command, with its findings by code."""
    capsys.readouterr()
    assert run(*arguments, "--json") is None
    document = json.loads(capsys.readouterr().out)
    return document, {finding["code"]: finding for finding in document["findings"]}


@pytest.fixture(scope="module")
def nameless(tmp_path_factory):
    """Images of twelve patients that only their paths name, with training and test images."""
    rows = [
        (f"patient{10 + at}-{label}-{at}.png", label, "train" if at < 8 else "test")
        for at in range(12)
        for label in ("ill", "well")
    ]
    return store(tmp_path_factory.mktemp("nameless"), rows, "path,label,split")


def comparing(nameless, *more):
    data, cache = nameless
    return ("compare", data, "--cache", cache, "--strategies", "knn", "--folds", "2", *more)


def test_remedies_of_a_comparison_work_when_followed(nameless, capsys):
    _, found = answered(capsys, *comparing(nameless))
    assert {"FS104", "FS114", "FS406"} <= found.keys()

    (pattern,) = typed(found["FS104"]["remedy"])
    wrong, right = typed(found["FS406"]["remedy"])
    assert (pattern, wrong, right) == (
        r"--group-pattern=patient(\d+)",
        "--positive=well",
        "--positive=ill",
    )
    grouped, after = answered(capsys, *comparing(nameless, pattern, right, "--accept", "FS114"))
    assert not {"FS104", "FS406"} & after.keys()
    assert (grouped["matrix"]["groups"], grouped["matrix"]["positive"]) == (12, "ill")
    assert after["FS114"]["accepted"]

    quoted = re.search(r"`featstore (\w+) DATA (.*)`", found["FS114"]["remedy"])
    assert quoted[1] == "compare"
    own, after = answered(capsys, *comparing(nameless, *shlex.split(quoted[2]), wrong))
    assert not {"FS114", "FS406"} & after.keys()
    assert not after["FS104"]["accepted"]
    assert (own["protocol"]["own_split"], own["matrix"]["positive"]) == (True, "well")


def test_options_that_exclude_each_other_are_left_out_as_advised(nameless):
    both = comparing(nameless, "--folds", "split", "--repeats", "2")
    error = run(*both)
    assert error.remedy == "Leave out --repeats."
    assert run(*both[:-2]) is None


def test_a_run_that_is_there_is_replaced_or_stays_as_advised(plain, tmp_path):
    data, cache = plain
    command = ("fuse", data, "--cache", cache, "--strategy", "nearest_centroid", "--out", tmp_path / "run")
    assert run(*command) is None
    error = run(*command)
    other, overwrite = typed(error.remedy)
    assert (other, overwrite) == ("--out", "--overwrite")
    assert run(*command, overwrite) is None
    assert run(*command, other, tmp_path / "other") is None


def test_a_store_elsewhere_is_named_as_advised(nameless, tmp_path):
    command = comparing(nameless)
    at = command.index("--cache")
    error = run(*command[:at], "--cache", tmp_path, *command[at + 2 :])
    assert isinstance(error, MissingFeaturesError)
    assert run(*command[:at], *command[at + 2 :], *typed(error.remedy, FOLDER=command[at + 1])) is None


def test_paths_and_links_that_lead_elsewhere_are_followed_as_advised(nameless, tmp_path):
    data, _ = nameless
    table = tmp_path / "lists" / "table.csv"
    table.parent.mkdir()
    table.write_bytes(data.read_bytes())
    error = run("check", table)
    assert "--root" in error.remedy
    assert run("check", table, *typed(error.remedy, FOLDER=data.parent)) is None

    for label in ("ill", "well"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for path in data.parent.glob(f"*-{label}-*.png"):
            (tmp_path / "set" / label / path.name).symlink_to(path)
    error = run("check", tmp_path / "set")
    assert typed(error.remedy) == ["--follow-links"]
    assert run("check", tmp_path / "set", "--follow-links") is None


def test_columns_are_named_as_advised(nameless):
    data, _ = nameless
    lines = [line.split(",") for line in data.read_text().splitlines()[1:]]
    rows = [f"{path},{path[:9]},{int(label == 'ill')},{int(label == 'well')}" for path, label, _ in lines]
    table = data.parent / "columns.csv"
    table.write_text("\n".join(["path,who,ill,well", *rows]) + "\n")

    def read(*flags):
        return scan(table, columns=parse_columns([flag.removeprefix("--columns=") for flag in flags]))

    found = {finding.code: finding.remedy for finding in read().findings}
    grouped = read(*typed(found["FS205"], NAME="group", COLUMN="who"))
    assert len({record.group for record in grouped.records}) == 12
    labelled = read(*typed(found["FS211"], COLUMN="ill"))
    assert labelled.classes == ("0", "1")
    assert "FS211" not in {finding.code for finding in labelled.findings}


def test_the_range_of_deep_images_is_given_as_advised(tmp_path):
    for step, label in ((50, "ill"), (60, "well")):
        (tmp_path / label).mkdir()
        Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * step).save(
            tmp_path / label / f"{label}.png"
        )
    records = scan(tmp_path).records
    with pytest.raises(UsageError, match="2 images hold 16-bit") as caught:
        refuse_undeclared_range(records, Decoding("any"))
    for flag in typed(caught.value.remedy + " " + REASONS["needs_range"], LOW=0, HIGH=4000):
        name, _, value = flag.partition("=")
        assert name == "--range"
        span = parse_range(value)
        refuse_undeclared_range(records, Decoding("any", value_range=span))
        decode(records[0].path.read_bytes(), 0, span)
    with pytest.raises(BadImageError, match="needs_range"):
        decode(records[0].path.read_bytes())


def test_a_bad_shard_is_set_aside_and_imported_anew_as_advised(tmp_path, capsys):
    data, cache = store(tmp_path, CASES["tiny"])
    (shard,) = cache.glob("features/**/*.h5")
    shard.write_bytes(shard.read_bytes()[:-1])
    verify = ("cache", "verify", "--cache", cache)
    run(*verify)
    advice = re.findall(r"`featstore (cache [^`]*)`", capsys.readouterr().out)
    assert "cache verify --repair" in advice
    run(*shlex.split("cache verify --repair"), "--cache", cache)
    said = capsys.readouterr().out
    again = ("cache", "import", data, tmp_path / "vectors.npz", "--name", NET, "--cache", cache)
    assert "featstore cache import" in said
    assert run(*again) is None
    capsys.readouterr()
    assert run(*verify) is None
    assert "0 bad" in capsys.readouterr().out
    np.savez(
        tmp_path / "others.npz",
        features=np.ones((4, 4), np.float32),
        filenames=np.load(tmp_path / "vectors.npz")["filenames"],
    )
    others = ("cache", "import", data, tmp_path / "others.npz", "--cache", cache, "--name")
    error = run(*others, NET)
    assert "another --name" in error.remedy
    assert run(*others, "Others") is None


def test_a_wrong_number_is_said_of_the_option_that_it_was_given_to():
    error = run("bench", "--batch-sizes", "many")
    assert str(error).count("--batch-sizes") == 2
    assert "--seeds" not in str(error)


def test_a_fit_that_goes_on_from_another_is_mended_as_advised(plain, tmp_path):
    data, cache = plain
    fuse = ("fuse", data, "--cache", cache, "--set", "epochs=2")
    earlier = tmp_path / "earlier"
    assert run(*fuse, "--strategy", "concat_head", "--out", earlier) is None
    error = run(*fuse, "--freeze-blocks", NET, "--out", tmp_path / "a")
    onward = typed(error.remedy, RUN=earlier)
    assert onward == [f"--init-from={earlier}"]
    error = run(*fuse, *onward, "--calibrate", "platt", "--out", tmp_path / "a")
    assert error.remedy == "Leave out --calibrate and --sensitivity."
    error = run(*fuse[:-2], *onward, "--out", tmp_path / "a")
    onward += typed(error.remedy)
    assert onward[1:] == ["--strategy=concat_head"]
    error = run(*fuse, *onward, "--split-seed", "1", "--out", tmp_path / "a")
    assert error.remedy == "Give the --test-size and --split-seed of that run."
    assert run(*fuse, *onward, "--test-size", "0.25", "--split-seed", "0", "--out", tmp_path / "a") is None


def test_a_strategy_without_presets_is_set_as_advised(plain, tmp_path):
    data, cache = plain
    fuse = ("fuse", data, "--cache", cache, "--strategy", "knn", "--out", tmp_path / "run")
    error = run(*fuse, "--preset", "paper")
    assert run(*fuse, *typed(error.remedy, NAME="n_neighbors", VALUE=3)) is None
    assert json.loads((tmp_path / "run" / "run.json").read_text())["asked"]["options"] == {"n_neighbors": 3}
