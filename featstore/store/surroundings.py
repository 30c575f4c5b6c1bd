"""What lies in a cache beside its shards: index, tables, pages of backbones, leftovers, and other people's files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from featstore import document
from featstore.errors import StoreError
from featstore.store import facts, index, layout, learned, quarantine, request
from featstore.store.commit import TEMPORARY_PREFIX
from featstore.types import BackboneSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUARANTINED_SHARD = re.compile(r"quarantine/shards/[^/]+\.h5")
MALFORMED = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)


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
    """Look at everything in a cache but its shards; links are not followed."""
    found = Surroundings()
    for path in _files(root):
        name = path.relative_to(root).as_posix()
        kind, check = next(((p, c) for p, c in ROOMS if p.fullmatch(name)), (None, None))
        if path.name.startswith(TEMPORARY_PREFIX):
            found.temporaries.append(path)
        elif kind is None:
            found.strangers.append(path)
        elif check is not None:
            cause = _cause(check, path)
            if cause:
                found.bad.append((path, cause))
        found.quarantined += kind is QUARANTINED_SHARD
    return found


def _files(root: Path) -> Iterator[Path]:
    for folder, inner, names in os.walk(root):
        inner.sort()
        links = (name for name in inner if Path(folder, name).is_symlink())
        yield from (Path(folder, name) for name in sorted([*names, *links]))


def _cause(check: Callable[[Path], object], path: Path) -> str | None:
    try:
        check(path)
    except FileNotFoundError:  # gone since it was listed
        return None
    except MALFORMED as error:
        what = error.cause if isinstance(error, StoreError) else str(error) or type(error).__name__
        return " ".join(what.split())
    return None


def _check_backbone(path: Path) -> None:
    spec = BackboneSpec.from_json(document.read(path))
    if path.parent != layout.backbone_folder(path.parents[2], spec):
        raise ValueError("it describes another backbone than its folder")


ROOMS: tuple[tuple[re.Pattern[str], Callable[[Path], object] | None], ...] = (
    (re.compile(r"features/[^/]+@[0-9a-f]{8}/backbone\.json"), _check_backbone),
    (re.compile(r"features/[^/]+@[0-9a-f]{8}/learned\.json"), learned.read),
    (re.compile(r"features/[^/]+@[0-9a-f]{8}/[^/]+@[0-9a-f]{8}/seed-\d+/[^/.][^/]*\.h5"), None),
    (re.compile(r"facts/[0-9a-f]{8}/[0-9a-f]{64}\.rows"), facts.read),
    (
        re.compile(r"facts/[0-9a-f]{64}\.json"),
        lambda page: document.unseal(document.read(page, document.LARGE)),
    ),
    (re.compile(r"index/[0-9a-f]{64}\.ids"), index.check),
    (re.compile(r"index/[0-9a-f]{64}\.json"), request.check),
    (re.compile(r"quarantine/images/[0-9a-f]{8}/[0-9a-f]{64}\.json"), quarantine.read),
    (QUARANTINED_SHARD, None),
    (re.compile(r"quarantine/[^/]+/[^/]+\.json"), None),
    (re.compile(r"rates/[^/]+/[0-9a-f]{64}\.json"), None),
    (re.compile(r"layouts/[^/]+/[^/]+\.json"), None),
    (re.compile(r"leases/[^/]+"), None),
    (
        re.compile(r"results/[0-9a-f]{64}\.json"),
        lambda page: document.unseal(document.read(page, document.LARGE)),
    ),
)
"""Names of all files that featstore writes, below the cache, and how to tell whether one is sound."""
