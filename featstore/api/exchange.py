"""Features to and from tools that know nothing of featstore."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from featstore.arguments import public
from featstore.errors import UsageError, did_you_mean
from featstore.exchange.export import SUFFIXES, WRITERS, Exported, export_frame, write_export
from featstore.exchange.importing import Imported, import_table, require_free_name, require_rows
from featstore.exchange.reading import read_table
from featstore.images.reading import decoder_version
from featstore.images.scan import ScanOptions, scan
from featstore.matrix import Source, load_matrix
from featstore.serialization import digest_file
from featstore.store.paths import require_cache
from featstore.store.store import Store, default_cache
from featstore.types import IMPORTED_PREFIX, Decoding

if TYPE_CHECKING:
    from collections.abc import Sequence


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

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity")
    >>> exported = featstore.export_features(
    ...     data, "features.npz", backbones=["EfficientNetLite0"], overwrite=True
    ... )
    >>> exported.images, exported.backbones
    (16, {'EfficientNetLite0': 1280})
    """
    target = Path(out)
    kind = layout or SUFFIXES.get(target.suffix, "")
    if kind not in WRITERS:
        raise UsageError(f"{kind or target.suffix!r} is no format of an export.", did_you_mean(kind, WRITERS))
    require_cache(Path(source.get("cache") or default_cache()))
    source["seeds"] = () if seed is None else (seed,)
    frame = export_frame(load_matrix(data, **source), Path(source.get("root") or data))
    return write_export(frame, target, kind, overwrite=overwrite)


@public
def import_features(
    data: str | Path,
    file: str | Path,
    name: str,
    *,
    features: str | None = None,
    ignore: str | Sequence[str] = (),
    rows: str | None = None,
    value_range: tuple[float, ...] | None = None,
    cache: str | Path | None = None,
    **reading: Unpack[ScanOptions],
) -> Imported:
    """Store the vectors of a foreign file as the identity view of a backbone of its own.

    Rows are matched to images by image id, by path relative to the data set or, where that fits one image alone, by a
    part of the path; never by position. All of them are taken, or none. Columns that have no name, count the rows or
    tell the class are no features and are left out, unless they are named.

    Parameters
    ----------
    data
        A folder or a CSV manifest: the images that the vectors belong to.
    file
        ``.npz``, ``.h5``, ``.parquet`` or ``.csv``; see `featstore.exchange.reading.read_table`.
    name
        What the backbone shall be called; no name of the catalogue.
    features
        Name of the block of numbers, where the file has several; or names of the columns that are features, with
        commas, ``*`` for any part of a name. The columns of a block are called ``block.0``, ``block.1`` ...
    ignore
        Names of columns to leave out, ``*`` as well; one text may hold several with commas.
    rows
        Name of the column of ids or paths in the file, where it has several.
    value_range, cache
        As for `featstore.extract`.
    **reading
        How the data set is read: see `featstore.images.scan.ScanOptions`.

    Raises
    ------
    UsageError
        If the name is taken, a row belongs to no image, or two unequal rows to the same.
    NonFiniteFeaturesError
        If a value is not finite in float32.
    RefusedFileError
        If the file is damaged or hostile.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> with open("measured.csv", "w") as file:
    ...     print("path,kilobytes,constant", file=file)
    ...     for image in featstore.scan(data).records:
    ...         print(image.path.name, image.path.stat().st_size / 1024, 0.5, sep=",", file=file)
    >>> imported = featstore.import_features(data, "measured.csv", "measured", cache="imported")
    >>> imported.images, imported.dimension
    (16, 2)
    >>> featstore.load_matrix(data, cache="imported").features.shape
    (1, 16, 2)
    """
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", "Check the path.")
    store = Store(Path(cache) if cache is not None else default_cache())
    weights = f"{IMPORTED_PREFIX}{digest_file(path)}"
    require_free_name(name, weights, store)
    table = read_table(path, features, rows)
    require_rows(table.names, table.features)
    manifest = scan(Path(data), **reading)
    unwanted = [part.strip() for part in ignore.split(",")] if isinstance(ignore, str) else ignore
    decoding = Decoding(decoder_version(), value_range=value_range)
    return import_table(
        table, manifest, store, name=name, weights=weights, decoding=decoding, ignore=unwanted
    )
