"""The documentation: it says what the commands say, its links lead somewhere, and the tutorial runs."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import featstore as package
from featstore import registry

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *(p for p in DOCS.rglob("*.md") if p.parent != DOCS / "api")])


def script(name):
    """A module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(page):
    """Names of a page's headings as a code host and the site make them."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ +(.+?) *$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page):
    """Targets of a page's links, those inside code left out."""
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", prose)


def test_every_command_has_a_page_that_says_what_its_help_says():
    """`make commands` writes them anew."""
    wanted = script("commands").pages()
    kept = {page.name: page.read_text() for page in (DOCS / "commands").glob("*.md")}
    assert set(kept) - {"index.md"} == set(wanted)
    assert [name for name, text in wanted.items() if kept[name] != text] == []


def test_every_command_that_works_on_something_shows_an_example():
    """The lists need none; an example is one that its command can read."""
    lists = {"backbones", "strategies", "recipes"}
    examples = {
        name: [
            " ".join(part.split())
            for part in context.get_help().split("\n\n")
            if f"Example: featstore {name} " in " ".join(part.split())
        ]
        for name, context in helps_in(78)
        if name not in lists
    }
    assert [name for name, found in examples.items() if len(found) != 1] == []
    for name, context in helps_in(78):
        known = {flag for parameter in context.command.params for flag in parameter.opts}
        flags = re.findall(r"--[a-z-]+", " ".join(examples.get(name, [])))
        assert set(flags) <= known, name


def helps_in(columns):
    """Every command with its context, as on a terminal of so many columns."""
    from featstore_cli.main import app
    from typer.main import get_command

    def below(command, context):
        for name, part in command.commands.items():
            own = part.context_class(part, parent=context, info_name=name, terminal_width=columns)
            if hasattr(part, "commands"):
                yield from ((f"{name} {leaf}", found) for leaf, found in below(part, own))
            else:
                yield name, own

    main = get_command(app)
    yield from below(main, main.make_context("featstore", [], resilient_parsing=True, terminal_width=columns))


@pytest.mark.parametrize("columns", [80, 120])
def test_a_long_help_has_its_options_under_headings_each_once(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    headings = ["Arguments", "Evaluation", "Training", "Networks", "Data", "Output", "More", "Options"]
    long = set()
    for name, context in helps_in(None):
        text = context.get_help()
        lines = text.splitlines()
        assert max(map(len, lines)) <= min(columns, 100), name
        shown = [line[:-1] for line in lines if re.fullmatch(r"[A-Z]\w+:", line)]
        assert shown == sorted(shown, key=headings.index), name
        listed = re.findall(r"^  (?:-h, )?(--[a-z][a-z-]*)", text, re.MULTILINE)
        options = [one for one in context.command.get_params(context) if one.param_type_name == "option"]
        own = [next(flag for flag in one.opts if flag.startswith("--")) for one in options]
        assert sorted(listed) == sorted(own), name
        arguments = [one for one in context.command.params[:2] if one.param_type_name == "argument"]
        written = [f"{one.metavar}{'...' * (one.nargs != 1)}" for one in arguments]
        places = [text.index(f"\n  {name} ") for name in written]
        assert places == sorted(places), name
        if "Options" not in shown:
            long.add(name)
            assert shown[-1] in {"More", "Output"}, name
    assert long >= {"extract", "fuse", "plan", "compare", "predict", "report", "paper", "finetune", "check"}


def test_a_help_names_arguments_and_values_as_the_docs_do():
    for name, context in helps_in(78):
        usage, _, rest = context.get_help().partition("\n")
        arguments = [one for one in context.command.params if one.param_type_name == "argument"]
        written = [f"{one.metavar}{'...' * (one.nargs != 1)}" for one in arguments]
        assert all(re.match(r"[A-Z]", one) for one in written), name
        shown = [
            one if argument.required else f"[{one}]" for one, argument in zip(written, arguments, strict=True)
        ]
        assert usage == " ".join([f"Usage: featstore {name} [OPTIONS]", *shown])
        assert not re.search(r"<(str|int|float|path|list)\b|\{\w+\}", rest), name


def test_no_command_is_cut_at_an_abbreviation_in_the_list_of_commands(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    command = [Path(sys.executable).with_name("featstore"), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"^  (\w+) +(\S.*)$", shown.partition("Commands:")[2], re.MULTILINE)
    assert len(listed) > 20
    assert [name for name, said in listed if re.search(r"\b(al|e\.g|i\.e|vs)\.$", said)] == []


def test_the_pages_say_what_a_terminal_of_80_columns_shows(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    command = [Path(sys.executable).with_name("featstore"), "cache", "drift", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"$ featstore cache drift --help\n{shown}```" in (DOCS / "commands" / "cache.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_documents_leads_somewhere(page):
    lost = []
    for link in links(page):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if target.is_relative_to(DOCS / "api"):
            continue  # written by Sphinx, which fails on a link to nowhere
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert lost == []


def test_the_reference_has_every_public_function_strategy_error_and_figure():
    from featstore import errors
    from featstore.fusion.strategy import FOLDER
    from featstore.registry import names
    from featstore.reporting import figures

    pages = script("reference").pages()
    assert {f"featstore.{name}" for name in package.__all__ if name.islower()} <= set(pages)
    described = "\n".join(pages.values())
    classes = [name for name in package.__all__ if not name.islower()]
    assert [
        name
        for name in classes
        if not re.search(rf"autoclass:: \S+\.{name}\n|autoexception:: \S+\.{name}\n", described)
    ] == []
    assert [name for name in package.__all__ if f"[{name}](" not in pages["index"]] == []
    text = pages["strategies"]
    assert [name for name in names(FOLDER) if f".{name}." not in text] == []
    assert [name for name in figures.__all__ if f".{name}\n" not in pages["figures"]] == []
    wrong = [
        n for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, errors.FeatstoreError)
    ]
    assert [name for name in wrong if f"errors.{name}\n" not in pages["errors"]] == []


def test_the_gallery_draws_every_figure():
    from featstore.reporting import figures

    drawn = (DOCS / "gallery.md").read_text()
    assert [name for name in figures.__all__ if name != "Picture" and f"figures.{name}(" not in drawn] == []


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_without_a_network(tmp_path):
    out = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-n",
        "-W",
        "--keep-going",
        "-d",
        tmp_path / "trees",
        DOCS,
        out,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    pages = list(out.rglob("*.html"))
    assert len(pages) > 50
    loaded = re.compile(r'<(?:script|img|link)\b[^>]*\b(?:src|href)="(?:https?:)?//')
    assert [page.name for page in pages if loaded.search(page.read_text())] == []


PATH = re.compile(r"(?<![\w/.~-])((?:featstore|cli|tests|docs|benchmarks|examples|\.ci)/[\w./*-]*[\w*/])")
NO_PATHS = {"featstore/trained", "featstore/validated", "benchmarks/NAME.py"}
"""Names of HDF5 attributes, and a placeholder."""


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.name != "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_path_of_this_repository_that_a_page_names_exists(page):
    """The changelog keeps the names of its time."""
    named = {path for path in PATH.findall(page.read_text()) if path not in NO_PATHS}
    assert [path for path in sorted(named) if not list(ROOT.glob(path))] == []


SHORT_PATH = re.compile(r"`([a-z_]+(?:/[a-z_]+)*/[a-z_]+\.py)")
"""A file by its room: ``store/shard.py``."""


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.name not in {"CHANGELOG.md", "security.md"}], ids=lambda page: page.name
)
def test_every_file_that_a_page_names_by_its_room_is_there(page):
    """The page on reliability and security names files of other projects."""
    named = SHORT_PATH.findall(page.read_text())
    roots = (ROOT, ROOT / "featstore", ROOT / "tests")
    assert [path for path in named if not any((root / path).exists() for root in roots)] == []


MODULE = re.compile(r"(?<![\w/.@-])(featstore(?:\.(?!__)[a-z_]\w*)+(?:\.[A-Z]\w*)?)(?![\w:/-]*\w)")
SOURCES = [*sorted((ROOT / "featstore").rglob("*.py")), *sorted((ROOT / "cli").rglob("*.py"))]
GROUPS = {f"featstore.{name.lower()}" for name in registry.LISTS}
"""Groups of entry points."""
FILES = {"featstore.toml"}
"""Names of files that look like modules: settings beside a data set."""


def is_there(dotted):
    """Whether it names a module, or what a module defines; nothing is imported."""
    if dotted in GROUPS | FILES:
        return True
    path, *rest = ROOT, *dotted.split(".")
    while rest and (path / rest[0] / "__init__.py").exists():
        path, *rest = path / rest[0], *rest[1:]
    if rest and (path / f"{rest[0]}.py").exists():
        path, *rest = path / f"{rest[0]}.py", *rest[1:]
    if not rest:
        return True
    if path.is_dir():
        # featstore says in its stub what it has
        names = "".join(file.read_text() for file in path.glob("__init__.py*"))
        return re.search(rf"\b{rest[0]}\b", names)
    return re.search(rf"^(?:def |class |){rest[0]}\b", path.read_text(), re.MULTILINE)


def test_every_dotted_name_in_texts_and_docstrings_is_there():
    texts = [*(page for page in PAGES if page.name != "CHANGELOG.md"), *SOURCES]
    named = ((path, name) for path in texts for name in MODULE.findall(path.read_text()))
    assert [(str(path.relative_to(ROOT)), name) for path, name in named if not is_there(name)] == []


def test_the_architecture_shows_the_floors_that_the_linter_holds():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    table = (DOCS / "architecture.md").read_text().partition("## The floors")[2]
    shown = [
        re.findall(r"`featstore/(\w+)", row.split(" | ")[0]) for row in table.splitlines() if row[:1] == "|"
    ]
    assert [set(floor) for floor in shown if floor] == [set(layer.split(" | ")) for layer in layers]
