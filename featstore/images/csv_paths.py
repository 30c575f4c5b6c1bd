"""Paths in a CSV file: the file of exactly that name, else the only one that the path can mean."""

from __future__ import annotations

import difflib
import os
import re
import shlex
import stat
import unicodedata
from bisect import bisect
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from featstore.images.formats.container import suffixes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:")
_SLASH = re.compile(r"[/\\]")
_UNTIDY = re.compile(r"//|(?:^|/)\.(?:/|$)|/$")
_DEEPEST = 64
_MOST_FILES = 50_000
"""Files that are looked at in search of a near match."""
_MOST_NAMES = 200
"""Neighbours in the order of the alphabet that are looked at for a near match."""
_LONGEST = 255
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
    texts
        All paths of the file: what is recommended must be right for every one of them.
    """

    root: Path
    base: Path
    chosen: bool = False
    suffix: str | None = None
    texts: Sequence[str] = ()
    _folders: dict[str, _Names] = field(default_factory=dict)
    _home: list[str] = field(default_factory=list)

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
        name = PurePosixPath(text).as_posix() if _UNTIDY.search(text) else text
        if inner and self._is_there(name):
            return name
        found = self._resolve(inner) or self._below_own_name(inner) or self._beside_table(inner)
        return self._only(text, found) or "/".join(inner) or "."

    def nearest(self, name: str) -> str | None:
        """A file whose name is much like that of a path that leads nowhere, or None."""
        parts = PurePosixPath(name).parts
        for depth in range(len(parts) - 1, -1, -1):
            names = self._listing("/".join(parts[:depth]))
            there = sorted(names.exact)
            at = bisect(there, parts[depth])
            close = there[max(at - _MOST_NAMES, 0) : at + _MOST_NAMES]
            if near := difflib.get_close_matches(parts[depth][:_LONGEST], close, n=1):
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
        tried = [parts for name in islice(names, _TRIED) if (parts := PurePosixPath(name).parts)]
        files: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
        for path in self._walk():
            for key in {_key(path[-1]), _key(_stem(path[-1]))}:
                files[key].append(path)
        hits: Counter[Path] = Counter()
        for parts in tried:
            hits.update(
                {self.root / "/".join(folder) for folder in _beginnings(parts, files[_key(parts[-1])])}
            )
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
        if not self._home:
            self._home = [_key(part) for part in self.root.absolute().parts[-_DEEPEST:]]
        home = self._home
        if not parts or _key(parts[0]) not in home:
            return []
        begins = [_key(part) for part in parts[: len(home)]]
        found = {
            name
            for n in range(1, len(begins) + 1)
            if begins[:n] == home[-n:]
            for name in self._resolve(parts[n:])
        }
        return sorted(found)

    def _beside_table(self, parts: Sequence[str]) -> list[str]:
        """Files that are meant if one path of many begins at the CSV file, and that is below the root."""
        home, base = os.path.abspath(self.root), os.path.abspath(self.base)  # noqa: PTH100 - links must stay
        if not self.chosen or home == base or not Path(base).is_relative_to(home):
            return []
        return self._resolve([*Path(base).relative_to(home).parts, *parts])

    def _refuse_url(self, text: str) -> None:
        if _URL.match(text):
            raise PathRefusedError(
                f"{text!r} is a URL", "Download the images first; featstore reads files only."
            )

    def _inner(self, text: str) -> list[str] | None:
        """Parts of a relative path that stays inside; None for a path that is absolute or has ``..``."""
        plain = text.strip()
        if _is_absolute(plain):
            return None
        parts = [part for part in _SLASH.split(plain) if part.strip() not in {"", "."}]
        return None if any(part.strip() == ".." for part in parts) else parts

    def _from_outside(self, text: str) -> str:
        """Name of the file that an absolute path means, or one with ``..``."""
        if not _is_absolute(text):
            return self._from_above(text)
        parts = [part for part in _SLASH.split(text) if part not in {"", "."}][-_DEEPEST:]
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
            folders = [os.path.dirname(t.strip()) for t in self.texts or (text,) if t.strip().startswith("/")]  # noqa: PTH120
            folder = os.path.commonpath(folders)
            return (
                f"{text!r} is an absolute path outside the folder of the CSV file",
                f"If all images are below one folder, name it: --root {_quoted(folder)}",
            )
        return (
            f"{text!r} is an absolute path, and no file here fits it",
            "Give paths relative to the CSV file, or the folder where the images are: --root FOLDER",
        )

    def _from_above(self, text: str) -> str:
        path = os.path.normpath(self.base.absolute() / "/".join(_SLASH.split(text)))
        if not self.chosen:
            ups = max(_ups(t.strip()) for t in self.texts or (text,) if not _is_absolute(t.strip()))
            above = os.path.normpath(self.base.absolute() / "/".join([".."] * ups))
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
        if self.suffix is None and not _suffix_of(text):
            return (
                f"Say which suffix is meant: --suffix {PurePosixPath(one).suffix}; or write the path in full."
            )
        return "Write the path exactly as the file is called."

    def _is_there(self, name: str) -> bool:
        try:
            return stat.S_ISREG(os.stat(f"{self.root}/{name}").st_mode)  # noqa: PTH116 - for each of many
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
        if not _suffix_of(part):
            if self.suffix and (alike := names.alike.get(_key(f"{part.strip()}{self.suffix}"))):
                return [f"{part.strip()}{self.suffix}"] if f"{part.strip()}{self.suffix}" in alike else alike
            return names.stems.get(_key(part), [])
        kinds = suffixes()
        same = names.stems.get(_key(_stem(part)), [])
        return [name for name in same if kinds[_suffix_of(name)] == kinds[_suffix_of(part)]]

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
                if _suffix_of(name):
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

    def _around(self) -> list[Path]:
        """Folders above the CSV file's, and those beside it."""
        above = [Path(os.path.normpath(self.base.absolute() / up)) for up in ("..", "../..")]
        try:
            beside = [path for path in sorted(above[0].iterdir())[:_MOST_BESIDE] if path.is_dir()]
        except OSError:
            beside = []
        return [path for path in [*above, *beside] if path != self.root.absolute()]


def _beginnings(parts: Sequence[str], files: Sequence[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Folders in which a path would be found, of files whose last part fits."""
    above = [_key(part) for part in parts[:-1]]
    return {
        path[: -len(parts)]
        for path in files
        if len(path) > len(parts) and [_key(part) for part in path[-len(parts) : -1]] == above
    }


def difference(text: str, name: str) -> str | None:
    """What a path differs in from the name of its file; None where it does not, but for ``./`` and ``//``."""
    if text == name or PurePosixPath(text).as_posix() == name:
        return None
    plain = text.strip()
    if "\\" in plain and "\\" not in name:
        plain = plain.replace("\\", "/")
        if PurePosixPath(plain).as_posix() == name:
            return "backslashes"
    if _is_absolute(plain) or len(PurePosixPath(plain).parts) != len(PurePosixPath(name).parts):
        return "folder"
    if _key(plain) == _key(name) or _key(PurePosixPath(plain).as_posix()) == _key(name):
        same = plain.casefold() == name.casefold() and plain != name
        return "capitals" if same else "spaces or accents"
    return "suffix"


def _is_absolute(text: str) -> bool:
    """Whether a path begins at the root of a disk, a drive or a share, on any system."""
    return _ABSOLUTE.match(text) is not None


def _ups(text: str) -> int:
    return sum(part == ".." for part in PurePosixPath(os.path.normpath("/".join(_SLASH.split(text)))).parts)


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()


def _suffix_of(name: str) -> str:
    """Suffix of an image in small letters, or nothing."""
    _, dot, rest = name.rstrip().rpartition(".")
    suffix = f".{rest.lower()}"
    return suffix if dot and suffix in suffixes() and name.strip() != f".{rest}" else ""


def _stem(name: str) -> str:
    suffix = _suffix_of(name)
    return name.rstrip()[: -len(suffix)] if suffix else name


def _quoted(folder: str) -> str:
    """A folder as a shell takes it; the top of the disk is recommended to nobody."""
    return "FOLDER" if folder == os.path.dirname(folder) else shlex.quote(folder)  # noqa: PTH120
