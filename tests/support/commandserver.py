"""The installed command without its start: a process that has the libraries loaded, and forks for every command.

Most of what a command takes goes into importing what it needs, again and again. A fork has imported it. All else is
as it would be: the child runs the installed script from its first line, with arguments, folder, environment and
streams of its own, and what it keeps in memory dies with it.

Three things are the server's: the modules that are loaded, the seed of string hashes, and whatever an interpreter or
a library reads from the environment when it starts. Who tests those starts an interpreter of his own.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from featstore.backbones.keras_backbone import redirect_native_stderr
from featstore.backbones.precision import prefer_onednn

STARTING = ("PYTHON", "LC_", "LANG", "HOME", "XDG_", "OMP_", "OPENBLAS_", "MKL_", "NUMBA_", "MPL")
STARTING += ("TF_", "XLA_", "KERAS_", "ONEDNN_", "CUDA_")
"""What begins like this is read when an interpreter or a library starts."""

LIGHT = ("typer._adapters", "featstore_cli.main", "numpy", "h5py")
LIBRARIES = (*LIGHT, "numba", "matplotlib.figure", "PIL.PngImagePlugin", "featstore.api.demo")
LIBRARIES += ("sklearn.tree", "sklearn.discriminant_analysis", "tqdm", "jinja2")
LIBRARIES += ("featstore.reproduction.paper", "featstore.api.report")
NETWORKS = ("tensorflow", "keras", "featstore.backbones.keras_backbone")


ENVIRONMENT = dict(os.environ)
"""What servers start with, whenever that is."""


def read_at_start() -> dict[str, str]:
    """Return the variables that an interpreter that started now would read."""
    return {name: value for name, value in os.environ.items() if name.startswith(STARTING)}


BEFORE = read_at_start()
"""Those of when the test began: featstore sets some of them before it imports Keras, wherever that was."""


def remember() -> None:
    """Say that a test begins."""
    BEFORE.clear()
    BEFORE.update(read_at_start())


def may_fork() -> bool:
    """Whether the test has changed nothing that an interpreter would read when it starts."""
    return read_at_start() == BEFORE


class Server:
    """A process with modules loaded; `run` forks it."""

    def __init__(self, modules):
        self.socket, theirs = socket.socketpair()
        self.folder = TemporaryDirectory(prefix="featstore-command-")
        self.pages = [Path(self.folder.name) / name for name in ("out", "err")]
        command = [sys.executable, __file__, str(theirs.fileno()), *modules]
        self.process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=ENVIRONMENT
        )
        theirs.close()
        self.channel = self.socket.makefile("rw")
        atexit.register(self.close)

    def run(self, script, arguments, cwd, timeout) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command; after `timeout` seconds it is killed, and the code says so."""
        asked = {"argv": [str(script), *arguments], "cwd": str(cwd or Path.cwd()), "timeout": timeout}
        asked |= {"environment": dict(os.environ), "pages": list(map(str, self.pages))}
        print(json.dumps(asked), file=self.channel, flush=True)
        code = int(self.channel.readline())
        out, err = (page.read_bytes().decode() for page in self.pages)
        return code, out, err

    def close(self):
        self.channel.close()
        self.socket.close()
        self.process.wait()
        self.folder.cleanup()


def serve(channel):
    """Fork for every wish; the fork returns with it, the server never."""
    for line in channel:
        asked = json.loads(line)
        pid = os.fork()
        if not pid:
            return asked
        print(exit_code(pid, asked["timeout"]), file=channel, flush=True)
    sys.exit()


def exit_code(pid, timeout):
    """Wait for a command, and kill it when its time is over."""
    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, timeout)
    _, status = os.waitpid(pid, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    return os.waitstatus_to_exitcode(status)


def become(asked):
    """Give this process the folder, the environment, the streams and the arguments of a command."""
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    for descriptor, page in enumerate(asked["pages"], 1):
        opened = os.open(page, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv = asked["argv"]
    sys.path[0] = str(Path(sys.argv[0]).parent)


def run(script):
    """Run a script as the main program; return its exit code."""
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        return ended.code or 0
    return 0


def end(code):
    """End as an interpreter does, without taking the modules apart: that takes longer than most commands."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def look_at_packages():
    """Read once which plug-ins installed packages offer; a command looks whether that has changed."""
    if "featstore.registry" in sys.modules:
        sys.path[0] = str(
            Path(sys.executable).parent
        )  # as in the installed command, where they are looked for
        sys.modules["featstore.registry"].offered("strategies")


if __name__ == "__main__":
    prefer_onednn()  # as a command does before it imports TensorFlow, which reads its settings once
    with redirect_native_stderr():
        for name in sys.argv[2:]:
            import_module(name)
    look_at_packages()
    assert len([*Path("/proc/self/task").iterdir()]) == 1, "only a process of one thread may be forked"
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as connection, connection.makefile("rw") as lines:
        asked = serve(lines)
    become(asked)
    end(run(sys.argv[0]))
