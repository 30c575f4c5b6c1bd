"""Whoever a backbone knows, or whose patient, is neither scored nor compared on."""

from dataclasses import replace

import numpy as np
import pytest
from fakes_matrix import make_matrix
from hypothesis import given
from hypothesis import strategies as st

from featstore.errors import AuditError
from featstore.evaluation.innocence import require_unknown, unknown
from featstore.folds import hold_out


def knowing(rows, backbone="NetA", **options):
    matrix = make_matrix(**options)
    return replace(matrix, learned={backbone: frozenset(matrix.records[row].id for row in rows)})


@given(st.sets(st.integers(0, 119), max_size=60), st.integers(0, 9))
def test_what_stays_shares_no_patient_with_what_is_known_and_keeps_its_rows(rows, seed):
    matrix = knowing(rows, seed=seed)
    stays = unknown(matrix)
    assert len(stays.records) + stays.set_apart == len(matrix.records)
    assert {*stays.groups} == {*matrix.groups} - {matrix.groups[row] for row in rows}
    where = {record.id: row for row, record in enumerate(matrix.records)}
    kept = [where[record.id] for record in stays.records]
    np.testing.assert_array_equal(stays.features, matrix.features[:, kept])
    np.testing.assert_array_equal(stays.y, matrix.y[kept])


def test_images_of_other_data_sets_do_not_matter():
    matrix = replace(make_matrix(), learned={"NetB": frozenset(["f" * 64])})
    assert unknown(matrix) is matrix
    require_unknown(matrix, hold_out(matrix, 0.25), choosing=True)


def test_if_nobody_is_unknown_there_is_nothing_to_compare():
    with pytest.raises(AuditError, match="NetA learned from all"):
        unknown(knowing(range(0, 120, 3)))


def test_one_known_patient_on_the_wrong_side_is_enough():
    splits = hold_out(make_matrix(), 0.25)
    require_unknown(knowing(splits["train"]), splits)
    stranger = int(splits["test"][0])
    with pytest.raises(AuditError, match=rf"NetA was tuned on 3 of the {len(splits['test'])} images"):
        require_unknown(knowing([*splits["train"], stranger]), splits)


def test_the_second_backbone_is_looked_at_as_well():
    splits = hold_out(make_matrix(), 0.25)
    matrix = knowing(splits["train"])
    both = {**matrix.learned, "NetB": frozenset([matrix.records[splits["test"][0]].id])}
    with pytest.raises(AuditError, match="NetB"):
        require_unknown(replace(matrix, learned=both), splits)


def test_nothing_is_chosen_on_training_images_that_are_known():
    splits = hold_out(make_matrix(), 0.25)
    with pytest.raises(AuditError, match="nothing can be chosen"):
        require_unknown(knowing(splits["train"][:1]), splits, choosing=True)
