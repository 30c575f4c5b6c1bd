"""Inspection of a cache: whether every shard and everything beside it is sound, repair, and what it holds."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featstore import serialization
from featstore.errors import ShardCorruptError, StoreError
from featstore.isolated_reading import LostError, call_isolated
from featstore.serialization import canonical_json
from featstore.store import notes, paths, shard, store, training_record
from featstore.store.paths import commit
from featstore.store.shard import NO_IDS, IdSet
from featstore.store.store import Index, Store, digest_of, in_threads
from featstore.types import BackboneSpec, FeatureKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray


# Verification


@dataclass(frozen=True, slots=True)
class Verification:
    """Outcome of `featstore.verify`.

    Attributes
    ----------
    shards, rows
        Good shards, and the vectors in them; `rows` is None after a fast look, which opens nothing.
    bad
        What is damaged, as (path, cause): shards, index segments, tables of bad images, pages of backbones.
    strangers
        Files in the cache that featstore did not put there; they do no harm and are left alone.
    temporaries
        What killed writers left, or living ones are writing: `featstore.gc` tells the two apart.
    quarantined
        Bad shards that were set aside before.
    repair
        What was done about `bad`; None if nothing was asked for.
    """

    shards: int
    rows: int | None
    bad: tuple[tuple[str, str], ...]
    strangers: tuple[str, ...] = ()
    temporaries: tuple[str, ...] = ()
    quarantined: int = 0
    repair: Repair | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json``."""
        return asdict(self)


def verify_cache(
    root: Path, *, fast: bool, repair: bool, threads: int | None, progress: bool
) -> Verification:
    """Look at every file of the cache in a folder; `featstore.verify` says what the arguments mean.

    Raises
    ------
    StoreError
        If something in it cannot be read or, in a repair, not be moved.
    """
    check = shard.check_header if fast else partial(_rows, root=root)
    rows: list[int] = []
    bad: list[tuple[Path, str]] = []
    for path, outcome in _checked(check, list(paths.all_shards(root)), threads, progress=progress):
        if isinstance(outcome, ShardCorruptError):
            bad.append((path, outcome.cause))
        elif outcome is not None:
            rows.append(outcome)
    found = survey(root)
    damaged = [*bad, *found.bad]
    return Verification(
        len(rows),
        None if fast else sum(rows),
        tuple((str(path), cause) for path, cause in damaged),
        tuple(map(str, found.unknown_files)),
        tuple(map(str, found.temporaries)),
        found.quarantined,
        repair_cache(root, damaged) if repair else None,
    )


def _checked(
    check: Callable[[Path], int], paths: list[Path], threads: int | None, *, progress: bool
) -> Iterator[tuple[Path, int | ShardCorruptError | None]]:
    """Rows of each shard, or what is wrong with it; None for one that was compacted away meanwhile."""
    from tqdm import tqdm

    outcomes = in_threads(partial(_outcome, check), paths, threads)
    bar = tqdm(outcomes, total=len(paths), unit="shard", desc="verify", disable=None if progress else True)
    yield from zip(paths, bar, strict=True)


def _outcome(check: Callable[[Path], int], path: Path) -> int | ShardCorruptError | None:
    try:
        return check(path)
    except ShardCorruptError as error:
        return error
    except FileNotFoundError:
        return None
    except OSError as error:
        return ShardCorruptError(f"it cannot be read: {error.strerror}", "Check the disk and its rights.")


def _rows(path: Path, root: Path) -> int:
    """Rows of a good shard, which is opened by another process: the cache may be a stranger's."""
    try:
        rows, _ = call_isolated("featstore.store.verify:count_rows", path, str(root))
    except LostError as error:
        raise ShardCorruptError(f"{error}", shard.REMEDY) from error
    return int(rows)


def count_rows(path: Path, root: str) -> tuple[int, list[NDArray[Any]]]:
    """Rows of a shard; run by `featstore.isolated_reading`.

    Raises
    ------
    ShardCorruptError
        If it is not good, or lies in the folder of another key.
    """
    found = shard.read(path)
    if paths.shard_folder(Path(root), found.key) != path.parent:
        raise ShardCorruptError("it lies in the folder of another key", shard.REMEDY)
    return len(found.ids), []


# Repair: nothing is deleted that cannot be rebuilt from what stays.

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LostRows:
    """Rows to be computed again in one view of one backbone.

    Attributes
    ----------
    backbone, view, seed
        As the folder names them.
    shards
        Number of shards that were set aside.
    rows
        Vectors that they held and no other shard holds, as far as the index knows; None if it knows nothing.
    """

    backbone: str
    view: str
    seed: int
    shards: int
    rows: int | None


@dataclass(frozen=True, slots=True)
class Repair:
    """What `repair_cache` did, as paths.

    Attributes
    ----------
    set_aside
        Shards that went to quarantine.
    put_back
        Good shards that lay in the folder of another key, and now lie in their own.
    rebuilt
        Damaged files that carry nothing of their own: index segments and rows of the table of bad images, dropped
        and rebuilt at need; pages of backbones, written again. A damaged record of what weights have learned from is
        not among them: it stays, and features of these weights are refused, until `featstore extract` has read it off
        the weights file again.
    lost
        What `featstore extract` will compute again when next asked for it.
    """

    set_aside: tuple[str, ...]
    put_back: tuple[str, ...]
    rebuilt: tuple[str, ...]
    lost: tuple[LostRows, ...]


def repair_cache(root: Path, bad: Sequence[tuple[Path, str]]) -> Repair:
    """Mend what `featstore.verify` found: `bad` are paths and causes.

    Safe beside a running extraction: a shard that bears its final name is finished, so a bad one is nobody's work.

    Raises
    ------
    StoreError
        If a file cannot be moved.
    """
    try:
        return _repair(root, bad)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(
            f"Cannot mend {error.filename}: {error.strerror}", "Check the rights of the cache folder."
        ) from error


def _repair(root: Path, bad: Sequence[tuple[Path, str]]) -> Repair:
    set_aside, put_back, rebuilt, shards, stuck = [], [], [], [], []
    for path, cause in bad:
        if path.suffix == paths.SHARD_SUFFIX and _put_back(root, path):
            put_back.append(str(path))
        elif path.suffix == paths.SHARD_SUFFIX:
            try:
                target = notes.set_aside_shard(paths.quarantine_folder(root), path, cause)
            except OSError as failure:
                stuck.append((path, failure))
                continue
            shards.append(path)
            set_aside.append(str(target))
        elif path.name != paths.TRAINING_RECORD_PAGE:
            paths.unlink(root, path)
            rebuilt.append(str(path))
    _describe_again(root)
    if stuck:  # said when all else is done
        where, why = stuck[0]
        more = f", and {len(stuck) - 1} more bad shards" if stuck[1:] else ""
        raise StoreError(
            f"Cannot set aside {where}{more}: {why.cause if isinstance(why, StoreError) else why.strerror or why}",
            "Check the rights of the cache folder.",
        )
    return Repair(tuple(set_aside), tuple(put_back), tuple(rebuilt), tuple(_lost(root, shards)))


def _put_back(root: Path, path: Path) -> bool:
    """Move a shard that is good but misplaced into the folder of its key; whether that was possible."""
    try:
        key, _ = call_isolated("featstore.store.verify:key_of", path)
        home = paths.shard_folder(root, FeatureKey.from_json(key))
        if home == path.parent:
            return False
        paths.make(root, home)
        paths.rename(root, path, home / path.name)
    except (OSError, ValueError, LostError) as error:  # a folder that no disk can have, for one
        log.debug("%s cannot be put back: %s", path, error)
        return False
    return True


def key_of(path: Path) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Key of a good shard; run by `featstore.isolated_reading`."""
    return shard.read(path).key.to_json(), []


def _describe_again(root: Path) -> None:
    for key in Store(root).feature_keys():
        page = paths.backbone_folder(root, key.backbone) / paths.BACKBONE_PAGE
        if not paths.is_file(page):
            commit(root, page, canonical_json(asdict(key.backbone)).encode())


def _lost(root: Path, gone: Iterable[Path]) -> list[LostRows]:
    """Sum up by folder, with the rows where the index remembers them."""
    by_folder: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in gone:
        by_folder[path.parent].append(path)
    store, index = Store(root), Index(paths.index_folder(root))
    keys = {digest_of(key): key for key in store.feature_keys()}
    remembered = {entry.shard.hex(): entry for entry in index}
    lost = []
    for folder, shards in sorted(by_folder.items()):
        entries = [remembered[path.stem] for path in shards if path.stem in remembered]
        rows = None
        if len(entries) == len(shards):
            key = keys.get(entries[0].key)
            stored = store.stored_ids(key) if key else NO_IDS
            rows = len(IdSet.from_bytes(b"".join(entry.ids for entry in entries)).difference(stored))
        lost.append(LostRows(*paths.folder_names(folder), len(shards), rows))
    return lost


# What lies beside the shards: index, tables, pages of backbones, leftovers, other people's files

DEEPEST = 32
"""Folders below each other that are looked into; what lies deeper is named by its folder."""
MALFORMED = (
    OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError
)  # fmt: skip


@dataclass(slots=True)
class OtherFiles:
    """Files beside the shards, as `survey` found them.

    Attributes
    ----------
    bad
        Damaged files, with the cause.
    unknown_files
        Files that featstore did not put there.
    temporaries
        Unfinished files.
    quarantined
        Number of bad shards set aside.
    """

    bad: list[tuple[Path, str]] = field(default_factory=list)
    unknown_files: list[Path] = field(default_factory=list)
    temporaries: list[Path] = field(default_factory=list)
    quarantined: int = 0


def survey(root: Path) -> OtherFiles:
    """Look at everything in a cache but its shards; links are not followed.

    Raises
    ------
    StoreError
        If a folder of it cannot be read, or a link stands in the place of one of featstore's.
    """
    found = OtherFiles()
    for path in files_below(root, root):
        kind = paths.kind_of(root, path)
        if kind == paths.TEMPORARY:
            found.temporaries.append(path)
        elif kind is None:
            found.unknown_files.append(path)
        elif cause := _cause(CHECKS[kind], path):
            found.bad.append((path, cause))
        found.quarantined += kind == "quarantined"
    return found


def files_below(root: Path, folder: Path) -> Iterator[Path]:
    """All files and links below a folder of a cache, and folders too deep to be looked into, room by room."""
    waiting = [folder]
    while waiting:
        inner = []
        for path in paths.everything(root, waiting.pop()):
            if paths.is_folder(path) and len(path.relative_to(root).parts) < DEEPEST:
                inner.append(path)
            else:
                yield path
        waiting += reversed(inner)


def _cause(check: Callable[[Path], object] | None, path: Path) -> str | None:
    if check is None:
        return None
    try:
        check(path)
    except FileNotFoundError:  # gone since it was listed
        return None
    except MALFORMED as error:
        what = error.cause if isinstance(error, StoreError) else _told(error) or type(error).__name__
        return " ".join(what.split())
    return None


def _told(error: Exception) -> str:
    """What an error says, without the path, which stands beside it anyway."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _check_backbone(path: Path) -> None:
    spec = BackboneSpec.from_json(serialization.parse_json(paths.read_file(path, serialization.SMALL)))
    if path.parent != paths.backbone_folder(path.parents[2], spec):
        raise ValueError("it describes another backbone than its folder")


def _check_page(path: Path) -> None:
    serialization.unseal(serialization.parse_json(paths.read_file(path, serialization.LARGE)))


def _check_file(path: Path) -> None:
    """Of what it says nothing is believed; it must be a file."""
    if not paths.is_file(path):
        raise ValueError("it is a link, folder, pipe, socket or device")


CHECKS: dict[str, Callable[[Path], object] | None] = {
    "backbone": _check_backbone,
    "learned": training_record.read_page,
    "shard": None,
    "facts": notes.read_facts,
    "copies": _check_page,
    "index": store.check_index,
    "request": notes.check_request,
    "bad image": notes.read_bad_image,
    "quarantined": None,
    "cause": _check_file,
    "rate": _check_file,
    "layouts": _check_file,
    "lease": _check_file,
    "result": notes.check_result,
    "look": notes.check_look,
}
"""How to tell whether a file is sound, for each kind in `rooms.FILES`; None for shards, which are read elsewhere."""


# Inventory: what a store holds, how big it is, and how old

DAY = 86_400
AGES = (("a day", DAY), ("a week", 7 * DAY), ("a month", 30 * DAY), ("a year", 365 * DAY))


@dataclass(frozen=True, slots=True)
class InventoryEntry:
    """One backbone in one view.

    Attributes
    ----------
    images
        Images that have a vector.
    shards, size
        Files, and their bytes.
    oldest, newest
        When the first and the last of its shards were written, ISO 8601, UTC. Compacted rows are new rows.
    value_range
        Values that are black and white, as `featstore.types.Decoding.value_range`; None where none were named.
    """

    backbone: str
    weights: str
    preprocess: str
    precision: str
    decoder: str
    recipe: str
    seed: int
    images: int
    shards: int
    size: int
    oldest: str
    newest: str
    value_range: tuple[float, ...] | None = None


ORDERS: dict[str, Callable[[InventoryEntry], Any]] = {
    "backbone": attrgetter("backbone", "recipe", "seed"),
    "view": attrgetter("recipe", "seed", "backbone"),
    "age": attrgetter("oldest", "backbone", "recipe", "seed"),
}


def list_entries(store: Store, by: str) -> list[InventoryEntry]:
    """What a store holds, a line per backbone and view, in one of the orders `ORDERS`.

    Raises
    ------
    StoreError
        If the cache cannot be read.
    """
    return sorted((_entry(store, key) for key in store.feature_keys()), key=ORDERS[by])


def shard_sizes(root: Path, by: str) -> dict[str, int]:
    """Bytes of the shards of a cache, and of quarantine, summed by one of `ORDERS`.

    Raises
    ------
    StoreError
        If the cache cannot be read.
    """
    sizes: Counter[str] = Counter()
    now = time.time()
    for path, stat in paths.stats(paths.all_shards(root)):
        _, backbone, view, seed, _ = path.relative_to(root).parts
        group = {"backbone": backbone, "view": f"{view}/{seed}", "age": _age(now - stat.st_mtime)}[by]
        sizes[group] += stat.st_size
    order = [f"less than {name}" for name, _ in AGES] if by == "age" else []
    aside = paths.stats(files_below(root, paths.quarantine_folder(root)))
    sizes["quarantine"] = sum(stat.st_size for _, stat in aside)
    return {group: sizes[group] for group in [*order, *sorted({*sizes} - {*order})] if group in sizes}


@dataclass(frozen=True, slots=True)
class CacheContents:
    """How much a store holds, by its file names alone.

    Attributes
    ----------
    backbones
        Folders of backbones.
    shards, size
        Files of vectors, and their bytes.
    quarantined_shards, quarantined_images
        Damaged shards that were set aside, and rows of the table of images that do not decode.
    """

    backbones: int
    shards: int
    size: int
    quarantined_shards: int
    quarantined_images: int


def contents(root: Path) -> CacheContents:
    """Count what a store holds; opens no file of it.

    Raises
    ------
    StoreError
        If there is no cache, or it cannot be read.
    """
    paths.require_cache(root)
    shards = list(paths.stats(paths.all_shards(root)))
    aside = Counter(paths.kind_of(root, path) for path in files_below(root, paths.quarantine_folder(root)))
    return CacheContents(
        len({path.relative_to(root).parts[1] for path, _ in shards}),
        len(shards),
        sum(stat.st_size for _, stat in shards),
        aside["quarantined"],
        aside["bad image"],
    )


def _entry(store: Store, key: FeatureKey) -> InventoryEntry:
    stats = [stat for _, stat in paths.stats(paths.list_until_stable(paths.shard_folder(store.root, key)))]
    backbone, view = key.backbone, key.view
    written = [stat.st_mtime for stat in stats]
    return InventoryEntry(
        backbone.name,
        backbone.weights,
        backbone.preprocess,
        backbone.precision,
        key.decoding.decoder,
        view.recipe,
        view.seed,
        len(store.stored_ids(key)),
        len(stats),
        sum(stat.st_size for stat in stats),
        _moment(min(written, default=0)),
        _moment(max(written, default=0)),
        key.decoding.value_range,
    )


def _moment(seconds: float) -> str:
    """Time of a file's clock, which some file systems let run beyond the last year of the calendar."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        moment = datetime.max.replace(tzinfo=UTC) if seconds > 0 else datetime.min.replace(tzinfo=UTC)
    return moment.isoformat(timespec="seconds")


def _age(seconds: float) -> str:
    return next((f"less than {name}" for name, limit in AGES if seconds < limit), "more than a year")
