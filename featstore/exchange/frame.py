"""One view of a data set as columns: what every format of an export holds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.matrix import FeatureMatrix
    from featstore.types import Features, ImageRecord

TEST = "test"


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
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


def frame(matrix: FeatureMatrix, data: Path) -> Frame:
    """Columns of the last view of a matrix that was loaded from `data`."""
    view, values = matrix.views[-1], matrix.features[-1]
    root = data if data.is_dir() else data.parent
    known: dict[str, Any] = {
        "backbones": [asdict(spec) for spec in matrix.specs],
        "view": asdict(view),
        "decoding": asdict(matrix.decoding),
    }
    return Frame(
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
