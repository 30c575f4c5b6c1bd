"""What `featstore` offers is complete: what a public function takes, returns or raises can be imported from it."""

import ast
import inspect
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from annotated import reachable

import featstore
from featstore import errors

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = {name: inspect.unwrap(getattr(featstore, name)) for name in featstore.__all__}
FUNCTIONS = {name: thing for name, thing in PUBLIC.items() if inspect.isfunction(thing)}
ERRORS = [c for c in vars(errors).values() if inspect.isclass(c) and issubclass(c, errors.FeatstoreError)]
STUB = ast.parse(resources.files("featstore").joinpath("__init__.pyi").read_text("utf-8"))


@pytest.mark.parametrize("name", featstore.__all__)
def test_a_name_is_what_it_says_and_documented(name):
    assert PUBLIC[name].__name__ == name
    assert inspect.getdoc(PUBLIC[name])


def test_every_class_that_a_public_function_leads_to_can_be_imported():
    """Of fields, properties and methods too, however deep; the place says where a missing one is met."""
    met = reachable(FUNCTIONS.values())
    assert len(met) > 50
    missing = {f"{c.__module__}.{c.__qualname__}": why for c, why in met.items() if c not in PUBLIC.values()}
    assert missing == {}


def test_every_error_can_be_imported():
    assert {error.__name__ for error in ERRORS} - set(PUBLIC) == set()


def test_nothing_is_offered_that_no_function_leads_to():
    led_to = {*reachable(FUNCTIONS.values()), *ERRORS, *FUNCTIONS.values()}
    assert [name for name, thing in PUBLIC.items() if thing not in led_to] == []


def test_a_class_that_hides_in_a_signature_is_found():
    """As a field, a property's value, an argument, for type checkers only, and in a list of one or none."""
    met = reachable([featstore.fuse])
    assert met[featstore.Manifest] == "fuse(data)"
    assert met[featstore.WarmStart] == "Fusion.warm_start"
    assert met[featstore.MetricChange] == "WarmStart.changes"
    assert featstore.Comparison not in met


def test_the_stub_names_what_it_imports():
    """A type checker goes by ``__all__``, Python by the imports."""
    imported = [a.name for line in STUB.body if isinstance(line, ast.ImportFrom) for a in line.names]
    (listed,) = (ast.literal_eval(line.value) for line in STUB.body if isinstance(line, ast.Assign))
    assert sorted(imported) == sorted(listed) == sorted(featstore.__all__)


def test_a_name_lives_where_the_stub_says():
    """And not where that imports it from, so that a traceback and the reference name the same module."""
    homes = {
        a.name: line.module for line in STUB.body if isinstance(line, ast.ImportFrom) for a in line.names
    }
    assert {n: f"featstore.{home}" for n, home in homes.items()} == {
        n: t.__module__ for n, t in PUBLIC.items()
    }


def test_to_ask_for_an_error_or_a_result_loads_neither_numpy_nor_tensorflow():
    script = "import sys, featstore; featstore.UsageError, dir(featstore); print({'numpy', 'h5py'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_options_are_keywords(name):
    """What stands by its place is what a function works on, and where it writes to."""
    places = [
        p.name
        for p in inspect.signature(FUNCTIONS[name]).parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    assert set(places) <= {
        "data",
        "out",
        "file",
        "files",
        "name",
        "folder",
        "images",
        "cache",
        "backbones",
        "runs",
    }


def test_the_stubs_are_installed():
    """And the mark that says that featstore has types."""
    import tomllib

    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert {"__init__.pyi", "py.typed"} <= set(shipped["featstore"])
    assert "__init__.pyi" in shipped["featstore.reporting.figures"]
    for package in ("featstore", "featstore.reporting.figures"):
        for name in shipped[package]:
            assert resources.files(package).joinpath(name).is_file()


SCRIPT = '''\
"""A user's program."""

from pathlib import Path

import featstore
from featstore import Comparison, FeatureMatrix, FeatstoreError, Manifest, compare, extract, load_matrix, scan


def best(data: Path) -> str:
    """Extract and compare."""
    manifest: Manifest = scan(data, group_pattern=r"(p\\d+)-")
    images: int = extract(manifest, seeds=[1], recipe="mild").images
    matrix: FeatureMatrix = load_matrix(manifest)
    result: Comparison = compare(manifest, folds=5)
    try:
        featstore.fuse(manifest, out="runs/fuse")
    except FeatstoreError as error:
        print(error)
    reveal_type(featstore.verify())
    reveal_type(result.selection_bias)
    return f"{images} {matrix.classes}"


featstore.nonsense
scan(data=3)
'''


@pytest.mark.slow
def test_a_users_script_is_checked_by_mypy_strict(tmp_path):
    """Right lines pass; a name that is not there and a wrong argument are seen, and results have their types."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file",
        os.devnull,
        "--follow-imports=silent",
        script,
    ]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    lines = SCRIPT.splitlines()
    told = [
        line.removeprefix("script.py:") for line in done.stdout.splitlines() if line.startswith("script.py:")
    ]
    errors_at = [lines[int(line.split(":")[0]) - 1] for line in told if " error: " in line]
    assert errors_at == ["featstore.nonsense", "scan(data=3)"], done.stdout + done.stderr
    assert [line.split('"')[1] for line in told if "Revealed" in line] == [
        "featstore.store.verify.Verification",
        "featstore.results.comparison.SelectionBias | None",
    ], done.stdout


def test_the_list_of_backbones_and_the_package_of_that_name_are_one(tmp_path):
    """Whichever is asked for first: a function in the package's place broke every ``import … as`` of its modules."""
    calls = "import featstore; names = [row.name for row in featstore.backbones()]"
    imports = "import featstore.backbones.catalog as catalog; assert catalog.names() == names or names == []"
    for program in (
        f"{calls}; {imports}; featstore.backbones()",
        f"names = []; {imports}; {calls}; {imports}",
    ):
        subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
