"""Plug-ins found by their file names, without importing any of them."""

from __future__ import annotations

import ast
import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from featstore.errors import UnknownNameError, did_you_mean

KINDS = {
    "featstore.fusion.strategies": ("strategy", "featstore strategies"),
    "featstore.executors": ("executor", None),
}
"""What the modules of a folder are called, and the command that lists them."""


def names(package: str) -> list[str]:
    """Names of the modules in `package`, sorted; a leading underscore hides a module."""
    return sorted(p.stem for p in _folder(package).glob("*.py") if not p.stem.startswith("_"))


def summary(package: str, name: str) -> str:
    """First line of the docstring of ``package.name``, read from the source and not by importing it."""
    source = (_folder(package) / f"{name}.py").read_text(encoding="utf-8")
    doc = ast.get_docstring(ast.parse(source)) or ""
    return doc.partition("\n")[0]


def constants(package: str, name: str) -> dict[str, Any]:
    """Literal attributes of the class that ``package.name`` defines, read from the source and not by importing it."""
    source = (_folder(package) / f"{name}.py").read_text(encoding="utf-8")
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    body = next((node.body for node in classes if node.name == _class_name(name)), [])
    found = {}
    for line in body:
        match line:
            case ast.AnnAssign(target=ast.Name(id=key), value=ast.Constant(value=value)):
                found[key] = value
    return found


def load(package: str, name: str) -> Any:  # noqa: ANN401
    """Class that ``package.name`` defines under its own name in CamelCase (``vote_views`` -> ``VoteViews``).

    Raises
    ------
    UnknownNameError
        If the folder has no such file.
    """
    known = names(package)
    if name not in known:
        kind, listing = KINDS.get(package, ("module", None))
        raise UnknownNameError(f"There is no {kind} {name!r}.", did_you_mean(name, known, listing))
    module = importlib.import_module(f"{package}.{name}")
    return getattr(module, _class_name(name))


def _class_name(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UnknownNameError(
            f"There is no package {package!r}.", "Reinstall featstore: pip install featstore."
        )
    return Path(next(iter(spec.submodule_search_locations)))
