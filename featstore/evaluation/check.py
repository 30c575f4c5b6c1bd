"""`check`: find out whether a data set is fit to be learned from, before anyone believes a score."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.errors import BadImageError
from featstore.evaluation.metrics import score
from featstore.extraction.batches import read_pixels
from featstore.images.audit import audit
from featstore.images.decode import decoder_version
from featstore.images.dhash import dhash
from featstore.images.resize import resize
from featstore.images.scan import scan
from featstore.signatures import public
from featstore.types import Decoding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.findings import Finding
    from featstore.images.manifest import Manifest
    from featstore.types import ImageRecord, Pixels

BINS = 16
FOLDS = 5
THUMBNAIL = 64
SAME = 0.95
"""Correlation of two thumbnails above which they show the same picture, or neighbouring slices of one scan."""


@dataclass(frozen=True, slots=True)
class Check:
    """Outcome of an audit.

    Attributes
    ----------
    sound
        Whether nothing was found that would make every score wrong.
    findings
        Errors first, then warnings.
    bad
        Images that do not decode, as (path, reason, detail).
    shortcuts
        AUC of guessing the label, in group-split cross-validation, from the file alone (size in bytes, width,
        height, channels, format) and from a 16-bin grey histogram; empty where groups are too few.
    """

    images: int
    groups: int
    classes: Mapping[str, int]
    sound: bool
    findings: tuple[Finding, ...]
    bad: tuple[tuple[str, str, str], ...]
    shortcuts: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json``."""
        return {**asdict(self), "findings": [finding.to_json() for finding in self.findings]}


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """What one image shows without a network."""

    record: ImageRecord
    dhash: int
    thumbnail: NDArray[np.float64]
    file: tuple[float, ...]
    histogram: NDArray[np.float64]


@public
def check(
    data: str | Path | Manifest,
    *,
    value_range: tuple[float, float] | None = None,
    group_pattern: str | None = None,
    follow_links: bool = False,
    progress: bool = False,
) -> Check:
    """Audit a data set: unreadable files, duplicates, leaks, shortcuts. Computes no features.

    Parameters
    ----------
    data
        A folder, a CSV file or a `Manifest`.
    value_range, group_pattern, follow_links
        As for `featstore.extract`.
    progress
        Show a bar on stderr.
    """
    from tqdm import tqdm

    manifest = scan(data, group_pattern=group_pattern, follow_links=follow_links)
    decoding = Decoding(decoder_version(), value_range=value_range)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = pool.map(partial(_look, decoding=decoding), manifest.records)
        bar = tqdm(looks, total=len(manifest.records), unit="img", desc="check", disable=not progress)
        results = list(bar)
    good = [result for result in results if isinstance(result, _Look)]
    bad = [result for result in results if not isinstance(result, _Look)]
    thumbnails = {look.record.id: look.thumbnail for look in good}
    findings = audit(
        manifest,
        {look.record.id: look.dhash for look in good},
        lambda one, two: float(np.vdot(thumbnails[one], thumbnails[two])) > SAME,
    )
    return Check(
        images=len(manifest.records) + len(manifest.unreadable),
        groups=len({record.group for record in manifest.records}),
        classes=manifest.count_by_class(),
        sound=not any(finding.severity == "error" for finding in findings),
        findings=findings,
        bad=tuple(sorted(bad + [(str(q.path), q.reason, q.detail) for q in manifest.unreadable])),
        shortcuts=_shortcuts(manifest, good),
    )


def _look(record: ImageRecord, decoding: Decoding) -> _Look | tuple[str, str, str]:
    try:
        pixels = read_pixels(record, decoding)
        size = record.path.stat().st_size
    except BadImageError as error:
        return str(record.path), error.reason, error.detail
    height, width, channels = pixels.shape
    formats = [float(record.path.suffix.lower() == suffix) for suffix in (".png", ".jpg", ".jpeg")]
    histogram = np.bincount(pixels.ravel() // (256 // BINS), minlength=BINS) / pixels.size
    return _Look(
        record,
        dhash(pixels),
        _thumbnail(pixels),
        (np.log(size), np.log(width), np.log(height), channels, *formats),
        histogram,
    )


def _thumbnail(pixels: Pixels) -> NDArray[np.float64]:
    """Small grey version with mean 0 and norm 1, so that the product of two is their correlation."""
    small = resize(pixels, THUMBNAIL).mean(axis=2, dtype=np.float64)
    small -= small.mean()
    unit: NDArray[np.float64] = small / max(float(np.linalg.norm(small)), 1e-12)
    return unit


def _shortcuts(manifest: Manifest, looks: Sequence[_Look]) -> dict[str, float]:
    fewest = min(manifest.groups_by_class().values())
    if len(manifest.classes) < 2 or fewest < FOLDS:  # noqa: PLR2004
        return {}
    return {
        "file alone (bytes, width, height, channels, format)": _guess(looks, [look.file for look in looks]),
        "grey histogram alone (16 bins)": _guess(looks, [look.histogram for look in looks]),
    }


def _guess(looks: Sequence[_Look], rows: Sequence[Any]) -> float:
    """AUC of a linear probe on a handful of numbers, over group-stratified folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    _, y = np.unique([look.record.label for look in looks], return_inverse=True)
    groups = [look.record.group for look in looks]
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    proba = cross_val_predict(probe, np.array(rows), y, groups=groups, cv=folds, method="predict_proba")
    return round(float(score(y, proba, np.ones((1, len(y))))["auc"][0]), 4)
