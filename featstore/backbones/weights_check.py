"""Checks of weights files: whether one may be read at all, and whether it is the one that was published."""

from __future__ import annotations

import hashlib
import logging
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from featstore.errors import RefusedFileError, WeightsError
from featstore.isolated_reading import LostError, call_isolated

if TYPE_CHECKING:
    from featstore.backbones.catalog import Row


# Published digests: anybody may have put another file into Keras' folder.

log = logging.getLogger(__name__)

_DIGEST = re.compile(r"""["']([0-9a-f]{32}|[0-9a-f]{64})["']""")
_NAMED = re.compile(r"-([0-9a-f]{8})\.pth")
"""PyTorch's way to name weights: the first digits of their SHA-256."""
_MD5_DIGITS = 32


def require_published(row: Row, path: Path, sha256: str) -> None:
    """Refuse a file whose digest is none of those that came with the network; say where there are none to compare.

    Parameters
    ----------
    row
        Row of the catalogue.
    path
        The file that would be taken for its ImageNet weights.
    sha256
        Digest of its bytes, 64 hex digits.

    Raises
    ------
    WeightsError
        If it is another file.
    """
    named = _NAMED.search(path.name)
    if named is not None:
        if not sha256.startswith(named[1]):
            raise _tampered_error(row, path, "Install the package that brings it anew")
        return
    known = digests(row.builder.rpartition(":")[2])
    if not known:
        _log_unknown_digest(row.name, sha256)
        return
    stat = path.stat()
    of_md5 = any(len(one) == _MD5_DIGITS for one in known)
    mine = {sha256, _md5(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)} if of_md5 else {sha256}
    if known.isdisjoint(mine):
        raise _tampered_error(row, path, "Delete it, and Keras fetches it anew")


@lru_cache
def digests(name: str) -> frozenset[str]:
    """Digests, MD5 or SHA-256, that stand in Keras' source beside a network: of its files with and without top."""
    found = find_spec("keras")
    if found is None or found.origin is None:
        return frozenset()
    folder = Path(found.origin).parent / "src" / "applications"
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*.py")))
    own = (text for text in texts if re.search(rf"^def {re.escape(name)}\(", text, re.MULTILINE))
    return frozenset(match[1] for text in own for match in _DIGEST.finditer(text))


@lru_cache
def _md5(path: Path, *_state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@lru_cache
def _log_unknown_digest(name: str, sha256: str) -> None:
    log.warning("Keras publishes no digest of the ImageNet weights of %s; taken on trust: %s", name, sha256)


def _tampered_error(row: Row, path: Path, remedy: str) -> WeightsError:
    return WeightsError(
        f"{row.name}: {path} is not the file that was published as its ImageNet weights.",
        f"{remedy}; or, if it is meant, name it: --weights {row.name}=PATH.",
    )


# Structure

SAVE_WEIGHTS = "Save the weights alone, model.save_weights('x.weights.h5'), and name that file."


def require_sound(path: Path) -> None:
    """Have an HDF5 file read by another process before Keras reads it here, as any file may be a stranger's.

    Raises
    ------
    RefusedFileError
        If it reaches outside itself, is not whole, or ends that process.
    """
    try:
        call_isolated("featstore.store.hdf5_guard:weights_are_sound", path)
    except LostError as error:
        raise RefusedFileError(f"{path} is refused: {error}.", SAVE_WEIGHTS) from error
