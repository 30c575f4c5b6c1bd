"""What an extraction leaves in its run folder tells all that was done, and names nobody."""

import json
import re

import pytest
from fakes import GridBackbone, spec, write_images

from featstore.api import extract as module
from featstore.api.extract import extract
from featstore.api.predict import predict
from featstore.errors import RunError, UsageError
from featstore.extraction.pipeline import PassStats, Throughput
from featstore.extraction.scheduler import peak_resident_bytes
from featstore.images.scan import scan
from featstore.reporting.terminal.results import extraction_text
from featstore.runs import data_digest

NAME = "MobileNet025"
MILLISECOND = 0.001
"""What the rounding of seconds can move."""


class Grids:
    """Networks of the catalogue in name, without TensorFlow."""

    def __init__(self, *_choices):
        pass

    def spec(self, name, *, fetch):  # noqa: ARG002
        return spec(name)

    def load(self, wanted):
        return GridBackbone(wanted, delay=0.01)

    def keep(self, wanted):
        pass


@pytest.fixture(scope="module", autouse=True)
def _no_tensorflow():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Networks", Grids)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """One extraction of eight images, one of them broken, in two views."""
    folder = tmp_path_factory.mktemp("account")
    data = write_images(folder / "pictures", 8)
    victim = sorted(data.parent.rglob("*.png"))[3]
    victim.write_bytes(victim.read_bytes()[:-30])
    result = extract(
        data, backbones=[NAME], recipe="mild", seeds=[1], cache=folder / "cache", out=folder / "run"
    )
    return folder, data, victim, result


def document(folder):
    return json.loads((folder / "run" / "run.json").read_text())


def test_it_says_what_was_asked_on_which_machine_and_what_it_took(world):
    folder, data, _, _ = world
    run = document(folder)
    assert run["kind"] == "extract"
    assert (run["images"], run["quarantined"]) == (8, {"truncated": 1})
    assert (run["computed"], run["missing"], run["batch_size"], run["precision"]) == (14, 16, 16, "float32")
    assert [(c["backbone"], c["seed"], c["missing"]) for c in run["cells"]] == [
        (NAME, 0, 8),
        (NAME, 1, 8),
    ]
    assert [found["weights"] for found in run["backbones"]] == ["random:0"]
    assert [view["seed"] for view in run["views"]] == [0, 1]
    assert run["data_sha256"] == data_digest(scan(data).records)
    assert {"created", "python", "machine", "libraries"} <= set(run)
    assert (run["workers"], run["options"]["executor"]) == (1, "serial")


def test_throughput_is_vectors_over_the_seconds_of_each_phase_and_of_each_backbone(world):
    run = document(world[0])
    for phase, rate in run["throughput"].items():
        assert run["computed"] / rate == pytest.approx(run["phases"][phase], rel=0.01, abs=MILLISECOND)
    (pace,) = run["paces"]
    assert (pace["backbone"], pace["vectors"]) == (NAME, 14)
    assert 14 / pace["vectors_per_second"] == pytest.approx(pace["seconds"], abs=MILLISECOND)
    assert 0.02 <= pace["seconds"] <= run["phases"]["forward"] + MILLISECOND
    assert 0 <= run["idle"] < 1


def test_the_measured_peak_stands_beside_the_announced_one_in_the_run_and_in_the_summary(world):
    folder, _, _, result = world
    run = document(folder)
    assert 10**7 < run["measured_bytes"] <= peak_resident_bytes()
    assert run["announced_bytes"] > 640 * 10**6
    assert re.search(r"Peak memory \d\S* [kMG]?B, announced \d\S* [kMG]?B\.", extraction_text(result))


def test_no_path_of_an_image_and_no_folder_is_in_it(world):
    folder, data, victim, _ = world
    text = (folder / "run" / "run.json").read_text()
    assert str(folder) not in text
    assert victim.name not in text
    assert not any(path.name in text for path in data.parent.rglob("*.png"))
    assert (folder / "run" / "run.json").stat().st_mode & 0o077 == 0


def test_a_run_that_is_there_is_kept_unless_it_may_be_replaced(world):
    folder, data, *_ = world
    before = document(folder)
    options = {
        "backbones": [NAME], "cache": folder / "cache", "out": folder / "run", "recipe": "mild", "seeds": [1],
    }  # fmt: skip
    with pytest.raises(UsageError, match="holds a run already"):
        extract(data, **options)
    assert extract(data, **options, overwrite=True, dry_run=True).computed == 0
    assert document(folder) == before
    extract(data, **options, overwrite=True)
    again = document(folder)
    assert (again["computed"], again["missing"], again["throughput"], again["measured_bytes"]) == (
        0,
        0,
        {},
        0,
    )
    assert again["data_sha256"] == before["data_sha256"]


def test_predicting_with_it_is_refused_in_one_line(world):
    folder, _, victim, _ = world
    with pytest.raises(RunError):
        predict(folder / "run", [victim])


def test_what_workers_did_adds_up_and_their_peaks_stay_apart():
    total = PassStats()
    for worker, peak in (("a", 5), ("b", 7), ("a", 4)):
        total.add(PassStats(throughputs={"Net": Throughput(3, 0.5)}, peaks={worker: peak}))
    assert total.throughputs == {"Net": Throughput(9, 1.5)}
    assert total.peaks == {"a": 5, "b": 7}
