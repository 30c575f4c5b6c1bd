"""Which images a network's weights have learned from: features of these images would flatter whatever they score.

The record lies inside the weights file, so that it goes wherever the weights go, under their digest; and beside the
vectors that they gave, so that stage two, which sees no weights, knows it, and so does whoever copies that folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from featstore import document
from featstore.errors import RefusedFileError, StoreError
from featstore.files import write_private
from featstore.fingerprint import canonical_json
from featstore.isolation.caller import LostError, call
from featstore.store import guard, layout
from featstore.store.commit import make_folder
from featstore.store.known_images import KnownImages

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.types import BackboneSpec

FORMAT = 2
"""2: with digests of pixels and of salted names of groups; a record of format 1 has ids alone."""
SIDES = ("trained", "validated")
FIELDS = (*SIDES, *(f"{side}_{what}" for what in ("pixels", "groups") for side in SIDES), "salt")
DATASETS = tuple(f"featstore/{field}" for field in FIELDS)
HASHED = "sha256:"
WIDTH = 32


@dataclass(frozen=True, slots=True)
class Learned:
    """What weights have learned from.

    Attributes
    ----------
    weights
        Digest of the weights, as a feature key has it: ``sha256:<64 hex>``.
    trained
        Ids of the images whose gradients moved them.
    validated
        Ids of the images by which the best epoch was chosen.
    trained_pixels, validated_pixels
        Digests of their decoded pixels; empty in a record of format 1.
    trained_groups, validated_groups
        Digests of the names of their groups, with `salt`; empty in a record of format 1, or without groups.
    salt
        64 hex digits, or empty in a record of format 1.
    """

    weights: str
    trained: frozenset[str]
    validated: frozenset[str]
    trained_pixels: frozenset[str] = frozenset()
    validated_pixels: frozenset[str] = frozenset()
    trained_groups: frozenset[str] = frozenset()
    validated_groups: frozenset[str] = frozenset()
    salt: str = ""

    @classmethod
    def of(cls, weights: str, trained: KnownImages, validated: KnownImages) -> Learned:
        """Record of images whose groups were salted alike."""
        return cls(
            weights,
            trained.ids,
            validated.ids,
            trained.pixels,
            validated.pixels,
            trained.groups,
            validated.groups,
            trained.salt,
        )

    @property
    def images(self) -> frozenset[str]:
        """Everything that the weights know anything of, by id."""
        return self.trained | self.validated

    @property
    def known_trained(self) -> KnownImages:
        """The images whose gradients moved the weights."""
        return KnownImages(self.trained, self.trained_pixels, self.trained_groups, self.salt)

    @property
    def known_validated(self) -> KnownImages:
        """The images by which the best epoch was chosen."""
        return KnownImages(self.validated, self.validated_pixels, self.validated_groups, self.salt)

    @property
    def known(self) -> KnownImages:
        """Everything that the weights know anything of."""
        return self.known_trained | self.known_validated

    def digests(self, field: str) -> frozenset[str]:
        """Digests under one of `FIELDS`."""
        value = getattr(self, field)
        return value if isinstance(value, frozenset) else frozenset([value] if value else [])


def inscribe(draft: Path, record: Learned) -> None:
    """Put the record into a weights file that has not got its name yet: from then on its digest covers both."""
    with h5py.File(draft, "r+", locking=False) as file:
        for name, field in zip(DATASETS, FIELDS, strict=True):
            file.create_dataset(name, data=_pack(record.digests(field)), track_times=False)


def inscription(path: Path, weights: str) -> Learned | None:
    """Record inside the weights file whose digest is `weights`; None for weights that featstore did not tune.

    A file that is no HDF5 has none: nothing can be loaded from it either.

    Raises
    ------
    RefusedFileError
        If there is something in its place that is no record.
    """
    try:
        names, arrays = call("featstore.store.learned:read_record", path)
    except LostError as error:
        raise RefusedFileError(f"{path} is refused: {error}.", guard.REMEDY) from error
    found = dict(zip(names, arrays, strict=True))
    if not found:
        return None
    try:
        return _learned(weights, {name.partition("/")[2]: _unpack(rows) for name, rows in found.items()})
    except (KeyError, ValueError) as error:
        raise RefusedFileError(
            f"{path} says that its weights were tuned, but not on which images.",
            "Make the weights again with `featstore finetune`.",
        ) from error


def read_record(path: Path) -> tuple[list[str], list[NDArray[Any]]]:
    """Data sets of a record inside a weights file; run by `featstore.isolation`."""
    found = guard.read_datasets(path, DATASETS)
    return [*found], [*found.values()]


def remember(root: Path, backbone: BackboneSpec, learned: Learned) -> None:
    """Keep a record in a cache beside the features that it concerns; what is there already and sound stays.

    Raises
    ------
    StoreError
        If the disk refuses.
    """
    path = _page(root, backbone)
    try:
        if path.exists() and _is_of(path, learned.weights):
            return
        make_folder(path.parent)
        digests = {field: sorted(learned.digests(field)) for field in FIELDS}
        content = {"format": FORMAT, "weights": learned.weights, **digests}
        write_private(path, canonical_json(document.seal(content)).encode())
    except OSError as error:
        raise StoreError(
            f"Cannot write {path}: {error.strerror}",
            "Check that the cache folder is writable, or choose another with --cache.",
        ) from error


def recall(root: Path, backbone: BackboneSpec) -> Learned | None:
    """Record that a cache keeps of these weights; None where it keeps none.

    Raises
    ------
    StoreError
        If there is one and it is damaged: without it no score of these features can be trusted.
    """
    path = _page(root, backbone)
    try:
        found = read(path)
        if found.weights != backbone.weights:
            raise document.DocumentError("it is about other weights")  # noqa: TRY301
    except FileNotFoundError:
        return None
    except (OSError, document.DocumentError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise StoreError(
            f"{path} cannot be read: {why}. It says which images the weights have learned from.",
            "Run `featstore extract` with these --weights again: the weights file tells it anew.",
        ) from error
    return found


def read(path: Path) -> Learned:
    """Read a record of a cache; OSError or DocumentError if the file is none."""
    content = document.unseal(document.read(path, document.LARGE))
    fields = SIDES if content.pop("format", 1) == 1 else FIELDS
    if set(content) != {"weights", *fields} or not isinstance(content["weights"], str):
        raise document.DocumentError("it is no record of what these weights have learned from")
    try:
        return _learned(content["weights"], {field: _unpack(_pack(content[field])) for field in fields})
    except (ValueError, TypeError, KeyError) as error:
        raise document.DocumentError("it names something that is no image") from error


def _learned(weights: str, digests: Mapping[str, frozenset[str]]) -> Learned:
    """Record of digests by field; one of format 1 has the ids alone."""
    found = dict(digests)
    salt = found.pop("salt", frozenset())
    if set(SIDES) - set(found) or len(salt) > 1:
        raise ValueError("there are no ids, or several salts")
    return Learned(weights, **found, salt=next(iter(salt), ""))


def _is_of(path: Path, weights: str) -> bool:
    try:
        return read(path).weights == weights
    except (OSError, document.DocumentError):
        return False


def _page(root: Path, backbone: BackboneSpec) -> Path:
    return layout.backbone_folder(root, backbone) / layout.LEARNED_PAGE


def _pack(ids: Collection[str]) -> NDArray[np.uint8]:
    """``(n, 32)``, sorted: the same images are the same bytes."""
    return np.frombuffer(bytes.fromhex("".join(sorted(ids))), np.uint8).reshape(len(ids), WIDTH)


def _unpack(packed: NDArray[Any]) -> frozenset[str]:
    if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != WIDTH:  # noqa: PLR2004
        raise ValueError(f"{packed.dtype} of shape {packed.shape} are no image ids")
    return frozenset(row.tobytes().hex() for row in packed)
