"""Covariates: columns of a table, such as age and sex, as a block of the matrix beside those of the networks.

A column whose cells are all numbers is one; any other is a category, one column of zeros and ones for each value.
That is settled by the whole table, which tells nothing of the labels; means, scales and what stands for a missing
cell are learned by each fit from its own training rows (`featstore.fusion.strategy.FusionStrategy`). Nothing of it
enters the cache of features: the cells live in the manifest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from featstore.errors import ManifestError, RunError
from featstore.findings import Finding, counted
from featstore.serialization import digest
from featstore.types import COVARIATES, IMPORTED_PREFIX, BackboneSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featstore.types import Features, ImageRecord

MISSING = frozenset({"", "-", "?", "na", "n/a", "nan", "none", "null", "unknown", "missing"})
"""Cells that hold nothing, in small letters."""
MOST_LEVELS = 20
"""Values of a category: a column of more is a name, a number of a patient, or free text."""


@dataclass(frozen=True, slots=True)
class CovariateColumn:
    """A column of the table.

    Attributes
    ----------
    name
        As the table spells it.
    levels
        Values of a category, sorted; empty for numbers.
    """

    name: str
    levels: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Columns of the matrix."""
        return len(self.levels) or 1

    def encode(self, cell: str) -> list[float]:
        """Numbers of a cell; NaN where it holds nothing, or a value that is none of the levels."""
        if not self.levels:
            value = read_number(cell)
            return [math.nan if value is None else value]
        if cell not in self.levels:
            return [math.nan] * len(self.levels)
        return [float(cell == level) for level in self.levels]


@dataclass(frozen=True, slots=True)
class CovariateEncoding:
    """How cells of the table become a block of numbers.

    Attributes
    ----------
    columns
        In the order in which they were named.

    Examples
    --------
    >>> from featstore.covariates import CovariateEncoding
    >>> encoding = CovariateEncoding.of(["age", "sex"], [("61", "f"), ("", "m")])
    >>> encoding.names
    ('age', 'sex=f', 'sex=m')
    >>> encoding.encode([("48", "f"), ("70", "?")])
    array([[48.,  1.,  0.],
           [70., nan, nan]], dtype=float32)
    """

    columns: tuple[CovariateColumn, ...]

    @classmethod
    def of(cls, names: Sequence[str], rows: Sequence[Sequence[str]]) -> Self:
        """Settle by the cells of each column ``(rows, columns)`` whether it holds numbers or categories.

        Raises
        ------
        ManifestError
            If a column is empty, or has too many values for a category.
        """
        return cls(tuple(_column(name, [row[at] for row in rows]) for at, name in enumerate(names)))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns of the matrix."""
        return tuple(
            f"{column.name}={level}" if level else column.name
            for column in self.columns
            for level in column.levels or ("",)
        )

    @property
    def spec(self) -> BackboneSpec:
        """What stands for the block beside the networks; its digest is that of the columns and levels."""
        return BackboneSpec(
            COVARIATES, f"{IMPORTED_PREFIX}{digest(self.to_json())}", 1, "table", len(self.names)
        )

    def encode(self, rows: Sequence[Sequence[str]]) -> Features:
        """Cells ``(rows, columns of the table)`` as numbers ``(rows, columns of the matrix)``, NaN where missing."""
        found = [
            [
                value
                for column, cell in zip(self.columns, row, strict=True)
                for value in column.encode(tidy(cell))
            ]
            for row in rows
        ]
        return np.array(found, np.float32).reshape(len(rows), len(self.names))

    def missing(self, records: Sequence[ImageRecord]) -> Finding | None:
        """FS115 where cells hold nothing that can be used, by column."""
        cells = [self.encode([record.covariates]) for record in records]
        gone = np.isnan(np.concatenate(cells)) if cells else np.zeros((0, len(self.names)), bool)
        starts = np.cumsum([0, *(column.width for column in self.columns)])
        counts = {c.name: int(gone[:, at].sum()) for c, at in zip(self.columns, starts, strict=False)}
        lacking = {name: count for name, count in counts.items() if count}
        if not lacking:
            return None
        rows = int(gone.any(axis=1).sum())
        each = ", ".join(f"{name} ({count})" for name, count in lacking.items())
        return Finding(
            "FS115",
            f"{counted(rows, 'image lacks', 'images lack')} covariates: {each}. The mean of the training images of"
            " each fit stands for them.",
            rows,
        )

    def to_json(self) -> list[dict[str, Any]]:
        """Names and levels of the columns."""
        return [{"name": column.name, "levels": list(column.levels)} for column in self.columns]

    @classmethod
    def from_json(cls, value: Any) -> Self:  # noqa: ANN401
        """Read what `to_json` wrote.

        Raises
        ------
        RunError
            If it is something else.
        """
        try:
            columns = tuple(CovariateColumn(str(c["name"]), tuple(map(str, c["levels"]))) for c in value)
        except (TypeError, LookupError) as error:
            raise RunError(
                "The model does not say what its covariates are.", "Fit it again with `featstore fuse`."
            ) from error
        return cls(columns)


def tidy(cell: str) -> str:
    """A cell as it is compared: no spaces around or doubled, and empty where it holds nothing."""
    text = " ".join(cell.split())
    return "" if text.casefold() in MISSING else text


def read_number(cell: str) -> float | None:
    """A number, with a point or a comma before its fraction; None where it is none."""
    try:
        value = float(cell.replace(",", ".") if cell.count(",") == 1 and "." not in cell else cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def covariate_encoding(names: Sequence[str], records: Sequence[ImageRecord]) -> CovariateEncoding | None:
    """How the covariates of these images become numbers; None where none were named."""
    if not names:
        return None
    return CovariateEncoding.of(names, [record.covariates for record in records])


def require_covariates(encoding: CovariateEncoding, records: Sequence[ImageRecord]) -> Mapping[str, Features]:
    """Numbers ``(columns,)`` of new images by id.

    Raises
    ------
    ManifestError
        If some come from no table.
    """
    names = [column.name for column in encoding.columns]
    if bare := [record for record in records if len(record.covariates) != len(names)]:
        raise ManifestError(
            f"The model asks for {', '.join(names)}, and nothing says them of {counted(len(bare), 'image')}, such as"
            f" {str(bare[0].path)!r}.",
            f"Give a CSV file with the columns path,{','.join(names)}.",
        )
    return {record.id: encoding.encode([record.covariates])[0] for record in records}


def _column(name: str, cells: Sequence[str]) -> CovariateColumn:
    given = [text for text in map(tidy, cells) if text]
    if not given:
        raise ManifestError(
            f"The covariate {name!r} is empty for every image.", "Leave it out of --covariates."
        )
    if all(read_number(text) is not None for text in given):
        return CovariateColumn(name)
    levels = sorted(set(given))
    if len(levels) > MOST_LEVELS:
        odd = next(text for text in given if read_number(text) is None)
        raise ManifestError(
            f"The covariate {name!r} has {len(levels)} different values, among them {odd[:40]!r}: no numbers, and too"
            " many for categories.",
            f"Mend the cells that are no numbers, or group them into at most {MOST_LEVELS} values.",
        )
    return CovariateColumn(name, tuple(levels))
