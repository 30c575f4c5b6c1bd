"""Data sets as folders: ``class/...`` or ``split/class/...``."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING

from featstore.errors import ManifestError
from featstore.findings import Finding, counted, quoted
from featstore.images.formats.container import HEAD, raster_format, suffixes
from featstore.images.formats.npz import ARRAYS
from featstore.images.manifest import ListedFile, Listing, Quarantined, quarantine, real_path_inside
from featstore.images.names import (
    names_a_part,
    one_split_word,
    says_nothing,
    spelling_key,
    split_name,
    split_names,
)
from featstore.processes import track
from featstore.serialization import open_regular

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


_TEXT = frozenset({
    ".cfg", ".csv", ".htm", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".rst", ".toml", ".tsv", ".txt",
    ".xls", ".xlsx", ".xml", ".yaml", ".yml",
})  # fmt: skip
_DEEPEST = 100
_TABLES = frozenset({".csv", ".tsv", ".tab"})
_PATIENT = re.compile(
    r"(?:p|pt|pat|patient|person|s|sub|subj|subject|case|id|study|series|scan|slice|n)?[ _.-]*\d+",
    re.IGNORECASE,
)
_MOST_NUMBERED = 20
"""Folders named by numbers alone that may be classes; more are patients."""
_CLUTTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "dicomdir"})


@dataclass(frozen=True, slots=True)
class _Found:
    """An entry of one folder: a file, or a folder to walk; `real` is set once a link was passed.

    Of a folder `identity` is its device and inode, of a file None.
    """

    path: Path
    mode: int
    identity: tuple[int, int] | None
    real: str | None


@dataclass(frozen=True, slots=True)
class _Part:
    """A folder whose files, at any depth, are of one class and split."""

    folder: _Found
    label: str
    split: str | None


@dataclass(slots=True)
class _Walk:
    """One pass over the tree; keeps what the pass leaves beside the entries."""

    root: Path
    follow_links: bool
    unreadable: list[Quarantined] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    seen: dict[Path, tuple[list[_Found], list[_Found]]] = field(default_factory=dict)
    skipped: int = 0

    def level(self, folder: Path, *, linked: bool = False) -> tuple[list[_Found], list[_Found]]:
        """Folders and files directly in `folder`, sorted by name, looked at once; nothing is opened."""
        if folder not in self.seen:
            self.seen[folder] = self._look(folder, linked=linked)
        folders, files = self.seen[folder]
        return [*folders], [*files]

    def inside(self, folder: _Found) -> tuple[list[_Found], list[_Found]]:
        """Folders and files directly in a folder that was found."""
        return self.level(folder.path, linked=folder.real is not None)

    def holds(
        self, top: _Found, above: frozenset[tuple[int, int] | None] = frozenset(), *, images: bool = True
    ) -> bool:
        """Whether there is an image at any depth under `top`, or with ``images=False`` any file but text."""
        here = top.identity
        if here in above or len(above) >= _DEEPEST:
            return False
        folders, files = self.inside(top)
        return any(not images or _looks_like_image(file.path) for file in files) or any(
            self.holds(folder, above | {here}, images=images) for folder in folders
        )

    def _look(self, folder: Path, *, linked: bool) -> tuple[list[_Found], list[_Found]]:
        folders: list[_Found] = []
        files: list[_Found] = []
        names = self._names(folder)
        for name in track(names, "list", "file", len(names)):
            path = folder / name
            found = None if is_clutter(name) else self._find(path, linked=linked)
            if found is None:
                continue
            if stat.S_ISDIR(found.mode):
                folders.append(found)
            elif stat.S_ISREG(found.mode) and path.suffix.lower() not in _TEXT:
                files.append(found)
            else:
                self.skipped += 1
        return folders, files

    def below(self, top: _Found, above: frozenset[tuple[int, int] | None] = frozenset()) -> list[_Found]:
        """All files at any depth under `top`. A folder that is inside itself is reported, not entered."""
        here = top.identity
        if here in above:
            self.unreadable.append(Quarantined(top.path, None, "loop", "The folder contains itself."))
            return []
        if len(above) >= _DEEPEST:
            raise ManifestError(
                f"{str(top.path)!r} is nested deeper than {_DEEPEST} folders.",
                "Flatten the folders of the data set.",
            )
        folders, files = self.level(top.path, linked=top.real is not None)
        for folder in folders:
            files += self.below(folder, above | {here})
        return files

    def _names(self, folder: Path) -> list[str]:
        try:
            names = sorted(path.name for path in folder.iterdir())
        except OSError as error:
            self.unreadable.append(quarantine(folder, error))
            return []
        self.skipped += sum(map(is_clutter, names))
        return names

    def _find(self, path: Path, *, linked: bool) -> _Found | None:
        try:
            info = path.stat()
        except OSError as error:
            self.unreadable.append(quarantine(path, error))
            return None
        real = None
        if linked or path.is_symlink():
            real = real_path_inside(path, self.root, follow_links=self.follow_links)
        identity = (info.st_dev, info.st_ino) if stat.S_ISDIR(info.st_mode) else None
        return _Found(path, info.st_mode, identity, real)


def list_folder(root: Path, *, follow_links: bool = False) -> Listing:
    """List the images of a folder data set without opening them.

    The layout is ``split/class/...`` where folders are named like splits (``train``, ``training_set``,
    ``seg_train``), else ``class/...``; files at any depth below a class folder belong to that class. Where it can be
    meant in one way only, these are understood, too, and noted: the data set in a folder inside the one given,
    ``class/split/...``, and folders beside the splits or test images without a class, which are left out.

    Parameters
    ----------
    root
        Folder of the data set.
    follow_links
        Whether links may lead out of `root`.

    Raises
    ------
    ManifestError
        If images lie outside the class folders, a class folder is empty, there is no class folder at all, several
        data sets lie side by side, or a link leads out of `root`.
    """
    walk = _Walk(root, follow_links)
    entries = [entry for part in _parts(walk, root) for entry in _entries(walk, part)]
    return Listing(root, tuple(entries), tuple(walk.unreadable), walk.skipped, tuple(walk.findings))


def list_tree(root: Path, *, follow_links: bool = False) -> Listing:
    """List all images at any depth below a folder; none has a class, whatever the folders are called.

    Parameters
    ----------
    root
        Folder of the data set.
    follow_links
        Whether links may lead out of `root`.

    Raises
    ------
    ManifestError
        If a link leads out of `root`.
    """
    walk = _Walk(root, follow_links)
    folders, files = walk.level(root)
    for folder in folders:
        files += walk.below(folder)
    kept = [file for file in files if file.path.suffix.lower() not in _TEXT | _TABLES]
    walk.skipped += len(files) - len(kept)
    entries = (
        ListedFile(file.path.relative_to(root).as_posix(), file.path, "", real=file.real) for file in kept
    )
    return Listing(root, tuple(entries), tuple(walk.unreadable), walk.skipped)


def _parts(walk: _Walk, folder: Path, *, linked: bool = False) -> list[_Part]:
    """Class folders of the data set that `folder` is, or has inside."""
    tops, files = walk.level(folder, linked=linked)
    _refuse_strays(walk, folder, files)
    if not tops:
        raise _nothing_here(folder)
    splits = _splits_of(walk, tops)
    if any(splits):
        if (parts := _split_first(walk, tops, splits)) is not None:
            return parts
    elif parts := _class_first(walk, tops):
        return parts
    elif inner := _inside(walk, tops):
        name = inner.path.relative_to(walk.root).as_posix()
        walk.findings.append(Finding("FS210", "The data set was found in a folder inside.", examples=(name,)))
        return _parts(walk, inner.path, linked=inner.real is not None)
    walk.findings += _doubts(walk, tops)
    return [_Part(top, top.path.name, None) for top in tops]


def _splits_of(walk: _Walk, tops: list[_Found]) -> list[str | None]:
    """What split each folder is by its name; or by a word in its name, if it holds the classes of the others."""
    splits = split_names([top.path.name for top in tops])
    spoken = {at: one_split_word(top.path.name) for at, top in enumerate(tops)}
    inside = {at: _class_keys(walk, tops[at]) for at, split in spoken.items() if split}
    if len({spoken[at] for at in inside}) > 1 and all(
        2 * len(one & other) >= len(one | other) > 0 for one in inside.values() for other in inside.values()
    ):
        return [split or spoken[at] for at, split in enumerate(splits)]
    return splits


def _split_first(walk: _Walk, tops: list[_Found], splits: list[str | None]) -> list[_Part] | None:
    """Read ``split/class/...``; None where that is in doubt: another folder that could be a class is beside them."""
    sides = [(_unwrapped(walk, top, split), split) for top, split in zip(tops, splits, strict=True) if split]
    learned = [side for side in sides if side[1] == "train"] or sides
    known = {key for folder, _ in learned for key in _class_keys(walk, folder)}
    others = [top for top, split in zip(tops, splits, strict=True) if not split]
    others = [top for top in others if walk.holds(top, images=False)]
    if others and not (known and len({split for _, split in sides}) > 1 and learned != sides):
        return None
    left = [top for top in others if walk.holds(top)]
    parts: list[_Part] = []
    for folder, split in sides:
        if (folder, split) not in learned and _is_unlabelled(walk, folder, known):
            left.append(folder)
            continue
        classes, strays = walk.inside(folder)
        _refuse_strays(walk, folder.path, strays)
        _refuse_empty(folder.path, classes)
        parts += [_Part(top, top.path.name, split) for top in classes]
    _leave_out(walk, left)
    if left and len({part.split for part in parts}) == 1:  # what is left of the splits is no split
        parts = [replace(part, split=None) for part in parts]
    return parts


def _is_unlabelled(walk: _Walk, folder: _Found, known: set[str]) -> bool:
    """Whether a split holds images without a class: directly, or in one folder that is no class of the others."""
    if not known:
        return False
    classes, files = walk.inside(folder)
    if not classes:
        return any(map(_looks_like_image, (file.path for file in files)))
    lone = len(classes) == 1 and spelling_key(classes[0].path.name) not in known
    return lone and len(known) > 1 and not any(_looks_like_image(file.path) for file in files)


def _class_first(walk: _Walk, tops: list[_Found]) -> list[_Part]:
    """Read ``class/split/...``: every folder holds the same splits, and these hold images or patients; else empty."""
    parts: list[_Part] = []
    for top in tops:
        folders, files = walk.inside(top)
        splits = split_names([folder.path.name for folder in folders])
        if len(set(splits)) < 2 or None in splits or any(_looks_like_image(file.path) for file in files):  # noqa: PLR2004
            return []
        names = [_class_keys(walk, folder) for folder in folders]
        if any(one & other for one, other in combinations(names, 2)):
            return []
        parts += [_Part(folder, top.path.name, split) for folder, split in zip(folders, splits, strict=True)]
    if len({part.split for part in parts}) * len(tops) != len(parts) or len(tops) < 2:  # noqa: PLR2004
        return []
    walk.findings.append(
        Finding("FS210", "Folders are arranged as class/split/..., and were read so.", len(tops))
    )
    return parts


def _inside(walk: _Walk, tops: list[_Found]) -> _Found | None:
    """Folder further in that holds the data set, if one only can be meant; None if `tops` may be its classes."""
    found = {top: inner for top in tops if (inner := _split_set(walk, top))}
    if len(found) > 1:
        names = [inner.path.relative_to(walk.root).as_posix() for inner in found.values()]
        raise ManifestError(
            f"{str(walk.root)!r} holds {len(found)} data sets side by side, each with splits: {quoted(names)}.",
            f"Give one of them, such as {str(next(iter(found.values())).path)!r}.",
        )
    for top, inner in found.items():
        _leave_out(walk, [other for other in tops if other is not top and walk.holds(other)])
        return inner
    tops = [top for top in tops if walk.holds(top) or not _is_beside_the_point(top.path)]
    for _ in range(_DEEPEST):
        if len(tops) != 1:
            return None
        folders, files = walk.inside(top := tops[0])
        held = [folder for folder in folders if walk.holds(folder)]
        if any(_looks_like_image(file.path) for file in files):
            return None
        names = [folder.path.name for folder in held]
        if all(split_names(names)) and held:
            return top
        if len(held) > 1:
            return None if _are_patients(names) or len(held) < len(folders) else top
        tops = held
    return None


def _is_beside_the_point(folder: Path) -> bool:
    """Whether a folder without images holds something else; an empty one may be a class that was lost."""
    try:
        return any(not is_clutter(path.name) for path in folder.iterdir())
    except OSError:
        return False


def _split_set(walk: _Walk, top: _Found) -> _Found | None:
    """`top`, or the one folder in it, that holds splits with classes; a folder of patients is none."""
    for _ in range(_DEEPEST):
        folders, _files = walk.inside(top)
        splits = split_names([folder.path.name for folder in folders])
        sides = [
            _unwrapped(walk, folder, split) for folder, split in zip(folders, splits, strict=True) if split
        ]
        names = [_class_keys(walk, side) for side in sides]
        if len(set(splits) - {None}) > 1 and any(one & other for one, other in combinations(names, 2)):
            return top
        unlabelled = [side for side, keys in zip(sides, names, strict=True) if not keys and walk.holds(side)]
        if "train" in splits and unlabelled and any(len(keys) > 1 for keys in names):
            return top
        held = [folder for folder in folders if walk.holds(folder)]
        if len(held) != 1:
            return None
        top = held[0]
    return None


def _unwrapped(walk: _Walk, folder: _Found, split: str) -> _Found:
    """The folder that holds the classes of a split: itself, or ``train/train``, ``train/images``."""
    for _ in range(_DEEPEST):
        folders, files = walk.inside(folder)
        if len(folders) != 1 or any(_looks_like_image(file.path) for file in files):
            return folder
        name, deeper = folders[0].path.name, walk.inside(folders[0])[0]
        if split_name(name) != split and not (says_nothing(name) and len(deeper) > 1):
            return folder
        folder = folders[0]
    return folder


def _class_keys(walk: _Walk, folder: _Found) -> set[str]:
    return {spelling_key(found.path.name) for found in walk.inside(folder)[0]}


def _are_patients(names: Sequence[str]) -> bool:
    """Whether folders are numbered, as patients are and classes rarely."""
    return all(map(_PATIENT.fullmatch, names)) and (
        len(names) > _MOST_NUMBERED or not all(map(str.isdecimal, names))
    )


def _leave_out(walk: _Walk, folders: list[_Found]) -> None:
    """Say which folders, with how many images, are no part of the data set."""
    if not folders:
        return
    counts = {folder: sum(_looks_like_image(file.path) for file in walk.below(folder)) for folder in folders}
    total = sum(counts.values())
    lines = [
        f"{folder.path.relative_to(walk.root).as_posix()!r}: {count}" for folder, count in counts.items()
    ]
    where = counted(len(folders), "folder")
    message = f"{counted(total, 'image')} in {where} beside the splits, or without a class, took no part."
    walk.findings.append(Finding("FS209", message, total, tuple(lines)))


def _tables_beside(root: Path) -> list[str]:
    """Names of tables beside the class folders."""
    return sorted(path.name for path in root.iterdir() if path.suffix.lower() in _TABLES and path.is_file())


def _doubts(walk: _Walk, tops: list[_Found]) -> list[Finding]:
    """Say that folders are taken for classes which are named like parts of a data set: legal, rarely meant."""
    named = [name for top in tops if names_a_part(name := top.path.name) or says_nothing(name)]
    others = [top.path.name for top in tops if top.path.name not in named]
    if len(tops) == 1 and (tables := _tables_beside(walk.root)):
        message = "The folder holds a single folder of images, and a table: it may name the classes."
        remedy = "If the table names the classes, give it in place of the folder."
        return [Finding("FS201", message, len(tables), tuple(tables), remedy=remedy)]
    if named:
        beside = f"{quoted(named)} beside {quoted(others)}" if others else quoted(named)
        message = f"{counted(len(named), 'folder')} named like a part of a data set, read as a class."
        return [Finding("FS201", message, len(named), (beside,))]
    nested = [folder.path for top in tops for folder in walk.inside(top)[0] if split_name(folder.path.name)]
    if len({split_name(path.name) for path in nested}) > 1:
        message = (
            f"{len(nested)} folders named like splits lie inside class folders, and are not taken for splits."
        )
        return [
            Finding("FS201", message, len(nested), tuple(p.relative_to(walk.root).as_posix() for p in nested))
        ]
    return []


def _entries(walk: _Walk, part: _Part) -> list[ListedFile]:
    files = walk.below(part.folder)
    path = part.folder.path
    _refuse_empty(path, files or [bad for bad in walk.unreadable if bad.path.is_relative_to(path)])
    return [
        ListedFile(
            file.path.relative_to(walk.root).as_posix(),
            file.path,
            part.label,
            split=part.split,
            real=file.real,
        )
        for file in files
    ]


def _refuse_empty(folder: Path, content: Sequence[_Found | Quarantined]) -> None:
    if not content:
        raise ManifestError(
            f"The folder {str(folder)!r} holds no images.",
            "Delete it, or put the images of that class into it.",
        )


def _nothing_here(folder: Path) -> ManifestError:
    tables = _tables(folder)
    there = f", only files such as {quoted(tables)}" if tables else ""
    return ManifestError(f"{str(folder)!r} holds no class folders{there}.", _instead(folder, tables))


def _refuse_strays(walk: _Walk, folder: Path, files: list[_Found]) -> None:
    """Files beside the class folders have no label: images are an error, anything else is passed over."""
    images = [file.path.name for file in files if not _is_array(file.path) and _looks_like_image(file.path)]
    if images:
        raise ManifestError(
            f"{len(images)} images lie directly in {str(folder)!r}, outside any class: {quoted(images)}.",
            _instead(folder, _tables(folder)),
        )
    walk.skipped += len(files)


def _tables(folder: Path) -> list[str]:
    """Names of the tables in a folder."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.suffix.lower() in {".csv", ".tsv"})
    except OSError:
        return []


def _instead(folder: Path, tables: list[str]) -> str:
    if tables:
        return f"Give the table that says which class they are, if it does: {str(folder / tables[0])!r}."
    return (
        "Put the images into one folder per class, or give a CSV file with the columns path,label; or name a table of"
        " patients, studies or series and their classes: --labels TABLE"
    )


def _looks_like_image(path: Path) -> bool:
    if path.suffix.lower() in suffixes():
        return True
    try:
        with open_regular(path) as file:
            return raster_format(file.read(HEAD)) is not None
    except OSError:
        return False


def _is_array(path: Path) -> bool:
    """Whether it is a file of arrays: beside classes these are features or labels as often as pictures."""
    return path.suffix.lower() in ARRAYS


def is_clutter(name: str) -> bool:
    """Whether a file or folder of this name is nobody's image: hidden, of a file manager, or a disc's contents."""
    return name.startswith(".") or name.lower() in _CLUTTER
