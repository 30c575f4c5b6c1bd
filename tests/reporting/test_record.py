"""A run folder read back: whole, or one error and no report."""

import copy
import json
import random
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import forge

from featstore import runs as run
from featstore import serialization as document
from featstore.api.report import write_report
from featstore.errors import FeatstoreError, RunError, UsageError
from featstore.reporting.run_record import read_comparison, read_fusion, read_record, read_records
from featstore.results.document import ShapeError


@pytest.fixture(params=["fuse", "compare"])
def out(request, world, tmp_path):
    """A copy of a run, for damage and forgery."""
    return shutil.copytree(getattr(world, request.param), tmp_path / request.param)


def metrics_of(folder):
    return document.parse_json((folder / run.METRICS).read_bytes())


def test_what_is_read_back_is_what_was_written(world):
    for folder, read in (
        (world.fuse, read_fusion),
        (world.head, read_fusion),
        (world.compare, read_comparison),
    ):
        written = metrics_of(folder)
        assert json.loads(json.dumps(read(copy.deepcopy(written)).to_json())) == written


def test_the_answers_are_those_of_the_file_without_paths(world):
    record = read_record(world.fuse)
    answers = record.predictions["test"]
    assert len(answers.ids) == record.outcome.sizes["test"] == 24
    assert (answers.proba.argmax(axis=1) == answers.answered).all()
    accuracy = (answers.y == answers.answered).mean()
    assert accuracy == pytest.approx(record.outcome.scores["test"]["accuracy"].value)
    assert len(answers.wrong) == round(24 * (1 - accuracy))
    sure = answers.proba[answers.wrong, answers.answered[answers.wrong]]
    assert (np.diff(sure) <= 0).all(), "the surest mistake comes first"


def test_a_vote_is_told_by_those_who_voted(world):
    answers = read_record(world.fuse).predictions["test"]
    assert set(answers.votes) == {"Xception", "ResNet50"}
    agreed = answers.votes["Xception"] == answers.votes["ResNet50"]
    assert agreed.any()
    assert (answers.answered[agreed] == answers.votes["Xception"][agreed]).all(), "whom all vote for wins"


def test_the_votes_in_a_comparison_are_the_answers_of_the_single_backbones(world):
    record = read_record(world.compare)
    leader, alone = record.predictions[record.shown], record.predictions["Xception"]
    said = dict(zip(alone.ids, alone.answered.tolist(), strict=True))
    assert [said[image] for image in leader.ids] == leader.votes["Xception"].tolist()
    assert len(leader.ids) == 96, "every image once"


@pytest.mark.parametrize("name", [run.RUN, run.METRICS, run.PREDICTIONS])
def test_damage_anywhere_is_one_error_and_no_report(out, name):
    rng = random.Random(0)
    whole = (out / name).read_bytes()
    target = out.with_name("report.html")
    for _ in range(12):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (out / name).write_bytes(data)
        if name == run.RUN and unsealed(data) == unsealed(whole):
            continue  # in white space alone
        with pytest.raises(RunError) as caught:
            write_report(out, target)
        assert "\n" not in caught.value.cause
        assert not target.exists()


def unsealed(data):
    try:
        return document.unseal(document.parse_json(bytes(data)))
    except document.DocumentError:
        return None


@pytest.mark.parametrize("name", [run.METRICS, run.PREDICTIONS])
def test_a_file_of_another_run_is_refused(out, name, world):
    shutil.copy(world.head / name, out / name)
    with pytest.raises(RunError, match="is not the file that"):
        read_record(out)


def places(value, path=()):
    """Every place in a document, with how to get there."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


STRANGE = [None, -1, 10**300, 1.5, True, "", "\ud800", "x" * 20_000, [], {}, [[]], {"a": {}}, [None] * 3]


@given(st.data())
def test_a_forged_number_is_read_or_refused_and_nothing_else(world, data):
    folder, read = data.draw(st.sampled_from([(world.fuse, read_fusion), (world.compare, read_comparison)]))
    page = metrics_of(folder)
    path = data.draw(st.sampled_from([path for path in places(page) if path]))
    holder = page
    for key in path[:-1]:
        holder = holder[key]
    if data.draw(st.booleans()):
        holder[path[-1]] = data.draw(st.sampled_from(STRANGE))
    else:
        del holder[path[-1]]
    try:
        read(page)
    except ShapeError as error:
        assert "\n" not in str(error)  # noqa: PT017 - any other exception fails the test


def replace_id(text):
    lines = text.splitlines()
    cells = lines[1].split(",")
    at = lines[0].split(",").index("image_id")
    lines[1] = ",".join([*cells[:at], "../../etc/passwd", *cells[at + 1 :]])
    return "\n".join(lines) + "\n"


FORGERIES = {
    "two classes are one": (run.METRICS, lambda page: page["matrix"].update(classes={"ill": 96})),
    "a positive class that is none": (run.METRICS, lambda page: page["matrix"].update(positive="other")),
    "a negative count": (run.METRICS, lambda page: page["matrix"].update(images=-1)),
    "no curves": (run.METRICS, lambda page: page.update(curves=None, contestants=[])),
    "a kind that is none": (run.RUN, lambda page: page.update(kind="<b>")),
    "no libraries": (run.RUN, lambda page: page.update(libraries=[])),
    "a probability of two": (run.PREDICTIONS, lambda text: text.replace(",0.", ",2.", 1)),
    "a label that is no class": (run.PREDICTIONS, lambda text: text.replace(",ill,", ",sick,", 1)),
    "an image twice": (run.PREDICTIONS, lambda text: text + text.splitlines()[1] + "\n"),
    "no images": (run.PREDICTIONS, lambda text: text.splitlines()[0] + "\n"),
    "other columns": (run.PREDICTIONS, lambda text: text.replace("image_id", "image", 1)),
    "an image id that is a path": (run.PREDICTIONS, replace_id),
    "a torn line": (run.PREDICTIONS, lambda text: text[: len(text) // 2]),
}  # fmt: skip


@pytest.mark.parametrize(("name", "change"), FORGERIES.values(), ids=FORGERIES)
def test_a_sealed_forgery_is_refused_in_one_line(out, name, change):
    forge(out, name, change)
    with pytest.raises(RunError) as caught:
        read_record(out)
    assert "\n" not in caught.value.cause


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="no readable run"):
        read_record(tmp_path)


def test_runs_of_one_name_are_told_apart_by_the_folder_above(world, tmp_path):
    for where in ("a", "b"):
        shutil.copytree(world.fuse, tmp_path / where / "run")
    records = read_records([tmp_path / "a" / "run", tmp_path / "b" / "run"])
    assert [record.name for record in records] == ["a/run", "b/run"]
    with pytest.raises(UsageError, match="each of them once"):
        read_records([world.fuse, world.fuse])
    with pytest.raises(FeatstoreError, match="needs runs"):
        read_records([])
