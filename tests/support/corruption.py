"""Damage to files as disks, copies and people do it, and what must hold afterwards; runs in a child process."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from fakes import DECODING, RECIPE, GridBackbone, key, records, spec

from featstore import runs as run
from featstore.api.cache import verify
from featstore.errors import FeatstoreError, ManifestError, MissingFeaturesError, RunError
from featstore.extraction import pipeline as engine
from featstore.extraction import plan
from featstore.fusion.model_io import export_model, load_strategy, save_strategy
from featstore.fusion.strategies.concat_logreg import ConcatLogreg
from featstore.images.csv import list_csv
from featstore.store.notes import BackboneTiming, record_timing, recorded_timings
from featstore.store.store import Store
from featstore.types import IDENTITY, View, make_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SPECS = [spec("Alpha"), spec("Beta")]
KEYS = [key(s, v) for v in (IDENTITY, View(RECIPE, 1)) for s in SPECS]
SECTOR = 512
BLOCK = 4
AT_ONCE = 6


def _flip_bit(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _change_byte(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= rng.randrange(1, 256)


def _zero_sector(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(0, len(data), SECTOR)
    part = len(data[start : start + SECTOR])
    data[start : start + part] = bytes(part)


def _lose_sector(data: bytearray, rng: random.Random) -> None:
    """Another file's sector in the place of this one's."""
    start = rng.randrange(0, len(data), SECTOR)
    data[start : start + SECTOR] = rng.randbytes(len(data[start : start + SECTOR]))


def _truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _append(data: bytearray, rng: random.Random) -> None:
    data += rng.randbytes(rng.randrange(1, 2 * SECTOR))


DAMAGE = {
    "flipped bits": _flip_bit,
    "changed bytes": _change_byte,
    "zeroed sectors": _zero_sector,
    "overwritten sectors": _lose_sector,
    "truncations": _truncate,
    "appended bytes": _append,
}


def damage(path: Path, rng: random.Random) -> str:
    """Damage one file; its time of modification stays in every other case, as it does when a disk rots."""
    stat, before = path.stat(), path.read_bytes()
    after = bytearray(before)
    while after == before:
        kind = rng.choice(list(DAMAGE))
        DAMAGE[kind](after, rng)
    path.write_bytes(after)
    if rng.random() < 0.5:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return kind


def swap(one: Path, other: Path, rng: random.Random) -> str:
    """Exchange two files, by name or by content; nothing happens to files that are equal."""
    contents = one.read_bytes(), other.read_bytes()
    if contents[0] == contents[1]:
        return "swaps of equal files"
    if rng.random() < 0.5:
        aside = one.with_name("aside")
        one.rename(aside)
        other.rename(one)
        aside.rename(other)
        return "exchanged names"
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    return "exchanged contents"


class World:
    """A store of two backbones in two views, two bad images among fourteen, and all of it extracted once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.fsync = lambda _: None  # nobody pulls the plug here
        self.images = records(folder / "data", 14)
        for victim in list(self.images.values())[:2]:
            self._spoil(victim)
        self.cache = folder / "cache"
        self.extract()
        record_timing(self.cache, "4-cores-0123abcd", SPECS[0], BackboneTiming(0.5, 2.0))
        self.whole = self.rows()

    def _spoil(self, victim) -> None:
        data = victim.path.read_bytes()[:-30]
        victim.path.write_bytes(data)
        del self.images[victim.id]
        from featstore.serialization import digest_bytes

        found = {**asdict(victim), "id": digest_bytes(data)}
        self.images[found["id"]] = type(victim)(**found)

    def extract(self) -> engine.PassStats:
        store = Store(self.cache)
        todo = plan.plan(KEYS, sorted(self.images), store.stored(KEYS), store.bad_images(DECODING))
        backbones = {s: GridBackbone(s) for s in SPECS}
        stats = engine.run_pass(
            plan.image_blocks(todo, BLOCK), self.images, DECODING, backbones, store, engine.NullProgress()
        )
        store.flush()
        return stats

    def shards(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.files("features/**/*.h5")}

    def rows(self) -> dict[object, bytes]:
        """Every vector and every row of the quarantine table; how vectors are cut into shards does not count."""
        good = sorted(set(self.images) - set(Store(self.cache).bad_images(DECODING)))
        found: dict[object, bytes] = {k: Store(self.cache).read(k, good).tobytes() for k in KEYS}
        return found | {page.name: page.read_bytes() for page in self.files("quarantine/images/*/*.json")}

    def files(self, pattern: str) -> list[Path]:
        return sorted(self.cache.glob(pattern))

    def read(self) -> None:
        """What stage two does; it believes nothing, and says what is missing."""
        good = sorted(set(self.images) - set(Store(self.cache).bad_images(DECODING)))
        for wanted in KEYS:
            with suppress(MissingFeaturesError):
                Store(self.cache).read(wanted, good)


def _some(files: list[Path], rng: random.Random) -> Iterator[tuple[str, list[Path]]]:
    """Damage or exchange some of the files, none twice."""
    rng.shuffle(files)
    while files:
        if len(files) > 1 and rng.random() < 0.3:
            pair = [files.pop(), files.pop()]
            yield swap(*pair, rng), pair
        else:
            yield damage(files[-1], rng), [files.pop()]


def shards(world: World, rng: random.Random, rounds: int) -> Iterator[Counter[str]]:
    """Damaged shards are found by `verify`, and the next extraction brings back every byte."""
    for _ in range(rounds):
        before = world.shards()
        kinds = Counter(kind for kind, _ in _some(rng.sample(world.files("features/**/*.h5"), AT_ONCE), rng))
        changed = {name for name, data in world.shards().items() if before[name] != data}
        found = {path for path, _ in verify(world.cache).bad}
        assert found == changed, f"{kinds}: damaged {changed}, found {found}"
        world.read()
        world.extract()
        assert world.rows() == world.whole, kinds
        assert verify(world.cache).bad == ()
        shutil.rmtree(world.cache / "quarantine/shards", ignore_errors=True)
        yield kinds


def index(world: World, rng: random.Random, rounds: int) -> Iterator[Counter[str]]:
    """A damaged index changes nothing but time: nothing is computed, nothing is lost."""
    for _ in range(rounds):
        kinds = Counter(kind for kind, _ in _some(world.files("index/*.ids"), rng))
        stats = world.extract()
        assert (stats.rows, stats.bad) == (0, []), kinds
        assert world.rows() == world.whole, kinds
        yield kinds


def quarantine_rows(world: World, rng: random.Random, rounds: int) -> Iterator[Counter[str]]:
    """A damaged row is dropped, its image looked at again, and the row is back byte for byte."""
    for _ in range(rounds):
        kinds = Counter(kind for kind, _ in _some(world.files("quarantine/images/*/*.json"), rng))
        stats = world.extract()
        assert {bad.reason for bad in stats.bad} == {"truncated"}, kinds
        assert world.rows() == world.whole, kinds
        yield kinds


def rates(world: World, rng: random.Random, rounds: int) -> Iterator[Counter[str]]:
    """A damaged rate is no rate, or another number: it can only spoil an estimate."""
    (page,) = world.files("rates/4-cores-0123abcd/*.json")
    good = page.read_bytes()
    for _ in range(rounds):
        kind = damage(page, rng)
        assert all(
            rate.core_seconds > 0 for rate in recorded_timings(world.cache, "4-cores-0123abcd").values()
        ), kind
        page.write_bytes(good)
        yield Counter([kind])


def make_runs(folder: Path) -> list[Path]:
    """Two runs whose models differ."""
    made = []
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(24, 4)), np.arange(24) % 2
    for number, strength in enumerate((1.0, 0.1)):
        out = folder / f"run{number}"
        model = ConcatLogreg(make_blocks({"a": 3, "b": 1}), C=strength).fit(
            X + y[:, None], np.array(["no", "yes"])[y]
        )
        save_strategy(out / run.MODEL, model, {"classes": ["no", "yes"]})
        about = {"kind": "fuse", "options": {"C": strength}, "matrix": {"classes": {"no": 12, "yes": 12}}}
        run.write_run(out, about, {"auc": strength}, [["image_id", "p"], [str(number), 0.5]])
        made.append(out)
    return made


def read_all(out: Path) -> object:
    """Everything in a run folder, in a form that can be compared."""
    about = run.read_run(out)
    for name in (run.METRICS, run.PREDICTIONS, run.MODEL_STATE):
        run.require_verified(out, about, name)
    model, extra = load_strategy(out / run.MODEL)
    state, arrays = export_model(model)
    return about, extra, state, {name: array.tobytes() for name, array in arrays.items()}


def bundles(world: World, rng: random.Random, rounds: int) -> Iterator[Counter[str]]:
    """A damaged or mixed-up run is refused, or was damaged in white space alone and says the same."""
    runs = make_runs(world.folder)
    whole = {out: read_all(out) for out in runs}
    files = [path for out in runs for path in sorted(out.rglob("*")) if path.is_file()]
    content = {path: path.read_bytes() for path in files}
    for _ in range(rounds):
        kinds = Counter()
        for kind, touched in _some(rng.sample(files, AT_ONCE), rng):
            kinds[kind] += 1
            for out in {path for path in runs for file in touched if file.is_relative_to(path)}:
                try:
                    assert read_all(out) == whole[out], f"{kind} of {touched} gave another model"
                except RunError as error:
                    _require_one_line(error)
            for path in touched:
                path.write_bytes(content[path])
        yield kinds


def manifests(world: World, rng: random.Random, rounds: int) -> Iterator[Counter[str]]:
    """A CSV file has no checksum: what is still a table is read, the rest is refused with its line."""
    table = world.folder / "data" / "manifest.csv"
    good = table.read_bytes()
    assert len(list_csv(table).entries) == len(world.images)
    for _ in range(rounds):
        kind = damage(table, rng)
        _parse_or_refuse(list_csv, table)
        table.write_bytes(good)
        yield Counter([kind])


def _parse_or_refuse(read: Callable[[Path], object], path: Path) -> None:
    try:
        read(path)
    except ManifestError as error:
        _require_one_line(error)


def _require_one_line(error: FeatstoreError) -> None:
    assert "\n" not in error.cause + error.remedy, error


def rounds_of(folder: str, seed: int, rounds: dict[str, int]) -> Iterator[tuple[str, Counter[str]]]:
    """So many rounds of each kind, by name; yields what was done, round by round."""
    rng, world = random.Random(seed), World(Path(folder))
    for name, count in rounds.items():
        for kinds in globals()[name](world, rng, count):
            yield name, kinds
