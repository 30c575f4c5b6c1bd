"""Paths in a cache: its folders and file names, their safe reading and writing, and the listing of shards.

A cache may come from a stranger, and its folders may be links to anywhere; they are entered through no link. So
nothing else in featstore lists, makes, renames or deletes anything in a cache (`tests/store/test_folders.py` holds
that over the syntax trees). The cache as a whole may be a link or lie behind one; who named it to featstore meant it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from dataclasses import asdict
from functools import cache
from itertools import count
from typing import TYPE_CHECKING

from featstore.errors import StoreError
from featstore.serialization import digest_bytes, read_regular, short_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from featstore.types import BackboneSpec, Decoding, FeatureKey, View


# Folders of a cache, and the names of featstore's own files in them

_KEY, _HASH, _MACHINE = "[0-9a-f]{8}", "[0-9a-f]{64}", ".+-cores-[0-9a-f]{8}"
_BACKBONE, _VIEW, _SEED = f".+@{_KEY}", f".+@{_KEY}", "seed-[0-9]+"
FILES: dict[str, tuple[str, ...]] = {
    "backbone": ("features", _BACKBONE, r"backbone\.json"),
    "learned": ("features", _BACKBONE, r"learned\.json"),
    "shard": ("features", _BACKBONE, _VIEW, _SEED, r"[^.].*\.h5"),
    "facts": ("facts", _KEY, rf"{_HASH}\.rows"),
    "copies": ("facts", rf"{_HASH}\.json"),
    "index": ("index", rf"{_HASH}\.ids"),
    "request": ("index", rf"{_HASH}\.json"),
    "bad image": ("quarantine", "images", _KEY, rf"{_HASH}\.json"),
    "quarantined": ("quarantine", "shards", r".+\.h5"),
    "cause": ("quarantine", "shards", r".+\.json"),
    "rate": ("rates", _MACHINE, rf"{_HASH}\.json"),
    "layouts": ("layouts", _MACHINE, r".+\.json"),
    "lease": ("leases", r"[0-9a-f]{32}\.json"),
    "result": ("results", rf"{_HASH}\.json"),
    "look": ("looks", _HASH, rf"{_HASH}\.json"),
}
"""Names of all files that featstore writes, by kind: a pattern for every folder below the cache, and for the file."""
TEMPORARY = "temporary"
TEMPORARY_PREFIX = ".tmp-"
_DRAFT = r"\.tmp-[0-9a-f]{16}"
"""What a commit writes in any room before it renames."""
_OLD_DRAFT = ("features", _BACKBONE, r"\.tmp-[0-9a-f]{8}-learned\.json")
"""What an earlier featstore wrote before it renamed."""
_FOLDERS = {parts[:depth] for parts in FILES.values() for depth in range(len(parts))}
RIGHTS = "Check the rights of the cache folder."
_ALONE = stat.S_IRWXU


class LinkError(StoreError):
    """A link where a folder of a cache should be."""


def _link(path: Path | str) -> LinkError:
    return LinkError(
        f"{path} is a link. featstore enters no folder of a cache through a link: it may lead anywhere.",
        "Delete the link, or put the folder itself there. The cache as a whole may be a link.",
    )


def kind_of(root: Path, path: Path) -> str | None:
    """Which of `FILES` a path is by its name, or `TEMPORARY`; None for a file that is not featstore's."""
    parts = _below(root, path)
    for kind, pattern in FILES.items():
        if _fits(parts, pattern):
            return kind
    draft = _pattern(_DRAFT).fullmatch(path.name) and is_cache_folder(parts[:-1])
    return TEMPORARY if draft or _fits(parts, _OLD_DRAFT) else None


def is_cache_folder(parts: tuple[str, ...]) -> bool:
    """Whether a folder below the cache is one of featstore's, by its name."""
    return any(_fits(parts, pattern) for pattern in _FOLDERS)


def require_enterable(root: Path, folder: Path, *, to_write: bool = False) -> bool:
    """Make sure that a room may be entered; whether it is there at all.

    Parameters
    ----------
    root
        The cache folder; it may be a link.
    folder
        A folder of it, or the cache folder itself.
    to_write
        Whether something will be made, renamed or deleted there. Then every folder on the way must belong to this
        user, to the owner of the cache or to the administrator, unless others may write to the cache anyway.

    Raises
    ------
    LinkError
        If the room or a folder on the way is a link.
    StoreError
        If something on the way is no folder, cannot be looked at, or belongs to a stranger.
    """
    top = _state(root, follow=True)
    if top is None:
        return False
    _require_folder(root, top)
    path = os.fspath(root)
    for part in _below(root, folder):
        path = f"{path}{os.sep}{part}"
        found = _state(path)
        if found is None:
            return False
        if stat.S_ISLNK(found.st_mode):
            raise _link(path)
        _require_folder(path, found)
        if to_write:
            _require_owner(path, found, top)
    return True


def _below(root: Path, path: Path) -> tuple[str, ...]:
    """Names on the way from a cache to something in it: `Path.relative_to`, ten times as fast.

    A key that a stranger made up may name a backbone ``../..`` or ``/etc``.
    """
    depth = len(root.parts)
    if path.parts[:depth] != root.parts or ".." in path.parts[depth:]:
        raise StoreError(f"{path} lies outside of the cache {root}.", "Check what made up that name.")
    return path.parts[depth:]


def names(root: Path, folder: Path) -> list[str]:
    """Names of all that lies in a room, in order; none where the room is not there.

    Raises
    ------
    StoreError
        As for `require_enterable`, and if the room cannot be read.
    """
    if not require_enterable(root, folder):
        return []
    try:
        with os.scandir(folder) as found:
            return sorted(item.name for item in found)
    except FileNotFoundError:  # gone meanwhile
        return []
    except OSError as error:
        raise _unreadable(folder, error) from error


def everything(root: Path, folder: Path) -> list[Path]:
    """Paths of all that lies in any folder of a cache, in order; one that was no link when it was listed.

    Raises
    ------
    LinkError
        If a link has the name of a room.
    StoreError
        As for `names`.
    """
    found = [folder / name for name in names(root, folder)]
    for path in found:
        if is_cache_folder(_below(root, path)) and is_link(path):
            raise _link(path)
    return found


def files(root: Path, folder: Path, kind: str) -> list[Path]:
    """Files of one kind in a room, by their names, in order."""
    fits = _pattern(FILES[kind][-1]).fullmatch
    return [folder / name for name in names(root, folder) if fits(name)]


def subfolders(root: Path, folder: Path, depth: int, kind: str) -> list[Path]:
    """Folders in a room whose names are those of folders on the way to a kind of file, in order.

    Raises
    ------
    LinkError
        If one of them is a link.
    """
    fits, found = _pattern(FILES[kind][depth]).fullmatch, []
    for name in names(root, folder):
        if fits(name):
            inner = folder / name
            state = _state(inner)
            if state is not None and stat.S_ISLNK(state.st_mode):
                raise _link(inner)
            if state is not None and stat.S_ISDIR(state.st_mode):
                found.append(inner)
    return found


def read(root: Path, path: Path, limit: int) -> bytes:
    """Bytes of a file in a room, as `read_file`.

    Raises
    ------
    OSError
        As for `require_enterable` and `read_file`.
    """
    require_enterable(root, path.parent)
    return read_file(path, limit)


def read_file(path: Path, limit: int) -> bytes:
    """Bytes of a file of a room that was entered: at most `limit`, and of no link, folder, pipe or device."""
    return read_regular(path, limit, follow_links=False)


def is_folder(path: Path) -> bool:
    """Whether there is a folder, and no link to one."""
    found = _state(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def is_link(path: Path) -> bool:
    """Whether there is a link."""
    found = _state(path)
    return found is not None and stat.S_ISLNK(found.st_mode)


def is_file(path: Path) -> bool:
    """Whether there is a file, and no link to one."""
    found = _state(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def make(root: Path, folder: Path) -> None:
    """Create a room and what is missing on the way, each made durable in its own parent.

    A cache that is not there yet is made for its owner alone (0700). Whatever featstore makes inside has the rights
    of the cache folder, whatever the umask says, but others never write: who shares a cache says so once, there.

    Raises
    ------
    StoreError
        As for `require_enterable`.
    OSError
        If the disk refuses.
    """
    if require_enterable(root, folder, to_write=True):
        return
    if folder == root:
        _make_parents(root)
        folder.mkdir(mode=_ALONE, exist_ok=True)
    else:
        make(root, folder.parent)
        folder.mkdir(mode=_ALONE, exist_ok=True)
        with contextlib.suppress(OSError):  # a colleague's of this very moment; a disk without rights
            folder.chmod(folder_mode(root))
    sync(folder.parent)


def _make_parents(folder: Path) -> None:
    if not folder.parent.is_dir():
        _make_parents(folder.parent)
        folder.parent.mkdir(exist_ok=True)
        sync(folder.parent.parent)


def folder_mode(root: Path) -> int:
    """Rights of a new folder in a cache: those of the cache folder, its group bit among them."""
    return (root.stat().st_mode & (stat.S_ISGID | 0o775)) | _ALONE


def file_mode(root: Path) -> int:
    """Rights of a new file in a cache."""
    return folder_mode(root) & 0o664


def create(root: Path, path: Path) -> int:
    """Create a file in a room with its rights, and return its descriptor; OSError if something is there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, stat.S_IRUSR | stat.S_IWUSR)
    if hasattr(os, "fchmod"):
        with contextlib.suppress(OSError):  # a disk without rights
            os.fchmod(descriptor, file_mode(root))
    return descriptor


def unlink(root: Path, path: Path) -> None:
    """Delete one of featstore's own files; one that is gone is no error.

    Raises
    ------
    StoreError
        As for `require_enterable`, and if its name is none of featstore's.
    OSError
        If the disk refuses.
    """
    _require_own(root, path)
    if require_enterable(root, path.parent, to_write=True):
        path.unlink(missing_ok=True)


def rename(root: Path, source: Path, target: Path) -> None:
    """Move one of featstore's own files into the place of another one; both rooms must be there.

    Raises
    ------
    StoreError
        As for `unlink`.
    OSError
        If the disk refuses.
    """
    for path in (source, target):
        _require_own(root, path)
        require_enterable(root, path.parent, to_write=True)
    source.rename(target)


def remove_empty(root: Path, folder: Path) -> bool:
    """Delete a room if it holds nothing; whether it did."""
    if (
        not is_cache_folder(_below(root, folder))
        or not require_enterable(root, folder, to_write=True)
        or names(root, folder)
    ):
        return False
    folder.rmdir()
    return True


def sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_cache(root: Path) -> None:
    """Refuse what is no cache: nothing in it is featstore's to look at, let alone to delete.

    Raises
    ------
    StoreError
        If there is nothing, no folder, one that cannot be read, or one without a single room of featstore's.
    """
    if not require_enterable(root, root):
        raise StoreError(
            f"There is no cache at {root}.", "`featstore extract` makes one; name another with --cache."
        )
    tops = [root / name for name in names(root, root) if is_cache_folder((name,))]
    if not any(_is_own_folder(root, top) for top in tops):
        raise StoreError(
            f"{root} is no cache: nothing in it was made by featstore.", "Name the cache with --cache."
        )


def _is_own_folder(root: Path, folder: Path) -> bool:
    """Whether a folder of a name that others use, too, is featstore's: it holds nothing, or something of ours.

    A link in its place is refused, which tells more than that there is no cache.
    """
    if not (is_folder(folder) or is_link(folder)):
        return False
    inside = [folder / name for name in names(root, folder)]
    own = (kind_of(root, path) or is_cache_folder(_below(root, path)) for path in inside)
    return not inside or any(each and each != TEMPORARY for each in own) or folder.name == "leases"


def _fits(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    return len(parts) == len(pattern) and all(
        _pattern(each).fullmatch(part) for part, each in zip(parts, pattern, strict=True)
    )


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.DOTALL)


def _state(path: Path | str, *, follow: bool = False) -> os.stat_result | None:
    """What is at a path, or behind a link there; None if nothing is."""
    try:
        return os.stat(path, follow_symlinks=follow)  # noqa: PTH116  # a text where it must be fast
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from error


def _require_folder(path: Path | str, state: os.stat_result) -> None:
    if not stat.S_ISDIR(state.st_mode):
        raise StoreError(
            f"{path} is no folder, and a cache needs one there.",
            "Move it elsewhere, or name another cache.",
        )


def _require_owner(path: Path | str, state: os.stat_result, top: os.stat_result) -> None:
    """Refuse a folder of somebody who could not have made it here: he would see what is written there."""
    shared = top.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not shared and state.st_uid not in {0, top.st_uid, getattr(os, "geteuid", lambda: 0)()}:
        raise StoreError(
            f"{path} belongs to user {state.st_uid}, who may not write to this cache.",
            "Make it your own with chown; or share the cache, with chmod g+w for the cache folder itself.",
        )


def _require_own(root: Path, path: Path) -> None:
    if kind_of(root, path) is None:
        raise StoreError(f"{path} is not a file of featstore's.", "Move it out of the cache by hand.")


def _unreadable(path: Path | str, error: OSError) -> StoreError:
    return StoreError(f"Cannot read {path}: {error.strerror or error}.", RIGHTS)


# Where things lie. Folder names are for people; the key inside each shard decides.

SHARD_SUFFIX = ".h5"
BACKBONE_PAGE = "backbone.json"
TRAINING_RECORD_PAGE = "learned.json"
"""Beside the vectors of tuned weights: the images that these have learned from. Nothing in a cache can replace it."""
READABLE_LENGTH = 40


def features_folder(root: Path) -> Path:
    """Return the folder that holds all shards."""
    return root / "features"


def quarantine_folder(root: Path) -> Path:
    """Return the folder that holds bad shards and the table of bad images."""
    return root / "quarantine"


def index_folder(root: Path) -> Path:
    """Return the folder of the index, which may be deleted at any time."""
    return root / "index"


def backbone_folder(root: Path, backbone: BackboneSpec) -> Path:
    """``features/<backbone>@<key8>``."""
    return features_folder(root) / f"{backbone.name}@{short_digest(asdict(backbone))}"


def shard_folder(root: Path, key: FeatureKey) -> Path:
    """``features/<backbone>@<key8>/<recipe-slug>@<key8>/seed-0003``."""
    view = f"{slug(key.view.recipe)}@{_view_digest(key.view, key.decoding)}"
    return backbone_folder(root, key.backbone) / view / f"seed-{key.view.seed:04d}"


def folder_names(folder: Path) -> tuple[str, str, int]:
    """Backbone, view and seed as the name of a shard folder tells them: for people, where no key can be read."""
    backbone, view, seed = folder.parts[-3:]
    digits = seed.removeprefix("seed-")
    number = (
        int(digits) if digits.isascii() and digits.isdigit() else -1
    )  # a stranger names folders as he likes
    return backbone.rpartition("@")[0], view.rpartition("@")[0], number


def root_of(folder: Path) -> Path:
    """Return the cache in which a shard folder lies."""
    return folder.parents[3]


def slug(recipe: str) -> str:
    """Shorten a recipe's text to a folder name: ``rotate(0,40)|flip(hv)`` becomes ``rotate0-40-fliphv``."""
    safe = "".join(c if c.isalnum() or c in ".-" else "" if c in "()" else "-" for c in recipe)
    return safe[:READABLE_LENGTH].strip("-.") or "recipe"


def _view_digest(view: View, decoding: Decoding) -> str:
    return short_digest({"recipe": view.recipe, "decoding": asdict(decoding)})


def shard_folders(root: Path) -> list[Path]:
    """Folders of a store that hold the shards of one feature key each, in order of name."""
    found = [features_folder(root)]
    for depth in (1, 2, 3):
        found = [inner for folder in found for inner in subfolders(root, folder, depth, "shard")]
    return sorted(found)


def shards(folder: Path) -> list[Path]:
    """Shard files of one folder, in order of name; other files are passed over."""
    return files(root_of(folder), folder, "shard")


# Which shard files there are, while others write and compact


def list_until_stable(folder: Path) -> Iterator[Path]:
    """Shard files of one folder, listed again until a second look brings nothing new.

    Compaction commits the new form of a row before the old one goes. Whoever lists, reads, and lists again meets
    one of the two, even if both moves fall into the time of one listing.
    """
    return (path for fresh in looks_until_stable(folder) for path in fresh)


def looks_until_stable(folder: Path) -> Iterator[list[Path]]:
    """What each look of `list_until_stable` finds; all of it must be read before the next look is asked for."""
    seen: set[Path] = set()
    for look in count():
        fresh = [path for path in shards(folder) if path not in seen]
        if look and not fresh:
            return
        seen.update(fresh)
        yield fresh


def stats(paths: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Each file with its size and times; one that is gone by now is passed over."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            yield path, path.lstat()


def all_shards(root: Path) -> Iterator[Path]:
    """Every shard file of a store, folder by folder."""
    for folder in shard_folders(root):
        yield from shards(folder)


# Bytes on disk whole or not at all (law 3)

ELSEWHERE = "Check that the cache folder is writable, or choose another with --cache."


def commit_named_by_hash(
    root: Path, folder: Path, data: bytes, suffix: str, limit: int | None = None
) -> Path:
    """Write `data` to ``folder/<sha256><suffix>`` and return that path; nothing to do where it exists."""
    target = folder / f"{digest_bytes(data)}{suffix}"
    if not (require_enterable(root, folder) and is_file(target)):
        commit(root, target, data, limit)
    return target


def commit(root: Path, target: Path, data: bytes, limit: int | None = None) -> None:
    """Write `data` to `target`: any reader at any time, power cuts included, sees all of it or nothing.

    Parameters
    ----------
    root
        The cache folder.
    target
        One of `rooms.FILES` in it.
    data
        What it shall hold; its rights are `rooms.file_mode`.
    limit
        Bytes that its readers take; None where they take any file that is written here.

    Raises
    ------
    StoreError
        If the disk is full, read-only, or fails; as for `rooms.make`; or if nobody would read so much again.
    """
    if limit is not None and len(data) > limit:
        raise StoreError(
            f"{target} would have {len(data):,} bytes, and at most {limit:,} are read back.",
            "Split the data set.",
        )
    try:
        make(root, target.parent)
        temporary = target.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        try:
            _write_through(root, temporary, data)
            rename(root, temporary, target)
        except BaseException:
            unlink(root, temporary)
            raise
        sync(target.parent)
    except StoreError:
        raise
    except OSError as error:
        raise _store_error(error, target, len(data)) from error


def require_writable(root: Path) -> None:
    """Make sure, before hours of work, that the cache folder is there and can be written to.

    Raises
    ------
    StoreError
        If it cannot.
    """
    probe = root / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        make(root, root)
        os.close(create(root, probe))
        unlink(root, probe)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"Cannot write to {root}: {error.strerror or error}", ELSEWHERE) from error


def _write_through(root: Path, path: Path, data: bytes) -> None:
    with os.fdopen(create(root, path), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _store_error(error: OSError, target: Path, size: int) -> StoreError:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    remedy = (
        f"Free at least {size:,} bytes there and run the same command again: it goes on where it stopped."
        if full
        else ELSEWHERE
    )
    return StoreError(f"Cannot write {size:,} bytes to {target}: {error.strerror or error}", remedy)
