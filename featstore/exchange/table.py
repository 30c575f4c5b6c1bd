"""A table out of a foreign file: named rows and columns of numbers, and what else there was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from featstore.errors import UsageError, nearest
from featstore.exchange.columns import matching

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NAMES = (
    "id", "ids", "path", "paths", "file", "files", "filename", "filenames", "file_name", "filepath", "name", "names",
    "image", "images", "image_id", "image_path", "img", "img_path",
)  # fmt: skip
"""What the column that says which image a row belongs to is called elsewhere, likeliest first, in small letters."""
MAX_NAME, MAX_NAMES = 1 << 12, 256 << 20
"""Bytes of the name of a row, as of the longest path, and of all names together."""
UNPACKED, UNPACKED_PER_BYTE = 64 << 20, 1 << 10
"""Bytes that a file may unpack to: so many, and so many for each of its own, which deflate can reach."""
NOT_NUMBERS = "no numbers"
NOT_SAID = "not asked for"


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows of a foreign file.

    Attributes
    ----------
    names
        ``(n,)`` what each row is called: an image id or a path.
    features
        ``(n, d)`` numbers as they were found.
    columns
        Names of the d columns; those of a block are ``block.0``, ``block.1`` ...
    named
        Whether the caller named these columns, and not only the block that they are in.
    unused
        Name of all else in the file, and why it is not in `features`.
    """

    names: tuple[str, ...]
    features: NDArray[Any]
    columns: tuple[str, ...]
    named: bool = False
    unused: dict[str, str] = field(default_factory=dict)


def require_names(longest: int, total: int) -> None:
    """Refuse names that are too long to be any, before they are unpacked."""
    if longest > MAX_NAME:
        raise ValueError(f"the name of a row has {longest:,} bytes, more than {MAX_NAME:,}")
    if total > MAX_NAMES:
        raise ValueError(f"its names have {total:,} bytes, more than {MAX_NAMES:,}")


def require_unpacked(size: int, stored: int) -> None:
    """Refuse what unpacks to far more bytes than the file has."""
    if size > UNPACKED + UNPACKED_PER_BYTE * stored:
        raise ValueError(f"its {stored:,} bytes unpack to {size:,}")


def block_of(features: str | None, blocks: Sequence[str]) -> tuple[str, str | None]:
    """The block that is meant, and what was said of its columns: ``block.0,block.7``, or nothing."""
    if features is None or features in blocks:
        return chosen("--features", features, blocks), None
    named = {part.strip().rpartition(".")[0] for part in features.split(",")}
    if len(named) == 1 and named <= {*blocks}:
        return named.pop(), features
    return chosen("--features", features, blocks), None


def numbered(block: str, values: NDArray[Any]) -> tuple[str, ...]:
    """Names of the columns of a block."""
    return tuple(f"{block}.{at}" for at in range(values.shape[1]))


def picked(
    names: tuple[str, ...],
    values: NDArray[Any],
    columns: Sequence[str],
    wanted: str | None,
    unused: dict[str, str],
) -> Table:
    """Table of the columns that were named; of all where none were."""
    if wanted is None:
        return Table(names, values, tuple(columns), unused=unused)
    parts = [wanted] if wanted in columns else [part.strip() for part in wanted.split(",")]
    asked = {name for part in parts for name in matching(part, columns, "--features")}
    kept = [at for at, name in enumerate(columns) if name in asked]
    left = {name: NOT_SAID for name in columns if name not in asked}
    return Table(
        names, values[:, kept], tuple(columns[at] for at in kept), named=True, unused={**unused, **left}
    )


def called(columns: Sequence[str]) -> list[str]:
    """The column that is called most like names of images, if any is."""
    found = {name.strip().casefold(): name for name in reversed(columns)}
    return [found[name] for name in NAMES if name in found][:1]


def chosen(option: str, wanted: str | None, there: Sequence[str], allowed: Sequence[str] = ()) -> str:
    """The one of `there` that an option names; without, the only one. What is `allowed` beside is never guessed.

    Raises
    ------
    UsageError
        If it cannot be told which is meant.
    """
    if wanted is None and len(there) == 1:
        return there[0]
    if wanted is not None and wanted in (*there, *allowed):
        return wanted
    have = ", ".join(there) or "none"
    what = "block of numbers" if option == "--features" else "column of image ids or paths"
    if wanted is None and not there:
        raise UsageError(
            f"The file has no {what}, so its rows cannot be matched to images.",
            "Write one beside the features.",
        )
    said = "It is not said which" if wanted is None else f"There is no {wanted!r} as a"
    close = nearest(wanted, there) if wanted is not None else []
    question = f"Did you mean {close[0]}? " if close else ""
    raise UsageError(f"{said} {what}; the file has: {have}.", f"{question}Say which with {option} NAME.")
