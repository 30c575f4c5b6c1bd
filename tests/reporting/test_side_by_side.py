"""Runs side by side: paired where they saw the same, and an honest sentence where they did not."""

from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs
from sklearn.metrics import roc_auc_score

from featstore.reporting.page.tables import compare_runs
from featstore.reporting.run_record import read_records
from featstore.tables import interval_text, number_cell


@pytest.fixture(scope="module")
def records(world):
    return read_records([world.fuse, world.head, world.compare])


def test_two_fits_are_paired_on_their_common_test_images(records):
    vote, head, _ = records
    found = compare_runs([vote, head])
    (row,) = found.table.rows
    one, two = vote.predictions["test"], head.predictions["test"]
    assert one.ids == two.ids, "one hold-out"
    assert row[4].key == len(one.ids)
    for cell, answers in ((row[2], one), (row[3], two)):
        assert cell.key == pytest.approx(roc_auc_score(answers.y, answers.proba[:, 1]))
    assert row[1].key == pytest.approx(row[3].key - row[2].key)
    low, high = (float(end.replace("\N{MINUS SIGN}", "-")) for end in row[1].small.split(" to "))
    assert low <= row[1].key <= high


def test_a_fit_and_a_comparison_are_paired_on_the_images_of_the_fit(records):
    vote, _, compare = records
    found = compare_runs([vote, compare])
    (row,) = found.table.rows
    assert row[4].key == len(vote.predictions["test"].ids)
    leader = compare.predictions[compare.shown]
    place = {image: at for at, image in enumerate(leader.ids)}
    rows = np.array([place[image] for image in vote.predictions["test"].ids])
    assert row[3].key == pytest.approx(roc_auc_score(leader.y[rows], leader.proba[rows, 1]))
    told = found.sentences[0]
    assert "that may be chance" in told or "was picked on these images, so that part of it is luck" in told


def test_every_two_of_several_runs_are_paired(records):
    assert len(compare_runs(records).table.rows) == 3
    assert compare_runs(records[:1]) is None


def test_runs_on_different_tables_are_not_paired_and_it_says_why(records):
    vote, head, _ = records
    other = replace(
        head, outcome=structs.replace(head.outcome, matrix={**head.matrix, "data_sha256": "0" * 64})
    )
    found = compare_runs([vote, other])
    assert found.table is None
    assert "saw different tables" in found.sentences[0]
    assert "may be the data's and not the method's" in found.sentences[0]


def test_runs_about_different_classes_are_not_paired(records):
    vote, head, _ = records
    other = replace(head, outcome=structs.replace(head.outcome, matrix={**head.matrix, "positive": "well"}))
    assert "are about different classes" in compare_runs([vote, other]).sentences[0]


def test_chance_is_called_chance(records):
    vote, _, _ = records
    same = replace(vote, name="twin")
    (sentence,) = compare_runs([vote, same]).sentences
    assert "0.000" in sentence
    assert "that may be chance" in sentence


def test_a_difference_that_may_be_chance_has_the_sign_of_its_interval(records):
    vote, head, _ = records
    found = compare_runs([vote, head])
    (sentence,), (row,) = found.sentences, found.table.rows
    difference = f"is {row[1].text} (95 % interval {row[1].small}); that may be chance."
    assert sentence.endswith(difference)


def test_a_difference_of_nothing_has_no_minus():
    assert number_cell(-0.0001, (-0.0004, 0.0004), signed=True).text == "+0.000"
    assert interval_text((-0.0004, 0.0006), signed=True) == "+0.000 to +0.001"
    assert interval_text((-0.0006, 0.0)) == "-0.001 to 0.000"


def test_of_two_runs_of_one_auc_none_is_called_higher(records):
    vote, head, _ = records
    same = replace(head, predictions=vote.predictions, patients=vote.patients)
    (sentence,) = compare_runs([vote, same]).sentences
    assert "differ in AUC by 0.000 (95 % interval " in sentence
    assert "higher" not in sentence
