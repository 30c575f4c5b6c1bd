"""Facts of images lie beside the shards, and nothing there is believed that does not verify."""

from dataclasses import replace

import numpy as np
import pytest

from featstore import image_facts as facts_module
from featstore.errors import BadImageError
from featstore.image_facts import FACT, FACTS_REVISION, image_copies, image_facts, notes_found
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.phantom import make_phantoms
from featstore.store import notes as stored
from featstore.store.verify import survey
from featstore.types import Decoding

DECODING = Decoding(decoder_version())


@pytest.fixture
def manifest(tmp_path):
    return scan(make_phantoms(tmp_path / "phantoms", patients=4, slices=2, size=32))


def test_what_was_looked_at_once_is_not_read_again(manifest, tmp_path):
    first = image_facts(manifest.records, DECODING, tmp_path / "cache")
    for record in manifest.records:
        record.path.unlink()
    again = image_facts(manifest.records, DECODING, tmp_path / "cache")
    assert (again.rows == first.rows).all()
    assert again.bad == {}


def test_a_damaged_file_of_facts_is_reported_and_looked_at_anew(manifest, tmp_path):
    first = image_facts(manifest.records, DECODING, tmp_path / "cache")
    (page,) = (tmp_path / "cache").rglob("*.rows")
    data = bytearray(page.read_bytes())
    data[-1] ^= 1
    page.write_bytes(data)
    assert [path for path, _ in survey(tmp_path / "cache").bad] == [page]
    assert len(stored.recorded_facts(tmp_path / "cache", DECODING, FACTS_REVISION, FACT)) == 0
    assert (image_facts(manifest.records, DECODING, tmp_path / "cache").rows == first.rows).all()


def test_many_small_files_become_one(manifest, tmp_path):
    rows = image_facts(manifest.records, DECODING).rows
    for number in range(stored.SEGMENTS + 2):
        row = rows[:1].copy()
        row["id"] = bytes([number + 1]) * 32
        stored.record_facts(tmp_path, DECODING, FACTS_REVISION, row)
    found = stored.recorded_facts(tmp_path, DECODING, FACTS_REVISION, FACT)
    assert len(found) == stored.SEGMENTS + 2
    assert len(list(tmp_path.rglob("*.rows"))) == 1
    assert (stored.recorded_facts(tmp_path, DECODING, FACTS_REVISION, FACT) == found).all()


def test_a_file_that_is_gone_has_a_reason_and_no_facts(manifest):
    victim = manifest.records[0]
    victim.path.unlink()
    table = image_facts(manifest.records, DECODING)
    assert [reason for reason, _ in table.bad.values()] == ["missing"]
    assert len(table.records) == len(table.rows) == len(manifest.records) - 1


def test_an_id_that_ends_in_zeros_is_found_again(manifest, tmp_path):
    rows = image_facts(manifest.records, DECODING).rows[:1].copy()
    rows["id"] = b"\x07" * 30 + b"\0\0"
    stored.record_facts(tmp_path, DECODING, FACTS_REVISION, rows)
    record = replace(manifest.records[0], id=(b"\x07" * 30 + b"\0\0").hex())
    assert len(image_facts([record], DECODING, tmp_path).rows) == 1


def test_what_decoding_noted_is_counted(tmp_path):
    from PIL import Image

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for number in range(3):
        Image.new("L", (32 + number, 32), 0).save(tmp_path / "a" / f"{number}.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)).save(
        tmp_path / "b" / "x.png"
    )
    (found,) = notes_found(image_facts(scan(tmp_path).records, DECODING))
    assert (found.code, found.count) == ("FS307", 3)


def test_which_images_are_copies_is_kept_by_id_and_no_picture_is(manifest, tmp_path):
    facts = image_facts(manifest.records, DECODING, tmp_path / "cache")
    groups = [record.id for record in facts.records]
    found = image_copies(facts, groups, DECODING, tmp_path / "cache")
    for record in manifest.records:
        record.path.unlink()
    again = image_facts(manifest.records, DECODING, tmp_path / "cache")
    assert not again.miniatures.known.any()
    assert image_copies(again, groups, DECODING, tmp_path / "cache") == found
    assert FACT.itemsize < 256
    assert survey(tmp_path / "cache").unknown_files == []


def test_facts_that_no_image_can_have_are_not_believed(manifest, tmp_path):
    rows = image_facts(manifest.records, DECODING).rows.copy()
    rows["width"][0], rows["histogram"][1] = 0, np.nan
    stored.record_facts(tmp_path, DECODING, FACTS_REVISION, rows)
    again = image_facts(manifest.records, DECODING, tmp_path).rows
    assert (again["width"] > 0).all()
    assert np.isfinite(again["histogram"]).all()


def test_images_are_looked_at_a_few_ahead_of_what_is_asked_for(manifest, monkeypatch):
    """What was found does not pile up while the first of it is still worked on."""
    begun = []
    monkeypatch.setattr(
        facts_module, "_facts_of", lambda record, _: begun.append(record) or BadImageError("x", "")
    )
    monkeypatch.setattr(facts_module, "threads", lambda: 1)
    records = manifest.records[:1] * 100
    looked = facts_module._stream_facts(range(100), records, DECODING, progress=False)
    next(looked)
    assert len(begun) <= facts_module.AHEAD + 1
    assert len([*looked]) == 99


def test_more_copies_than_a_document_may_hold_are_looked_for_again(tmp_path, monkeypatch):
    key = {"images": "x"}
    pair = ("a" * 64, "b" * 64, 0.5, "copy")
    stored.record_copies(tmp_path, key, stored.CopiesNote([pair] * 3, 4, 5))
    assert stored.recorded_copies(tmp_path, key) == stored.CopiesNote([pair] * 3, 4, 5)
    monkeypatch.setattr(stored.serialization, "LARGE", 1000)
    other = {"images": "y"}
    stored.record_copies(tmp_path, other, stored.CopiesNote([pair] * 30))
    assert stored.recorded_copies(tmp_path, other) is None
    assert len([*(tmp_path / "facts").iterdir()]) == 1
