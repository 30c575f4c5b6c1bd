"""The how-to pages: the file that each shows is written as it stands there, checked and used as the page says."""

import json
import os
import re
import shlex
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from commandline import FEATSTORE, LIBRARIES, server
from PIL import Image

import featstore
from featstore import registry, testing

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "how-to"
THREE = """
BACKBONES = tuple(
    Row(name, loader=f"{__name__}:load", version="1", input_size=64, dimension=dimension)
    for name, dimension in zip("ABC", (8, 16, 24))
)
"""
"""Put under the file of the page on backbones: networks that cost nothing."""


def code(page):
    """Name and text of the file that a page tells to write."""
    text = (FOLDER / f"{page}.md").read_text()
    return re.search(r"\*\*Write\*\* `(\w+\.py)`", text)[1], re.search(
        r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL
    )[1]


def commands(page):
    """The command lines of a page."""
    text = (FOLDER / f"{page}.md").read_text()
    lines = "".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)).splitlines()
    return [shlex.split(line, comments=True) for line in lines]


@pytest.fixture
def phantoms(tmp_path):
    return featstore.make_phantoms(tmp_path / "phantoms", patients=12, slices=1, size=64)


@pytest.fixture
def say(tmp_path, phantoms, monkeypatch):
    """Run a command of a page where its file lies, on phantoms and with networks that cost nothing."""
    (tmp_path / "three.py").write_text(code("backbone")[1] + THREE)
    monkeypatch.setenv(registry.PLUGINS, str(tmp_path / "three.py"))

    def run(words, data=phantoms, **more):
        words = [{"DATA": str(data)}.get(word, word) for word in words[1:]]
        if "extract" in words and "--backbones" not in words:
            words += ["--backbones", "A"]
        words += [str(word) for pair in more.items() for word in (f"--{pair[0]}", pair[1])]
        status, out, err = server(*LIBRARIES).run(FEATSTORE, words, tmp_path, 120)
        assert status == 0, err
        return out

    return run


@pytest.fixture
def written(request, tmp_path):
    """The file of the page that the test is named for."""
    name, text = code(request.node.name.removeprefix("test_").partition("_")[0])
    (tmp_path / name).write_text(text)
    return tmp_path / name


@pytest.fixture
def module(written, monkeypatch):
    """The same file as a plug-in of this process."""
    monkeypatch.setenv(registry.PLUGINS, "")
    registry.add_plugin(str(written))
    return registry._module(str(written))


def check(page, module, **known):
    """Do what the page says of `featstore.testing`."""
    (call,) = re.findall(r"`featstore\.testing\.(check_\w+\(.*?\)+)`", (FOLDER / f"{page}.md").read_text())
    eval(call, {**vars(testing), **vars(module), **known})  # noqa: S307 - our own page


@contextmanager
def plugged(file):
    """Name the file in the environment, beside what is named there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(registry.PLUGINS, os.pathsep.join([os.environ[registry.PLUGINS], str(file)]))
        yield


def stored(say, data, *options):
    """How many vectors of an image and a network are there, and how many are missing."""
    command = ["featstore", "extract", "DATA", *options, "--dry-run", "--json"]
    (cell,) = json.loads(say(command, data))["cells"]
    return cell["stored"], cell["missing"]


@pytest.mark.slow
def test_backbone_page(written, say):
    first, second = commands("backbone")
    say(first)
    with plugged(written):
        assert stored(say, "phantoms/manifest.csv", "--backbones", "Texture") == (12, 0)
    assert "Texture" in say(second)


def test_backbone_holds_the_contract(module):
    check("backbone", module)


@pytest.mark.slow
def test_strategy_page(written, say):
    listing, comparison = commands("strategy")
    assert "median_logit" in say(listing)
    say(["featstore", "extract", "DATA", "--backbones", "A,B,C"])
    assert "median_logit" in say(comparison)


def test_strategy_holds_the_contract(module):
    check("strategy", module)


@pytest.mark.slow
def test_executor_page(written, say):
    (command,) = commands("executor")
    say(command)
    assert stored(say, "phantoms/manifest.csv") == (12, 0)


def test_executor_holds_the_contract(module):
    check("executor", module)


def nrrd(values):
    kind = {"u": "uint8", "f": "float"}[values.dtype.kind]
    head = (
        f"NRRD0004\ntype: {kind}\ndimension: 2\nsizes: {values.shape[1]} {values.shape[0]}\nencoding: raw\n\n"
    )
    return head.encode() + values.tobytes()


@pytest.mark.slow
def test_format_page(written, say, phantoms, tmp_path):
    for file in phantoms.parent.glob("*/*.png"):
        target = tmp_path / "arrays" / file.parent.name / f"{file.stem}.nrrd"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(nrrd(np.asarray(Image.open(file).convert("L"), np.float32) * 5.0 - 1000.0))
    audit, extraction = commands("format")
    say(audit, tmp_path / "arrays")
    say(extraction, tmp_path / "arrays")
    options = ["--range", "-1000,400"]
    with plugged(written):
        assert stored(say, tmp_path / "arrays", *options) == (12, 0)


def test_format_holds_the_contract(module):
    ramp = np.arange(64 * 48).reshape(64, 48)
    check("format", module, samples=[nrrd((ramp % 256).astype(np.uint8)), nrrd(ramp.astype(np.float32))])


@pytest.mark.slow
def test_metric_page(written, say):
    (command,) = commands("metric")
    say(["featstore", "extract", "DATA"])
    assert "G-mean" in say(command)


def test_metric_holds_the_contract(module):
    check("metric", module)
