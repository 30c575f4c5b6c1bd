"""One file of a stranger, named at the command line: an image format and a network that is not Keras'."""

import json
import re
import struct

import numpy as np
import pytest
from commandline import featstore, modules_loaded
from commandserver import LIBRARIES
from PIL import Image

import featstore as package

NETWORK = '''
"""Means of the rows and columns, times a vector that lies in a file."""
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from featstore.backbones.catalog import Row

@dataclass
class Means:
    spec: object
    batch_size: int
    factors: np.ndarray

    @property
    def effective_batch_size(self):
        return self.batch_size

    def embed(self, images):
        pixels = images.astype(np.uint8) / SCALE
        means = np.concatenate([pixels.mean(axis=(2, 3)), pixels.mean(axis=(1, 3))], axis=1)
        return (means * self.factors).astype(np.float32)

SCALE = 255

def load(spec, weights, batch_size):
    return Means(spec, batch_size, np.load(weights, allow_pickle=False))

WEIGHTS = Path(__file__).with_name("factors.npy")
BACKBONES = (
    Row(
        "Means", loader=f"{__name__}:load", version="1", input_size=16, dimension=32,
        preprocess="pixels / 255", weights_file=str(WEIGHTS),
    ),
    Row("Thirds", loader=f"{__name__}:third", version="1", input_size=8, dimension=16),
    Row("Wrong", loader=f"{__name__}:third", version="1", input_size=8, dimension=17),
)

def third(spec, weights, batch_size):
    return Means(spec, batch_size, np.float32(1 / 3))
'''
FORMAT = '''
"""DOTS: four letters, width, height, grey values."""
import re
import struct
import numpy as np
from featstore.errors import BadImageError
from featstore.images.formats.container import Format

class Dots(Format):
    """Grey pictures without any compression."""

    name = "DOTS"
    suffixes = (".dots",)
    magic = re.compile(rb"DOTS")
    version = "1"

    def decode(self, data, frame, value_range, index=None):
        width, height = struct.unpack_from(">HH", data, 4)
        if len(data) < 8 + width * height:
            raise BadImageError("truncated", "The DOTS ends before its pixels do.")
        return np.frombuffer(data, np.uint8, width * height, 8).reshape(height, width), ()

    def size(self, file):
        return struct.unpack(">4xHH", file.read(8))

FORMATS = (Dots,)
'''


@pytest.fixture
def network(tmp_path):
    """Write the plug-in with two networks and one that breaks its word, and the weights of the first."""
    path = tmp_path / "nets.py"
    path.write_text(NETWORK)
    np.save(tmp_path / "factors.npy", np.arange(1, 33, dtype=np.float32))
    return path


@pytest.fixture
def data(tmp_path):
    return package.make_phantoms(tmp_path / "phantoms", patients=16, slices=2, size=64).parent


@pytest.fixture
def say(network, tmp_path):
    """Run a command with the plug-in and a cache of one's own."""

    def run(*words, code=0):
        options = ["--cache", tmp_path / "cache"] if words[0] in {"extract", "fuse", "compare"} else []
        done = featstore(*words, *options, "--plugin", network)
        assert done.code == code, done.err
        return done

    return run


def missing(say, data, *options):
    found = say("extract", data, "--backbones", "Means", "--dry-run", "--json", *options).json
    return found["cells"][0]["missing"]


def refused(done):
    """The two lines of an error."""
    cause, remedy = done.err.strip().splitlines()[-2:]
    assert cause.startswith("featstore: ")
    assert remedy.startswith("           ")
    return cause


def test_a_network_of_numpy_is_extracted_kept_fused_and_asked(say, data, tmp_path):
    manifest, run = data / "manifest.csv", tmp_path / "run"
    say("extract", manifest, "--backbones", "Means,Thirds", "--recipe", "mild", "--seeds", "1")
    assert missing(say, manifest) == 0
    say("fuse", manifest, "--strategy", "concat_logreg", "--out", run)
    asked = say("predict", run, data / "covid", "--out", tmp_path / "answers.json")
    assert asked.code == 0
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert "covid" in json.dumps(answers)
    listed = say("backbones").out
    assert re.search(r"Means +16 +32 +installed", listed)
    specs = json.loads((run / "run.json").read_text())
    assert re.search(r"version:1 sha256:[0-9a-f]{64}", json.dumps(specs))


@pytest.mark.slow
def test_without_its_plugin_the_model_says_so_in_two_lines(say, data, tmp_path):
    manifest, run = data / "manifest.csv", tmp_path / "run"
    say("extract", manifest, "--backbones", "Thirds")
    say("fuse", manifest, "--strategy", "concat_logreg", "--out", run)
    done = featstore("predict", run, data / "covid")
    assert done.code != 0
    assert "'Thirds'" in refused(done)


@pytest.mark.slow
def test_its_weights_and_its_version_are_in_the_key_and_its_place_is_not(say, data, network, tmp_path):
    manifest = data / "manifest.csv"
    say("extract", manifest, "--backbones", "Means")
    assert missing(say, manifest) == 0
    np.save(tmp_path / "factors.npy", np.ones(32, np.float32))
    assert missing(say, manifest) == 32
    np.save(tmp_path / "same.npy", np.arange(1, 33, dtype=np.float32))
    assert missing(say, manifest, "--weights", f"Means={tmp_path / 'same.npy'}") == 0
    network.write_text(NETWORK.replace('"1"', '"2"'))
    assert missing(say, manifest, "--weights", f"Means={tmp_path / 'same.npy'}") == 32


def test_tensorflow_is_not_loaded_for_it(data, network, tmp_path):
    command = ["extract", data / "manifest.csv", "--backbones", "Means", "--plugin", network]
    code, loaded = modules_loaded(*command, "--cache", tmp_path / "cache", within=LIBRARIES)
    assert (code, loaded & {"tensorflow", "keras"}) == (0, set())


def test_nobody_announces_tensorflow_for_it(say, data):
    manifest = data / "manifest.csv"
    done = say("extract", manifest, "--backbones", "Means", "--precision-check", code=2)
    assert "then loading the networks" in done.err
    assert "TensorFlow" not in say("extract", manifest, "--backbones", "Means").err + done.err


@pytest.mark.slow
def test_workers_find_the_network_of_the_plugin_and_compute_the_same(data, network, tmp_path):
    exported = []
    for executor in (["serial"], ["processes", "--workers", "2"]):
        target, own = (
            tmp_path / f"{executor[0]}.npz",
            ["--cache", tmp_path / executor[0], "--plugin", network],
        )
        done = featstore("extract", data, "--backbones", "Means", "--executor", *executor, *own)
        assert done.code == 0, done.err
        done = featstore("cache", "export", data, target, "--backbones", "Means", *own)
        assert done.code == 0, done.err
        with np.load(target, allow_pickle=False) as file:
            exported.append({name: file[name] for name in file.files})
    serial, parallel = exported
    (vectors,) = (name for name, values in serial.items() if values.shape == (32, 32))
    np.testing.assert_array_equal(serial[vectors], parallel[vectors])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            ["extract", "--backbones", "Means", "--precision", "bfloat16"],
            "Means does not compute in bfloat16.",
        ),
        (["extract", "--backbones", "Means", "--preprocess", "rescale"], "Means prepares its pixels itself"),
        (["extract", "--backbones", "Means", "--weights", "random:1"], "Means has no random weights"),
        (["extract", "--backbones", "Means", "--weights", "Means=no.npy"], "there is no weights file"),
        (["extract", "--backbones", "Wrong"], "Wrong "),
        (["finetune", "--backbone", "Means", "--out", "tuned"], "Means is no Keras network"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_does_not_apply_to_it_is_said_in_two_lines(say, data, words, complaint):
    command, *options = words
    assert complaint in refused(say(command, data / "manifest.csv", *options, code=ANY_FAILURE))


class AnyFailure:
    def __eq__(self, other):
        return other not in {0, 3, 130}

    def __hash__(self):
        return 0


ANY_FAILURE = AnyFailure()


def as_dots(data, folder):
    """Write the pictures of a folder anew as DOTS."""
    for file in data.glob("*/*.png"):
        pixels = np.asarray(Image.open(file).convert("L"))
        target = folder / file.parent.name / f"{file.stem}.dots"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(struct.pack(">4sHH", b"DOTS", *pixels.shape[::-1]) + pixels.tobytes())
    return folder


@pytest.fixture
def format_file(tmp_path):
    path = tmp_path / "dots.py"
    path.write_text(FORMAT)
    return path


@pytest.mark.slow
def test_a_format_of_somebody_else_is_read_like_those_of_featstore(say, data, format_file, tmp_path):
    dots, run = as_dots(data, tmp_path / "dots"), tmp_path / "run"
    plugin = ["--plugin", format_file]
    assert "32 images" in say("check", dots, *plugin).out
    say("extract", dots, "--backbones", "Means", *plugin)
    say("fuse", dots, "--strategy", "concat_logreg", "--out", run, *plugin)
    found = {}
    for folder in (data, dots):
        table = tmp_path / f"{folder.name}.json"
        say("predict", run, folder / "covid", *plugin, "--out", table)
        answers = json.loads(table.read_text())
        found[folder.name] = [row["probability"] for row in answers["predictions"]]
    assert len(found["dots"]) == len(found[data.name]) > 0
    assert found["dots"] == found[data.name], "the pixels are the same, and so is the answer"


def test_it_has_a_number_of_its_own_among_the_facts(say, data, format_file, tmp_path, monkeypatch):
    """Pictures of two formats are told apart, and facts of before, without a number, are looked at anew."""
    from featstore import registry
    from featstore.image_facts import FACTS_REVISION, image_facts
    from featstore.images.reading import decoder_version
    from featstore.store import notes
    from featstore.types import Decoding

    monkeypatch.setenv(registry.PLUGINS, str(format_file))
    dots, decoding, cache = as_dots(data, tmp_path / "dots"), Decoding(decoder_version()), tmp_path / "cache"
    records = package.scan(dots).records
    (number,) = set(image_facts(records, decoding).rows["kind"].tolist())
    assert 128 <= number <= 255
    before = image_facts(records, decoding).rows.copy()
    before["kind"] = 0
    for row in before:
        notes.record_facts(cache, decoding, FACTS_REVISION, row)
    assert set(image_facts(records, decoding, cache).rows["kind"].tolist()) == {number}


@pytest.mark.slow
def test_its_version_is_part_of_the_address_and_no_other_image_moves(say, data, format_file, tmp_path):
    dots, plugin = as_dots(data, tmp_path / "dots"), ["--plugin", format_file]
    say("extract", data / "manifest.csv", "--backbones", "Means")
    say("extract", dots, "--backbones", "Means", *plugin)
    assert missing(say, dots, *plugin) == 0
    format_file.write_text(FORMAT.replace('"1"', '"2"'))
    assert missing(say, dots, *plugin) == 32
    assert missing(say, data / "manifest.csv", *plugin) == 0
    assert missing(say, data / "manifest.csv") == 0


@pytest.mark.slow
def test_a_damaged_file_of_it_goes_to_quarantine_and_the_others_on(say, data, format_file, tmp_path):
    dots = as_dots(data, tmp_path / "dots")
    one = next((dots / "covid").iterdir())
    one.write_bytes(one.read_bytes()[:100])
    done = say("extract", dots, "--backbones", "Means", "--plugin", format_file, code=3)
    assert "truncated" in done.out + done.err


def test_without_the_plugin_its_files_are_no_images(data, format_file, tmp_path):
    dots = as_dots(data, tmp_path / "dots")
    done = featstore("check", dots)
    assert done.code == 2
    refused(done)


def test_a_format_that_claims_anothers_suffix_is_refused_in_two_lines(say, data, format_file):
    format_file.write_text(FORMAT.replace('".dots"', '".png"'))
    done = say("check", data, "--plugin", format_file, code=2)
    assert "claims .png, which is of PNG" in refused(done)
