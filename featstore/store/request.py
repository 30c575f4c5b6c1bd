"""What the last extraction of a data set asked for: networks and views that stage two takes where it is told none.

The record is found by the images that it is about and the range that was declared for them, not by the path of the
data set; it names no path and no patient. It saves saying things twice: without it, stage two looks at what is there.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from featstore import document
from featstore.errors import StoreError
from featstore.fingerprint import canonical_json, digest, digest_bytes
from featstore.store import layout, rooms
from featstore.store.commit import commit
from featstore.types import IDENTITY, BackboneSpec, Decoding, FeatureKey, View

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """Networks, and views through each of them; the identity view is one of these."""

    backbones: tuple[BackboneSpec, ...]
    views: tuple[View, ...]

    def covers(self, specs: Iterable[BackboneSpec]) -> bool:
        """Whether it asked for all of these networks; imported vectors are never asked for."""
        return all(spec.is_foreign or spec in self.backbones for spec in specs)


def record_request(root: Path, images: Collection[str], decoding: Decoding, request: Request) -> None:
    """Keep what an extraction asked for; a folder that cannot be written costs only the convenience.

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
    note = document.seal({"request": asdict(request), "data": _address(images, decoding)})
    try:
        commit(root, _page(root, images, decoding), canonical_json(note).encode(), document.LARGE)
    except StoreError as error:
        log.warning("what this extraction asked for is not remembered: %s", error.cause)


def recorded_request(root: Path, images: Collection[str], decoding: Decoding) -> Request | None:
    """What the last extraction of just these images asked for; None where nothing is known or can be believed."""
    try:
        data = rooms.read(root, _page(root, images, decoding), document.LARGE)
        address, found = _parse(document.parse(data))
    except (OSError, ValueError, TypeError, LookupError, OverflowError):
        return None
    return found if address == _address(images, decoding) else None


def check(page: Path) -> Request:
    """Read one record; OSError, ValueError, TypeError or LookupError if the file is none."""
    return _parse(document.parse(rooms.read_file(page, document.LARGE)))[1]


def _parse(value: Any) -> tuple[Mapping[str, Any], Request]:  # noqa: ANN401
    content = document.unseal(value)
    asked = content["request"]
    keys = [
        FeatureKey.from_json({"backbone": spec, "view": view, "decoding": asdict(Decoding(""))})
        for spec in asked["backbones"]
        for view in asked["views"]
    ]
    found = Request(
        tuple(dict.fromkeys(key.backbone for key in keys)), tuple(dict.fromkeys(key.view for key in keys))
    )
    if IDENTITY not in found.views:
        raise document.DocumentError("it asks for no network in the identity view")
    return content["data"], found


def _address(images: Collection[str], decoding: Decoding) -> dict[str, Any]:
    span = None if decoding.value_range is None else [float(end) for end in decoding.value_range]
    return {"images": digest_bytes("\n".join(sorted(images)).encode()), "value_range": span}


def _page(root: Path, images: Collection[str], decoding: Decoding) -> Path:
    return layout.index_folder(root) / f"{digest(_address(images, decoding))}.json"
