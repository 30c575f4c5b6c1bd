"""The command line as installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FEATSTORE = Path(sys.executable).with_name("featstore")
HEAVY = ("tensorflow", "keras", "sklearn", "scipy", "torch", "matplotlib")
NETS = ["--backbones", "MobileNet025,EfficientNetLite0", "--weights", "MobileNet025=random:1"]


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


def featstore(*arguments, cwd=None, timeout=240) -> Outcome:
    """Run the installed command in a process of its own."""
    command = [str(FEATSTORE), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=timeout, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def modules_loaded(*arguments) -> tuple[int, set[str]]:
    """Run a command in a fresh interpreter; return its exit code and which heavy libraries it has loaded."""
    script = (
        "import sys, json\n"
        "from featstore_cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code or 0\nelse:\n    code = 0\n"
        f"print('LOADED', json.dumps([code, [m for m in {HEAVY!r} if m in sys.modules]]))\n"
    )
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=os.environ)
    code, loaded = json.loads(done.stdout.rpartition("LOADED")[2])
    return code, set(loaded)
