"""Where the images lie: a map of their vectors in two dimensions."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.errors import UsageError, did_you_mean
from featstore.report.figures.canvas import below, blank, distinct, entry, mark, panels
from featstore.report.figures.picture import GREY, Picture, drawing
from featstore.report.plain import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    Vector = NDArray[np.float64]

SHOWN = 6
"""Values that get a colour; the rest are grey."""
HEIGHT, GAP = 3.0, 1.42
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
) -> Picture:
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
        return blank(
            name,
            title,
            f"A map needs {FEWEST} images and a colouring; here are {len(vectors)} and {len(colours)}.",
        )
    return _drawn(*project(vectors, method, seed), colours, method, name, title)


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
        across, up = (f"component {at + 1} ({100 * share[at]:.0f} % of the variance)" for at in range(2))
        return parts[:, :2], f"{across}|{up}"
    return (_tsne if method == "tsne" else _umap)(parts, seed), "|"


def _components(X: Vector) -> tuple[Vector, Vector]:
    """Principal components ``(n, k)`` of centred vectors, largest first, and their shares of the variance ``(k,)``.

    By the smaller of the two square products: thousands of columns are no reason to wait. At least two are returned,
    of zeros where there are none.
    """
    from scipy.linalg import eigh

    wide = X.shape[1] > len(X)
    product = X @ X.T if wide else X.T @ X
    count = min(COMPONENTS, len(product))
    values, vectors = eigh(product, subset_by_index=(len(product) - count, len(product) - 1))
    sizes = values[::-1].clip(0.0)
    parts = vectors[:, ::-1] * np.sqrt(sizes) if wide else X @ vectors[:, ::-1]
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


@drawing
def _drawn(
    places: Vector, axes_names: str, colours: Mapping[str, Sequence[str]], method: str, name: str, title: str
) -> Picture:
    figure, rows = panels([HEIGHT] * len(colours), GAP if method == "pca" else GAP - 0.4)
    said = []
    for axes, (what, values) in zip(rows, colours.items(), strict=True):
        count = Counter(map(str, values))
        _panel(axes, places, np.array(list(map(str, values))), count)
        axes.set_title(f"by {printable(what)}", loc="left")
        across, up = axes_names.split("|")
        axes.set(xlabel=across, ylabel=up)
        if method != "pca":
            axes.set(xticks=[], yticks=[])
        below(
            axes,
            _note(count, CAUTION[method] if axes is rows[-1] else ""),
            drop=0.5 if across else 0.1,
            columns=2,
        )
        top = ", ".join(f"{printable(value)} {number}" for value, number in count.most_common(SHOWN))
        more = f" and {len(count) - SHOWN} more" if len(count) > SHOWN else ""
        said.append(f"by {printable(what)}: {top}{more}")
    return Picture(name, title, f"{title}; {len(places)} images {'; '.join(said)}. {CAUTION[method]}", figure)


def _panel(axes: Axes, places: Vector, values: NDArray[np.str_], count: Counter[str]) -> None:
    top = [value for value, _ in count.most_common(SHOWN)]
    many = len(places) > DOTS
    dots: dict[str, Any] = {"s": 5 if many else 12, "linewidths": 0, "rasterized": many}
    rest = ~np.isin(values, top)
    axes.scatter(places[rest, 0], places[rest, 1], color=GREY, alpha=0.35, **dots)
    labels = distinct(top, 1.4, 8)
    # Layer by layer, so that the value drawn last does not hide the others.
    for layer, (at, value) in product(range(LAYERS), enumerate(top)):
        x, y = places[values == value][layer::LAYERS].T
        name = entry(f"{labels[at]} ({count[value]})") if layer == 0 else None
        axes.scatter(x, y, alpha=0.75, label=name, **mark(at), **dots)


def _note(count: Counter[str], caution: str) -> str:
    more = f"Grey: {len(count) - SHOWN} more. " if len(count) > SHOWN else ""
    return f"{more}{caution}".strip()
