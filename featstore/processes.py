"""Processes of a command: children that end with it, signals, cores and GPUs, arrays held once, and progress bars.

Python raises `KeyboardInterrupt` in whatever the first thread is running. Compiled code that calls back into Python,
as TensorFlow's does while it traces a network, drops it now and then or makes an error of its own out of it
(``SystemError: bad argument to internal function``). So a signal is noted as well, and looked up between two steps.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import signal
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from featstore.errors import StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor
    from types import FrameType

    import numpy as np
    from numpy.typing import DTypeLike, NDArray

    Array = NDArray[Any]
    Item = TypeVar("Item")
    Result = TypeVar("Result")

# Processes that end with their parent, however that ends, as after kill -9: nobody takes their answer.

PR_SET_PDEATHSIG = 1
WATCH_SECONDS = 0.5
"""Between two looks at the parent."""


def parent_info() -> tuple[int, bool]:
    """What `end_with_parent` takes in the child: this process, and whether the thread that starts the child stays.

    Linux ends a child with the thread that started it, and of threads only the first is sure to stay.
    """
    return os.getpid(), threading.current_thread() is threading.main_thread()


def end_with_parent(parent: int, thread_stays: bool) -> None:  # as `parent_info` gives it
    """See to it, in a child, that it ends with its parent, and at once if that is gone already.

    Linux does it whatever the child is busy with. Elsewhere, and for a child of a passing thread, another thread of
    the child watches, which has to wait where a library holds Python's lock.
    """
    global _own  # noqa: PLW0603
    _own = True
    if thread_stays and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), name="parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


# Large libraries: a process of featstore's own leaves out what they load and it never asks of them

SPARED = ("matplotlib", "sklearn", "jax")
"""What Keras and TensorFlow try to import, and do without: figures, wrappers, a converter to TensorFlow Lite."""
_own = False


@contextmanager
def importing_networks(spared: Sequence[str] = SPARED) -> Iterator[None]:
    """Let a library of networks load in less time.

    In a command and its workers, `spared` seem not to be installed meanwhile, if they are not loaded yet; elsewhere
    the process is somebody else's, who may want Keras to draw. The garbage collector pauses.
    """
    absent = [name for name in spared if _own and name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: as if it were not installed
    try:
        with collector_paused():
            yield
    finally:
        for name in absent:
            del sys.modules[name]


@contextmanager
def collector_paused() -> Iterator[None]:
    """Collect no garbage while much is made that stays: the collector would look at all of it again and again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


# Ctrl-C and SIGTERM, heard also where a library loses them

_requested = False


def install_handlers() -> None:
    """Note both signals from now on; Ctrl-C stays ignored where the shell wants it so, as in a background job.

    Whoever calls this has the process to himself. When it ends, the garbage collector does not look once more at all
    that the libraries have made, which would take a second after TensorFlow.
    """
    global _own  # noqa: PLW0603
    _own = True
    atexit.register(gc.freeze)
    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """Note that an end was asked for, and raise `KeyboardInterrupt`: a handler of signals."""
    global _requested  # noqa: PLW0603  # signals are the process's own
    _requested = True
    raise KeyboardInterrupt


def settle(code: int) -> None:
    """Let a signal change nothing any more: the command is over and has said how; asked again, it ends at once.

    Raised while the interpreter ends, `KeyboardInterrupt` would be a traceback, and another exit code.

    Parameters
    ----------
    code
        The exit code.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is interrupt:
            signal.signal(number, partial(_leave, code))


def _leave(code: int, _number: int, _frame: FrameType | None) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def was_requested() -> bool:
    """Whether a signal has asked for an end."""
    return _requested


def raise_if_requested() -> None:
    """Raise `KeyboardInterrupt` if a signal has asked for an end and nothing has come of it yet."""
    if _requested:
        raise KeyboardInterrupt


# Cores and GPU of each worker process

VISIBLE = "CUDA_VISIBLE_DEVICES"
THREAD_VARIABLES = ("FEATSTORE_THREADS", "TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
CARD_MEMORY, CARD_SHARE = "XLA_PYTHON_CLIENT_MEM_FRACTION", 0.9
"""JAX's variable for how much of a GPU's memory a process may take, and what all of them take together."""
MOST_BY_DEFAULT = 8
"""Each process holds its own networks, so a machine of 64 cores does not get 64 of them unasked."""


@dataclass(frozen=True, slots=True)
class Place:
    """One worker's part of the machine.

    Attributes
    ----------
    threads
        Cores to compute with.
    device
        The GPU, as ``CUDA_VISIBLE_DEVICES`` names it; None where there is none.
    sharers
        Workers on that GPU, this one included: each may take its share of the memory.
    """

    threads: int
    device: str | None = None
    sharers: int = 1

    def environment(self) -> dict[str, str]:
        """Variables to set before TensorFlow or JAX starts, which read them once; a user's share of memory stays."""
        pinned = dict.fromkeys(THREAD_VARIABLES, str(self.threads))
        if self.device is None:
            return pinned
        share = f"{CARD_SHARE / self.sharers:.3f}"
        return {**pinned, VISIBLE: self.device, CARD_MEMORY: os.environ.get(CARD_MEMORY, share)}


def places(workers: int, cores: int, devices: Sequence[str]) -> tuple[Place, ...]:
    """Divide a machine: the threads of all places are its cores, and the GPUs go round.

    Parameters
    ----------
    workers
        Number of processes; more than cores, or than GPUs, share.
    cores
        Cores of the machine.
    devices
        Visible GPUs; a worker uses one, so fewer workers than GPUs leave some idle.
    """
    each, more = divmod(cores, workers)
    cards = [devices[number % len(devices)] if devices else None for number in range(workers)]
    return tuple(
        Place(max(1, each + (number < more)), card, cards.count(card)) for number, card in enumerate(cards)
    )


def default_workers(cores: int, devices: Sequence[str]) -> int:
    """One process per visible GPU, else per core, at most `MOST_BY_DEFAULT`."""
    return len(devices) or min(cores, MOST_BY_DEFAULT)


def visible_devices(environment: Mapping[str, str], folder: Path = Path("/dev")) -> tuple[str, ...]:
    """GPUs that this process may use: those that ``CUDA_VISIBLE_DEVICES`` lists, else all that Linux shows.

    As in CUDA, what follows an invalid entry (``-1``) is invisible.
    """
    listed = environment.get(VISIBLE)
    if listed is None:
        numbers = (path.name.removeprefix("nvidia") for path in folder.glob("nvidia[0-9]*"))
        return tuple(sorted((n for n in numbers if n.isdecimal()), key=int))
    names = [name.strip() for name in listed.split(",")]
    stop = next((at for at, name in enumerate(names) if name in {"", "-1"}), len(names))
    return tuple(names[:stop])


def available_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes(proc: Path = Path("/proc"), limits: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """Memory of this machine, all of it and what is free, within the limit of a container; zeros where unknown."""
    try:
        lines = (proc / "meminfo").read_text(encoding="ascii").splitlines()
        known = {
            name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)
        }
        whole, free = known["MemTotal"], known["MemAvailable"]
    except (OSError, ValueError, KeyError, IndexError):
        return 0, 0
    try:
        limit = int((limits / "memory.max").read_text(encoding="ascii"))
        used = int((limits / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # there is none, or it is the word max
        return whole, free
    return min(whole, limit), max(0, min(free, limit - used))


# Arrays that several processes hold once: whoever is sent one opens the same memory, by its path, to read it. On
# Linux that memory has no name in any folder (``memfd_create``; its size does not depend on that of /dev/shm), and
# other processes of the user open it as ``/proc/PID/fd/NUMBER`` while the process that made it lives. The kernel
# frees it with the last process, however that ends. Where the kernel refuses, it is a file in the folder for
# temporary files, unlinked at once. Elsewhere that file keeps its name until its process ends or lets go of the
# array; what a killed one has left, which nobody holds a lock on any more, is removed when the next array is made.

SHARED_NAME = "featstore-shared-"
"""First part of the names of files, and of memory as the kernel lists it."""
CLOSE_ON_EXEC = 1
"""``MFD_CLOEXEC`` of ``memfd_create(2)``."""
ZEROS = 1 << 20
"""Bytes that are written at a time where a file system cannot be asked for room."""


def shared_array(shape: tuple[int, ...], dtype: DTypeLike, fill: Callable[[Array], object]) -> Array:
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
    >>> shared = shared_array((2, 3), np.float32, lambda out: out.fill(7))
    >>> shared[0], shared.flags.writeable
    (array([7., 7., 7.], dtype=float32), False)
    """
    import numpy as np

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


def as_shared(array: Array) -> Array:
    """Return the array itself if it lies in shared memory or in a mapped file, else a copy that does."""
    return array if is_shared(array) else shared_array(array.shape, array.dtype, partial(_copy, array))


def share_rows(array: Array, rows: NDArray[np.intp]) -> Array:
    """Return ``array[:, rows]``, in shared memory if the array lies there, and without a further copy on the way."""
    if not is_shared(array):
        part: Array = array[:, rows]
        return part
    shape = (len(array), len(rows), *array.shape[2:])
    return shared_array(shape, array.dtype, partial(_copy_rows, array, rows))


def is_shared(array: Array) -> bool:
    """Whether other processes can be given the array without a copy, for it lies in a mapped file."""
    import numpy as np

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


def _reserve(size: int) -> tuple[str, Callable[[], None]]:
    descriptors, folder = _open_to_others(), "the temporary folder"
    if descriptors is not None and (memory := _unnamed_memory(size)) is not None:
        return f"{descriptors}/{memory}", partial(os.close, memory)
    try:
        folder = tempfile.gettempdir()
        descriptor, path = _locked_file(Path(folder))
        let_go = partial(_remove, path, descriptor, os.getpid())
        if descriptors is not None:
            path.unlink()
            let_go = partial(os.close, descriptor)
        try:
            _ask_for_room(descriptor, size)
        except BaseException:
            let_go()
            raise
    except OSError as error:
        raise StoreError(
            f"Features for several processes take {size / 1e9:.1f} GB in {folder}: {error.strerror}.",
            "Set TMPDIR to a folder with more room; or let one process work at a time: --jobs 1.",
        ) from error
    return str(path) if descriptors is None else f"{descriptors}/{descriptor}", let_go


def _open_to_others() -> Path | None:
    """Folder in which other processes of this user open what this one has open; None where there is none.

    A process whose memory is closed to others, such as one with capabilities of its own, has it as the superuser's.
    """
    folder = Path(f"/proc/{os.getpid()}/fd")
    try:
        return folder if folder.stat().st_uid == os.geteuid() else None
    except OSError:
        return None


def _unnamed_memory(size: int) -> int | None:
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
        return os.memfd_create(SHARED_NAME)
    library = ctypes.CDLL(None, use_errno=True)  # Python was built on an older system, as conda's is
    descriptor: int = library.memfd_create(SHARED_NAME.encode(), CLOSE_ON_EXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "memfd_create")
    return descriptor


def _locked_file(folder: Path) -> tuple[int, Path]:
    """Make a file that no other process takes for a left one; remove those that are."""
    for left in folder.glob(f"{SHARED_NAME}*"):
        _remove_if_left(left)
    while True:
        descriptor, name = tempfile.mkstemp(prefix=SHARED_NAME, dir=folder)
        with suppress(OSError, ImportError):  # without locks nothing is taken for left, either
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, Path(name)
        os.close(descriptor)  # another process removed it before it was locked


def _remove_if_left(path: Path) -> None:
    """Remove a file that nobody holds the lock of; files of others cannot be opened and stay."""
    with suppress(OSError, ImportError):
        import fcntl

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
    """Close a file, and remove it unless this process is a copy of the one that made it."""
    if os.getpid() == owner:
        path.unlink(missing_ok=True)
    os.close(descriptor)


# Progress bars on stderr; `track` is for work that no command asked for by name: listing a data set, hashing it.

FEWEST_FOR_A_BAR = 32
"""Items that are done before anyone could read a bar."""
BAR_DELAY = 0.5
"""Seconds after which a bar appears, unless there are so many items that it will be read."""
MANY = 2000
_shown: ContextVar[bool] = ContextVar("shown", default=False)


@contextmanager
def progress_bars(*, wanted: bool) -> Iterator[None]:
    """Show bars within; what was asked for outside stays."""
    before = _shown.set(wanted or _shown.get())
    try:
        yield
    finally:
        _shown.reset(before)


def track(items: Iterable[Item], phase: str, unit: str, total: int) -> Iterator[Item]:
    """Items as they come, `total` of them, under a bar if bars are wanted and the items are many."""
    if total < FEWEST_FOR_A_BAR or not _shown.get():
        yield from items
        return
    from tqdm import tqdm

    delay = 0 if total >= MANY else BAR_DELAY
    yield from tqdm(items, desc=phase, unit=unit, total=total, delay=delay, leave=False)


@dataclass(frozen=True, slots=True)
class PhaseProgress:
    """Bars of stage two, if `shown`: one for each phase, with its rate and the time to go."""

    shown: bool = False

    def say(self, text: str) -> None:
        """Write a line of its own to stderr."""
        from tqdm import tqdm

        if self.shown:
            tqdm.write(text, file=sys.stderr)

    @contextmanager
    def counter(self, phase: str, unit: str, total: int) -> Iterator[Callable[[], None]]:
        """Show a bar that bears the name of the phase; what is given is called once for each of `total` items."""
        from tqdm import tqdm

        with tqdm(desc=phase, unit=unit, total=total, disable=not self.shown) as bar:

            def step() -> None:
                raise_if_requested()
                bar.update()

            yield step


# Threads that make pixels

THREADS = "FEATSTORE_THREADS"
_DIGITS = 4
"""More threads than these can count are a slip of the hand."""


def map_ahead(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Like ``pool.map``, but at most `ahead` items are begun before the first of them is asked for.

    What is found does not pile up, nor do futures: memory does not grow with the number of items.
    """
    coming = (pool.submit(function, item) for item in items)
    begun = deque(islice(coming, ahead))
    while begun:
        yield begun.popleft().result()
        begun.extend(islice(coming, 1))


def threads() -> int:
    """Threads that make pixels: all cores, or a worker's share of them.

    Raises
    ------
    UsageError
        If ``FEATSTORE_THREADS`` is set and no number of threads.
    """
    wanted = os.environ.get(THREADS, "").strip()
    if not wanted:
        return os.cpu_count() or 1
    if not (wanted.isascii() and wanted.isdecimal() and int(wanted[:_DIGITS]) > 0 and len(wanted) <= _DIGITS):
        raise UsageError(
            f"{THREADS}={wanted[:40]!r} is no number of threads.",
            f"Set it to a whole number such as 4, or to nothing: unset {THREADS}",
        )
    return int(wanted)
