"""Feature packs: vectors, labels and splits of a run as one sealed archive, from which its scores come again.

No image is in a pack, no path and no patient's name: patients and sites are numbered in the order of their names, so
that folds are drawn as before. Vectors are personal data all the same: `docs/privacy.md`.

The archive is a ZIP of plain members with the SHA-256 of each, written alike everywhere and read without trust.
Members are stored and never compressed, so that together they cannot be larger than the file: a small file that
unpacks to a large one cannot be made of it. Nothing is unpacked to the disk, and a name is a name and no path. The
seal shows damage and mix-ups; it keeps nobody from making an archive of his own.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore import serialization
from featstore.errors import RefusedFileError, UsageError
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


CONTENTS = "contents.json"
"""Member that names the others."""
FORMAT = 1
MAX_MEMBERS = 1000
MAX_BYTES = 1 << 34
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DATE = (1980, 1, 1, 0, 0, 0)
_ENCRYPTED = 0x1
REMEDY = "Get the file again from where it was made."


def seal_archive(kind: str, members: Mapping[str, bytes], about: Mapping[str, Any]) -> bytes:
    """Bytes of an archive; equal content gives equal bytes.

    Parameters
    ----------
    kind
        What it is.
    members
        Content by name; letters, digits, ``.``, ``_`` and ``-``.
    about
        JSON-able; kept beside the digests, under their seal.
    """
    listed = {
        name: {"sha256": serialization.digest_bytes(data), "bytes": len(data)}
        for name, data in sorted(members.items())
    }
    contents = serialization.seal({"kind": kind, "format": FORMAT, "about": dict(about), "members": listed})
    text = serialization.canonical_json(contents).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in [(CONTENTS, text), *sorted(members.items())]:
            member = zipfile.ZipInfo(name, _DATE)
            member.external_attr = serialization.PRIVATE_FILE << 16
            archive.writestr(member, data)
    return buffer.getvalue()


def read_archive(path: Path, kind: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Members of an archive by name, and what its maker says about it.

    Raises
    ------
    UsageError
        If there is no such file.
    RefusedFileError
        If it is no archive of that kind, a member is compressed, encrypted, oddly named, named twice, not listed or
        not what was sealed.
    """
    try:
        data = serialization.read_regular(path, MAX_BYTES)
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {path}.", "Check the path.") from error
    except OSError as error:
        raise RefusedFileError(f"{path} cannot be read: {error.strerror}.", REMEDY) from error
    try:
        return _opened(data, kind)
    except (
        zipfile.BadZipFile,
        serialization.DocumentError,
        OSError,
        ValueError,
        LookupError,
        EOFError,
        TypeError,
        AttributeError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise RefusedFileError(f"{path} is refused: {why}.", REMEDY) from error


def _opened(data: bytes, kind: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        _check_members(members, len(data))
        _check_rest(data, archive)
        found = {member.filename: archive.read(member) for member in members}
    if CONTENTS not in found:
        raise ValueError("it is no sealed archive")
    contents = serialization.unseal(serialization.parse_json(found.pop(CONTENTS)))
    if contents.get("kind") != kind:
        raise ValueError(f"it is {str(contents.get('kind'))[:40]!r}, and {kind!r} is wanted")
    if contents.get("format") != FORMAT:
        raise ValueError(
            f"its format is {str(contents.get('format'))[:20]}, and this featstore reads {FORMAT}"
        )
    listed, about = contents["members"], contents["about"]
    if not isinstance(about, dict) or set(listed) != set(found):
        raise ValueError("its members are not those that were sealed")
    for name, content in found.items():
        if listed[name] != {"sha256": serialization.digest_bytes(content), "bytes": len(content)}:
            raise ValueError(f"its member {name} is not what was sealed")
    return found, about


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    if len(members) > MAX_MEMBERS:
        raise ValueError(f"it has more than {MAX_MEMBERS} members")
    for member in members:
        if not _NAME.fullmatch(member.filename):
            raise ValueError(f"its member {member.filename[:80]!r} is a path and no name")
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & _ENCRYPTED:
            raise ValueError(f"its member {member.filename} is compressed or encrypted")
    if len({member.filename for member in members}) < len(members):
        raise ValueError("two of its members have one name")
    if sum(member.file_size for member in members) > size:
        raise ValueError("its members announce more bytes than it has")


_LOCAL, _CENTRAL, _END, _END_OF_LARGE = 30, 46, 22, 76
"""Bytes of the headers of a ZIP before a member, in its directory, and at its end; above 4 GB, beside it."""


def _check_rest(data: bytes, archive: zipfile.ZipFile) -> None:
    """Refuse bytes before, between and behind the members, which no digest covers: a picture could hide there."""
    members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    at = 0
    for member in members:
        if member.header_offset != at:
            break
        name, extra = (int.from_bytes(data[at + place : at + place + 2], "little") for place in (26, 28))
        at += _LOCAL + name + extra + member.compress_size
    directory = sum(_CENTRAL + len(one.filename.encode()) + len(one.extra) for one in members)
    end = len(data) - archive.start_dir - directory
    plain = not archive.comment and not any(member.comment for member in members)
    if at != archive.start_dir or end not in {_END, _END + _END_OF_LARGE} or not plain:
        raise ValueError("it holds bytes beside its members")
