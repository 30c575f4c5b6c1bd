"""The steps of a record, in the order in which they are made; `record.py` runs this file in an empty folder.

Only what survives a reorganisation is used: the installed command, `featstore.make_phantoms`, and the files that
commands leave. All commands run in this process, so that TensorFlow is imported once.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import pty
import re
import shlex
import shutil
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import h5py
import numpy as np
from PIL import Image
from record import normalise, without_bars

import featstore

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXTS = {".csv", ".html", ".json", ".svg"}
"""Suffixes of files that are kept as they are; of others the record keeps the SHA-256."""
INTERRUPTED = 130
"""Exit code of a command that a signal has ended; all that follow would end alike."""
SMALLEST = ("MobileNet025", "MobileNetV3Small", "MobileNetV3Large")
NETS = f"--backbones {','.join(SMALLEST)} " + " ".join(
    f"--weights {name}=random:{seed}" for seed, name in enumerate(SMALLEST, 1)
)
SVG = re.compile(r"<svg.*?</svg>", re.DOTALL)
END = b"\0"
"""What is written to a terminal when all is said."""
DIGEST = re.compile(r'"(software|sha256)":"[0-9a-f]{64}"')


class Recorder:
    """Runs commands, and writes down what they say and leave.

    Parameters
    ----------
    folder
        Of the record.
    """

    def __init__(self, folder: Path) -> None:
        (entry,) = entry_points(group="console_scripts", name="featstore")
        self.command = entry.load()
        self.folder = folder

    def write(self, path: str, text: str) -> None:
        """Put a text into the record."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        text = normalise(path, text.replace(str(Path.cwd()), "<work>"))
        target.write_text(text, encoding="utf-8", newline="")

    def run(self, name: str, line: str = "", *, terminal: bool = False) -> str:
        """Run ``featstore LINE`` and write down its exit code, stdout and stderr; return its stdout."""
        line = line.replace("NETS", NETS)
        started = time.process_time()
        with redirected(terminal=terminal) as said:
            code = self._call(shlex.split(line))
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        sys.stderr.write(f"{time.process_time() - started:6.1f} s of CPU  {name}\n")
        texts = (
            f"$ featstore {line}",
            f"exit {code}",
            "--- stderr",
            without_bars(said[1]),
            "--- stdout",
            said[0],
        )
        self.write(f"commands/{name}.txt", "\n".join(texts))
        return said[0]

    def both(self, name: str, line: str) -> None:
        """Run a command for people, and for programs."""
        self.run(name, line)
        self.run(f"{name}.json", f"{line} --json")

    def keep(self, root: Path) -> None:
        """Write down the files of a folder: texts as they are, figures also apart, of others the SHA-256."""
        for path in sorted(path for path in (root, *root.rglob("*")) if path.is_file()):
            if path.suffix not in TEXTS:
                self.write(f"files/{path}.sha256.txt", content(path))
                continue
            text = path.read_bytes().decode()
            self.write(f"files/{path}", text)
            if path.suffix == ".html":
                for number, figure in enumerate(SVG.findall(text), 1):
                    self.write(f"files/{path}.figures/{number:02}.svg", figure)

    def _call(self, words: list[str]) -> Any:
        sys.argv = ["featstore", *words]
        logging.getLogger().handlers.clear()  # that of the command before
        try:
            self.command()
        except SystemExit as ended:
            return ended.code or 0
        return 0


@contextmanager
def redirected(*, terminal: bool) -> Iterator[list[str]]:
    """Lead stdout and stderr, native code's too, into files; the list holds both texts when the block has ended."""
    said: list[str] = []
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with _led("stdout", out, terminal=terminal), _led("stderr", err):
            yield said
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode())


@contextmanager
def _led(name: str, file: BinaryIO, *, terminal: bool = False) -> Iterator[None]:
    """Lead a stream into a file, by way of a terminal where it shall look like one."""
    before = getattr(sys, name)
    descriptor = before.fileno()
    kept = os.dup(descriptor)
    leader, follower = pty.openpty() if terminal else (None, file.fileno())
    copying = threading.Thread(target=_copy, args=(leader, file))
    if terminal:
        copying.start()
    os.dup2(follower, descriptor)
    with open(descriptor, "w", encoding="utf-8", closefd=False) as stream:
        setattr(sys, name, stream)
        try:
            yield
        finally:
            setattr(sys, name, before)
            stream.flush()
            before.flush()
            os.dup2(kept, descriptor)
            os.close(kept)
    if leader is not None:
        os.write(follower, END)
        copying.join()
        os.close(leader)
        os.close(follower)


def _copy(leader: int, file: BinaryIO) -> None:
    """Copy what a terminal shows, up to `END`: another process may hold it open for longer."""
    data = b""
    while not data.endswith(END):
        data += os.read(leader, 1 << 16)
    file.write(data.removesuffix(END).replace(b"\r\n", b"\n"))


def content(path: Path) -> str:
    """Tell what a binary file holds: its SHA-256, or those of its arrays where the file around them has a date."""
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return "".join(f"{name} {_array(arrays[name])}\n" for name in arrays.files)
    lines = [hashlib.sha256(path.read_bytes()).hexdigest()]
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            lines += [f"{name}: {value}" for name, value in sorted(file.attrs.items())]
            lines += [
                f"{name} {_array(file[name][()])}" for name in file if isinstance(file[name], h5py.Dataset)
            ]
    return "\n".join(lines) + "\n"


def _array(values: np.ndarray) -> str:
    return f"{values.dtype.str} {values.shape} {hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()}"


def help_pages(tell: Recorder) -> None:
    """``--help`` of each command and each command of a command, found in the help itself."""
    waiting = [""]
    while waiting:
        group = waiting.pop()
        page = tell.run(f"help{'-' if group else ''}{group.replace(' ', '-')}", f"{group} --help".strip())
        _, _, commands = page.partition("\nCommands:\n")
        waiting += [f"{group} {name}".strip() for name in re.findall(r"^  (\S+)", commands, re.MULTILINE)]


def lists_and_slips(tell: Recorder) -> list[str]:
    """What needs no data, and what is said to those who mistype; returns the names of the strategies."""
    tell.run("version", "--version")
    tell.run("nothing")
    for name in ("backbones", "recipes", "strategies"):
        tell.both(name, name)
    tell.run("slip-command", "fuze lungs")
    tell.run("slip-data", "check nowhere")
    tell.run("slip-backbone", "extract lungs/manifest.csv --backbones MobilNet025 --cache cache")
    tell.run("slip-strategy", "fuse lungs/manifest.csv --strategy concat_logrek --cache cache")
    tell.run("slip-run", "report lungs")
    tell.run("slip-weights", "extract lungs/manifest.csv --backbones VGG19 --dry-run --cache cache")
    tell.run("slip-empty", "fuse lungs/manifest.csv --cache cache")
    return list(json.loads(tell.run("strategies.json", "strategies --json")))


def make_data() -> None:
    """Three data sets: few slices for networks, many with splits for imported vectors, and a bad folder."""
    featstore.make_phantoms(Path("lungs"), patients=16, slices=2, size=64)
    featstore.make_phantoms(Path("many"), patients=60, slices=4, size=32)
    featstore.make_phantoms(Path("new"), patients=4, slices=1, size=48, seed=5)
    _split_and_embed(Path("many"))
    for label in ("covid", "normal"):
        Path("bad", label).mkdir(parents=True)
        for path in sorted(Path("lungs", label).glob("*.png"))[:8]:
            shutil.copy(path, Path("bad", label))
    some = sorted(Path("bad/covid").iterdir())
    shutil.copy(some[0], "bad/normal/p900-copy.png")
    Path("bad/covid/p901-torn.png").write_bytes(some[1].read_bytes()[:500])
    Path("bad/covid/p902-notes.txt").write_text("no image\n", encoding="utf-8")
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16).save(
        "bad/normal/p903-deep.tiff"
    )


def _split_and_embed(folder: Path) -> None:
    """Give a data set splits by patient, and vectors of two other programs that know the label a bit."""
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "split.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow([*rows[0], "split"])
        for row in rows:
            table.writerow(
                [*row.values(), ("test", "train", "test", "train", "val")[int(row["group"][1:]) // 2 % 5]]
            )
    labels = np.array([row["label"] == "covid" for row in rows])
    for name, width in (("Alien", 8), ("Other", 6)):
        values = np.random.default_rng(width).normal(size=(len(rows), width)) + 0.4 * labels[:, None]
        np.savez(f"{name}.npz", path=[row["path"] for row in rows], features=values.astype(np.float32))


def stage_one(tell: Recorder) -> None:
    """Audit and extract, and all that is done with a cache."""
    lungs = "lungs/manifest.csv"
    tell.both("check", f"check {lungs} --cache cache")
    tell.both("check-bad", "check bad --cache bad-cache --group-pattern (p[0-9]+)")
    tell.both("extract-planned", f"extract {lungs} NETS --recipe mild --seeds 1,2 --cache cache --dry-run")
    tell.run("extract", f"extract {lungs} NETS --recipe mild --seeds 1,2 --cache cache --out runs/extract")
    tell.run("extract.json", f"extract {lungs} NETS --recipe mild --seeds 1,2 --cache cache --json")
    one = "--backbones MobileNet025 --weights MobileNet025=random:1"
    bad = f"extract bad {one} --recipe flips --seeds 1 --cache bad-cache --group-pattern (p[0-9]+)"
    tell.run("extract-no-range", bad)
    tell.both("extract-bad", f"{bad} --range=0,65535")
    tell.run("fuse-bad", "fuse bad --cache bad-cache --group-pattern (p[0-9]+) --range=0,65535")
    tell.run("extract-no-bfloat16", f"extract {lungs} {one} --precision-check --check-images 8")
    with forced_precision():
        tell.both("extract-precision", f"extract {lungs} {one} --precision-check --check-images 8")
    for name, other in (("Alien", "import"), ("Other", "import-other")):
        tell.both(other, f"cache import many/split.csv {name}.npz --name {name} --cache many-cache")
    tell.both("cache-export", f"cache export {lungs} exported.npz --cache cache --seed 1 --overwrite")
    tell.run("cache-export-gap", f"cache export {lungs} exported --format gap --cache cache")
    fixed_ages(Path("cache"))
    for by in ("backbone", "view", "age"):
        tell.run(f"cache-ls-{by}", f"cache ls --by {by} --cache cache")
        tell.run(f"cache-du-{by}", f"cache du --by {by} --cache cache")
    for name in ("ls", "du", "verify", "verify --fast", "gc --dry-run", "compact --dry-run"):
        tell.both(f"cache-{name.replace(' --', '-')}", f"cache {name} --cache cache")
    tell.both("cache-gc-bad", "cache gc bad --dry-run --cache cache --group-pattern (p[0-9]+)")
    tell.both("cache-drift", f"cache drift {lungs} --rows 4 --cache cache {one}")


@contextmanager
def forced_precision() -> Iterator[None]:
    """Compute in bfloat16 whether or not the processor does."""
    os.environ["FEATSTORE_FORCE_PRECISION"] = "1"
    yield
    del os.environ["FEATSTORE_FORCE_PRECISION"]


def fixed_ages(cache: Path) -> None:
    """Make shards one, two, three days old and so on, and some hours, so that a slow record is no other one."""
    for days, path in enumerate(sorted(cache.glob("features/*/*/*/*.h5")), 1):
        moment = time.time() - 86400 * (days + 0.4)
        os.utime(path, (moment, moment))


def fixed_rates(cache: Path) -> None:
    """Let the cache tell what networks cost as if it had been measured alike each time."""
    for number, path in enumerate(sorted(cache.glob("rates/*/*.json")), 1):
        rate = json.loads(path.read_bytes())
        path.write_text(json.dumps({**rate, "core_seconds": 0.01 * number, "load_seconds": 1.0 * number}))


def stage_two(tell: Recorder, strategies: list[str]) -> None:
    """Fit each strategy, compare, predict."""
    lungs, many = "lungs/manifest.csv", "many/split.csv"
    wishes = {
        "concat_logreg": "--calibrate temperature",
        "soft_vote": "--calibrate isotonic",
        "stacking": "--calibrate platt --sensitivity 0.9",
    }
    for name in strategies:
        tell.run(
            f"fuse-{name}",
            f"fuse {lungs} --strategy {name} --cache cache --out runs/{name} {wishes.get(name, '')}",
        )
    tell.run("fuse.json", f"fuse {lungs} --cache cache --out runs/json --json")
    tell.run(
        "fuse-many", f"fuse {many} --cache many-cache --calibrate platt --sensitivity 0.9 --out runs/many"
    )
    head = f"fuse {many} --strategy concat_head --cache many-cache --set epochs=5"
    tell.run("fuse-head", f"{head} --preset paper --out runs/head")
    tell.run("fuse-further", f"{head} --init-from runs/head --freeze-blocks Other --out runs/further")

    whole = (
        f"compare {lungs} --strategies concat_logreg,soft_vote,knn --subsets singles,MobileNet025+MobileNetV3Small"
        " --folds 3 --nested --economics --view-curve concat_logreg --calibrate temperature --cache cache"
    )
    tell.run("compare", f"{whole} --out runs/compare")
    tell.run("compare.json", f"{whole} --json")
    tell.run("compare-csv", f"{whole} --csv")
    tell.run("compare-terminal", whole, terminal=True)
    tell.run("compare-all", f"compare {lungs} --folds 2 --repeats 2 --cache cache --out runs/compare-all")
    tell.run(
        "compare-views",
        f"compare {lungs} --strategies concat_logreg,vote_backbones,concat_head --subsets greedy --folds 2"
        " --training-seeds 2 --views identity,expand,average,sample --test-views average --cache cache"
        " --out runs/views",
    )
    tell.run(
        "compare-many",
        f"compare {many} --strategies concat_logreg,soft_vote,concat_mlp --folds split --sensitivity 0.9"
        " --calibrate isotonic --nested --economics --cache many-cache --out runs/compare-many",
    )

    one = f"fuse {lungs} --backbones MobileNet025 --strategy concat_svm --calibrate temperature --cache cache"
    tell.run("fuse-one", f"{one} --out runs/one")
    tell.run("predict", "predict runs/stacking new lungs/covid/p002-s0.png")
    tell.run("predict.json", "predict runs/one new lungs/covid/p002-s0.png --json")
    tell.run("predict-csv", "predict runs/one new --csv")
    tell.run("predict-out", "predict runs/one new/manifest.csv --out answers.csv")
    tell.run("predict-bad", "predict runs/one bad/covid --out answers.json")


def pages(tell: Recorder) -> None:
    """Reports of one run and of several, with and without what they were made from."""
    lungs = "--data lungs/manifest.csv --cache cache"
    tell.run(
        "report",
        f"report runs/compare runs/stacking runs/extract {lungs} --with-images --out pages/lungs.html",
    )
    tell.run("report.json", "report runs/compare-all --out pages/all.html --json")
    tell.run("report-many", "report runs/compare-many runs/many runs/further --out pages/many.html")
    tell.run("report-views", "report runs/views runs/gated_head --out pages/views.html")


def whole_works(tell: Recorder) -> None:
    """The commands that are several in one, and the one that measures the machine."""
    nets = NETS.replace("MobileNetV3Large", "VGG19").replace(" --weights VGG19=random:3", "")
    paper = f"paper lungs/manifest.csv {nets} --epochs 3 --views 1 --cache cache --out runs/paper"
    tell.both("paper", paper)
    tune = "finetune lungs/manifest.csv --backbone MobileNet025 --weights MobileNet025=random:1 --epochs 3"
    tune += " --learning-rate 0.001"
    tell.run("finetune", f"{tune} --out runs/finetune")
    tell.run("finetune.json", f"{tune} --out runs/finetune --overwrite --json")
    tuned = "--backbones MobileNet025 --weights MobileNet025=runs/finetune/MobileNet025.weights.h5"
    tuned += " --cache tuned-cache"
    tell.run("extract-tuned", f"extract lungs/manifest.csv {tuned}")
    tell.run("fuse-tuned", f"fuse lungs/manifest.csv {tuned} --out runs/tuned")
    tell.run("compare-tuned", f"compare lungs/manifest.csv {tuned} --folds 2 --strategies concat_logreg")
    tell.run("demo", "demo --patients 10 --out runs/demo --cache demo-cache")
    tell.run("demo.json", "demo --patients 10 --out runs/demo --cache demo-cache --json")
    tell.both("bench", "bench --backbones MobileNet025 --seconds 0.1 --cache bench-cache")


def fits(cache: Path) -> str:
    """What comparisons keep of their fits, without the digest of the source files that is part of their names."""
    notes = (DIGEST.sub(r'"\1":"<digest>"', path.read_text()) for path in cache.glob("results/*.json"))
    return "\n".join(sorted(notes)) + "\n"


def main(folder: Path) -> None:
    """Make the record."""
    tell = Recorder(folder)
    help_pages(tell)
    make_data()
    strategies = lists_and_slips(tell)
    stage_one(tell)
    fixed_rates(Path("cache"))
    stage_two(tell, strategies)
    pages(tell)
    whole_works(tell)
    for cache in sorted(Path().glob("*cache")):
        tell.write(f"files/{cache}/results.jsonl", fits(cache))
        for part in ("rates", "results"):
            shutil.rmtree(cache / part, ignore_errors=True)
        for index in cache.glob("index/*.ids"):  # it names the times of files
            index.unlink()
    for part in sorted(path for path in Path().iterdir() if path.name not in {"keras", "many", "new"}):
        tell.keep(part)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
