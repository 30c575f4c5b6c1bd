"""Figures of the paper, by their numbers, drawn by the plotting functions that every run uses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from featstore.errors import BadImageError
from featstore.evaluation.metrics import positive_class
from featstore.extraction.pipeline import view_pixels
from featstore.images.augment import resize
from featstore.images.reading import decoder_version, read_pixels
from featstore.images.recipe import parse_recipe
from featstore.reporting import figures
from featstore.reproduction import protocol
from featstore.results.paper import PaperNetwork, SavedFigure
from featstore.runs import FIGURES
from featstore.types import Decoding, ImageRecord, View

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from featstore.images.manifest import Manifest
    from featstore.reporting.figures.style import Picture
    from featstore.types import Pixels


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
