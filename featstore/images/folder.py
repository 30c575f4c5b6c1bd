"""A data set as folders: ``class/...`` or ``split/class/...``."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from featstore.errors import ManifestError
from featstore.files import open_regular
from featstore.findings import Finding, shown
from featstore.images.listing import Entry, Listing, quarantine, real_path_inside, split_name
from featstore.images.manifest import Quarantined
from featstore.images.signature import HEAD, SUFFIXES, raster_format

if TYPE_CHECKING:
    import os
    from pathlib import Path

_TEXT = frozenset({
    ".cfg", ".csv", ".htm", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".rst", ".toml", ".tsv", ".txt",
    ".xls", ".xlsx", ".xml", ".yaml", ".yml",
})  # fmt: skip
_DEEPEST = 100
_CLUTTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx"})


@dataclass(frozen=True, slots=True)
class _Found:
    """An entry of one folder: a file, or a folder to walk; `real` is set once a link was passed."""

    path: Path
    info: os.stat_result
    real: str | None


@dataclass(slots=True)
class _Walk:
    """One pass over the tree; keeps what the pass leaves beside the entries."""

    root: Path
    follow_links: bool
    unreadable: list[Quarantined] = field(default_factory=list)
    skipped: int = 0

    def level(self, folder: Path, *, linked: bool = False) -> tuple[list[_Found], list[_Found]]:
        """Folders and files directly in `folder`, sorted by name; nothing is opened."""
        folders: list[_Found] = []
        files: list[_Found] = []
        for name in self._names(folder):
            path = folder / name
            found = None if _is_clutter(name) else self._find(path, linked=linked)
            if found is None:
                continue
            if stat.S_ISDIR(found.info.st_mode):
                folders.append(found)
            elif stat.S_ISREG(found.info.st_mode) and path.suffix.lower() not in _TEXT:
                files.append(found)
            else:
                self.skipped += 1
        return folders, files

    def below(self, top: _Found, above: frozenset[tuple[int, int]] = frozenset()) -> list[_Found]:
        """All files at any depth under `top`. A folder that is inside itself is reported, not entered."""
        here = (top.info.st_dev, top.info.st_ino)
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
        self.skipped += sum(map(_is_clutter, names))
        return names

    def _find(self, path: Path, *, linked: bool) -> _Found | None:
        try:
            info = path.stat()
        except OSError as error:
            self.unreadable.append(quarantine(path, error))
            return None
        if linked or path.is_symlink():
            return _Found(path, info, real_path_inside(path, self.root, follow_links=self.follow_links))
        return _Found(path, info, None)


def list_folder(root: Path, *, follow_links: bool = False) -> Listing:
    """List the images of a folder data set without opening them.

    The layout is ``split/class/...`` when every top-level folder is named like a split, else ``class/...``.
    Files at any depth below a class folder belong to that class.

    Parameters
    ----------
    root
        Folder of the data set.
    follow_links
        Whether links may lead out of `root`.

    Raises
    ------
    ManifestError
        If images lie outside the class folders, a class folder is empty, there is no class folder at all, or
        a link leads out of `root`.
    """
    walk = _Walk(root, follow_links)
    tops, strays = walk.level(root)
    _refuse_strays(walk, root, strays)
    if not tops:
        raise ManifestError(
            f"{str(root)!r} holds no class folders.",
            "Put the images into one folder per class, or give a CSV file with the columns path,label.",
        )
    splits = [split_name(top.path.name) for top in tops]
    entries: list[Entry] = []
    if all(splits):
        for top, split in zip(tops, splits, strict=True):
            classes, strays = walk.level(top.path, linked=top.real is not None)
            _refuse_strays(walk, top.path, strays)
            _refuse_empty(top.path, classes)
            entries += _entries(walk, classes, split)
    else:
        entries += _entries(walk, tops, None)
    return Listing(root, tuple(entries), tuple(walk.unreadable), walk.skipped, _mixture(tops, splits))


def _entries(walk: _Walk, classes: list[_Found], split: str | None) -> list[Entry]:
    entries: list[Entry] = []
    for top in classes:
        known = len(walk.unreadable)
        files = walk.below(top)
        _refuse_empty(top.path, files + walk.unreadable[known:])
        for file in files:
            name = file.path.relative_to(walk.root).as_posix()
            entries.append(Entry(name, file.path, top.path.name, split=split, real=file.real))
    return entries


def _refuse_empty(folder: Path, content: list[_Found] | list[_Found | Quarantined]) -> None:
    if not content:
        raise ManifestError(
            f"The folder {str(folder)!r} holds no images.",
            "Delete it, or put the images of that class into it.",
        )


def _refuse_strays(walk: _Walk, folder: Path, files: list[_Found]) -> None:
    """Files beside the class folders have no label: images are an error, anything else is passed over."""
    images = [file.path.name for file in files if _looks_like_image(file.path)]
    if images:
        raise ManifestError(
            f"{len(images)} images lie directly in {str(folder)!r}, outside any class: {shown(images)}.",
            "Move them into one folder per class, or give a CSV file with the columns path,label.",
        )
    walk.skipped += len(files)


def _looks_like_image(path: Path) -> bool:
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with open_regular(path) as file:
            return raster_format(file.read(HEAD)) is not None
    except OSError:
        return False


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER


def _mixture(tops: list[_Found], splits: list[str | None]) -> tuple[Finding, ...]:
    """Say that a lone ``extra`` beside ``train`` and ``test`` turns splits into classes: legal, rarely meant."""
    named = [top.path.name for top, split in zip(tops, splits, strict=True) if split]
    others = [top.path.name for top, split in zip(tops, splits, strict=True) if not split]
    if not named or not others:
        return ()
    message = f"{len(named)} folders named like splits are read as classes, because of others beside them."
    return (Finding("FS201", message, len(named), (f"{shown(named)} beside {shown(others)}",)),)
