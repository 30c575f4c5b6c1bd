"""Extractions in processes that start in milliseconds, share a cache, and can be made to die anywhere.

A process comes from a server that has everything imported and forks. A failure point is a system call of a commit:
only there does the disk change, so the product needs no seam for tests, and nobody can trip over one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING

from fakes import DECODING, RECIPE, GridBackbone, key, records, spec

from featstore.executors.serial import Serial
from featstore.extraction import pipeline as engine
from featstore.extraction import scheduler as pieces
from featstore.extraction.plan import plan
from featstore.extraction.scheduler import ExtractWorker, compute_plan
from featstore.images.reading import decoder_version
from featstore.serialization import digest_bytes
from featstore.store.store import Store
from featstore.types import IDENTITY, View

if TYPE_CHECKING:
    from featstore.types import ImageRecord

NOW = replace(DECODING, decoder=decoder_version())
SPECS = [spec("Alpha"), spec("Beta", side=24)]
KEYS = [replace(key(s, v), decoding=NOW) for v in (IDENTITY, View(RECIPE, 1)) for s in SPECS]
BLOCK = 6
PRELOADED = ["pytest", "hypothesis", "PIL.Image", "PIL.PngImagePlugin", "numpy", "h5py"]
PRELOADED += ["featstore.executors.serial", "featstore.extraction.scheduler", "featstore.images.scan"]
PRELOADED += [
    "typer._adapters",
    "featstore_cli.main",
    "featstore.api.extract",
    "featstore.reporting.terminal.results",
]

KINDS = ("shard", "backbone", "index", "quarantine", "rate", "lease")
POINTS = ("create", "half", "fsync", "rename", "folder", "done")


@dataclass(frozen=True)
class Nets:
    """Grid backbones that take their time."""

    delay: float = 0.0

    def load(self, wanted):
        return GridBackbone(wanted, self.delay)

    def keep(self, wanted):
        pass


@dataclass(frozen=True)
class Death:
    """SIGKILL at the `nth` time that a commit of a kind reaches a point.

    create: before the temporary file; half: half of it is written; fsync: all is written and nothing synced; rename:
    synced, not renamed; folder: renamed, the folder not synced; done: all of it.
    """

    kind: str
    point: str
    nth: int = 1


def pictures(folder: Path, count: int = 11) -> dict[str, ImageRecord]:
    """Images by id; the third is truncated."""
    images = records(folder, count)
    victim = list(images.values())[2]
    data = victim.path.read_bytes()[:-30]
    victim.path.write_bytes(data)
    broken = replace(victim, id=digest_bytes(data))
    return {r.id: r for r in (broken if r is victim else r for r in images.values())}


def extract(images, cache, *, keys=KEYS, delay=0.0, store=Store):
    """What `featstore.extract` does, with grid backbones and small blocks."""

    def replan(bad):
        found = store(cache)
        ids = [i for i in images if i not in bad]
        return plan(keys, ids, found.stored(keys), found.bad_images(NOW))

    pieces.image_blocks.__defaults__ = (BLOCK,)
    work = ExtractWorker(Nets(delay), NOW, cache)
    return compute_plan(replan(()), images, work, Serial(), engine.NullProgress(), replan)


class Reaper:
    """Listens to the system calls of commits below a folder, and strikes."""

    def __init__(self, cache, death):
        self.cache, self.death, self.times = str(cache), death, 0
        self.renamed = None

    def arm(self):
        sys.addaudithook(self.hear)
        self.fsync, os.fsync = os.fsync, self.sync

    def hear(self, event, arguments):
        if event == "open" and isinstance(arguments[0], (str, os.PathLike)):
            path = os.fspath(arguments[0])
            if self.renamed == path:
                self.reach("folder", path)
            elif os.path.basename(path).startswith(".tmp-"):  # noqa: PTH119
                self.reach("create", os.path.dirname(path))  # noqa: PTH120
        elif event == "os.rename":
            folder = os.path.dirname(os.fspath(arguments[1]))  # noqa: PTH120
            self.reach("rename", folder)
            self.renamed = folder

    def sync(self, descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
        if os.path.isdir(path):  # noqa: PTH112
            self.fsync(descriptor)
            if self.renamed == path:
                self.renamed = None
                self.reach("done", path)
            return
        folder = os.path.dirname(path)  # noqa: PTH120
        if self.reach("half", folder, strike=False):
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        self.reach("fsync", folder)
        self.fsync(descriptor)

    def reach(self, point, folder, *, strike=True):
        if (point, kind_of(folder, self.cache)) != (self.death.point, self.death.kind):
            return False
        self.times += 1
        if self.times == self.death.nth and strike:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.times == self.death.nth


def kind_of(folder, cache):
    """What a commit into a folder is for."""
    parts = Path(folder).relative_to(cache).parts if folder.startswith(cache) else ()
    if parts[:1] == ("features",):
        return {2: "backbone", 4: "shard"}.get(len(parts))
    return {"index": "index", "quarantine": "quarantine", "rates": "rate", "leases": "lease"}.get(
        "".join(parts[:1])
    )


class Acknowledging(Store):
    """Counts in shared memory the rows that were acknowledged."""

    counter = None

    def write(self, address, ids, features, computation):
        path = super().write(address, ids, features, computation)
        with self.counter.get_lock():
            self.counter.value += len(ids)
        return path


def child(images, cache, settings, acknowledged, barrier, outbox):
    """Entry of a process: wait for the others, extract, and send the rows that were computed."""
    Acknowledging.counter = acknowledged
    pieces.Store = Acknowledging
    death = settings.pop("death", None)
    if death is not None:
        Reaper(cache, death).arm()
    if barrier is not None:
        barrier.wait(60)
    outbox.send("started")
    outbox.send(extract(images, cache, **settings).rows)


class Child:
    """One extraction in a process of its own."""

    def __init__(self, images, cache, *, barrier=None, **settings):
        self.inbox, outbox = SERVER.Pipe(duplex=False)
        self.counter = SERVER.Value("q", 0)
        self.process = SERVER.Process(
            target=child, args=(images, cache, settings, self.counter, barrier, outbox)
        )
        self.process.start()
        outbox.close()

    @property
    def acknowledged(self):
        return self.counter.value

    @property
    def pid(self):
        return self.process.pid

    def wait_for_start(self):
        assert self.inbox.poll(60)
        assert self.inbox.recv() == "started"

    def send(self, number):
        """Send a signal, unless it is over already."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def end(self):
        """Wait for the end; return the exit code."""
        self.process.join(60)
        assert self.process.exitcode is not None, "it hangs"
        return self.process.exitcode

    def rows(self):
        """Wait for success; return how many rows it has computed."""
        answers = []
        while wait([self.inbox], 60):
            try:
                answers.append(self.inbox.recv())
            except EOFError:
                break
        assert self.end() == 0
        return answers[-1]


@contextmanager
def together(cache, *runs):
    """Several extractions, each ``{"images": …, …}``, that begin at the same moment; none is left running."""
    barrier = SERVER.Barrier(len(runs))
    started = [Child(cache=cache, barrier=barrier, **run) for run in runs]
    try:
        yield started
    finally:
        for run in started:
            run.process.kill()
            run.process.join()


SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(PRELOADED)
