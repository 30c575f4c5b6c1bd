"""Write the pages of the API reference before the site is built: one for each public function, and the rest by kind.

They hold directives only; the words are the docstrings'. They are not kept with the sources, so that a new function,
strategy, error or figure is in the reference the moment it exists.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import featstore
from featstore import errors, registry
from featstore.fusion.strategy import FOLDER, FusionStrategy
from featstore.reporting import figures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CLASS = ".. autoclass:: {}\n   :members: {}\n"
FUNCTION = ".. autofunction:: {}\n"


def write(folder: Path) -> None:
    """Write what has changed, so that Sphinx reads again only that."""
    folder.mkdir(exist_ok=True)
    for name, text in pages().items():
        page = folder / f"{name}.md"
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Text of each page by name."""
    functions = {f"featstore.{name}": _function(name) for name in featstore.__all__}
    return {"index": _index(list(functions)), **functions, **_kinds()}


def _index(functions: list[str]) -> str:
    rows = [f"| [{name}]({name}.md) | {_first(_get(name))} |" for name in functions]
    lines = [
        "# From Python\n",
        "The public functions carry the names of the commands and do the same. `import featstore` loads nothing",
        "heavy; what a function needs is imported when it is first asked for.\n",
        "| function | |\n|---|---|",
        *rows,
        "\n```{toctree}\n:hidden:\n",
        *functions,
        *_kinds(),
        "```\n",
    ]
    return "\n".join(lines)


def _function(name: str) -> str:
    function = getattr(featstore, name)
    results = [CLASS.format(path, "") for path in _results(function)]
    return _page(f"featstore.{name}", [FUNCTION.format(f"featstore.{name}"), *results])


def _kinds() -> dict[str, str]:
    classes = sorted((registry.load(FOLDER, name) for name in registry.names(FOLDER)), key=lambda c: c.level)
    fusion = [CLASS.format(_path(FusionStrategy), "fit, predict, predict_proba")]
    fusion += [CLASS.format(_path(c), "") for c in classes]
    wrong = [c for c in vars(errors).values() if inspect.isclass(c) and issubclass(c, errors.FeatstoreError)]
    return {
        "strategies": _page("Fusion strategies", fusion),
        "errors": _page("Errors", [f".. autoexception:: {_path(c)}\n   :show-inheritance:\n" for c in wrong]),
        "figures": _page("Figures", list(_figures())),
    }


def _figures() -> Iterator[str]:
    """Yield directives for the picture itself, and for every function that draws one."""
    for name in figures.__all__:
        thing = getattr(figures, name)
        yield (
            CLASS.format(_path(thing), "svg, save")
            if inspect.isclass(thing)
            else FUNCTION.format(_path(thing))
        )


def _results(function: Callable[..., Any]) -> Iterator[str]:
    """Yield what the function's return annotation names, as far as it is featstore's."""
    home = sys.modules[function.__module__]
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(inspect.getsource(home)))
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    for name in re.findall(r"\w+", str(inspect.signature(function).return_annotation)):
        path = imported.get(name, f"{home.__name__}.{name}" if hasattr(home, name) else "")
        if path.startswith("featstore.") and inspect.isclass(_get(path)):
            yield _path(_get(path))


def _get(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def _path(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _first(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _page(title: str, directives: list[str]) -> str:
    return "\n".join([f"# {title}\n", "```{eval-rst}", *directives, "```\n"])
