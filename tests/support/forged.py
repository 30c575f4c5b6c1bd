"""Forged caches: links, names, sizes, kinds and owners that featstore never made, and surroundings that must stay."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shutil
import socket
from pathlib import Path

import kill
import numpy as np
from fakes import DECODING, key

from featstore.api.cache import compact, gc, inventory, usage, verify
from featstore.errors import FeatstoreError
from featstore.image_facts import FACT
from featstore.serialization import digest
from featstore.store import leases as solitude
from featstore.store import notes as facts
from featstore.store import notes as layouts
from featstore.store import notes as rates
from featstore.store import notes as request
from featstore.store import notes as results
from featstore.store import training_record as learned
from featstore.store.leases import LeaseRecord, Leases, Owner
from featstore.store.leases import encode_claim as encode
from featstore.store.notes import BadImage
from featstore.store.shard import IdSet
from featstore.store.store import Store
from featstore.types import IDENTITY, View

IDS = [digest(number) for number in range(12)]
KEYS = [key(), key(view=View("flip(h)", 1))]
MACHINE = "4-cores-0123abcd"
OWN = [f"{'ab' * 16}.json", *(f"{'ab' * 32}{end}" for end in (".json", ".ids", ".rows", ".h5"))]
BAIT = ("run.json", "backbone.json", "learned.json", ".tmp-0123456789abcdef", *OWN)
"""Names of files outside; most would be featstore's own in a cache."""
ODD = [
    "x" * 250,
    "a\nb",
    "\x1b[2J",
    "seed-abc",
    "seed-" + "9" * 200,
    "é\udcff",
    " ",
    "-rf",
    "..x",
    "Alpha@0123abcd",
    "*",
]
NAMES = (
    *ODD,
    f"{'cd' * 32}.h5",
    f"{'cd' * 32}.ids",
    f"{'cd' * 16}.json",
    ".tmp-0123456789abcdef",
    "backbone.json",
)


def fill(root):
    """A cache with a file of every kind, and the lease of a machine that is no more."""
    store = Store(root)
    weights = key().backbone.weights
    learned.save_training_record(
        root, key().backbone, learned.TrainingRecord(weights, frozenset(IDS), frozenset())
    )
    for each, part in ((KEYS[0], IDS[:5]), (KEYS[0], IDS[5:]), (KEYS[1], IDS)):
        store.write(each, part, np.ones((len(part), 12), np.float32))
    store.flush()
    store.record_bad_image(DECODING, BadImage("ab" * 32, "truncated", "8 bytes are missing"))
    facts.record_facts(root, DECODING, 1, np.zeros(3, FACT))
    facts.record_copies(root, {"a": 1}, facts.CopiesNote([]))
    rates.record_timing(root, MACHINE, key().backbone, rates.BackboneTiming(1.0, 2.0))
    layouts.record_worker_speeds(root, MACHINE, "Alpha", "float32", {1: 2.0})
    results.record_result(root, {"a": 1}, [np.full((2, 2), 0.5)])
    results.record_look(root, IDS, results.Look("2026-11-28T12:00:00+00:00", "compare"))
    request.record_request(root, IDS, DECODING, request.ExtractionRequest((key().backbone,), (IDENTITY,)))
    store.write(key(), IDS[:1], np.ones((1, 12), np.float32)).write_bytes(b"rotten")
    verify(root, repair=True)
    claim = LeaseRecord(
        "ef" * 16, "theirs", Owner("elsewhere", 1, 1), "2026", {digest(key().to_json()): IdSet.of(IDS)}
    )
    (root / "leases").mkdir(exist_ok=True)
    (root / "leases" / f"{claim.token}.json").write_bytes(encode(claim))


def surroundings(folder):
    """Everything below a folder: kind, rights, owner, size, time, content or target."""
    found = {}
    for path in sorted(folder.rglob("*")):
        state = path.lstat()
        what = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None  # noqa: PTH115
        found[path] = state.st_mode, state.st_uid, state.st_gid, state.st_size, state.st_mtime_ns, what
    return found


def clear_way(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link(path, draw, outside):
    """To a folder or a file outside, upwards, into itself, to nowhere or to a device."""
    kind = "a linked folder" if path.is_dir() else "a linked file"
    within = sorted(outside.iterdir())
    target = draw.choice([outside, outside, *within, "..", "../..", path.name, "nowhere", "/dev/zero", "/"])
    clear_way(path)
    path.symlink_to(target)
    return kind


def moved(path, draw, outside):
    """The thing itself lies outside, and a link in its place."""
    target = outside / f"moved-{draw.randrange(10**9)}"
    path.rename(target)
    path.symlink_to(os.path.relpath(target, path.parent) if draw.random() < 0.5 else target)
    return "moved away behind a link"


def hard_link(path, draw, outside):
    """A file outside has an own name in the cache, too."""
    if path.is_dir():
        path = path / draw.choice(BAIT)
    clear_way(path)
    os.link(draw.choice([each for each in outside.iterdir() if each.is_file()]), path)
    return "a hard link to a file outside"


def rename(path, draw, outside):
    path.rename(path.with_name(draw.choice(NAMES)))
    return "a strange name"


def plant(path, draw, outside):
    """A file or folder of some name where it does not belong."""
    folder = path if path.is_dir() else path.parent
    new = folder / draw.choice([*NAMES, *BAIT])
    if draw.random() < 0.3:
        new.mkdir(exist_ok=True)
    elif not new.exists():
        new.write_bytes(draw.choice([b"", b"{}", b"[" * 5000, b'{"a":1e999}', draw.randbytes(300)]))
    return "a file that does not belong there"


def size(path, draw, outside):
    files = (
        [each for each in path.rglob("*") if each.is_file() and not each.is_symlink()]
        if path.is_dir()
        else [path]
    )
    for each in files[:3]:
        if each.stat().st_nlink == 1:
            os.truncate(each, draw.choice([0, 1, 100, each.stat().st_size - 1, 1 << 20, 3 << 30, 1 << 40]))
    return "a false size"


def kind(path, draw, outside):
    """A folder for a file, a file for a folder, a pipe or a socket for either."""
    was_folder = path.is_dir()
    clear_way(path)
    what = draw.choice(["pipe", "socket", "other"])
    if what == "pipe":
        os.mkfifo(path)
    elif what == "socket" and len(str(path)) < 100:
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(str(path))
    elif was_folder:
        path.write_text("no folder")
    else:
        path.mkdir()
    return "a thing of another kind"


def owner(path, draw, outside):
    """As far as rights allow: somebody else's, or closed."""
    if path.is_symlink() or path.lstat().st_nlink > 1 + path.is_dir() * 100:
        return "an owner"
    if os.geteuid() == 0:
        os.chown(path, draw.choice([0, 12345]), draw.choice([0, 12345]))
    path.chmod(draw.choice([0o000, 0o400, 0o777, 0o755]) if path.is_dir() else draw.choice([0, 0o666]))
    return "a false owner or rights"


def deep(path, draw, outside):
    folder = path if path.is_dir() else path.parent
    (folder / "/".join(["d"] * draw.choice([8, 40, 40, 40, 40, 40, 40, 900]))).mkdir(
        parents=True, exist_ok=True
    )
    return "deep folders"


FORGERIES = (link, link, moved, moved, hard_link, rename, rename, plant, size, kind, owner, deep)


def forge(root, draw, outside):
    """Change a few things of a cache; the kinds of what was done."""
    done = []
    for _ in range(draw.choice([1, 1, 2, 4])):
        there = [path for path in sorted(root.rglob("*")) if len(path.parts) - len(root.parts) < 6]
        if there:
            with contextlib.suppress(OSError):
                done.append(draw.choice(FORGERIES)(draw.choice(there), draw, outside))
    return done


def extract_by_hand(root):
    """What an extraction does to a cache, without images."""
    store = Store(root)
    with Leases(root) as leases, leases.acquire({key(): IdSet.of(IDS)}):
        store.stored(KEYS)
        store.bad_images(DECODING)
        store.write(key(), IDS[3:9], np.ones((6, 12), np.float32))
        store.record_bad_image(DECODING, BadImage("cd" * 32, "truncated", "8 bytes are missing"))
        store.flush()
        learned.load_training_record(root, key().backbone)
        rates.recorded_timings(root, MACHINE)
        rates.record_timing(root, MACHINE, key().backbone, rates.BackboneTiming(1.0, 2.0))
        layouts.recorded_worker_speeds(root, MACHINE, "Alpha", "float32")
        layouts.record_worker_speeds(root, MACHINE, "Alpha", "float32", {1: 2.0})
        request.recorded_request(root, IDS, DECODING)
        facts.recorded_facts(root, DECODING, 1, FACT)
        facts.recorded_copies(root, {"a": 1})
        results.recorded_result(root, {"a": 1}, [(2, 2)])
        results.record_result(root, {"b": 1}, [np.full((2, 2), 0.5)])
        store.read(key(), IDS)


COMMANDS = (
    verify,
    inventory,
    lambda root: usage(root, by="view"),
    extract_by_hand,
    lambda root: gc(cache=root),
    compact,
    lambda root: verify(root, repair=True),
)


def caches(folder, count, seed):
    """Forge a cache, let every command at it, and compare its surroundings; yields what was forged and refused."""
    Leases.__init__.__kwdefaults__["expiry"], solitude.POLL = 0.05, 0.01
    facts.SEGMENTS = 0
    os.fsync = lambda _: None  # what lasts is not asked here
    logging.disable()
    whole = Path(folder) / "whole"
    fill(whole)
    images = kill.pictures(Path(folder) / "images", 3)
    for number in range(count):
        draw = random.Random(seed * 100_003 + number)
        world = Path(folder) / f"world {number}"
        outside, root = world / "outside", world / "cache"
        outside.mkdir(parents=True)
        for name in BAIT:
            (outside / name).write_text(f"precious {name}")
        (outside / "features").mkdir()
        (outside / "features" / BAIT[0]).write_text("precious")
        shutil.copytree(whole, root)
        done = forge(root, draw, outside)
        before = surroundings(outside)
        commands = [*COMMANDS]
        if number % 20 == 0:
            commands += [
                lambda root: verify(root, fast=True),
                extract_by_hand,
                lambda root: kill.extract(images, root),
            ]
        refused, causes = 0, []
        for command in commands:
            try:
                command(root)
            except FeatstoreError as error:
                refused += 1
                causes.append(error.cause)
        after = surroundings(outside)
        assert after == before, (number, done, set(before.items()) ^ set(after.items()))
        assert sorted(path.name for path in world.iterdir()) == ["cache", "outside"], (number, done)
        _open(root)
        shutil.rmtree(world)
        assert not [cause for cause in causes if "\n" in cause.replace("a\nb", "")]
        yield done, refused


def _open(root):
    """Let everything be deleted again; root needs no rights."""
    for folder, inner, _ in os.walk(root) if os.geteuid() else ():
        for name in inner:
            if not Path(folder, name).is_symlink():
                Path(folder, name).chmod(0o755)
