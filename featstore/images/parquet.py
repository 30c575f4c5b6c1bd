"""Tables of images as Parquet files: their cells as text, as a CSV file would have them.

pyarrow is imported in the process that reads foreign files alone: it starts threads, which no fork survives.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from featstore.errors import ManifestError, UsageError
from featstore.isolated_reading import LostError, call_isolated

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BATCH_ROWS = 1 << 13
AGAIN = "Write it again, or save the table as CSV in UTF-8."
INDEX = "__index_level_"
"""Of columns that pandas adds by itself."""


def read_cells(path: Path, cells: int, characters: int) -> tuple[list[str], list[list[str]], list[str]]:
    """Read names of columns, the rows below, and names of those left out: columns of lists, bytes and the like.

    Parameters
    ----------
    path
        The file.
    cells, characters
        The most that it may hold.

    Raises
    ------
    ManifestError
        If it is damaged, or holds more.
    UsageError
        If pyarrow is not installed.
    """
    try:
        page, _ = call_isolated("featstore.images.parquet:read", path, cells, characters)
    except LostError as error:
        raise ManifestError(f"{str(path)!r} cannot be read as Parquet: {error}.", AGAIN) from error
    return page["columns"], page["rows"], page["others"]


def read(path: Path, cells: int, characters: int) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Read a table, as `read_cells` says; run by `featstore.isolated_reading`."""
    arrow = require_pyarrow()
    try:
        return _read(path, cells, characters), []
    except (arrow.ArrowException, OSError, ValueError, MemoryError) as error:
        why = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise ManifestError(f"{str(path)!r} cannot be read as Parquet: {why}.", AGAIN) from error


def _read(path: Path, cells: int, characters: int) -> dict[str, Any]:
    from pyarrow.parquet import ParquetFile

    kinds = require_pyarrow().types
    rows: list[list[str]] = []
    with ParquetFile(path) as file:
        fields = [f for f in file.schema_arrow if _is_plain(kinds, f.type) and not f.name.startswith(INDEX)]
        names = [field.name for field in fields]
        others = [f.name for f in file.schema_arrow if not _is_plain(kinds, f.type)]
        if file.metadata.num_rows * (len(names) + 1) > cells:
            raise ValueError("there are more rows and columns than can be read")
        for batch in file.iter_batches(BATCH_ROWS, columns=names):
            if batch.nbytes > characters:
                raise ValueError("it unpacks to more text than can be read")
            columns = [[_text(cell) for cell in column.to_pylist()] for column in batch.columns]
            characters -= sum(len(text) for column in columns for text in column)
            if characters < 0:
                raise ValueError("it unpacks to more text than can be read")
            rows += map(list, zip(*columns, strict=True))
    return {"columns": names, "rows": rows, "others": others}


def _is_plain(kinds: Any, kind: Any) -> bool:  # noqa: ANN401
    """Whether a type is one of text, numbers, yes and no, or dates."""
    if kinds.is_dictionary(kind):
        return _is_plain(kinds, kind.value_type)
    text = kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_null(kind)
    number = kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind)
    return bool(text or number or kinds.is_boolean(kind) or kinds.is_temporal(kind))


def _text(cell: object) -> str:
    """Spell a cell as a CSV file would: nothing for what is missing, 7 for 7.0, 1 for true."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, bool):
        return str(int(cell))
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def require_pyarrow() -> Any:  # noqa: ANN401
    """Return the module ``pyarrow``, an extra of featstore.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise UsageError("Parquet needs pyarrow.", "Install it: pip install 'featstore[parquet]'.") from error
    return pa
