"""What the source can say to a user, and the commands that can say it: by the syntax trees, running nothing."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

ROOT = Path(__file__).parents[2]
PACKAGES = {"featstore": ROOT / "featstore", "featstore_cli": ROOT / "cli"}
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")
QUOTED = re.compile(r"`featstore ([^`]*)`")
BARE = re.compile(r"(?<![`\w-])featstore ([a-z]+)(?=( [a-z]+)?)")
CODE = re.compile(r"FS\d{3}")
"""Of a finding, wherever it stands: in a call or in a table of codes."""
UNKNOWN = "…"
"""Stands for what an f-string fills in."""


@dataclass
class Node:
    """A function with all inside it, a member of a class, or a constant of a module."""

    where: str
    line: int
    texts: list[tuple[int, str]] = field(default_factory=list)
    uses: set[str] = field(default_factory=set)
    """``module:name`` of what is used, as far as the imports of the module tell."""
    attributes: set[str] = field(default_factory=set)
    """Names behind a dot: members of whatever class has one."""


@dataclass
class Source:
    """All nodes of the packages, by ``module:name``."""

    nodes: dict[str, Node] = field(default_factory=dict)
    members: dict[str, dict[str, str]] = field(default_factory=dict)
    """Class to its members, as nodes."""
    modules: set[str] = field(default_factory=set)
    imports: dict[str, dict[str, str]] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    families: dict[str, set[str]] = field(default_factory=dict)

    def resolve(self, name: str) -> str:
        """Follow ``module:name`` to where it is defined."""
        for _ in range(8):
            module, _, own = name.partition(":")
            further = self.imports.get(module, {}).get(own)
            if name in self.nodes or further is None:
                break
            name = further
        return name

    def reach(self, roots: Iterable[str]) -> set[str]:
        """Nodes that can run from `roots`: names as imported, members by their name in any class that is used."""
        families = self._families()
        reached: set[str] = set()
        attributes: dict[str, set[str]] = {}
        todo = set(roots)
        while todo:
            reached |= todo
            for name in todo:
                for attribute in self.nodes[name].attributes:
                    attributes.setdefault(attribute, set()).add(name.partition(":")[0])
            used = {self.resolve(other) for name in todo for other in self.nodes[name].uses}
            for one in reached & self.members.keys():
                for own, member in self.members[one].items():
                    modules = attributes.get(own, set())
                    if own.startswith("__") or (modules & families[one] if own.startswith("_") else modules):
                        used.add(member)
            todo = (used & self.nodes.keys()) - reached
        return reached

    def _families(self) -> dict[str, set[str]]:
        """Modules of each class, of its bases and of the classes made from it: they know its private members."""
        if not self.families:
            found = {one: {one.partition(":")[0]} for one in self.members}
            for one in self.members:
                for base in map(self.resolve, self.nodes[one].uses):
                    found[one].add(base.partition(":")[0])
                    found.get(base, set()).add(one.partition(":")[0])
            self.families = found
        return self.families


def read(packages: Mapping[str, Path] = PACKAGES) -> Source:
    """Source of packages, given by name and folder."""
    trees = {}
    for package, folder in packages.items():
        for path in sorted(folder.rglob("*.py")):
            parts = (package, *path.relative_to(folder).with_suffix("").parts)
            trees[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text("utf-8"))
    return build(trees)


def build(trees: Mapping[str, ast.Module]) -> Source:
    """Source of syntax trees by module."""
    source = Source(modules=set(trees))
    for module, tree in trees.items():
        source.imports[module] = dict(_imports(module, tree, source.modules))
        for statement in tree.body:
            if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(
                statement.value, ast.Constant
            ):
                for name in _targets(statement):
                    source.constants[f"{module}:{name}"] = str(statement.value.value)
    for module, tree in trees.items():
        own = {name for statement in tree.body for name in _defined(statement)}
        for statement in tree.body:
            _add(source, module, own, statement)
    return source


def _imports(module: str, tree: ast.Module, modules: set[str]) -> Iterator[tuple[str, str]]:
    """Names that a module imports anywhere, and what they are; a module is ``name:``."""
    package = (
        module if any(other.startswith(f"{module}.") for other in modules) else module.rpartition(".")[0]
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (
                (alias.asname or alias.name.partition(".")[0], f"{alias.name}:") for alias in node.names
            )
        elif isinstance(node, ast.ImportFrom):
            above = package if node.level == 1 else ""
            origin = ".".join(part for part in (above, node.module or "") if part)
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                yield (
                    alias.asname or alias.name,
                    f"{inner}:" if inner in modules else f"{origin}:{alias.name}",
                )


def _targets(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.AnnAssign):
        return [statement.target.id] if isinstance(statement.target, ast.Name) else []
    if isinstance(statement, ast.Assign):
        return [n.id for target in statement.targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return []


def _defined(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    return _targets(statement)


def _add(source: Source, module: str, own: set[str], statement: ast.stmt) -> None:
    """Nodes of a statement of a module: of a class one more for each member, of the catalogue one for each code."""

    def node(name: str, parts: Iterable[ast.AST]) -> str:
        found = Node(f"{module}:{name}", statement.lineno)
        for part in parts:
            _Reader(source, module, own, found).visit(part)
        source.nodes[found.where] = found
        return found.where

    if isinstance(statement, ast.ClassDef):
        whole = node(statement.name, [*statement.bases, *statement.decorator_list])
        members = source.members.setdefault(whole, {})
        parts = [(name, part) for part in statement.body for name in _defined(part)]
        members.update({name: node(f"{statement.name}.{name}", [part]) for name, part in parts})
    elif _targets(statement) == ["CATALOGUE"] and isinstance(statement.value, ast.Dict):
        for key, value in zip(statement.value.keys, statement.value.values, strict=True):
            node(ast.literal_eval(key), [value])
    else:
        for name in _defined(statement):
            node(name, [statement])


class _Reader(ast.NodeVisitor):
    """Gathers the texts and the names of a node; annotations, docstrings and the help of options are none."""

    def __init__(self, source: Source, module: str, own: set[str], found: Node) -> None:
        self.source, self.module, self.own, self.found = source, module, own, found

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        arguments = node.args
        for part in (
            *node.decorator_list,
            *arguments.defaults,
            *filter(None, arguments.kw_defaults),
            *node.body,
        ):
            self.visit(part)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.target)
        if node.value is not None:
            self.visit(node.value)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        called = ast.unparse(node.func)
        if called in {"typer.Option", "typer.Argument"}:
            return
        if called == "getattr" and isinstance(node.args[1], ast.Constant):
            self.found.attributes.add(node.args[1].value)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in self.source.imports[self.module]:
            self.found.uses.add(self.source.imports[self.module][node.id])
        elif node.id in self.own:
            self.found.uses.add(f"{self.module}:{node.id}")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        origin = (
            self.source.imports[self.module].get(node.value.id, "")
            if isinstance(node.value, ast.Name)
            else ""
        )
        if origin.endswith(":"):
            self.found.uses.add(origin + node.attr)
        elif not origin or origin.partition(":")[0] in self.source.modules:
            self.found.attributes.add(node.attr)
        self.visit(node.value)

    def visit_Dict(self, node: ast.Dict) -> None:
        for part in (*filter(None, node.keys), *node.values):
            if part in node.values or not isinstance(part, ast.Constant):
                self.visit(part)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and CODE.fullmatch(node.value):
            self.found.uses.add(f"featstore.findings:{node.value}")
        elif isinstance(node.value, str):
            self.found.texts.append((node.lineno, node.value))
            inside = f"{node.value}." if "." in node.value else "nothing "
            below = (name for name in self.source.modules if name.startswith(inside))
            self.found.uses |= {
                f"{name}:{''.join(w.capitalize() for w in name.split('.')[-1].split('_'))}" for name in below
            }

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        text = "".join(
            part.value if isinstance(part, ast.Constant) else self._filled(part.value) for part in node.values
        )
        self.found.texts.append((node.lineno, text))
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.visit(part.value)

    def _filled(self, value: ast.expr) -> str:
        if not isinstance(value, ast.Name):
            return UNKNOWN
        name = self.source.imports[self.module].get(value.id, f"{self.module}:{value.id}")
        return self.source.constants.get(self.source.resolve(name), UNKNOWN)
