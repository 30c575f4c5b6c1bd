"""Stage one as one public function."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from featstore.backbones import catalog
from featstore.errors import UsageError
from featstore.extraction import engine
from featstore.extraction.networks import Networks
from featstore.extraction.plan import Plan, plan
from featstore.images.decode import decoder_version, probe
from featstore.images.recipe import parse_recipe
from featstore.images.scan import scan
from featstore.store.store import Store, default_cache
from featstore.types import IDENTITY, Decoding, FeatureKey, View

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from featstore.images.manifest import Manifest

DEFAULT_BACKBONES = ("EfficientNetLite0", "EfficientNetLite1", "EfficientNetLite2")
DEFAULT_RECIPE = "paper"


@dataclass(frozen=True, slots=True)
class CellSummary:
    """One line of a dry run or of a closing summary: a backbone in one view."""

    backbone: str
    weights: str
    recipe: str
    seed: int
    stored: int
    missing: int
    bytes_missing: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Extraction:
    """What an extraction did, or with ``dry_run`` would do.

    Attributes
    ----------
    images
        Number of images of the data set, bad ones included.
    cells
        Backbone by view: what was stored before, and what was missing.
    computed
        Vectors computed and committed.
    bad
        Quarantined images: ``(path, reason, detail)``.
    warnings
        What a user should know about the data.
    phases
        Seconds spent waiting for pixels, in the forward pass, and writing.
    seconds
        Wall time of the whole call.
    """

    dry_run: bool
    cache: str
    images: int
    cells: tuple[CellSummary, ...]
    computed: int = 0
    bad: tuple[tuple[str, str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    phases: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def missing(self) -> int:
        """Vectors that were not in the store when the call began."""
        return sum(cell.missing for cell in self.cells)

    @property
    def stored(self) -> int:
        """Vectors that were in the store when the call began."""
        return sum(cell.stored for cell in self.cells)

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json``."""
        return {**asdict(self), "missing": self.missing, "stored": self.stored}


def extract(
    data: str | Path,
    *,
    backbones: Sequence[str] = DEFAULT_BACKBONES,
    weights: Mapping[str, str] | None = None,
    preprocess: str = "official",
    precision: str = "float32",
    recipe: str = DEFAULT_RECIPE,
    seeds: Iterable[int] = (),
    value_range: tuple[float, float] | None = None,
    cache: str | Path | None = None,
    group_pattern: str | None = None,
    follow_links: bool = False,
    dry_run: bool = False,
    progress: bool = False,
) -> Extraction:
    """Compute and store every vector that is wanted and missing.

    Parameters
    ----------
    data
        A folder (``class/…`` or ``split/class/…``) or a CSV manifest.
    backbones
        Catalogue names.
    weights
        For each backbone ``imagenet`` (default), ``random:SEED``, or a local file. The entry ``*`` is for all.
    preprocess
        ``official`` (each network's own) or ``rescale`` (1/255).
    precision
        ``float32``, ``bfloat16`` (CPUs and GPUs that have it) or ``float16`` (GPUs).
    recipe
        Augmentation of the seeded views, a preset's name or recipe text.
    seeds
        One augmented view per seed; the identity view is always extracted.
    value_range
        ``(low, high)`` of 16-bit and float images.
    cache
        The store's folder; default ``$FEATSTORE_CACHE`` or ``./cache``.
    group_pattern, follow_links
        As in `featstore.images.scan.scan`.
    dry_run
        Only say what would be done; loads no network.
    progress
        Show a bar on stderr.

    Raises
    ------
    FeatstoreError
        One line of cause and one of remedy.
    """
    started = perf_counter()
    store = Store(Path(cache) if cache is not None else default_cache())
    decoding = Decoding(decoder_version(), value_range=value_range)
    views = [IDENTITY, *_views(recipe, seeds)]
    with ExitStack() as stack:
        networks = Networks(weights or {}, preprocess, precision)
        specs = [networks.spec(name, fetch=not dry_run) for name in dict.fromkeys(backbones)]
        manifest = scan(Path(data), group_pattern=group_pattern, follow_links=follow_links)
        keys = [FeatureKey(s, view, decoding) for view in views for s in specs]
        todo = _plan(keys, manifest, store, decoding)
        tally = engine.Tally()
        if todo.rows_missing and not dry_run:
            _refuse_undeclared_range(manifest, todo, decoding)
            loaded = {c.key.backbone: networks.load(c.key.backbone) for c in todo.cells if c.missing}
            records = {r.id: r for r in manifest.records}
            bar = stack.enter_context(_bar(todo, show=progress))
            tally = engine.run(todo, records, decoding, loaded, store, bar)
    return Extraction(
        dry_run=dry_run,
        cache=str(store.root),
        images=len(manifest.records) + len(manifest.unreadable),
        cells=tuple(_summary(cell) for cell in todo.cells),
        computed=tally.rows,
        bad=_bad_images(manifest, store, decoding, tally),
        warnings=manifest.warnings,
        phases={name: round(value, 3) for name, value in tally.seconds.items()},
        seconds=round(perf_counter() - started, 3),
    )


def _views(recipe: str, seeds: Iterable[int]) -> list[View]:
    wanted = sorted(set(seeds))
    text = str(parse_recipe(recipe))
    if wanted and text == IDENTITY.recipe:
        raise UsageError(
            f"The recipe {recipe!r} changes nothing, so seeds {wanted} would all be the identity view.",
            "Give an augmenting recipe, such as --recipe paper, or leave --seeds out.",
        )
    return [View(text, seed) for seed in wanted]


def _plan(keys: Sequence[FeatureKey], manifest: Manifest, store: Store, decoding: Decoding) -> Plan:
    ids = list(dict.fromkeys(record.id for record in manifest.records))
    stored = {key: store.stored_ids(key) for key in keys}
    return plan(keys, ids, stored, store.bad_images(decoding))


def _refuse_undeclared_range(manifest: Manifest, todo: Plan, decoding: Decoding) -> None:
    """Refuse 16-bit and float images before any work: without a range they would be silently wrong."""
    if decoding.value_range is not None:
        return
    lacking = frozenset[str]().union(*(cell.missing for cell in todo.cells))
    deep = [r.path for r in manifest.records if r.id in lacking and _is_deep(r.path)]
    if deep:
        raise UsageError(
            f"{len(deep)} images hold 16-bit or float values and no range is declared; the first is {deep[0]}.",
            "Declare what is black and what is white: --range LOW,HIGH (lung CT in HU: --range=-1350,150).",
        )


def _is_deep(path: Path) -> bool:
    try:
        return probe(path.read_bytes())
    except OSError:
        return False


def _summary(cell: Any) -> CellSummary:  # noqa: ANN401
    backbone, view = cell.key.backbone, cell.key.view
    return CellSummary(
        backbone.name,
        backbone.weights,
        view.recipe,
        view.seed,
        cell.stored,
        len(cell.missing),
        cell.bytes_missing,
        round(len(cell.missing) * _seconds_per_image(backbone.name), 1),
    )


def _seconds_per_image(name: str) -> float:
    return catalog.row(name).gflops / catalog.REFERENCE_GFLOPS_PER_SECOND / (os.cpu_count() or 1)


def _bar(todo: Plan, *, show: bool) -> Any:  # noqa: ANN401
    from tqdm import tqdm

    return tqdm(total=todo.rows_missing, unit="img", desc="extract", disable=not show, smoothing=0.05)


def _bad_images(
    manifest: Manifest, store: Store, decoding: Decoding, tally: engine.Tally
) -> tuple[tuple[str, str, str], ...]:
    known = {**store.bad_images(decoding), **{bad.id: bad for bad in tally.bad}}
    decoded = [
        (str(r.path), known[r.id].reason, known[r.id].detail) for r in manifest.records if r.id in known
    ]
    unread = [(str(q.path), q.reason, q.detail) for q in manifest.unreadable]
    return tuple(sorted(decoded + unread))
