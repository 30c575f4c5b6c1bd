"""Law 7: nothing that is loaded can run code. The sources are walked, since a promise in prose is soon broken."""

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.hostile

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for top in ("featstore", "cli") for path in (ROOT / top).rglob("*.py"))
MODULES = {
    "_pickle", "builtins", "cloudpickle", "code", "codeop", "dbm", "dill", "jsonpickle", "marshal", "pickle", "runpy",
    "shelve", "skops", "torch", "yaml",
}  # fmt: skip
"""`pickletools` is not among them: it splits a pickle into opcodes and runs none."""
JOBLIB = {"Parallel", "delayed", "ProcessPoolExecutor", "TerminatedWorkerError"}
"""joblib moves work between featstore's own processes, and pickles it on the way; it never opens a file for us."""
BUILTINS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    "system",
    "popen",
    "execv",
    "execve",
    "spawnl",
    "spawnv",
    "deserialize",
    "find_class",
    "exec_module",
    "spec_from_file_location",
}
DOOR = ["exec_module()", "import_module() of something computed", "spec_from_file_location()"]
"""What `featstore/registry.py` does, the one door for code: of files and modules that the user names (`--plugin`)."""
MUST_SAY = {
    "load_model": ("safe_mode", True),
    "loadtxt": ("", None),
    "genfromtxt": ("", None),
    "fromregex": ("", None),
}


def findings(tree: ast.AST) -> list[str]:
    """Everything in a module that could run what it reads, one line each."""
    return [f"line {node.lineno}: {what}" for node in ast.walk(tree) for what in _wrong(node)]


def _wrong(node):
    match node:
        case ast.Import(names=names):
            yield from (f"import {n.name}" for n in names if n.name.partition(".")[0] in MODULES | {"joblib"})
        case ast.ImportFrom(module=str(module), names=names, level=0):
            top = module.partition(".")[0]
            if top in MODULES or (top == "joblib" and not {n.name for n in names} <= JOBLIB):
                yield f"from {module} import {', '.join(n.name for n in names)}"
        case ast.Call(func=ast.Name(id=name)) if name in BUILTINS:
            yield f"{name}()"
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), keywords=keywords):
            yield from _wrong_call(node, name, {k.arg: getattr(k.value, "value", None) for k in keywords})


def _wrong_call(node, name, given):
    if name in METHODS:
        yield f"{name}()"
    if (
        given.get("allow_pickle")
        or given.get("shell")
        or ("safe_mode" in given and given["safe_mode"] is not True)
    ):
        yield f"{name}({given})"
    if name in MUST_SAY and given.get(MUST_SAY[name][0]) is not MUST_SAY[name][1]:
        yield f"{name}() without {MUST_SAY[name]}"
    if name == "load" and _is_numpy(node.func) and given.get("allow_pickle", True) is not False:
        yield "np.load() without allow_pickle=False"
    if name == "import_module" and not isinstance(node.args[0], ast.JoinedStr | ast.Constant | ast.Subscript):
        yield "import_module() of something computed"


def _is_numpy(function):
    return isinstance(function, ast.Attribute) and getattr(function.value, "id", "") in {"np", "numpy"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_runs_what_it_reads(path, tried):
    found = findings(ast.parse(path.read_text("utf-8")))
    expected = DOOR if path == ROOT / "featstore" / "registry.py" else []
    assert sorted(line.partition(": ")[2] for line in found) == expected, found
    tried("modules searched for loaders that run code")


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import torch.serialization",
        "from cloudpickle import loads",
        "from joblib import load",
        "import joblib",
        "eval(text)",
        "exec(text)",
        "__import__(name)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "format.read_array(file, allow_pickle=True)",
        "keras.models.load_model(path)",
        "keras.models.load_model(path, safe_mode=False)",
        "load_model(path, safe_mode=flag)",
        "keras.layers.deserialize(config)",
        "os.system(command)",
        "subprocess.run(command, shell=True)",
        "import yaml",
        "spec_from_file_location(name, path)",
        "spec.loader.exec_module(module)",
    ],
)
def test_the_search_finds_what_it_is_for(line):
    assert findings(ast.parse(line))


def test_the_search_lets_pass_what_is_safe():
    safe = "from joblib import Parallel, delayed\nnp.load(p, allow_pickle=False)\nload_model(p, safe_mode=True)\n"
    assert (
        findings(ast.parse(safe + "registry.load(FOLDER, name)\nre.compile(text)\nast.literal_eval(text)"))
        == []
    )
