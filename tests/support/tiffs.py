"""TIFF files written by hand, tag by tag, for tests: what cameras and microscopes write, and what liars write."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

BYTES, SHORT, LONG, LONG8 = 2, 3, 4, 16
_LETTERS = {SHORT: "H", LONG: "I", LONG8: "Q"}
_FORMATS = {"b": 1, "u": 1, "i": 2, "f": 3, "c": 6}


class Page(NamedTuple):
    """Samples of a page, tags that replace or join the usual ones, and what stands for its bytes in the file."""

    samples: np.ndarray
    tags: dict[int, int | tuple[int, ...] | str]
    stored: bytes | None = None


def page(samples: np.ndarray, tags: dict | None = None, stored: bytes | None = None) -> Page:
    return Page(np.asarray(samples), tags or {}, stored)


def tiff(*pages: Page, order: str = "<", big: bool = False, below: tuple[Page, ...] = ()) -> bytes:
    """Header, then for each page its samples and its directory; `below` hangs on the first page as tag 330."""
    count, link = ("Q", "Q") if big else ("H", "I")
    out = bytearray(b"II" if order == "<" else b"MM")
    out += struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, 0) if big else (42, 0)))
    links = [len(out) - struct.calcsize(link)]
    subs = [_write(out, sub, order, count, link)[0] for sub in below]
    for number, this in enumerate(pages):
        extra = {330: tuple(subs)} if subs and number == 0 else {}
        at, after = _write(out, this._replace(tags=extra | this.tags), order, count, link)
        struct.pack_into(order + link, out, links[-1], at)
        links.append(after)
    return bytes(out)


def stack(
    slices: np.ndarray, description: str, tags: dict | None = None, *, order: str = "<", big: bool = False
) -> bytes:
    """One directory for the first slice; the others lie behind it, at the end of the file, as ImageJ puts them."""
    whole = slices.astype(slices.dtype.newbyteorder(order)).tobytes()
    first = page(slices[0], {270: description} | (tags or {}), b"")
    head = tiff(first, order=order, big=big)
    placed = page(slices[0], {270: description, 273: len(head), 279: slices[0].nbytes} | (tags or {}), b"")
    return tiff(placed, order=order, big=big) + whole


def _write(out: bytearray, this: Page, order: str, count: str, link: str) -> tuple[int, int]:
    samples = this.samples
    height, width = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    stored = (
        samples.astype(samples.dtype.newbyteorder(order)).tobytes() if this.stored is None else this.stored
    )
    tags = {
        256: width, 257: height, 258: (samples.dtype.itemsize * 8,) * channels, 259: 1, 262: 2 if channels > 2 else 1,
        273: len(out), 277: channels, 278: height, 279: len(stored),
        339: (_FORMATS[samples.dtype.kind],) * channels,
    } | this.tags  # fmt: skip
    out += stored + bytes(len(stored) % 2)
    at, room = len(out), struct.calcsize(link)
    entry = 4 + 2 * room
    far_at = at + struct.calcsize(count) + entry * len(tags) + room
    directory, far = bytearray(struct.pack(order + count, len(tags))), bytearray()
    for tag, value in sorted(tags.items()):
        kind, number, packed = _packed(tag, value, order)
        if len(packed) > room:
            packed, far = struct.pack(order + link, far_at + len(far)), far + packed + bytes(len(packed) % 2)
        directory += struct.pack(order + "HH" + link, tag, kind, number) + packed.ljust(room, b"\0")
    after = at + len(directory)
    out += directory + bytes(room) + far
    return at, after


def _packed(tag: int, value: int | tuple[int, ...] | str, order: str) -> tuple[int, int, bytes]:
    if isinstance(value, str):
        text = value.encode() + b"\0"
        return BYTES, len(text), text
    numbers = value if isinstance(value, tuple) else (value,)
    kind = LONG if tag in {254, 256, 257, 273, 278, 279, 322, 323, 324, 325, 330} else SHORT
    return kind, len(numbers), struct.pack(f"{order}{len(numbers)}{_LETTERS[kind]}", *numbers)
