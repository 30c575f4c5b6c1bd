"""The command line in a process that starts in milliseconds: `featstore extract` with grid backbones."""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - dataclass field

from fakes import GridBackbone, spec
from kill import BLOCK, SERVER

from featstore.extraction import plan


class Networks:
    """In place of `featstore.extraction.networks.Networks`; batches take their time."""

    delay = 0.0

    def __init__(self, weights, preprocess, precision, _engine="tensorflow"):
        pass

    def spec(self, name, *, fetch):  # noqa: ARG002
        return spec(name)

    def load(self, wanted):
        return GridBackbone(wanted, self.delay)

    def keep(self, wanted):
        pass


@dataclass(frozen=True)
class Limits:
    """What the process gets: seconds per batch, and the largest file that it may write."""

    delay: float = 0.0
    file_bytes: int | None = None


def child(arguments, limits, errors, output):
    """Entry of a process: what the console script does."""
    from featstore_cli.main import main

    from featstore.api import extract

    for path, descriptor in ((output, 1), (errors, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, descriptor)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    extract.Networks, Networks.delay = Networks, limits.delay
    plan.image_blocks.__defaults__ = (BLOCK,)
    if limits.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))
    sys.argv = ["featstore", *map(str, arguments)]
    main()


@dataclass
class Command:
    """One `featstore extract` in a process of its own."""

    data: Path
    cache: Path
    folder: Path
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self):
        self.folder.mkdir(exist_ok=True)
        self.output, self.errors = self.folder / "out", self.folder / "err"
        for page in (self.output, self.errors):
            page.unlink(missing_ok=True)
        arguments = [
            "extract",
            self.data,
            "--backbones",
            "Xception,MobileNetV2",
            "--recipe",
            "flip(hv)",
            "--seeds",
            "1",
        ]
        arguments += ["--cache", self.cache, "--json"]
        target = child, (arguments, self.limits, str(self.errors), str(self.output))
        self.process = SERVER.Process(target=target[0], args=target[1])
        self.process.start()

    def send(self, number):
        """Send a signal, unless it is over already."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def end(self):
        """Wait for the end; return exit code and what was said on stderr."""
        self.process.join(60)
        assert self.process.exitcode is not None, "it hangs"
        return self.process.exitcode, self.errors.read_text()
