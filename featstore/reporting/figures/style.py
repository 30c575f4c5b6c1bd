"""Style of all figures, and `Picture`: a drawn figure with its words, the same bytes every time.

All figures share axes of one width, names that fit, lines that differ in more than colour, and words below. A figure
is as wide as a phone held upright needs it; what is more goes below, not beside.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from functools import wraps
from string import ascii_uppercase
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, get_args

from featstore.serialization import write_private
from featstore.tables import interval_text, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

    Draw = ParamSpec("Draw")

Format = Literal["pdf", "png", "svg"]
FORMATS: tuple[Format, ...] = get_args(Format)
"""Files that a figure can be written as: two for print, one for the page and the screen."""

# A drawn figure with its words, and how it becomes the same bytes every time

INK = "#1b1e23"
"""Text and axes: `Picture.inline` lets the page choose this colour."""
PALETTE = ("#3f7fbf", "#d1783a", "#4f9d69", "#a868b5", "#c2504f", "#8a7a5c", "#3fa3a3")
"""Readable on white and on near-black; blue and orange, the first two, also to the colour-blind."""
GREY = "#808080"
"""Of what stands back: grids, chance, the many without a name."""
DOTS_PER_INCH = 160
"""Of the parts that are bitmaps, on a page."""
PRINT_DPI = 300
"""What journals ask of a bitmap."""
UNDATED: dict[str, dict[str, None]] = {
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "png": {"Software": None},
    "svg": {"Date": None},
}
"""What each format would say of the time and the library, left out: equal figures give equal bytes."""
STYLE = {
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9.0,
    "grid.alpha": 0.25,
    "grid.color": GREY,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType: a journal's layout can set the text anew
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "featstore",
    "text.color": INK,
    "text.parse_math": False,  # names of classes may hold dollars
    "xtick.color": INK,
    "ytick.color": INK,
}
SVG_HEAD = re.compile(r"\A.*?(?=<svg )", re.DOTALL)
METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
OPENING = re.compile(r"<svg [^>]*>")
TAG = re.compile(r"<[^>]*>")
REFERENCE = re.compile(r'(?<=\bid=")|(?<=url\(#)|(?<=href="#)')
LETTERS = ".*missing from font"
"""Of the warning that DejaVu lacks a letter: the text stays text, and the reader's own fonts have it."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A figure, and what to say to someone who cannot see it.

    Attributes
    ----------
    name
        File name without ending: lower case, digits, hyphens.
    title
        One line above it.
    alt
        What it shows, with its numbers, in one to three sentences.
    figure
        Drawn with `drawing`, never through pyplot, which keeps global state.
    is_empty
        Whether it only says why there is nothing to draw.
    """

    name: str
    title: str
    alt: str
    figure: Figure
    is_empty: bool = False

    def svg(self) -> str:
        """A document of its own, dark on white; equal figures give equal text."""
        words = f"<title>{_escaped(self.title)}</title>\n<desc>{_escaped(self.alt)}</desc>"
        head = f'<svg style="color:{INK};background:#fff" '
        return OPENING.sub(lambda tag: f"{tag[0]}\n{words}", self._markup(), count=1).replace(
            "<svg ", head, 1
        )

    def inline(self) -> str:
        """Return an ``<svg>`` element for a page: ink takes the page's colour, ids are its own, alt text inside."""
        bare = METADATA.sub("", SVG_HEAD.sub("", self._markup()))
        element = TAG.sub(self._own, bare)
        label = _escaped(self.alt)
        return element.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)

    def _repr_svg_(self) -> str:
        """What a notebook shows."""
        return self.svg()

    def document(self, kind: Format = "svg", dpi: int = PRINT_DPI) -> bytes:
        """A file of its own, dark on white; equal figures give equal bytes.

        Parameters
        ----------
        kind
            ``pdf`` and ``svg`` hold lines and text, ``png`` pixels.
        dpi
            Dots per inch of a PNG, and of those parts of a PDF that are bitmaps.
        """
        return self.svg().encode() if kind == "svg" else self._saved(kind, dpi, "white")

    def save(self, folder: Path, kind: Format = "svg", dpi: int = PRINT_DPI) -> Path:
        """Write ``<name>.<kind>`` into a folder, as of `document`, and return its path."""
        path = folder / f"{self.name}.{kind}"
        write_private(path, self.document(kind, dpi))
        return path

    def _own(self, tag: re.Match[str]) -> str:
        """One tag with ids of its own and the page's ink; text between tags is data and stays."""
        return REFERENCE.sub(f"{self.name}-", tag[0]).replace(INK, "currentColor")

    def _markup(self) -> str:
        return self._saved("svg", DOTS_PER_INCH).decode()

    def _saved(self, kind: Format, dpi: int, ground: str = "none") -> bytes:
        from matplotlib import rc_context

        buffer = io.BytesIO()
        with rc_context(STYLE), warnings.catch_warnings():  # type: ignore[arg-type]
            warnings.filterwarnings("ignore", message=LETTERS, category=UserWarning)
            extent = _svg_extent(self.figure) if kind == "svg" else "tight"
            self.figure.savefig(
                buffer, format=kind, metadata=UNDATED[kind], bbox_inches=extent, dpi=dpi, facecolor=ground
            )
        return buffer.getvalue()


def _svg_extent(figure: Figure) -> Bbox:
    """Inches that a figure and what hangs around it take as SVG; to ask for ``tight`` would draw all of it twice."""
    from matplotlib import rcParams
    from matplotlib.backends.backend_svg import FigureCanvasSVG, RendererSVG

    before = figure.dpi
    try:
        figure.dpi = FigureCanvasSVG.fixed_dpi
        renderer = RendererSVG(*figure.bbox.size, io.StringIO())  # type: ignore[no-untyped-call]
        return figure.get_tightbbox(renderer).padded(rcParams["savefig.pad_inches"])
    finally:
        figure.dpi = before


def drawing(function: Callable[Draw, Picture]) -> Callable[Draw, Picture]:
    """Draw in the style of all figures, without touching anyone's global one."""

    @wraps(function)
    def draw(*args: Draw.args, **kwargs: Draw.kwargs) -> Picture:
        from matplotlib import rc_context

        with rc_context(STYLE):  # type: ignore[arg-type]
            return function(*args, **kwargs)

    return draw


def _escaped(text: str) -> str:
    from html import escape

    return escape(printable(text), quote=True)


# Axes, names, lines and words that all figures share

WIDTH = 4.4
"""Of a whole figure, in inches."""
SMALL = 7.5
"""Points of what is said below a figure."""
NOTE_WIDTH = 78
LINES = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (6, 1.5, 1.2, 1.5)), (0, (9, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SHOWN = len(PALETTE)
"""Curves that get a colour and a name; more cannot be told apart."""
JOINED = re.compile(r"(.*:|)([^:@]*\+[^:@]*)(@.*|)", re.DOTALL)
"""``strategy:A+B@policy``."""
ELLIPSIS = "…"
POINTS = 72


def canvas(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """One pair of axes, `width` x `height` inches; what hangs around it widens the picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.add_axes((0.0, 0.0, 1.0, 1.0))


def panels(heights: Sequence[float], gap: float, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """Axes below each other, `heights` and the `gap` between them in inches."""
    from matplotlib.figure import Figure

    total = sum(heights) + gap * (len(heights) - 1)
    figure = Figure(figsize=(width, total))
    axes, top = [], total
    for height in heights:
        axes.append(figure.add_axes((0.0, (top - height) / total, 1.0, height / total)))
        top -= height + gap
    return figure, axes


def wide(text: str, size: float = 9.0) -> float:
    """Inches that text takes at a font size in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=LETTERS, category=UserWarning)
        width, _, _ = text_to_path.get_text_width_height_descent(
            text, FontProperties(family="DejaVu Sans", size=size), ismath=False
        )
    return float(width) / POINTS


def fitted(name: str, inches: float, size: float = 9.0) -> str:
    """Name on one line that is no wider than so many inches at a font size in points, cut with an ellipsis."""
    text = printable(name)
    if wide(text, size) <= inches:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if wide(text[:middle] + ELLIPSIS, size) <= inches else (low, middle - 1)
    return text[:low].rstrip() + ELLIPSIS


def distinct(names: Sequence[str], inches: float, size: float = 9.0) -> list[str]:
    """As `fitted`, and where two names would look the same they are numbered."""
    cut = [fitted(name, inches, size) for name in names]
    return [
        text if cut.count(text) == 1 else f"{fitted(name, inches - 0.3, size)} ({at + 1})"
        for at, (text, name) in enumerate(zip(cut, names, strict=True))
    ]


def abbreviated(names: Sequence[str], inches: float, size: float = 9.0) -> tuple[list[str], str]:
    """Names of candidates that fit, and the key to them, which is empty where all names fit as they are.

    Of joined backbones (``concat_svm:ResNet50+VGG19``) each is called by a letter; what is still too long is cut.
    """
    if all(fitted(name, inches, size) == name for name in names):
        return list(names), ""
    subsets = {name: JOINED.fullmatch(name) for name in names}
    parts = {part for found in subsets.values() if found for part in found[2].split("+")}
    code = letters(sorted(parts))
    short = [_lettered(found, code) if found else name for name, found in subsets.items()]
    return distinct(short, inches, size), "; ".join(f"{code[part]} {fitted(part, 1.8)}" for part in code)


def letters(names: Sequence[str]) -> dict[str, str]:
    """A letter for each name, or a number where there are more than 26."""
    few = len(names) <= len(ascii_uppercase)
    return {name: ascii_uppercase[at] if few else str(at + 1) for at, name in enumerate(names)}


def entry(text: str) -> str:
    """A label for the legend: matplotlib hides those that begin with an underscore, as a class may be called."""
    return f" {text}"


def stroke(at: int) -> dict[str, Any]:
    """Colour and dashes of the line number `at`: neighbours differ in both."""
    return {"color": PALETTE[at % len(PALETTE)], "linestyle": LINES[at % len(LINES)], "linewidth": 1.6}


def mark(at: int) -> dict[str, Any]:
    """Colour and shape of the marker number `at`."""
    return {"color": PALETTE[at % len(PALETTE)], "marker": MARKERS[at % len(MARKERS)]}


def below(axes: Axes, note: str = "", *, drop: float = 0.5, left: float = 0.0, columns: int = 1) -> None:
    """Hang the legend of what is labelled and a note under axes, `drop` inches down and `left` inches out.

    Parameters
    ----------
    axes
        With labelled artists, where a legend is wanted.
    note
        What to know in reading it; each line is wrapped.
    drop, left
        Inches that the axes' own words take.
    columns
        Of the legend.
    """
    frame = axes.get_window_extent()
    dpi = axes.get_figure(root=True).dpi  # type: ignore[union-attr]
    at = (-left * dpi / frame.width, -drop * dpi / frame.height)
    handles, names = axes.get_legend_handles_labels()
    words = "\n".join(fill(line, NOTE_WIDTH) for line in note.splitlines() if line)
    style: dict[str, Any] = {"fontsize": SMALL, "va": "top", "ha": "left", "annotation_clip": False}
    if not handles:
        axes.annotate(words, at, xycoords="axes fraction", **style)
        return
    box = axes.legend(
        handles,
        names,
        loc="upper left",
        bbox_to_anchor=at,
        borderaxespad=0.0,
        borderpad=0.0,
        fontsize=SMALL + 0.5,
        handlelength=2.8,
        markerscale=1.5,
        ncols=columns,
    )
    axes.annotate(words, (0, 0), xycoords=box, xytext=(0, -5), textcoords="offset points", **style)


def joined_names(names: Sequence[str], most: int = SHOWN) -> str:
    """Names joined by commas, the first `most` of them and the number of the others."""
    first = ", ".join(printable(name) for name in names[:most])
    return f"{first} and {len(names) - most} more" if len(names) > most else first


def between(value: float, interval: Sequence[float] | None, digits: int = 3) -> str:
    """A number with its interval: ``0.858 [0.812 to 0.897]``."""
    bounds = f" [{interval_text(interval, digits)}]" if interval else ""
    return f"{value:.{digits}f}{bounds}"


@drawing
def blank(name: str, title: str, why: str) -> Picture:
    """A picture that says why there is nothing to draw."""
    figure, axes = canvas(0.6)
    axes.axis("off")
    axes.text(0.0, 0.5, fill(why, NOTE_WIDTH - 12), va="center")
    return Picture(name, title, why, figure, is_empty=True)


def grey_lines(axes: Axes, curves: Iterable[tuple[Any, Any]]) -> None:
    """Curves that get no name."""
    for x, y in curves:
        axes.plot(x, y, color=GREY, linewidth=0.5, alpha=0.45, zorder=1)


def _lettered(found: re.Match[str], code: Mapping[str, str]) -> str:
    return found[1] + "+".join(sorted(code[part] for part in found[2].split("+"))) + found[3]
