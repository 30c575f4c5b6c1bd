"""Classes that signatures name, found as a type checker finds them: what is imported for types only counts too."""

import ast
import builtins
import functools
import inspect
import typing
from importlib import import_module


class Scope(dict):
    """What annotations of a module may name: its globals, and what it imports or defines ``if TYPE_CHECKING``.

    That is looked up when it is asked for: some of it would load TensorFlow.
    """

    def __init__(self, module):
        super().__init__(vars(builtins) | vars(import_module(module)))
        self.only_types = {}
        for block in ast.parse(inspect.getsource(import_module(module))).body:
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
                for line in block.body:
                    self.only_types |= dict.fromkeys(_bound(line), line)

    def __missing__(self, name):
        line = self.only_types[name]
        if isinstance(line, ast.ImportFrom) and line.module.startswith("featstore"):
            (original,) = (alias.name for alias in line.names if name in {alias.name, alias.asname})
            try:
                self[name] = scope(line.module)[original]
            except KeyError:
                module = import_module(line.module)
                lazily = original in getattr(
                    module, "__all__", ()
                )  # a package that loads its names when asked
                self[name] = (
                    getattr(module, original) if lazily else import_module(f"{line.module}.{original}")
                )
        elif isinstance(line, ast.Assign | ast.AnnAssign):
            self[name] = eval(ast.unparse(line.value), {}, self)  # noqa: S307  # our own source
        else:
            exec(ast.unparse(line), {}, self)  # noqa: S102
        return self[name]


def _bound(line):
    """Names that an import or an assignment gives."""
    if isinstance(line, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in line.names]
    return [name.id for name in (line.targets if isinstance(line, ast.Assign) else [line.target])]


@functools.cache
def scope(module):
    return Scope(module)


def classes(hint, module):
    """Featstore's classes that a hint names, however deep."""
    if isinstance(hint, typing.ForwardRef):
        hint = hint.__forward_arg__
    if isinstance(hint, str):
        hint = eval(hint, {}, scope(module))  # noqa: S307  # our own annotations
    if isinstance(hint, list | tuple):
        return {found for each in hint for found in classes(each, module)}
    if typing.get_origin(hint) is typing.Literal:
        return set()
    inner = {found for each in typing.get_args(hint) for found in classes(each, module)}
    named = typing.get_origin(hint) or hint
    return inner | ({named} if inspect.isclass(named) and _is_ours(named) else set())


def _is_ours(kind):
    """Whether one of our modules defines it under its name; what is made of another class's fields has none."""
    return kind.__module__.startswith("featstore") and hasattr(
        import_module(kind.__module__), kind.__qualname__
    )


def of_function(function):
    """Classes that a function takes or returns, each with the name of the parameter."""
    for name, hint in inspect.get_annotations(function).items():
        for found in classes(hint, function.__module__):
            yield found, f"{function.__qualname__}({name})"


def of_class(owner):
    """Classes that the public fields, properties and methods of a class take or return."""
    for name, hint in inspect.get_annotations(owner).items():
        if not name.startswith("_"):
            for found in classes(hint, owner.__module__):
                yield found, f"{owner.__qualname__}.{name}"
    for name, member in vars(owner).items():
        if not name.startswith("_") and (function := _function(member)):
            yield from of_function(function)
    for base in owner.__mro__[1:]:
        if base.__module__.startswith("featstore"):
            yield base, f"{owner.__qualname__}, which is one"


def _function(member):
    if isinstance(member, property):
        member = member.fget
    elif isinstance(member, functools.cached_property):
        member = member.func
    elif isinstance(member, classmethod | staticmethod):
        member = member.__func__
    return member if inspect.isfunction(member) else None


def reachable(things):
    """Every class of featstore that using these functions and classes meets, with the place where it is first met."""
    met, left = {}, [(thing, "is public") for thing in things]
    while left:
        thing, why = left.pop(0)
        if thing in met:
            continue
        met[thing] = why
        left += of_class(thing) if inspect.isclass(thing) else of_function(thing)
    return {thing: why for thing, why in met.items() if inspect.isclass(thing)}
