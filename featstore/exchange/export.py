"""export: the aligned features of a data set as one file, for tools that know nothing of featstore."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from featstore.errors import StoreError, UsageError, did_you_mean
from featstore.exchange import formats
from featstore.exchange.frame import frame
from featstore.files import PRIVATE_FOLDER, write_private
from featstore.matrix import Source, load_matrix
from featstore.signatures import public
from featstore.store import rooms
from featstore.store.store import default_cache

if TYPE_CHECKING:
    from collections.abc import Iterable

SUFFIXES = {".npz": "npz", ".parquet": "parquet", ".h5": "gap", "": "gap"}


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

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


@public
def export_features(
    data: str | Path,
    out: str | Path,
    *,
    layout: str | None = None,
    seed: int | None = None,
    overwrite: bool = False,
    **source: Unpack[Source],
) -> Exported:
    """Write the stored features of a data set, in one view, to a file of another kind.

    Rows are aligned as `featstore.load_matrix` aligns them, and carry image id, relative path, label, group and
    split. Each file is written whole or not at all, and is for its owner alone.

    Parameters
    ----------
    data
        A folder or a CSV manifest.
    out
        Where to: ``*.npz``, ``*.parquet``, or for ``gap`` a folder or, for a single backbone, ``*.h5``.
    layout
        ``npz``, ``parquet`` or ``gap`` (one ``gap_<Backbone>.h5`` each, with ``train``, ``test`` and ``label``);
        default by the suffix of `out`.
    seed
        Seed of the augmented view; None for the identity view.
    overwrite
        Replace files that are there.
    **source
        As for `featstore.load_matrix`; its `seeds` are not looked at.

    Raises
    ------
    UsageError
        If a file is there already, or the format is unknown or does not fit.
    MissingFeaturesError
        If an image lacks a vector.
    StoreError
        If there is no cache, or a file cannot be written.
    """
    target = Path(out)
    kind = layout or SUFFIXES.get(target.suffix, "")
    if kind not in formats.WRITERS:
        raise UsageError(
            f"{kind or target.suffix!r} is no format of an export.", did_you_mean(kind, formats.WRITERS)
        )
    rooms.require_cache(Path(source.get("cache") or default_cache()))
    source["seeds"] = () if seed is None else (seed,)
    table = frame(load_matrix(data, **source), Path(source.get("root") or data))
    pages = formats.WRITERS[kind](table, target)
    _refuse_existing(pages, overwrite=overwrite)
    for path, encode in pages.items():
        _write(path, encode())
    return Exported(
        tuple(map(str, pages)),
        kind,
        len(table.ids),
        {name: values.shape[1] for name, values in table.features.items()},
        table.recipe,
        table.seed,
        table.excluded,
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
