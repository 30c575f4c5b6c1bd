"""The clock of the benchmarks counts the CPU seconds of processes that come and go."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "timing.py"


@pytest.fixture
def timing():
    spec = importlib.util.spec_from_file_location("benchmark_timing", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_thread_that_ended_since_it_was_listed_is_no_error(timing, monkeypatch, tmp_path):
    """`python benchmarks/store.py` ended with FileNotFoundError, when a thread did."""
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(Path, "iterdir", lambda _: iter([tmp_path / "ended"]))
    assert timing.cpu_seconds() > 0
