"""Tables of columns as spreadsheets and data frames are written: CSV and Parquet."""

from __future__ import annotations

import csv
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from featstore.exchange.formats import require_pyarrow
from featstore.exchange.table import (
    NOT_NUMBERS,
    NOT_SAID,
    Table,
    block_of,
    called,
    chosen,
    numbered,
    picked,
    require_names,
    require_unpacked,
)
from featstore.store.guard import FOREIGN_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

FLOAT_BYTES = 8
DELTA = frozenset({"DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"})
"""Encodings of texts that share their beginnings, which pyarrow does not take for a dictionary."""
BATCH_ROWS, BATCH_BYTES = 1 << 13, 64 << 20
"""Names that are unpacked at once, and bytes that they may take."""


def from_parquet(path: Path, features: str | None, names: str | None) -> Table:
    """A column of lists, or columns of numbers: the names are read first, and no other text at all."""
    kinds = require_pyarrow().types
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        schema = file.schema_arrow
        lists = [f.name for f in schema if kinds.is_fixed_size_list(f.type) or kinds.is_list(f.type)]
        texts = [f.name for f in schema if _is_text(kinds, f.type)]
        single = [f.name for f in schema if kinds.is_floating(f.type) or kinds.is_integer(f.type)]
        column = chosen("--rows", names, called(texts) or texts)
        about = bool(lists) and not (features and _is_about(features, single))
        name, wanted = block_of(features, lists) if about else ("", features)
        read = [name] if about else single
        _require_bounded(file, [column, *read])
        rows = _names(path, column)
        page = file.read(columns=read)
    if about:
        block = _lists(page[name])
        others = {other: NOT_SAID for other in (*lists, *single) if other != name}
        columns = numbered(name, block)
    else:
        block = (
            np.column_stack([page[name].to_numpy() for name in single])
            if single
            else np.empty((len(rows), 0))
        )
        columns, others = tuple(single), dict.fromkeys(lists, NOT_SAID)
    left = {name: NOT_NUMBERS for name in schema.names if name not in {*lists, *single, column}}
    return picked(rows, block, columns, wanted, {**left, **others})


def _is_text(kinds: Any, kind: Any) -> bool:  # noqa: ANN401
    if kinds.is_dictionary(kind):
        return _is_text(kinds, kind.value_type)
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind))


def _columns(file: Any, wanted: Sequence[str]) -> Iterator[Any]:  # noqa: ANN401
    """What the file says of the parts of some columns."""
    groups = (file.metadata.row_group(at) for at in range(file.metadata.num_row_groups))
    parts = (group.column(at) for group in groups for at in range(group.num_columns))
    return (part for part in parts if part.path_in_schema.split(".")[0] in wanted)


def _require_bounded(file: Any, wanted: Sequence[str]) -> None:  # noqa: ANN401
    """Refuse columns that hold far more values than the file has bytes: one value can stand for any number."""
    values = FLOAT_BYTES * sum(part.num_values for part in _columns(file, wanted))
    if values > FOREIGN_BYTES:
        raise ValueError(f"it unpacks to {values // FLOAT_BYTES:,} values")
    require_unpacked(values, sum(part.total_compressed_size for part in _columns(file, wanted)))


def _names(path: Path, column: str) -> tuple[str, ...]:
    """One text for each row, unpacked a few at a time: a text that stands there once may be meant in every row."""
    from pyarrow import compute
    from pyarrow.parquet import ParquetFile

    rows: list[str] = []
    total = 0
    with ParquetFile(path) as file:
        parts = [*_columns(file, [column])]
        shares_beginnings = any(DELTA & {*part.encodings} for part in parts)
    options: dict[str, Any] = {} if shares_beginnings else {"read_dictionary": [column]}
    size = BATCH_ROWS
    if shares_beginnings:
        longest = max(part.total_uncompressed_size for part in parts)
        size = max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, longest)))
    with ParquetFile(path, **options) as file:
        for batch in file.iter_batches(size, columns=[column]):
            found = batch.column(0)
            coded = found if hasattr(found, "dictionary") else found.dictionary_encode()
            lengths = compute.binary_length(coded.dictionary)
            total += compute.sum(compute.take(lengths, coded.indices)).as_py() or 0
            require_names(compute.max(lengths).as_py() or 0, total)
            texts = [str(text) for text in coded.dictionary.to_pylist()]
            rows += ["None" if at is None else texts[at] for at in coded.indices.to_pylist()]
    return tuple(rows)


def _is_about(features: str, columns: Sequence[str]) -> bool:
    """Whether columns were named, and not a block."""
    return any(fnmatchcase(name, part.strip()) for part in features.split(",") for name in columns)


def _lists(column: Any) -> NDArray[Any]:  # noqa: ANN401
    """``(n, d)`` from a column of n lists."""
    from pyarrow.compute import list_value_length

    lengths = set(list_value_length(column).to_pylist())
    if len(lengths) != 1 or None in lengths:
        raise ValueError("its lists of numbers are not all of one length")
    flat: NDArray[Any] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1)


def from_csv(path: Path, features: str | None, names: str | None) -> Table:
    """Columns of numbers, as the first line below the header tells."""
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = csv.reader(file, delimiter=_delimiter(file))
        header = _headed(next(lines, []))
        first = next(lines, [])
        _require_width(first, header, 2)
        texts = [name for name, cell in zip(header, first, strict=True) if not _is_number(cell)]
        column = chosen("--rows", names, called(header) or texts, header)
        numbers = [at for at, name in enumerate(header) if name not in {column, *texts}]
        at = header.index(column)
        rows, values = [first[at]], [_numbers(first, 2, header, numbers)]
        for line in lines:
            values.append(_numbers(line, lines.line_num, header, numbers))
            rows.append(line[at])
    left = {name: f"{NOT_NUMBERS}: {first[header.index(name)]!r}" for name in texts if name != column}
    return picked(tuple(rows), np.array(values), [header[n] for n in numbers], features, left)


def _delimiter(file: TextIO) -> str:
    """What stands between the names of the header: a comma or, where there is none, a semicolon or a tab."""
    line = file.readline()
    file.seek(0)
    return next((mark for mark in (",", ";", "\t") if mark in line), ",")


def _headed(header: Sequence[str]) -> list[str]:
    """The header, with ``(column 3)`` for what has no name, and the number beside a name that stands there before."""
    seen: set[str] = set()
    names = []
    for at, name in enumerate(header, start=1):
        told = name if name.strip() and name not in seen else f"{name.strip()} (column {at})".strip()
        seen.add(told)
        names.append(told)
    return names


def _require_width(line: Sequence[str], header: Sequence[str], number: int) -> None:
    if len(line) != len(header):
        raise ValueError(f"line {number} has {len(line)} cells, the header {len(header)}")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(
    line: Sequence[str], number: int, header: Sequence[str], wanted: Sequence[int]
) -> NDArray[np.float64]:
    _require_width(line, header, number)
    try:
        return np.array([float(line[at]) for at in wanted], np.float64)
    except ValueError as error:
        at = next(at for at in wanted if not _is_number(line[at]))
        raise ValueError(
            f"line {number}, column {header[at]!r} holds {line[at][:40]!r}, which is no number"
        ) from error
