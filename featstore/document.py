"""JSON from a stranger: finite numbers, one meaning a key, bounded depth; and a seal that shows damage."""

from __future__ import annotations

import json
from math import isfinite
from typing import TYPE_CHECKING, Any

from featstore.files import read_regular
from featstore.fingerprint import digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SMALL, LARGE = 1 << 16, 1 << 26
"""Bytes that a note of a few fields and a document of a run may have."""
MAX_DEPTH = 64
MAX_LISTS = 1 << 21
"""Lists and objects of one document: empty ones take thirty times their bytes."""
SEAL = "sha256"


class DocumentError(ValueError):
    """Bytes that are no document. One line, without a full stop."""


def parse(data: bytes | str) -> Any:  # noqa: ANN401
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
        As for `parse`.
    """
    return parse(read_regular(path, limit))


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
