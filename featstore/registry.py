"""Plug-ins: found by their file names without importing any, or in what the user named or installed.

A folder of featstore holds one plug-in a file. Code of others comes in by two doors, and by no third. An installed
package declares an entry point of the group ``featstore.strategies``, ``featstore.executors``,
``featstore.metrics``, ``featstore.formats`` or ``featstore.backbones``. Or the user names a Python file or a module,
by ``featstore --plugin`` or the environment variable `PLUGINS`; it lists its plug-ins as ``STRATEGIES``,
``EXECUTORS``, ``METRICS``, ``FORMATS`` or ``BACKBONES``. Nothing is ever loaded because it lies in a cache, a run or
a data set.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys
import traceback
from functools import cache, lru_cache
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from featstore.errors import UnknownNameError, UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, ModuleType


class Kind(NamedTuple):
    """What the modules of a folder are called, one and many, what a class has, and the command that lists them."""

    one: str
    many: str
    has: tuple[str, ...]
    listing: str | None = None


KINDS = {
    "featstore.fusion.strategies": Kind(
        "strategy", "strategies", ("level", "min_blocks", "fit", "predict_proba"), "featstore strategies"
    ),
    "featstore.executors": Kind("executor", "executors", ("in_process", "run")),
    "featstore.images.formats": Kind("format", "formats", ()),
}
PLUGINS = "FEATSTORE_PLUGINS"
"""Environment variable: Python files and modules with plug-ins, separated as in PATH. Workers inherit it."""
LISTS = ("STRATEGIES", "EXECUTORS", "METRICS", "FORMATS", "BACKBONES")
"""Names under which a plug-in lists what it brings; it has one of them or more."""
_FILE_PREFIX = "featstore_plugin_"
_TRACED = re.compile(r'^ *File "([^"]+)", line \d+', re.MULTILINE)
_WORD = re.compile(r"(?<!^)(?=[A-Z])")


# What a folder of featstore holds, and what others offer for it


def names(package: str) -> list[str]:
    """Names of the plug-ins of `package`, sorted: modules that define a class of their name, and those of others."""
    return sorted({*_own_names(package), *_from_others(package)})


def summary(package: str, name: str) -> str:
    """First line of the docstring of ``package.name``, read from the source and not by importing it."""
    if name in _own_names(package):
        return _read(package, name)[0]
    return (load(package, name).__doc__ or "").strip().partition("\n")[0]


def constants(package: str, name: str) -> dict[str, Any]:
    """Literal attributes of the class that ``package.name`` defines, read from the source and not by importing it."""
    if name not in _own_names(package):
        found = {k: v for kind in reversed(load(package, name).__mro__) for k, v in vars(kind).items()}
        return {k: v for k, v in found.items() if isinstance(v, str | int | float) and not k.startswith("_")}
    return dict(_read(package, name)[1])


def load(package: str, name: str) -> Any:  # noqa: ANN401
    """Class that ``package.name`` defines under its own name in CamelCase (``vote_views`` -> ``VoteViews``).

    Raises
    ------
    UnknownNameError
        If neither the folder nor anybody else has it.
    UsageError
        If a plug-in of others cannot be loaded, or is no class of that name.
    """
    if name in _own_names(package):
        return getattr(importlib.import_module(f"{package}.{name}"), _class_name(name))
    others = _from_others(package)
    if name in others:
        found = others[name]
        return _loaded(found, name) if isinstance(found, EntryPoint) else found
    kind = KINDS.get(package, Kind("module", "modules", ()))
    raise UnknownNameError(
        f"There is no {kind.one} {name!r}.", did_you_mean(name, names(package), kind.listing)
    )


def name_of(package: str, kind: type) -> str | None:
    """Name under which `load` gives this class; None if it does not."""
    own = kind.__module__.rpartition(".")[2]
    name = own if kind.__module__ == f"{package}.{own}" else _plugin_name(kind)
    return name if name in names(package) and load(package, name) is kind else None


def source_files(package: str, name: str) -> list[Path]:
    """Source files of a plug-in of others, its file or its package: what it computes changes with them; else none."""
    if name in _own_names(package):
        return []
    module = sys.modules[load(package, name).__module__]
    whole = sys.modules.get(module.__name__.partition(".")[0], module)
    folders = getattr(whole, "__path__", ())
    files = [path for folder in folders for path in Path(folder).rglob("*.py")] or [
        Path(str(module.__file__))
    ]
    return sorted(files)


def _from_others(package: str) -> dict[str, Any]:
    """Classes of named modules and entry points of installed packages, by name; none has a name of featstore's."""
    kind, own = KINDS.get(package), _own_names(package)
    if kind is None:
        return {}
    named = {_plugin_name(found): found for found in plugins(kind.many) if _is_class(found, kind)}
    if clash := sorted(named.keys() & set(own)):
        raise UsageError(
            f"The {kind.one} {clash[0]!r} is featstore's own.", "Rename the class of the plug-in."
        )
    return {**{name: point for name, point in offered(kind.many).items() if name not in own}, **named}


def _is_class(found: object, kind: Kind) -> bool:
    where = f"{kind.many.upper()} of a plug-in"
    if not isinstance(found, type):
        raise UsageError(f"{where} holds {str(found)[:100]!r}.", f"List the classes of the {kind.many}.")
    if missing := [name for name in kind.has if not hasattr(found, name)]:
        raise UsageError(
            f"{found.__name__} in {where} has no {missing[0]}.",
            f"`featstore.testing` has a check that says what a {kind.one} has to have.",
        )
    return True


def _loaded(point: EntryPoint, name: str) -> Any:  # noqa: ANN401
    what = f"Entry point {name!r} = {point.value!r}"
    remedy = "Upgrade or uninstall the package that declares this entry point."
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{what} fails: {error}", remedy) from error
    if getattr(found, "__name__", "") != _class_name(name):
        raise UsageError(f"{what} is no class {_class_name(name)}.", remedy)
    return found


# The two doors for code of others


def offered(kind: str) -> dict[str, EntryPoint]:
    """Entry points of installed packages for plug-ins of a kind (``formats``), by name; nothing is imported."""
    return {point.name: point for point in _entry_points(_installed())[kind]}


def _installed() -> tuple[tuple[str, int], ...]:
    """Folders that packages are imported from, and when one was last installed there or removed."""
    folders = [place for place in sys.path if os.path.isdir(place)]  # noqa: PTH112 - False where it is forbidden to look
    return tuple((folder, os.stat(folder).st_mtime_ns) for folder in folders)  # noqa: PTH116 - many, at every start


@lru_cache(maxsize=1)
def _entry_points(_folders: tuple[tuple[str, int], ...]) -> dict[str, EntryPoints]:
    """Those of every kind: to read them takes thirty times as long as to look whether they changed."""
    points = entry_points()
    return {kind: points.select(group=f"featstore.{kind}") for kind in map(str.lower, LISTS)}


def plugins(kind: str) -> list[Any]:
    """What the files and modules that the user named list as plug-ins of a kind (``formats``).

    Raises
    ------
    UsageError
        If one of them cannot be loaded.
    """
    places = os.environ.get(PLUGINS, "").split(os.pathsep)
    return [found for place in places if place for found in getattr(_module(place), kind.upper(), ())]


def add_plugin(place: str) -> None:
    """Name a file or module with plug-ins, for this process and those that it starts.

    Raises
    ------
    UsageError
        If it cannot be loaded, or lists no plug-in.
    """
    if place.endswith(".py"):
        place = str(Path(place).expanduser().absolute())
    if not any(hasattr(_module(place), name) for name in LISTS):
        raise UsageError(
            f"The plug-in {place} lists nothing.", f"Give it one of {', '.join(LISTS)}: a tuple."
        )
    places = os.environ.get(PLUGINS, "").split(os.pathsep)
    os.environ[PLUGINS] = os.pathsep.join(dict.fromkeys([*filter(None, places), place]))


def plugin_at_fault(error: BaseException) -> Path | None:
    """File of a plug-in of others whose own code raised an error; None if featstore's code did, or nobody's known.

    What a plug-in calls counts as its own code, unless that is featstore again. Of an error that came from another
    process there is only the text of its traceback.
    """
    far = error.__cause__ if type(error.__cause__).__name__ == "_RemoteTraceback" else None
    told = str(far) if far is not None else "".join(traceback.format_tb(error.__traceback__))
    places = list(_plugin_places())
    for file in reversed(_TRACED.findall(told)):
        path = Path(file)
        if any(path == place or path.is_relative_to(place) for place in places):
            return path
        if path.is_relative_to(Path(__file__).parent):
            return None
    return None


def _plugin_places() -> Iterator[Path]:
    """Files and package folders of the plug-ins of others, as far as they are loaded."""
    named = [place for place in os.environ.get(PLUGINS, "").split(os.pathsep) if place]
    yield from (Path(place).expanduser() for place in named if place.endswith(".py"))
    points = [point.module for kind in LISTS for point in offered(kind.lower()).values()]
    for name in (*named, *points):
        module = sys.modules.get(name.partition(".")[0])
        if module is not None and module.__name__ != "featstore":
            yield from map(Path, getattr(module, "__path__", [module.__file__ or name]))


@cache
def _module(place: str) -> ModuleType:
    is_file = place.endswith(".py")
    if is_file and not Path(place).expanduser().is_file():
        raise UsageError(
            f"There is no plug-in {place}.", f"Name a Python file with --plugin FILE.py or in {PLUGINS}."
        )
    try:
        return _file_module(Path(place).expanduser()) if is_file else importlib.import_module(place)
    except (Exception, SystemExit) as error:  # it is code of somebody else, which raises what it likes
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        remedy = (
            "Correct the file" if is_file else "Install the module, or name a Python file that ends in .py"
        )
        raise UsageError(
            f"The plug-in {place} cannot be loaded: {why}.",
            f"{remedy}; it was named by --plugin or in {PLUGINS}.",
        ) from error


class _FromSource(SourceFileLoader):
    """Runs what a file says: bytecode that lies beside it may be of its last second, or of somebody else."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def _file_module(path: Path) -> ModuleType:
    """Module of a file, under a name that hides no other; what it defines can be named ``f"{__name__}:thing"``."""
    name = f"{_FILE_PREFIX}{path.stem}"
    spec = spec_from_file_location(name, path, loader=_FromSource(name, str(path)))
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


# Names and sources


@cache
def _own_names(package: str) -> tuple[str, ...]:
    """Modules that define the class of their name; a leading underscore hides a module."""
    files = (path for path in _folder(package).glob("*.py") if not path.stem.startswith("_"))
    return tuple(sorted(path.stem for path in files if _defines_its_class(path)))


def _defines_its_class(path: Path) -> bool:
    return (
        re.search(rf"^class {_class_name(path.stem)}\b", path.read_text(encoding="utf-8"), re.MULTILINE)
        is not None
    )


@cache
def _read(package: str, name: str) -> tuple[str, dict[str, Any]]:
    """First line of the docstring of a module of `package`, and the literal attributes of the class of its name."""
    tree = ast.parse((_folder(package) / f"{name}.py").read_text(encoding="utf-8"))
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef))
    body = next((node.body for node in classes if node.name == _class_name(name)), [])
    found = {}
    for line in body:
        match line:
            case ast.AnnAssign(target=ast.Name(id=key), value=ast.Constant(value=value)):
                found[key] = value
    return (ast.get_docstring(tree) or "").partition("\n")[0], found


def _class_name(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _plugin_name(kind: type) -> str:
    return _WORD.sub("_", kind.__name__).lower()


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UnknownNameError(
            f"There is no package {package!r}.", "Reinstall featstore: pip install featstore."
        )
    return Path(next(iter(spec.submodule_search_locations)))
