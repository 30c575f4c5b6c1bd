"""Write down what featstore makes and says on generated images, and compare two such records byte for byte.

    python tests/golden/record.py write FOLDER
    python tests/golden/record.py compare A B

README.md beside this file says what a record holds, and what it is for.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

SHOWN, AROUND = 4, 100
"""Differences shown of a file, and characters shown of each."""
ENVIRONMENT = {
    "COLUMNS": "80",
    "LINES": "24",
    "TERM": "xterm",
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
    "KERAS_HOME": "keras",  # a folder that is not there, so that no ImageNet weights are
    "http_proxy": "http://127.0.0.1:9",  # where nobody answers: a record is made offline
    "https_proxy": "http://127.0.0.1:9",
}
UNSET = {"FEATSTORE_CACHE", "NO_COLOR", "FORCE_COLOR", "PYTHONIOENCODING", "PYTHONPATH", "LANG", "LANGUAGE"}


class Rule(NamedTuple):
    """Something that differs between two records of the same code, and what stands in its place.

    Attributes
    ----------
    where
        Regular expression that the path in the record matches from its beginning.
    what
        Regular expression of the text.
    instead
        As for `re.sub`.
    """

    where: str
    what: str
    instead: str


TIME = r"(\d+ h \d+ min|\d+ min \d+ s|[\d.]+ (s|min|h))"
WORKS = r"(commands|files/runs)/.*(extract|paper|demo|finetune)"
RULES = (
    Rule("", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)?", "<moment>"),
    Rule("files/.*run.json", r'"sha256": "[0-9a-f]{64}"\n\}', r'"sha256": "<of the above>"\n}'),
    Rule("commands/extract-precision", r"\b[EIW]0000 [\d:.]+ +\d+ ", "<when and who> "),
    # How long it took, how fast it was, what memory it needed: as JSON, as text, on a page.
    Rule(
        WORKS,
        r'"(seconds|pixels|forward|write|writer|idle|vectors_per_second|estimated_seconds|measured_bytes)": [\d.e-]+',
        r'"\1": <measured>',
    ),
    Rule(WORKS, rf"in {TIME}, [\d.,]+ vectors/s \(.*\)\.", "in <measured>."),
    Rule(WORKS, rf"about {TIME} (?=\((measured|scaled))", "about <measured> "),
    Rule(WORKS, r"extract: about .* left by the first batches.*\n", ""),
    Rule(WORKS, rf"It took {TIME}", "It took <measured>"),
    Rule("files/.*html", rf"computed in {TIME}", "computed in <measured>"),
    Rule("files/.*html", r"networks idled \d+ %", "networks idled <measured> %"),
    Rule(
        "files/.*html",
        r'((pixels|forward|write|writer|all, wall time)</th>\n<td class="number") .*<',
        r"\1 <measured><",
    ),
    Rule("", r"Peak memory [\d.]+ .?B,", "Peak memory <measured>,"),
    Rule("commands/bench", r"(\nMobileNet025 .*?\d) +[\d.]+(  fastest)?(?=\n)", r"\1  <measured>"),
    Rule("commands/bench", r"(--precision float32) --executor .*", r"\1"),
    Rule("commands/bench", r'"images_per_second": [\d.]+', '"images_per_second": <measured>'),
    Rule("commands/bench", r'"best": \[[^\]]*\]', '"best": [<measured>]'),
)
"""Applied in this order. Each is as narrow as it can be: what a rule hides, the record does not guard."""


BARS = re.compile(r"(\n*\r[^\r\n]*\n*)+")


def normalise(path: str, text: str) -> str:
    """Text of a file of the record, without what differs from run to run."""
    for rule in RULES:
        if re.match(rule.where, path):
            text = re.sub(rule.what, rule.instead, text)
    return text


def without_bars(text: str) -> str:
    """Leave out the progress bars of stderr: their frames, and whether they show, are a matter of time."""
    return BARS.sub("\n", text).strip("\n")


def write(folder: Path) -> int:
    """Make a record in an empty folder: a process of its own runs all steps in a temporary working folder."""
    if folder.exists() and any(folder.iterdir()):
        sys.stderr.write(f"{folder} is not empty.\n")
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    steps = [sys.executable, str(Path(__file__).with_name("steps.py")), str(folder.resolve())]
    kept = {name: value for name, value in os.environ.items() if name not in UNSET}
    with tempfile.TemporaryDirectory(prefix="golden-") as work:
        return subprocess.run(steps, cwd=work, env={**kept, **ENVIRONMENT}, check=False).returncode


def compare(a: Path, b: Path) -> int:
    """Print what differs between two records; 1 if anything does."""
    names = sorted(
        {path.relative_to(side).as_posix() for side in (a, b) for path in side.rglob("*") if path.is_file()}
    )
    differing = [name for name in names if _differs(a / name, b / name, name)]
    sys.stdout.write(f"{len(differing)} of {len(names)} files differ.\n")
    return 1 if differing or not names else 0


def _differs(a: Path, b: Path, name: str) -> bool:
    """Whether a file differs, which is printed."""
    for side in (a, b):
        if not side.exists():
            sys.stdout.write(f"{name}: not in {side.as_posix().removesuffix(name)}\n\n")
            return True
    if a.read_bytes() == b.read_bytes():
        return False
    pairs = zip_longest(*(side.read_bytes().decode(errors="replace").split("\n") for side in (a, b)))
    lines = [(number, *pair) for number, pair in enumerate(pairs, 1) if pair[0] != pair[1]]
    for number, old, new in lines[:SHOWN]:
        at = _first_difference(old or "", new or "")
        told = "".join(f"  {sign} {_around(line, at)}\n" for sign, line in (("-", old), ("+", new)))
        sys.stdout.write(f"{name}:{number}\n{told}")
    more = f"  and {len(lines) - SHOWN} lines more\n" if len(lines) > SHOWN else ""
    sys.stdout.write(f"{more}\n")
    return True


def _first_difference(old: str, new: str) -> int:
    return next(
        (at for at, (x, y) in enumerate(zip(old, new, strict=False)) if x != y), min(len(old), len(new))
    )


def _around(line: str | None, at: int) -> str:
    """The part of a line around its first difference; lines of a page are long."""
    if line is None:
        return "(the file ends before)"
    start = max(0, at - AROUND // 2)
    return (
        f"{'…' if start else ''}{line[start : start + AROUND]!r}{'…' if start + AROUND < len(line) else ''}"
    )


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    uses = parser.add_subparsers(dest="use", required=True)
    uses.add_parser("write").add_argument("folder", type=Path)
    comparing = uses.add_parser("compare")
    comparing.add_argument("a", type=Path)
    comparing.add_argument("b", type=Path)
    given = parser.parse_args()
    return write(given.folder) if given.use == "write" else compare(given.a, given.b)


if __name__ == "__main__":
    sys.exit(main())
