"""The examples: each runs as its head says, offline, and prints which weights it has used."""

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import featstore
from featstore.backbones.catalog import Row

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
DEAD_END = "http://127.0.0.1:9"
OFFLINE = {"http_proxy": DEAD_END, "https_proxy": DEAD_END}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One for all of them: what the first has extracted, the next need not."""
    return tmp_path_factory.mktemp("examples")


def run(name, folder, *arguments):
    """What an example prints; it may warn of nothing."""
    command = [sys.executable, "-W", "error", ROOT / "examples" / f"{name}.py", *arguments]
    env = {**os.environ, **OFFLINE, "FEATSTORE_CACHE": str(folder / "cache")}
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_its_head_says_how_it_is_run_and_with_which_weights(script):
    head = ast.get_docstring(ast.parse(script.read_text()))
    assert f"python examples/{script.name}" in head
    assert "weights" in head


def test_the_page_shows_every_example():
    page = (ROOT / "docs" / "examples.md").read_text()
    shown = {f"{{literalinclude}} ../examples/{script.name}" for script in EXAMPLES}
    assert {text for text in shown if text not in page} == set()


@pytest.mark.slow
def test_a_folder_of_ones_own_becomes_a_verdict(tmp_path):
    data = featstore.make_phantoms(tmp_path / "mine", patients=8, slices=2, size=64).parent
    said = run("folder_to_verdict", tmp_path, data)
    assert "EfficientNetLite0 with the weights sha256:579344248a93: 16 vectors" in said
    assert "Cannot tell yet whether concat_logreg is better than both single networks." in said
    assert (tmp_path / "runs" / "verdict" / "report.html").exists()


@pytest.mark.slow
def test_a_strategy_of_ones_own_competes(folder):
    said = run("own_strategy", folder)
    assert "EfficientNetLite2 with the weights sha256:9656183eaeaf: 96 vectors" in said
    assert "median_logit         AUC 0." in said
    assert "median - mean: " in said


@pytest.mark.slow
@pytest.mark.skipif("loader" not in Row.__slots__, reason="networks have no loaders")
def test_a_network_of_ones_own_is_extracted_and_fused(folder):
    said = run("own_network", folder)
    assert "Texture with the weights version:1: 96 vectors" in said
    assert "concat_logreg        AUC 0." in said


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("pandas") is None, reason="`make explore` runs it: scikit-learn loads pandas where it is"
)
def test_a_run_opens_in_pandas(folder):
    said = run("explore", folder)
    assert "EfficientNetLite1 sha256:77cc7160d37b" in said
    assert "scanner-a" in said


@pytest.mark.slow
@pytest.mark.skipif(find_spec("timm") is None or find_spec("torch") is None, reason="timm is not installed")
def test_a_network_of_timm_is_extracted_and_fused(folder):
    assert "ResNet18 with the weights version:a1_in1k: 96 vectors" in run("timm_network", folder)


def test_the_loader_of_timm_gives_what_a_loader_has_to(tmp_path, monkeypatch):
    """With stand-ins for both libraries, so that the script is run where neither is installed."""
    from featstore import registry
    from featstore.testing import check_backbone

    (tmp_path / "torch.py").write_text(
        "import contextlib\n"
        "class Tensor:\n"
        "    def __init__(self, values): self.values = values\n"
        "    def __iter__(self): return map(Tensor, self.values)\n"
        "    def __getitem__(self, key): return Tensor(self.values[key])\n"
        "    def numpy(self): return self.values\n"
        "from_numpy, inference_mode = Tensor, contextlib.nullcontext\n"
    )
    (tmp_path / "timm.py").write_text(
        "import numpy as np, torch\n"
        "class Net:\n"
        "    pretrained_cfg = {'mean': (0.5, 0.5, 0.5), 'std': (0.2, 0.2, 0.2)}\n"
        "    def eval(self): return self\n"
        "    def __call__(self, x):\n"
        "        assert x.values.shape == (1, 3, 224, 224)\n"
        "        return torch.Tensor(np.resize(x.values.mean(axis=2), (1, 512)).astype(np.float32))\n"
        "def create_model(name, pretrained, num_classes):\n"
        "    assert name == 'resnet18.a1_in1k' and pretrained and num_classes == 0\n"
        "    return Net()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("torch", "timm"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setenv(registry.PLUGINS, "")
    registry.add_plugin(str(ROOT / "examples" / "timm_network.py"))
    check_backbone("ResNet18")
    for name in ("torch", "timm"):
        sys.modules.pop(name)
