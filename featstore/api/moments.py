"""`moments` and `fuse --from-sites`: one model of several hospitals' patients, while images and vectors stay there.

Each hospital writes the class moments of its projected vectors (`featstore.fusion.moments`) as a small JSON file, and
from these follows the linear discriminant of all images together, exactly. What such a file tells about patients is
the topic of ``docs/from-sites.md``.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from featstore import runs, serialization
from featstore.api.shared_heads import (
    holds_answers,
    is_count,
    merge_answers,
    pixels_of,
    read_sealed,
    refuse_there,
    write_sealed,
)
from featstore.arguments import public, refuse_settled
from featstore.errors import RunError, UsageError
from featstore.evaluation import leakage
from featstore.evaluation.calibration import NEUTRAL
from featstore.evaluation.metrics import positive_class
from featstore.findings import resolve
from featstore.fusion.model_io import save_strategy
from featstore.fusion.moments import ClassMoments, discriminants, sign_projection
from featstore.fusion.strategies.lda import Lda
from featstore.matrix import Source  # noqa: TC001  # `public` looks its entries up
from featstore.results.fusion import MergedFit, MergedHeads, SiteMoments
from featstore.store.store import default_cache
from featstore.types import FeatureKey, make_blocks

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.matrix import FeatureMatrix

FORMAT = "featstore moments 1"
DIMENSIONS = 8
"""What is kept of each network's vector."""
FEWEST, MOST_DIMENSIONS, MOST_CLASSES, MOST_SITES = 2, 1024, 64, 1000
REMEDY = "Let the hospital write it again: featstore moments DATA --out SITE.json"


@public
def moments(
    data: str | Path,
    out: str | Path,
    *,
    dimensions: int = DIMENSIONS,
    projection_seed: int = 0,
    positive: str | None = None,
    accept: Collection[str] = (),
    overwrite: bool = False,
    progress: bool = False,
    **source: Unpack[Source],
) -> SiteMoments:
    """Write what this hospital gives to a model of several: class moments of its projected vectors, and no vector.

    The file holds, for each class, the number of images and patients, the mean of the projected vectors and their
    scatter; the networks' full keys; and no path, no name, no patient. A data set with a split of its own gives its
    training images alone, so that the others can test the model.

    Parameters
    ----------
    data
        A folder, a CSV file or a `Manifest` whose features are in the store; their identity view is used.
    out
        The file, readable for the owner alone.
    dimensions
        So many are kept of each network's vector, by signs drawn from `projection_seed`; all hospitals must take the
        same. A class needs at least as many patients as dimensions are kept of all networks together.
    projection_seed
        See `dimensions`.
    positive
        As for `featstore.fuse`.
    accept
        Codes of findings that are known.
    overwrite
        Replace a file that is there.
    progress
        Show a bar on stderr while files are looked at.
    **source
        Which features: see `featstore.matrix.Source`. The view is the identity, so that none can be given.

    Raises
    ------
    UsageError
        If views are given, a class has too few patients, there are covariates, or the file is there already.
    RunError
        If the disk refuses.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity")
    >>> site = featstore.moments(data, "site.json", dimensions=4, overwrite=True)
    >>> site.dimensions, sum(site.images.values()), list(site.patients)
    (4, 16, ['covid', 'normal'])
    """
    refuse_settled(source, ("recipe", "seeds"), "moments are of the identity view")
    target = Path(out)
    refuse_there(target, overwrite=overwrite)
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise UsageError(
            f"{dimensions} dimensions cannot be kept.", f"Give --dimensions 1 to {MOST_DIMENSIONS}."
        )
    if source.get("covariates"):
        raise UsageError(
            "Moments are of images alone, and --covariates were given.", "Leave out --covariates."
        )
    source["seeds"] = ()
    loaded = leakage.loaded_matrix(data, progress=progress, **source)
    cache = Path(source.get("cache") or default_cache())
    codes = [resolve(code) for code in accept]
    matrix = leakage.prepare(data, loaded, cache, codes, drops_seen=False, progress=progress).matrix
    rows, tested = _training_rows(matrix)
    chosen = positive_class(matrix.classes, positive)
    projections = _projections(
        matrix.backbones, [spec.dimension for spec in matrix.specs], dimensions, projection_seed
    )
    blocks = np.split(
        np.asarray(matrix.X[rows], np.float64), np.cumsum([len(part) for part in projections])[:-1], axis=1
    )
    projected = np.concatenate(
        [block @ part for block, part in zip(blocks, projections, strict=True)], axis=1
    )
    y, groups = matrix.y[rows], matrix.groups[rows]
    of_class = [ClassMoments.of(projected[y == at], groups[y == at]) for at in range(len(matrix.classes))]
    _require_patients(matrix.classes, of_class, dimensions, len(projections))
    fields = runs.describe(matrix, chosen.index)
    document = {
        "format": FORMAT,
        "classes": list(matrix.classes),
        "positive": fields["positive"],
        "has_patients": matrix.has_groups,
        **{name: fields[name] for name in ("backbones", "views", "decoding")},
        "projection": {"dimensions": dimensions, "seed": projection_seed},
        "moments": [_written(one) for one in of_class],
    }
    size = write_sealed(target, document)
    return SiteMoments(
        file=str(target),
        size_bytes=size,
        backbones=matrix.backbones,
        dimensions=projected.shape[1],
        images={name: one.images for name, one in zip(matrix.classes, of_class, strict=True)},
        patients={name: one.patients for name, one in zip(matrix.classes, of_class, strict=True)},
        has_patients=matrix.has_groups,
        kept_for_testing=tested,
    )


@public
def fuse_from_sites(
    files: Sequence[str | Path],
    out: str | Path,
    *,
    overwrite: bool = False,  # `writes_run` looks at it
) -> MergedFit | MergedHeads:
    """Make one model of several hospitals from what each wrote by `answers` or by `moments`.

    Of answers of shared heads it is the mean of the heads' logits, scored with each head on the patients that the
    hospitals kept for testing. Of moments it is the linear discriminant that all projected vectors together would
    give, exactly; moments hold no single answer, so nothing can be scored: each hospital tests the model on patients
    that were not in its file. `featstore.predict` and `featstore.explain` take both as they take any.

    Parameters
    ----------
    files
        Two or more, all of answers of the same heads, or all of moments of the same networks, classes and projection.
    out
        Folder of the run.
    overwrite
        Replace a run that is there.

    Raises
    ------
    UsageError
        If the files do not belong together, or one is given twice.
    RunError
        If a file is none of `moments`, or damaged.

    Examples
    --------
    >>> import featstore
    >>> files = []
    >>> for site in (0, 1):
    ...     data = featstore.make_phantoms(f"site{site}", patients=16, slices=1, size=64, seed=site)
    ...     own = {"cache": f"cache{site}"}
    ...     _ = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity", **own)
    ...     files.append(featstore.moments(data, f"site{site}.json", dimensions=4, overwrite=True, **own).file)
    >>> merged = featstore.fuse_from_sites(files, "runs/sites", overwrite=True)
    >>> merged.sites, sum(merged.images.values())
    (2, 32)
    """
    return _merge(tuple(map(Path, files)), out=out, overwrite=overwrite)


@runs.writes_run
def _merge(files: tuple[Path, ...], *, out: str | Path, overwrite: bool) -> MergedFit | MergedHeads:  # noqa: ARG001
    if not FEWEST <= len(files) <= MOST_SITES:
        raise UsageError(
            f"{len(files)} files make no model of several hospitals.",
            "Give two or more: featstore fuse --from-sites A.json B.json",
        )
    if holds_answers(files[0]):
        return merge_answers(files, Path(out))
    documents = [read_moments(file) for file in files]
    first = documents[0]
    _require_alike(files, documents)
    of_class = [reduce(add, parts) for parts in zip(*(one["moments"] for one in documents), strict=True)]
    names = [spec["name"] for spec in first["backbones"]]
    widths = [spec["dimension"] for spec in first["backbones"]]
    projections = _projections(names, widths, **first["projection"])
    try:
        linear, shrinkage = discriminants(of_class, projections)
    except (ValueError, np.linalg.LinAlgError) as error:
        raise RunError(f"The moments give no model: {error}.", REMEDY) from error
    blocks = make_blocks(dict(zip(names, widths, strict=True)))
    model = Lda(blocks)
    model.blocks_, model.classes_ = blocks, np.arange(len(of_class))
    model.n_features_in_, model.model_, model.shrinkage_ = sum(widths), linear, shrinkage
    classes = first["classes"]
    result = MergedFit(
        run=str(out),
        sites=len(files),
        backbones=tuple(names),
        dimensions=len(of_class[0].mean),
        shrinkage=shrinkage,
        images={name: one.images for name, one in zip(classes, of_class, strict=True)},
        patients={name: one.patients for name, one in zip(classes, of_class, strict=True)},
        has_patients=all(one["has_patients"] for one in documents),
        positive=first["positive"],
    )
    runs.clear(Path(out))
    save_strategy(Path(out) / runs.MODEL, model, {"classes": classes, "operating": NEUTRAL.to_json()})
    runs.write_run(
        Path(out),
        {
            "kind": "merged",
            "strategy": "lda",
            "sites": [serialization.digest(one["document"]) for one in documents],
            "merged": result.to_json(),
            "projection": first["projection"],
            "matrix": {
                **{name: first[name] for name in ("backbones", "views", "decoding", "positive")},
                "classes": result.images,
            },
        },
    )
    return result


def read_moments(path: Path) -> dict[str, Any]:
    """Read a file of `moments`, which came from elsewhere: every number is checked before it is used.

    Returns
    -------
    Its content, ``moments`` as `ClassMoments`; and ``document``, as it was sealed.

    Raises
    ------
    RunError
        If it is none, or damaged.
    """
    return parse_moments(read_sealed(path, "no moments of a hospital", REMEDY), path)


def parse_moments(document: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Check the content of a file of `moments`; see `read_moments`."""
    try:
        return {**document, "moments": _parse(document), "document": dict(document)}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, np.linalg.LinAlgError) as error:
        raise RunError(f"{path} holds no moments of a hospital: {str(error)[:200]}.", REMEDY) from error


def _parse(document: Mapping[str, Any]) -> list[ClassMoments]:
    if document["format"] != FORMAT:
        raise ValueError(f"its format is {str(document['format'])[:40]!r}")
    classes, projection = document["classes"], document["projection"]
    dimensions, seed = projection["dimensions"], projection["seed"]
    known = isinstance(classes, list) and all(isinstance(name, str) and name for name in classes)
    if not (known and classes == sorted(set(classes)) and FEWEST <= len(classes) <= MOST_CLASSES):
        raise ValueError("its classes are none")
    if document["positive"] not in (None, *classes) or not isinstance(document["has_patients"], bool):
        raise ValueError("its positive class is none of its classes")
    if not (is_count(dimensions, 1, MOST_DIMENSIONS) and is_count(seed, 0, 2**63)):
        raise ValueError("its projection is none")
    k = dimensions * len(_keys(document))
    of_class = [_read(one, k) for one in document["moments"]]
    if len(of_class) != len(classes):
        raise ValueError("it has not one set of moments for each class")
    return of_class


def _keys(document: Mapping[str, Any]) -> list[FeatureKey]:
    """Feature keys of the one view that moments are of."""
    (view,) = document["views"]
    shared = {"view": view, "decoding": document["decoding"]}
    keys = [FeatureKey.from_json({"backbone": spec, **shared}) for spec in document["backbones"]]
    if not keys or len({key.backbone.name for key in keys}) < len(keys):
        raise ValueError("its networks are none")
    return keys


def _written(one: ClassMoments) -> dict[str, Any]:
    return {
        "images": one.images,
        "patients": one.patients,
        "mean": one.mean.tolist(),
        "scatter": one.scatter.tolist(),
    }


def _read(one: Mapping[str, Any], k: int) -> ClassMoments:
    if not (is_count(one["images"], 1, 10**9) and is_count(one["patients"], 1, 10**9)):
        raise ValueError("its counts are none")
    mean, scatter = (np.array(one[name], np.float64) for name in ("mean", "scatter"))
    if mean.shape != (k,) or scatter.shape != (k, k):
        raise ValueError(f"its moments are not of {k} dimensions")
    if one["patients"] < k:
        raise ValueError(f"a class has {one['patients']} patients, fewer than the {k} dimensions")
    return ClassMoments(one["images"], one["patients"], mean, scatter)


def _projections(
    names: Sequence[str], widths: Sequence[int], dimensions: int, seed: int
) -> list[NDArray[np.float64]]:
    return [sign_projection(name, width, dimensions, seed) for name, width in zip(names, widths, strict=True)]


def _training_rows(matrix: FeatureMatrix) -> tuple[NDArray[np.intp], int]:
    """Images that go into the moments, and how many are kept for testing: those of the data set's own split."""
    named = np.array([record.split or "" for record in matrix.records])
    if not (named == "train").any():
        return np.arange(len(named)), 0
    splits = {"train": np.flatnonzero(named == "train"), "test": np.flatnonzero(named != "train")}
    splits, _ = leakage.without_copies_of(matrix, splits)
    return splits["train"], len(splits["test"])


def _require_patients(
    classes: Sequence[str], of_class: Sequence[ClassMoments], dimensions: int, networks: int
) -> None:
    few, name = min((one.patients, name) for one, name in zip(of_class, classes, strict=True))
    k = dimensions * networks
    if few >= k:
        return
    most = few // networks
    remedy = (
        f"Keep fewer: --dimensions {most}, at every hospital."
        if most
        else "Take fewer networks: --backbones A."
    )
    raise UsageError(
        f"The class {name} has {few} patients, and {dimensions} dimensions of {networks} networks are {k}: so few"
        " patients could be told from their moments.",
        remedy,
    )


def _require_alike(files: Sequence[Path], documents: Sequence[Mapping[str, Any]]) -> None:
    """Make sure that moments may be added: of the same numbers, and of other patients."""
    first = documents[0]
    for at, (file, one) in enumerate(zip(files, documents, strict=True)):
        for name, what in (
            ("classes", "other classes"),
            ("positive", "another positive class"),
            ("projection", "another projection"),
            ("backbones", "other networks or weights"),
            ("views", "another view"),
        ):
            if one[name] != first[name]:
                raise UsageError(
                    f"{file} has {what} than {files[0]}.",
                    "Let all hospitals run the same command, with the same weights:"
                    " `featstore moments DATA --dimensions N --projection-seed N --out SITE.json`.",
                )
        if pixels_of(one) != pixels_of(first):
            raise UsageError(
                f"{file} was decoded otherwise (--window, --range) than {files[0]}.",
                "Let all hospitals extract with the same window, then run `featstore moments DATA --out SITE.json`.",
            )
        for other, before in zip(files[:at], documents[:at], strict=True):
            if one["document"]["moments"] == before["document"]["moments"]:
                raise UsageError(
                    f"{file} and {other} hold the same moments: these patients would count twice.",
                    "Give each hospital's file once.",
                )
