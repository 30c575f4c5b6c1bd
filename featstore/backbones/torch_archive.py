"""Read a state dict from the legacy torch format, without torch and without running anything.

The format is five pickles, then raw storages. A pickle is a program, and this is the one place featstore reads
any. So no unpickler runs here: `pickletools` splits the stream into opcodes, and `_StackMachine`
does the few that a state dict needs. It treats the four globals of a state dict as data, and holds no means to
import, call or set an attribute of anything; every other opcode and every other global is refused.
"""

from __future__ import annotations

import io
import math
import os
import pickletools
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from featstore.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Tensor = NDArray[np.float32 | np.int64]

MAGIC: Final = 0x1950A86A20F9469CFC6C
PROTOCOL: Final = 1001
HEADER_LIMIT: Final = 4 * 2**20  # bytes; the five pickles of EfficientNet-Lite2 take 62 kB
MAX_RANK: Final = 8

_DTYPES: Final = {"torch FloatStorage": "<f4", "torch LongStorage": "<i8"}
_GLOBALS: Final = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", *_DTYPES}


class _RefusedError(Exception):
    """Why an archive was turned away."""


@dataclass(frozen=True, slots=True)
class _Global:
    """Name of a global; never the thing itself."""

    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    """Promise of `size` numbers, to be found behind the pickles under `key`."""

    key: str
    dtype: np.dtype[Any]
    size: int


@dataclass(frozen=True, slots=True)
class _TensorLayout:
    """Where a tensor lies in its storage; offset and strides count elements, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        # Exact Python integers, before NumPy sees them: its own check can wrap round. A zero stride would let
        # one number pose as any amount of memory, hence the bound on the count as well.
        size, rank = self.storage.size, len(self.shape)
        lengths = (self.offset, *self.shape, *self.strides)
        if rank > MAX_RANK or not all(type(n) is int and 0 <= n <= size for n in lengths):
            raise _RefusedError("a tensor has an impossible shape")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if not 0 < math.prod(self.shape) <= size or last >= size:
            raise _RefusedError("a tensor reaches outside its storage")

    def view(self, numbers: NDArray[Any]) -> Tensor:
        """Look at `numbers`, the whole storage, through this layout."""
        strides = [stride * numbers.itemsize for stride in self.strides]
        return np.ndarray(self.shape, numbers.dtype, numbers, self.offset * numbers.itemsize, strides)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read every tensor of a legacy torch archive.

    Parameters
    ----------
    path
        File saved by torch before 1.6, or later with ``_use_new_zipfile_serialization=False``.

    Returns
    -------
    dict
        Name to array, in the order of the file; float32 or int64, in torch's axis order. The arrays are
        read-only views of the storages and keep the strides of the file, so some are not contiguous.

    Raises
    ------
    WeightsError
        If the file is absent, is not of this format, is damaged, or asks for anything but tensors.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except (OSError, _RefusedError) as error:
        cause = f"{path} cannot be read as a legacy torch state dict: {error}."
        raise WeightsError(cause, "Use the .pth file as it was published, unchanged.") from error


def _read(file: BinaryIO) -> dict[str, Tensor]:
    header = io.BytesIO(file.read(HEADER_LIMIT))
    if header.getvalue()[:2] == b"PK":
        raise _RefusedError("it is torch's newer ZIP format")
    if _load(header) != MAGIC or _load(header) != PROTOCOL:
        raise _RefusedError("the magic number is missing")
    system = _load(header)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _RefusedError("its numbers are not little-endian")
    layouts, order = _load(header), _load(header)
    if not isinstance(layouts, dict) or not isinstance(order, list):
        raise _RefusedError("it is no state dict")
    if not all(isinstance(layout, _TensorLayout) for layout in layouts.values()):
        raise _RefusedError("it holds something other than tensors")
    storages = _promised(layouts, order)
    file.seek(header.tell())
    numbers = _read_storages(file, storages)
    return {name: layout.view(numbers[layout.storage.key]) for name, layout in layouts.items()}


def _promised(layouts: Mapping[str, _TensorLayout], order: list[object]) -> list[_Storage]:
    storages = {layout.storage for layout in layouts.values()}
    by_key = {storage.key: storage for storage in storages}
    keys = [key for key in order if isinstance(key, str)]
    if len(by_key) != len(storages) or sorted(by_key) != sorted(keys) or keys != order:
        raise _RefusedError("its list of storages does not match its tensors")
    return [by_key[key] for key in keys]


def _read_storages(file: BinaryIO, storages: list[_Storage]) -> dict[str, NDArray[Any]]:
    numbers, end = {}, os.fstat(file.fileno()).st_size
    for storage in storages:
        count = int.from_bytes(file.read(8), "little")
        needed = count * storage.dtype.itemsize
        if count != storage.size or needed > end - file.tell():
            raise _RefusedError("a storage is cut short or has the wrong size")
        numbers[storage.key] = np.frombuffer(file.read(needed), storage.dtype)
    if file.tell() != end:
        raise _RefusedError("bytes are left over behind the last storage")
    return numbers


def _load(stream: io.BytesIO) -> object:
    """Value of the next pickle, made of plain values, `_Global`, `_Storage` and `_TensorLayout`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # how pickletools speaks of a bad escape
            return _StackMachine().run(stream)
    except (ArithmeticError, DeprecationWarning, LookupError, TypeError, ValueError) as error:
        raise _RefusedError("its pickle is damaged") from error


class _StackMachine:
    """The part of the pickle machine that builds values and cannot call."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: io.BytesIO) -> object:
        for opcode, argument, _ in pickletools.genops(stream):
            step = _STEPS.get(opcode.name)
            if step is None:
                raise _RefusedError(f"its pickle uses {opcode.name}, which no state dict needs")
            step(self, argument)
        return self.stack.pop()

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> tuple[Any, ...]:
        return tuple([self.stack.pop() for _ in range(count)][::-1])

    def pop_to_mark(self) -> tuple[Any, ...]:
        return self.pop(len(self.stack) - self.marks.pop())

    def extend_list(self, values: tuple[Any, ...]) -> None:
        list.extend(self.stack[-1], values)

    def update_dict(self, items: tuple[Any, ...]) -> None:
        if not all(isinstance(key, str) for key in items[::2]):
            raise _RefusedError("a key is not a text")
        dict.update(self.stack[-1], zip(items[::2], items[1::2], strict=True))

    def push_global(self, name: str) -> None:
        if name not in _GLOBALS:
            raise _RefusedError(f"it asks for {name.replace(' ', '.')}, which could run code")
        self.push(_Global(name))

    def push_storage(self, description: object) -> None:
        match description:
            case ("storage", _Global(str(kind)), str(key), _, int(size), None) if kind in _DTYPES:
                self.push(_Storage(key, np.dtype(_DTYPES[kind]), size))
            case _:
                raise _RefusedError("a storage is not described as torch describes one")

    def rebuild(self, function: object, arguments: Any) -> None:  # noqa: ANN401
        """REDUCE, for the two callables of a state dict: an empty dict, or where a tensor lies."""
        match function, arguments:
            case _Global("collections OrderedDict"), ():
                self.push({})
            case _Global("torch._utils _rebuild_tensor_v2"), (
                _Storage(),
                int(),
                tuple(),
                tuple(),
                bool(),
                {},
            ):
                self.push(_TensorLayout(*arguments[:4]))
            case _:
                raise _RefusedError("it calls what is no function of a state dict")


_STEPS: Final[Mapping[str, Callable[[_StackMachine, Any], object]]] = {
    "PROTO": lambda _machine, _version: None,
    "STOP": lambda _machine, _: None,
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "NONE"), _StackMachine.push),
    "BINPUT": lambda machine, index: machine.memo.update({index: machine.stack[-1]}),
    "LONG_BINPUT": lambda machine, index: machine.memo.update({index: machine.stack[-1]}),
    "BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.push(machine.pop(1)),
    "TUPLE2": lambda machine, _: machine.push(machine.pop(2)),
    "TUPLE3": lambda machine, _: machine.push(machine.pop(3)),
    "TUPLE": lambda machine, _: machine.push(machine.pop_to_mark()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "APPENDS": lambda machine, _: machine.extend_list(machine.pop_to_mark()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "SETITEM": lambda machine, _: machine.update_dict(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.update_dict(machine.pop_to_mark()),
    "GLOBAL": _StackMachine.push_global,
    "BINPERSID": lambda machine, _: machine.push_storage(*machine.pop(1)),
    "REDUCE": lambda machine, _: machine.rebuild(*machine.pop(2)),
    "BUILD": lambda machine, _: machine.pop(1),  # torch's module versions; nothing is set
}
