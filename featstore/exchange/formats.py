"""The formats of an export. Each writer says which files it makes, and how to make the bytes of each."""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.errors import UsageError
from featstore.exchange.frame import TEST
from featstore.store import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.exchange.frame import Frame
    from featstore.types import Features

    Pages = dict[Path, Callable[[], bytes]]


def npz(table: Frame, out: Path) -> Pages:
    """One archive: text columns, ``y``, ``classes``, ``provenance``, and ``features/<Backbone>``."""
    return {out: partial(_npz, table)}


def parquet(table: Frame, out: Path) -> Pages:
    """One table: text columns, ``y``, and a list column named after each backbone."""
    return {out: partial(_parquet, table)}


def gap(table: Frame, out: Path) -> Pages:
    """``gap_<Backbone>.h5`` as the Keras scripts of feature fusion read it: ``train``, ``test``, ``label``.

    Beside these stand what the scripts do not know and a careful reader needs: ids, paths, groups and labels of both
    parts. Whatever is not in the split ``test`` is ``train``; where there are no splits, ``test`` is empty.
    """
    if out.suffix and len(table.features) > 1:
        raise UsageError(
            f"{out} is one file, and there are {len(table.features)} backbones.", "Give a folder."
        )
    return {
        out if out.suffix else out / f"gap_{name}.h5": partial(_gap, table, values)
        for name, values in table.features.items()
    }


WRITERS: dict[str, Callable[[Frame, Path], Pages]] = {"npz": npz, "parquet": parquet, "gap": gap}


def _npz(table: Frame) -> bytes:
    buffer = io.BytesIO()
    blocks = {f"features/{name}": values for name, values in table.features.items()}
    rest = {"y": table.y, "classes": np.array(table.classes), "provenance": np.array(table.provenance)}
    np.savez(buffer, allow_pickle=False, **table.texts, **rest, **blocks)
    return buffer.getvalue()


def _parquet(table: Frame) -> bytes:
    arrow = require_pyarrow()
    from pyarrow.parquet import write_table

    columns = {name: arrow.array([_valid(text) for text in texts]) for name, texts in table.texts.items()}
    columns["y"] = arrow.array(table.y)
    for name, values in table.features.items():
        columns[name] = arrow.FixedSizeListArray.from_arrays(values.ravel(), values.shape[1])
    page = arrow.table(columns).replace_schema_metadata({"featstore": table.provenance})
    buffer = io.BytesIO()
    write_table(page, buffer)
    return buffer.getvalue()


def _gap(table: Frame, values: Features) -> bytes:
    parts = {"train": table.splits != TEST, "test": table.splits == TEST}
    arrays: dict[str, NDArray[Any]] = {name: values[rows] for name, rows in parts.items()}
    arrays["label"] = table.y[parts["train"]].astype(np.int32)  # as flow_from_directory(...).classes
    arrays["test_label"] = table.y[parts["test"]].astype(np.int32)
    for name, rows in parts.items():
        for column in ("id", "path", "group"):
            arrays[f"{name}_{column}"] = _fixed(table.texts[column][rows])
    arrays["classes"] = _fixed(table.classes)
    return plain.encode(arrays, {"provenance": table.provenance})


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


def _fixed(texts: Iterable[str]) -> NDArray[np.bytes_]:
    """Fixed-length bytes, UTF-8: they cannot point anywhere, and keep file names that are no Unicode."""
    coded = [text.encode("utf-8", "surrogateescape") for text in texts]
    return np.array(coded, f"S{max([1, *map(len, coded)])}")


def _valid(text: str) -> str:
    """Parquet takes Unicode alone; a byte of a file name that is none is written out as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()
