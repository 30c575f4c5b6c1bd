"""Nobody leads featstore out of its cache: no link is entered, nothing of others is deleted, rights are one rule."""

import ast
import contextlib
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from fakes import DECODING, key
from unprivileged import ROOT_USER, without_rights

from featstore.api.cache import compact, gc, inventory, usage, verify
from featstore.errors import MissingFeaturesError, StoreError
from featstore.image_facts import FACT
from featstore.serialization import digest
from featstore.store import notes as facts
from featstore.store import notes as layouts
from featstore.store import notes as results
from featstore.store import paths as rooms
from featstore.store import training_record as learned
from featstore.store.leases import Leases
from featstore.store.notes import BackboneTiming, BadImage, ExtractionRequest, record_request, record_timing
from featstore.store.shard import IdSet
from featstore.store.store import Store
from featstore.types import IDENTITY

ROOT = Path(__file__).parents[2]
IDS = [digest(number) for number in range(12)]
MACHINE = "4-cores-0123abcd"


def rows(ids):
    return np.array([[int(i[:4], 16) + d for d in range(12)] for i in ids], np.float32)


def fill(root):
    """A cache with a file of every kind; the lease alone ends with its owner."""
    store = Store(root)
    learned.save_training_record(
        root, key().backbone, learned.TrainingRecord(key().backbone.weights, frozenset(IDS), frozenset())
    )
    for part in (IDS[:6], IDS[6:]):
        store.write(key(), part, rows(part))
    store.flush()
    store.record_bad_image(DECODING, BadImage("ab" * 32, "truncated", "8 bytes are missing"))
    facts.record_facts(root, DECODING, 1, np.zeros(3, FACT))
    facts.record_copies(root, {"a": 1}, facts.CopiesNote([]))
    record_timing(root, MACHINE, key().backbone, BackboneTiming(1.0, 2.0))
    layouts.record_worker_speeds(root, MACHINE, "Alpha", "float32", {1: 2.0})
    results.record_result(root, {"a": 1}, [np.full((2, 2), 0.5)])
    results.record_look(root, IDS, results.Look("2026-11-28T12:00:00+00:00", "compare"))
    record_request(root, IDS, DECODING, ExtractionRequest((key().backbone,), (IDENTITY,)))
    bad = store.write(key(), IDS[:1], rows(IDS[:1]))
    bad.write_bytes(b"rotten")
    verify(root, repair=True)
    return store


@pytest.fixture
def cache(tmp_path):
    return fill(tmp_path / "cache").root


def folders(root):
    return sorted(path.relative_to(root) for path in root.rglob("*") if path.is_dir())


def manifest(folder):
    """Everything in a folder: kind, rights, size, time and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        state = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        found[path] = state.st_mode, state.st_uid, state.st_mtime_ns, content
    return found


def test_the_fixture_has_a_file_of_every_kind(cache):
    with Leases(cache) as leases, leases.acquire({key(): IdSet.of(IDS)}):
        files = [path for path in cache.rglob("*") if path.is_file()]
        assert {rooms.kind_of(cache, path) for path in files} == set(rooms.FILES)
    assert verify(cache).strangers == ()


COMMANDS = {
    "ls": inventory,
    "du": usage,
    "verify": verify,
    "repair": lambda root: verify(root, repair=True),
    "gc": lambda root: gc(cache=root),
    "compact": compact,
    "plan and write": lambda root: everything_that_extraction_does(Store(root)),
}


def outcome(run, root):
    """Cause of what it is refused with, or nothing."""
    try:
        run(root)
    except StoreError as error:
        return error.cause
    return ""


def everything_that_extraction_does(store):
    with Leases(store.root) as leases, leases.acquire({key(): IdSet.of(IDS)}):
        store.stored([key()])
        store.bad_images(DECODING)
        store.write(key(), IDS[3:9], rows(IDS[3:9]))
        store.record_bad_image(DECODING, BadImage("cd" * 32, "truncated", "8 bytes are missing"))
        store.flush()
        with contextlib.suppress(MissingFeaturesError):  # where a shard had to be set aside
            store.read(key(), IDS)
        facts.recorded_facts(store.root, DECODING, 1, FACT)
        store.refresh_index()


@pytest.mark.parametrize("command", COMMANDS)
def test_no_folder_of_a_cache_is_entered_through_a_link(tmp_path, cache, monkeypatch, command):
    """Each folder in its turn stands elsewhere, with own names and others, and a link in its place."""
    monkeypatch.setattr(facts, "SEGMENTS", 0)
    names = folders(cache)
    assert len(names) > 12
    for number, name in enumerate(names):
        root, outside = tmp_path / str(number) / "cache", tmp_path / str(number) / "outside"
        shutil.copytree(cache, root)
        (root / name).rename(outside)
        for bait in ("results.json", f"{'ab' * 16}.json", f"{'ab' * 32}.ids", ".tmp-0123456789abcdef"):
            (outside / bait).write_text("precious")
        (root / name).symlink_to(os.path.relpath(outside, (root / name).parent))
        before = manifest(outside)
        refused = outcome(COMMANDS[command], root)
        assert manifest(outside) == before, name
        assert (f"{root / name} is a link" in refused) or (
            refused == "" and command not in {"verify", "repair", "gc"}
        )


@pytest.mark.parametrize("command", ["verify", "repair", "plan and write"])
def test_a_link_in_the_place_of_a_file_is_never_read_nor_written_through(tmp_path, cache, command):
    """Every own file in its turn lies elsewhere, and a link in its place."""
    files = sorted(path.relative_to(cache) for path in cache.rglob("*") if path.is_file())
    for number, name in enumerate(files):
        root, outside = tmp_path / str(number) / "cache", tmp_path / str(number) / "outside"
        shutil.copytree(cache, root)
        outside.mkdir()
        (root / name).rename(outside / name.name)
        (root / name).symlink_to(outside / name.name)
        before = manifest(outside)
        refused = outcome(COMMANDS[command], root)
        assert refused == "" or name.name in refused
        assert manifest(outside) == before, name
        if command == "verify" and rooms.kind_of(cache, cache / name) != "quarantined":
            assert [path for path, _ in verify(root).bad] == [str(root / name)]


def test_the_cache_itself_may_be_a_link_or_lie_behind_one(tmp_path, cache):
    (tmp_path / "link").symlink_to(cache)
    (tmp_path / "behind").symlink_to(tmp_path)
    for root in (tmp_path / "link", tmp_path / "behind" / "cache"):
        everything_that_extraction_does(Store(root))
        assert verify(root).bad == ()
        compact(root)
        assert len(inventory(root)) == 1
        assert gc(cache=root).garbage == ()


def test_gc_deletes_no_unfinished_file_but_those_of_featstore_in_its_own_rooms(cache):
    """Not whatever begins alike, and not below folders of others."""
    own = [
        cache / ".tmp-0123456789abcdef",
        cache / "leases" / ".tmp-0123456789abcdef",
        next(cache.glob("features/*")) / ".tmp-01234567-learned.json",
    ]
    (cache / "leases").mkdir(exist_ok=True)
    theirs = [
        cache / ".tmp-my-only-draft.docx",
        cache / ".tmp-0123456789abcdef.docx",
        cache / "thesis" / ".tmp-0123456789abcdef",
        cache / "features" / "thesis" / ".tmp-0123456789abcdef",
        cache / "quarantine" / "mine" / ".tmp-0123456789abcdef",
        cache / "leases" / ".tmp-01234567-learned.json",
        cache / "leases" / "run.json",
        cache / "index" / "mine.ids",
        cache / "facts" / "0123abcd" / "mine.rows",
        cache / "quarantine" / "images" / "0123abcd" / "metrics.json",
    ]
    for path in (*own, *theirs):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")
    left = gc(cache=cache).garbage
    assert {Path(item.path) for item in left} == set(own)
    everything_that_extraction_does(Store(cache))
    compact(cache)
    verify(cache, repair=True)
    assert [path.read_text() for path in theirs] == ["precious"] * len(theirs)
    assert not any(path.exists() for path in own)


def test_nothing_but_own_names_can_be_deleted_or_replaced(cache):
    shard = next(cache.glob("features/*/*/*/*.h5"))
    for name in ("run.json", "leases/run.json", "features", "features/a/b.h5", "../cache/x", ""):
        with pytest.raises((StoreError, ValueError)):
            rooms.unlink(cache, cache / name)
        with pytest.raises((StoreError, ValueError)):
            rooms.rename(cache, shard, cache / name)
    assert shard.exists()
    assert not rooms.remove_empty(cache, cache / "quarantine")
    (cache / "mine").mkdir()
    assert not rooms.remove_empty(cache, cache / "mine")


NO_CACHE = {
    "nothing": (lambda _: None, "There is no cache"),
    "a file": (lambda root: root.write_text("x"), "is no folder"),
    "a dangling link": (lambda root: root.symlink_to("nowhere"), "There is no cache"),
    "an empty folder": (lambda root: root.mkdir(), "is no cache"),
    "a thesis": (lambda root: (root / "thesis").mkdir(parents=True), "is no cache"),
    "results of somebody else": (lambda root: write(root / "results" / "table.csv"), "is no cache"),
    "features of somebody else": (lambda root: write(root / "features" / "age" / "x.h5"), "is no cache"),
    "templates": (lambda root: write(root / "layouts" / "page" / "menu.json"), "is no cache"),
    "a file called index": (lambda root: write(root / "index"), "is no cache"),
}
LOOKS = {name: run for name, run in COMMANDS.items() if name != "plan and write"}


def write(path):
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    (path.parent / ".tmp-0123456789abcdef").write_text("mine")


@pytest.mark.parametrize("what", NO_CACHE)
def test_what_is_no_cache_is_refused_by_every_command_and_not_touched(tmp_path, what):
    make, words = NO_CACHE[what]
    root = tmp_path / "cache"
    make(root)
    before = manifest(tmp_path)
    for run in LOOKS.values():
        with pytest.raises(StoreError, match=words) as caught:
            run(root)
        assert (caught.value.exit_code, str(root) in caught.value.cause) == (4, True)
    assert manifest(tmp_path) == before


@pytest.mark.usefixtures("in_this_process")
def test_a_cache_that_cannot_be_read_is_no_empty_one(open_folder):
    root = fill(open_folder / "cache").root
    (root / "leases").mkdir(exist_ok=True)
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    imported = fill(open_folder / "another").root  # so that nothing is imported once rights are given up
    for run in LOOKS.values():
        run(imported)
    closed = [".", *folders(root)]
    for name in closed:
        (root / name).chmod(0)
        for command, run in LOOKS.items():
            with without_rights():
                refused = outcome(run, root)
            writing = command == "compact" and "Cannot write" in refused
            looked = command in {"ls", "du", "compact"} and refused == "" and "features" not in str(name)
            assert str(root / name) in refused or writing or looked, (name, command, refused)
        (root / name).chmod(0o755)


@pytest.mark.usefixtures("in_this_process")
def test_a_shard_that_cannot_be_read_is_named(open_folder):
    root = fill(open_folder / "cache").root
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    shard = next(root.glob("features/*/*/*/*.h5"))
    shard.chmod(0)
    with without_rights():
        ((path, cause),) = verify(root).bad
        with pytest.raises(StoreError, match=shard.name):
            Store(root).read(key(), IDS)
    assert (path, "Permission denied" in cause) == (str(shard), True)


@pytest.mark.skipif(not ROOT_USER, reason="only root can give files away")
def test_nothing_is_written_into_the_folder_of_somebody_who_could_not_have_made_it(cache):
    os.chown(cache / "results", 12345, -1)
    results.record_result(cache, {"b": 2}, [np.full((2, 2), 0.5)])
    assert results.recorded_result(cache, {"b": 2}, [(2, 2)]) is None
    cache.chmod(0o770)  # shared: any of the group may have made it
    results.record_result(cache, {"b": 2}, [np.full((2, 2), 0.5)])
    assert results.recorded_result(cache, {"b": 2}, [(2, 2)]) is not None


def modes(root):
    return {stat.S_IMODE(p.lstat().st_mode) for p in root.rglob("*") if p.is_dir()}, {
        stat.S_IMODE(p.lstat().st_mode)
        for p in root.rglob("*")
        if p.is_file() and p.read_bytes() != b"rotten"
    }


@pytest.fixture(params=[0o022, 0o077, 0o000], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_new_cache_is_for_its_owner_alone(tmp_path, umask):
    root = fill(tmp_path / "made" / "on the way" / "cache").root
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert modes(root) == ({0o700}, {0o600})


@pytest.mark.parametrize(
    ("top", "folder", "file"),
    [
        (0o2770, 0o2770, 0o660),
        (0o770, 0o770, 0o660),
        (0o750, 0o750, 0o640),
        (0o755, 0o755, 0o644),
        (0o1777, 0o775, 0o664),
    ],
    ids=oct,
)
def test_who_shares_the_cache_folder_shares_all_in_it_whatever_the_umask(tmp_path, umask, top, folder, file):
    """One rule for every file and folder: the rights of the cache folder, and others never write."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(top)
    root = fill(tmp_path / "cache").root
    assert stat.S_IMODE(root.stat().st_mode) == top
    assert modes(root) == ({folder}, {file})


DELETES = {"unlink", "rmtree", "rmdir", "rename", "renames", "removedirs", "truncate", "move"}
OS_ONLY = {"remove", "replace"}
ELSEWHERE = {
    "featstore/serialization.py": (
        "write_private",
        "the one way in which files outside a cache are put in their place",
    ),
    "featstore/runs.py": ("clear sole_writer", "the run folder that --overwrite names, and its lock"),
    "featstore/api/finetune.py": ("_write", "the weights of the run folder that --overwrite names"),
    "featstore/api/convert.py": ("convert", "empty folders that it has just made, where nothing decoded"),
    "featstore/phantom/__init__.py": ("_write", "pictures of the demonstration"),
    "featstore/processes.py": (
        "_remove _remove_if_left _reserve _unnamed_memory",
        "memory that processes share, and its files in the folder for temporary ones",
    ),
}
"""File: function that deletes or replaces, and what; none of it lies in a cache."""


def nodes(tree, function=""):
    """Every node with the function it stands in."""
    for node in ast.iter_child_nodes(tree):
        inner = node.name if isinstance(node, ast.FunctionDef) else function
        yield inner, node
        yield from nodes(node, inner)


def deleting(node):
    """What a node could delete or replace files with: called, handed on, imported or looked up by name."""
    if isinstance(node, ast.Attribute):
        of = node.value.id if isinstance(node.value, ast.Name) else ""
        if (node.attr in DELETES and of != "paths") or (of in {"os", "shutil"} and node.attr in OS_ONLY):
            return node.attr
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "replace":
        one = len(node.args) == 1 and not node.keywords and not isinstance(node.args[0], ast.Starred)
        return "replace" if one else None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
        return next((a.value for a in node.args if isinstance(a, ast.Constant) and a.value in DELETES), None)
    if isinstance(node, ast.ImportFrom) and node.module in {"os", "shutil", "posix"}:
        return next((alias.name for alias in node.names if alias.name in DELETES | OS_ONLY), None)
    return None


@pytest.fixture(scope="module")
def sources():
    """Syntax tree of every file."""
    paths = [path for top in ("featstore", "cli") for path in sorted((ROOT / top).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in paths}


def test_one_module_deletes_and_replaces_in_a_cache_and_one_function_deletes(sources):
    found = {
        name: {(function, deleting(node)) for function, node in nodes(tree) if deleting(node)}
        for name, tree in sources.items()
    }
    inside = found.pop("featstore/store/paths.py")
    assert inside == {("unlink", "unlink"), ("rename", "rename"), ("remove_empty", "rmdir")}
    others = {name: {function for function, _ in calls} for name, calls in found.items() if calls}
    assert others == {name: set(functions.split()) for name, (functions, _) in ELSEWHERE.items()}


@pytest.mark.parametrize(
    "line",
    [
        "path.unlink()",
        "shutil.rmtree(path)",
        "os.remove(path)",
        "os.replace(a, b)",
        "draft.replace(path)",
        "draft.rename(path)",
        "list(map(Path.unlink, paths))",
        "getattr(path, 'unlink')()",
        "from os import remove as tidy",
    ],
)
def test_the_search_finds_every_way_to_delete_or_replace(line):
    assert any(deleting(node) for _, node in nodes(ast.parse(line)))


def test_the_search_takes_no_text_for_a_file():
    for line in (
        "text.replace('a', 'b')",
        "replace(entry, ids=ids)",
        "names.remove(name)",
        "paths.unlink(root, path)",
    ):
        assert not any(deleting(node) for _, node in nodes(ast.parse(line)))


OPENS = {"open", "os.open", "open_regular", "serialization.open_regular"}
LISTS = {
    "glob",
    "rglob",
    "iterdir",
    "scandir",
    "listdir",
    "walk",
    "mkdir",
    "makedirs",
    "touch",
    "stat",
    "exists",
}
LISTS |= {"is_file", "is_dir", "write_bytes", "write_text", "read_bytes", "read_text", "symlink_to", "chmod"}
OUTSIDE = {
    "shard.py": {"serialization.open_regular"},
    "leases.py": {"read_text"},
    "hdf5_guard.py": {"exists", "stat"},
}
"""What follows no link, and what lies in no cache: /proc, imports, weights, members of HDF5."""


def test_one_module_lists_makes_and_opens_in_a_cache(sources):
    """In the store nobody else lists, makes a folder or opens a file by itself: links would be followed."""
    wrong = set()
    for name, tree in sources.items():
        if not name.startswith("featstore/store/") or name == "featstore/store/paths.py":
            continue
        own = Path(name).name
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in LISTS and ast.unparse(node.value) != "paths":
                wrong.add((own, node.attr))
            if isinstance(node, ast.Call) and ast.unparse(node.func) in OPENS:
                wrong.add((own, ast.unparse(node.func)))
    assert wrong == {(name, each) for name, all_ in OUTSIDE.items() for each in all_}
