"""What an extraction leaves in its run folder: what was asked, of which images, what it took; no path, no patient."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from featstore.run import clear, data_digest, write_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from featstore.extraction.summary import Extraction
    from featstore.types import FeatureKey, ImageRecord


def write_account(
    out: Path,
    result: Extraction,
    keys: Sequence[FeatureKey],
    records: Iterable[ImageRecord],
    options: Mapping[str, Any],
) -> None:
    """Write ``run.json`` of an extraction, as `featstore.run.prepare` left the folder.

    Parameters
    ----------
    out
        The run's folder.
    result
        What the extraction did.
    keys
        Every feature key that was wanted.
    records
        The images of the manifest.
    options
        What was asked for beside the keys.
    """
    clear(out)
    write_run(
        out,
        {
            "kind": "extract",
            "options": dict(options),
            "data_sha256": data_digest(records),
            "images": result.images,
            "quarantined": dict(Counter(reason for _, reason, _ in result.bad)),
            "backbones": _distinct(asdict(key.backbone) for key in keys),
            "views": _distinct(asdict(key.view) for key in keys),
            "decoding": asdict(keys[0].decoding) if keys else None,
            "findings": [finding.to_json(examples=False) for finding in result.findings],
            **{name: value for name, value in result.to_json().items() if name not in ELSEWHERE},
        },
    )


ELSEWHERE = frozenset({"dry_run", "cache", "images", "bad", "findings"})
"""Told above in another form, or naming files: the summary and the quarantine table name them."""


def _distinct(values: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
