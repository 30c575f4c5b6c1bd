"""`paper`: the steps of Ji et al. 2020 in their order, beside the honest protocol; its figures by their numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

import numpy as np

from featstore import runs
from featstore.api.check import check
from featstore.api.report import REPORT_FILE, write_report
from featstore.arguments import public
from featstore.errors import BadImageError, UsageError
from featstore.evaluation.metrics import positive_class
from featstore.extraction.pipeline import view_pixels
from featstore.images.augment import resize
from featstore.images.formats.container import HEAD, identify
from featstore.images.manifest import Manifest, require_two_classes
from featstore.images.reading import FILE_CACHE, decode, decoder_version, read_pixels
from featstore.images.recipe import parse_recipe
from featstore.images.scan import ScanOptions, scan
from featstore.reporting import figures
from featstore.reproduction import protocol
from featstore.results.paper import Conversion, PaperNetwork, Reproduction, SavedFigure
from featstore.runs import FIGURES, LOCK
from featstore.serialization import PRIVATE_FOLDER
from featstore.types import Decoding, ImageRecord, View

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from featstore.images.manifest import Manifest
    from featstore.reporting.figures.style import Picture
    from featstore.types import Pixels


# The steps

RECIPE = "paper"
PARTS = frozenset({"by_image", "by_patient", runs.FIGURES, runs.METRICS, REPORT_FILE, LOCK})
"""What a run that was killed may have left."""


@public
def paper(
    data: str | Path | Manifest,
    *,
    backbones: Sequence[str] = protocol.SEVEN,
    weights: Mapping[str, str] | None = None,
    precision: str = "float32",
    out: str | Path = "runs/paper",
    overwrite: bool = False,
    images: int | None = None,
    views: int = 2,
    epochs: int = 100,
    seed: int = 0,
    paper_split: bool = False,
    positive: str | None = None,
    value_range: tuple[float, ...] | None = None,
    cache: str | Path | None = None,
    memory: int | None = None,
    jobs: int = 1,
    progress: bool = False,
    **reading: Unpack[ScanOptions],
) -> Reproduction:
    """Reproduce Ji et al. 2020 on a data set, and say what its number is worth.

    Each step is a call of a public function, in a run folder of its own under `out`; ``out/figures`` holds
    every figure of the paper, ``out/report.html`` all of it on one page. Features come from the cache, as does every
    answer of the comparison: the same call again computes none.

    Parameters
    ----------
    data
        A folder or a CSV file; a split of its own is not used.
    backbones
        The seven networks of the paper, or others; those beyond the seven are extra members.
    weights
        As for `featstore.extract`. A network whose ImageNet weights cannot be had is left out and listed as absent.
    precision
        As for `featstore.extract`.
    out, overwrite
        Folder of the run. The same call goes on in it; another one needs `overwrite`.
    images
        About so many images, as whole patients; all where None.
    views
        Augmented views of each training image: the paper drew new ones in every epoch.
    epochs
        Of each head.
    seed
        Of the sample of patients and of the splits.
    paper_split
        Whether the sides have the paper's proportions: 2,450 of 6,000 images to train, halves of the others to
        validate and to test. Without it a quarter is for testing, and 40 % of the others for validation.
    positive
        As for `featstore.compare`: the class that counts as infected.
    value_range, cache, memory
        As for `featstore.extract`.
    jobs
        As for `featstore.compare`.
    progress
        Show bars on stderr.
    **reading
        How the data set is read: see `featstore.images.scan.ScanOptions`.

    Raises
    ------
    WeightsError
        If no network has weights.
    AuditError
        If the data set would give a false answer, or is too small to be split.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> reproduction = featstore.paper(
    ...     data, backbones=["MobileNetV2"], weights={"MobileNetV2": "random:1"}, views=1, epochs=1,
    ...     cache="paper-cache", out="runs/paper", overwrite=True,
    ... )
    >>> len(reproduction.claims) > 0
    True
    """
    with runs.exclusive_access(Path(out)):
        folder = Path(out)
        protocol.require_some(backbones, weights or {})
        whole = scan(data, **reading)
        part = protocol.sample(whole.with_splits(None), images, seed)
        networks = protocol.find_networks(backbones, weights or {}, precision)
        settings = protocol.PaperSettings(
            backbones=[member.name for member in networks if member.is_here],
            epochs=epochs,
            positive=positive,
            views={"recipe": RECIPE, "seeds": range(1, views + 1)},
            source={
                "weights": protocol.choices(networks, weights or {}),
                "precision": precision,
                "value_range": value_range,
                "cache": cache,
            },
            memory=memory,
            jobs=jobs,
            progress=progress,
        )
        arguments = {
            "data_sha256": runs.data_digest(part.records),
            "networks": {member.name: member.digest for member in networks},
            "precision": precision,
            "images": images,
            "views": views,
            "epochs": epochs,
            "seed": seed,
            "positive": positive,
            **({"paper_split": True} if paper_split else {}),  # earlier runs do not have it
        }
        positive_class(part.classes, positive)  # refuses a class that does not exist
        _refuse_other(folder, arguments, overwrite=overwrite)
        with runs.exclusive_access(folder):
            _prepare(folder, arguments, overwrite=overwrite)
            audit = _audit(whole.only({record.id for record in part.files}), value_range)
            result = _reproduce(part, networks, settings, audit, arguments, folder)
            runs.write_run(folder, {"kind": "paper", "arguments": arguments}, result.to_json())
            write_report(
                folder, folder / REPORT_FILE, with_images=True
            )  # in the run folder, where the images are anyway
        return result


def _reproduce(
    part: Manifest,
    networks: Sequence[PaperNetwork],
    settings: protocol.PaperSettings,
    audit: Mapping[str, Any],
    arguments: Mapping[str, Any],
    folder: Path,
) -> Reproduction:
    """Do the steps in their order; all numbers come from the runs that they leave."""
    converted, part = convert(part, settings.source["value_range"])
    drawn: dict[str, Any] = {
        "seed": arguments["seed"],
        "paper_split": arguments.get("paper_split", False),
    }
    splits = {"by_image": protocol.split(part.by_image(), **drawn)}
    if part.has_groups:
        splits["by_patient"] = protocol.split(part, **drawn)
    for sides in splits.values():
        protocol.require_every_class(sides)
    extractions = [
        protocol.compute_features(part, settings, features, folder / unit / "extract")
        for unit, features in (("by_image", settings.paper_source), ("by_patient", settings.own_source))
    ]
    fits = {
        unit: protocol.fit_paper(sides, settings, folder / unit, singles=unit == "by_image")
        for unit, sides in splits.items()
    }
    honest = protocol.compare_on_folds(part, settings, folder / "by_patient" / "compare")
    torn = protocol.leak(part, splits["by_image"])
    laid = protocol.claims(fits["by_image"], fits.get("by_patient"), honest)
    runs.clear(folder)
    return Reproduction(
        run=str(folder),
        arguments=arguments,
        conversion=converted,
        audit=audit,
        networks=tuple(networks),
        splits={unit: protocol.split_counts(sides) for unit, sides in splits.items()},
        leak=torn,
        majority_baseline=protocol.majority_baseline(protocol.split_counts(splits["by_image"])),
        heads={name: fit.scores["test"][protocol.METRIC] for name, fit in fits["by_image"].heads.items()},
        fusions={
            unit: {step: fit.scores["test"][protocol.METRIC] for step, fit in mine.fusions.items()}
            for unit, mine in fits.items()
        },
        hit_probability={
            unit: shares
            for unit, mine in fits.items()
            if (shares := protocol.hit_probability(mine, folder / unit))
        },
        claims=laid,
        reasons=protocol.reasons(laid, torn, networks, fits["by_image"], honest, audit),
        computed=sum(extraction.computed for extraction in extractions),
        stored=sum(extraction.stored for extraction in extractions),
        figures=draw_all(
            SampleImages.of(splits["by_image"], settings), networks, fits["by_image"], folder / runs.FIGURES
        ),
        steps={step: what for step, what in protocol.STEPS.items() if (folder / step).exists()},
    )


def _audit(whole: Manifest, value_range: tuple[float, ...] | None) -> dict[str, Any]:
    """What `featstore.check` says, without the examples, which name files."""
    found = check(whole, value_range=value_range)
    return {
        "no_error_found": found.no_error_found,
        "findings": {finding.title: finding.message for finding in found.findings},
        "shortcuts": {n: score.value for n, score in found.shortcuts.items() if score.value is not None},
    }


def _prepare(folder: Path, arguments: Mapping[str, Any], *, overwrite: bool) -> None:
    """Make the folders, if the run may be written here: going on where a killed one was, or repeating the same."""
    _refuse_other(folder, arguments, overwrite=overwrite)
    for part in ("", "by_image", "by_image/heads", "by_patient", runs.FIGURES):
        (folder / part).mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)


def _refuse_other(folder: Path, arguments: Mapping[str, Any], *, overwrite: bool) -> None:
    if not (folder / runs.RUN).exists():
        strange = sorted(path.name for path in folder.glob("*") if path.name not in PARTS)
        if strange:
            raise UsageError(
                f"{folder} holds files that are no run: {strange[0]}.", "Choose another folder with --out."
            )
        return
    earlier = runs.read_run(folder)
    if not overwrite and (earlier.get("kind"), earlier.get("arguments")) != ("paper", arguments):
        raise UsageError(f"{folder} holds another run already.", "Choose another --out, or add --overwrite.")


# Formats of the data set, and what the decoder makes of them

NEEDS_RANGE = "needs_range"


def convert(manifest: Manifest, value_range: tuple[float, ...] | None) -> tuple[Conversion, Manifest]:
    """Decode every image once and count; nothing is written, since features are made from the files as they are.

    Returns
    -------
    What was met, and the data set without what does not decode: so the sides of a split are drawn, and a leak is
    counted, among images that take part. Deep images without a declared range stay, for `extract` to refuse.

    Raises
    ------
    AuditError
        If one class is left, or none.
    """
    formats: Counter[str] = Counter()
    channels: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    unread = Counter(row.reason for row in manifest.unreadable)
    lost: dict[str, str] = {}
    sides: list[int] = []
    taken = set()
    for record in manifest.records:
        try:
            file = FILE_CACHE.file(record.path)
            pixels, said = decode(file.data, record.frame, value_range, file.index)
        except OSError:
            unread["missing"] += 1
            lost[record.id] = "missing"
        except BadImageError as error:
            unread[error.reason] += 1
            if error.reason == NEEDS_RANGE:
                taken.add(record.id)
            else:
                lost[record.id] = error.reason
        else:
            formats[identify(file.data[:HEAD])] += 1
            channels["grey" if pixels.shape[2] == 1 else "colour"] += 1
            notes.update(said)
            sides += pixels.shape[:2]
            taken.add(record.id)
    require_two_classes(manifest, lost)
    found = Conversion(
        formats=_sorted(formats),
        channels=_sorted(channels),
        notes=_sorted(notes),
        unread=_sorted(unread),
        smallest=min(sides, default=0),
        largest=max(sides, default=0),
    )
    return found, manifest.only(taken)


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


# Figures

FIRST_CURVE, FIRST_FUSED = 8, 22
WITH_IMAGES = frozenset({1, 2, 5, 6})
HISTORY = ("loss", "accuracy", "val_loss", "val_accuracy")


@dataclass(frozen=True, slots=True, eq=False)
class DrawnFigure:
    """A picture with its place in the paper and its caption."""

    number: int | None
    slug: str
    picture: Picture
    caption: str


def draw_all(
    samples: SampleImages, networks: Sequence[PaperNetwork], fits: protocol.Fits, folder: Path
) -> tuple[SavedFigure, ...]:
    """Draw and save every figure; the numbered ones come first.

    Parameters
    ----------
    samples
        Images to show.
    networks
        Everyone who was asked for; a network of the paper that was not asked for counts as absent.
    fits
        The paper's models on the split by image.
    folder
        Where to write ``figure-NN-<slug>.svg`` and, for what the paper has no number for, ``extra-NN-<slug>.svg``.
    """
    drawn = [
        *_samples(samples),
        *_data(samples),
        *_models(networks, fits, samples.manifest.classes),
        *_curves(networks, fits),
        *_fused(networks, fits),
    ]
    extras = iter(range(1, len(drawn) + 1))
    ordered = sorted(drawn, key=lambda one: (one.number is None, one.number or 0))
    return tuple(_save(one, f"{one.number or next(extras):02d}", folder) for one in ordered)


def _save(drawn: DrawnFigure, number: str, folder: Path) -> SavedFigure:
    prefix = "extra" if drawn.number is None else "figure"
    picture = replace(drawn.picture, name=f"{prefix}-{number}-{drawn.slug}")
    path = picture.save(folder)
    return SavedFigure(
        number=drawn.number,
        file=f"{FIGURES}/{path.name}",
        title=picture.title,
        alt=picture.alt,
        caption=drawn.caption,
        shows_images=drawn.number in WITH_IMAGES,
    )


def _samples(samples: SampleImages) -> Iterator[DrawnFigure]:
    shown = [one for ones in samples.by_class.values() for one in ones]
    labels = [one.label for one in shown]
    before = figures.image_grid(
        [one.plain for one in shown], labels, name="before", title="Before augmentation"
    )
    after = figures.image_grid(
        [one.augmented for one in shown], labels, name="after", title="After augmentation"
    )
    yield DrawnFigure(
        1,
        "before-augmentation",
        before,
        "Images of each class before augmentation, scaled to one size. This data set's images, not the paper's.",
    )
    yield DrawnFigure(
        2,
        "after-augmentation",
        after,
        "The same images in the first augmented view. The paper names the operations and leaves shear, rotation,"
        " zoom and fill open: ours are those of `featstore recipes`. Its generator draws a new view in every epoch;"
        " here there is a fixed number of views, the same for every network.",
    )
    for number, label, what in ((5, samples.normal, "normal"), (6, samples.infected, "infected")):
        ones = samples.by_class[label][:1]
        if ones:
            yield DrawnFigure(
                number,
                f"processed-{what}",
                figures.image_grid(
                    [ones[0].original, ones[0].processed],
                    ["as decoded", "as processed"],
                    name=what,
                    title=f"A processed image of the class {label}",
                ),
                f"An image of the class {label}, here taken to be the {what} one: as decoded, and scaled to 299 x 299"
                " as most of the networks take it. Aspect ratio is not kept, nor was it by the paper's target size.",
            )


def _data(samples: SampleImages) -> Iterator[DrawnFigure]:
    yield DrawnFigure(
        4,
        "distribution",
        figures.distribution(protocol.split_counts(samples.manifest)),
        f"Images by side of the split and class: {samples.infected} is the paper's pne, all else its nor. Split by"
        f" image as in the paper, {100 * protocol.TEST_SHARE:.0f} % for testing (the paper's share is not known here)"
        f" and {100 * protocol.VALIDATION_SHARE:.0f} % of the others for validation.",
    )


def _models(
    networks: Sequence[PaperNetwork], fits: protocol.Fits, classes: Sequence[str]
) -> Iterator[DrawnFigure]:
    inputs = {_boxed(network): network.input_size for network in networks}
    here = {_boxed(network): network.dimension for network in networks if network.is_here}
    seven = {_boxed(network): network.dimension for network in networks if network.in_paper} or here
    rate = fits.head.options.get("dropout", 0.5)
    head = f"dropout {rate:g}, sigmoid" if len(classes) == 2 else f"dropout {rate:g}, softmax"  # noqa: PLR2004
    yield DrawnFigure(
        3,
        "model-fusion",
        figures.fusion_diagram(seven, head, classes, inputs=inputs, title="Model fusion"),
        "Model fusion as the paper plans it: the pooled vectors of its networks side by side, true in length."
        f"{_aside(networks)}",
    )
    yield DrawnFigure(
        7,
        "fusion-network",
        figures.fusion_diagram(here, head, classes, inputs=inputs, title="The fusion network of this run"),
        "The fusion network as it was trained in this run, of the networks that took part. The paper leaves the rate"
        f" of dropout open; ours is {rate:g}.{_aside(networks)}",
    )


def _curves(networks: Sequence[PaperNetwork], fits: protocol.Fits) -> Iterator[DrawnFigure]:
    """Accuracy and loss of each network's own head: two numbers each for the seven, the others without."""
    by_name = {network.name: network for network in networks}
    for at, name in enumerate(protocol.BY_FIGURE):
        mark = by_name[name].mark if name in by_name else "not asked for"
        yield from _pair(FIRST_CURVE + 2 * at, name, mark, _history(fits, name))
    for network in networks:
        if not network.in_paper and network.is_here:
            yield from _pair(None, network.name, network.mark, _history(fits, network.name))


def _fused(networks: Sequence[PaperNetwork], fits: protocol.Fits) -> Iterator[DrawnFigure]:
    name = f"Fusion of {sum(network.is_here for network in networks)} networks"
    drawn = sum(network.weights == "random" for network in networks)
    mark = f"{drawn} with random weights" if drawn else ""
    yield from _pair(FIRST_FUSED, name, mark, dict(fits.head.history or _none()))


def _pair(
    number: int | None, name: str, mark: str, history: Mapping[str, Sequence[float]]
) -> Iterator[DrawnFigure]:
    """Accuracy, then loss; the mark stands in the file name too, since the drawing has no title of its own."""
    label = f"{name} ({mark})" if mark else name
    for step, (what, draw) in enumerate(
        (("accuracy", figures.accuracy_curves), ("loss", figures.loss_curves))
    ):
        slug = "-".join(f"{name} {mark} {what}".lower().split())
        yield DrawnFigure(
            None if number is None else number + step,
            slug,
            draw(history, name=slug, title=f"{label}: {what} by epoch"),
            f"{label}: {what} by epoch, of a head on the frozen network. Training with dropout on plain and augmented"
            " views, validation on plain images. The network itself stays frozen.",
        )


def _boxed(network: PaperNetwork) -> str:
    """Name in a box, which cuts what is long: so a mark comes first."""
    return f"{network.weights}: {network.name}" if network.mark else network.name


def _history(fits: protocol.Fits, name: str) -> dict[str, Sequence[float]]:
    fit = fits.heads.get(name)
    return dict(fit.history) if fit is not None and fit.history else _none()


def _none() -> dict[str, Sequence[float]]:
    return dict.fromkeys(HISTORY, ())


def _aside(networks: Sequence[PaperNetwork]) -> str:
    absent = [network.name for network in networks if not network.is_here]
    drawn = [network.name for network in networks if network.weights == "random"]
    parts = [f" Weights absent: {', '.join(absent)}."] if absent else []
    parts += [f" Random weights: {', '.join(drawn)}."] if drawn else []
    return "".join(parts)


# Sample images for the figures, as the paper's steps see them

EACH = 4
"""Images of a class in a grid."""
SMALL, LARGE = 160, 299
"""Side in a grid and on its own, pixels; 299 is what most of the seven networks take."""


@dataclass(frozen=True, slots=True, eq=False)
class SampleImage:
    """One image of the data set.

    Attributes
    ----------
    label
        Its class.
    original
        ``(h, w)`` or ``(h, w, 3)`` uint8, as decoded.
    plain, augmented
        Of side `SMALL`, without and with the first augmented view.
    """

    label: str
    original: Pixels
    plain: Pixels
    augmented: Pixels

    @property
    def processed(self) -> Pixels:
        """What a network of side `LARGE` is given, before it is divided by 255."""
        return _flat(resize(np.atleast_3d(self.original), LARGE))


@dataclass(frozen=True, slots=True, eq=False)
class SampleImages:
    """A few images of each class.

    Attributes
    ----------
    manifest
        The split by image.
    by_class
        The images, up to `EACH` of a class, first those that are trained on.
    normal, infected
        The class that is taken to be well, and the one that sensitivity is about.
    """

    manifest: Manifest
    by_class: dict[str, list[SampleImage]]
    normal: str
    infected: str

    @classmethod
    def of(cls, manifest: Manifest, settings: protocol.PaperSettings) -> Self:
        """Pick the images whose ids come first, so that the same data set always shows the same ones."""
        view = View(str(parse_recipe(settings.views["recipe"])), min(settings.views["seeds"], default=0))
        decoding = Decoding(decoder_version(), value_range=settings.source["value_range"])
        ordered = sorted(manifest.records, key=lambda record: (record.split != "train", record.id))
        by_class = {
            label: _first([record for record in ordered if record.label == label], decoding, view)
            for label in manifest.classes
        }
        place = positive_class(manifest.classes, settings.positive).index
        infected = manifest.classes[-1 if place is None else place]
        normal = next(label for label in manifest.classes if label != infected)
        return cls(manifest, by_class, normal, infected)


def _first(records: Sequence[ImageRecord], decoding: Decoding, view: View) -> list[SampleImage]:
    found: list[SampleImage] = []
    for record in records:
        if len(found) == EACH:
            break
        try:
            pixels = read_pixels(record, decoding)
        except BadImageError:
            continue
        small = resize(pixels, SMALL)
        seen = np.rint(view_pixels(small, view, record.id)).astype(np.uint8)
        found.append(SampleImage(record.label, _flat(pixels), _flat(small), _flat(seen)))
    return found


def _flat(pixels: Pixels) -> Pixels:
    """``(h, w)`` for grey."""
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels
