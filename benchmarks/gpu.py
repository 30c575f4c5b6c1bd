"""What one card makes of the seven networks: bare forward passes, extraction's pass, the whole command, and timm.

It makes its own images and seeded weights, needs no network and runs from a plain checkout, with no card in minutes
(`--tiny`). Each part is a process of its own, the most important one first; `--budget` ends them and skips the rest,
and says so. Figures go into the JSON file after each step, and the same command goes on where the last one stopped.

Usage: python benchmarks/gpu.py [--budget SECONDS] [--json FILE] [--parts A,B] [--networks A,B] [--images N] [--tiny]
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

HERE: Final = Path(__file__).resolve().parent
REFERENCE: Final = HERE / "gpu_reference.npz"
"""Features of `pictures` by TensorFlow on a CPU in float32, by network; `--reference` writes it."""
WEIGHTS: Final = "random:1"
STUDY: Final = (
    "ResNet50", "InceptionV3", "Xception", "VGG19", "DenseNet201", "InceptionResNetV2", "NASNetLarge",
)  # fmt: skip
"""From the fastest to compile to the slowest, so that a short budget still says something."""
TINY: Final = ("MobileNet025", "MobileNetV3Small")
TIMM: Final = {
    "ResNet50": "resnet50",
    "InceptionV3": "inception_v3",
    "Xception": "legacy_xception",
    "VGG19": "vgg19",
    "DenseNet201": "densenet201",
    "InceptionResNetV2": "inception_resnet_v2",
    "NASNetLarge": "nasnetalarge",
}
PARTS: Final = {
    "bfloat16": 0.6,
    "timm": 0.6,
    "again": 0.5,
    "deterministic": 0.3,
    "float32": 0.6,
    "extract": 0.6,
    "tf32": 1.0,
}
"""In order of importance, with the largest share that each may take of the time that is left."""
STRICT: Final = "deterministic"
"""The part under XLA's stricter flag, which keeps it from trying kernels: what that would cost."""
LEAST_SECONDS: Final = 15
"""With less left, a part is not begun."""
PICTURES: Final = 2
VIEWS: Final = 4
TOGETHER: Final = "all together"


# The parent: one process per part, the file, the table


@dataclass(frozen=True, slots=True)
class Options:
    networks: tuple[str, ...]
    images: int
    is_tiny: bool
    seconds: float

    @property
    def sample_seconds(self) -> float:
        """How long a forward pass is repeated."""
        return 0.2 if self.is_tiny else 1.5


def main() -> None:
    asked = arguments()
    networks = tuple(asked.networks.split(",")) if asked.networks else TINY if asked.tiny else STUDY
    images = asked.images or (48 if asked.tiny else 2048)
    options = Options(networks, images, asked.tiny, asked.budget)
    if asked.reference:
        write_reference((*STUDY, *TINY))
    elif asked.child:
        child(asked.child, options, asked.json)
    else:
        supervise(asked.parts.split(","), options, asked.json)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--budget", type=float, default=345, help="seconds, after which what is left is skipped"
    )
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="what was measured")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, in this order")
    parser.add_argument("--networks", help="which; default: the seven of the study")
    parser.add_argument("--images", type=int, help="for extraction; default 2048")
    parser.add_argument(
        "--tiny", action="store_true", help="small networks and few images: a rehearsal on a CPU"
    )
    parser.add_argument("--reference", action="store_true", help="compute the fixture (needs TensorFlow)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def supervise(parts: Sequence[str], options: Options, path: Path) -> None:
    """Run parts while the budget lasts; a part that does not end is ended."""
    deadline = time.monotonic() + options.seconds
    skipped: list[str] = []
    for part in parts:
        left = deadline - time.monotonic()
        if left < LEAST_SECONDS:
            skipped.append(part)
            continue
        share = left * (1.0 if part == parts[-1] else PARTS[part])
        say(f"{part}: at most {share:.0f} s")
        run_child(part, options, path, share)
    results = read_rows(path)
    print(table(results))
    if skipped:
        print(f"not run, for lack of time: {', '.join(skipped)}. The same command goes on from here.")
    print(f"all figures: {path}")


def run_child(part: str, options: Options, path: Path, seconds: float) -> None:
    names = ",".join(options.networks)
    command = [
        sys.executable, str(Path(__file__).resolve()), "--child", part, "--json", str(path.resolve()),
        "--networks", names, "--images", str(options.images), "--budget", f"{seconds:.0f}",
        *(["--tiny"] if options.is_tiny else []),
    ]  # fmt: skip
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    if part == STRICT:
        environment["XLA_FLAGS"] = (
            f"{environment.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()
        )
    try:
        code = subprocess.run(command, env=environment, timeout=seconds + 5, check=False).returncode  # noqa: S603
        outcome = "done" if code == 0 else f"failed with code {code}"
    except subprocess.TimeoutExpired:
        outcome = f"ended after {seconds:.0f} s"
    note(path, "parts", part, {"outcome": outcome})


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def read_rows(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def note(path: Path, group: str, name: str, figures: Mapping[str, Any]) -> None:
    """Add figures to the file, whole or not at all: one process writes at a time. What failed before is forgotten."""
    results = read_rows(path)
    before = results.setdefault(group, {}).get(name, {})
    kept = {key: value for key, value in before.items() if key not in {"failed", "skipped"}}
    results[group][name] = kept | dict(figures)
    whole = path.with_suffix(".part")
    whole.write_text(json.dumps(results, indent=1))
    whole.replace(path)


COLUMNS: Final = (
    ("batch", "batch", "d"), ("raw", "raw", ".0f"), ("pass1", "1 view", ".0f"), ("pass4", "4 views", ".0f"),
    ("ratio", "4/raw", ".2f"), ("busy", "busy", ".2f"), ("timm", "timm", ".0f"), ("of_timm", "raw/timm", ".2f"),
    ("error", "off by", ".1e"), ("same_bytes", "same", ""), ("start", "start s", ".0f"),
)  # fmt: skip


def table(results: Mapping[str, Any]) -> str:
    """All that was measured, for a reader: images a second unless a column says otherwise."""
    lines = [
        f"{'network, precision':<30}" + "".join(f"{title:>10}" for _, title, _ in COLUMNS),
    ]
    timm = results.get("timm", {})
    for precision in ("bfloat16", "float32", "tf32"):
        for name, found in results.get(precision, {}).items():
            rival = timm.get(name, {}).get("raw") if precision == "bfloat16" else None
            shown = {**found, "timm": rival, "of_timm": rival and found.get("raw", math.nan) / rival}
            lines.append(
                f"{name + ', ' + precision:<30}" + "".join(cell(shown.get(k), f) for k, _, f in COLUMNS)
            )
    for group in ("machine", "pixels", "memory", "extract", "again", STRICT, "timm", "parts"):
        for name, found in results.get(group, {}).items():
            lines.append(f"{group}, {name}: " + ", ".join(f"{k} {brief(v)}" for k, v in found.items()))
    return "\n".join(lines)


def cell(value: Any, form: str) -> str:
    if value is None:
        return f"{'-':>10}"
    return f"{'yes' if value else 'NO':>10}" if isinstance(value, bool) else f"{value:>10{form}}"


def brief(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# Children


def child(part: str, options: Options, path: Path) -> None:
    clock = Deadline(time.monotonic() + options.seconds)
    if options.is_tiny:
        os.environ.setdefault("FEATSTORE_FORCE_PRECISION", "1")
    if part == "timm":
        time_timm(options, path, clock)
    elif part == "extract":
        time_extract(options, path)
    elif part in {"again", STRICT}:
        compute_again(part, options, path, clock)
    else:
        time_jax(part, options, path, clock)


@dataclass(frozen=True, slots=True)
class Deadline:
    at: float

    @property
    def left(self) -> float:
        """Seconds."""
        return self.at - time.monotonic()


def pictures(side: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Coarse blocks of random grey levels on three channels, whole numbers: the same everywhere."""
    coarse = np.random.default_rng(side).integers(0, 256, (PICTURES, 9, 9, 3), np.uint8)
    at = np.arange(side) * 9 // side
    return coarse[:, at][:, :, at].astype(np.float32)


def write_reference(names: Sequence[str]) -> None:
    from featstore.backbones import catalog, keras_backbone

    found = {}
    for name in names:
        say(name)
        backbone = keras_backbone.load_backbone(name, WEIGHTS, batch_size=PICTURES)
        found[name] = backbone.embed(pictures(catalog.row(name).input_size))
    np.savez(REFERENCE, **found)  # type: ignore[arg-type]


# Networks on JAX: compiled in threads, timed one after the other


@dataclass(slots=True)
class Ready:
    """A network with its batch, and what it took."""

    backbone: Any
    load_seconds: float
    compile_seconds: float
    planned_bytes: int
    weights_bytes: int


def time_jax(precision: str, options: Options, path: Path, clock: Deadline) -> None:
    if read_rows(path).get(precision, {}).get(TOGETHER, {}).get("networks") == len(options.networks):
        return
    from featstore.backbones import jax_backbone

    device = jax_backbone.prepare_keras()[0]
    if precision == "tf32" and device.platform != "gpu":
        note(path, precision, TOGETHER, {"skipped": "no GPU"})
        return
    versions = jax_backbone.libraries()
    note(path, "machine", "card", {"name": jax_backbone.device_name(), "libraries": versions})
    note(path, "machine", "host", {"cores": os.cpu_count(), "python": sys.version.split()[0]})
    pool = ThreadPoolExecutor(8)
    with tempfile.TemporaryDirectory() as text:
        records = make_images(Path(text) / "images", options.images)
        if precision not in read_rows(path).get("pixels", {}):
            with failures_noted(path, "pixels", precision):
                note(path, "pixels", precision, time_pixels(records, options))
        begun: dict[str, Future[Ready]] = {}
        latest = 0.45 * clock.left
        for name in options.networks:
            if clock.left < latest:
                note(path, precision, name, {"skipped": "no time to load it"})
                continue
            with failures_noted(path, precision, name):
                begun[name] = prepare(name, precision, pool)
        wait(begun.values(), timeout=0.4 * clock.left)
        ready = measure_all(begun, precision, records, options, path, clock)
        if len(ready) > 1 and clock.left > 0:
            with failures_noted(path, precision, TOGETHER):
                measure_together(ready, precision, records, path)
        note_memory(ready, precision, path)
    os._exit(0)  # compilations that did not end in time would be waited for


def prepare(name: str, precision: str, pool: ThreadPoolExecutor) -> Future[Ready]:
    """Build a network here, and compile it in another thread for the batch that extraction would take."""
    from featstore.backbones import jax_backbone
    from featstore.extraction.networks import BATCH_SIZE, ROOM
    from featstore.extraction.plan import LARGE_BLOCK_ROWS

    started = time.perf_counter()
    backbone = jax_backbone.load_backbone(name, WEIGHTS, batch_size=BATCH_SIZE, precision=precision)
    loaded = time.perf_counter() - started
    say(f"{precision} {name}: loaded in {loaded:.1f} s")
    free = jax_backbone.free_memory() if jax_backbone.on_gpu() else None

    def compiled() -> Ready:
        begun = time.perf_counter()
        found = backbone
        if free is not None:
            found = jax_backbone.with_largest_batch(backbone, LARGE_BLOCK_ROWS, int(ROOM * free))
        planned = found.memory()
        seconds = time.perf_counter() - begun
        say(f"{precision} {name}: compiled in {seconds:.1f} s for {found.batch_size} images")
        weights = sum(int(v.nbytes) for kind in found._weights for v in kind)  # noqa: SLF001
        return Ready(found, loaded, seconds, planned, weights)

    return pool.submit(compiled)


def measure_all(
    begun: Mapping[str, Future[Ready]],
    precision: str,
    records: Mapping[str, Any],
    options: Options,
    path: Path,
    clock: Deadline,
) -> dict[str, Ready]:
    """First the forward passes of all, then passes over images: those that are compiled come first."""
    ready: dict[str, Ready] = {}
    for name in sorted(begun, key=lambda name: not begun[name].done()):
        with failures_noted(path, precision, name):
            found = begun[name].result(timeout=max(0.0, clock.left))
            figures = measure_forward(name, found, options)
            note(path, precision, name, figures)
            say(f"{precision} {name}: {figures['raw']:.0f} images/s")
            ready[name] = found
    for name, found in ready.items():
        if clock.left < 0:
            note(path, precision, name, {"skipped": "no time for passes"})
            continue
        with failures_noted(path, precision, name):
            raw = read_rows(path)[precision][name]["raw"]
            note(path, precision, name, measure_passes([found], records, raw))
    return ready


@contextmanager
def failures_noted(path: Path, group: str, name: str) -> Iterator[None]:
    """One network must not cost the others: what fails is said in the file."""
    try:
        yield
    except TimeoutError:
        note(path, group, name, {"skipped": "not compiled in time"})
    except Exception as error:  # noqa: BLE001 - whatever it is
        say(f"{group} {name}: {type(error).__name__}: {error}"[:300])
        note(path, group, name, {"failed": f"{type(error).__name__}: {error}"[:300]})


def measure_forward(name: str, ready: Ready, options: Options) -> dict[str, Any]:
    """Images a second with the data there, the distance to TensorFlow, and the bytes of two calls."""
    import jax
    import jax.numpy as jnp

    backbone = ready.backbone
    side, batch = backbone.spec.input_size, backbone.batch_size
    keys = jax.random.split(jax.random.key(1), 2)
    sets = [
        jax.random.randint(key, (batch, side, side, 3), 0, 256).astype(jnp.float32)
        .at[:PICTURES].set(pictures(side))
        for key in keys
    ]  # fmt: skip
    first = backbone.fetch(backbone.start(sets[0]))
    again = backbone.fetch(backbone.start(sets[0]))
    seconds = repeated(lambda k: backbone.start(sets[k % 2])[0].block_until_ready, options.sample_seconds)
    with np.load(REFERENCE) as references:
        expected = references.get(name)
    error = None if expected is None else float(np.abs(first[:PICTURES] - expected).max() / expected.max())
    return {
        "batch": batch,
        "raw": batch / seconds,
        "error": error,
        "same_bytes": first.tobytes() == again.tobytes(),
        "sha256": hashlib.sha256(first.tobytes()).hexdigest(),
        "load": ready.load_seconds,
        "compile": ready.compile_seconds,
        "start": ready.load_seconds + ready.compile_seconds,
        "planned_bytes": ready.planned_bytes,
        "weights_bytes": ready.weights_bytes,
    }


def repeated(begin: Callable[[int], Callable[[], object]], sample: float, rounds: int = 3) -> float:
    """Seconds of one call: many are begun, the last is waited for; the median of rounds.

    Parameters
    ----------
    begin
        Begins the call of this number, and returns what waits for it.
    sample
        Seconds to spend.
    """
    started = time.perf_counter()
    begin(0)()
    once = time.perf_counter() - started
    calls = max(1, int(sample / rounds / once))
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        for call in range(calls):
            finish = begin(call)
        finish()
        found.append((time.perf_counter() - started) / calls)
    return median(found)


# Passes of extraction: files, views, networks, shards


def make_images(folder: Path, images: int) -> dict[str, Any]:
    """Grey PNG slices of 256 pixels, 8 bits, each different, and what featstore knows of them."""
    from PIL import Image

    from featstore.images.scan import scan
    from featstore.phantom import make_phantoms

    table_of_slices = make_phantoms(folder.with_name("few"), patients=8, slices=4)
    slices = [np.asarray(Image.open(path)) for path in sorted(table_of_slices.parent.rglob("*.png"))]

    def save(number: int) -> None:
        moved = np.roll(slices[number % len(slices)], number // len(slices) + 1, axis=(0, 1))
        target = folder / "ab"[number % 2] / f"{number:05}.png"
        Image.fromarray(moved).save(target, compress_level=1)

    for label in "ab":
        (folder / label).mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(save, range(images)))
    return {record.id: record for record in scan(folder).records}


def views(number: int) -> list[Any]:
    from featstore.images.recipe import parse_recipe
    from featstore.types import IDENTITY, View

    return [IDENTITY, *(View(str(parse_recipe("paper")), seed) for seed in range(1, number))]


def run_once(ready: Sequence[Ready], records: Mapping[str, Any], number: int) -> tuple[float, str]:
    """Seconds of one pass, and the bytes of all its vectors as a digest."""
    from featstore.backbones.jax_backbone import on_gpu
    from featstore.extraction import pipeline
    from featstore.extraction.networks import BackoffBackbone
    from featstore.extraction.plan import BLOCK_ROWS, LARGE_BLOCK_ROWS, image_blocks, plan
    from featstore.images.reading import decoder_version
    from featstore.store.store import Store
    from featstore.types import Decoding, FeatureKey

    decoding = Decoding(decoder_version())
    backbones = {r.backbone.spec: BackoffBackbone(r.backbone) for r in ready}
    keys = [FeatureKey(spec, view, decoding) for view in views(number) for spec in backbones]
    blocks = image_blocks(plan(keys, list(records), {}), LARGE_BLOCK_ROWS if on_gpu() else BLOCK_ROWS)
    with tempfile.TemporaryDirectory() as text:
        store = Store(Path(text))
        started = time.perf_counter()
        pipeline.run_pass(blocks, records, decoding, backbones, store, pipeline.NullProgress())
        seconds = time.perf_counter() - started
        digest = hashlib.sha256()
        for key in keys:
            digest.update(store.read(key, sorted(records)).tobytes())
    return seconds, digest.hexdigest()


def measure_passes(ready: Sequence[Ready], records: Mapping[str, Any], raw: float) -> dict[str, Any]:
    """Images a second (times views) through a whole pass, once everything is compiled, and the card's load."""
    few = dict(list(records.items())[: max(r.backbone.batch_size for r in ready)])
    run_once(ready, few, 2)
    figures: dict[str, Any] = {}
    digests = []
    for number in (1, VIEWS):
        with utilization() as samples:
            seconds, digest = run_once(ready, records, number)
        figures[f"pass{number}"] = number * len(records) / seconds
        digests.append(digest)
    figures["busy"] = float(np.mean(samples)) if samples else None
    figures["ratio"] = figures[f"pass{VIEWS}"] / raw
    figures["pass_sha256"] = digests[-1]
    return figures


def measure_together(
    ready: Mapping[str, Ready], precision: str, records: Mapping[str, Any], path: Path
) -> None:
    """One pass for all that are ready; its bare forward pass is one image through each."""
    rows = read_rows(path)[precision]
    raw = 1 / sum(1 / rows[name]["raw"] for name in ready)
    figures = measure_passes(list(ready.values()), records, raw)
    _, digest = run_once(list(ready.values()), records, VIEWS)
    same = digest == figures["pass_sha256"]
    note(path, precision, TOGETHER, {"networks": len(ready), "raw": raw, "same_bytes": same, **figures})


def note_memory(ready: Mapping[str, Ready], precision: str, path: Path) -> None:
    """What the card held at most, and what weights and the largest plan had announced."""
    import jax

    stats = jax.devices()[0].memory_stats() or {}
    announced = sum(r.weights_bytes for r in ready.values())
    announced += max((r.planned_bytes for r in ready.values()), default=0)
    note(
        path,
        "memory",
        precision,
        {"peak_bytes": stats.get("peak_bytes_in_use"), "announced_bytes": announced},
    )


@contextmanager
def utilization() -> Iterator[list[float]]:
    """Share of time in which the card computed, by NVML, ten times a second; nothing where NVML is not there."""
    samples: list[float] = []
    if importlib.util.find_spec("pynvml") is None:
        yield samples
        return
    import pynvml

    try:
        pynvml.nvmlInit()
        card = pynvml.nvmlDeviceGetHandleByIndex(
            int(os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0])
        )
    except (pynvml.NVMLError, ValueError):
        yield samples
        return
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(0.1):
            samples.append(pynvml.nvmlDeviceGetUtilizationRates(card).gpu / 100)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


# Parts of the way: decoding, drawing, the warp


def time_pixels(records: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """What the host makes of images a second, and what the device warps."""
    import jax

    from featstore.images import augment
    from featstore.images.augment import draw, resize
    from featstore.images.reading import decoder_version, read_pixels
    from featstore.images.recipe import parse_recipe
    from featstore.processes import threads
    from featstore.types import Decoding

    decoding, recipe, side = Decoding(decoder_version()), parse_recipe("paper"), 299
    some = list(records.values())[:1024]
    started = time.perf_counter()
    with ThreadPoolExecutor(threads()) as pool:
        images = list(pool.map(lambda record: resize(read_pixels(record, decoding), side), some))
    decode = len(some) / (time.perf_counter() - started)
    started = time.perf_counter()
    drawn = [draw(recipe, 1, record.id, side, side) for record in some]
    draws = time.perf_counter() - started
    started = time.perf_counter()
    augment.reads(drawn, side, side)
    reads = time.perf_counter() - started
    batch = min(256, len(some))
    started = time.perf_counter()
    there = augment.DeviceImages.upload(images[:batch], batch)
    there.pixels.block_until_ready()
    upload = time.perf_counter() - started
    where = augment.reads(drawn[:batch], side, side)
    function = augment._warped(recipe.fill)  # noqa: SLF001
    index, where = jax.device_put((np.arange(batch, dtype=np.int32), where))
    warped = repeated(
        lambda _: function(there.pixels, index, where, np.float32(0)).block_until_ready,
        options.sample_seconds,
    )
    return {
        "side": side,
        "threads": threads(),
        "decode_per_second": decode,
        "draw_us": 1e6 * draws / len(some),
        "reads_us": 1e6 * reads / len(some),
        "upload_us": 1e6 * upload / batch,
        "warp_per_second": batch / warped,
    }


# The whole command, another process, and timm


def time_extract(options: Options, path: Path) -> None:
    """`featstore.extract`, all networks and views; what other parts have compiled is in the cache."""
    if "seconds" in read_rows(path).get("extract", {}).get(TOGETHER, {}):
        return
    import featstore

    with tempfile.TemporaryDirectory() as text:
        make_images(Path(text) / "images", options.images)
        started = time.perf_counter()
        done = featstore.extract(
            Path(text) / "images",
            backbones=list(options.networks),
            weights={"*": WEIGHTS},
            precision="bfloat16",
            engine="jax",
            recipe="paper",
            seeds=range(1, VIEWS),
            cache=Path(text) / "cache",
        )
        seconds = time.perf_counter() - started
    rate = done.computed / len(options.networks) / seconds
    starts = {each.backbone: each.start_seconds for each in done.backbone_throughput}
    note(path, "extract", TOGETHER, {
        "seconds": seconds, "images_times_views_per_second": rate, "phases": done.phases, "idle": done.idle,
        "start_seconds": starts, "announced_bytes": done.announced_bytes, "measured_bytes": done.measured_bytes,
    })  # fmt: skip


def compute_again(part: str, options: Options, path: Path, clock: Deadline) -> None:
    """The bytes and the speed of another process in bfloat16, network by network, while there is time."""
    before, done = (read_rows(path).get(group, {}) for group in ("bfloat16", part))
    pool = ThreadPoolExecutor(1)
    for name in options.networks:
        if "raw" in done.get(name, {}):
            continue
        if clock.left < LEAST_SECONDS or "sha256" not in before.get(name, {}):
            note(path, part, name, {"skipped": "no time, or nothing to compare with"})
            continue
        with failures_noted(path, part, name):
            ready = prepare(name, "bfloat16", pool).result(timeout=clock.left)
            found = measure_forward(name, ready, options)
            note(path, part, name, {
                "same_bytes": found["sha256"] == before[name]["sha256"],
                "same_batch": found["batch"] == before[name]["batch"],
                "raw": found["raw"],
                "of_before": found["raw"] / before[name]["raw"],
                "start": found["start"],
            })  # fmt: skip
    os._exit(0)  # as in `time_jax`


def time_timm(options: Options, path: Path, clock: Deadline) -> None:
    """The same networks of timm: torch.compile, channels last, autocast to bfloat16, features pooled to float32."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "timm")):
        note(path, "timm", "all", {"skipped": "torch or timm is not installed"})
        return
    import timm
    import torch

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    note(path, "machine", "timm", {"torch": torch.__version__, "timm": timm.__version__, "device": kind})
    done = read_rows(path).get("timm", {})
    for name in options.networks:
        if name in TIMM and "raw" not in done.get(name, {}) and clock.left > LEAST_SECONDS:
            with failures_noted(path, "timm", name):
                note(path, "timm", name, timm_figures(name, kind, options))


def timm_figures(name: str, kind: str, options: Options) -> dict[str, Any]:
    import timm
    import torch

    from featstore.backbones import catalog

    started = time.perf_counter()
    side, batch = catalog.row(name).input_size, 2 if options.is_tiny else 256
    network = (
        timm.create_model(TIMM[name], pretrained=False).eval().to(kind, memory_format=torch.channels_last)
    )

    def pooled(images: Any) -> Any:
        return network.forward_features(images).mean((2, 3)).float()

    compiled = torch.compile(pooled)
    sets = [
        (255 * torch.rand(batch, 3, side, side, device=kind)).contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    ]
    finish = torch.cuda.synchronize if kind == "cuda" else lambda: None
    with torch.inference_mode(), torch.autocast(kind, dtype=torch.bfloat16):
        compiled(sets[0])
        finish()
        start = time.perf_counter() - started

        def begin(call: int) -> Callable[[], object]:
            compiled(sets[call % 2])
            return finish

        seconds = repeated(begin, options.sample_seconds)
    say(f"timm {name}: {batch / seconds:.0f} images/s, started in {start:.0f} s")
    return {"raw": batch / seconds, "batch": batch, "start": start}


if __name__ == "__main__":
    main()
