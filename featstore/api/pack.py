"""`pack` and `replay`: a run's vectors as one sealed file, and its scores computed again from that file alone."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

from featstore import runs, serialization
from featstore.api.compare import compare
from featstore.api.fuse import fuse
from featstore.arguments import public, refuse_settled
from featstore.errors import (
    FeatstoreError,
    InterruptionError,
    MissingFeaturesError,
    RefusedFileError,
    RunError,
    UnknownNameError,
    UsageError,
)
from featstore.evaluation import leakage
from featstore.exchange import pack as packs
from featstore.exchange.pack import REMEDY
from featstore.findings import Finding, ordered
from featstore.matrix import Source  # noqa: TC001  # `public` looks its entries up
from featstore.results.fusion import Difference, Packed, Replay
from featstore.serialization import digest_bytes, write_private
from featstore.splits import OWN_SPLIT
from featstore.store.store import default_cache

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from featstore.matrix import FeatureMatrix
TAKEN_OVER = ("run", "matrix.data_sha256", "protocol.plan", "economics")
"""What is not computed from vectors: the folder's name, the digest with the patients' names, the plan, times."""
SHOWN = 20
"""Differences that are listed."""
NO_LICENCE = "not stated: ask whoever made the pack"


@public
def pack(
    folder: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    licence: str = NO_LICENCE,
    overwrite: bool = False,
    progress: bool = False,
    **source: Unpack[Source],
) -> Packed:
    """Write the vectors, labels and splits behind a run's scores as one sealed file, without any image.

    Vectors are personal data: they are made from pictures of patients, and tell who is the same. Patients and sites
    are numbered, paths left out; see ``docs/privacy.md``.

    Parameters
    ----------
    folder
        Run of `featstore.fuse` or `featstore.compare`.
    data
        The data set that it was made from; its digest must be the run's.
    out
        ``X.zip``, readable for the owner alone.
    licence
        On what terms the pack may be used; kept in it.
    overwrite
        Replace a file that is there.
    progress
        Show a bar on stderr while files are looked at.
    **source
        Where the features are, and how the data set is read: see `featstore.matrix.Source`. Networks, views and
        decoding are those of the run, and cannot be given.

    Raises
    ------
    UsageError
        If the file is there already, the data are not the run's, or the run went on from an earlier one.
    RunError
        If the folder holds no run with scores, or the disk refuses.
    MissingFeaturesError
        If vectors of the run are not in the cache.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity")
    >>> _ = featstore.fuse(data, positive="covid", out="runs/fuse", overwrite=True)
    >>> packed = featstore.pack("runs/fuse", data, "pack.zip", overwrite=True)
    >>> packed.images, packed.groups, packed.columns
    (16, 16, 1280)
    """
    settled = ("backbones", "preprocess", "precision", "recipe", "seeds", "value_range")
    refuse_settled(source, settled, "a pack holds what the run was made from")
    run, target = Path(folder), Path(out)
    _refuse_target(target, overwrite=overwrite)
    document, documents = _documents_of(run)
    metrics = serialization.parse_json(documents[packs.METRICS])
    wanted = _features_of(document, source)
    try:
        loaded = leakage.loaded_matrix(data, progress=progress, **wanted)
    except MissingFeaturesError as error:
        raise MissingFeaturesError(
            f"The features of {run} are not all in the cache: {error.cause}",
            "Name the store that the run was made from, by --cache; or run `featstore extract DATA` again.",
        ) from error
    if loaded.covariates is not None:
        raise UsageError(
            "Runs with covariates are not packed: a patient's age and sex are no vectors of pictures.",
            "Pack a run that was fitted without --covariates: `featstore fuse DATA`.",
        )
    cache = Path(source.get("cache") or default_cache())
    accepted = document["asked"].get("accepted", [])
    is_comparison = document["kind"] == "compare"
    ready = leakage.prepare(data, loaded, cache, accepted, drops_seen=is_comparison, progress=progress)
    _require_same(ready, metrics["matrix"], data)
    ready = _with_what_was_left_out(ready, metrics["findings"])
    if metrics.get("sites"):
        documents[packs.METRICS] = _without_names_of_sites(metrics, ready.loaded)
    sealed = packs.seal_pack(ready.loaded, ready.matrix, ready.facts, documents, licence)
    try:
        write_private(target, sealed)
    except OSError as error:
        raise RunError(f"Cannot write {target}: {error.strerror}", "Choose another place.") from error
    return Packed(
        file=str(target),
        size_bytes=len(sealed),
        sha256=digest_bytes(sealed),
        kind=document["kind"],
        images=len(loaded.records),
        groups=len(set(loaded.groups.tolist())),
        views=len(loaded.views),
        columns=loaded.features.shape[2],
        backbones=loaded.backbones,
        licence=licence,
        imported=_imported(loaded),
    )


def _imported(loaded: FeatureMatrix) -> tuple[str, ...]:
    return tuple(spec.name for spec in loaded.specs if spec.is_imported)


def _documents_of(run: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """``run.json`` of a run with scores, and the documents that go into its pack."""
    document = runs.read_run(run)
    if document.get("kind") not in {"fuse", "compare"}:
        raise RunError(f"{run} holds no scores.", "Give a run of `featstore fuse` or `featstore compare`.")
    documents = {packs.RUN: runs.json_text(document).encode()}
    for name in (packs.METRICS, packs.RESULTS):
        if name in document["files"]:
            documents[name] = runs.read_verified(run, document, name)
    metrics = serialization.parse_json(documents[packs.METRICS])
    if metrics.get("warm_start"):
        raise UsageError(
            f"{run} went on from an earlier run, and its scores do not come from these vectors alone.",
            "Pack a run that was fitted without --init-from: `featstore fuse DATA`.",
        )
    if "run" in metrics:  # where the folder lay is nobody's business
        documents[packs.METRICS] = runs.json_text({**metrics, "run": run.name}).encode()
    return document, documents


def _without_names_of_sites(metrics: dict[str, Any], loaded: FeatureMatrix) -> bytes:
    """Scores by site, with the sites numbered as in the pack's table."""
    numbers = packs.numbered("s", (record.site for record in loaded.records if record.site))
    found = metrics["sites"]
    rows = [{**one, "site": numbers[one["site"]]} for one in found["sites"]]
    never = [numbers[name] for name in found["never_left_out"]]
    sites = {**found, "sites": rows, "never_left_out": never}
    return runs.json_text({**metrics, "sites": sites}).encode()


def _refuse_target(target: Path, *, overwrite: bool) -> None:
    if target.suffix != ".zip":
        raise UsageError(f"A pack is a .zip, and {target} is none.", "Write for instance --out pack.zip.")
    if not target.parent.is_dir():
        raise UsageError(f"There is no folder {target.parent}.", "Make it first, or choose another --out.")
    if target.is_dir():
        raise UsageError(f"{target} is a folder.", "Choose another --out.")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} is there already.", "Choose another --out, or add --overwrite.")


def _features_of(document: Mapping[str, Any], source: Source) -> Source:
    """Options that load just the features of a run."""
    keys = runs.keys_of(document)
    views = document["matrix"]["views"]
    computed = {(s.preprocess, s.precision) for s in (key.backbone for key in keys) if not s.is_imported}
    settings: Source = {}
    if len(computed) == 1:
        ((settings["preprocess"], settings["precision"]),) = computed
    wanted: Source = {
        **source,
        **settings,
        "backbones": [key.backbone.name for key in keys],
        "recipe": views[-1]["recipe"],
        "seeds": [view["seed"] for view in views[1:]],
        "value_range": keys[0].decoding.value_range,
    }
    return wanted


def _with_what_was_left_out(
    ready: leakage.PreparedData, recorded: Sequence[Mapping[str, Any]]
) -> leakage.PreparedData:
    """Note the networks that the run left out, which asking for its own by name does not tell again."""
    told = [
        Finding("FS405", known["message"], known["count"], remedy=known["remedy"])
        for known in recorded
        if known["code"] == "FS405"
    ]
    known_already = any(finding.code == "FS405" for finding in ready.matrix.findings)
    if not told or known_already:
        return ready
    return replace(
        ready,
        loaded=replace(ready.loaded, findings=ordered([*ready.loaded.findings, *told])),
        matrix=replace(ready.matrix, findings=ordered([*ready.matrix.findings, *told])),
    )


def _require_same(ready: leakage.PreparedData, recorded: Mapping[str, Any], data: str | Path) -> None:
    """Refuse data or features that are not those of the run."""
    if runs.data_digest(ready.matrix.records) != recorded["data_sha256"]:
        raise UsageError(
            f"{data} is not the data set of the run: images, labels, patients or splits differ.",
            "Give the data set as it was, with the --columns and the --group-pattern of that command.",
        )
    if packs.summary_of(ready.matrix) != {
        name: recorded[name] for name in ("backbones", "views", "decoding")
    }:
        raise UsageError(
            "The features in the cache are not those of the run.",
            "Choose the run's own by --weights NAME=CHOICE and --cache.",
        )


# Scores computed again


@public
def replay(file: str | Path, *, progress: bool = False) -> Replay:
    """Compute every table of a run's scores again from a pack, and say where they differ from those it came with.

    Needs no image, no network and no cache. Fits are those of this machine: nothing is taken from the pack but
    vectors, labels, folds' seeds and the question. Only `TAKEN_OVER` is not computed.

    Parameters
    ----------
    file
        What `featstore.pack` wrote; it is read without trust.
    progress
        Show a bar on stderr.

    Returns
    -------
    Replay
        Whether ``metrics.json`` and, of a comparison, ``results.csv`` are the same byte for byte.

    Raises
    ------
    UsageError
        If there is no such file.
    RefusedFileError
        If it is damaged, forged or hostile.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity")
    >>> _ = featstore.fuse(data, positive="covid", out="runs/fuse", overwrite=True)
    >>> _ = featstore.pack("runs/fuse", data, "pack.zip", overwrite=True)
    >>> featstore.replay("pack.zip").same
    True
    """
    path = Path(file)
    table, loaded, matrix, facts, documents = packs.open_pack(path)
    ready = leakage.PreparedData(loaded, matrix, facts)
    try:
        about = serialization.parse_json(documents[packs.RUN])
        recorded = serialization.parse_json(documents[packs.METRICS])
        again = {"fuse": _fuse_again, "compare": _compare_again}[about["kind"]]
        with tempfile.TemporaryDirectory(prefix="featstore-replay-") as place:
            found = again(ready, about, recorded, Path(place), progress)
    except InterruptionError:
        raise
    except UnknownNameError as error:
        raise UnknownNameError(
            f"{path} needs what is not here: {error.cause}",
            "Name the plug-in that the run was made with: featstore --plugin FILE.py replay PACK.zip.",
        ) from error
    except FeatstoreError as error:
        raise RefusedFileError(
            f"The run of {path} cannot be computed again: {error.cause}", REMEDY
        ) from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RefusedFileError(
            f"{path} does not say how its run was made: {error!r}."[:300], REMEDY
        ) from error
    _take_over(found[packs.METRICS], recorded)
    texts = {packs.METRICS: runs.json_text(found[packs.METRICS])}
    if packs.RESULTS in documents:
        texts[packs.RESULTS] = found[packs.RESULTS]
    unequal = [name for name, text in texts.items() if text.encode() != documents[name]]
    differences = [*_differences(recorded, serialization.parse_json(texts[packs.METRICS]))]
    return Replay(
        kind=about["kind"],
        images=len(loaded.records),
        same=not unequal,
        files=tuple(texts),
        unequal=tuple(unequal),
        tables=tuple(name for name in recorded if name not in TAKEN_OVER),
        taken_over=tuple(name for name in TAKEN_OVER if _at(recorded, name) is not None),
        differences=tuple(differences[:SHOWN]),
        n_differences=len(differences),
        largest=max((one.relative for one in differences if one.relative is not None), default=0.0),
        libraries=_other_libraries(about.get("libraries", {})),
        licence=table.licence,
        imported=_imported(loaded),
    )


def _fuse_again(
    ready: leakage.PreparedData,
    about: Mapping[str, Any],
    recorded: Mapping[str, Any],
    place: Path,
    progress: bool,
) -> dict[str, Any]:
    asked, operating = about["asked"], recorded["operating"]
    result = fuse(
        cast("Any", ready),
        strategy=about["strategy"],
        preset=asked["preset"],
        options=asked["options"],
        test_size=asked["test_size"],
        split_seed=asked["split_seed"],
        positive=_asked_positive(recorded["matrix"]),
        unit=recorded.get("unit", "image"),
        pool=recorded.get("pool"),
        calibrate=operating["calibration"] and operating["calibration"]["method"],
        sensitivity=operating["sensitivity"],
        confidence=operating.get("confidence"),
        abstain=asked.get("abstain"),
        out=place / "run",
        accept=asked["accepted"],
        progress=progress,
        cache=place / "cache",
    )
    return {packs.METRICS: result.to_json(examples=False)}


def _compare_again(
    ready: leakage.PreparedData,
    about: Mapping[str, Any],
    recorded: Mapping[str, Any],
    place: Path,
    progress: bool,
) -> dict[str, Any]:
    asked, protocol = about["asked"], recorded["protocol"]
    result = compare(
        cast("Any", ready),
        **{name: asked[name] for name in ("strategies", "subsets", "primary", "margin", "training_seeds")},
        **{name: asked[name] for name in ("views", "test_views", "view_curve", "nested")},
        **{name: protocol[name] for name in ("repeats", "fold_seed", "calibrate", "sensitivity")},
        confidence=protocol.get("confidence"),
        unit=protocol.get("unit", "image"),
        pool=protocol.get("pool"),
        harmonise=protocol.get("harmonise", "none"),
        folds=OWN_SPLIT if protocol.get("own_split") else protocol.get("left_out") or protocol["folds"],
        positive=_asked_positive(recorded["matrix"]),
        accept=asked["accepted"],
        progress=progress,
        cache=place / "cache",
    )
    return {packs.METRICS: result.to_json(examples=False), packs.RESULTS: runs.csv_text(result.rows())}


def _asked_positive(matrix: Mapping[str, Any]) -> str | None:
    """The positive class, if the user had named it."""
    return matrix["positive"] if matrix.get("positive_origin", "asked") == "asked" else None


def _at(document: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401
    first, _, rest = name.partition(".")
    part = document.get(first)
    return _at(part, rest) if rest and isinstance(part, dict) else part


def _take_over(found: dict[str, Any], recorded: Mapping[str, Any]) -> None:
    """Put what cannot come from vectors in its place."""
    for name in TAKEN_OVER:
        first, _, rest = name.partition(".")
        if first not in recorded:
            continue
        if not rest:
            found[first] = recorded[first]
        elif rest in recorded[first]:
            found[first][rest] = recorded[first][rest]


def _differences(recorded: Any, found: Any, at: str = "") -> Iterator[Difference]:  # noqa: ANN401
    """Where two documents differ, leaf by leaf; they are no deeper than `serialization.MAX_DEPTH`."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        for name in [*recorded, *(name for name in found if name not in recorded)]:
            yield from _differences(recorded.get(name), found.get(name), f"{at}.{name}" if at else name)
    elif isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        for n, pair in enumerate(zip(recorded, found, strict=True)):
            yield from _differences(*pair, f"{at}[{n}]")
    elif recorded != found:
        numbers = all(isinstance(value, int | float) for value in (recorded, found))
        size = max(abs(recorded), abs(found)) if numbers else 0
        yield Difference(
            where=at[:200],
            recorded=str(recorded)[:80],
            found=str(found)[:80],
            relative=abs(recorded - found) / size if numbers and size else None,
        )


def _other_libraries(recorded: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Libraries of another version here than when the run was made: version then, and now."""
    found = {}
    for name, then in recorded.items():
        try:
            now = version(str(name))
        except PackageNotFoundError:
            now = "absent"
        if name in runs.LIBRARIES and now != then:
            found[str(name)] = (str(then)[:40], now)
    return found
