"""Training records: which images a network's weights have learned from.

Features of these images would flatter whatever they score. The record lies inside the weights file, so that it goes
wherever the weights go, under their digest; and beside the vectors that they gave, so that stage two, which sees no
weights, knows it, and so does whoever copies that folder.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore import serialization
from featstore.errors import RefusedFileError, StoreError
from featstore.isolated_reading import LostError, call_isolated
from featstore.serialization import canonical_json, digest, digest_bytes
from featstore.store import hdf5_guard, paths
from featstore.store.paths import commit

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.types import BackboneSpec


# Records in weights files and caches

FORMAT = 2
"""2: with digests of pixels and of salted names of groups; a record of format 1 has ids alone."""
SIDES = ("trained", "validated")
FIELDS = (*SIDES, *(f"{side}_{what}" for what in ("pixels", "groups") for side in SIDES), "salt")
DATASETS = tuple(f"featstore/{field}" for field in FIELDS)
HASHED = "sha256:"
WIDTH = 32


@dataclass(frozen=True, slots=True)
class TrainingRecord:
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
    def from_images(cls, weights: str, trained: KnownImages, validated: KnownImages) -> TrainingRecord:
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


def write_to_weights(draft: Path, record: TrainingRecord) -> None:
    """Put the record into a weights file that has not got its name yet: from then on its digest covers both."""
    import h5py

    with h5py.File(draft, "r+", locking=False) as file:
        for name, field in zip(DATASETS, FIELDS, strict=True):
            file.create_dataset(name, data=_pack(record.digests(field)), track_times=False)


def read_from_weights(path: Path, weights: str) -> TrainingRecord | None:
    """Record inside the weights file whose digest is `weights`; None for weights that featstore did not tune.

    A file that is no HDF5 has none: nothing can be loaded from it either.

    Raises
    ------
    RefusedFileError
        If there is something in its place that is no record.
    """
    try:
        names, arrays = call_isolated("featstore.store.training_record:read_record", path)
    except LostError as error:
        raise RefusedFileError(f"{path} is refused: {error}.", hdf5_guard.REMEDY) from error
    return decode_record(path, weights, dict(zip(names, arrays, strict=True)))


def decode_record(path: Path, weights: str, found: Mapping[str, NDArray[Any]]) -> TrainingRecord | None:
    """Record out of the data sets of a weights file; `RefusedFileError` where they are no record."""
    if not found:
        return None
    try:
        return _training_record(
            weights, {name.partition("/")[2]: _unpack(rows) for name, rows in found.items()}
        )
    except (KeyError, ValueError) as error:
        raise RefusedFileError(
            f"{path} says that its weights were tuned, but not on which images.",
            "Make the weights again with `featstore finetune`.",
        ) from error


def read_record(path: Path) -> tuple[list[str], list[NDArray[Any]]]:
    """Data sets of a record inside a weights file; run by `featstore.isolated_reading`."""
    found = hdf5_guard.read_datasets(path, DATASETS)
    return [*found], [*found.values()]


def save_training_record(root: Path, backbone: BackboneSpec, learned: TrainingRecord) -> None:
    """Keep a record in a cache beside the features that it concerns; what is there already and sound stays.

    Raises
    ------
    StoreError
        If the disk refuses.
    """
    path = _page(root, backbone)
    if paths.require_enterable(root, path.parent) and _is_of(path, learned.weights):
        return
    digests = {field: sorted(learned.digests(field)) for field in FIELDS}
    content = {"format": FORMAT, "weights": learned.weights, **digests}
    commit(root, path, canonical_json(serialization.seal(content)).encode(), serialization.LARGE)


def load_training_record(root: Path, backbone: BackboneSpec) -> TrainingRecord | None:
    """Record that a cache keeps of these weights; None where it keeps none.

    Raises
    ------
    StoreError
        If there is one and it is damaged: without it no score of these features can be trusted.
    """
    path = _page(root, backbone)
    try:
        if not paths.require_enterable(root, path.parent):
            return None
        found = read_page(path)
        if found.weights != backbone.weights:
            raise serialization.DocumentError("it is about other weights")  # noqa: TRY301
    except FileNotFoundError:
        return None
    except StoreError:
        raise
    except (OSError, serialization.DocumentError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise StoreError(
            f"{path} cannot be read: {why}. It says which images the weights have learned from.",
            "Run `featstore extract` with these --weights again: the weights file tells it anew.",
        ) from error
    return found


def read_page(path: Path) -> TrainingRecord:
    """Read a record of a cache; OSError or DocumentError if the file is none."""
    content = serialization.unseal(serialization.parse_json(paths.read_file(path, serialization.LARGE)))
    fields = SIDES if content.pop("format", 1) == 1 else FIELDS
    if set(content) != {"weights", *fields} or not isinstance(content["weights"], str):
        raise serialization.DocumentError("it is no record of what these weights have learned from")
    try:
        return _training_record(
            content["weights"], {field: _unpack(_pack(content[field])) for field in fields}
        )
    except (ValueError, TypeError, KeyError) as error:
        raise serialization.DocumentError("it names something that is no image") from error


def _training_record(weights: str, digests: Mapping[str, frozenset[str]]) -> TrainingRecord:
    """Record of digests by field; one of format 1 has the ids alone."""
    found = dict(digests)
    salt = found.pop("salt", frozenset())
    if set(SIDES) - set(found) or len(salt) > 1:
        raise ValueError("there are no ids, or several salts")
    return TrainingRecord(weights, **found, salt=next(iter(salt), ""))


def _is_of(path: Path, weights: str) -> bool:
    try:
        return read_page(path).weights == weights
    except (OSError, serialization.DocumentError):
        return False


def _page(root: Path, backbone: BackboneSpec) -> Path:
    return paths.backbone_folder(root, backbone) / paths.TRAINING_RECORD_PAGE


def _pack(ids: Collection[str]) -> NDArray[np.uint8]:
    """``(n, 32)``, sorted: the same images are the same bytes."""
    return np.frombuffer(bytes.fromhex("".join(sorted(ids))), np.uint8).reshape(len(ids), WIDTH)


def _unpack(packed: NDArray[Any]) -> frozenset[str]:
    if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != WIDTH:  # noqa: PLR2004
        raise ValueError(f"{packed.dtype} of shape {packed.shape} are no image ids")
    return frozenset(row.tobytes().hex() for row in packed)


# Images in digests: to be recognised later without a path, a name or a picture


@dataclass(frozen=True, slots=True)
class KnownImages:
    """Digests of images.

    Attributes
    ----------
    ids
        Image ids: digests of the bytes.
    pixels
        Digests of the decoded pixels, which a copy saved anew as PNG has as well.
    groups
        Digests of the names of their groups (patients), see `salted`.
    salt
        What these names were salted with.
    is_complete
        Whether these are all; not where an earlier model did not tell its own.
    """

    ids: frozenset[str] = frozenset()
    pixels: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    salt: str = ""
    is_complete: bool = True

    def __or__(self, other: KnownImages) -> KnownImages:
        """Both together; their names must have been salted alike."""
        return KnownImages(
            self.ids | other.ids,
            self.pixels | other.pixels,
            self.groups | other.groups,
            self.salt,
            self.is_complete and other.is_complete,
        )

    def has_group(self, name: str) -> bool:
        """Whether an image of a group of this name is among them."""
        return bool(self.groups) and salted(self.salt, name) in self.groups


def salt_of(ids: Iterable[str]) -> str:
    """Salt for the names of these images' groups: another one for other images, and the same in every repetition.

    It is no secret, since it lies beside what it salts. It keeps digests of names from being looked up in tables,
    and from being matched between two files that do not share their images anyway.
    """
    return digest(["salt of group names", *sorted(ids)])


def salted(salt: str, name: str) -> str:
    """Digest of a group's name; capitals, surrounding spaces and the encoding of accents do not matter."""
    plain = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    return digest_bytes(f"{salt}:{plain}".encode("utf-8", "surrogatepass"))


def salted_names(salt: str, names: Iterable[str]) -> frozenset[str]:
    """Digests of the names of groups."""
    return frozenset(salted(salt, name) for name in set(names))
