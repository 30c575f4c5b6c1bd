"""Outcomes of the commands that look at images: extract, check, split, finetune, bench and cache drift."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from msgspec import field

from featstore.findings import Finding, counted
from featstore.results.document import Count, Result, Share, bounds
from featstore.results.scores import BackboneFields, DecodingFields, Score, ViewFields

if TYPE_CHECKING:
    from featstore.reporting.figures import Picture

# Extraction


class KeySummary(Result, frozen=True, kw_only=True):
    """One line of a dry run or of a closing summary: a backbone in one view.

    Attributes
    ----------
    stored, missing
        Vectors that were in the store when the call began, and those that were not.
    bytes_missing, seconds
        What the missing ones would take.
    stored_now, missing_now
        The same when the call ended; an image that is in quarantine is not missing.
    """

    backbone: str
    weights: str
    recipe: str
    seed: Count
    stored: Count
    missing: Count
    bytes_missing: Count = 0
    seconds: float = 0.0
    stored_now: Count = 0
    missing_now: Count = 0


class ThroughputSummary(Result, frozen=True, kw_only=True):
    """What one backbone did, over all views.

    Attributes
    ----------
    vectors, seconds
        Vectors, and seconds in its forward pass alone (of all workers).
    start_seconds
        Before its first vector: the network loaded, compiled, and one batch computed.
    engine, device, batch_size, libraries
        As in the attributes of its shards: see `featstore.types.Computation`.
    """

    backbone: str
    vectors: int
    seconds: float
    vectors_per_second: float
    start_seconds: float = 0.0
    engine: str | None = None
    device: str | None = None
    batch_size: int | None = None
    libraries: str | None = None


class Extraction(Result, frozen=True, kw_only=True):
    """What an extraction did, or with ``dry_run`` would do.

    Attributes
    ----------
    images
        Number of images of the data set, bad ones included.
    keys
        Backbone by view: what was stored before, and what was missing.
    computed
        Vectors computed and committed.
    bad
        Quarantined images: ``(path, reason, detail)``.
    findings
        What a user should know about the data.
    idle
        Share of the pass in which no network was at work, 0 to 1.
    passes, announced_bytes
        Passes over the images that the memory budget asks for, and the peak memory to expect, all processes.
    measured_bytes
        Peak memory that it took: of as many processes as work at a time, those with the highest peaks. A process
        that had done other things before counts with these.
    phases
        Seconds spent waiting for pixels, in the forward pass, and waiting for the writer; beside it what the writer
        was busy in the background. Seconds of several workers add up.
    throughput
        Vectors per second by phase; a phase that took no time has none.
    backbone_throughput
        What each backbone did.
    batch_size, precision
        Images per call where a processor computes, a constant, and arithmetic; a GPU has batches of its own, which
        `backbone_throughput` tells.
    engine
        What computes the networks of Keras.
    workers, workers_from
        Processes at a time, and where that number comes from.
    seconds
        Wall time of the whole call.
    estimated_seconds, estimated_from
        Wall time that was expected for what was missing, and on what grounds.
    """

    dry_run: bool = False
    cache: str = ""
    images: Count
    keys: tuple[KeySummary, ...] = field(name="cells")
    computed: Count
    bad: tuple[tuple[str, str, str], ...] = ()
    findings: tuple[Finding, ...] = ()
    phases: Mapping[str, float]
    seconds: float
    estimated_seconds: float = 0.0
    estimated_from: str = ""
    idle: float
    passes: Count = 1
    announced_bytes: Count
    measured_bytes: Count
    throughput: Mapping[str, float] = field(default_factory=dict)
    backbone_throughput: tuple[ThroughputSummary, ...] = field(name="paces", default=())
    batch_size: Count
    precision: str
    engine: str = "tensorflow"
    workers: Count = 1
    workers_from: str = ""

    @property
    def missing(self) -> int:
        """Vectors that were not in the store when the call began."""
        return sum(key.missing for key in self.keys)

    @property
    def stored(self) -> int:
        """Vectors that were in the store when the call began."""
        return sum(key.stored for key in self.keys)

    def to_json(self, *, examples: bool = True) -> dict[str, Any]:
        """Plain dict for ``--json``, with the sums."""
        whole = super().to_json(examples=examples)
        return {**whole, "missing": self.missing, "stored": self.stored}

    def headline(self) -> str:
        """How many vectors there are, and how many are missing."""
        if self.dry_run:
            return f"{self.missing} vectors of {counted(self.images, 'image')} to compute, nothing was done"
        bad = f", {len(self.bad)} in quarantine" if self.bad else ""
        return (
            f"{self.computed} vectors of {counted(self.images, 'image')} computed{bad}, all in {self.cache}"
        )

    def table(self) -> list[dict[str, Any]]:
        """Backbone by view: what was stored, and what was missing."""
        return [key.to_json() for key in self.keys]


class ExtractionFields(TypedDict):
    """What ``run.json`` of an extraction says beside `Extraction`: the data, the feature keys, and the sums."""

    data_sha256: str
    images: Count
    quarantined: dict[str, Count]
    backbones: list[BackboneFields]
    views: list[ViewFields]
    decoding: DecodingFields | None
    missing: Count
    stored: Count


# Fine-tuning


class LossAndAccuracy(Result, frozen=True, kw_only=True):
    """Loss (nats, classes balanced) and accuracy (all images alike) on some images."""

    loss: float
    accuracy: float


class Finetuning(Result, frozen=True, kw_only=True):
    """Outcome of `featstore.finetune`.

    Attributes
    ----------
    run
        Folder that holds the weights, ``run.json`` and ``metrics.json``.
    backbone
        Its name.
    weights, digest
        The new weights file, and its digest, which is in the key of every feature that it gives.
    started_from
        Digest of the weights before.
    options
        What was asked for, defaults included.
    classes
        Images by class, all sides.
    sizes
        Images by side: ``trained``, ``validated``, and what `featstore.fuse` will score.
    layers, of_layers
        Layers that learned, of those that could.
    epochs, best_epoch
        Epochs trained, and the one whose weights were kept; 0 if none was better than the frozen network.
    before, after
        On the validation images, the frozen network under a linear probe, and the weights that were kept.
    history
        By epoch: ``loss``, ``accuracy``, ``val_loss``, ``val_accuracy``.
    bad
        Images that do not decode: ``(path, reason, detail)``.
    findings
        What a user should know about the data.
    seconds
        Wall time.
    """

    run: str
    backbone: str
    weights: str
    digest: str
    started_from: str
    options: Mapping[str, Any]
    classes: Mapping[str, int]
    sizes: Mapping[str, int]
    layers: int
    of_layers: int
    epochs: int
    best_epoch: int
    before: LossAndAccuracy
    after: LossAndAccuracy
    history: Mapping[str, tuple[float, ...]]
    bad: tuple[tuple[str, str, str], ...] = ()
    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0

    def headline(self) -> str:
        """Which network learned, and what came of it."""
        return (
            f"{self.backbone}, best of {self.epochs} epochs: {self.best_epoch}; validation loss"
            f" {self.before.loss:.3f} before, {self.after.loss:.3f} after; weights in {self.weights}"
        )

    def table(self) -> list[dict[str, Any]]:
        """Loss and accuracy by epoch."""
        epochs = enumerate(zip(*self.history.values(), strict=True), 1)
        return [{"epoch": epoch, **dict(zip(self.history, values, strict=True))} for epoch, values in epochs]

    def plot(self) -> Picture:
        """Draw the loss by epoch: `featstore.reporting.figures.loss_curves`."""
        from featstore.reporting import figures

        return figures.loss_curves(self.history, name="loss", title="Loss by epoch")


# Precision check, audit, drift and bench


class PrecisionCost(Result, frozen=True, kw_only=True):
    """What a precision does to the features of one backbone.

    Attributes
    ----------
    error
        Root mean square of the difference from float32, as a share of the standard deviation between images
        (root mean square over features). Our mark is 0.05: what a classifier
        makes of it must be tried (`featstore compare` with both precisions).
    correlation
        Pearson correlation of the Euclidean distances between all pairs of images, before and after.
    """

    backbone: str
    weights: str
    error: float
    correlation: float


class PrecisionCheck(Result, frozen=True, kw_only=True):
    """Cost by backbone on `images` images; `bad` ones as (path, reason, detail)."""

    precision: str
    images: int
    costs: tuple[PrecisionCost, ...]
    bad: tuple[tuple[str, str, str], ...] = ()

    def headline(self) -> str:
        """What was compared."""
        return f"{self.precision} against float32 on {counted(self.images, 'image')}"

    def table(self) -> list[dict[str, Any]]:
        """Price of each backbone."""
        return [cost.to_json() for cost in self.costs]


class SplitPart(Result, frozen=True, kw_only=True):
    """One part of a division: a side such as ``train``, or the test images of a fold.

    Attributes
    ----------
    name
        ``train``, ``val`` or ``test``, or ``fold 1`` and so on.
    wanted
        Share of the images that was asked for, 0 to 1.
    images, groups
        How many there are.
    classes
        Images by class.
    """

    name: str
    wanted: Share
    images: Count
    groups: Count
    classes: Mapping[str, int]


class DataSplit(Result, frozen=True, kw_only=True):
    """What `featstore.split` wrote.

    Attributes
    ----------
    files
        The manifests: one, or one for each fold.
    by
        What stays together: ``group`` or ``image``.
    seed
        Of the drawing.
    parts
        What came out, a line each.
    images
        All images that were divided.
    root
        Folder where the paths in the files begin, to be named with ``--root``; empty if it is that of the files.
    replaced
        Images by split of the data set's own division, which the files do not keep; empty where it had none.
    bad
        Files that are no images, and in none of the manifests: ``(path, reason, detail)``.
    findings
        What a user should know about the data.
    """

    files: tuple[str, ...]
    by: str
    seed: int
    parts: tuple[SplitPart, ...]
    images: Count
    root: str = ""
    replaced: Mapping[str, int] = field(default_factory=dict)
    bad: tuple[tuple[str, str, str], ...] = ()
    findings: tuple[Finding, ...] = ()

    def headline(self) -> str:
        """What was written."""
        parts = ", ".join(f"{part.name} {part.images}" for part in self.parts)
        return f"{counted(self.images, 'image')} ({parts}) in {', '.join(self.files)}"

    def table(self) -> list[dict[str, Any]]:
        """Images, groups and classes of each part."""
        return [
            {
                "part": part.name,
                "images": part.images,
                "wanted": part.wanted,
                "groups": part.groups,
                **part.classes,
            }
            for part in self.parts
        ]


class ConvertedImages(Result, frozen=True, kw_only=True):
    """What `featstore.convert` wrote.

    Attributes
    ----------
    manifest
        The table of the images, which lie beside it.
    images, sources
        Images written, and files that they were made from.
    classes
        Images by class.
    channels
        Images by ``grey`` and ``colour``.
    size_bytes
        Bytes of all images.
    bad
        What did not decode, and is not there: ``(path, reason, detail)``.
    findings
        What a user should know about the data.
    """

    manifest: str
    images: Count
    sources: Count
    classes: Mapping[str, int]
    channels: Mapping[str, int]
    size_bytes: Count
    bad: tuple[tuple[str, str, str], ...] = ()
    findings: tuple[Finding, ...] = ()

    def headline(self) -> str:
        """How many images were written, and where their table is."""
        return f"{counted(self.images, 'image')} of {counted(self.sources, 'file')} as PNG, listed in {self.manifest}"

    def table(self) -> list[dict[str, Any]]:
        """Images by class: ``class``, ``images``."""
        return [{"class": name, "images": count} for name, count in self.classes.items()]


class Check(Result, frozen=True, kw_only=True):
    """Outcome of an audit.

    Attributes
    ----------
    has_groups
        Whether patients are given; without them each image is a group.
    splits
        Images of each split of the data set, and of none; empty where it has no splits.
    no_error_found
        Whether no error was found, that is, nothing that would make every score false. Warnings may remain.
    findings
        Errors first, then warnings, then notes.
    bad
        Images that do not decode, as (path, reason, detail).
    shortcuts
        AUC of guessing the label, in cross-validation over whole groups, from the file alone (bytes, width, height,
        channels, format, colour mode) and from a grey histogram, with its 95 % interval; empty where there are too
        few groups.
    """

    images: int
    groups: int
    has_groups: bool = True
    classes: Mapping[str, int]
    splits: Mapping[str, int] = {}
    no_error_found: bool
    findings: tuple[Finding, ...]
    bad: tuple[tuple[str, str, str], ...]
    shortcuts: Mapping[str, Score]

    def headline(self) -> str:
        """Whether an error was found."""
        open_ones = [finding for finding in self.findings if not finding.accepted]
        warnings = sum(finding.severity == "warning" for finding in open_ones)
        answer = "no error found" if self.no_error_found else "ERRORS FOUND"
        about = f"{counted(self.images, 'image')}, {counted(self.groups, 'group')}"
        return f"{answer}, {counted(warnings, 'warning')}; {about}"

    def table(self) -> list[dict[str, Any]]:
        """What was found, the gravest first, and how well the class is guessed without a network."""
        found = [
            {"code": f.code, "name": f.name, "severity": f.severity, "count": f.count, "message": f.message}
            for f in self.findings
        ]
        return found or [
            {"guess": name, **bounds("auc", s.value, s.interval)} for name, s in self.shortcuts.items()
        ]


class BackboneDrift(Result, frozen=True, kw_only=True):
    """Stored against computed anew, for one backbone.

    Attributes
    ----------
    rows
        Vectors compared, in all views.
    equal
        Those that are the same bytes.
    difference
        Largest difference of a value.
    relative
        The same as a share of the spread between images: the standard deviation over the stored vectors that were
        compared, root mean square over features. None where it is infinite.
    drifted
        Whether that is beyond the tolerance.
    of_largest
        The difference as a share of the largest feature: the contract of float32 is 1e-5, whatever computes.
    stored_by, computed_by
        Engine, device and libraries of the stored vectors, as far as they were recorded, and of those computed now.
    """

    backbone: str
    weights: str
    rows: int
    equal: int
    difference: float
    relative: float | None
    drifted: bool
    of_largest: float = 0.0
    stored_by: tuple[str, ...] = ()
    computed_by: str = ""


class Drift(Result, frozen=True, kw_only=True):
    """Outcome of `drift`; images that did not decode any more as (path, reason, detail)."""

    tolerance: float
    backbones: tuple[BackboneDrift, ...]
    bad: tuple[tuple[str, str, str], ...] = ()

    @property
    def drifted(self) -> bool:
        """Whether any backbone is beyond the tolerance."""
        return any(found.drifted for found in self.backbones)

    def to_json(self, *, examples: bool = True) -> dict[str, Any]:
        """Plain dict for ``--json``, with the verdict."""
        return {**super().to_json(examples=examples), "drifted": self.drifted}

    def headline(self) -> str:
        """Which backbones give other vectors than the stored ones."""
        found = [one.backbone for one in self.backbones if one.drifted]
        return (
            f"{', '.join(found)} drifted" if found else f"none of {len(self.backbones)} backbones has drifted"
        )

    def table(self) -> list[dict[str, Any]]:
        """How far each backbone is off."""
        return [one.to_json() for one in self.backbones]


class Layout(Result, frozen=True, kw_only=True):
    """Processes side by side, and threads in each."""

    processes: int
    threads: int


class Rate(Result, frozen=True, kw_only=True):
    """Images per second of all processes together: pixels in memory to vectors in memory, random weights."""

    backbone: str
    precision: str
    batch_size: int
    processes: int
    threads: int
    images_per_second: float


class Bench(Result, frozen=True, kw_only=True):
    """All rates, and for each backbone the fastest."""

    rates: tuple[Rate, ...]
    best: tuple[Rate, ...]

    def headline(self) -> str:
        """What is fastest here."""
        return ", ".join(f"{r.backbone} {r.images_per_second:.1f} images/s" for r in self.best)

    def table(self) -> list[dict[str, Any]]:
        """Every rate."""
        return [rate.to_json() for rate in self.rates]
