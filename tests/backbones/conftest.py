"""What the tests of backbones share: pixels, a Keras cache of their own, real weights where there are any."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    """An empty Keras cache; also for a Keras that was imported before."""
    home = tmp_path / "keras"
    (home / "models").mkdir(parents=True)
    monkeypatch.setenv("KERAS_HOME", str(home))
    if "keras" in sys.modules:
        from keras.src.backend import config

        monkeypatch.setattr(config, "_KERAS_DIR", str(home))
    return home


@pytest.fixture
def pixels():
    """Make ``(count, side, side, 3)`` float32 images of smooth blobs and noise in 0..255."""

    def make(count, side, seed=0):
        rng = np.random.default_rng(seed)
        coarse = rng.uniform(0, 255, (count, 8, 8, 3))
        smooth = np.kron(coarse, np.ones((1, side // 8 + 1, side // 8 + 1, 1)))[:, :side, :side]
        return np.clip(smooth + rng.normal(0, 20, smooth.shape), 0, 255).astype(np.float32)

    return make


@pytest.fixture
def shared_weights():
    """Find a file of real weights, or skip."""

    def find(name):
        path = SHARED / "weights" / name
        if not path.is_file():
            pytest.skip(f"the real weights {name} are not beside the repository")
        return path.resolve()

    return find


@pytest.fixture
def run_process():
    """Run a script in a fresh interpreter; both its streams, and what it must have: success."""

    def run(script, *arguments, **environment):
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **environment},
        )
        assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def run_python(run_process):
    """Run a script in a fresh interpreter and return what it printed."""
    return lambda script, *arguments, **environment: run_process(script, *arguments, **environment).stdout
