"""Archives of arrays (``.npz``): pictures, and what such a file says of each: class, group, side of the split.

MedMNIST is made of these (``train_images``, ``train_labels``, ``val_images`` …), and so are many others:
``x_train`` with ``y_train``, ``images`` with ``labels``. Nothing is ever unpickled.
"""

from __future__ import annotations

import io
import math
import os
import re
import struct
import zipfile
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, ClassVar, NamedTuple

from featstore.errors import BadImageError
from featstore.images.formats import npy
from featstore.images.formats.container import HEAD, MAX_BYTES, check_length, identify_format
from featstore.serialization import open_regular, read_bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


class Npz(npy.ArrayFormat):
    """An archive of NumPy arrays: each picture of those that hold pictures, train before val before test."""

    name: ClassVar[str] = "NPZ"
    suffixes: ClassVar[tuple[str, ...]] = (".npz",)
    magic: ClassVar[re.Pattern[bytes]] = re.compile(rb"PK\x03\x04.{26}", re.DOTALL)
    code: ClassVar[int] = 11

    def sniff(self, head: bytes) -> bool:
        """Whether it is an archive whose first member is an array."""
        if not self.magic.match(head):
            return False
        (length,) = struct.unpack_from("<H", head, 26)
        return head[30 : 30 + length].endswith(b".npy")

    def shapes(self, file: IO[bytes]) -> Sequence[npy.ArrayShape]:
        """All arrays that hold pictures."""
        with opened(file) as archive:
            return [member.array for _, member in _pictures(archive)]

    def index(self, data: bytes) -> npy.Stack:
        """The pictures, unpacked."""
        with opened(io.BytesIO(data)) as archive:
            found = [member for _, member in _pictures(archive)]
            _refuse_too_much(found)
            return npy.Stack(tuple(npy.read_array(unpack(archive, member), member.array) for member in found))

    def held_bytes(self, file: IO[bytes], shapes: Sequence[npy.ArrayShape]) -> int:  # noqa: ARG002
        """All pictures."""
        return sum(shape.bytes for shape in shapes)


# Members of an archive

_MAX_MEMBERS = 1000
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})


class Member(NamedTuple):
    """An array of an archive.

    Attributes
    ----------
    info
        Where it is.
    array
        What its header says.
    """

    info: zipfile.ZipInfo
    array: npy.ArrayShape


@contextmanager
def opened(file: IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """Open an archive, and take whatever is wrong with it for damage."""
    try:
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            yield archive
    except EOFError as error:
        raise BadImageError("truncated", "The archive ends within an array.") from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        NotImplementedError,
        RuntimeError,
        struct.error,
    ) as error:
        raise BadImageError("corrupt", "The archive is damaged, or cut short.") from error


def members(
    archive: zipfile.ZipFile, kinds: str = npy.NUMBERS, others: dict[str, str] | None = None
) -> dict[str, Member]:
    """Arrays of an archive by name, without their values; why others are passed over goes to `others`."""
    found = {}
    if len(archive.infolist()) > _MAX_MEMBERS:
        raise BadImageError("unsupported", f"An archive of more than {_MAX_MEMBERS} arrays.")
    for info in archive.infolist():
        if not info.filename.endswith(".npy") or info.compress_type not in _METHODS or info.flag_bits & 1:
            continue
        with archive.open(info) as file:
            name = info.filename.removesuffix(".npy")
            try:
                found[name] = Member(info, npy.read_shape(file, kinds))
            except BadImageError as error:
                if error.reason != "unsupported":
                    raise
                if others is not None:
                    others[name] = error.detail
    return found


def unpack(archive: zipfile.ZipFile, member: Member) -> bytes:
    """Bytes of an array with its header, and no more than that.

    Raises
    ------
    BadImageError
        ``truncated``.
    """
    length = member.array.start + member.array.bytes
    with archive.open(member.info) as file:
        data = file.read(length)
        file.read(1)  # at the end the checksum is compared
    if len(data) < length:
        raise BadImageError("truncated", "The array has fewer values than it announces.")
    return data


def _refuse_too_much(found: Iterable[Member]) -> None:
    total = sum(member.array.bytes for member in found)
    if total > npy.most_bytes():
        raise BadImageError("too_large", f"The arrays have {total:,} bytes, more than {npy.most_bytes():,}.")


# Which arrays are pictures, and which say something of them

HDF5 = (".h5", ".hdf5", ".mat")
ARRAYS = (".npz", ".npy", *HDF5)
"""Suffixes of files of arrays, which may be a data set of their own."""
SIDES = ("train", "val", "test")
_SIDE = {"train": "train", "training": "train", "tr": "train", "val": "val", "valid": "val", "validation": "val",
         "dev": "val", "test": "test", "testing": "test", "te": "test"}  # fmt: skip
_ROLES = {"x": "images", "image": "images", "images": "images", "data": "images", "arr_0": "images",
          "ans": "labels", "class": "labels", "classes": "labels",
          "y": "labels", "label": "labels", "labels": "labels", "target": "labels", "targets": "labels",
          "group": "groups", "groups": "groups", "patient": "groups", "patients": "groups", "patient_id": "groups",
          "patient_ids": "groups"}  # fmt: skip


_SECOND = frozenset({"ans", "class", "classes"})
"""Names of labels where no array has a plainer one."""


def role_of(name: str) -> tuple[str, str | None] | None:
    """What an array is by its name, and of which side: ``train_images``, ``x_train``, ``labels``; None if unknown."""
    plain = name.lower().replace("/", "_")
    if plain in _ROLES:
        return _ROLES[plain], None
    for first, last in (plain.split("_", 1), plain.rsplit("_", 1)) if "_" in plain else ():
        for side, role in ((first, last), (last, first)):
            if side in _SIDE and role in _ROLES:
                return _ROLES[role], _SIDE[side]
    return None


def _pictures(archive: zipfile.ZipFile) -> list[tuple[str | None, Member]]:
    others: dict[str, str] = {}
    found = members(archive, others=others)
    return [(side, found[name]) for side, name in pictures_of(found, others)]


def pictures_of(
    found: Collection[str], others: Mapping[str, str] | None = None
) -> list[tuple[str | None, str]]:
    """Arrays of pictures with their side of the split, in the order of `SIDES`, those without a side last.

    Parameters
    ----------
    found
        Names of arrays of numbers.
    others
        Names of other arrays, and why they cannot be pictures.

    Raises
    ------
    BadImageError
        ``unsupported`` if there is none, or two for a side.
    """
    others = others or {}
    refuse_other(others, "images")
    named = {name: role for name in found if (role := role_of(name))}
    sides = {side: name for name, (role, side) in named.items() if role == "images"}
    inner = [name for name in found if name.lower().endswith(("/image", "/images"))]
    if not sides and len(inner) == 1:
        sides = {None: inner[0]}
    if not sides and len(found) + len(others) == 1:
        sides = {None: next(iter(found))}
    if not sides or len(sides) < sum(role == "images" for role, _ in named.values()):
        raise BadImageError(
            "unsupported",
            "No array of the archive is called as pictures are, or several are: call them images, or train_images,"
            " val_images and test_images.",
        )
    ordered = [side for side in (*SIDES, None) if side in sides]
    return [(side, sides[side]) for side in ordered]


def refuse_other(others: Mapping[str, str], *roles: str) -> None:
    """Refuse a file whose pictures or labels, by their names, are arrays that cannot be read.

    Raises
    ------
    BadImageError
        ``unsupported``.
    """
    for name, why in others.items():
        if (role := role_of(name)) and role[0] in roles:
            raise BadImageError("unsupported", f"{name!r} cannot be its {role[0]}. {why}")


class PageTable(NamedTuple):
    """What is said of each picture of a file, in their order.

    Attributes
    ----------
    labels
        Names of the classes.
    splits
        ``train``, ``val``, ``test``; None where no side is named.
    groups
        Patients; empty if none are named.
    """

    labels: tuple[str, ...]
    splits: tuple[str | None, ...]
    groups: tuple[str, ...] = ()


def read_table(path: Path) -> PageTable:
    """What a file of arrays says of its pictures or volumes; for ``.npy``, what the file of labels beside it does.

    Raises
    ------
    BadImageError
        If there are no labels, or not one for each picture.
    OSError
        If a file cannot be read.
    """
    with open_regular(path) as file:
        known = identify_format(file.read(HEAD))
        check_length(os.fstat(file.fileno()).st_size, known.most_bytes())
        if known.name == "HDF5":
            from featstore.images.formats import hdf5

            return hdf5.read_table(file)
        if known.name == Npz.name:
            return _table_of_archive(file)
        file.seek(0)
        count = npy.read_shape(file).count
    beside = labels_beside(path)
    if not beside.is_file():
        raise BadImageError("unsupported", f"There is no file of labels beside it: {beside.name}.")
    with open_regular(beside) as file:
        data = read_bounded(file, beside, MAX_BYTES)
    return PageTable(
        tuple(classes_of(_values(data, npy.read_shape(io.BytesIO(data), npy.NAMES), count), count)),
        (None,) * count,
    )


def labels_beside(path: Path) -> Path:
    """File of labels: ``labels.npy`` of ``images.npy``, ``y_train.npy`` of ``X_train.npy``, else ``a_labels.npy``."""
    stem = path.stem
    if re.search("images?", stem):
        return path.with_name(re.sub("image(s?)", r"label\1", stem, count=1) + path.suffix)
    if re.match(r"[xX](_|$)", stem):
        return path.with_name(f"y{stem[1:]}{path.suffix}")
    return path.with_name(f"{stem}_labels{path.suffix}")


def _table_of_archive(file: IO[bytes]) -> PageTable:
    with opened(file) as archive:
        others: dict[str, str] = {}
        found = members(archive, npy.NAMES, others)
        refuse_other(others, "images", "labels", "groups")
        shapes = {name: member.array for name, member in members(archive, others=others).items()}

        def values(name: str, count: int) -> NDArray[Any]:
            own = found[name]
            return _values(unpack(archive, own), own.array, count)

        return table_of(found, shapes, values, others)


def table_of(
    names: Iterable[str],
    shapes: Mapping[str, npy.ArrayShape],
    values: Callable[[str, int], NDArray[Any]],
    others: Mapping[str, str] | None = None,
) -> PageTable:
    """What the arrays of a file say of its pictures.

    Parameters
    ----------
    names
        Of all arrays.
    shapes
        Of those that may be pictures.
    values
        Reads an array that has a row for each of so many pictures.
    others
        Names of arrays that cannot be pictures, and why.

    Raises
    ------
    BadImageError
        If there are no labels, or not one for each picture.
    """
    labels: list[str] = []
    splits: list[str | None] = []
    groups: list[str] = []
    ordered = sorted(names, key=lambda name: name.lower().rpartition("/")[2] not in _SECOND)
    named = {role: name for name in ordered if (role := role_of(name))}
    pictures = pictures_of(shapes, others)
    named = {**_in_group_of(pictures[0][1], ordered), **named}
    npy.pages_of([shapes[name] for _, name in pictures])
    for side, name in pictures:
        if len(shapes[name].shape) == 2:  # noqa: PLR2004
            rows = " x ".join(map(str, shapes[name].shape))
            raise BadImageError(
                "unsupported",
                f"{name!r} of {rows} is one picture; if each row is one, save {name}.reshape(-1, HEIGHT, WIDTH).",
            )
        count = shapes[name].count
        if ("labels", side) not in named:
            what = "labels" if side is None else f"{side}_labels"
            raise BadImageError("unsupported", f"The file holds no array {what!r} beside its pictures.")
        labels += classes_of(values(named["labels", side], count), count)
        splits += [side] * count
        if ("groups", side) in named:
            groups += names_of(values(named["groups", side], count), count)
    return PageTable(tuple(labels), tuple(splits), tuple(groups) if len(groups) == len(labels) else ())


def _in_group_of(picture: str, names: Iterable[str]) -> dict[tuple[str, str | None], str]:
    """What stands in the same group as the pictures, by what it is: ``data/labels`` of ``data/images``."""
    group, slash, _ = picture.rpartition("/")
    inside = (
        (name, name.removeprefix(f"{group}/")) for name in names if slash and name.startswith(f"{group}/")
    )
    return {role: name for name, own in inside if (role := role_of(own))}


def _values(data: bytes, array: npy.ArrayShape, count: int) -> NDArray[Any]:
    """Values of an array that has a row for each picture."""
    import numpy as np

    _check_rows(array.shape, count)
    if len(data) < array.start + array.bytes:
        raise BadImageError("truncated", "The array has fewer values than it announces.")
    flat = np.frombuffer(data, array.dtype, math.prod(array.shape), array.start)
    return flat.reshape(array.shape, order="F" if array.is_fortran else "C")


def values_of(array: NDArray[Any], count: int) -> NDArray[Any]:
    """An array, if it has a row for each of so many pictures.

    Raises
    ------
    BadImageError
        ``unsupported`` if not.
    """
    _check_rows(array.shape, count)
    return array


def _check_rows(shape: tuple[int, ...], count: int) -> None:
    if shape[:1] != (count,) or len(shape) > 2:  # noqa: PLR2004
        rows = " x ".join(map(str, shape)) or "one value"
        raise BadImageError("unsupported", f"Labels or groups of {rows} for {count} pictures.")


def classes_of(values: NDArray[Any], count: int) -> list[str]:
    """Name of the class of each picture: a number, a text, or the column that is 1 (one-hot).

    Raises
    ------
    BadImageError
        ``unsupported`` if there is not one class for each picture.
    """
    import numpy as np

    if values.ndim == 2 and values.shape[1] > 1:  # noqa: PLR2004
        is_hot = values.dtype.kind in "biuf" and bool(
            np.isin(values, (0, 1)).all() and (values.sum(axis=1) == 1).all()
        )
        if not is_hot:
            raise BadImageError(
                "unsupported",
                f"The labels have {values.shape[1]} columns, several classes an image: choose one, and save a number"
                " for each picture.",
            )
        values = values.argmax(axis=1)
    return names_of(values, count)


def names_of(values: NDArray[Any], count: int) -> list[str]:
    """One name for each picture; whole numbers without a point."""
    flat = values.reshape(-1)
    if len(flat) != count:
        raise BadImageError("unsupported", f"There are {len(flat)} labels or groups for {count} pictures.")
    if flat.dtype.kind == "f":
        return [str(int(cell)) if cell.is_integer() else str(cell) for cell in flat.tolist()]
    if flat.dtype.kind == "S":
        return [cell.decode("utf-8", "replace") for cell in flat.tolist()]
    return [str(cell) for cell in flat.tolist()]
