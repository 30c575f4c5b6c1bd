"""Which file a path of a CSV file means: the one of exactly that name, else the only one that it can mean."""

from __future__ import annotations

import difflib
import os
import re
import shlex
import stat
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from featstore.images.signature import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_DEEPEST = 64
_MOST_FILES = 50_000
"""Files that are looked at in search of a near match."""
_MOST_NAMES = 2_000
_MOST_BESIDE = 200
_TRIED = 20


class PathRefusedError(ValueError):
    """A path that is not looked for, or could mean several files; `what` and `remedy` say so."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


@dataclass(slots=True)
class _Names:
    """Names in one folder: as they are, by spelling, and images by spelling of what is before the suffix."""

    exact: set[str] = field(default_factory=set)
    alike: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    stems: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


@dataclass(slots=True)
class Locator:
    """Finds the files that paths mean, below one folder.

    Attributes
    ----------
    root
        Folder where paths begin.
    base
        Folder of the CSV file.
    chosen
        Whether the user said where paths begin (``--root``); then absolute paths and ``..`` are looked at, too.
    suffix
        What to add to paths that have no suffix of an image, or None.
    """

    root: Path
    base: Path
    chosen: bool = False
    suffix: str | None = None
    _folders: dict[str, _Names] = field(default_factory=dict)

    def locate(self, text: str) -> str:
        """Path relative to the root, with ``/``, of the file that a cell means; as it is written if there is none.

        Raises
        ------
        PathRefusedError
            If the path is a URL, leads out of the root, or could mean several files.
        """
        self._refuse_url(text)
        if (inner := self._inner(text)) is None:
            return self._from_outside(text.strip())
        name = PurePosixPath(text).as_posix()
        if inner and self._is_there(name):
            return name
        found = self._resolve(inner) or self._below_own_name(inner)
        return self._only(text, found) or "/".join(inner) or "."

    def nearest(self, name: str) -> str | None:
        """A file whose name is much like that of a path that leads nowhere, or None."""
        parts = PurePosixPath(name).parts
        for depth in range(len(parts) - 1, -1, -1):
            names = self._listing("/".join(parts[:depth]))
            if near := difflib.get_close_matches(parts[depth], islice(sorted(names.exact), _MOST_NAMES), n=1):
                return "/".join((*parts[:depth], near[0]))
            if names.exact:
                break
        wanted = {_key(parts[-1]), _key(_stem(parts[-1]))} if parts else set()
        return next(
            ("/".join(path) for path in self._walk() if wanted & {_key(path[-1]), _key(_stem(path[-1]))}),
            None,
        )

    def suggested_root(self, names: Iterable[str]) -> Path | None:
        """Folder in which paths that lead nowhere would be found, if there is one such."""
        tried = [PurePosixPath(name).parts for name in islice(names, _TRIED)]
        hits: Counter[Path] = Counter()
        for parts in tried:
            hits.update({self.root / "/".join(folder) for folder in self._beginnings(parts)})
        for above in self._around():
            if count := sum(
                bool(Locator(above, self.base, True, self.suffix).found(parts)) for parts in tried
            ):
                hits[above] = count
        best = [folder for folder, count in hits.items() if count == max(hits.values())]
        return best[0] if len(best) == 1 else None

    def found(self, parts: Sequence[str]) -> list[str]:
        """Files below the root that a path can mean."""
        return self._resolve(parts)

    def _below_own_name(self, parts: Sequence[str]) -> list[str]:
        """Files that are meant if a path begins with the last folders of the root itself (``data/img/0.png``)."""
        home = [_key(part) for part in self.root.absolute().parts[-_DEEPEST:]]
        begins = [_key(part) for part in parts[: len(home)]]
        found = {
            name
            for n in range(1, len(begins) + 1)
            if begins[:n] == home[-n:]
            for name in self._resolve(parts[n:])
        }
        return sorted(found)

    def _refuse_url(self, text: str) -> None:
        if _URL.match(text.strip()):
            raise PathRefusedError(
                f"{text!r} is a URL", "Download the images first; featstore reads files only."
            )

    def _inner(self, text: str) -> list[str] | None:
        """Parts of a relative path that stays inside; None for a path that is absolute or has ``..``."""
        plain = text.strip()
        windows = PureWindowsPath(plain)
        if PurePosixPath(plain).is_absolute() or windows.drive or plain.startswith("\\"):
            return None
        parts = [part for part in re.split(r"[/\\]", plain) if part.strip() not in {"", "."}]
        return None if any(part.strip() == ".." for part in parts) else parts

    def _from_outside(self, text: str) -> str:
        """Name of the file that an absolute path means, or one with ``..``."""
        absolute = not text.startswith("..") and (
            PurePosixPath(text).is_absolute() or bool(PureWindowsPath(text).drive) or text.startswith("\\")
        )
        if not absolute:
            return self._from_above(text)
        parts = [part for part in re.split(r"[/\\]", text) if part not in {"", "."}][-_DEEPEST:]
        if ".." in parts:
            raise PathRefusedError(f"{text!r} leaves the folder", "Write the path without '..'.")
        for home in {os.path.abspath(self.root), os.path.realpath(self.root)}:  # noqa: PTH100 - links must stay
            inside = text.startswith("/") and Path(text).is_relative_to(home)
            if inside and (name := self._only(text, self._resolve(Path(text).relative_to(home).parts))):
                return name
        tails = (self._resolve(parts[at:]) for at in range(len(parts)))
        found = sorted({name for tail in tails for name in tail})
        if not self.chosen:
            raise PathRefusedError(*self._absolute(text, found))
        if not found:
            raise PathRefusedError(
                f"{text!r} is an absolute path, and no file below {str(self.root)!r} fits it",
                "Give the folder below which the images are: --root FOLDER, or write paths relative to it.",
            )
        return self._only(text, found) or found[0]

    def _absolute(self, text: str, found: Sequence[str]) -> tuple[str, str]:
        home = str(self.root.absolute())
        if found:
            what = f"{text!r} is an absolute path outside {home!r}, where the nearest file is {found[0]!r}"
            return what, f"If that is meant, say where the images are: --root {_quoted(home)}"
        if text.startswith("/") and Path(text).exists():
            folder = str(Path(text).parent)
            return (
                f"{text!r} is an absolute path outside the folder of the CSV file",
                f"If all images are below one folder, name it, for instance --root {_quoted(folder)}",
            )
        return (
            f"{text!r} is an absolute path, and no file here fits it",
            "Give paths relative to the CSV file, or the folder where the images are: --root FOLDER",
        )

    def _from_above(self, text: str) -> str:
        path = os.path.normpath(self.base.absolute() / "/".join(re.split(r"[/\\]", text)))
        if not self.chosen:
            above = os.path.normpath(self.base.absolute() / "/".join([".."] * _ups(text)))
            raise PathRefusedError(
                f"{text!r} leaves the folder",
                f"Put the CSV file above all images, or say where the images are: --root {_quoted(above)}",
            )
        home = os.path.abspath(self.root)  # noqa: PTH100 - links must stay
        if not Path(path).is_relative_to(home):
            raise PathRefusedError(
                f"{text!r} leaves the folder {home!r}", "Give a folder above all images: --root FOLDER"
            )
        parts = Path(path).relative_to(home).parts
        return self._only(text, self._resolve(parts)) or "/".join(parts)

    def _only(self, text: str, found: Sequence[str]) -> str | None:
        if len(found) > 1:
            raise PathRefusedError(
                f"{text!r} could be {found[0]!r} or {found[1]!r}", self._which(text, found[0])
            )
        return found[0] if found else None

    def _which(self, text: str, one: str) -> str:
        if self.suffix is None and not _has_suffix(text):
            return (
                f"Say which suffix is meant: --suffix {PurePosixPath(one).suffix}; or write the path in full."
            )
        return "Write the path exactly as the file is called."

    def _is_there(self, name: str) -> bool:
        try:
            return stat.S_ISREG((self.root / name).stat().st_mode)
        except (OSError, ValueError):
            return False

    def _resolve(self, parts: Sequence[str]) -> list[str]:
        """Files that a relative path can mean; one of exactly that name is the only one."""
        folders = [""]
        for part in parts[:-1]:
            folders = [f"{f}{name}/" for f in folders for name in self._meant(f, part)][:_DEEPEST]
        found = (
            [f"{f}{name}" for f in folders for name in self._meant(f, parts[-1], image=True)] if parts else []
        )
        return [name for name in found if self._is_there(name)]

    def _meant(self, folder: str, part: str, *, image: bool = False) -> list[str]:
        """Names in a folder that a part of a path can mean, by the first rule that gives one."""
        names = self._listing(folder)
        if part in names.exact:
            return [part]
        if alike := names.alike.get(_key(part)):
            return alike
        if not image:
            return []
        if not _has_suffix(part):
            if self.suffix and (alike := names.alike.get(_key(f"{part.strip()}{self.suffix}"))):
                return [f"{part.strip()}{self.suffix}"] if f"{part.strip()}{self.suffix}" in alike else alike
            return names.stems.get(_key(part), [])
        kind = SUFFIXES[PurePosixPath(part.strip()).suffix.lower()]
        same = names.stems.get(_key(_stem(part)), [])
        return [name for name in same if SUFFIXES[PurePosixPath(name).suffix.lower()] == kind]

    def _listing(self, folder: str) -> _Names:
        if folder not in self._folders:
            names = _Names()
            try:
                exact = os.listdir(self.root / folder)  # noqa: PTH208 - names are what is wanted
            except (OSError, ValueError):
                exact = []
            names.exact.update(exact)
            for name in sorted(exact):
                names.alike[_key(name)].append(name)
                if _has_suffix(name):
                    names.stems[_key(_stem(name))].append(name)
            self._folders[folder] = names
        return self._folders[folder]

    def _walk(self) -> Iterator[tuple[str, ...]]:
        """Parts of the first files below the root; links are not followed."""
        count = 0
        for folder, folders, files in os.walk(self.root):
            folders.sort()
            parts = Path(folder).relative_to(self.root).parts
            for name in sorted(files):
                yield (*parts, name)
            count += len(files) + 1
            if count > _MOST_FILES:
                return

    def _beginnings(self, parts: Sequence[str]) -> set[tuple[str, ...]]:
        """Folders below the root in which a path would be found."""
        wanted = [_key(part) for part in parts]
        last = {wanted[-1], _key(_stem(parts[-1]))} if wanted else set()
        return {
            path[: -len(parts)]
            for path in self._walk()
            if len(path) > len(parts)
            and last & {_key(path[-1]), *([] if _has_suffix(parts[-1]) else [_key(_stem(path[-1]))])}
            and [_key(part) for part in path[-len(parts) : -1]] == wanted[:-1]
        }

    def _around(self) -> list[Path]:
        """Folders above the CSV file's, and those beside it."""
        above = [Path(os.path.normpath(self.base.absolute() / up)) for up in ("..", "../..")]
        try:
            beside = [path for path in sorted(above[0].iterdir())[:_MOST_BESIDE] if path.is_dir()]
        except OSError:
            beside = []
        return [path for path in [*above, *beside] if path != self.root.absolute()]


def difference(text: str, name: str) -> str | None:
    """What a path differs in from the name of its file; None where it does not, but for ``./`` and ``//``."""
    if PurePosixPath(text).as_posix() == name:
        return None
    plain = text.strip()
    if "\\" in plain and "\\" not in name:
        plain = plain.replace("\\", "/")
        if PurePosixPath(plain).as_posix() == name:
            return "backslashes"
    outside = PurePosixPath(plain).is_absolute() or PureWindowsPath(plain).drive
    if outside or len(PurePosixPath(plain).parts) != len(PurePosixPath(name).parts):
        return "folder"
    if _key(plain) == _key(name) or _key(PurePosixPath(plain).as_posix()) == _key(name):
        same = plain.casefold() == name.casefold() and plain != name
        return "capitals" if same else "spaces or accents"
    return "suffix"


def _ups(text: str) -> int:
    return sum(
        part == ".." for part in PurePosixPath(os.path.normpath("/".join(re.split(r"[/\\]", text)))).parts
    )


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()


def _has_suffix(name: str) -> bool:
    return PurePosixPath(name.strip()).suffix.lower() in SUFFIXES


def _stem(name: str) -> str:
    return PurePosixPath(name.strip()).stem if _has_suffix(name) else name


def _quoted(folder: str) -> str:
    return shlex.quote(folder)
