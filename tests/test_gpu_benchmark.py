"""What waits for a card: the benchmark, rehearsed on a CPU, the wheels that it needs there, and the image."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.py"
NETWORKS = ("MobileNet025", "MobileNetV3Small")


@pytest.fixture(scope="module")
def gpu():
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_benchmark"] = module  # dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules["gpu_benchmark"]


# The benchmark


def rehearse(folder, *options):
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "user-cache")}
    command = [
        sys.executable,
        str(SCRIPT),
        "--tiny",
        "--images",
        "24",
        "--json",
        str(folder / "gpu.json"),
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((folder / "gpu.json").read_text())


@pytest.mark.slow
def test_every_part_says_what_it_found_and_a_second_call_goes_on(tmp_path):
    parts = ["--parts", "bfloat16,again,deterministic,extract,timm,float32,tf32", "--budget", "1800"]
    shown, found = rehearse(tmp_path, *parts)
    assert {part["outcome"] for part in found["parts"].values()} == {"done"}
    for precision, contract in (("float32", 1e-5), ("bfloat16", 0.1)):
        for name in NETWORKS:
            figures = found[precision][name]
            assert figures["batch"] == 16
            assert figures["same_bytes"]
            assert figures["error"] <= contract
            assert figures["pass4"] > 0
            assert figures["pass1"] > 0
            assert figures["ratio"] == pytest.approx(figures["pass4"] / figures["raw"])
            assert f"{name}, {precision}" in shown
        together = found[precision]["all together"]
        assert together["networks"] == 2
        assert together["same_bytes"]
        assert together["raw"] == pytest.approx(
            1 / sum(1 / found[precision][name]["raw"] for name in NETWORKS)
        )
    assert all(found["again"][name]["same_bytes"] for name in NETWORKS)
    assert found["extract"]["all together"]["seconds"] > 0
    assert found["bfloat16"]["MobileNet025"]["sha256"] != found["float32"]["MobileNet025"]["sha256"]
    assert found["tf32"]["all together"]["skipped"] == "no GPU"
    again, unchanged = rehearse(tmp_path, *parts)
    assert unchanged["float32"] == found["float32"]
    assert "not run" not in again


def test_a_budget_that_is_spent_skips_what_is_left_and_says_so(gpu, tmp_path, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(gpu, "run_child", lambda part, *_: ran.append(part))
    clock = SimpleNamespace(monotonic=iter([0.0, 1.0, 90.0]).__next__, strftime=time.strftime)
    monkeypatch.setattr(gpu, "time", clock)
    gpu.supervise(
        ["bfloat16", "tf32"], gpu.Options(NETWORKS, 24, is_tiny=True, seconds=100), tmp_path / "gpu.json"
    )
    assert ran == ["bfloat16"]
    assert "not run, for lack of time: tf32" in capsys.readouterr().out


def test_a_part_that_does_not_end_is_ended_and_keeps_what_it_found(gpu, tmp_path, monkeypatch):
    path = tmp_path / "gpu.json"
    gpu.note(path, "bfloat16", "ResNet50", {"raw": 13000.0})

    def endless(*_, timeout, **__):
        raise subprocess.TimeoutExpired("gpu.py", timeout)

    monkeypatch.setattr(gpu.subprocess, "run", endless)
    gpu.run_child("bfloat16", gpu.Options(NETWORKS, 24, is_tiny=True, seconds=100), path, 60)
    found = gpu.read_rows(path)
    assert found["parts"]["bfloat16"] == {"outcome": "ended after 60 s"}
    assert "13000" in gpu.table(found)


def test_one_network_that_fails_does_not_cost_the_others(gpu, tmp_path):
    path = tmp_path / "gpu.json"
    with gpu.failures_noted(path, "float32", "VGG19"):
        raise RuntimeError("RESOURCE_EXHAUSTED")
    assert gpu.read_rows(path)["float32"]["VGG19"] == {"failed": "RuntimeError: RESOURCE_EXHAUSTED"}


def test_the_table_sets_timm_beside_ours_in_16_bits(gpu):
    found = {
        precision: {"VGG19": {"raw": 4000.0, "same_bytes": False, "batch": 512}}
        for precision in ("bfloat16", "float32")
    }
    lines = gpu.table(found | {"timm": {"VGG19": {"raw": 2000.0}}}).splitlines()
    assert lines[1].split()[:4] == ["VGG19,", "bfloat16", "512", "4000"]
    assert "2.00" in lines[1]
    assert "NO" in lines[1]
    assert "2.00" not in lines[2]


def test_a_call_is_timed_by_beginning_many_and_waiting_for_the_last(gpu, monkeypatch):
    begun, waited = [], []
    monkeypatch.setattr(gpu, "time", SimpleNamespace(perf_counter=lambda: 0.01 * len(waited)))

    def begin(call):
        begun.append(call)
        return lambda: waited.append(call)

    assert gpu.repeated(begin, 0.2) == pytest.approx(0.01 / 6)
    assert waited == [0, 5, 5, 5]
    assert begun == [0, *range(6), *range(6), *range(6)]


def test_the_fixture_has_the_features_of_every_network_that_the_benchmark_knows(gpu):
    with np.load(gpu.REFERENCE) as references:
        found = {name: references[name] for name in references}
    from featstore.backbones import catalog

    assert set(found) == {*gpu.STUDY, *gpu.TINY}
    for name, features in found.items():
        assert features.shape == (gpu.PICTURES, catalog.row(name).dimension)
        assert features.dtype == np.float32
        assert np.isfinite(features).all()
        assert np.abs(features[0] - features[1]).max() > 1e-3 * features.max(), f"{name} tells the two apart"


# The wheels, and the image


def test_the_wheels_are_what_constraints_pin():
    (command,) = re.findall(
        r"pip download.*?(?=\nkilobytes)", (ROOT / "benchmarks/gpu_wheels.sh").read_text(), re.DOTALL
    )
    names = shlex.split(command.replace("\\\n", ""))[-4:]
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert names == ["keras", "msgspec", "namex", "optree"]
    assert all(any(pin.startswith(f"{name}==") for pin in pins) for name in names)


def instructions():
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in joined.splitlines()]


def test_the_image_copies_what_exists_and_what_its_build_is_given():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    copied = [path for word, rest in instructions() if word == "COPY" for path in rest.split()[:-1]]
    assert copied
    for path in copied:
        assert (ROOT / path).exists(), path
        assert f"!{path}" in ignored, path


def test_the_image_holds_every_folder_and_file_that_the_package_is_built_from():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {
        *project["tool"]["setuptools"]["package-dir"].values(),
        project["project"]["readme"],
        "pyproject.toml",
    }
    copied = {path for word, rest in instructions() if word == "COPY" for path in rest.split()[:-1]}
    assert needed <= copied


def test_the_image_runs_as_somebody_who_is_not_root_and_installs_what_is_pinned():
    found = instructions()
    words = [word for word, _ in found]
    assert words[0] == "FROM"
    assert words.count("FROM") == 1
    assert re.fullmatch(r"[a-z]+:[\w.-]+", found[0][1]), (
        "an image by name and tag, from no registry of its own"
    )
    user = [rest for word, rest in found if word == "USER"][-1]
    assert int(user) > 0, "a number, which the host can look at"
    assert any(word == "RUN" and f"useradd --create-home --uid {user} " in rest for word, rest in found)
    assert words.index("USER") > max(at for at, word in enumerate(words) if word in {"RUN", "COPY"})
    installs = [rest for word, rest in found if word == "RUN" and "pip install" in rest]
    assert all("--constraint constraints.txt" in rest for rest in installs)
    assert any("'.[gpu]'" in rest for rest in installs)
    assert "ENTRYPOINT" in words
