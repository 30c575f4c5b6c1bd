"""Arrays that several processes hold once: whoever is sent one opens the same memory, by its path, to read it.

On Linux that memory has no name in any folder (``memfd_create``; its size does not depend on that of /dev/shm), and
other processes of the user open it as ``/proc/PID/fd/NUMBER`` while the process that made it lives. The kernel frees
it with the last process, however that ends. Where the kernel refuses, it is a file in the folder for temporary files,
unlinked at once. Elsewhere that file keeps its name until its process ends or lets go of the array; what a killed one
has left, which nobody holds a lock on any more, is removed when the next array is made.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import tempfile
import weakref
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import DTypeLike, NDArray

    Array = NDArray[Any]

NAME = "featstore-shared-"
"""First part of the names of files, and of memory as the kernel lists it."""
CLOSE_ON_EXEC = 1
"""``MFD_CLOEXEC`` of ``memfd_create(2)``."""
ZEROS = 1 << 20
"""Bytes that are written at a time where a file system cannot be asked for room."""


def filled(shape: tuple[int, ...], dtype: DTypeLike, fill: Callable[[Array], object]) -> Array:
    """Array in shared memory, which `fill` writes; from then on nobody can.

    Sent to a worker of `joblib.Parallel`, it or a view of it is a path there, and no numbers are copied.

    Parameters
    ----------
    shape, dtype
        Of the array.
    fill
        Is given the array before it is sealed.

    Raises
    ------
    StoreError
        If neither memory nor a temporary file of that size can be had.

    Examples
    --------
    >>> import numpy as np
    >>> shared = filled((2, 3), np.float32, lambda out: out.fill(7))
    >>> shared[0], shared.flags.writeable
    (array([7., 7., 7.], dtype=float32), False)
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    path, let_go = _reserve(max(1, size))
    try:
        fill(np.memmap(path, dtype, "r+", shape=shape).view(np.ndarray))
        memory = np.memmap(path, dtype, "r", shape=shape)
    except BaseException:
        let_go()
        raise
    weakref.finalize(memory, let_go)
    return memory.view(np.ndarray)


def share(array: Array) -> Array:
    """Return the array itself if it lies in shared memory or in a mapped file, else a copy that does."""
    return array if is_shared(array) else filled(array.shape, array.dtype, partial(_copy, array))


def take(array: Array, rows: NDArray[np.intp]) -> Array:
    """Return ``array[:, rows]``, in shared memory if the array lies there, and without a further copy on the way."""
    if not is_shared(array):
        return np.asarray(array[:, rows])
    shape = (len(array), len(rows), *array.shape[2:])
    return filled(shape, array.dtype, partial(_copy_rows, array, rows))


def is_shared(array: Array) -> bool:
    """Whether other processes can be given the array without a copy, for it lies in a mapped file."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return base.filename is not None and base.mode != "c"  # what is written to such a copy stays here
        base = base.base
    return False


def _copy(source: Array, out: Array) -> None:
    out[...] = source


def _copy_rows(source: Array, rows: NDArray[np.intp], out: Array) -> None:
    for view, target in zip(source, out, strict=True):
        view.take(rows, axis=0, out=target, mode="clip")  # every other mode fills a copy first


# Where it lies: the path by which others open it, and what is to be done when nobody needs it any more


def _reserve(size: int) -> tuple[str, Callable[[], None]]:
    descriptors, folder = _open_to_others(), "the temporary folder"
    if descriptors is not None and (memory := _memory(size)) is not None:
        return f"{descriptors}/{memory}", partial(os.close, memory)
    try:
        folder = tempfile.gettempdir()
        descriptor, path = _locked_file(Path(folder))
        try:
            _ask_for_room(descriptor, size)
        except BaseException:
            _remove(path, descriptor, os.getpid())
            raise
    except OSError as error:
        raise StoreError(
            f"Features for several processes take {size / 1e9:.1f} GB in {folder}: {error.strerror}.",
            "Set TMPDIR to a folder with more room; or let one process work at a time: --jobs 1.",
        ) from error
    if descriptors is None:
        return str(path), partial(_remove, path, descriptor, os.getpid())
    path.unlink()
    return f"{descriptors}/{descriptor}", partial(os.close, descriptor)


def _open_to_others() -> Path | None:
    """Folder in which other processes of this user open what this one has open; None where there is none.

    A process whose memory is closed to others, such as one with capabilities of its own, has it as the superuser's.
    """
    folder = Path(f"/proc/{os.getpid()}/fd")
    try:
        return folder if folder.stat().st_uid == os.geteuid() else None
    except OSError:
        return None


def _memory(size: int) -> int | None:
    """Descriptor of memory without a name; None where there is none, or not as much."""
    try:
        descriptor = _memfd_create()
    except (AttributeError, OSError):
        return None
    try:
        os.truncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _memfd_create() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create(NAME)
    library = ctypes.CDLL(None, use_errno=True)  # Python was built on an older system, as conda's is
    descriptor: int = library.memfd_create(NAME.encode(), CLOSE_ON_EXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "memfd_create")
    return descriptor


def _locked_file(folder: Path) -> tuple[int, Path]:
    """Make a file that no other process takes for a left one; remove those that are."""
    for left in folder.glob(f"{NAME}*"):
        _remove_if_left(left)
    while True:
        descriptor, name = tempfile.mkstemp(prefix=NAME, dir=folder)
        with suppress(OSError):  # without locks nothing is taken for left, either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, Path(name)
        os.close(descriptor)  # another process removed it before it was locked


def _remove_if_left(path: Path) -> None:
    """Remove a file that nobody holds the lock of; files of others cannot be opened and stay."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(descriptor)


def _ask_for_room(descriptor: int, size: int) -> None:
    """Give a file its size and its place on the disk: writing to a mapped one that has none ends the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    for start in range(0, size, ZEROS):
        os.write(descriptor, bytes(min(ZEROS, size - start)))


def _remove(path: Path, descriptor: int, owner: int) -> None:
    """Remove a file, unless this process is a copy of the one that made it."""
    if os.getpid() == owner:
        path.unlink(missing_ok=True)
    os.close(descriptor)
