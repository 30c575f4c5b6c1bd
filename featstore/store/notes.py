"""Notes beside the shards: speeds, predictions, requests, facts of images, and what was set aside."""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from featstore import serialization
from featstore.errors import StoreError
from featstore.store import paths
from featstore.store.paths import commit, commit_named_by_hash
from featstore.types import IDENTITY, BackboneSpec, Decoding, FeatureKey, View

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

# Timings: how long a vector took on which machine, for estimates alone

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BackboneTiming:
    """What one backbone costs on one machine.

    Attributes
    ----------
    core_seconds
        Seconds per vector times cores in use, from file to shard.
    load_seconds
        Seconds to build the network and load its weights.
    """

    core_seconds: float
    load_seconds: float


def record_timing(root: Path, machine: str, backbone: BackboneSpec, rate: BackboneTiming) -> None:
    """Note the latest rate of a backbone; a folder that cannot be written costs only the estimate."""
    note = {"backbone": asdict(backbone), **asdict(rate)}
    try:
        page = _folder(root, machine) / f"{serialization.digest(asdict(backbone))}.json"
        commit(root, page, serialization.canonical_json(note).encode())
    except StoreError as error:
        log.debug("rate not recorded: %s", error.cause)


def recorded_timings(root: Path, machine: str) -> dict[BackboneSpec, BackboneTiming]:
    """Return the latest rate of every backbone that a machine has run; notes that make no sense are passed over."""
    notes = (_read(page) for page in paths.files(root, _folder(root, machine), "rate"))
    return dict(note for note in notes if note is not None)


def _read(page: Path) -> tuple[BackboneSpec, BackboneTiming] | None:
    try:
        note = serialization.parse_json(paths.read_file(page, serialization.SMALL))
        backbone = BackboneSpec.from_json(note.pop("backbone"))
        rate = BackboneTiming(**note)
        sound = all(isinstance(seconds, int | float) and isfinite(seconds) for seconds in note.values())
        sound = sound and rate.core_seconds > 0 <= rate.load_seconds
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
    return (backbone, rate) if sound else None


def _folder(root: Path, machine: str) -> Path:
    return root / "rates" / machine


# Worker speeds: which layout of processes is fastest on which machine, for a default alone


def record_worker_speeds(
    root: Path, machine: str, backbone: str, precision: str, speeds: Mapping[int, float]
) -> None:
    """Note images per second by number of processes, in place of an earlier note.

    Raises
    ------
    StoreError
        If the cache folder cannot be written.
    """
    note = {str(processes): speed for processes, speed in speeds.items()}
    commit(root, _page(root, machine, backbone, precision), serialization.canonical_json(note).encode())


def recorded_worker_speeds(root: Path, machine: str, backbone: str, precision: str) -> dict[int, float]:
    """Return images per second by number of processes; empty where nothing sound was noted."""
    try:
        note = serialization.parse_json(
            paths.read(root, _page(root, machine, backbone, precision), serialization.SMALL)
        )
        speeds = {int(processes): float(speed) for processes, speed in note.items()}
    except (OSError, ValueError, TypeError, AttributeError, OverflowError):
        return {}
    sound = all(processes >= 1 and isfinite(speed) and speed > 0 for processes, speed in speeds.items())
    return speeds if sound else {}


def _page(root: Path, machine: str, backbone: str, precision: str) -> Path:
    return root / "layouts" / machine / f"{backbone}-{precision}.json"


# Predictions of cross-validation: a comparison that was interrupted goes on from here.

RESULTS_FOLDER = "results"
MAX_RESULT_BYTES = serialization.LARGE
"""Of one round, written and read: more is computed again by a comparison that goes on."""


def record_result(root: Path, key: Mapping[str, Any], proba: Sequence[Vector]) -> None:
    """Keep the answers of one round; a folder that cannot be written costs only the resumption.

    Parameters
    ----------
    root
        The cache folder.
    key
        Everything that can change the answers, as JSON.
    proba
        Probabilities ``(test images, classes)`` of each candidate.
    """
    note = serialization.seal({"key": dict(key), "proba": [values.tolist() for values in proba]})
    try:
        commit(root, _result_page(root, key), serialization.canonical_json(note).encode(), MAX_RESULT_BYTES)
    except StoreError as error:
        log.warning("results are not kept: %s", error.cause)


def recorded_result(
    root: Path, key: Mapping[str, Any], shapes: Sequence[tuple[int, int]]
) -> list[Vector] | None:
    """Answers that `record_result` kept under `key`, to the last bit; None where there are none that can be believed.

    Parameters
    ----------
    root, key
        As for `record_result`.
    shapes
        Images and classes of each candidate's answers.
    """
    try:
        note = _read_result(root, _result_page(root, key))
        proba = [np.array(values, np.float64) for values in note["proba"]]
        sound = note["key"] == key and [p.shape for p in proba] == list(shapes)
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None
    return proba if sound and all(_are_probabilities(p) for p in proba) else None


def check_result(page: Path) -> None:
    """OSError, ValueError, TypeError, KeyError or OverflowError if a file is no round's answers."""
    note = serialization.unseal(serialization.parse_json(paths.read_file(page, MAX_RESULT_BYTES)))
    for values in note["proba"]:
        np.array(values, np.float64)


def _read_result(root: Path, page: Path) -> dict[str, Any]:
    return serialization.unseal(serialization.parse_json(paths.read(root, page, MAX_RESULT_BYTES)))


def _are_probabilities(proba: Vector) -> bool:
    return bool(((proba >= 0) & (proba <= 1)).all() and np.allclose(proba.sum(axis=1), 1.0, atol=1e-6))


def _result_page(root: Path, key: Mapping[str, Any]) -> Path:
    return root / RESULTS_FOLDER / f"{serialization.digest(dict(key))}.json"


# Requests: networks and views of the last extraction, which stage two takes where it is told none.


@dataclass(frozen=True, slots=True)
class ExtractionRequest:
    """Networks, and views through each of them; the identity view is one of these."""

    backbones: tuple[BackboneSpec, ...]
    views: tuple[View, ...]

    def covers(self, specs: Iterable[BackboneSpec]) -> bool:
        """Whether it asked for all of these networks; imported vectors are never asked for."""
        return all(spec.is_imported or spec in self.backbones for spec in specs)


def record_request(
    root: Path, images: Collection[str], decoding: Decoding, request: ExtractionRequest
) -> None:
    """Keep what an extraction asked for; a folder that cannot be written costs only the convenience.

    The record is found by the images that it is about and the range that was declared for them, not by the path
    of the data set; it names no path and no patient. It saves saying things twice: without it, stage two looks at
    what is there.

    Parameters
    ----------
    root
        The cache folder.
    images
        Ids of all images of the data set, those that do not decode among them.
    decoding
        Its declared range counts; the version of the decoder does not.
    request
        What was asked for. It takes the place of the one before.
    """
    if recorded_request(root, images, decoding) == request:
        return
    note = serialization.seal({"request": asdict(request), "data": _address(images, decoding)})
    try:
        commit(
            root,
            _request_page(root, images, decoding),
            serialization.canonical_json(note).encode(),
            serialization.LARGE,
        )
    except StoreError as error:
        log.warning("what this extraction asked for is not remembered: %s", error.cause)


def recorded_request(root: Path, images: Collection[str], decoding: Decoding) -> ExtractionRequest | None:
    """What the last extraction of just these images asked for; None where nothing is known or can be believed."""
    try:
        data = paths.read(root, _request_page(root, images, decoding), serialization.LARGE)
        address, found = _parse(serialization.parse_json(data))
    except (OSError, ValueError, TypeError, LookupError, OverflowError):
        return None
    return found if address == _address(images, decoding) else None


def check_request(page: Path) -> ExtractionRequest:
    """Read one record; OSError, ValueError, TypeError or LookupError if the file is none."""
    return _parse(serialization.parse_json(paths.read_file(page, serialization.LARGE)))[1]


def _parse(value: Any) -> tuple[Mapping[str, Any], ExtractionRequest]:  # noqa: ANN401
    content = serialization.unseal(value)
    asked = content["request"]
    keys = [
        FeatureKey.from_json({"backbone": spec, "view": view, "decoding": asdict(Decoding(""))})
        for spec in asked["backbones"]
        for view in asked["views"]
    ]
    found = ExtractionRequest(
        tuple(dict.fromkeys(key.backbone for key in keys)), tuple(dict.fromkeys(key.view for key in keys))
    )
    if IDENTITY not in found.views:
        raise serialization.DocumentError("it asks for no network in the identity view")
    return content["data"], found


def _address(images: Collection[str], decoding: Decoding) -> dict[str, Any]:
    span = None if decoding.value_range is None else [float(end) for end in decoding.value_range]
    return {"images": serialization.digest_bytes("\n".join(sorted(images)).encode()), "value_range": span}


def _request_page(root: Path, images: Collection[str], decoding: Decoding) -> Path:
    return paths.index_folder(root) / f"{serialization.digest(_address(images, decoding))}.json"


# Looks: when scores of which images were computed. A note names no path, no label and no patient.


class Look(NamedTuple):
    """When scores of some images were computed, ISO 8601, UTC, and by which command."""

    when: str
    command: str


LOOKS_FOLDER = "looks"
COMMANDS = ("compare", "fuse")
MOST_LOOKS = 10_000
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")


def record_look(root: Path, images: Collection[str], look: Look) -> None:
    """Note a look, in a file of its own, so that none is lost to another; what cannot be written is only missed."""
    note = serialization.seal({"look": look._asdict(), "draw": secrets.token_hex(8)})
    try:
        page = _looks_folder(root, images) / f"{note[serialization.SEAL]}.json"
        commit(root, page, serialization.canonical_json(note).encode())
    except StoreError as error:
        log.warning("that these images were looked at is not remembered: %s", error.cause)


def recorded_looks(root: Path, images: Collection[str]) -> list[Look]:
    """Looks at just these images, the earliest first; notes that make no sense are passed over."""
    looks = []
    for page in paths.files(root, _looks_folder(root, images), "look")[:MOST_LOOKS]:
        try:
            looks.append(check_look(page))
        except (OSError, ValueError, TypeError, LookupError):
            continue
    return sorted(looks)


def check_look(page: Path) -> Look:
    """Read one note; OSError, ValueError, TypeError or LookupError if the file is none."""
    note = serialization.unseal(serialization.parse_json(paths.read_file(page, serialization.SMALL)))
    look = Look(**note["look"])
    if look.command not in COMMANDS or not _MOMENT.fullmatch(look.when):
        raise serialization.DocumentError("it tells of no look")
    return look


def _looks_folder(root: Path, images: Collection[str]) -> Path:
    return root / LOOKS_FOLDER / serialization.digest_bytes("\n".join(sorted(images)).encode())


# Facts of images, and which are copies: an accelerator that can be deleted at any time.

FACTS_FOLDER = "facts"
SUFFIX = ".rows"
MAX_FACTS_BYTES = 1 << 31
MAX_HEAD = 1 << 12
SEGMENTS = 16
"""More files than these are merged when they are read."""


def record_facts(root: Path, decoding: Decoding, revision: int, rows: NDArray[np.void]) -> Path | None:
    """Keep rows and return their file; a cache that cannot be written costs only the next look.

    One file holds the rows of one pass, is written once and named by the hash of its bytes, like a shard, so writers
    cannot disturb each other; whatever does not verify is passed over, and those images are looked at again.

    Parameters
    ----------
    root
        The cache folder.
    decoding, revision
        How the pixels were made, and the version of the facts.
    rows
        ``(n,)`` of a structured type with the field ``id``, 32 bytes each.
    """
    head = serialization.canonical_json({"featstore": "facts", "fields": _layout(rows.dtype)}).encode()
    try:
        folder, data = _facts_folder(root, decoding, revision), head + b"\n" + rows.tobytes()
        return commit_named_by_hash(root, folder, data, SUFFIX, MAX_FACTS_BYTES)
    except StoreError as error:
        log.warning("facts of images are not kept: %s", error.cause)
        return None


def recorded_facts(root: Path, decoding: Decoding, revision: int, dtype: np.dtype[Any]) -> NDArray[np.void]:
    """All rows that `record_facts` kept and that can be believed; one per image."""
    folder = _facts_folder(root, decoding, revision)
    pages = paths.files(root, folder, "facts")
    parts = []
    for page in pages:
        try:
            parts.append(read_facts(page, dtype))
        except (OSError, ValueError) as error:
            log.debug("facts in %s passed over: %s", page, error)
    rows = np.concatenate(parts) if parts else np.zeros(0, dtype)
    rows = rows[np.unique(rows["id"], return_index=True)[1]]
    if len(pages) > SEGMENTS and (merged := record_facts(root, decoding, revision, rows)):
        for page in set(pages) - {merged}:
            with contextlib.suppress(OSError):
                paths.unlink(root, page)
    return rows


class CopiesNote(NamedTuple):
    """Which images are copies of each other.

    Attributes
    ----------
    pairs
        Two ids, how alike they are, and how that was made; the most alike first.
    crowded, left
        Images and pairs that were not looked at closely.
    """

    pairs: Sequence[tuple[str, str, float, str]]
    crowded: int = 0
    left: int = 0


def record_copies(root: Path, key: Mapping[str, Any], copies: CopiesNote) -> None:
    """Keep which images are copies of each other: their ids, how alike they are, and how that was made.

    Parameters
    ----------
    root
        The cache folder.
    key
        Everything that can change the answer, as JSON.
    copies
        What is known; of more pairs than fit into a document none are kept.
    """
    note = serialization.seal(
        {
            "key": dict(key),
            "pairs": [list(pair) for pair in copies.pairs],
            "crowded": copies.crowded,
            "left": copies.left,
        }
    )
    text = serialization.canonical_json(note).encode()
    if len(text) > serialization.LARGE:
        return
    try:
        commit(root, _copies_page(root, key), text, serialization.LARGE)
    except StoreError as error:
        log.warning("copies are not kept: %s", error.cause)


def recorded_copies(root: Path, key: Mapping[str, Any]) -> CopiesNote | None:
    """What `record_copies` kept under `key`; None where there is nothing that can be believed."""
    try:
        note = serialization.unseal(
            serialization.parse_json(paths.read(root, _copies_page(root, key), serialization.LARGE))
        )
        pairs = [(str(a), str(b), float(value), str(how)) for a, b, value, how in note["pairs"]]
        copies = CopiesNote(pairs, int(note["crowded"]), int(note["left"]))
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None
    return copies if note.get("key") == key else None


def _copies_page(root: Path, key: Mapping[str, Any]) -> Path:
    return root / FACTS_FOLDER / f"{serialization.digest(dict(key))}.json"


def read_facts(page: Path, dtype: np.dtype[Any] | None = None) -> NDArray[np.void]:
    """Rows of one file; OSError or ValueError if it is none, or not of the type that is asked for."""
    data = paths.read_file(page, MAX_FACTS_BYTES)
    if serialization.digest_bytes(data) != page.stem:
        raise ValueError("its bytes are not those of its name")
    return decode_facts(data, dtype)


def decode_facts(data: bytes, dtype: np.dtype[Any] | None = None) -> NDArray[np.void]:
    """Rows of the bytes of one file; ValueError if they are none, or not of the type that is asked for."""
    end = data.find(b"\n", 0, MAX_HEAD)
    if end < 0:
        raise ValueError("it has no head")
    head = serialization.parse_json(data[:end])
    if not isinstance(head, dict) or head.get("featstore") != "facts":
        raise ValueError("it holds no facts")
    if dtype is None:
        return np.zeros(0, "S32")
    if head.get("fields") != _layout(dtype) or (len(data) - end - 1) % dtype.itemsize:
        raise ValueError("its rows are of another form")
    return np.frombuffer(data, dtype, offset=end + 1)


def _layout(dtype: np.dtype[Any]) -> str:
    return repr(dtype.descr)


def _facts_folder(root: Path, decoding: Decoding, revision: int) -> Path:
    return (
        root / FACTS_FOLDER / serialization.short_digest({"decoding": asdict(decoding), "revision": revision})
    )


# Set aside: shards that do not verify, and images that do not decode. Never deleted silently.

DIGEST = 64
"""Characters of a shard's name; one that a stranger gave may leave no room for more."""


@dataclass(frozen=True, slots=True)
class BadImage:
    """An image whose bytes do not decode.

    Attributes
    ----------
    id
        Image id, 64 hex digits.
    reason
        Short code, such as ``truncated``.
    detail
        What exactly was met; holds no path.
    """

    id: str
    reason: str
    detail: str


def set_aside_shard(folder: Path, shard: Path, cause: str) -> Path:
    """Move a bad shard into `folder`, with its cause beside it, and return its new path.

    The note says where in the cache it lay; where the cache lies is nobody's business who is sent the note.
    """
    root = folder.parent
    origin = shard.relative_to(root).as_posix()
    target = folder / "shards" / f"{shard.stem[:DIGEST]}-{serialization.short_digest(origin)}{shard.suffix}"
    paths.make(root, target.parent)
    paths.rename(root, shard, target)
    commit(
        root,
        target.with_suffix(".json"),
        serialization.canonical_json({"from": origin, "cause": cause}).encode(),
    )
    return target


def record_bad_image(folder: Path, decoding: Decoding, bad: BadImage) -> None:
    """Enter one image in the table: one small file a row, so that writers cannot disturb each other."""
    target = _table(folder, decoding) / f"{bad.id}.json"
    if not paths.is_file(target):
        commit(folder.parent, target, serialization.canonical_json(serialization.seal(asdict(bad))).encode())


def bad_images(folder: Path, decoding: Decoding) -> dict[str, BadImage]:
    """Return the table of bad images under one decoding, by image id.

    A damaged row says nothing: it is taken out, and the next extraction looks at that image again.
    """
    table, damaged = {}, 0
    for page in paths.files(folder.parent, _table(folder, decoding), "bad image"):
        try:
            bad = read_bad_image(page)
        except (OSError, serialization.DocumentError) as error:
            log.debug("row %s of the quarantine table dropped: %s", page, error)
            damaged += 1
            with contextlib.suppress(OSError):
                paths.unlink(folder.parent, page)
        else:
            table[bad.id] = bad
    if damaged:
        log.warning("%d damaged rows of the quarantine table dropped: those images are tried again", damaged)
    return table


def read_bad_image(page: Path) -> BadImage:
    """Read one row of the table; OSError or DocumentError if the file is none."""
    row = serialization.unseal(serialization.parse_json(paths.read_file(page, serialization.SMALL)))
    if set(row) != {field.name for field in fields(BadImage)} or not all(
        isinstance(v, str) for v in row.values()
    ):
        raise serialization.DocumentError("it is no row of the table")
    if row["id"] != page.stem:
        raise serialization.DocumentError("it speaks of another image than its name")
    return BadImage(**row)


def _table(folder: Path, decoding: Decoding) -> Path:
    return folder / "images" / serialization.short_digest(asdict(decoding))
