"""What a file may cost for each of its bytes: memory, and steps of the interpreter. docs/security.md has the table.

Steps are calls, from Python and from C: they count alike on every machine, and grow with the square of the input
where a parser does. Each input is the worst of its kind that we know of, in two sizes.
"""

import io
import pickle
import struct
import sys
import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image
from tiffs import page, tiff

from featstore import serialization as document
from featstore.backbones import efficientnet_lite as torch_archive
from featstore.errors import FeatstoreError, ManifestError
from featstore.fusion.model_io import read_arrays
from featstore.images.csv import list_csv
from featstore.images.formats.tiff import list_pages
from featstore.images.reading import decode
from featstore.store import leases as claim
from featstore.store import notes as facts
from featstore.store import store as index
from featstore.store.leases import this_process
from featstore.store.shard import IdSet

pytestmark = pytest.mark.hostile

SMALL = 2 << 20
"""Bytes that a parser may take for whatever it reads."""


def saved(kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind, data=b""):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def text(unit):
    return lambda n: b"[" + unit * (n // len(unit)) + b"0]"


def table(head, unit):
    return lambda n: head + unit * (n // len(unit))


def wide(n):
    return b"path,label" + b",x" * (n // 6) + b"\na,b" + b",x" * (n // 6) + b"\n"


def segment(n):
    return index.encode_entries(
        [
            index.IndexEntry(bytes(32), at.to_bytes(32, "big"), 9, 9, at.to_bytes(64, "big"))
            for at in range(n // 150)
        ]
    )


def lease(n):
    ids = IdSet.of(f"{at:064x}" for at in range(n // 40))
    return claim.encode_claim(claim.LeaseRecord("t", "r", this_process(), "2026", {"k": ids}))


def fact_rows(n):
    head = b'{"featstore":"facts","fields":"%s"}\n' % repr(np.dtype([("id", "S32")]).descr).encode()
    return head + bytes(n // 32 * 32)


def archive(n):
    buffer = io.BytesIO()
    np.savez(buffer, **{f"a{at}": np.zeros(1) for at in range(n // 350)})
    return buffer.getvalue()


def pickles(n):
    parts = [torch_archive.MAGIC, torch_archive.PROTOCOL, {}, [[]] * 2 + [() for _ in range(n)]]
    return b"".join(pickle.dumps(part, 2) for part in parts)


def png(n):
    whole = saved("PNG")
    return whole[:33] + chunk(b"tEXt", b"k\0") * (n // 14) + whole[33:]


def gif(n):
    whole = saved("GIF")
    at = whole.index(b",", 13 + 768) if b"," in whole[13 + 768 :] else whole.index(b",")
    return whole[:at] + b"!\xfe\1x\0" * (n // 5) + whole[at:]


def jpeg(n):
    whole = saved("JPEG")
    return whole[:2] + b"\xff\xec\0\2" * (n // 4) + whole[2:]


def webp(n):
    whole = saved("WEBP", lossless=True)
    body = whole[12:] + b"JUNK\0\0\0\0" * (n // 8)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def ppm(n):
    return b"P5\n" + b"#\n" * (n // 2) + b"16 16\n255\n" + bytes(256)


def pages(n):
    return tiff(*[page(np.zeros((8, 8), np.uint8), {}, b"") for _ in range(n // 200)])


def with_description(n):
    return tiff(page(np.zeros((8, 8), np.uint8), {270: "ImageJ=" + "images=1\n" * (n // 9)}))


COSTS = {
    # name: (input of about n bytes, reader of bytes, bytes of memory for each byte)
    "JSON of lists": (text(b"[],"), document.parse_json, 40),
    "JSON of objects": (text(b'{"a":0},'), document.parse_json, 40),
    "JSON of numbers": (text(b"1e0,"), document.parse_json, 20),
    "JSON of texts": (text(b'"ab",'), document.parse_json, 20),
    "CSV of short rows": (table(b"path,label\n", b"a,b\n"), list_csv, 200),
    "CSV of blank rows": (table(b"path,label\n", b" , \n"), list_csv, 200),
    "CSV of many columns": (wide, list_csv, 200),
    "CSV of one cell": (table(b"path,label\na,", b"z"), list_csv, 200),
    "index": (segment, index.decode_entries, 20),
    "lease": (lease, lambda data: claim.decode_claim("t", data), 20),
    "facts": (fact_rows, facts.decode_facts, 2),
    "npz of a run": (archive, read_arrays, 20),
    ".pth": (pickles, lambda data: torch_archive._read(io.BytesIO(data)), 100),
    "PNG of chunks": (png, decode, 40),
    "GIF of comments": (gif, decode, 40),
    "JPEG of segments": (jpeg, decode, 100),
    "WebP of chunks": (webp, decode, 20),
    "PPM of comments": (ppm, decode, 20),
    "TIFF of pages": (pages, lambda data: list_pages(io.BytesIO(data)), 20),
    "TIFF with a description": (with_description, lambda data: list_pages(io.BytesIO(data)), 20),
}


def steps(read, data):
    count = 0

    def counted(_frame, event, _argument):
        nonlocal count
        count += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        with suppress(FeatstoreError, ValueError, torch_archive._RefusedError):
            read(data)
    finally:
        sys.setprofile(before)
    return count


def peak(read, data):
    tracemalloc.start()
    try:
        with suppress(FeatstoreError, ValueError, torch_archive._RefusedError):
            read(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", COSTS)
def test_memory_and_steps_grow_with_the_bytes_of_a_file_and_no_faster(name, tmp_path):
    make, read, most = COSTS[name]
    if read is list_csv:
        path = tmp_path / "manifest.csv"
        read = lambda data: (path.write_bytes(data), list_csv(path))  # noqa: E731
    few, more, many = make(1_500), make(3_500), make(5_500)
    steps(read, few)  # what is loaded once does not count
    small, middle, large = (steps(read, data) for data in (few, more, many))
    assert large - middle <= 1.3 * (middle - small) + 500
    assert peak(read, many) <= SMALL + most * len(many)


def test_a_document_of_millions_of_lists_is_refused_before_one_is_made(monkeypatch):
    monkeypatch.setattr(document, "MAX_LISTS", 1000)
    monkeypatch.setattr(document.json, "loads", pytest.fail)
    for unit in (b"[],", b"{},"):
        with pytest.raises(document.DocumentError, match="more than 1,000 lists and objects"):
            document.parse_json(b"[" + unit * 1000 + b"0]")


def test_a_table_of_more_rows_or_columns_than_fit_is_refused_with_its_line(monkeypatch, tmp_path):
    monkeypatch.setattr("featstore.images.csv._MAX_CELLS", 3000)
    for name, text_of in (("rows", b"path,label\n" + b"a,b\n" * 400), ("columns", wide(20_000))):
        path = tmp_path / f"{name}.csv"
        path.write_bytes(text_of)
        with pytest.raises(ManifestError, match="more rows and columns than can be read"):
            list_csv(path)
