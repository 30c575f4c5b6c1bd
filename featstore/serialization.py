"""Canonical JSON, digests, sealed documents, and files that are read without trust."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from io import BufferedReader
    from pathlib import Path


# Canonical JSON and SHA-256: how a value becomes a name

SHORT_DIGITS = 8


def canonical_json(value: Any) -> str:  # noqa: ANN401
    """Serialise `value` to the one JSON text that stands for it: sorted keys, no spaces, ASCII, finite."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:  # noqa: ANN401
    """SHA-256 (64 hex digits) of the canonical JSON of `value`."""
    return digest_bytes(canonical_json(value).encode())


def short_digest(value: Any) -> str:  # noqa: ANN401
    """Return the first 8 hex digits of `digest`: enough to tell folders apart, never trusted alone."""
    return digest(value)[:SHORT_DIGITS]


def digest_bytes(data: bytes | memoryview) -> str:
    """SHA-256 (64 hex digits) of bytes."""
    return hashlib.sha256(data).hexdigest()


def digest_blocks(blocks: Iterable[bytes | memoryview]) -> str:
    """SHA-256 (64 hex digits) of bytes that come in blocks."""
    found = hashlib.sha256()
    for block in blocks:
        found.update(block)
    return found.hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# JSON that is not trusted: finite numbers, one meaning a key, bounded depth; and a seal that shows damage

SMALL, LARGE = 1 << 16, 1 << 26
"""Bytes that a note of a few fields and a document of a run may have."""
MAX_DEPTH = 64
MAX_LISTS = 1 << 21
"""Lists and objects of one document: empty ones take thirty times their bytes."""
SEAL = "sha256"


class DocumentError(ValueError):
    """Bytes that are no document. One line, without a full stop."""


def parse_json(data: bytes | str) -> Any:  # noqa: ANN401
    """Value of a JSON text.

    Raises
    ------
    DocumentError
        If the text is no JSON in UTF-8, holds NaN, an infinity, a number beyond all measure or a key twice, is nested
        deeper than `MAX_DEPTH`, or holds more than `MAX_LISTS`.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        _check_lists(text)
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite)
        _check_depth(value)
    except DocumentError:
        raise
    except RecursionError as error:
        raise DocumentError(f"it is nested deeper than {MAX_DEPTH}") from error
    except ValueError as error:  # UnicodeDecodeError, JSONDecodeError, an integer of thousands of digits
        raise DocumentError(f"it is no JSON: {str(error).partition(';')[0]}") from error
    return value


def _check_lists(text: str) -> None:
    if text.count("[") + text.count("{") > MAX_LISTS:
        raise DocumentError(f"it holds more than {MAX_LISTS:,} lists and objects")


def read(path: Path, limit: int = SMALL) -> Any:  # noqa: ANN401
    """Value of a JSON file of at most `limit` bytes.

    Raises
    ------
    OSError
        If the file cannot be read, is none, or is larger.
    DocumentError
        As for `parse_json`.
    """
    return parse_json(read_regular(path, limit))


def seal(document: Mapping[str, Any]) -> dict[str, Any]:
    """Add the digest of its content to a document. It shows damage and mix-ups; it keeps nobody from forging."""
    return {**document, SEAL: digest(dict(document))}


def unseal(document: Any) -> dict[str, Any]:  # noqa: ANN401
    """Take the seal off again.

    Raises
    ------
    DocumentError
        If there is no seal, or the content is not what was sealed.
    """
    if not isinstance(document, dict):
        raise DocumentError(f"it is {type(document).__name__} and no document")
    content = {key: value for key, value in document.items() if key != SEAL}
    if document.get(SEAL) != digest(content):
        raise DocumentError("its content is not what was sealed")
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise DocumentError("a key stands twice in it")
    return found


def _no_number(name: str) -> Any:  # noqa: ANN401
    raise DocumentError(f"{name} is no number")


def _finite(text: str) -> float:
    if not isfinite(value := float(text)):
        raise DocumentError(f"{text[:20]} is no finite number")
    return value


def _check_depth(value: Any) -> None:  # noqa: ANN401
    """Level by level, without recursion: what reads the document later may recurse."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [part for whole in level for part in _parts(whole)]
        if not level:
            return
    raise DocumentError(f"it is nested deeper than {MAX_DEPTH}")


def _parts(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


# Files from elsewhere, read without waiting or overflowing; files that only their owner may read

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
# A pipe would keep its reader waiting for a writer that never comes; this flag makes opening it return at once.
_AT_ONCE = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


class UnfitFileError(OSError):
    """A path that holds something else than a file of acceptable size; `strerror` says what."""


def open_regular(path: Path, *, follow_links: bool = True) -> BufferedReader:
    """Open a file for reading; what is no file, perhaps behind a link, is refused without waiting for it.

    The look is at the open file, so that nothing can be put in its place between looking and opening.

    Raises
    ------
    UnfitFileError
        If the path holds a folder, pipe, socket or device; or a link, where none are followed.
    OSError
        If it cannot be opened.
    """
    try:
        descriptor = os.open(path, _AT_ONCE if follow_links else _AT_ONCE | _NO_LINK)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow_links:
            raise UnfitFileError(errno.ELOOP, "it is a link", str(path)) from error
        if error.errno in {errno.ENXIO, errno.EISDIR}:  # a socket; a folder, on some systems
            raise _no_file(path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_file(path)
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, limit: int, *, follow_links: bool = True) -> bytes:
    """All bytes of a file, if they are at most `limit`; what is longer is not read at all.

    Raises
    ------
    UnfitFileError
        If the path holds a folder, pipe, socket or device, more than `limit` bytes, or a link that is not followed.
    OSError
        If it cannot be read.
    """
    with open_regular(path, follow_links=follow_links) as file:
        return read_bounded(file, path, limit)


def read_regular_into(
    memory: WorkingMemory, path: Path, limit: int, *, follow_links: bool = True
) -> memoryview:
    """As `read_regular`, into memory that is used again: what was read there before is overwritten."""
    with open_regular(path, follow_links=follow_links) as file:
        size = _bounded_size(file, path, limit)
        if len(memory.held) < size:
            memory.held = bytearray(size)
        view = memoryview(memory.held)[:size]
        return view[: file.readinto(view)].toreadonly()


class WorkingMemory:
    """Bytes that are kept and used again: fresh ones cost as much as reading a file into them does.

    Attributes
    ----------
    held
        The bytes.
    """

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = bytearray()


def read_bounded(file: BufferedReader, path: Path, limit: int) -> bytes:
    """All bytes of an open file; see `read_regular`."""
    return file.read(_bounded_size(file, path, limit))


def _bounded_size(file: BufferedReader, path: Path, limit: int) -> int:
    size = os.fstat(file.fileno()).st_size
    if size > limit:
        raise UnfitFileError(errno.EFBIG, f"it has {size:,} bytes, more than {limit:,}", str(path))
    return size


def write_private(path: Path, data: bytes) -> None:
    """Put a file in its place at once, readable for its owner alone."""
    draft = path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _no_file(path: Path) -> UnfitFileError:
    return UnfitFileError(errno.EINVAL, "it is a folder, pipe, socket or device", str(path))
