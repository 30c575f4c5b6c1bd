"""Feature packs: vectors, labels and splits of a run as one sealed archive, from which its scores come again.

No image is in a pack, no path and no patient's name: patients and sites are numbered in the order of their names, so
that folds are drawn as before. Vectors are personal data all the same: `docs/privacy.md`.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore import serialization
from featstore.errors import RefusedFileError
from featstore.exchange.sealed_archive import REMEDY, read_archive, seal_archive
from featstore.findings import Finding
from featstore.fusion.model_io import ArchiveError, read_arrays
from featstore.image_facts import FACT, FactTable, widened
from featstore.images.near_copies import Miniatures
from featstore.matrix import FeatureMatrix
from featstore.results.document import Count, Result, read_result
from featstore.types import FeatureKey, ImageRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

KIND = "feature pack"
TABLE, ARRAYS, RUN, METRICS, RESULTS = "table.json", "arrays.npz", "run.json", "metrics.json", "results.csv"
NOWHERE = Path("not-here")
"""Path of an image of a pack, which has none."""


class PackTable(Result, frozen=True, kw_only=True):
    """What a pack says of its images; the vectors stand beside it, in the same order.

    Attributes
    ----------
    ids, labels, groups, splits, sites, frames
        By image; groups and sites are numbers in the order of their names, an empty text is none.
    scored
        Row numbers of the images that take part: without those that a backbone has learned from.
    scored_groups
        Group of each of them, after patients that share a picture were merged.
    known
        Which of the scored images have facts.
    keys
        Feature keys: one for each backbone and view, backbone by backbone.
    has_groups, groups_set_aside, excluded, set_apart, seen_by_backbone
        As of `featstore.FeatureMatrix`.
    loaded_findings, findings
        Findings of the data set before and after copies were looked for.
    licence
        On what terms the pack may be used.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    splits: tuple[str, ...]
    sites: tuple[str, ...]
    frames: tuple[Count, ...]
    scored: tuple[Count, ...]
    scored_groups: tuple[str, ...]
    known: tuple[Count, ...]
    keys: tuple[dict[str, Any], ...]
    has_groups: bool
    groups_set_aside: bool
    excluded: Count
    set_apart: Count
    seen_by_backbone: dict[str, tuple[str, ...]]
    loaded_findings: tuple[Finding, ...]
    findings: tuple[Finding, ...]
    licence: str


def seal_pack(
    loaded: FeatureMatrix,
    matrix: FeatureMatrix,
    facts: FactTable,
    documents: Mapping[str, bytes],
    licence: str,
) -> bytes:
    """Bytes of a pack.

    Parameters
    ----------
    loaded, matrix, facts
        The features as loaded, as they are scored, and the facts of the images that are scored.
    documents
        `RUN`, `METRICS` and, of a comparison, `RESULTS` of the run.
    licence
        On what terms it may be used.
    """
    row_of = {record.id: row for row, record in enumerate(loaded.records)}
    scored_of = {record.id: row for row, record in enumerate(matrix.records)}
    names = numbered("p", loaded.groups.tolist()) if loaded.has_groups else {}
    sites = numbered("s", (record.site for record in loaded.records if record.site))
    here = set(row_of)
    table = PackTable(
        ids=tuple(record.id for record in loaded.records),
        labels=tuple(record.label for record in loaded.records),
        groups=tuple(names.get(group, group) for group in loaded.groups.tolist()),
        splits=tuple(record.split or "" for record in loaded.records),
        sites=tuple(sites[record.site] if record.site else "" for record in loaded.records),
        frames=tuple(record.frame for record in loaded.records),
        scored=tuple(row_of[record.id] for record in matrix.records),
        scored_groups=tuple(names.get(group, group) for group in matrix.groups.tolist()),
        known=tuple(scored_of[record.id] for record in facts.records),
        keys=tuple(
            FeatureKey(spec, view, loaded.decoding).to_json()
            for spec in loaded.specs
            for view in loaded.views
        ),
        has_groups=loaded.has_groups,
        groups_set_aside=loaded.groups_set_aside,
        excluded=loaded.excluded,
        set_apart=matrix.set_apart,
        seen_by_backbone={name: tuple(sorted(ids & here)) for name, ids in loaded.seen_by_backbone.items()},
        loaded_findings=loaded.findings,
        findings=matrix.findings,
        licence=licence,
    )
    text = json.dumps(table.to_json(examples=False), ensure_ascii=True, allow_nan=False)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, features=loaded.features, facts=facts.rows)
    members = {TABLE: text.encode(), ARRAYS: buffer.getvalue(), **documents}
    return seal_archive(KIND, members, {"images": len(table.ids), "licence": licence})


def numbered(letter: str, names: Iterable[str]) -> dict[str, str]:
    """Number in the order of the names, for each of them: nothing in it can be guessed back, and order stays."""
    found = sorted(set(names))
    width = len(str(len(found)))
    return {name: f"{letter}{at + 1:0{width}d}" for at, name in enumerate(found)}


def open_pack(path: Path) -> tuple[PackTable, FeatureMatrix, FeatureMatrix, FactTable, dict[str, bytes]]:
    """Read a pack: its table, the features as loaded and as scored, facts, and the documents of the run.

    Raises
    ------
    UsageError
        If there is no such file.
    RefusedFileError
        If it is damaged, forged, hostile, or its parts do not belong together.
    """
    members, _ = read_archive(path, KIND)
    try:
        table = read_result(PackTable, serialization.parse_json(members[TABLE]), "the table")
        arrays = read_arrays(members[ARRAYS])
        loaded = _matrix(table, arrays["features"])
        scored = np.array(table.scored, np.intp)
        _require(len(set(table.scored)) == len(table.scored), "an image stands twice in it")
        _require(len(table.scored_groups) == len(scored), "groups are missing")
        matrix = replace(
            loaded.only(scored),
            groups=np.array(table.scored_groups, np.str_),
            set_apart=table.set_apart,
            findings=table.findings,
        )
        facts = _facts(table, arrays["facts"], matrix)
        documents = {name: members[name] for name in (RUN, METRICS, RESULTS) if name in members}
        _require({RUN, METRICS} <= set(documents), "the documents of the run are missing")
    except (ValueError, TypeError, LookupError, ArchiveError, AttributeError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
        raise RefusedFileError(f"{path} is refused: {why}.", REMEDY) from error
    return table, loaded, matrix, facts, documents


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _matrix(table: PackTable, features: NDArray[Any]) -> FeatureMatrix:
    """Features as they were loaded, if table and array fit together."""
    n = len(table.ids)
    columns = (table.labels, table.groups, table.splits, table.sites, table.frames)
    _require(n > 0 and all(len(column) == n for column in columns), "its columns have unequal lengths")
    _require(len(set(table.ids)) == n, "an image stands twice in it")
    _require(all(len(bytes.fromhex(image)) == 32 for image in table.ids), "an id is none")  # noqa: PLR2004
    keys = [FeatureKey.from_json(key) for key in table.keys]
    specs = tuple(dict.fromkeys(key.backbone for key in keys))
    views = tuple(dict.fromkeys(key.view for key in keys))
    (decoding,) = {key.decoding for key in keys}
    _require(
        [(k.backbone, k.view) for k in keys] == [(s, v) for s in specs for v in views], "keys are missing"
    )
    shape = len(views), n, sum(spec.dimension for spec in specs)
    _require(
        features.dtype == np.float32 and features.shape == shape, "its vectors are not those of its keys"
    )
    _require(min(spec.dimension for spec in specs) > 0, "a network has no columns")
    _require(bool(np.isfinite(features).all()), "a vector is not finite")
    classes, y = np.unique(table.labels, return_inverse=True)
    records = tuple(
        ImageRecord(image, NOWHERE / image, label, group, split or None, site or None, frame)
        for image, label, group, split, site, frame in zip(table.ids, *columns, strict=True)
    )
    return FeatureMatrix(
        records,
        tuple(classes.tolist()),
        y,
        np.array(table.groups, np.str_),
        views,
        specs,
        decoding,
        features,
        table.has_groups,
        table.excluded,
        table.groups_set_aside,
        seen_by_backbone={name: frozenset(ids) for name, ids in table.seen_by_backbone.items()},
        findings=table.loaded_findings,
    )


def _facts(table: PackTable, rows: NDArray[Any], matrix: FeatureMatrix) -> FactTable:
    rows = widened(rows)
    _require(rows.dtype == FACT and rows.shape == (len(table.known),), "its facts are none")
    _require(len(set(table.known)) == len(table.known), "an image stands twice in it")
    records = tuple(matrix.records[row] for row in table.known)
    return FactTable(records, rows, {}, Miniatures.room_for(0))


def summary_of(matrix: FeatureMatrix) -> dict[str, Any]:
    """Networks, views and decoding as ``run.json`` has them."""
    return {
        "backbones": [asdict(spec) for spec in matrix.specs],
        "views": [asdict(view) for view in matrix.views],
        "decoding": asdict(matrix.decoding),
    }
