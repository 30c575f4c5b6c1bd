"""What lies in a cache beside its shards: index, tables, pages of backbones, leftovers, and other people's files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from featstore import document
from featstore.errors import StoreError
from featstore.store import facts, index, layout, learned, quarantine, request, results, rooms
from featstore.types import BackboneSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEEPEST = 32
"""Folders below each other that are looked into; what lies deeper is named by its folder."""
MALFORMED = (
    OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError
)  # fmt: skip


@dataclass(slots=True)
class Surroundings:
    """What `survey` found.

    Attributes
    ----------
    bad
        Damaged files, with the cause.
    strangers
        Files that featstore did not put there.
    temporaries
        Unfinished files.
    quarantined
        Number of bad shards set aside.
    """

    bad: list[tuple[Path, str]] = field(default_factory=list)
    strangers: list[Path] = field(default_factory=list)
    temporaries: list[Path] = field(default_factory=list)
    quarantined: int = 0


def survey(root: Path) -> Surroundings:
    """Look at everything in a cache but its shards; links are not followed.

    Raises
    ------
    StoreError
        If a folder of it cannot be read, or a link stands in the place of one of featstore's.
    """
    found = Surroundings()
    for path in files_below(root, root):
        kind = rooms.kind_of(root, path)
        if kind == rooms.TEMPORARY:
            found.temporaries.append(path)
        elif kind is None:
            found.strangers.append(path)
        elif cause := _cause(CHECKS[kind], path):
            found.bad.append((path, cause))
        found.quarantined += kind == "quarantined"
    return found


def files_below(root: Path, folder: Path) -> Iterator[Path]:
    """All files and links below a folder of a cache, and folders too deep to be looked into, room by room."""
    waiting = [folder]
    while waiting:
        inner = []
        for path in rooms.everything(root, waiting.pop()):
            if rooms.is_folder(path) and len(path.relative_to(root).parts) < DEEPEST:
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
    spec = BackboneSpec.from_json(document.parse(rooms.read_file(path, document.SMALL)))
    if path.parent != layout.backbone_folder(path.parents[2], spec):
        raise ValueError("it describes another backbone than its folder")


def _check_page(path: Path) -> None:
    document.unseal(document.parse(rooms.read_file(path, document.LARGE)))


def _check_file(path: Path) -> None:
    """Of what it says nothing is believed; it must be a file."""
    if not rooms.is_file(path):
        raise ValueError("it is a link, folder, pipe, socket or device")


CHECKS: dict[str, Callable[[Path], object] | None] = {
    "backbone": _check_backbone,
    "learned": learned.read,
    "shard": None,
    "facts": facts.read,
    "copies": _check_page,
    "index": index.check,
    "request": request.check,
    "bad image": quarantine.read,
    "quarantined": None,
    "cause": _check_file,
    "rate": _check_file,
    "layouts": _check_file,
    "lease": _check_file,
    "result": results.check,
}
"""How to tell whether a file is sound, for each kind in `rooms.FILES`; None for shards, which are read elsewhere."""
