"""A page as one HTML file that asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from featstore.report.page.card import SOURCE
from featstore.report.page.sheet import Sheet, figure, words
from featstore.report.plain import printable

if TYPE_CHECKING:
    from featstore.report.page.page import Page

MARK = '<meta name="generator" content="featstore report">'
"""By this line a file is known to be a report."""


def render(page: Page) -> str:
    """HTML of a page: styles, script and pictures are in it, and its policy forbids it to load anything.

    Whatever a stranger wrote into a run is escaped, and characters that cannot be seen are spelt out. Equal pages
    give equal text.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True,
        loader=PackageLoader("featstore.report.page"),
        undefined=StrictUndefined,
        finalize=_readable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _text("report.js")
    return environment.get_template("report.html").render(
        page=page,
        card_source=SOURCE,
        shortcuts=_shortcuts(page),
        mark=Markup(MARK),  # noqa: S704 - ours
        style=Markup(_text("report.css")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        drawn={
            picture.name: Markup(picture.inline())  # noqa: S704 - drawn here; matplotlib escapes what it writes
            for picture in (*page.maps, *(picture for part in page.parts for picture in part.pictures))
        },
    )


def _shortcuts(page: Page) -> Sheet | None:
    """How well the label is guessed without a network."""
    if page.audit is None or not page.audit.shortcuts:
        return None
    rows = tuple(
        (words(name), figure(score.value, score.interval)) for name, score in page.audit.shortcuts.items()
    )
    note = "0.5 and less is harmless. A model that is hardly better has learned little more."
    return Sheet("Guessing the label without a network", ("From", "AUC"), rows, note)


def _text(name: str) -> str:
    return files("featstore.report.page").joinpath("templates", name).read_text(encoding="utf-8")


def _readable(value: Any) -> Any:  # noqa: ANN401
    return printable(value) if type(value) is str else value
