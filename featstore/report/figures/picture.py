"""A drawn figure with its words, and how it becomes the same bytes every time."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

from featstore.files import write_private
from featstore.report.plain import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.figure import Figure

    Draw = ParamSpec("Draw")

INK = "#1b1e23"
"""Text and axes: `Picture.inline` lets the page choose this colour."""
PALETTE = ("#3f7fbf", "#d1783a", "#4f9d69", "#a868b5", "#c2504f", "#8a7a5c", "#3fa3a3")
"""Readable on white and on near-black; blue and orange, the first two, also to the colour-blind."""
GREY = "#808080"
"""Of what stands back: grids, chance, the many without a name."""
DOTS_PER_INCH = 160
"""Of the parts that are bitmaps."""
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
    """

    name: str
    title: str
    alt: str
    figure: Figure

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

    def save(self, folder: Path) -> Path:
        """Write ``<name>.svg`` into a folder and return its path."""
        path = folder / f"{self.name}.svg"
        write_private(path, self.svg().encode())
        return path

    def _own(self, tag: re.Match[str]) -> str:
        """One tag with ids of its own and the page's ink; text between tags is data and stays."""
        return REFERENCE.sub(f"{self.name}-", tag[0]).replace(INK, "currentColor")

    def _markup(self) -> str:
        from matplotlib import rc_context

        buffer = io.StringIO()
        with rc_context(STYLE), warnings.catch_warnings():  # type: ignore[arg-type]
            warnings.filterwarnings("ignore", message=LETTERS, category=UserWarning)
            self.figure.savefig(
                buffer, format="svg", metadata={"Date": None}, bbox_inches="tight", dpi=DOTS_PER_INCH
            )
        return buffer.getvalue()


def drawing(function: Callable[Draw, Picture]) -> Callable[Draw, Picture]:
    """Draw in the house's style, without touching anyone's global one."""

    @wraps(function)
    def draw(*args: Draw.args, **kwargs: Draw.kwargs) -> Picture:
        from matplotlib import rc_context

        with rc_context(STYLE):  # type: ignore[arg-type]
            return function(*args, **kwargs)

    return draw


def _escaped(text: str) -> str:
    from html import escape

    return escape(printable(text), quote=True)
