"""Sealed archives: a ZIP of plain members with the SHA-256 of each, written alike everywhere and read without trust.

Members are stored and never compressed, so that together they cannot be larger than the file: a small file that
unpacks to a large one cannot be made of it. Nothing is unpacked to the disk, and a name is a name and no path.
The seal shows damage and mix-ups; it keeps nobody from making an archive of his own.
"""

from __future__ import annotations

import io
import re
import zipfile
from typing import TYPE_CHECKING, Any

from featstore import serialization
from featstore.errors import RefusedFileError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CONTENTS = "contents.json"
"""Member that names the others."""
FORMAT = 1
MAX_MEMBERS = 1000
MAX_BYTES = 1 << 34
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DATE = (1980, 1, 1, 0, 0, 0)
_ENCRYPTED = 0x1
REMEDY = "Get the file again from where it was made."


def seal_archive(kind: str, members: Mapping[str, bytes], about: Mapping[str, Any]) -> bytes:
    """Bytes of an archive; equal content gives equal bytes.

    Parameters
    ----------
    kind
        What it is.
    members
        Content by name; letters, digits, ``.``, ``_`` and ``-``.
    about
        JSON-able; kept beside the digests, under their seal.
    """
    listed = {
        name: {"sha256": serialization.digest_bytes(data), "bytes": len(data)}
        for name, data in sorted(members.items())
    }
    contents = serialization.seal({"kind": kind, "format": FORMAT, "about": dict(about), "members": listed})
    text = serialization.canonical_json(contents).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in [(CONTENTS, text), *sorted(members.items())]:
            member = zipfile.ZipInfo(name, _DATE)
            member.external_attr = serialization.PRIVATE_FILE << 16
            archive.writestr(member, data)
    return buffer.getvalue()


def read_archive(path: Path, kind: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Members of an archive by name, and what its maker says about it.

    Raises
    ------
    UsageError
        If there is no such file.
    RefusedFileError
        If it is no archive of that kind, a member is compressed, encrypted, oddly named, named twice, not listed or
        not what was sealed.
    """
    try:
        data = serialization.read_regular(path, MAX_BYTES)
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {path}.", "Check the path.") from error
    except OSError as error:
        raise RefusedFileError(f"{path} cannot be read: {error.strerror}.", REMEDY) from error
    try:
        return _opened(data, kind)
    except (
        zipfile.BadZipFile,
        serialization.DocumentError,
        OSError,
        ValueError,
        LookupError,
        EOFError,
        TypeError,
        AttributeError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise RefusedFileError(f"{path} is refused: {why}.", REMEDY) from error


def _opened(data: bytes, kind: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        _check_members(members, len(data))
        found = {member.filename: archive.read(member) for member in members}
    if CONTENTS not in found:
        raise ValueError("it is no sealed archive")
    contents = serialization.unseal(serialization.parse_json(found.pop(CONTENTS)))
    if contents.get("kind") != kind:
        raise ValueError(f"it is {str(contents.get('kind'))[:40]!r}, and {kind!r} is wanted")
    if contents.get("format") != FORMAT:
        raise ValueError(
            f"its format is {str(contents.get('format'))[:20]}, and this featstore reads {FORMAT}"
        )
    listed, about = contents["members"], contents["about"]
    if not isinstance(about, dict) or set(listed) != set(found):
        raise ValueError("its members are not those that were sealed")
    for name, content in found.items():
        if listed[name] != {"sha256": serialization.digest_bytes(content), "bytes": len(content)}:
            raise ValueError(f"its member {name} is not what was sealed")
    return found, about


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    if len(members) > MAX_MEMBERS:
        raise ValueError(f"it has more than {MAX_MEMBERS} members")
    for member in members:
        if not _NAME.fullmatch(member.filename):
            raise ValueError(f"its member {member.filename[:80]!r} is a path and no name")
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & _ENCRYPTED:
            raise ValueError(f"its member {member.filename} is compressed or encrypted")
    if len({member.filename for member in members}) < len(members):
        raise ValueError("two of its members have one name")
    if sum(member.file_size for member in members) > size:
        raise ValueError("its members announce more bytes than it has")
