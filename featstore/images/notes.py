"""What was noted about files while scanning and decoding them, as findings: counted, with a few examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featstore.findings import Finding, counted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from featstore.images.contents import Contents

DECODING: dict[str, tuple[str, str]] = {
    "frames": ("FS304", "{files} of several pictures: only the first was taken."),
    "alpha": ("FS305", "{files} with transparent pixels: these were put on black."),
    "cmyk": ("FS306", "{files} in CMYK: converted to RGB without a colour profile."),
    "constant": ("FS307", "{images} of one colour throughout, showing nothing."),
    "orientation": ("FS308", "{files} with an unreadable orientation tag: taken as stored."),
    "extra_channels": ("FS314", "{files} with channels beyond grey or RGB: these were left out."),
}
"""Key of `featstore.images.decode.WARNINGS` to the code of its finding and the message."""

PAGES: dict[str, tuple[str, str]] = {
    "pages": ("FS309", "{files} of several pages or slices: each of their {pages} pages is an image."),
    "reduced": ("FS310", "{files} with smaller copies or masks of a picture: these pages were skipped."),
    "channels": ("FS311", "{files} whose pages are channels of one picture: each of {pages} is an image."),
    "cut_short": ("FS312", "{files} with fewer slices than announced: those that are there were taken."),
    "sizes": ("FS313", "{files} with pages of different sizes: each of their {pages} pages is an image."),
}
"""Key of `featstore.images.pages.PAGE_NOTES` to the code of its finding and the message."""


def findings_of_notes(notes: Iterable[tuple[Path | str, Iterable[str]]]) -> tuple[Finding, ...]:
    """Count what decoding noted.

    Parameters
    ----------
    notes
        Path of an image and what `featstore.images.decode.decode` noted about it, one pair per image. Notes that
        no finding belongs to are passed over.

    Returns
    -------
    tuple of Finding
        One per kind of note, in the order of the codes, with the number of images and a few paths.
    """
    paths: dict[str, list[str]] = {note: [] for note in DECODING}
    for path, said in notes:
        for note in set(said) & paths.keys():
            paths[note].append(str(path))
    return tuple(
        _finding(*DECODING[note], list(dict.fromkeys(found)), len(found))
        for note, found in paths.items()
        if found
    )


def findings_of_pages(files: Iterable[tuple[str, Contents]]) -> tuple[Finding, ...]:
    """Count what the scan noted about the pages of files.

    Parameters
    ----------
    files
        Name of a file and what is in it.

    Returns
    -------
    tuple of Finding
        One per kind of note, in the order of the codes, with the number of files and a few names.
    """
    files = list(files)
    found = {note: [(name, contents) for name, contents in files if note in contents.notes] for note in PAGES}
    return tuple(
        _finding(
            *PAGES[note], [name for name, _ in rows], len(rows), sum(contents.pages for _, contents in rows)
        )
        for note, rows in found.items()
        if rows
    )


def _finding(code: str, message: str, examples: list[str], count: int, pages: int = 0) -> Finding:
    text = message.format(files=counted(count, "file"), images=counted(count, "image"), pages=pages)
    return Finding(code, text, count, tuple(examples))
