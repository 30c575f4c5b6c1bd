"""Run folders: what an extraction, a fit or a comparison leaves - what was done, what came out, and the model.

A run folder has one writer: who comes second is refused at once, and the folder stays whole. The lock is the
kernel's, on a file in the folder, so that it ends with its owner, however that ends. Where a file system knows no
locks, nobody is refused.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import os
import platform
import re
import shutil
import socket
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict
from datetime import UTC, datetime
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from featstore import serialization
from featstore.errors import RunError, UsageError
from featstore.types import FeatureKey, ImageRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from featstore.matrix import FeatureMatrix
    from featstore.results.scores import MatrixFields


# Documents of a run

P = ParamSpec("P")
R = TypeVar("R")

RUN, METRICS, PREDICTIONS, RESULTS = "run.json", "metrics.json", "predictions.csv", "results.csv"
PATIENTS = "patients.csv"
MODEL = "model"
MODEL_STATE = f"{MODEL}/model.json"
"""It names the digest of the arrays beside it."""
TRAINING = f"{MODEL}/training.json"
"""Digests of the images that the model has learned from."""
FILES = (METRICS, PREDICTIONS, PATIENTS, RESULTS, MODEL_STATE, TRAINING)
FIGURES = "figures"
"""Folder of the pictures that a run keeps, each an SVG."""
MAX_FILE_BYTES = 1 << 31
REMEDY = "Make the run again: featstore fuse DATA --out RUN"
LIBRARIES = ("featstore", "h5py", "keras", "numba", "numpy", "pillow", "scikit-learn", "scipy", "tensorflow")
FORMULA = re.compile(
    r"^(?=[=+\-@\uff1d\uff0b\uff0d\uff20\t\r\n])|(?<=[;\t\r\n])(?=[ \"]*[=+\-@\uff1d\uff0b\uff0d\uff20])"
)
"""Where a formula may begin: a cell, or what a spreadsheet takes for one where tables are split at ``;`` or tabs."""

config_in_use: ContextVar[Mapping[str, Any] | None] = ContextVar("file of settings in use", default=None)
"""Name and digest of the file of settings that the command line has read, and which of them are in use."""


def writes_run(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate what writes a run to its argument `out`: from its first line to its last it is the folder's writer."""

    @wraps(function)
    def alone(*arguments: P.args, **options: P.kwargs) -> R:
        out: Any = options.get("out")
        if out is None:
            return function(*arguments, **options)
        if options.get("dry_run"):
            prepare(Path(out), overwrite=bool(options.get("overwrite")))
            return function(*arguments, **options)
        with reserve_folder(Path(out), overwrite=bool(options.get("overwrite"))):
            return function(*arguments, **options)

    return alone


@contextmanager
def reserve_folder(out: Path, *, overwrite: bool) -> Iterator[None]:
    """Make sure, before any work is done, that a run may be written to `out`, and by nobody else meanwhile.

    Raises
    ------
    UsageError
        If a run is there already and `overwrite` is off, the folder holds something else, or another writes to it.
    RunError
        If the disk refuses.
    """
    prepare(out, overwrite=overwrite)
    with exclusive_access(out):
        prepare(out, overwrite=overwrite)  # again: another may have ended meanwhile
        yield


@contextmanager
def exclusive_access(out: Path) -> Iterator[None]:
    """Be the only one who writes to a folder, whatever it holds.

    Raises
    ------
    UsageError
        If another is writing to it.
    RunError
        If the disk refuses.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(sole_writer(out))
        except OSError as error:
            raise unwritable(out, error) from error
        yield


def prepare(out: Path, *, overwrite: bool) -> None:
    """Look whether a run may be written to `out`.

    Raises
    ------
    UsageError
        If a run is there already and `overwrite` is off, or the folder holds something else.
    RunError
        If the disk refuses.
    """
    try:
        is_free = not out.exists() or all(path.name == LOCK for path in out.iterdir())
    except OSError as error:
        raise unwritable(out, error) from error
    if is_free:
        return
    if not (out / RUN).exists():
        raise UsageError(f"{out} holds files that are no run.", "Choose another folder with --out.")
    if not overwrite:
        raise UsageError(f"{out} holds a run already.", "Choose another --out, or add --overwrite.")


def write_run(
    out: Path,
    run: Mapping[str, Any],
    metrics: Mapping[str, Any] | None = None,
    predictions: Iterable[Sequence[Any]] | None = None,
    results: Iterable[Sequence[Any]] | None = None,
    patients: Iterable[Sequence[Any]] | None = None,
) -> None:
    """Write the documents of a run; ``run.json`` comes last, so that a folder with it is whole.

    It names the digest of every other file, the model's among them, and is sealed itself. All of them are for their
    owner alone, since ``predictions.csv`` tells which patient's file is which image.

    Parameters
    ----------
    out
        The run's folder, as `clear` left it.
    run
        What was done: data, keys, parameters.
    metrics
        What came out, if there are scores.
    predictions
        Rows of ``predictions.csv``, the header first, if images were classified.
    results
        Rows of ``results.csv``, the header first, if candidates were compared.
    patients
        Rows of ``patients.csv``, the header first, if patients were scored.
    """
    try:
        if metrics is not None:
            serialization.write_private(out / METRICS, json_text(metrics).encode())
        if predictions is not None:
            serialization.write_private(out / PREDICTIONS, csv_text(predictions).encode())
        if patients is not None:
            serialization.write_private(out / PATIENTS, csv_text(patients).encode())
        if results is not None:
            serialization.write_private(out / RESULTS, csv_text(results).encode())
        names = [*FILES, *(f"{FIGURES}/{path.name}" for path in sorted((out / FIGURES).glob("*.svg")))]
        files = {name: serialization.digest_file(out / name) for name in names if (out / name).exists()}
        serialization.write_private(
            out / RUN, json_text(serialization.seal({**run, **_provenance(), "files": files})).encode()
        )
    except OSError as error:
        raise unwritable(out, error) from error


def clear(out: Path) -> None:
    """Take away an earlier run, ``run.json`` first: without it a folder counts as unfinished.

    A folder that is not there yet is made for its owner alone.

    Raises
    ------
    RunError
        If the disk refuses.
    """
    try:
        out.mkdir(mode=serialization.PRIVATE_FOLDER, parents=True, exist_ok=True)
        for folder in (out / FIGURES, out / MODEL):
            if folder.is_symlink():  # what it leads to is no part of the run
                folder.unlink()
        for path in (
            *(out / name for name in (RUN, METRICS, PREDICTIONS, PATIENTS, RESULTS)),
            *(out / FIGURES).glob("*.svg"),
        ):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(out, error) from error
    shutil.rmtree(out / MODEL, ignore_errors=True)


def read_run(out: Path) -> dict[str, Any]:
    """Return ``run.json`` of a run folder.

    Raises
    ------
    RunError
        If there is none, or it is damaged.
    """
    try:
        return serialization.unseal(serialization.read(out / RUN, serialization.LARGE))
    except (OSError, serialization.DocumentError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise RunError(f"{out} holds no readable run: {why}.", REMEDY) from error


def read_verified(out: Path, run: Mapping[str, Any], name: str) -> bytes:
    """Return the bytes of a file of a run folder, if it is the one that ``run.json`` was written with.

    Raises
    ------
    RunError
        If it is absent, damaged, or comes from another run.
    """
    try:
        data = serialization.read_regular(out / name, MAX_FILE_BYTES)
    except OSError as error:
        raise RunError(f"{out / name} cannot be read: {error.strerror}.", REMEDY) from error
    files = run.get("files")
    if not isinstance(files, dict) or files.get(name) != serialization.digest_bytes(data):
        raise RunError(f"{out / name} is not the file that {RUN} was written with.", REMEDY)
    return data


def require_verified(out: Path, run: Mapping[str, Any], name: str) -> None:
    """Make sure of what `read_verified` makes sure of."""
    read_verified(out, run, name)


def data_digest(records: Iterable[ImageRecord]) -> str:
    """SHA-256 of ids, labels, groups, splits, sites and covariates: whether two runs saw the same table."""
    return serialization.digest(
        sorted([r.id, r.label, r.group, r.split or "", r.site or "", *r.covariates] for r in records)
    )


def describe(matrix: FeatureMatrix, positive: int | None, origin: str | None = None) -> MatrixFields:
    """Say what a matrix holds: counts, classes, and the full feature keys; no path, no patient.

    The data set stands there by the digest of its table, which tells whether two runs saw the same.

    Parameters
    ----------
    matrix
        What to describe.
    positive, origin
        Index of the positive class, and who chose it.
    """
    document: MatrixFields = {
        "data_sha256": data_digest(matrix.records),
        "images": len(matrix.records),
        "quarantined": matrix.excluded,
        "set_apart": matrix.set_apart,
        "tuned": sorted(matrix.seen_by_backbone),
        "groups": len(set(matrix.groups.tolist())),
        "has_groups": matrix.has_groups,
        "groups_set_aside": matrix.groups_set_aside,
        "classes": {name: int((matrix.y == c).sum()) for c, name in enumerate(matrix.classes)},
        "positive": None if positive is None else matrix.classes[positive],
        "backbones": [asdict(spec) for spec in matrix.specs],
        "views": [asdict(view) for view in matrix.views],
        "decoding": asdict(matrix.decoding),
    }
    if origin is not None:
        document["positive_origin"] = origin
    return document


def keys_of(run: Mapping[str, Any]) -> list[FeatureKey]:
    """Feature keys of the identity view that a run's model was built on, in column order.

    Raises
    ------
    RunError
        If the document does not hold them.
    """
    try:
        matrix = run["matrix"]
        parts = {"view": matrix["views"][0], "decoding": matrix["decoding"]}
        keys = [FeatureKey.from_json({"backbone": spec, **parts}) for spec in matrix["backbones"]]
    except (LookupError, TypeError, ValueError) as error:
        raise RunError(f"{RUN} does not say which features the model needs: {error}.", REMEDY) from error
    if not keys:
        raise RunError(f"{RUN} names no backbone.", REMEDY)
    return keys


def json_text(value: Any) -> str:  # noqa: ANN401
    """JSON for people: indented, in the given order, finite numbers only, one newline at the end."""
    return json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """CSV with one line per row; what a spreadsheet would run as a formula is quoted with an apostrophe."""
    return "".join(map(_line, rows))


def _line(row: Sequence[Any]) -> str:
    """One row; only where it ends its lines with both does csv quote a cell for either of CR and LF."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow([_cell(value) for value in row])
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def _cell(value: Any) -> Any:  # noqa: ANN401
    if not isinstance(value, str):
        return value
    text = value.encode("utf-8", "backslashreplace").decode()
    return FORMULA.sub("'", text)


def unwritable(out: Path, error: OSError) -> RunError:
    """Error of a run folder that the disk refuses."""
    return RunError(f"Cannot write the run to {out}: {error.strerror}", "Choose another --out.")


def _provenance() -> dict[str, Any]:
    config = config_in_use.get()
    return {
        **({} if config is None else {"config": dict(config)}),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


# One writer for a run folder

LOCK = ".lock"
"""File that is there while somebody writes to the folder; what a killed one left is nobody's."""
_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
_HELD = {errno.EWOULDBLOCK, errno.EACCES}
_OWNER = re.compile(rb"process \d+ on [\w.-]+")
_MOST_BYTES = 300
_ATTEMPTS = 100
"""Each fails only because another writer has ended in the very moment."""
_held_folders: ContextVar[frozenset[Path]] = ContextVar(
    "folders of which this call is the writer", default=frozenset()
)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Be the only one who writes to a folder, until the block ends; who is it already goes on.

    The folder is made if need be, for its owner alone, and taken away again if nothing came of it.

    Raises
    ------
    UsageError
        If another process, or another thread of this one, is writing to it.
    OSError
        If the folder cannot be made or written to.
    """
    place = folder.resolve()
    if place in _held_folders.get():
        yield
        return
    made, descriptor = _take(place, folder)
    token = _held_folders.set(_held_folders.get() | {place})
    try:
        yield
    finally:
        _held_folders.reset(token)
        with suppress(OSError):
            (place / LOCK).unlink()
        os.close(descriptor)
        for path in made:
            with suppress(OSError):  # it holds what was written
                path.rmdir()


def _take(place: Path, named: Path) -> tuple[list[Path], int]:
    """Lock the folder; return the folders that were made for it, the innermost first, and the open lock."""
    made = [path for path in (place, *place.parents) if not path.exists()]
    for _ in range(_ATTEMPTS):
        try:
            place.mkdir(mode=serialization.PRIVATE_FOLDER, parents=True, exist_ok=True)
            descriptor = os.open(place / LOCK, _OPEN, serialization.PRIVATE_FILE)
        except (FileNotFoundError, FileExistsError):  # taken away in between by a writer that had made it
            if place.exists() and not place.is_dir():
                raise
            continue
        if not _lock(descriptor):
            owner = _OWNER.fullmatch(os.pread(descriptor, _MOST_BYTES, 0))
            os.close(descriptor)
            raise _busy(named, owner)
        if _is_at(descriptor, place / LOCK):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            return made, descriptor
        os.close(descriptor)  # its owner took the file away before this process had it
    raise _busy(named, None)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _HELD
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


def _busy(folder: Path, owner: re.Match[bytes] | None) -> UsageError:
    by = owner[0].decode() if owner else "another process"
    return UsageError(
        f"{folder} is being written to by {by}.", "Choose another --out, or wait until that has ended."
    )
