"""The house: its packages, its documents and its promises about imports."""

import ast
import gc
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

import pytest
from commandline import HEAVY, featstore

import featstore as package
from featstore import processes

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_folder_with_code_is_installed_and_nothing_else():
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    folders = {p.parent.relative_to(ROOT) for top in ("featstore", "cli") for p in (ROOT / top).rglob("*.py")}
    found = {".".join(f.parts) for f in folders}
    assert {name.replace("cli", "featstore_cli", 1) if name == "cli" else name for name in found} == listed


def test_there_are_few_modules_and_few_lines_of_imports():
    """A file is one topic, and where many names come from one module, the module is imported.

    170 modules was the goal of a house that had 169. A command, a format, a strategy and a library of networks is one
    file each, and so is each topic that came since, from NIfTI, ONNX, AVIF and what is no data set to abstention,
    negative controls, two strategies for patients and shared heads. The goals of benchmarks/hops.py are met.
    """
    texts = [path.read_text() for path in (ROOT / "featstore").rglob("*.py")]
    imports = sum(
        node.end_lineno - node.lineno + 1
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
    )
    lines = sum(text.count("\n") for text in texts)
    assert len(texts) <= 199
    assert lines / len(texts) >= 270, f"{len(texts)} modules of {lines / len(texts):.0f} lines"
    assert imports <= 0.05 * lines, f"{imports} of {lines} lines are imports: {imports / lines:.2%}"


def test_importing_featstore_loads_nothing_heavy():
    script = (
        f"import sys, featstore; print([m for m in {(*HEAVY, 'numpy', 'h5py', 'PIL')!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("own", [False, True])
def test_what_networks_may_do_without_is_away_only_in_a_process_of_featstore_and_only_meanwhile(
    own, monkeypatch
):
    monkeypatch.setattr(processes, "_own", own)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with processes.importing_networks(("colorsys",)):
        assert not gc.isenabled()
        with pytest.raises(ImportError) if own else nullcontext():
            importlib.import_module("colorsys")
    assert gc.isenabled()
    assert importlib.import_module("colorsys").rgb_to_hsv


@pytest.mark.parametrize("name", [name for name in package.__all__ if name.islower()])
def test_every_public_function_is_there_and_documented(name):
    function = getattr(package, name)
    assert "Parameters" in function.__doc__ or not inspect.signature(function).parameters


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No featstore attribute nonsense"):
        _ = package.nonsense


def test_every_command_and_flag_in_the_documents_exists():
    """A flag that is promised in README or docs must be known to the command it is promised for."""
    promised = set()
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for line in page.read_text().replace("\\\n", " ").splitlines():
            for command, rest in re.findall(r"featstore (cache \w+|\w+)((?: [^`|#]*)?)", line):
                flags = re.findall(r"--[a-z][a-z-]*", rest)
                promised |= {(command, flag) for flag in flags}
    assert len(promised) > 10
    helps = {
        command: featstore(*command.split(), "--help").out for command in {command for command, _ in promised}
    }
    assert [(c, f) for c, f in sorted(promised) if not re.search(rf"{f}\b", helps[c])] == []


def test_the_readme_opens_with_the_two_commands():
    opening = (ROOT / "README.md").read_text()[:1500]
    assert opening.index("make demo") < opening.index("make test")


def test_pins_are_names_and_versions_only_and_hold_here():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in pins)
    wanted = dict(line.split("==") for line in pins)
    assert version("numpy") == wanted["numpy"]
    assert version("tensorflow") == wanted["tensorflow"]


def test_the_changelog_knows_this_version():
    assert f"[{PROJECT['project']['version']}]" in (ROOT / "CHANGELOG.md").read_text()
