"""Export: the aligned features of a data set as one file, for tools that know nothing of featstore."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.errors import StoreError, UsageError
from featstore.images.parquet import require_pyarrow
from featstore.serialization import PRIVATE_FOLDER, write_private
from featstore.store import shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.matrix import FeatureMatrix
    from featstore.types import Features, ImageRecord

    Pages = dict[Path, Callable[[], bytes]]

# Export of one view to a file

SUFFIXES = {".npz": "npz", ".parquet": "parquet", ".h5": "gap", "": "gap"}


@dataclass(frozen=True, slots=True)
class Exported:
    """Outcome of `featstore.export_features`.

    Attributes
    ----------
    files
        Their paths.
    format
        ``npz``, ``parquet`` or ``gap``.
    images
        Number of rows, those of all splits together.
    backbones
        Name and number of columns of each block.
    recipe, seed
        The view.
    excluded
        Images left out because they are in quarantine.
    """

    files: tuple[str, ...]
    format: str
    images: int
    backbones: dict[str, int]
    recipe: str
    seed: int
    excluded: int

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json``."""
        return asdict(self)


def write_export(frame: ExportFrame, out: Path, layout: str, *, overwrite: bool) -> Exported:
    """Write the columns of a data set in one of the formats of `WRITERS`.

    Raises
    ------
    UsageError
        If a file is there already, or the format does not fit.
    StoreError
        If a file cannot be written.
    """
    pages = WRITERS[layout](frame, out)
    _refuse_existing(pages, overwrite=overwrite)
    for path, encode in pages.items():
        _write(path, encode())
    return Exported(
        tuple(map(str, pages)),
        layout,
        len(frame.ids),
        {name: values.shape[1] for name, values in frame.features.items()},
        frame.recipe,
        frame.seed,
        frame.excluded,
    )


def _refuse_existing(paths: Iterable[Path], *, overwrite: bool) -> None:
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        raise UsageError(f"{there[0]} is there already.", "Choose another name, or add --overwrite.")


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        write_private(path, data)
    except OSError as error:
        raise StoreError(
            f"Cannot write {len(data):,} bytes to {path}: {error.strerror or error}",
            "Make room or choose another place, and run it again.",
        ) from error


# One view of a data set as columns: what every format holds

TEST_SPLIT = "test"


@dataclass(frozen=True, slots=True, eq=False)
class ExportFrame:
    """Aligned columns, a row per image in manifest order.

    Attributes
    ----------
    ids, paths, labels, groups, splits
        ``(n,)`` text; paths are relative to the data set; no split is an empty text.
    y
        ``(n,)`` index into `classes`.
    classes
        Sorted names.
    features
        ``(n, dimension)`` float32 by name of the backbone.
    provenance
        JSON: the whole keys of backbones, view and decoding.
    recipe, seed
        The view.
    excluded
        Images that are not here because they are in quarantine.
    """

    ids: NDArray[np.str_]
    paths: NDArray[np.str_]
    labels: NDArray[np.str_]
    groups: NDArray[np.str_]
    splits: NDArray[np.str_]
    y: NDArray[np.intp]
    classes: tuple[str, ...]
    features: dict[str, Features]
    provenance: str
    recipe: str
    seed: int
    excluded: int

    @property
    def texts(self) -> dict[str, NDArray[np.str_]]:
        """Columns of text by the names that they have in every format."""
        return {
            "id": self.ids,
            "path": self.paths,
            "label": self.labels,
            "group": self.groups,
            "split": self.splits,
        }


def export_frame(matrix: FeatureMatrix, data: Path) -> ExportFrame:
    """Columns of the last view of a matrix; paths are given relative to `data`."""
    view, values = matrix.views[-1], matrix.features[-1]
    root = data if data.is_dir() else data.parent
    known: dict[str, Any] = {
        "backbones": [asdict(spec) for spec in matrix.specs],
        "view": asdict(view),
        "decoding": asdict(matrix.decoding),
    }
    return ExportFrame(
        np.array([record.id for record in matrix.records]),
        np.array([_relative(record, root) for record in matrix.records]),
        np.array([record.label for record in matrix.records]),
        matrix.groups,
        np.array([record.split or "" for record in matrix.records]),
        matrix.y,
        matrix.classes,
        {block.name: np.ascontiguousarray(values[:, block.start : block.stop]) for block in matrix.blocks},
        json.dumps(known, sort_keys=True),
        view.recipe,
        view.seed,
        matrix.excluded,
    )


def _relative(record: ImageRecord, root: Path) -> str:
    path = record.path
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


# Formats. Each writer says which files it makes, and how to make the bytes of each.


def npz(table: ExportFrame, out: Path) -> Pages:
    """One archive: text columns, ``y``, ``classes``, ``provenance``, and ``features/<Backbone>``."""
    return {out: partial(_npz, table)}


def parquet(table: ExportFrame, out: Path) -> Pages:
    """One table: text columns, ``y``, and a list column named after each backbone."""
    return {out: partial(_parquet, table)}


def gap_files(table: ExportFrame, out: Path) -> Pages:
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


WRITERS: dict[str, Callable[[ExportFrame, Path], Pages]] = {"npz": npz, "parquet": parquet, "gap": gap_files}


def _npz(table: ExportFrame) -> bytes:
    buffer = io.BytesIO()
    blocks = {f"features/{name}": values for name, values in table.features.items()}
    rest = {"y": table.y, "classes": np.array(table.classes), "provenance": np.array(table.provenance)}
    np.savez(buffer, allow_pickle=False, **table.texts, **rest, **blocks)
    return buffer.getvalue()


def _parquet(table: ExportFrame) -> bytes:
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


def _gap(table: ExportFrame, values: Features) -> bytes:
    parts = {"train": table.splits != TEST_SPLIT, "test": table.splits == TEST_SPLIT}
    arrays: dict[str, NDArray[Any]] = {name: values[rows] for name, rows in parts.items()}
    arrays["label"] = table.y[parts["train"]].astype(np.int32)  # as flow_from_directory(...).classes
    arrays["test_label"] = table.y[parts["test"]].astype(np.int32)
    for name, rows in parts.items():
        for column in ("id", "path", "group"):
            arrays[f"{name}_{column}"] = _fixed(table.texts[column][rows])
    arrays["classes"] = _fixed(table.classes)
    return shard.encode_arrays(arrays, {"provenance": table.provenance})


def _fixed(texts: Iterable[str]) -> NDArray[np.bytes_]:
    """Fixed-length bytes, UTF-8: they cannot point anywhere, and keep file names that are no Unicode."""
    coded = [text.encode("utf-8", "surrogateescape") for text in texts]
    return np.array(coded, f"S{max([1, *map(len, coded)])}")


def _valid(text: str) -> str:
    """Parquet takes Unicode alone; a byte of a file name that is none is written out as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()
