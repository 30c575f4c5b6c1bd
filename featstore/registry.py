"""Find what a folder offers by its file names, without importing any of it."""

from __future__ import annotations

import ast
import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from featstore.errors import UnknownNameError, nearest

FEW = 8
"""So many names can be listed in one line."""


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
        folder = package.rpartition(".")[2]
        kind = f"{folder[:-3]}y" if folder.endswith("ies") else folder.removesuffix("s")
        every = f"`featstore {folder}` lists all." if len(known) > FEW else f"There are: {', '.join(known)}."
        raise UnknownNameError(f"There is no {kind} {name!r}.", f"{nearest(name, known)}{every}")
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
