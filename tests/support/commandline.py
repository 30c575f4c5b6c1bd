"""The command line as installed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from commandserver import LIBRARIES, LIGHT, NETWORKS, Server, may_fork

FEATSTORE = Path(sys.executable).with_name("featstore")
HEAVY = ("tensorflow", "keras", "sklearn", "scipy", "torch", "matplotlib")
NETS = ["--backbones", "MobileNet025,EfficientNetLite0", "--weights", "MobileNet025=random:1"]
NEEDS_NETWORKS = {"demo", "explain", "export", "extract", "finetune", "paper", "predict"}
SCRIPT = Path(__file__).with_name("commandmodules.py")


class Printed(str):
    """What a command printed; a phrase is in it wherever its lines end, which hangs on the names of folders."""

    __slots__ = ()

    def __contains__(self, phrase):
        return super().__contains__(phrase) or phrase in " ".join(self.split())


@dataclass(frozen=True)
class Outcome:
    code: int
    out: Printed
    err: Printed

    def __post_init__(self):
        for name in ("out", "err"):
            object.__setattr__(self, name, Printed(getattr(self, name)))

    @property
    def json(self):
        return json.loads(self.out)


@cache
def server(*modules) -> Server:
    return Server(modules)


def featstore(*arguments, cwd=None, timeout=240, fresh=False) -> Outcome:
    """Run the installed command in a process of its own: a fork that has its libraries, or a `fresh` interpreter."""
    words = list(map(str, arguments))
    networks = NEEDS_NETWORKS & set(words[:1]) and not {"--help", "--dry-run"} & set(words)
    return _run(FEATSTORE, words, LIBRARIES + NETWORKS if networks else LIBRARIES, cwd, timeout, fresh=fresh)


def modules_loaded(*arguments, fresh=False, within=LIGHT, among=HEAVY) -> tuple[int, set[str]]:
    """Run a command where nothing heavy is loaded; return its exit code and which of these it has loaded: `among`.

    `within` other modules, those are among them.
    """
    done = _run(SCRIPT, list(map(str, arguments)), within, None, 240, fresh=fresh)
    code, loaded = json.loads(done.out.rpartition("LOADED")[2])
    return code, set(loaded).intersection(among)


def _run(script, words, modules, cwd, timeout, *, fresh):
    if not fresh and may_fork():
        return Outcome(*server(*modules).run(script, words, cwd, timeout))
    command = [sys.executable, str(script), *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=timeout, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)
