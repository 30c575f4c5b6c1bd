"""The folder that an extraction, a fit or a comparison leaves: what was done, what came out, and the model."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from featstore.errors import RunError, UsageError
from featstore.types import FeatureKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from featstore.matrix import FeatureMatrix

RUN, METRICS, PREDICTIONS, MODEL = "run.json", "metrics.json", "predictions.csv", "model"
LIBRARIES = ("featstore", "h5py", "keras", "numpy", "pillow", "scikit-learn", "tensorflow")
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def prepare(out: Path, *, overwrite: bool) -> None:
    """Make sure, before any work is done, that a run may be written to `out`.

    Raises
    ------
    UsageError
        If a run is there already and `overwrite` is off, or the folder holds something else.
    """
    if not out.exists() or not any(out.iterdir()):
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
) -> None:
    """Write the documents of a run; ``run.json`` comes last, so that a folder with it is whole.

    Parameters
    ----------
    out
        The run's folder, as `prepare` left it.
    run
        What was done: data, keys, parameters.
    metrics
        What came out, if there are scores.
    predictions
        Rows of ``predictions.csv``, the header first, if images were classified.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if metrics is not None:
            _write_private(out / METRICS, json_text(metrics))
        if predictions is not None:
            _write_private(out / PREDICTIONS, csv_text(predictions))
        _write_private(out / RUN, json_text({**run, **_provenance()}))
    except OSError as error:
        raise RunError(f"Cannot write the run to {out}: {error.strerror}", "Choose another --out.") from error


def clear(out: Path) -> None:
    """Take away an earlier run, ``run.json`` first: without it a folder counts as unfinished."""
    (out / RUN).unlink(missing_ok=True)
    shutil.rmtree(out / MODEL, ignore_errors=True)


def read_run(out: Path) -> dict[str, Any]:
    """Return ``run.json`` of a run folder.

    Raises
    ------
    RunError
        If there is none, or it is damaged.
    """
    try:
        run: dict[str, Any] = json.loads((out / RUN).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"{out} holds no readable run: {error}", "Make one: featstore fuse DATA --out RUN"
        ) from error
    return run


def describe(matrix: FeatureMatrix, data: Path, positive: int | None) -> dict[str, Any]:
    """Say what a matrix holds: counts, classes, and the full feature keys, without paths of images."""
    return {
        "data": str(data),
        "images": len(matrix.records),
        "quarantined": matrix.excluded,
        "groups": len(set(matrix.groups.tolist())),
        "has_groups": matrix.has_groups,
        "classes": {name: int((matrix.y == c).sum()) for c, name in enumerate(matrix.classes)},
        "positive": None if positive is None else matrix.classes[positive],
        "backbones": [asdict(spec) for spec in matrix.specs],
        "views": [asdict(view) for view in matrix.views],
        "decoding": asdict(matrix.decoding),
    }


def keys_of(run: Mapping[str, Any]) -> list[FeatureKey]:
    """Feature keys of the identity view that a run's model was built on, in column order."""
    view = run["matrix"]["views"][0]
    decoding = run["matrix"]["decoding"]
    return [
        FeatureKey.from_json({"backbone": spec, "view": view, "decoding": decoding})
        for spec in run["matrix"]["backbones"]
    ]


def json_text(value: Any) -> str:  # noqa: ANN401
    """JSON for people: indented, in the given order, finite numbers only, one newline at the end."""
    return json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """CSV with one line per row; a cell that a spreadsheet would run as a formula is quoted with an apostrophe."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([[_cell(value) for value in row] for row in rows])
    return buffer.getvalue()


def _cell(value: Any) -> Any:  # noqa: ANN401
    if not isinstance(value, str):
        return value
    text = value.encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if text.startswith(FORMULA) else text


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read: predictions name patients' files."""
    temporary = path.with_name(f".tmp-{path.name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def _provenance() -> dict[str, Any]:
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }
