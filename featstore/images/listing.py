"""What a data set claims to hold, before any file is opened."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from featstore.errors import ManifestError
from featstore.images.manifest import Quarantined

if TYPE_CHECKING:
    from featstore.findings import Finding

_REASONS = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.ELOOP: "loop",
    errno.EINVAL: "not_file",
    errno.EISDIR: "not_file",
    errno.EFBIG: "too_large",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that is said to be an image.

    Attributes
    ----------
    name
        Path relative to the root, with ``/``.
    path
        Where to open it.
    label, group, split, site
        As in `featstore.types.ImageRecord`; group None where not known.
    real
        For a file reached through a link, where it really is; else None.
    """

    name: str
    path: Path
    label: str
    group: str | None = None
    split: str | None = None
    site: str | None = None
    real: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """All entries of a data set, and what was met on the way to them."""

    root: Path
    entries: tuple[Entry, ...]
    unreadable: tuple[Quarantined, ...] = ()
    skipped: int = 0
    findings: tuple[Finding, ...] = ()
    has_groups: bool = False


def quarantine(path: Path, error: OSError) -> Quarantined:
    """Turn the operating system's refusal into a row of the quarantine table."""
    reason = _REASONS.get(error.errno or 0, "unreadable")
    return Quarantined(path, None, reason, error.strerror or str(error))


def real_path_inside(path: Path, root: Path, *, follow_links: bool) -> str:
    """Where `path` really is, links resolved.

    Raises
    ------
    ManifestError
        If that is outside `root` and links must not be followed: a data set that reaches outside its folder
        is not the data set that gets copied, archived or cited.
    """
    real = os.path.realpath(path)
    home = os.path.realpath(root)
    if not follow_links and not Path(real).is_relative_to(home):
        raise ManifestError(
            f"{str(path)!r} is a link out of the data set, to {real!r}.",
            "Copy the images into the folder, or allow such links with --follow-links.",
        )
    return real
