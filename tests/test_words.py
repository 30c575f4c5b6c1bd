"""The field's own words: none of the private names that the house once had comes back, in code, in docs or in help.

What is on disk keeps its names: a text in small letters without a space is a key, a file name or a code, and is not
looked at.
"""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest
import typer
from featstore_cli.main import app

ROOT = Path(__file__).resolve().parents[1]
IN_BOTH = {
    "acquainted": "seen_or_same_group",
    "arena": "design",
    "bargain": "Pareto point",
    "bargains": "Pareto points",
    "believes": "reads, trusts",
    "contestant": "candidate",
    "contestants": "candidates",
    "crew": "choose_workers, WorkerChoice",
    "duel": "pairwise test, PairwiseDifference",
    "duels": "pairwise tests",
    "elect": "majority",
    "fielded": "fitted",
    "gentler": "FINE_TUNE_FACTOR",
    "guarded": "corrected for selection bias",
    "innocence": "leakage",
    "innocent": "others",
    "inscribe": "write_to_weights",
    "inscription": "read_from_weights",
    "kin": "check_compatible",
    "kinship": "check_compatible",
    "ledger": "prediction cache, ParameterVector",
    "lessons": "training batches",
    "lineup": "candidates",
    "metered": "TimedBackbone",
    "regimen": "TrainingConfig",
    "shelf": "FileCache",
    "sitter": "sample image",
    "sitters": "sample images",
    "solitude": "require_exclusive",
    "standings": "scored candidates",
    "tally": "PassStats",
    "tournament": "cross-validation",
    "turnstile": "ReservingSink",
    "twin": "figure of the paper",
    "wish": "request",
    "wishes": "requests",
    "workshop": "_LayerRebuilder",
    "worksheet": "checklists",
}
IN_NAMES = {
    "halving": "BackoffBackbone",
    "likest": "nearest neighbours",
    "plate": "SavedFigure",
    "plates": "SavedFigure",
    "portion": "effective_batch_size, WorkUnit",
    "portions": "work units",
    "standing": "CandidateScores",
    "twins": "RecordedFigure",
}
IN_PROSE = {"line-up": "candidates"}
PEOPLE = {
    "the ill": "the positive class, patients with the disease, cases",
    "the well": "the others, patients without it, controls",
}
"""Patients are called as a radiology journal calls them."""
ALLOWED = {
    # Caruana, Niculescu-Mizil, Crew & Ksikes 2004.
    ("featstore/fusion/strategies/ensemble_selection.py", "crew"),
    # MALLOC_ARENA_MAX is glibc's word.
    ("featstore/isolated_reading.py", "arena"),
    # The column of predictions.csv, by which pandas asks.
    ("examples/explore.py", "contestant"),
}
"""(file or folder, word): exceptions, each with its reason above."""

ROOMS = ("featstore", "cli", "benchmarks", "examples")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
TEMPLATES = sorted((ROOT / "featstore").rglob("templates/*.html"))
CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def is_allowed(path, word):
    return any(word == known and f"{path}/".startswith(f"{where}/") for where, known in ALLOWED)


def in_names(name):
    """Private words that a name has as parts: ``line_up``, ``MyArena``."""
    return [part for part in map(str.lower, CAMEL.findall(name)) if part in IN_BOTH or part in IN_NAMES]


def in_prose(text):
    """Private words of a text; what stands between backticks or in a code block is a name or a key."""
    text = re.sub(r"``.*?``|`[^`\n]*`", " ", text, flags=re.DOTALL)
    words = re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", text.lower())
    parts = [part for word in words for part in {word, *word.split("-")}]
    people = re.findall(r"\bthe (?:ill|well)\b(?!-)", " ".join(text.lower().split()))
    return [word for word in parts if word in IN_BOTH or word in IN_PROSE] + people


def names_of(tree):
    """All names that a module gives to something."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def texts_of(source, tree):
    """Comments, docstrings and texts for people."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and is_text(node.value):
            yield node.lineno, node.value


def is_text(value):
    """Whether it is for people: it has a space (a part of a longer text at its ends), or begins like a heading."""
    return " " in value or value[:1].isupper()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_code_speaks_the_words_of_the_field(path):
    source, place = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
    tree = ast.parse(source)
    found = [(place, 0, word) for word in in_names(path.stem)]
    found += [(place, line, word) for line, name in names_of(tree) for word in in_names(name)]
    found += [(place, line, word) for line, text in texts_of(source, tree) for word in in_prose(text)]
    found = [(where, line, word) for where, line, word in found if not is_allowed(where, word)]
    assert not found, [f"{where}:{line}: {word}: say {say(word)}" for where, line, word in found]


@pytest.mark.parametrize("path", [*PAGES, *TEMPLATES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pages_speak_the_words_of_the_field(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    place = path.relative_to(ROOT).as_posix()
    prose = re.sub(r"\]\([^)]*\)|<[^>]*>|\{[{%].*?[%}]\}", " ", text)
    found = [word for word in in_prose(prose) if not is_allowed(place, word)]
    assert not found, [f"{word}: say {say(word)}" for word in found]


def test_help_speaks_the_words_of_the_field():
    def helps(command):
        yield command.help or ""
        for parameter in command.params:
            yield getattr(parameter, "help", "") or ""
        for below in getattr(command, "commands", {}).values():
            yield from helps(below)

    assert not [word for text in helps(typer.main.get_command(app)) for word in in_prose(text)]


def test_the_lists_are_looked_at():
    assert in_names("line_up_of_Contestants") == ["contestants"]
    assert in_names("MyArena") == ["arena"]
    assert in_prose("In the order of the line-up, `contestants` first.") == ["line-up"]
    assert in_prose("What contestants wish.") == ["contestants", "wish"]
    assert in_prose("Of the\nill, and the well-known.") == ["the ill"]
    said = 'table(f"All {n} contestants, {m}", ("Contestant", "contestant"))'
    found = [word for _, text in texts_of(said, ast.parse(said)) for word in in_prose(text)]
    assert sorted(found) == ["contestant", "contestants"], "a heading and a part of a text, and no key"


def say(word):
    return {**IN_BOTH, **IN_NAMES, **IN_PROSE, **PEOPLE}[word]
