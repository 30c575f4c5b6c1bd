"""Figures of the data: flow of the images, distribution, augmentations, confusion matrix, map of the vectors."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.errors import UsageError, did_you_mean
from featstore.reporting.figures import style
from featstore.tables import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    Image = NDArray[np.uint8]
    Vector = NDArray[np.float64]

# Images by split and class (Fig. 4 of Ji et al. 2020)

ROW = 0.22
"""Inches from bar to bar; a split begins one bar further down."""


def distribution(
    counts: Mapping[str, Mapping[str, int]],
    *,
    name: str = "distribution",
    title: str = "Images by split and class",
) -> style.Picture:
    """A bar for each class in each split.

    Parameters
    ----------
    counts
        By split, by class: number of images.
    name, title
        Of the picture.
    """
    if not any(sum(classes.values()) for classes in counts.values()):
        return style.blank(name, title, "The data set has no images.")
    return _drawn(counts, name, title)


@style.drawing
def _drawn(counts: Mapping[str, Mapping[str, int]], name: str, title: str) -> style.Picture:
    every = list(dict.fromkeys(label for classes in counts.values() for label in classes))
    colours = {label: style.PALETTE[at % len(style.PALETTE)] for at, label in enumerate(every)}
    shown = dict(zip(every, style.distinct(every, 1.2, 8), strict=True))
    rows = sum(len(classes) + 1 for classes in counts.values())
    figure, axes = style.canvas(ROW * rows, 2.9)
    row, ticks, names = 0.0, [], []
    for split, classes in counts.items():
        head = f"{style.fitted(split, 2.0)}: {sum(classes.values())}"
        axes.annotate(
            head, (0, row + 0.1), xytext=(4, 0), textcoords="offset points", weight="bold", va="center"
        )
        for label, count in classes.items():
            row += 1
            axes.barh(row, count, height=0.78, color=colours[label])
            axes.annotate(
                str(count), (count, row), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8
            )
            ticks.append(row)
            names.append(shown[label])
        row += 1
    axes.set_yticks(ticks, names, fontsize=8)
    axes.set_ylim(row - 0.4, -0.6)
    axes.set_xlim(0, 1.12 * max(max(classes.values(), default=0) for classes in counts.values()))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=5, integer=True)
    axes.set_xlabel("Number of images")
    said = "; ".join(
        f"{printable(split)} {', '.join(f'{printable(c)} {n}' for c, n in classes.items())}"
        for split, classes in counts.items()
    )
    return style.Picture(name, title, f"{title}: {said}.", figure)


# Flow of the images: found, set aside and why, used (as STARD 2015 and CLAIM 2024 ask)

LINE, PAD = 0.145, 0.13
"""Inches of a line of text, and of the room above and below all lines of a box."""
BETWEEN = 0.3
"""Inches from box to box below it: room for an arrow."""
BOXES = 3
"""Boxes side by side, at most."""
FLOW_WIDTH = 5.2
NAMED_PARTS = 8
"""Parts that are told in words."""


def flow_diagram(
    found: int,
    set_aside: Mapping[str, int],
    parts: Mapping[str, Sequence[str]],
    *,
    patients: int | None = None,
    name: str = "flow",
    title: str = "Flow of the images",
) -> style.Picture:
    """Images found, set aside and why, and used, with the parts that they were used in.

    Parameters
    ----------
    found
        Images that there were.
    set_aside
        By reason: images that were not used.
    parts
        By class or split: what to say of it, a line each.
    patients
        Of the images used; None where no patients are named.
    name, title
        Of the picture.

    References
    ----------
    Bossuyt et al., STARD 2015: an updated list of essential items for reporting diagnostic accuracy studies, BMJ 351,
    2015, item 19.
    """
    if not found:
        return style.blank(name, title, "The data set has no images.")
    return _drawn_flow(found, set_aside, parts, patients, name, title)


@style.drawing
def _drawn_flow(
    found: int,
    set_aside: Mapping[str, int],
    parts: Mapping[str, Sequence[str]],
    patients: int | None,
    name: str,
    title: str,
) -> style.Picture:
    aside = sum(set_aside.values())
    of_patients = "" if patients is None else f" of {patients:,} patients"
    middle, half = 0.3 * FLOW_WIDTH, 1.55
    reasons = [f"{reason}: {count:,}" for reason, count in set_aside.items() if count]
    boxes = [(label, *lines) for label, lines in parts.items()]
    rows = [boxes[at : at + BOXES] for at in range(0, len(boxes), BOXES)]
    side_height = _box_height([""] * (1 + len(reasons)))
    heights = [_box_height(max(row, key=len)) for row in rows]
    gap = max(BETWEEN * 2, side_height + 0.16)
    total = _box_height([""]) * 2 + gap + sum(BETWEEN + height for height in heights)
    figure, axes = style.canvas(total, FLOW_WIDTH)
    axes.set(xlim=(0, FLOW_WIDTH), ylim=(0, total))
    axes.axis("off")
    top = total - _box_height([""])
    _flow_box(axes, middle, top, half * 2, [f"Images found: {found:,}"])
    used = top - gap - _box_height([""])
    _flow_arrow(axes, (middle, top), (middle, used + _box_height([""])))
    level, left = top - gap / 2, 0.58 * FLOW_WIDTH
    _flow_arrow(axes, (middle, level), (left, level))
    side = (left + FLOW_WIDTH) / 2
    _flow_box(
        axes, side, level - side_height / 2, FLOW_WIDTH - left, [f"Set aside: {aside:,}", *reasons], bold=True
    )
    _flow_box(axes, middle, used, half * 2, [f"Images used: {found - aside:,}{of_patients}"])
    bottom = used
    for at, (row, height) in enumerate(zip(rows, heights, strict=True)):
        width = (FLOW_WIDTH - 0.15 * (BOXES - 1)) / BOXES
        bottom -= BETWEEN + height
        for column, lines in enumerate(row):
            centre = width / 2 + column * (width + 0.15)
            _flow_box(axes, centre, bottom, width, lines, bold=True, height=height)
            if at == 0:
                _flow_arrow(axes, (middle, used), (centre, bottom + height))
    told = "; ".join(
        f"{printable(box[0])} {', '.join(map(printable, box[1:]))}" for box in boxes[:NAMED_PARTS]
    )
    more = f"; {len(boxes) - NAMED_PARTS} more" if len(boxes) > NAMED_PARTS else ""
    why = f" ({', '.join(map(printable, reasons))})" if reasons else ""
    alt = f"{found:,} images found, {aside:,} set aside{why}, {found - aside:,} used{of_patients}: {told}{more}."
    return style.Picture(name, title, alt, figure)


def _box_height(lines: Sequence[str]) -> float:
    return LINE * len(lines) + PAD


def _flow_box(
    axes: Axes,
    centre: float,
    bottom: float,
    width: float,
    lines: Sequence[str],
    *,
    bold: bool = False,
    height: float | None = None,
) -> None:
    """A box with lines of text; with `bold` the first is its head."""
    from matplotlib.patches import Rectangle

    height = height or _box_height(lines)
    axes.add_patch(
        Rectangle(
            (centre - width / 2, bottom),
            width,
            height,
            facecolor="none",
            edgecolor=style.INK,
            linewidth=0.9,
            clip_on=False,
        )
    )
    for at, line in enumerate(lines):
        axes.text(
            centre,
            bottom + height - PAD / 2 - LINE * (at + 0.5),
            style.fitted(line, width - 0.16, 8.5),
            ha="center",
            va="center",
            fontsize=8.5,
            weight="bold" if bold and at == 0 else "normal",
        )


def _flow_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate(
        "",
        end,
        start,
        annotation_clip=False,
        arrowprops={"arrowstyle": "-|>", "color": style.INK, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0},
    )


# Images, and one image under augmentation (Fig. 1, 2, 5, 6 of Ji et al. 2020)

ACROSS = 4
"""Images side by side, at most."""
GRID_GAP, CAPTION = 0.08, 0.2
SHARPNESS = 150
"""Pixels per inch that are kept: what a phone shows, and small enough for a page with many."""
RGB = 3


def image_grid(images: Sequence[Image], captions: Sequence[str], *, name: str, title: str) -> style.Picture:
    """Images with a caption under each.

    Parameters
    ----------
    images
        uint8, each ``(h, w)``, ``(h, w, 1)`` or ``(h, w, 3)``; large ones are shrunk to what can be seen.
    captions
        One for each.
    name, title
        Of the picture.

    Raises
    ------
    UsageError
        If an image is something else, or captions are missing.
    """
    if len(images) != len(captions):
        raise UsageError(f"{len(images)} images have {len(captions)} captions.", "Give one for each.")
    if not len(images):
        return style.blank(name, title, "There are no images to show.")
    across = _across(len(images))
    pixels = round(SHARPNESS * _side(across))
    return _drawn_samples([_small(image, pixels) for image in images], captions, across, name, title)


def augmentation_grid(
    original: Image,
    views: Mapping[str, Image],
    *,
    name: str = "augmentation",
    title: str = "Before and after augmentation",
) -> style.Picture:
    """An image beside its augmented views.

    Parameters
    ----------
    original
        As for `image_grid`.
    views
        By what was done: the same image afterwards.
    name, title
        Of the picture.

    Raises
    ------
    UsageError
        As for `image_grid`.
    """
    return image_grid([original, *views.values()], ["original", *views], name=name, title=title)


def _across(count: int) -> int:
    """Images in a row: as many as leave the fewest holes."""
    if count <= ACROSS:
        return 3 if count == ACROSS - 1 else 2
    return min((4, 3), key=lambda columns: -count % columns)


def _side(across: int) -> float:
    return (style.WIDTH - GRID_GAP * (across - 1)) / across


def _small(image: Image, most: int) -> Image:
    pixels = np.asarray(image)
    if pixels.ndim == RGB and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    grey = pixels.ndim == RGB - 1
    if pixels.dtype != np.uint8 or not pixels.size or not (grey or pixels.shape[2:] == (RGB,)):
        raise UsageError(
            f"A picture of {pixels.dtype} in shape {pixels.shape} cannot be shown.",
            "Give uint8 in shape (h, w) or (h, w, 3).",
        )
    from PIL import Image as Pillow

    small = Pillow.fromarray(pixels)
    small.thumbnail((most, most), Pillow.Resampling.LANCZOS)
    # Three channels: a grey colour map would round.
    return np.array(small.convert("RGB"))


@style.drawing
def _drawn_samples(
    images: Sequence[Image], captions: Sequence[str], columns: int, name: str, title: str
) -> style.Picture:
    from matplotlib.figure import Figure

    rows = math.ceil(len(images) / columns)
    side = _side(columns)
    width, height = side * columns + GRID_GAP * (columns - 1), rows * (side + CAPTION)
    figure = Figure(figsize=(width, height))
    for at, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(at, columns)
        left, bottom = column * (side + GRID_GAP), height - row * (side + CAPTION) - side
        axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
        axes.imshow(image, interpolation="none")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=style.GREY, linewidth=0.5)
        axes.set_xlabel(style.fitted(caption, side, 7.5), fontsize=7.5, labelpad=2)
    return style.Picture(
        name, title, f"{title}, {len(images)} images: {style.joined_names(captions, 12)}.", figure
    )


# Confusion matrix: what was answered for which class

SIDE = 3.6
FEW = 6
"""Classes whose cells have room for a share beside the count."""
DIGIT = 0.64
"""Width of a figure, in font sizes."""


def confusion(
    counts: ArrayLike,
    classes: Sequence[str],
    *,
    name: str = "confusion",
    title: str = "Answers by true class",
    unit: str = "images",
) -> style.Picture:
    """Confusion matrix: a row per true class, a column per answer.

    Parameters
    ----------
    counts
        ``(c, c)`` whole numbers, ``counts[true, answered]`` images.
    classes
        The ``c`` names.
    name, title
        Of the picture.
    unit
        What was answered: images or patients.

    Raises
    ------
    UsageError
        If the table is not square, or has not a row per class.
    """
    table = np.asarray(counts)
    if table.shape != (len(classes), len(classes)):
        raise UsageError(
            f"A table of shape {table.shape} does not fit {len(classes)} classes.",
            "Give a row and a column per class.",
        )
    if not table.sum():
        return style.blank(name, title, "No image was answered, so there is nothing to count.")
    return _confusion(table, classes, name, title, unit)


@style.drawing
def _confusion(
    table: NDArray[Any], classes: Sequence[str], name: str, title: str, unit: str
) -> style.Picture:
    count = len(classes)
    figure, axes = style.canvas(SIDE * min(1.0, 0.55 + count / 10), SIDE)
    rows = table.sum(axis=1, keepdims=True)
    share = np.divide(table, rows, out=np.zeros(table.shape), where=rows > 0)
    axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5))
    axes.grid(visible=False)
    cell = SIDE / count
    longest = max(4 if count <= FEW else 0, len(str(table.max())))
    size = min(10.0, style.POINTS * 0.8 * cell / (DIGIT * longest))
    for true, answered in np.ndindex(count, count):
        part = float(share[true, answered])
        colour = style.PALETTE[0] if true == answered else style.PALETTE[1]
        axes.fill_between(
            [answered - 0.48, answered + 0.48],
            true - 0.48,
            true + 0.48,
            color=colour,
            alpha=0.04 + 0.66 * part,
            lw=0,
        )
        percent = f"\n{100 * part:.0f} %" if count <= FEW else ""
        axes.text(
            answered,
            true,
            f"{table[true, answered]}{percent}",
            ha="center",
            va="center",
            fontsize=size,
            color=style.INK,
        )
    left = _class_ticks(axes, classes, cell)
    style.below(
        axes, "Shares are of the true class, row by row; blue is right, orange wrong.", drop=0.1, left=left
    )
    right = ", ".join(
        f"{int(table[c, c])} of {int(rows[c, 0])} {printable(label)}"
        for c, label in enumerate(classes[: style.SHOWN])
    )
    more = f", and {count - style.SHOWN} more classes" if count > style.SHOWN else ""
    total = f"{int(np.trace(table))} of {int(table.sum())} {unit}"
    return style.Picture(name, title, f"Confusion matrix: {total} answered right ({right}{more}).", figure)


def _class_ticks(axes: Axes, classes: Sequence[str], cell: float) -> float:
    """Class names beside the rows and above the columns, slanted where they would touch; inches that they take."""
    beside = style.distinct(classes, 1.1)
    level = all(style.fitted(label, cell - 0.1) == label for label in beside)
    slant: dict[str, Any] = {} if level else {"rotation": 45, "ha": "left", "rotation_mode": "anchor"}
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xticks(range(len(classes)), beside, **slant)
    axes.set_yticks(range(len(classes)), beside)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="Predicted class", ylabel="True class")
    return max(map(style.wide, beside)) + 0.3


# Map of the vectors in two dimensions

NAMED_VALUES = 6
"""Values that get a colour; the rest are grey."""
HEIGHT, MAP_GAP = 3.0, 1.42
FEWEST = 3
COMPONENTS = 50
"""Principal components that t-SNE and UMAP start from, as van der Maaten & Hinton (2008) did with 30."""
DOTS = 1500
"""Images from which the dots become a bitmap: a page with 20,000 circles is slow."""
LAYERS = 8
NAMES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
CAUTION = {
    "pca": "Principal components of the standardised vectors.",
    "tsne": "t-SNE keeps neighbours, not distances: gaps, sizes and densities of clouds mean nothing.",
    "umap": "UMAP keeps neighbours, not distances: gaps, sizes and densities of clouds mean little.",
}


def embedding_map(
    X: ArrayLike,
    colours: Mapping[str, Sequence[str]],
    method: str = "pca",
    *,
    seed: int = 0,
    name: str | None = None,
    title: str | None = None,
) -> style.Picture:
    """Vectors as points in the plane, one panel per colouring.

    Parameters
    ----------
    X
        ``(n, d)`` vectors, one per image.
    colours
        By what it is (label, group, site): ``(n,)`` values. The six most frequent get a colour.
    method
        ``pca``, ``tsne`` (scikit-learn) or ``umap`` (the extra `umap`).
    seed
        Of t-SNE and UMAP.
    name, title
        Of the picture.

    Raises
    ------
    UsageError
        If there is no such method, it is not installed, or lengths differ.

    References
    ----------
    van der Maaten & Hinton, Visualizing data using t-SNE, JMLR 9, 2008; McInnes, Healy & Melville, UMAP, 2018.
    """
    if method not in NAMES:
        raise UsageError(f"There is no map {method!r}.", did_you_mean(method, NAMES))
    name, title = name or f"map-{method}", title or f"The images by their vectors ({NAMES[method]})"
    vectors = np.asarray(X, float)
    if any(len(values) != len(vectors) for values in colours.values()):
        raise UsageError("Vectors and colours differ in length.", "Give one value for each image.")
    if len(vectors) < FEWEST or not colours:
        return style.blank(
            name,
            title,
            f"A map needs {FEWEST} images and a colouring; here are {len(vectors)} and {len(colours)}.",
        )
    return _drawn_map(*project(vectors, method, seed), colours, method, name, title)


def project(X: Vector, method: str, seed: int = 0) -> tuple[Vector, str]:
    """Places ``(n, 2)`` of standardised vectors ``(n, d)``, and what the axes are called.

    Raises
    ------
    UsageError
        If the method is not installed.
    """
    spread = X.std(axis=0)
    scaled = (X - X.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    parts, share = _components(scaled)
    if method == "pca":
        across, up = (f"Component {at + 1} ({100 * share[at]:.0f} % of the variance)" for at in range(2))
        return parts[:, :2], f"{across}|{up}"
    return (_tsne if method == "tsne" else _umap)(parts, seed), "|"


def _components(X: Vector) -> tuple[Vector, Vector]:
    """Principal components ``(n, k)`` of centred vectors, largest first, and their shares of the variance ``(k,)``.

    By the smaller of the two square products: thousands of columns are no reason to wait. At least two are returned,
    of zeros where there are none.
    """
    from scipy.linalg import eigh

    is_wide = X.shape[1] > len(X)
    product = X @ X.T if is_wide else X.T @ X
    count = min(COMPONENTS, len(product))
    values, vectors = eigh(product, subset_by_index=(len(product) - count, len(product) - 1))
    sizes = values[::-1].clip(0.0)
    parts = vectors[:, ::-1] * np.sqrt(sizes) if is_wide else X @ vectors[:, ::-1]
    # The sign of a component is arbitrary: its largest value is made positive.
    parts *= np.where(parts[np.abs(parts).argmax(axis=0), np.arange(count)] < 0, -1.0, 1.0)
    missing = max(0, 2 - count)
    share = sizes / max(float(np.trace(product)), 1e-300)
    return np.pad(parts, ((0, 0), (0, missing))), np.pad(share, (0, missing))


def _tsne(X: Vector, seed: int) -> Vector:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, max(1.0, (len(X) - 1) / 3))
    # One thread: sums in another order would end in another map.
    with threadpool_limits(1):
        start = X[:, :2] / max(float(X[:, 0].std()), 1e-12) * 1e-4
        places: Vector = TSNE(2, perplexity=perplexity, init=start, random_state=seed).fit_transform(X)
    return places


def _umap(X: Vector, seed: int) -> Vector:
    try:
        import umap
    except ImportError as error:
        raise UsageError(
            "UMAP is not installed.", "pip install 'featstore[umap]', or use tsne or pca."
        ) from error
    neighbours = min(15, len(X) - 1)
    places: Vector = umap.UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1, init="pca").fit_transform(
        X
    )
    return places


@style.drawing
def _drawn_map(
    places: Vector, axes_names: str, colours: Mapping[str, Sequence[str]], method: str, name: str, title: str
) -> style.Picture:
    figure, rows = style.panels([HEIGHT] * len(colours), MAP_GAP if method == "pca" else MAP_GAP - 0.4)
    said = []
    for axes, (what, values) in zip(rows, colours.items(), strict=True):
        count = Counter(map(str, values))
        _panel(axes, places, np.array(list(map(str, values))), count)
        axes.set_title(f"by {printable(what)}", loc="left")
        across, up = axes_names.split("|")
        axes.set(xlabel=across, ylabel=up)
        if method != "pca":
            axes.set(xticks=[], yticks=[])
        style.below(
            axes,
            _note(count, CAUTION[method] if axes is rows[-1] else ""),
            drop=0.5 if across else 0.1,
            columns=2,
        )
        top = ", ".join(f"{printable(value)} {number}" for value, number in count.most_common(NAMED_VALUES))
        more = f" and {len(count) - NAMED_VALUES} more" if len(count) > NAMED_VALUES else ""
        said.append(f"by {printable(what)}: {top}{more}")
    return style.Picture(
        name, title, f"{title}; {len(places)} images {'; '.join(said)}. {CAUTION[method]}", figure
    )


def _panel(axes: Axes, places: Vector, values: NDArray[np.str_], count: Counter[str]) -> None:
    top = [value for value, _ in count.most_common(NAMED_VALUES)]
    many = len(places) > DOTS
    dots: dict[str, Any] = {"s": 5 if many else 12, "linewidths": 0, "rasterized": many}
    rest = ~np.isin(values, top)
    axes.scatter(places[rest, 0], places[rest, 1], color=style.GREY, alpha=0.35, **dots)
    labels = style.distinct(top, 1.4, 8)
    # Layer by layer, so that the value drawn last does not hide the others.
    for layer, (at, value) in product(range(LAYERS), enumerate(top)):
        x, y = places[values == value][layer::LAYERS].T
        name = style.entry(f"{labels[at]} ({count[value]})") if layer == 0 else None
        axes.scatter(x, y, alpha=0.75, label=name, **style.mark(at), **dots)


def _note(count: Counter[str], caution: str) -> str:
    more = f"Grey: {len(count) - NAMED_VALUES} more. " if len(count) > NAMED_VALUES else ""
    return f"{more}{caution}".strip()
