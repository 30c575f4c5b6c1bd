"""What is sent to other processes in tests: picklable by reference, importable from the tests' folder."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from fakes import GridBackbone

from featstore.errors import NonFiniteFeaturesError


def double(number):
    return 2 * number


def threads(_item):
    return os.environ.get("FEATSTORE_THREADS"), os.environ.get("TF_NUM_INTRAOP_THREADS"), os.getpid()


def devices(_item):
    time.sleep(0.05)
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def raise_it(error):
    raise error


def die_of(number):
    """Item 0 kills its process, as the kernel does when memory is short."""
    if number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_once(mark):
    """The first time, kill the process."""
    try:
        Path(mark).touch(exist_ok=False)
    except FileExistsError:
        return "done again"
    return os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class ForgettingTheAnswer:
    """Do the work, and the first time that it is done, die before the answer is given."""

    work: object
    mark: Path

    def __call__(self, unit):
        answer = self.work(unit)
        die_once(self.mark)
        return answer


def sleep_and_tell(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)


def hold_the_interpreter(folder, *_):
    """Be in a library that keeps Python's lock: no other thread of this process gets a turn."""
    (Path(folder) / str(os.getpid())).touch()
    ctypes.PyDLL(None).sleep(60)


def is_running(pid):
    """A zombie, which waits for whoever adopted it, does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass(frozen=True)
class Grids:
    """Grid backbones; the `kills`-th embed call over all processes dies, counted by files in `deaths`."""

    deaths: Path | None = None
    kills: int = 0
    after: int = 3
    fail: bool = False

    def load(self, wanted):
        return Mortal(wanted, self)

    def keep(self, wanted):
        pass


class Mortal(GridBackbone):
    def __init__(self, identity, fate):
        super().__init__(identity)
        self.fate, self.calls = fate, 0

    def embed(self, images):
        self.calls += 1
        if self.fate.fail and self.calls >= self.fate.after:
            raise NonFiniteFeaturesError("Alpha gave NaN.", "Check its weights file.")
        if self.fate.deaths is not None and self.calls >= self.fate.after:
            for number in range(self.fate.kills):
                try:
                    (self.fate.deaths / str(number)).touch(exist_ok=False)
                except FileExistsError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)
        return super().embed(images)


def sleep_with(folder, matrix):
    """Look at all of a matrix, tell it, and stay."""
    assert matrix.features.sum() != 0
    sleep_and_tell(folder)


def die_with(matrix):
    assert matrix.features.sum() != 0
    os.kill(os.getpid(), signal.SIGKILL)


def memory_of(matrix):
    """Where the numbers of a matrix lie, as the kernel knows it, and whether they can be written."""
    address = matrix.features.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        extent, _, _, device, inode, *_ = line.split()
        start, stop = (int(end, 16) for end in extent.split("-"))
        if start <= address < stop:
            return os.getpid(), device, inode, matrix.features.flags.writeable
    raise LookupError(address)
