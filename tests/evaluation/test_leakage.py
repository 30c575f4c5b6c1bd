"""Whoever a backbone knows, or whose patient, is neither scored nor compared on."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import GridBackbone, spec, write_images
from fakes_matrix import make_matrix
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from featstore.errors import AuditError
from featstore.evaluation.leakage import drop_seen, require_unseen
from featstore.extraction import pipeline as engine
from featstore.extraction.plan import image_blocks, plan
from featstore.image_facts import known_images
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.matrix import load_matrix
from featstore.splits import hold_out
from featstore.store.store import Store
from featstore.store.training_record import KnownImages, TrainingRecord, save_training_record
from featstore.types import IDENTITY, Decoding, FeatureKey


def knowing(rows, backbone="NetA", **options):
    matrix = make_matrix(**options)
    return replace(matrix, seen_by_backbone={backbone: frozenset(matrix.records[row].id for row in rows)})


@given(st.sets(st.integers(0, 119), max_size=60), st.integers(0, 9))
def test_what_stays_shares_no_patient_with_what_is_known_and_keeps_its_rows(rows, seed):
    matrix = knowing(rows, seed=seed)
    stays = drop_seen(matrix)
    assert len(stays.records) + stays.set_apart == len(matrix.records)
    assert {*stays.groups} == {*matrix.groups} - {matrix.groups[row] for row in rows}
    where = {record.id: row for row, record in enumerate(matrix.records)}
    kept = [where[record.id] for record in stays.records]
    np.testing.assert_array_equal(stays.features, matrix.features[:, kept])
    np.testing.assert_array_equal(stays.y, matrix.y[kept])


@pytest.mark.parametrize("names", ["the same", "others"])
def test_learned_images_that_were_saved_anew_are_set_apart_with_their_patients(tmp_path, names):
    """32 images, two a patient; the weights learned from one image of each of four patients."""
    first = scan(write_images(tmp_path / "first", 32))
    key = FeatureKey(spec(), IDENTITY, Decoding(decoder_version()))
    learned = [r for r in first.records if r.group in {"p0", "p1", "p2", "p3"}][::2]
    known = known_images(learned, key.decoding, has_groups=True)
    table = (tmp_path / "first/manifest.csv").read_text()
    for record in first.records:
        path = tmp_path / "anew" / record.path.relative_to(tmp_path / "first").with_suffix(".bmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.array(Image.open(record.path))
        pixels[0, 0] ^= names == "the same"  # then the name is all that tells
        Image.fromarray(pixels).save(path)
    table = table.replace(".png", ".bmp").replace(",p", ",p" if names == "the same" else ",other")
    (tmp_path / "anew/manifest.csv").write_text(table)
    anew = scan(tmp_path / "anew/manifest.csv")
    store = Store(tmp_path / "cache")
    save_training_record(
        store.root, key.backbone, TrainingRecord.from_images(key.backbone.weights, known, KnownImages())
    )
    images = {record.id: record for record in anew.records}
    todo = plan([key], list(images), {})
    engine.run_pass(
        image_blocks(todo),
        images,
        key.decoding,
        {key.backbone: GridBackbone(spec())},
        store,
        engine.NullProgress(),
    )

    matrix = load_matrix(anew, cache=store.root)
    stays = drop_seen(matrix)

    assert (len(stays.records), stays.set_apart) == (24, 8)
    assert {int(record.group.lstrip("pother")) for record in stays.records} == set(range(4, 16))
    (finding,) = [finding for finding in matrix.findings if finding.code == "FS407"]
    assert (finding.count, "pixels" in finding.message) == ((8, False) if names == "the same" else (4, True))
    with pytest.raises(AuditError, match="of the 32 images"):
        require_unseen(matrix, {"test": np.arange(32)})


def test_images_of_other_data_sets_do_not_matter():
    matrix = replace(make_matrix(), seen_by_backbone={"NetB": frozenset(["f" * 64])})
    assert drop_seen(matrix) is matrix
    require_unseen(matrix, hold_out(matrix, 0.25), choosing=True)


def test_if_nobody_is_unknown_there_is_nothing_to_compare():
    with pytest.raises(AuditError, match="NetA learned from all"):
        drop_seen(knowing(range(0, 120, 3)))


def test_one_known_patient_on_the_wrong_side_is_enough():
    splits = hold_out(make_matrix(), 0.25)
    require_unseen(knowing(splits["train"]), splits)
    stranger = int(splits["test"][0])
    with pytest.raises(AuditError, match=rf"NetA was tuned on 3 of the {len(splits['test'])} images"):
        require_unseen(knowing([*splits["train"], stranger]), splits)


def test_the_second_backbone_is_looked_at_as_well():
    splits = hold_out(make_matrix(), 0.25)
    matrix = knowing(splits["train"])
    both = {**matrix.seen_by_backbone, "NetB": frozenset([matrix.records[splits["test"][0]].id])}
    with pytest.raises(AuditError, match="NetB"):
        require_unseen(replace(matrix, seen_by_backbone=both), splits)


def test_nothing_is_chosen_on_training_images_that_are_known():
    splits = hold_out(make_matrix(), 0.25)
    with pytest.raises(AuditError, match="nothing can be chosen"):
        require_unseen(knowing(splits["train"][:1]), splits, choosing=True)
