"""Write the pages of the API reference before the site is built: one for each public function, and the rest by kind.

They hold directives only; the words are the docstrings'. They are not kept with the sources, so that a new function,
strategy, error or figure is in the reference the moment it exists.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import featstore
from featstore import errors, registry
from featstore.fusion.strategy import FOLDER, FusionStrategy
from featstore.reporting import figures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLASS = ".. autoclass:: {}\n   :members: {}\n"
FUNCTION = ".. autofunction:: {}\n"
FUNCTIONS = [
    name for name in featstore.__all__ if inspect.isfunction(inspect.unwrap(getattr(featstore, name)))
]
ERRORS = [name for name in featstore.__all__ if name in vars(errors)]
CLASSES = [name for name in featstore.__all__ if name not in {*FUNCTIONS, *ERRORS}]


def write(folder: Path) -> None:
    """Write what has changed, so that Sphinx reads again only that."""
    folder.mkdir(exist_ok=True)
    for name, text in pages().items():
        page = folder / f"{name}.md"
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Text of each page by name."""
    functions = {f"featstore.{name}": _function(name) for name in FUNCTIONS}
    kinds = _kinds()
    return {"index": _index([*functions, *kinds]), **functions, **kinds}


def _index(names: list[str]) -> str:
    lines = [
        "# From Python\n",
        "The public functions carry the names of the commands and do the same. `import featstore` loads nothing",
        "heavy; what a function needs is imported when it is first asked for. Whatever they take, return and raise",
        "can be imported from `featstore` too.\n",
        *_table("function", FUNCTIONS),
        *_table("class", CLASSES),
        *_table("error", ERRORS),
        "```{toctree}\n:hidden:\n",
        *names,
        "```\n",
    ]
    return "\n".join(lines)


def _table(kind: str, names: list[str]) -> Iterator[str]:
    yield f"| {kind} | |\n|---|---|"
    for name in names:
        yield f"| [{name}]({_place(name)}.md) | {_first(inspect.unwrap(getattr(featstore, name)))} |"
    yield ""


def _place(name: str) -> str:
    """The page that describes a public name: a function's own one has what it returns too."""
    if name in ERRORS:
        return "errors"
    home = name if name in FUNCTIONS else next((f for f in FUNCTIONS if name in _results(f)), None)
    return f"featstore.{home}" if home else "classes"


def _function(name: str) -> str:
    results = [
        CLASS.format(f"featstore.{result}", "")
        for result in _results(name)
        if _place(result) == f"featstore.{name}"
    ]
    return _page(f"featstore.{name}", [FUNCTION.format(f"featstore.{name}"), *results])


def _results(name: str) -> list[str]:
    """What the function's return annotation names, as far as it is featstore's."""
    annotation = str(inspect.signature(inspect.unwrap(getattr(featstore, name))).return_annotation)
    return [word for word in re.findall(r"\w+", annotation) if word in CLASSES]


def _kinds() -> dict[str, str]:
    classes = sorted((registry.load(FOLDER, name) for name in registry.names(FOLDER)), key=lambda c: c.level)
    fusion = [CLASS.format(_path(FusionStrategy), "fit, predict, predict_proba")]
    fusion += [CLASS.format(_path(c), "") for c in classes]
    classes = [CLASS.format(f"featstore.{name}", "") for name in CLASSES if _place(name) == "classes"]
    wrong = [inspect.unwrap(getattr(featstore, name)) for name in ERRORS]
    return {
        "strategies": _page("Fusion strategies", fusion),
        "classes": _page("What they take and return", classes),
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


def _path(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _first(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _page(title: str, directives: list[str]) -> str:
    return "\n".join([f"# {title}\n", "```{eval-rst}", *directives, "```\n"])
